"""The search for the largest parameter that a budget allows, always from the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dpfc.accounting.events import UnsupportedEventError

# An epsilon over its target is accepted from here to 1, …
_ACCEPTED = 1 - 8e-5
# … and looked for here.
_AIM = 1 - 3e-5
_MAX_EVALUATIONS = 100
# Values further from the target than this factor say no more than "above" or "below".
_FAR = 1e3
# Parameters that are as close as this, relative, are taken for one: epsilon jumps there.
_CLOSE = 1e-5
_MOST_STEPS = 10**15


@dataclass(frozen=True)
class _End:
    """One end of the bracket: where, and the log of epsilon / aim there."""

    at: float
    miss: float

    @property
    def is_far(self) -> bool:
        return abs(self.miss) > math.log(_FAR)


def find_log(
    epsilon_at: Callable[[float], float], target: float, start: float, highest: float = math.inf
) -> float:
    """Find where epsilon is just below `target`.

    Parameters
    ----------
    epsilon_at : callable
        From the log of a parameter to an epsilon in [0, inf], rising.
    target : float in (0, inf)
    start, highest : float
        Where to begin, and the largest log that is tried; epsilon is above `target` there.

    Returns
    -------
    float
        A log whose epsilon is at most `target` and, unless epsilon jumps, at least
        (1 - 8e-5) `target`.

    Raises
    ------
    UnsupportedEventError
        When the search does not end, because the accountant knows no such epsilon.
    """
    ends: dict[bool, _End] = {}
    previous, at, stride = None, min(start, highest), 1.0
    if highest < math.inf:
        ends[False] = _End(highest, math.inf)
    for trial in range(_MAX_EVALUATIONS):
        ratio = epsilon_at(at) / target
        if _ACCEPTED <= ratio <= 1:
            return at
        fits = ratio <= 1
        end = _End(at, _log(ratio / _AIM))
        # The rule of Anderson and Bjorck: an end that stays twice counts less, or steps would
        # creep towards the target from the other side.
        if fits == previous and len(ends) == 2:
            left = 1 - end.miss / ends[fits].miss
            factor = left if left > 0 else 0.5
            ends[not fits] = _End(ends[not fits].at, ends[not fits].miss * factor)
        ends[fits], previous = end, fits
        if len(ends) < 2:
            at -= math.copysign(min(abs(ends[fits].miss), stride), ends[fits].miss)
            stride *= 1.5
        elif ends[False].at - ends[True].at < _CLOSE:
            return ends[True].at
        else:
            at = _between(ends[True], ends[False], halve=trial % 4 == 3)
    raise UnsupportedEventError(
        f"the accountant finds no epsilon just below target_epsilon={target!r} in "
        f"{_MAX_EVALUATIONS} trials; another accountant may."
    )


def find_count(epsilon_at: Callable[[int], float], target: float) -> int:
    """Return the largest count whose epsilon is at most `target`: the next one's is not.

    Parameters
    ----------
    epsilon_at : callable
        From a count of at least 1 to an epsilon in [0, inf], rising.
    target : float in (0, inf)

    Returns
    -------
    int
        0 when not even 1 fits.

    Raises
    ------
    ValueError
        When 10^15 fit.
    """
    low, low_miss, count = 0, -math.inf, 1
    while True:
        miss = _log(epsilon_at(count) / target)
        if miss > 0:
            break
        if count == _MOST_STEPS:
            raise ValueError(f"{_MOST_STEPS:g} steps and more fit the budget.")
        low, low_miss = count, miss
        # Epsilon grows about like the root of the count; a little too far closes the bracket.
        growth = min(math.exp(-2 * miss), _FAR)
        count = min(max(math.ceil(count * growth * 1.01), count + 1), _MOST_STEPS)
    high, high_miss = count, miss
    for trial in range(_MAX_EVALUATIONS):
        if high - low <= 1:
            return low
        if trial % 3 == 2 or math.isinf(low_miss) or math.isinf(high_miss):
            count = (low + high) // 2
        else:
            share = low_miss / (low_miss - high_miss)
            count = round(low * (high / low) ** share)
        count = min(max(count, low + 1), high - 1)
        miss = _log(epsilon_at(count) / target)
        if miss > 0:
            high, high_miss = count, miss
        else:
            low, low_miss = count, miss
    return low


def _between(low: _End, high: _End, halve: bool) -> float:
    """Where a straight line meets the aim, or the middle where an end is far from it."""
    middle = (low.at + high.at) / 2
    if halve or low.is_far or high.is_far or not low.miss < 0 < high.miss:
        return middle
    at = low.at + (high.at - low.at) * low.miss / (low.miss - high.miss)
    return at if low.at < at < high.at else middle


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf
