"""What a hyperparameter search costs: noise for its runs, and the event that all of it is.

Two strategies. *Composition* runs every candidate once and publishes every score: k runs at
μ_c and a refit at μ_r are √(k μ_c² + μ_r²)-GDP, exactly. *Random stopping* runs candidates
that are drawn at random, a random number of times, and publishes the best run only: what it
costs grows with the logarithm of the mean number of runs, and not with its root.

A run is a fit on one part of the rows and a score on the other, each μ-GDP. A row is in one
part only, so that a run is μ-GDP as a whole (see `dpfc.search.holdout` for the proof).

References
----------
Papernot and Steinke (2022), "Hyperparameter Tuning with Renyi Differential Privacy".
Dong, Roth and Su (2022), "Gaussian Differential Privacy", Corollary 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc._support.validation import Choice, check, check_float, check_int
from dpfc.accounting.accountants import compute_epsilon
from dpfc.accounting.calibration import calibrate
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from dpfc.accounting.numerics.rdp_selection import negative_binomial_gamma
from dpfc.accounting.numerics.root_finding import find_log
from dpfc.accounting.plans import PrivacyPlan, ReleaseRequest, release_event

__all__ = ["RunLaw", "SearchPlan", "calibrate_search", "gaussian_target"]

# Relative, of log gamma: takes back what `negative_binomial_gamma` rounds down, and more, so
# that the law that is drawn from has at most the mean that is accounted for.
_GAMMA_MARGIN = 1e-11
# Relative excess of a noise multiplier over what was asked for, as in `calibration`.
_NOISE_MARGIN = 1e-12
# The mu of a run is looked for between this share of what one single run would have, and that.
_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True)
class RunLaw:
    """Law of the number of runs K under random stopping.

    Parameters
    ----------
    mean : float in [1, inf)
        Mean of K.
    shape : float in [0, inf]
        η of the negative binomial law truncated to K >= 1; 1 is geometric, 0 logarithmic.
        Infinity is the Poisson law, under which K may be 0.

    Raises
    ------
    ValueError
        When a field is outside its interval.

    References
    ----------
    Papernot and Steinke (2022), Definition 1 and Theorem 6.
    """

    mean: float
    shape: float

    def __post_init__(self) -> None:
        check_float("mean", self.mean, 1, math.inf, closed="left")
        check_float("shape", self.shape, 0, math.inf, closed="both")

    def probability(self, count: int) -> float:
        """P(K = count)."""
        if self.shape == math.inf:
            log = count * math.log(self.mean) - self.mean - math.lgamma(count + 1)
            return math.exp(log)
        if count < 1:
            return 0.0
        log_gamma = math.log(negative_binomial_gamma(self.mean, self.shape)) * (1 - _GAMMA_MARGIN)
        if log_gamma == 0:
            return float(count == 1)
        log = count * math.log(-math.expm1(log_gamma))
        if self.shape == 0:
            return math.exp(log - math.log(count) - math.log(-log_gamma))
        log -= math.log(math.expm1(-self.shape * log_gamma))
        log += math.lgamma(count + self.shape) - math.lgamma(self.shape)
        return math.exp(log - math.lgamma(count + 1))

    def draw(self, uniform: float) -> int:
        """Draw K by inversion: the smallest count with P(K <= count) > `uniform`.

        Parameters
        ----------
        uniform : float in [0, 1)
            A secret draw.
        """
        count, below = 0, self.probability(0)
        # Rounding may keep the sum below the last uniforms: it ends far in the tail as well.
        while below <= uniform and not (count > self.mean and self.probability(count) < 1e-18):
            count += 1
            below += self.probability(count)
        return count

    def event(self, run: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
        """K runs of which only the best is published."""
        return RepeatAndSelectDpEvent(run, float(self.mean), float(self.shape))


@dataclass(frozen=True)
class SearchPlan:
    """Noise of a search's runs and of its refit, for one (epsilon, delta) together.

    Attributes
    ----------
    promise : PrivacyPlan
        Targets, neighboring relation and accountant; under composition with the releases
        "runs" and "refit", under random stopping with "refit" only.
    n_candidates : int
    law : RunLaw or None
        Of the number of runs; None under composition.
    run_noise_multiplier, refit_noise_multiplier : float in [0, inf]
        1/μ of a run and of the refit; 0 adds no noise, infinity stands for no refit.
    """

    promise: PrivacyPlan
    n_candidates: int
    law: RunLaw | None
    run_noise_multiplier: float
    refit_noise_multiplier: float

    @property
    def neighboring_relation(self) -> str:
        """The promise's."""
        return self.promise.neighboring_relation

    @property
    def run_mu(self) -> float:
        """μ of one run; infinity without noise."""
        return _inverse(self.run_noise_multiplier)

    @property
    def refit_mu(self) -> float:
        """μ of the refit; 0 where there is none."""
        return _inverse(self.refit_noise_multiplier)

    @property
    def has_refit(self) -> bool:
        """Whether part of the budget is kept for a fit on all rows."""
        return self.refit_noise_multiplier < math.inf

    @property
    def event(self) -> dp_accounting.DpEvent:
        """Everything that the search does, published or not."""
        return _search_event(
            self.n_candidates, self.law, self.run_noise_multiplier, self.refit_noise_multiplier
        )


