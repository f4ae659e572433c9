"""What several rows cost: from a guarantee for one row to one for a group of rows, and back.

A group of k rows is k rows added, removed or replaced one after the other, so that all here but
the rule for samples holds for both neighbouring relations.

References
----------
Dong, Roth and Su (2022), "Gaussian Differential Privacy", the theorem on group privacy (2.14 in
arXiv:1905.02383). Vadhan (2017), "The Complexity of Differential Privacy", Lemma 2.2. Ganesh
(2024), "Tight Group-Level DP Guarantees for DP-SGD with Sampling via Mixture of Gaussians
Mechanisms", arXiv:2401.10294.
"""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.pld import privacy_loss_distribution

from dpfc._support.validation import check_epsilon, check_float, check_int
from dpfc.accounting.accountants import checked_steps, resolve_accountant
from dpfc.accounting.events import (
    GaussianSteps,
    SelectionSteps,
    UnsupportedEventError,
    has_no_noise,
    only_gaussian,
)
from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
from dpfc.accounting.profiles import PrivacyProfile, privacy_profile

__all__ = [
    "event_of_group",
    "group_epsilon",
    "group_guarantee",
    "row_epsilon",
    "row_guarantee",
]

# exp of anything larger than this overflows soon.
_LARGEST_EPSILON = 700.0
# Spacings of a grid of privacy losses: where it starts, and the finest.
_GRID, _FINEST = 1e-3, 1e-6
# Relative, of ε: T releases on a grid of spacing h raise it by about T h² / ε², measured with
# z from 1 to 30 and T from 100 to 10,000.
_LOOSE = 1e-3


def event_of_group(event: dp_accounting.DpEvent, rows: int) -> dp_accounting.DpEvent:
    """What an event, whose noise multipliers are for one row, is for a group of rows.

    Exact for full-batch Gaussian releases: k rows move a sum at most k times as far as one, so
    that each noise multiplier is divided by k, and μ is multiplied by it. What is composed of
    them, however adaptively, and searches with random stopping over them, are the same of the
    divided parts: their theorems are about two data sets, whatever lies between these.

    Parameters
    ----------
    event : DpEvent
    rows : int >= 1

    Raises
    ------
    UnsupportedEventError
        If a release is of samples of the rows: how many of a group's rows a sample holds is
        random, and no Gaussian release says what that costs.

    References
    ----------
    Dong, Roth and Su (2022), Theorem 2.14: a μ-GDP mechanism is kμ-GDP for groups of k.
    """
    rows = check_int("rows", rows, 1)
    return event if rows == 1 else _divided(event, rows)


def _divided(event: dp_accounting.DpEvent, rows: int) -> dp_accounting.DpEvent:
    match event:
        case dp_accounting.NoOpDpEvent() | dp_accounting.NonPrivateDpEvent():
            return event
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            return dp_accounting.GaussianDpEvent(z / rows)
        case dp_accounting.SelfComposedDpEvent(event=part, count=count):
            return dp_accounting.SelfComposedDpEvent(_divided(part, rows), count)
        case dp_accounting.ComposedDpEvent(events=parts):
            return dp_accounting.ComposedDpEvent([_divided(part, rows) for part in parts])
        case RepeatAndSelectDpEvent(event=part, mean=mean, shape=shape):
            return RepeatAndSelectDpEvent(_divided(part, rows), mean, shape)
        case _:
            raise UnsupportedEventError(
                f"a release of samples of the rows has no Gaussian event for {rows} rows together."
            )


def group_epsilon(
    event: dp_accounting.DpEvent, rows: int, target_delta: float, *, neighboring_relation: str
) -> float:
    """Epsilon that a group of rows has at `target_delta`, rounded up.

    Full-batch Gaussian releases, and searches over them: exactly the event of the group, see
    `event_of_group`. Poisson samples under "add_or_remove_one": a sample holds j of the k rows
    with the binomial probability of j, so that a release is dominated by N(0, z²) against the
    mixture of N(j, z²) with these weights (Ganesh 2024), composed as privacy loss distributions.
    Composing the dominating pair of one row k times would be wrong: that is k releases about one
    row. All else: `group_guarantee` of the best point of the curve of one row.

    Parameters
    ----------
    event : DpEvent
        As for `compute_epsilon`; noise multipliers are for one row.
    rows : int >= 1
        Of a group, at most.
    target_delta : float in (0, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}

    Returns
    -------
    float
        In [0, inf].

    Raises
    ------
    UnsupportedEventError
        If no accountant evaluates `event`.
    ValueError
        If a parameter is outside its interval.
    """
    rows = check_int("rows", rows, 1)
    delta = check_float("target_delta", target_delta, 0, 1)
    steps = checked_steps(event, neighboring_relation)
    if not steps:
        return 0.0
    if has_no_noise(steps):
        return math.inf
    sampled = any(step.is_sampled for step in steps)
    if rows == 1 or not sampled:
        return _curve(event_of_group(event, rows), delta, neighboring_relation).epsilon(delta)
    searched = any(isinstance(step, SelectionSteps) for step in steps)
    if neighboring_relation == "add_or_remove_one" and not searched:
        return _mixture_epsilon(only_gaussian(steps, "pld"), rows, delta)
    return _epsilon_by_curve(_curve(event, delta, neighboring_relation), rows, delta)


