"""Noise multipliers that spend a budget, and what it allows of one quantity when others are given.

Every result is on the safe side: its epsilon, as evaluated by the accountant, is at most the
target. Where one quantity is solved for (`steps` releases of one Gaussian mechanism, full batch
or Poisson sampled), it is within 1e-4, relative, of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy.optimize import brentq

from dpfc._support.validation import RELATION, check, check_float, check_int, check_target
from dpfc.accounting.accountants import checked_steps, exact_mu, resolve_accountant, trial_epsilon
from dpfc.accounting.events import (
    GaussianSteps,
    UnsupportedEventError,
    only_gaussian,
    probability_drawn,
)
from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
from dpfc.accounting.numerics.root_finding import find_count, find_log
from dpfc.accounting.plans import (
    PlannedRelease,
    PrivacyPlan,
    ReleaseRequest,
    check_unique_names,
    release_event,
)

__all__ = [
    "calibrate",
    "calibrate_noise_multiplier",
    "calibrate_sampling_probability",
    "calibrate_steps",
    "central_limit_mu",
]

_SHARES_TOLERANCE = 1e-9
# Relative excess of every noise multiplier: covers rounding of the composed mu, in any
# order of summation, and of a noise multiplier recomputed from a standard deviation.
_NOISE_MARGIN = 1e-12
_LARGEST_EXPONENT = 100.0


def calibrate(
    requests: Sequence[ReleaseRequest],
    *,
    target_epsilon: float,
    target_delta: float,
    neighboring_relation: str,
    accountant: str = "auto",
) -> PrivacyPlan:
    """Give each requested release the least noise that the budget allows.

    Full-batch releases get z = 1 / (mu sqrt(share / count)), where "exact" takes the largest
    safe mu of (target_epsilon, target_delta). For other accountants mu becomes the one
    parameter m of a family, in which sampled releases get z = q / (m sqrt(share / count)),
    and m is searched: epsilon lands between (1 - 1e-4) target_epsilon and target_epsilon.
    With sampled releases, shares are then a starting proportion only.

    Parameters
    ----------
    requests : sequence of ReleaseRequest
        Shares sum to 1.
    target_epsilon : float in (0, inf]
        Infinity asks for no noise.
    target_delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        "auto": "exact" when every release is full batch, otherwise "pld", or "rdp" for a delta
        below 1e-12.

    Returns
    -------
    PrivacyPlan
        Its epsilon at `target_delta` is at most `target_epsilon`, as evaluated by its
        `accountant`, which is never "auto".

    Raises
    ------
    ValueError
        When a parameter is outside its interval, shares do not sum to 1, or names repeat.
    UnsupportedEventError
        When `accountant` cannot evaluate the releases, or every release is sampled and
        delta pays alone for the few rows that are ever drawn, so that noise has no effect.
    """
    target_epsilon, target_delta = check_target(target_epsilon, target_delta)
    check("neighboring_relation", neighboring_relation, RELATION)
    check_unique_names([request.name for request in requests])
    total_share = math.fsum(request.share for request in requests)
    if abs(total_share - 1) > _SHARES_TOLERANCE:
        raise ValueError(f"shares must sum to 1, got a sum of {total_share!r}.")

    def plan_at(scale: float) -> PrivacyPlan:
        releases = tuple(_plan_release(request, scale, total_share) for request in requests)
        return PrivacyPlan(target_epsilon, target_delta, neighboring_relation, releases, accountant)

    event = plan_at(1.0).event
    accountant = resolve_accountant(
        accountant, event, target_delta=target_delta, neighboring_relation=neighboring_relation
    )
    steps = checked_steps(event, neighboring_relation)
    if accountant == "exact":
        exact_mu(steps)  # raises for sampled releases
    if target_epsilon == math.inf:
        return plan_at(math.inf)
    mu = _aim(target_epsilon, target_delta)
    if accountant == "exact":
        return plan_at(mu)
    if accountant == "pld":
        _refuse_too_few_draws(only_gaussian(steps, accountant), target_delta)

    def epsilon_at(log_scale: float) -> float:
        event = plan_at(math.exp(log_scale)).event
        return trial_epsilon(event, target_delta, neighboring_relation, accountant)

    start = _log_scale_guess(plan_at, mu)
    return plan_at(math.exp(find_log(epsilon_at, target_epsilon, start)))


def _aim(target_epsilon: float, target_delta: float) -> float:
    """Return the mu that a plan is made for: the largest, or a trifle below it.

    The mu of all releases together is rounded, to a little less. Where epsilon is next to nothing,
    it is computed with an error that is larger than that, and a statement would say more than was
    planned, after the spend.
    """
    mu, room = gaussian_mu(target_epsilon, target_delta), 2.0**-48
    # Where the mu of a plan's releases lies: their noise has a margin.
    below = [1.0 - k * _NOISE_MARGIN / 100 for k in range(201)]
    while any(gaussian_epsilon(mu * part, target_delta) > target_epsilon for part in below):
        mu, room = mu * (1.0 - room), 2.0 * room
    # More of it, as not every number was tried.
    return mu if room == 2.0**-48 else mu * (1.0 - 8.0 * room)


def central_limit_mu(noise_multiplier: float, neighboring_relation: str) -> float:
    """Return about what mu is, over q sqrt(steps), for many releases of few rows.

    References
    ----------
    Bu, Dong, Long and Su (2020), "Deep Learning with Gaussian Differential Privacy",
    Section 2.4: sqrt(exp(1/z^2) - 1), the standard deviation of the privacy loss. The same
    under `replace_one` is 2 sqrt(sinh(1/(4 z^2))).
    """
    exponent = min(noise_multiplier**-2, _LARGEST_EXPONENT)
    if neighboring_relation == "replace_one":
        return 2 * math.sqrt(math.sinh(exponent / 4))
    return math.sqrt(math.expm1(exponent))


def _log_scale_guess(plan_at: Callable[[float], PrivacyPlan], mu: float) -> float:
    """Return the log of the scale at which the plan's mu is about `mu`."""

    def log_miss(log_scale: float) -> float:
        plan = plan_at(math.exp(log_scale))
        squares = []
        for release in plan.releases:
            z, q = release.noise_multiplier, release.sampling_probability
            one = 1 / z if q == 1 else q * central_limit_mu(z, plan.neighboring_relation)
            squares.append(release.count * one * one)
        return math.log(math.fsum(squares)) / 2 - math.log(mu)

    # At the scale mu, the plan's mu is `mu` or more: a sampled release's is above q / z.
    low, high = math.log(mu), math.log(mu)
    while log_miss(low) > 0:
        low -= 1.0
    return low if low == high else float(brentq(log_miss, low, high, xtol=1e-3))


