"""Noise multipliers that spend a budget, rounded so that it is never exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dpfc.accounting._checks import NEIGHBORING_RELATIONS, check_choice, check_target
from dpfc.accounting.accountants import compute_epsilon
from dpfc.accounting.gaussian import gaussian_mu
from dpfc.accounting.plans import PlannedRelease, PrivacyPlan, ReleaseRequest, check_unique_names

_SHARES_TOLERANCE = 1e-9
# Relative excess of every noise multiplier: covers rounding of the composed mu, in any
# order of summation, and of a noise multiplier recomputed from a standard deviation.
_NOISE_MARGIN = 1e-12
# A sampled plan's epsilon, over the target, is accepted in this interval.
_ACCEPTED = (1 - 1e-3, 1 - 1e-6)
_AIM = 1 - 4e-4
_MAX_EVALUATIONS = 60


def calibrate(
    requests: Sequence[ReleaseRequest],
    *,
    target_epsilon: float,
    target_delta: float,
    neighboring_relation: str,
) -> PrivacyPlan:
    """Give each requested release the least noise that the budget allows.

    Full-batch releases get z = 1 / (mu sqrt(share / count)) with the largest safe mu of
    (target_epsilon, target_delta). With a Poisson-sampled release, mu becomes the one
    parameter m of a family, in which sampled releases get z = q / (m sqrt(share / count)),
    and m is searched: the PLD epsilon lands between 0.999 target_epsilon and
    target_epsilon. Shares are then a starting proportion only.

    Parameters
    ----------
    requests : sequence of ReleaseRequest
        Shares sum to 1.
    target_epsilon : float in (0, inf]
        Infinity asks for no noise.
    target_delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    neighboring_relation : {"add_or_remove_one", "replace_one"}

    Returns
    -------
    PrivacyPlan
        Its epsilon at `target_delta` is at most `target_epsilon`, as evaluated by the
        default accountant.

    Raises
    ------
    ValueError
        When a parameter is outside its interval, shares do not sum to 1, or names repeat.
    UnsupportedEventError
        When a release is sampled, and delta is too small for the PLD accountant or pays
        alone for the few rows that are ever drawn, so that noise has no effect.
    RuntimeError
        When the search for a sampled plan's noise does not end.
    """
    target_epsilon, target_delta = check_target(target_epsilon, target_delta)
    check_choice("neighboring_relation", neighboring_relation, NEIGHBORING_RELATIONS)
    check_unique_names([request.name for request in requests])
    total_share = math.fsum(request.share for request in requests)
    if abs(total_share - 1) > _SHARES_TOLERANCE:
        raise ValueError(f"shares must sum to 1, got a sum of {total_share!r}.")

    def plan_at(scale: float) -> PrivacyPlan:
        releases = tuple(_plan_release(request, scale, total_share) for request in requests)
        return PrivacyPlan(target_epsilon, target_delta, neighboring_relation, releases)

    if target_epsilon == math.inf:
        return plan_at(math.inf)
    mu = gaussian_mu(target_epsilon, target_delta)
    if all(request.sampling_probability == 1 for request in requests):
        return plan_at(mu)

    def epsilon_at(log_scale: float) -> float:
        return compute_epsilon(
            plan_at(math.exp(log_scale)).event,
            target_delta,
            neighboring_relation=neighboring_relation,
            accountant="pld",
        )

    start = min(mu, *(_scale_with_moderate_noise(request) for request in requests))
    return plan_at(math.exp(_search(epsilon_at, target_epsilon, math.log(start))))


def _scale_with_moderate_noise(request: ReleaseRequest) -> float:
    """Scale at which a sampled release has the noise multiplier 1/2; the search starts there.

    With less noise, epsilon explodes and says little about where the target is.
    """
    if request.sampling_probability == 1:
        return math.inf
    return 2 * request.sampling_probability / math.sqrt(request.share / request.count)


def _plan_release(request: ReleaseRequest, scale: float, total_share: float) -> PlannedRelease:
    # Dividing by the sum keeps shares that sum to 1 + 1e-10 from overspending.
    share = request.share / total_share
    noise_multiplier = request.sampling_probability / (scale * math.sqrt(share / request.count))
    return PlannedRelease(
        name=request.name,
        noise_multiplier=noise_multiplier * (1 + _NOISE_MARGIN),
        count=request.count,
        sampling_probability=request.sampling_probability,
        share=request.share,
    )


def _search(epsilon_at: Callable[[float], float], target: float, start: float) -> float:
    """Find the log scale whose epsilon is just below `target`; epsilon rises with scale.

    Regula falsi on log(epsilon / target), aimed at the middle of the accepted interval.
    """

    def miss_at(log_scale: float) -> float:
        # A floor keeps the logarithm finite where delta alone pays and epsilon is 0.
        return math.log(max(epsilon_at(log_scale) / target, 1e-3) / _AIM)

    ends: dict[bool, tuple[float, float]] = {}
    previous = None
    log_scale = start
    for _ in range(_MAX_EVALUATIONS):
        miss = miss_at(log_scale)
        if _ACCEPTED[0] < math.exp(miss) * _AIM <= _ACCEPTED[1]:
            return log_scale
        below = miss < 0
        # The Illinois rule: an end that stays twice counts half, or steps would creep
        # towards the target from the other side.
        if below == previous and len(ends) == 2:
            stale, stale_miss = ends[not below]
            ends[not below] = (stale, stale_miss / 2)
        ends[below], previous = (log_scale, miss), below
        if len(ends) == 2:
            (low, low_miss), (high, high_miss) = ends[True], ends[False]
            log_scale = low + (high - low) * low_miss / (low_miss - high_miss)
        else:
            log_scale -= min(max(miss, -1.0), 1.0)
    raise RuntimeError(
        f"no noise found for target_epsilon={target!r} in {_MAX_EVALUATIONS} trials."
    )
