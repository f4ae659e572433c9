"""One Gaussian release as a distribution of its privacy loss on a grid.

The pair of distributions that is hardest to tell apart is a pair of mixtures on the line,
with the loss log(upper / lower) rising along it. Each cell of the grid hands its mass to its
two ends so that neither distribution's mass changes: "connect the dots". The result is never
easier to tell apart than the truth, and composition keeps that.

References
----------
Doroshenko, Ghazi, Kamath, Kumar and Manurangsi (2022), "Connect the Dots: Tighter Discrete
Approximations of Privacy Loss Distributions", Algorithm 1. Zhu, Dong and Wang (2022),
"Optimal Accounting of Differential Privacy via Characteristic Function", for the pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtr, ndtri_exp

from dpfc.accounting.events import GaussianSteps

Floats = NDArray[np.float64]

# Larger losses count as infinite: exp overflows soon after.
LARGEST_LOSS = 600.0
# Relative error allowed for each value of the normal distribution function.
_ROUNDING = 8 * 2.0**-53
_SKETCH_POINTS = 1001

DIRECTIONS = {"add_or_remove_one": ("remove", "add"), "replace_one": ("replace",)}


@dataclass(frozen=True)
class LossPair:
    """The two mixtures of unit Gaussians that one release must keep apart.

    Parameters
    ----------
    direction : {"remove", "add", "replace"}
        What is done to the data set behind the upper distribution.
    sampling_probability : float in (0, 1]
    shift : float in (0, inf)
        What a drawn row moves the outcome by, in standard deviations of the noise.
    """

    direction: str
    sampling_probability: float
    shift: float

    @classmethod
    def of(cls, step: GaussianSteps, direction: str) -> LossPair:
        """Return the pair of one release of `step`.

        Under "replace", a drawn row and its substitute move the outcome in opposite
        directions by half the sensitivity each.
        """
        reach = 2.0 if direction == "replace" else 1.0
        return cls(direction, step.sampling_probability, 1 / (reach * step.noise_multiplier))

    @property
    def upper(self) -> tuple[tuple[float, float], ...]:
        """(weight, mean) of the components of the upper mixture."""
        return ((1.0, 0.0),) if self.direction == "add" else self._mixture(self.shift)

    @property
    def lower(self) -> tuple[tuple[float, float], ...]:
        """(weight, mean) of the components of the lower mixture."""
        return ((1.0, 0.0),) if self.direction == "remove" else self._mixture(-self.shift)

    def losses(self, outcomes: Floats) -> Floats:
        """Log of upper / lower at `outcomes` (n,), rising."""
        if self.direction == "remove":
            return self._log_ratio(outcomes)
        if self.direction == "add":
            return -self._log_ratio(-outcomes)
        return self._log_ratio(outcomes) - self._log_ratio(-outcomes)

    def outcomes(self, losses: Floats) -> Floats:
        """Return where the loss has the values `losses` (n,); infinite where it never does."""
        if self.direction == "remove":
            return self._where_log_ratio_is(losses)
        if self.direction == "add":
            return -self._where_log_ratio_is(-losses)
        # log ratio(x) - log ratio(-x) = loss is a quadratic equation in exp(shift x + loss/2).
        q, half = self.sampling_probability, np.abs(losses) / 2
        with np.errstate(divide="ignore"):
            log_odds = self.shift**2 / 2 + np.log1p(-q) - math.log(q)
            log_sinh = half + np.log(-np.expm1(-2 * half) / 2) + log_odds
        small = np.arcsinh(np.exp(np.minimum(log_sinh, 300.0)))
        size = np.where(log_sinh < 300, small, log_sinh + math.log(2)) + half
        return np.asarray(np.sign(losses) * size / self.shift)

    def _mixture(self, mean: float) -> tuple[tuple[float, float], ...]:
        q = self.sampling_probability
        return ((1.0, mean),) if q == 1 else ((1 - q, 0.0), (q, mean))

    def _log_ratio(self, outcomes: Floats) -> Floats:
        """Log of ((1 - q) N(0, 1) + q N(shift, 1)) / N(0, 1)."""
        q = self.sampling_probability
        exponents = self.shift * outcomes - self.shift**2 / 2
        if q == 1:
            return exponents
        excess = q * np.expm1(np.minimum(exponents, LARGEST_LOSS))
        # 1 + excess keeps few digits where it is near 1 - q; the sum of both parts keeps them
        # there, and loses them where the ratio is near 1.
        parts = np.logaddexp(math.log1p(-q), exponents + math.log(q))
        near = np.where(excess < -0.5, parts, np.log1p(excess))
        return np.where(exponents < LARGEST_LOSS, near, exponents + math.log(q))

    def _where_log_ratio_is(self, values: Floats) -> Floats:
        q = self.sampling_probability
        with np.errstate(divide="ignore", invalid="ignore"):
            # exp(value) - (1 - q) = exp(value) (1 - exp(log(1 - q) - value)).
            gaps = np.log1p(-q) - values
            exponents = values - math.log(q) + np.log(-np.expm1(np.minimum(gaps, 0.0)))
        return np.where(gaps < 0, exponents / self.shift + self.shift / 2, -math.inf)


@dataclass(frozen=True)
class DiscreteLoss:
    """Masses at the losses (first + i) interval for i = 0 … n - 1, and at infinity."""

    first: int
    masses: Floats
    infinite_mass: float


def outcome_range(pair: LossPair, log_tail_mass: float) -> tuple[float, float]:
    """Return where the upper distribution lies, but for a tail of that mass on either side."""
    reach = -float(ndtri_exp(log_tail_mass))
    means = [mean for _, mean in pair.upper]
    return min(means) - reach, max(means) + reach


def loss_range(pair: LossPair, log_tail_mass: float) -> tuple[float, float]:
    """Losses at the ends of `outcome_range`."""
    ends = pair.losses(np.array(outcome_range(pair, log_tail_mass)))
    low, high = np.clip(ends, -LARGEST_LOSS, LARGEST_LOSS)
    return float(low), float(high)


def discretise(pair: LossPair, interval: float, low: float, high: float) -> DiscreteLoss:
    """Put the loss of one release on the multiples of `interval`, to the safe side.

    Parameters
    ----------
    pair : LossPair
    interval : float in (0, inf)
        In units of epsilon.
    low, high : float in [-600, 600]
        Mass at losses below `low` moves up to about that; above `high`, it counts as
        infinite loss.
    """
    first = math.floor(low / interval)
    last = max(math.ceil(high / interval), first + 1)
    losses: Floats = interval * np.arange(first, last + 1, dtype=float)
    cuts = pair.outcomes(losses)
    upper, upper_error = _cell_masses(pair.upper, cuts)
    lower, lower_error = _cell_masses(pair.lower, cuts)
    # What goes up is a, what stays is b: a + b = upper and a / e^interval + b = lower e^loss,
    # where loss is that of the cell's lower end. Rounding errors go up too.
    scale = np.exp(losses[:-1])
    up = (upper - scale * lower) + (upper_error + scale * lower_error)
    up = np.clip(up / -math.expm1(-interval), 0.0, upper)
    masses = np.zeros(losses.size)
    masses[1:] = up
    masses[:-1] += upper - up
    masses[0] += sum(weight * float(ndtr(cuts[0] - mean)) for weight, mean in pair.upper)
    beyond = sum(weight * float(ndtr(mean - cuts[-1])) for weight, mean in pair.upper)
    return DiscreteLoss(first, masses, beyond)


def _cell_masses(mixture: tuple[tuple[float, float], ...], cuts: Floats) -> tuple[Floats, Floats]:
    """Mass of `mixture` between neighbouring `cuts`, and a bound on its rounding error."""
    masses = np.zeros(cuts.size - 1)
    errors = np.zeros(cuts.size - 1)
    for weight, mean in mixture:
        # Differences of the shorter tail: little cancels. Cells below the mean come first.
        split = min(int(np.searchsorted(cuts, mean)), cuts.size - 1)
        left, right = ndtr(cuts[: split + 1] - mean), ndtr(mean - cuts[split:])
        masses += weight * np.concatenate([np.diff(left), -np.diff(right)])
        errors += weight * np.concatenate([left[1:], right[:-1]])
    # Neighbouring values may fall by their last bit.
    return np.maximum(masses, 0.0), _ROUNDING * errors


class LossSketch:
    """A few points of the loss of one release, to choose a grid from."""

    def __init__(self, pair: LossPair, log_tail_mass: float) -> None:
        outcomes = np.linspace(*outcome_range(pair, log_tail_mass), _SKETCH_POINTS)
        with np.errstate(divide="ignore"):
            logs = [math.log(w) - (outcomes - mean) ** 2 / 2 for w, mean in pair.upper]
        weights = np.logaddexp.reduce(logs, axis=0)
        self._log_weights = weights - logsumexp(weights)
        self._losses = np.clip(pair.losses(outcomes), -LARGEST_LOSS, LARGEST_LOSS)

    def log_moments(self, orders: Floats) -> Floats:
        """Log of E[exp(order * loss)] at each of `orders` (n,)."""
        exponents = self._log_weights + orders[:, None] * self._losses
        peaks = exponents.max(axis=1)
        return np.asarray(peaks + np.log(np.exp(exponents - peaks[:, None]).sum(axis=1)))

    def variance(self, tilt: float) -> float:
        """Variance of the loss, each point weighted with exp(tilt * loss)."""
        exponents = self._log_weights + tilt * self._losses
        weights = np.exp(exponents - logsumexp(exponents))
        return float(weights @ (self._losses - weights @ self._losses) ** 2)