def group_guarantee(epsilon: float, delta: float, rows: int) -> tuple[float, float]:
    """What (epsilon, delta) for one row, of any mechanism, means for a group of rows.

    Returns
    -------
    epsilon : float
        k ε.
    delta : float
        δ (1 + e^ε + … + e^((k-1) ε)) = δ (e^(kε) - 1) / (e^ε - 1), at most 1.

    References
    ----------
    Vadhan (2017), Lemma 2.2, by the sum in its proof.
    """
    epsilon = check_epsilon("epsilon", epsilon)
    delta = check_float("delta", delta, 0, 1)
    rows = check_int("rows", rows, 1)
    return rows * epsilon, math.exp(min(0.0, math.log(delta) + _log_sum(epsilon, rows)))


def row_guarantee(epsilon: float, delta: float, rows: int) -> tuple[float, float]:
    """What one row must have for (epsilon, delta) of a group; the inverse of `group_guarantee`."""
    epsilon = check_epsilon("epsilon", epsilon) / check_int("rows", rows, 1)
    delta = check_float("delta", delta, 0, 1)
    return epsilon, math.exp(math.log(delta) - _log_sum(epsilon, rows))


def row_epsilon(epsilon: float, delta: float, rows: int) -> float:
    """Epsilon at `delta` that one row must have for (epsilon, delta) of a group; rounded down.

    For full-batch Gaussian releases, exactly: μ of a row is that of the group over k.

    References
    ----------
    Dong, Roth and Su (2022), Theorem 2.14.
    """
    rows = check_int("rows", rows, 1)
    mu = gaussian_mu(epsilon, delta) / rows
    found = gaussian_epsilon(mu, delta)
    # `gaussian_epsilon` rounds up: until a mechanism with the result has no more than this μ.
    step = 1e-14
    while found > 0 and gaussian_mu(found, delta) > mu:
        found *= 1 - step
        step *= 2
    return found


def _curve(event: dp_accounting.DpEvent, delta: float, neighboring_relation: str) -> PrivacyProfile:
    accountant = resolve_accountant(
        "auto", event, target_delta=delta, neighboring_relation=neighboring_relation
    )
    return privacy_profile(event, neighboring_relation=neighboring_relation, accountant=accountant)


def _mixture_epsilon(steps: tuple[GaussianSteps, ...], rows: int, delta: float) -> float:
    """An upper bound whatever the grid is, which is made finer until it hardly matters."""
    count, grid = sum(step.count for step in steps), _GRID
    while True:
        epsilon = _epsilon_on_grid(steps, rows, delta, grid)
        needed = max(_FINEST, epsilon * math.sqrt(_LOOSE / count))
        if needed >= grid / 2:
            return epsilon
        grid = needed


def _epsilon_on_grid(
    steps: tuple[GaussianSteps, ...], rows: int, delta: float, grid: float
) -> float:
    from scipy.stats import binom  # slow to import, and the ledger stands on this file

    total = privacy_loss_distribution.identity(grid)
    in_sample = np.arange(rows + 1)
    for step in steps:
        found = privacy_loss_distribution.from_mixture_gaussian_mechanism(
            step.noise_multiplier,
            in_sample.tolist(),
            binom.pmf(in_sample, rows, step.sampling_probability).tolist(),
            value_discretization_interval=grid,
        )
        total = total.compose(found.self_compose(step.count))
    return float(total.get_epsilon_for_delta(delta))


def _epsilon_by_curve(profile: PrivacyProfile, rows: int, delta: float) -> float:
    """K times the smallest ε of a row, of those looked at, whose δ is small enough for a group."""
    low, high, found = 0.0, _LARGEST_EPSILON / rows, math.inf
    for _ in range(4):
        grid = np.linspace(low, high, 65)[1:]
        fits = [
            epsilon
            for epsilon in grid.tolist()
            if group_guarantee(epsilon, max(profile.delta(epsilon), 1e-300), rows)[1] <= delta
        ]
        if not fits:
            break
        found = min(fits)
        low, high = max(0.0, found - (high - low) / 64), found
    return rows * found


def _log_sum(epsilon: float, rows: int) -> float:
    """Log of 1 + e^ε + … + e^((k-1) ε)."""
    if epsilon * rows < 1e-9:
        return math.log(rows) + epsilon * (rows - 1)
    return (
        (rows - 1) * epsilon
        + math.log(-math.expm1(-rows * epsilon))
        - math.log(-math.expm1(-epsilon))
    )
