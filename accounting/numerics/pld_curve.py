"""Composition of discrete privacy losses, and the delta at every epsilon that it gives.

The masses are convolved by Fourier transform, after each was weighted with exp(tilt * loss):
that moves the composed mass to the epsilon in question, where rounding errors are then small
beside it, however small delta is.

References
----------
Koskela, Jalko and Honkela (2020), "Computing Tight Differential Privacy Guarantees Using FFT",
for the transform. Alghamdi, Gomez, Asoodeh, Calmon, Kosut and Sankar (2023), "The Saddle-Point
Method in Differential Privacy", for the tilt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import logsumexp

from dpfc.accounting.numerics.pld_step import DiscreteLoss

Floats = NDArray[np.float64]

_UNIT = 2.0**-53
# exp of this is far below one rounding error.
_SMALLEST_LOG = -80.0
# exp of anything larger would overflow.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Window:
    """Part of the line of composed losses that is looked at, and the tilt.

    Parameters
    ----------
    low, high : float
        Losses above `high` count as infinite. Losses outside come back in at the other end
        as well, which only raises delta; nearly all of the tilted mass should be inside.
    tilt : float in [0, inf)
    order : float in (0, inf)
        Order of the moment that bounds the mass above `high`.
    """

    low: float
    high: float
    tilt: float
    order: float


class LossCurve:
    """Delta at every epsilon, from masses at the multiples of an interval."""

    def __init__(self, first: int, interval: float, masses: Floats, infinite_mass: float) -> None:
        """Sum up `masses` (n,) at the losses (first + i) interval."""
        self._losses = interval * np.arange(first, first + masses.size)
        self._infinite_mass = infinite_mass
        # Each sum is off by less than one rounding error a term.
        slack = 1 + 2 * masses.size * _UNIT
        discounts = np.exp(self._losses[0] - self._losses)
        # Index i: all masses from i on; one more for none.
        self._above = np.append(_sums_from_above(masses) * slack, 0.0) + infinite_mass
        self._discounted = np.append(_sums_from_above(masses * discounts) / slack, 0.0)

    def deltas(self, epsilons: Floats) -> Floats:
        """Return the delta at each of `epsilons` (n,)."""
        first_above = np.searchsorted(self._losses, epsilons, side="right")
        exponents = np.clip(epsilons - self._losses[0], 0.0, _LARGEST_EXPONENT)
        deltas = self._above[first_above] - np.exp(exponents) * self._discounted[first_above]
        deltas = np.clip(deltas, self._infinite_mass, 1.0)
        # Below the window: delta is convex in exp(epsilon), and 1 where that is 0.
        share = -np.expm1(np.minimum(epsilons - self._losses[0], 0.0))
        return np.asarray(deltas + share * (1 - deltas))

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon at `delta`: in [0, inf]."""
        growth = np.exp(np.minimum(self._losses - self._losses[0], _LARGEST_EXPONENT))
        at_losses = np.minimum.accumulate(self._above[1:] - growth * self._discounted[1:])
        fits = np.flatnonzero(at_losses <= delta)
        if fits.size == 0:
            return math.inf
        i = int(fits[0])
        if self._losses[i] <= 0:
            return 0.0
        if i == 0:
            return max(0.0, float(self._losses[0] + math.log((1 - delta) / (1 - at_losses[0]))))
        # Between two losses, delta falls in a straight line over exp(epsilon).
        gap = self._losses[i] - self._losses[i - 1]
        share = (at_losses[i - 1] - delta) / (at_losses[i - 1] - at_losses[i])
        epsilon = self._losses[i - 1] + math.log1p(share * math.expm1(gap))
        return float(min(max(epsilon, 0.0), self._losses[i]))


def compose(
    parts: Sequence[tuple[DiscreteLoss, int]], interval: float, window: Window
) -> LossCurve:
    """Add up independent losses: each of `parts` as often as its count says."""
    first, last = math.floor(window.low / interval), math.ceil(window.high / interval)
    if any(not part.masses.any() for part, _ in parts):
        return LossCurve(first, interval, np.zeros(1), infinite_mass=1.0)
    size = fft.next_fast_len(last - first + 1, real=True)
    last = first + size - 1
    spectrum = np.ones(size // 2 + 1, dtype=complex)
    log_moment = error = 0.0
    total = sum(count for _, count in parts)
    for part, count in parts:
        masses, part_log_moment = _tilted(part, interval, window.tilt)
        factor = fft.rfft(_wrapped(masses, part.first, size))
        # The transform's own error, then that of the power.
        error += count * _UNIT * (math.log2(size) * float(np.linalg.norm(masses)) + 2 * math.pi)
        spectrum *= _power(factor, count)
        log_moment += count * part_log_moment
        del factor, masses
    weights = np.abs(spectrum)
    allowance = 8 * (error + math.log2(size) * _UNIT) * float(2 * weights.sum()) / size
    tilted = np.roll(fft.irfft(spectrum, size), -(first % size))
    exponents = log_moment - window.tilt * interval * np.arange(first, last + 1)
    masses = np.maximum(tilted, 0.0) + allowance
    # The exponents are sums of as many rounded numbers as there are releases.
    masses *= np.exp(np.minimum(exponents, _LARGEST_EXPONENT)) * (1 + 8 * total * _UNIT)
    return LossCurve(first, interval, masses, _infinite_mass(parts, interval, last, window))


def _power(values: NDArray[np.complex128], count: int) -> NDArray[np.complex128]:
    """Raise complex numbers of at most about 1 to a power; the smallest results count as 0."""
    with np.errstate(divide="ignore"):
        visible = count * np.log(np.abs(values)) > _SMALLEST_LOG
    powers = np.zeros(values.size, dtype=complex)
    powers[visible] = values[visible] ** float(count)
    return powers


def _infinite_mass(
    parts: Sequence[tuple[DiscreteLoss, int]], interval: float, last: int, window: Window
) -> float:
    """Mass that was infinite from the start, and a bound on what is beyond the window."""
    if any(part.infinite_mass >= 1 for part, _ in parts):
        return 1.0
    infinite = -math.expm1(sum(count * math.log1p(-part.infinite_mass) for part, count in parts))
    if sum(count * (part.first + part.masses.size - 1) for part, count in parts) <= last:
        return infinite
    log_moment = math.fsum(
        count * _tilted(part, interval, window.order)[1] for part, count in parts
    )
    beyond = math.exp(min(log_moment - window.order * interval * last, 0.0))
    return min(1.0, infinite + beyond)


def _tilted(part: DiscreteLoss, interval: float, tilt: float) -> tuple[Floats, float]:
    """Return the masses times exp(tilt * loss), scaled to sum to 1, and the log of the scale."""
    losses = interval * np.arange(part.first, part.first + part.masses.size)
    with np.errstate(divide="ignore"):
        logs = np.log(part.masses) + tilt * losses
    log_moment = float(logsumexp(logs))
    return np.exp(logs - log_moment), log_moment


def _wrapped(masses: Floats, first: int, size: int) -> Floats:
    """Place `masses` on a circle of `size` points, the loss 0 at index 0."""
    offset = first % size
    padded = np.zeros(-(-(offset + masses.size) // size) * size)
    padded[offset : offset + masses.size] = masses
    return np.asarray(padded.reshape(-1, size).sum(axis=0))


def _sums_from_above(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values[::-1])[::-1])
