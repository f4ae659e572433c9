"""All of a guarantee at once: every (epsilon, delta) pair, and what an attacker can do.

A mechanism is (epsilon, delta(epsilon))-private for every epsilon. The same curve, read the
other way, bounds every attack that tells two neighbouring data sets apart from the releases:
an attack with false positive rate a has a true positive rate of at most

    min over epsilon >= 0 of  e^epsilon a + delta  and  1 - e^-epsilon (1 - delta - a).

Everything here is an upper bound.

References
----------
Kairouz, Oh and Viswanath (2015), "The Composition Theorem for Differential Privacy",
Theorem 2.1. Dong, Roth and Su (2022), "Gaussian Differential Privacy", Propositions 2 and 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import dp_accounting
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from dpfc._support.validation import check_float, check_target
from dpfc.accounting.accountants import checked_steps, exact_mu, resolve_accountant
from dpfc.accounting.events import has_no_noise, only_gaussian
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpfc.accounting.numerics.pld import pld_deltas
from dpfc.accounting.numerics.rdp import rdp_deltas

__all__ = [
    "PrivacyProfile",
    "delta_profile",
    "guarantee_profile",
    "mu_profile",
    "privacy_profile",
]

Floats = NDArray[np.float64]

# exp of anything larger than this overflows soon.
_LARGEST_EPSILON: Final = 700.0
# Relative: a closed form of a few operations is off by less than this.
_ROUNDING: Final = 1e-12


class PrivacyProfile(ABC):
    """Upper bounds on what the releases of a mechanism give away."""

    @abstractmethod
    def delta(self, epsilon: float) -> float:
        """Delta at `epsilon` in [0, inf): in [0, 1], falling with epsilon.

        Raises
        ------
        ValueError
            When epsilon is outside its interval.
        """

    @abstractmethod
    def epsilon(self, delta: float) -> float:
        """Smallest known epsilon at `delta` in [0, 1): in [0, inf], falling with delta.

        Raises
        ------
        ValueError
            When delta is outside its interval.
        """

    @abstractmethod
    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Largest true positive rate of any attack with this false positive rate, in [0, 1].

        An attack sees all releases and everything else but the one row that it asks about.

        Raises
        ------
        ValueError
            When the false positive rate is outside [0, 1].
        """

    @property
    def advantage(self) -> float:
        """Largest true positive rate minus false positive rate: delta at epsilon 0."""
        return self.delta(0.0)


def privacy_profile(
    event: dp_accounting.DpEvent, *, neighboring_relation: str, accountant: str = "auto"
) -> PrivacyProfile:
    """Return the profile of `event`, composed once.

    Parameters
    ----------
    event : DpEvent
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        As in `compute_epsilon`.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate `event`.
    ValueError
        When a parameter is not one of the choices.
    """
    accountant = resolve_accountant(accountant, event)
    steps = checked_steps(event, neighboring_relation)
    if has_no_noise(steps):
        return mu_profile(math.inf)
    if not steps:
        return mu_profile(0.0)
    if accountant == "exact":
        return mu_profile(exact_mu(steps))
    if accountant == "pld":
        return _CurveProfile(pld_deltas(only_gaussian(steps, "pld"), neighboring_relation))
    return _CurveProfile(rdp_deltas(steps, neighboring_relation))


def mu_profile(mu: float) -> PrivacyProfile:
    """Return the profile of a mu-GDP mechanism, in closed form; `mu` in [0, inf]."""
    return _GaussianProfile(check_float("mu", mu, 0, math.inf, closed="both"))


def guarantee_profile(epsilon: float, delta: float) -> PrivacyProfile:
    """Return the profile of a mechanism of which one (epsilon, delta) is all that is known.

    Parameters
    ----------
    epsilon : float in (0, inf]
    delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    """
    return _GuaranteeProfile(*check_target(epsilon, delta))


def delta_profile(delta_at: Callable[[float], float]) -> PrivacyProfile:
    """Return the profile of a mechanism whose delta is known at every epsilon.

    Parameters
    ----------
    delta_at : callable
        From epsilon in [0, 700] to an upper bound on delta, falling with epsilon.
    """
    return _CurveProfile(lambda epsilons: np.array([delta_at(float(e)) for e in epsilons]))