def _refuse_too_few_draws(steps: tuple[GaussianSteps, ...], delta: float) -> None:
    """Raise when no row is drawn with a probability of more than delta."""
    drawn = probability_drawn(steps)
    if drawn <= delta:
        raise UnsupportedEventError(
            f"a row is ever drawn with a probability of {drawn:.3g}, which target_delta={delta!r} "
            "allows to be published without any noise: there is no noise to calibrate. Ask for a "
            "smaller delta, more steps or a larger sampling probability."
        )


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


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    steps: int = 1,
    sampling_probability: float = 1.0,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> float:
    """Smallest noise multiplier that `steps` releases need.

    Parameters
    ----------
    target_epsilon : float in (0, inf]
    target_delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    steps : int, default=1
    sampling_probability : float in (0, 1], default=1.0
        1 is full batch.
    neighboring_relation : {"add_or_remove_one", "replace_one"}, default="add_or_remove_one"
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        As in `compute_epsilon`.

    Returns
    -------
    float
        Standard deviation of the noise / l2 sensitivity; 0 when epsilon is infinite.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases, or delta pays alone for the few rows
        that are ever drawn, so that noise has no effect.
    ValueError
        When a parameter is outside its interval.
    """
    steps = check_int("steps", steps, 1)
    plan = calibrate(
        [ReleaseRequest("gaussian", 1.0, steps, sampling_probability)],
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        neighboring_relation=neighboring_relation,
        accountant=accountant,
    )
    return plan["gaussian"].noise_multiplier


def calibrate_steps(
    noise_multiplier: float,
    *,
    target_epsilon: float,
    target_delta: float,
    sampling_probability: float = 1.0,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> int:
    """Largest number of releases that fits the budget, as evaluated by the accountant.

    Parameters
    ----------
    noise_multiplier : float in (0, inf)
    target_epsilon : float in (0, inf)
    target_delta : float in (0, 1)
    sampling_probability, neighboring_relation, accountant
        As in `calibrate_noise_multiplier`.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases.
    ValueError
        When a parameter is outside its interval, not even one release fits, or 10^15 do.
    """
    probability = check_float("sampling_probability", sampling_probability, 0, 1, closed="right")
    task = _Task(noise_multiplier, target_epsilon, target_delta, neighboring_relation, accountant)
    steps = find_count(lambda count: task.epsilon(count, probability), task.target_epsilon)
    if steps == 0:
        raise ValueError(
            f"not even one release with noise_multiplier={noise_multiplier!r} fits "
            f"target_epsilon={target_epsilon!r} and target_delta={target_delta!r}; ask "
            "calibrate_noise_multiplier how much noise one needs."
        )
    return steps


def calibrate_sampling_probability(
    noise_multiplier: float,
    steps: int,
    *,
    target_epsilon: float,
    target_delta: float,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> float:
    """Largest probability with which each row may take part in each release.

    Parameters
    ----------
    noise_multiplier : float in (0, inf)
    steps : int
    target_epsilon : float in (0, inf)
    target_delta : float in (0, 1)
    neighboring_relation, accountant
        As in `calibrate_noise_multiplier`.

    Returns
    -------
    float
        In (0, 1]; 1, the full batch, when that fits.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases.
    ValueError
        When a parameter is outside its interval.
    """
    steps = check_int("steps", steps, 1)
    task = _Task(noise_multiplier, target_epsilon, target_delta, neighboring_relation, accountant)
    if task.epsilon(steps, 1.0) <= task.target_epsilon:
        return 1.0
    log_probability = find_log(
        lambda log_q: task.epsilon(steps, math.exp(log_q)),
        task.target_epsilon,
        task.log_probability_guess(steps),
        highest=0.0,
    )
    return math.exp(log_probability)


class _Task:
    """What is the same in each trial of a search."""

    def __init__(
        self, noise_multiplier: float, epsilon: float, delta: float, relation: str, accountant: str
    ) -> None:
        self.noise_multiplier = check_float("noise_multiplier", noise_multiplier, 0, math.inf)
        self.target_epsilon, self._delta = check_target(epsilon, delta)
        check_float("target_epsilon", self.target_epsilon, 0, math.inf)
        self._relation, self._accountant = relation, accountant

    def epsilon(self, steps: int, sampling_probability: float) -> float:
        """Epsilon of `steps` releases; infinite where it is too large to tell."""
        event = release_event(self.noise_multiplier, steps, sampling_probability)
        return trial_epsilon(event, self._delta, self._relation, self._accountant)

    def log_probability_guess(self, steps: int) -> float:
        """By the central limit theorem."""
        one = math.sqrt(steps) * central_limit_mu(self.noise_multiplier, self._relation)
        guess = gaussian_mu(self.target_epsilon, self._delta) / one
        return math.log(min(max(guess, self._delta / steps), 0.5))
