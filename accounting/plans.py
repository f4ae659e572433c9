"""What a fit may release, decided before any private row is read."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import dp_accounting

from dpfc._support.validation import (
    ACCOUNTANT,
    RELATION,
    check,
    check_float,
    check_int,
    check_target,
)
from dpfc.accounting.events import event_mu

_MAX_SAMPLED = 100_000_000
# Why a run is not private whose noise comes from a seed.
SEEDED = "random_state was given: anyone who knows the seed can remove the noise; do not publish"


@dataclass(frozen=True)
class ReleaseRequest:
    """A release that a solver asks for.

    Parameters
    ----------
    name : str
        Unique within a plan.
    share : float in (0, 1]
        Share of the budget mu^2, for all `count` invocations together.
    count : int, default=1
        How often the mechanism is invoked.
    sampling_probability : float in (0, 1], default=1.0
        Probability with which each row takes part in one invocation, independently
        (Poisson sampling); 1 is full batch.

    Raises
    ------
    ValueError
        When a field is outside its interval.
    """

    name: str
    share: float
    count: int = 1
    sampling_probability: float = 1.0

    def __post_init__(self) -> None:
        _check_release(self.name, self.share, self.count, self.sampling_probability)


@dataclass(frozen=True)
class PlannedRelease:
    """A release with the noise that it must carry.

    Parameters
    ----------
    name : str
    noise_multiplier : float in [0, inf)
        Standard deviation of the noise / l2 sensitivity *for the plan's neighboring
        relation*; 0 adds no noise and is not private. A sampled release under
        `replace_one` must have sensitivity 2C, where C bounds what one row adds.
    count : int
    sampling_probability : float in (0, 1]
    share : float in (0, 1]

    Raises
    ------
    ValueError
        When a field is outside its interval.
    """

    name: str
    noise_multiplier: float
    count: int
    sampling_probability: float
    share: float

    def __post_init__(self) -> None:
        _check_release(self.name, self.share, self.count, self.sampling_probability)
        check_float("noise_multiplier", self.noise_multiplier, 0, math.inf, closed="left")

    def with_share(self, share: float) -> PlannedRelease:
        """Return this release at another share of the same budget; full batch only."""
        # A factor above what rounding can take off the noise.
        scale = math.sqrt(self.share / share) * (1.0 + 2.0**-46)
        return replace(self, share=share, noise_multiplier=self.noise_multiplier * scale)

    @property
    def event(self) -> dp_accounting.DpEvent:
        """All `count` invocations, as dp_accounting describes them."""
        return release_event(self.noise_multiplier, self.count, self.sampling_probability)


@dataclass(frozen=True)
class PrivacyPlan:
    """Every release of a fit, calibrated to one (epsilon, delta).

    Parameters
    ----------
    target_epsilon : float in (0, inf]
    target_delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    releases : tuple of PlannedRelease
        Names are unique; `plan[name]` finds one.
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        What the releases were calibrated with; "auto" stands for the tightest.

    Raises
    ------
    ValueError
        When a field is outside its interval or a name appears twice.
    """

    target_epsilon: float
    target_delta: float
    neighboring_relation: str
    releases: tuple[PlannedRelease, ...]
    accountant: str = "auto"

    def __post_init__(self) -> None:
        check("accountant", self.accountant, ACCOUNTANT)
        check_target(self.target_epsilon, self.target_delta)
        check("neighboring_relation", self.neighboring_relation, RELATION)
        check_unique_names([release.name for release in self.releases])

    def __getitem__(self, name: str) -> PlannedRelease:
        for release in self.releases:
            if release.name == name:
                return release
        listed = ", ".join(repr(release.name) for release in self.releases)
        raise KeyError(f"no release named {name!r} in the plan, which has {listed}.")

    @property
    def event(self) -> dp_accounting.DpEvent:
        """The composition of all releases."""
        return dp_accounting.ComposedDpEvent([release.event for release in self.releases])

    @property
    def mu(self) -> float | None:
        """Composed mu = sqrt(sum count / z^2), or None when a release is sampled.

        Infinity when a release carries no noise.
        """
        return event_mu(self.event)

    def reallocated(self, name: str, share: float, *, keep: Collection[str] = ()) -> PrivacyPlan:
        """Give a release another share; all others but `keep` pay for it, in proportion.

        Parameters
        ----------
        name : str
        share : float
            Of the whole budget; 0 drops the release.
        keep : collection of str
            Releases that stay as they are, such as those that were drawn already.

        Returns
        -------
        PrivacyPlan
            Of the same composed mu, or a rounding error less.

        Raises
        ------
        ValueError
            When a release is sampled or has no noise, so that shares do not simply add up;
            or when the others cannot pay for the share.

        References
        ----------
        Smith, Thakurta (2022), Fully Adaptive Composition for Gaussian Differential Privacy:
        a plan may be reallocated by what was released already, as long as the sum of
        count / z^2 stays below a number that was fixed before.
        """
        if self.mu is None or math.isinf(self.mu):
            raise ValueError("only a plan of full-batch releases with noise can be reallocated.")
        if isinstance(keep, str):
            raise ValueError(f"keep must be a list of names, got the text {keep!r}.")
        payers = [r.share for r in self.releases if r.name != name and r.name not in keep]
        pool = math.fsum([self[name].share, *payers])
        if not payers or not 0.0 <= share < pool:
            raise ValueError(f"share must be at least 0 and below {pool:g}, got {share!r}.")
        factor = (pool - share) / math.fsum(payers)
        shares = {
            r.name: share if r.name == name else r.share * (1.0 if r.name in keep else factor)
            for r in self.releases
        }
        releases = tuple(
            r if r.name in keep else r.with_share(min(1.0, shares[r.name]))
            for r in self.releases
            if shares[r.name] > 0.0
        )
        return replace(self, releases=releases)


def release_event(
    noise_multiplier: float, count: int, sampling_probability: float
) -> dp_accounting.DpEvent:
    """Describe `count` invocations of one Gaussian mechanism as a `DpEvent`."""
    event: dp_accounting.DpEvent
    if noise_multiplier == 0:
        event = dp_accounting.NonPrivateDpEvent()
    else:
        event = dp_accounting.GaussianDpEvent(noise_multiplier)
        if sampling_probability < 1:
            event = dp_accounting.PoissonSampledDpEvent(sampling_probability, event)
    return dp_accounting.SelfComposedDpEvent(event, count) if count > 1 else event


def check_unique_names(names: Sequence[str]) -> None:
    """Raise ValueError when a release name appears twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"names of releases must be unique, got {list(names)!r}.")


def _check_release(name: object, share: object, count: object, probability: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string, got {name!r}.")
    # The interval is (0, 1]: a share of nothing cannot be released with finite noise.
    check_float("share", share, 0, 1, closed="right")
    number = check_int("count", count, 1)
    sampled = check_float("sampling_probability", probability, 0, 1, closed="right") < 1
    if sampled and number > _MAX_SAMPLED:
        raise ValueError(
            f"count must be at most {_MAX_SAMPLED:,} where rows are sampled, got {number:,}: more "
            "take more memory to add up than most machines have."
        )
