"""Privacy loss distributions (PLD), through dp_accounting, on a grid that fits the event.

dp_accounting reads the noise multiplier of a Gaussian under REPLACE_ONE as sigma / C, where
C bounds what one row adds, and takes the two neighbours to lie at -C and +C
(`AdjacencyType.REPLACE` in `privacy_loss_mechanism.py`). Ours is always
sigma / sensitivity, and there the sensitivity is 2C: noise multipliers are doubled on the
way in, under `replace_one` only. Full-batch releases come out right whatever C is; a
sampled release must have sensitivity 2C, as a clipped sum of rows has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution
from numpy.typing import NDArray
from scipy.special import ndtri_exp

from dpfc.accounting._events import GaussianSteps, UnsupportedEventError, composed_mu

# Below this, the error of the FFT and the mass that is cut off (1e-15 a factor) would show.
SMALLEST_DELTA = 1e-12
# Grid points per standard deviation of the composed loss, spread over sqrt(steps): the
# composed variance grows by at most the factor 1 + 1 / (4 * 40^2).
_POINTS_PER_DEVIATION = 40
# dp_accounting visits each point of one step in Python, about 10 microseconds each.
_MAX_STEP_POINTS = 100_000
# Composed grids are arrays of floats and are Fourier transformed.
_MAX_COMPOSED_POINTS = 4_000_000
# Share of delta that may be spent on cutting off tails of the noise, over all steps: the
# shorter the tails, the finer the grid that the same number of points affords.
_TAIL_SHARE = 1e-5

_RELATIONS = {
    "add_or_remove_one": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace_one": NeighboringRelation.REPLACE_ONE,
}


def pld_epsilon(
    steps: tuple[GaussianSteps, ...], target_delta: float, neighboring_relation: str
) -> float:
    """Upper bound on the epsilon of composed `steps`.

    Raises
    ------
    UnsupportedEventError
        When delta is too small to be resolved, or dp_accounting fails.
    """
    if target_delta < SMALLEST_DELTA:
        raise UnsupportedEventError(
            f"pld resolves target_delta down to {SMALLEST_DELTA:g}, got {target_delta!r}."
        )
    try:
        pld = _compose(steps, neighboring_relation, target_delta)
        return _finite_or_inf(pld.get_epsilon_for_delta(target_delta))
    except (ArithmeticError, ValueError, MemoryError) as error:
        raise _failure(steps, error) from error


def pld_delta(
    steps: tuple[GaussianSteps, ...], target_epsilon: float, neighboring_relation: str
) -> float:
    """Upper bound on the delta of composed `steps`, never below `SMALLEST_DELTA`.

    Raises
    ------
    UnsupportedEventError
        When dp_accounting fails.
    """
    try:
        pld = _compose(steps, neighboring_relation, SMALLEST_DELTA)
        delta = _finite_or_inf(pld.get_delta_for_epsilon(target_epsilon))
    except (ArithmeticError, ValueError, MemoryError) as error:
        raise _failure(steps, error) from error
    return min(max(delta, SMALLEST_DELTA), 1.0)


def discretization_interval(
    steps: tuple[GaussianSteps, ...], neighboring_relation: str, log_tail_mass: float
) -> float:
    """Spacing of the grid of privacy losses, in units of epsilon.

    A fixed spacing fails: rounding adds a variance of up to interval^2 / 4 at each step, so
    the spacing has to shrink with the composed loss over sqrt(number of steps). Where that
    needs too many points it is coarser, which only raises epsilon.
    """
    reach = -float(ndtri_exp(log_tail_mass))
    moments = [_loss_deviation_and_range(step, neighboring_relation, reach) for step in steps]
    counts = [step.count for step in steps]
    deviation = math.sqrt(
        math.fsum(count * d * d for count, (d, _) in zip(counts, moments, strict=True))
    )
    return max(
        deviation / (_POINTS_PER_DEVIATION * math.sqrt(sum(counts))),
        2 * reach * deviation / _MAX_COMPOSED_POINTS,
        max(loss_range for _, loss_range in moments) / _MAX_STEP_POINTS,
    )


def _compose(steps: tuple[GaussianSteps, ...], neighboring_relation: str, delta: float) -> Any:
    steps = _merge_full_batch(steps)
    log_tail_mass = math.log(_TAIL_SHARE * delta / sum(step.count for step in steps))
    interval = discretization_interval(steps, neighboring_relation, log_tail_mass)
    composed = None
    for step in steps:
        pld = privacy_loss_distribution.from_gaussian_mechanism(
            _standard_deviation(step, neighboring_relation),
            value_discretization_interval=interval,
            log_mass_truncation_bound=log_tail_mass,
            sampling_prob=step.sampling_probability,
            neighboring_relation=_RELATIONS[neighboring_relation],
        )
        if step.count > 1:
            pld = pld.self_compose(step.count)
        composed = pld if composed is None else composed.compose(pld)
    return composed


def _merge_full_batch(steps: tuple[GaussianSteps, ...]) -> tuple[GaussianSteps, ...]:
    """Replace full-batch releases by the one Gaussian that equals them exactly."""
    full_batch = [step for step in steps if not step.is_sampled]
    sampled = tuple(step for step in steps if step.is_sampled)
    if not full_batch:
        return sampled
    return (GaussianSteps(1 / composed_mu(full_batch), 1.0, 1), *sampled)


def _standard_deviation(step: GaussianSteps, neighboring_relation: str) -> float:
    """Noise in units of one row's largest contribution: what dp_accounting means."""
    factor = 2.0 if neighboring_relation == "replace_one" else 1.0
    return factor * step.noise_multiplier


def _loss_deviation_and_range(
    step: GaussianSteps, neighboring_relation: str, reach: float
) -> tuple[float, float]:
    """Estimate one step's standard deviation of the loss and the length of its grid.

    `reach` is where the noise is cut off, in its standard deviations.
    """
    q, sigma = step.sampling_probability, _standard_deviation(step, neighboring_relation)
    replaces = neighboring_relation == "replace_one"
    noise = np.linspace(-reach, reach, 2001)
    density = np.exp(-noise * noise / 2)
    density /= density.sum()
    # The outcome is N(0, sigma^2) for a row that is not drawn and N(1, sigma^2) for one that is.
    outcomes = np.concatenate([sigma * noise, 1 + sigma * noise])
    weights = np.concatenate([(1 - q) * density, q * density])
    losses = _log_likelihood_ratio(outcomes, q, sigma)
    if replaces:
        losses = losses - _log_likelihood_ratio(-outcomes, q, sigma)
    mean = weights @ losses
    deviation = math.sqrt(float(weights @ (losses - mean) ** 2))
    return deviation, float(np.ptp(losses))


def _log_likelihood_ratio(
    outcomes: NDArray[np.float64], q: float, sigma: float
) -> NDArray[np.float64]:
    """Log of ((1 - q) N(0, sigma^2) + q N(1, sigma^2)) / N(0, sigma^2) at `outcomes`."""
    exponents: NDArray[np.float64] = (outcomes - 0.5) / sigma / sigma
    if q == 1:
        return exponents
    ratio: NDArray[np.float64] = np.logaddexp(math.log1p(-q), math.log(q) + exponents)
    return ratio


def _finite_or_inf(value: float) -> float:
    number = float(value)
    if math.isnan(number):
        raise ArithmeticError("the result is not a number")
    return number


def _failure(steps: tuple[GaussianSteps, ...], error: Exception) -> UnsupportedEventError:
    return UnsupportedEventError(f"pld cannot evaluate {steps!r} ({error}).")