class _GaussianProfile(PrivacyProfile):
    def __init__(self, mu: float) -> None:
        self._mu = mu

    def delta(self, epsilon: float) -> float:
        return gaussian_delta(self._mu, epsilon)

    def epsilon(self, delta: float) -> float:
        if check_float("delta", delta, 0, 1, closed="left") == 0:
            return math.inf if self._mu > 0 else 0.0
        return gaussian_epsilon(self._mu, delta)

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Phi(Phi^-1(a) + mu); Dong, Roth and Su (2022), equation (6)."""
        rate = _check_rate(false_positive_rate)
        if rate in (0.0, 1.0):
            return 1.0 if rate == 1 or self._mu == math.inf else 0.0
        bound = float(ndtr(ndtri(rate) + self._mu))
        return rate if self._mu == 0 else min(1.0, bound * (1 + _ROUNDING))


class _GuaranteeProfile(PrivacyProfile):
    """The hockey-stick divergences of the trade-off curve with one corner.

    delta(e) = 1 - (1 - delta) (1 + e^e) / (1 + e^epsilon) below epsilon, delta above.
    """

    def __init__(self, epsilon: float, delta: float) -> None:
        self._epsilon, self._delta = epsilon, delta

    def delta(self, epsilon: float) -> float:
        epsilon = check_float("epsilon", epsilon, 0, math.inf, closed="left")
        if epsilon >= self._epsilon:
            return self._delta
        log_ratio = float(np.logaddexp(0, epsilon) - np.logaddexp(0, self._epsilon))
        return 1 - (1 - self._delta) * math.exp(log_ratio)

    def epsilon(self, delta: float) -> float:
        delta = check_float("delta", delta, 0, 1, closed="left")
        if delta < self._delta or self._epsilon == math.inf:
            return math.inf
        # log of 1 + e^e at the smallest e that delta allows.
        corner = math.log1p(-delta) - math.log1p(-self._delta) + np.logaddexp(0, self._epsilon)
        if corner <= math.log(2):
            return 0.0
        return min(self._epsilon, float(corner + math.log(-math.expm1(-corner))))

    def true_positive_rate(self, false_positive_rate: float) -> float:
        rate = _check_rate(false_positive_rate)
        return float(_true_positive_rate(rate, np.array([self._epsilon]), np.array([self._delta])))


class _CurveProfile(PrivacyProfile):
    """Bounds from delta at many epsilons, by a function of an array of them."""

    def __init__(self, deltas_at: Callable[[Floats], Floats]) -> None:
        self._deltas_at = deltas_at
        self._coarse = np.concatenate([[0.0], np.geomspace(1e-6, _LARGEST_EPSILON, 600)])
        # The least of what is known at any smaller epsilon: falling, whatever the bounds are.
        self._coarse_deltas = np.minimum.accumulate(self._checked(self._coarse))

    @property
    def advantage(self) -> float:
        """The least that any known pair allows: where its two lines of attacks cross.

        Both give 1 - 2 (1 - delta) / (1 + e^epsilon) there, which for a loose curve is less
        than delta at epsilon 0.
        """
        crossings = 1 - 2 * (1 - self._coarse_deltas) * expit(-self._coarse)
        return max(0.0, float(crossings.min()))

    def delta(self, epsilon: float) -> float:
        epsilon = check_float("epsilon", epsilon, 0, math.inf, closed="left")
        known = self._coarse_deltas[self._coarse <= epsilon][-1]
        if epsilon > _LARGEST_EPSILON:
            return float(known)
        return float(min(known, self._checked(np.array([epsilon]))[0]))

    def epsilon(self, delta: float) -> float:
        delta = check_float("delta", delta, 0, 1, closed="left")
        fits = np.flatnonzero(self._coarse_deltas <= delta)
        if fits.size == 0:
            return math.inf
        if fits[0] == 0:
            return 0.0
        low, high = self._coarse[fits[0] - 1], self._coarse[fits[0]]
        # Each round divides the interval by 64 and keeps its upper end, which is safe.
        for _ in range(8):
            grid = np.linspace(low, high, 65)
            inside = np.flatnonzero(self._checked(grid[1:-1]) <= delta)
            first = 1 + inside[0] if inside.size else 64
            low, high = grid[first - 1], grid[first]
        return float(high)

    def true_positive_rate(self, false_positive_rate: float) -> float:
        rate = _check_rate(false_positive_rate)
        best = 1.0
        for bound in (_steep_bound, _flat_bound):
            coarse = bound(rate, self._coarse, self._coarse_deltas)
            i = int(np.argmin(coarse))
            ends = self._coarse[max(i - 1, 0)], self._coarse[min(i + 1, self._coarse.size - 1)]
            fine = np.linspace(*ends, 201)
            best = min(best, float(coarse[i]), float(bound(rate, fine, self._checked(fine)).min()))
        return max(rate, best)

    def _checked(self, epsilons: Floats) -> Floats:
        return np.clip(self._deltas_at(epsilons), 0.0, 1.0)


def _true_positive_rate(rate: float, epsilons: Floats, deltas: Floats) -> float:
    bounds = (_steep_bound(rate, epsilons, deltas), _flat_bound(rate, epsilons, deltas))
    return min(1.0, *(float(bound.min()) for bound in bounds))


def _steep_bound(rate: float, epsilons: Floats, deltas: Floats) -> Floats:
    """e^epsilon a + delta: the inequality of differential privacy itself."""
    if rate == 0:
        return deltas
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(epsilons + math.log(rate)) + deltas)


def _flat_bound(rate: float, epsilons: Floats, deltas: Floats) -> Floats:
    """1 - e^-epsilon (1 - delta - a): the same for the complement, with neighbours swapped."""
    return np.asarray(1 - np.exp(-epsilons) * np.maximum(1 - deltas - rate, 0))


def _check_rate(value: object) -> float:
    return check_float("false_positive_rate", value, 0, 1, closed="both")
