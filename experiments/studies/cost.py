"""What a sweep will cost, in time and in privacy, before it starts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dpfc.experiments.studies.runs import CEILING, RunSpec

__all__ = ["DataCost", "privacy_costs", "seconds_left"]


class DataCost(NamedTuple):
    """What all runs on one data set add up to, should all of them be published.

    Attributes
    ----------
    dataset : str
    runs : int
        Private fits.
    epsilon : float
        Of all of them together, at `delta`.
    delta : float
    seeded : bool
        Whether there are seeded ones: these are not private, whatever they add up to.
    """

    dataset: str
    runs: int
    epsilon: float
    delta: float
    seeded: bool


def privacy_costs(fits: Iterable[tuple[RunSpec, int]]) -> list[DataCost]:
    """Add up the budgets of all fits on each data set.

    Fits that are full batch compose exactly: μ² of each is added. Where one is sampled, ε and
    δ are added in place of that, which holds for any mechanism.

    Parameters
    ----------
    fits : iterable of (RunSpec, int)
        A run, and how many there are like it.

    References
    ----------
    Dong, Roth, Su (2022), Gaussian Differential Privacy, corollary 3.3.
    """
    by_data: dict[str, list[tuple[RunSpec, int]]] = {}
    for run, count in fits:
        if run.method != CEILING:
            by_data.setdefault(run.rows.dataset, []).append((run, count))
    return [_cost(dataset, found) for dataset, found in by_data.items()]


def _cost(dataset: str, fits: list[tuple[RunSpec, int]]) -> DataCost:
    from dpfc.accounting.gaussian import gaussian_epsilon

    delta = fits[0][0].delta
    n_runs = sum(count for _, count in fits)
    seeded = any(run.seed is not None for run, _ in fits)
    squares = [(_mu_squared(run), count) for run, count in fits]
    exact = [square * count for square, count in squares if square is not None]
    if len(exact) == len(squares):
        epsilon = gaussian_epsilon(math.sqrt(math.fsum(exact)), delta)
        return DataCost(dataset, n_runs, epsilon, delta, seeded)
    total = math.fsum(count * run.epsilon for run, count in fits)
    return DataCost(dataset, n_runs, total, min(1.0, n_runs * delta), seeded)


def _mu_squared(run: RunSpec) -> float | None:
    from dpfc.experiments.estimators import make_study_estimator

    model = make_study_estimator(run.method, epsilon=run.epsilon, delta=run.delta, **run.parameters)
    mu = model.privacy_plan().mu
    return None if mu is None else mu**2


def seconds_left(
    missing: Iterable[RunSpec], known: Iterable[Mapping[str, Any]], workers: int
) -> tuple[float, int]:
    """Guess how long missing runs take, from runs of the same data set and method.

    Returns
    -------
    seconds : float
        For those that there is something to guess from.
    unknown : int
        Runs of kinds that were never run here.
    """
    times: dict[tuple[Any, ...], list[float]] = {}
    for record in known:
        if record.get("seconds") is not None:
            kind = record["dataset"], record["backbone"], record["method"]
            times.setdefault(kind, []).append(record["seconds"])
    seconds, unknown = 0.0, 0
    for run in missing:
        found = times.get((run.rows.dataset, run.rows.backbone, run.method))
        if found is None:
            unknown += 1
        else:
            seconds += statistics.median(found)
    return seconds / workers, unknown