def calibrate_search(
    n_candidates: int,
    *,
    target_epsilon: float,
    target_delta: float,
    neighboring_relation: str,
    refit_share: float = 0.0,
    law: RunLaw | None = None,
    accountant: str = "auto",
) -> SearchPlan:
    """Give the runs of a search, and its refit, the least noise that the budget allows.

    Parameters
    ----------
    n_candidates : int
        Number of settings to choose from.
    target_epsilon : float in (0, inf]
        Infinity asks for no noise.
    target_delta : float in (0, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    refit_share : float in [0, 1), default=0.0
        Share of μ² that the refit gets: of the search's μ², under composition; of what one
        single run would have, under random stopping.
    law : RunLaw, optional
        Random stopping with this law of the number of runs; composition without it.
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        Random stopping is bounded by "rdp" only.

    Returns
    -------
    SearchPlan
        The epsilon of its event is at most `target_epsilon` and, for "auto", at least
        (1 - 1e-4) of it.

    Raises
    ------
    ValueError
        When a parameter is outside its interval, or the budget is too small to search.
    """
    check_int("n_candidates", n_candidates, 1)
    refit_share = check_float("refit_share", refit_share, 0, 1, closed="left")
    requests = [ReleaseRequest("runs", 1.0 - refit_share, n_candidates)]
    if refit_share > 0:
        requests.append(ReleaseRequest("refit", refit_share))
    if law is not None:
        check("accountant", accountant, Choice(("auto", "rdp")))
    plan = calibrate(
        requests,
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        neighboring_relation=neighboring_relation,
        accountant=accountant if law is None else "auto",
    )
    refit = plan["refit"].noise_multiplier if refit_share > 0 else math.inf
    if law is None:
        return SearchPlan(plan, n_candidates, None, plan["runs"].noise_multiplier, refit)
    promise = PrivacyPlan(
        plan.target_epsilon,
        plan.target_delta,
        neighboring_relation,
        tuple(release for release in plan.releases if release.name == "refit"),
        "rdp",
    )
    run = 0.0
    if target_epsilon < math.inf:
        run = _run_noise(n_candidates, law, refit, promise)
    return SearchPlan(promise, n_candidates, law, run, refit)


def gaussian_target(mu: float, delta: float) -> tuple[float, float]:
    """Return an (epsilon, delta) whose full-batch plans are μ-GDP with at most `mu`.

    Parameters
    ----------
    mu : float in (0, inf]
    delta : float in (0, 1)
        Kept, unless it alone would pay for `mu`; then it is lowered.
    """
    if mu == math.inf:
        return math.inf, delta
    delta = min(delta, gaussian_delta(mu, 0.0) / 2)
    epsilon, step = gaussian_epsilon(mu, delta), 1e-14
    while gaussian_mu(epsilon, delta) > mu:
        epsilon *= 1 - step
        step *= 2
    return epsilon, delta


def _search_event(
    n_candidates: int, law: RunLaw | None, run: float, refit: float
) -> dp_accounting.DpEvent:
    """Compose runs and refit from their noise multipliers."""
    if law is None:
        events = [release_event(run, n_candidates, 1.0)]
    else:
        events = [law.event(release_event(run, 1, 1.0))]
    if refit < math.inf:
        events.append(release_event(refit, 1, 1.0))
    return dp_accounting.ComposedDpEvent(events)


def _run_noise(n_candidates: int, law: RunLaw, refit: float, promise: PrivacyPlan) -> float:
    """Noise multiplier of a run under random stopping, for an epsilon just below the target."""
    target = promise.target_epsilon

    def epsilon_at(log_mu: float) -> float:
        return compute_epsilon(
            _search_event(n_candidates, law, math.exp(-log_mu), refit),
            promise.target_delta,
            neighboring_relation=promise.neighboring_relation,
            accountant="rdp",
        )

    # A search costs more than one of its runs: the whole budget's mu is too much for a run.
    highest = math.log(gaussian_mu(target, promise.target_delta))
    if epsilon_at(highest + math.log(_SMALLEST_SHARE)) >= target:
        raise ValueError(
            f"epsilon = {target!r} at delta = {promise.target_delta!r} is too small for a search "
            "by random stopping. Lower mean_runs or refit_share, or search by composition."
        )
    log_mu = find_log(epsilon_at, target, highest - 1.0, highest)
    return math.exp(-log_mu) * (1 + _NOISE_MARGIN)


def _inverse(noise_multiplier: float) -> float:
    return math.inf if noise_multiplier == 0 else 1 / noise_multiplier
