"""From a study to what is run: parameters checked first, rows found or embedded, costs named."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dpfc.experiments.studies.config import Range, StudyConfig
from dpfc.experiments.studies.rows import find_rows, missing_caches
from dpfc.experiments.studies.runs import CEILING, Cell, Rows, RunSpec, study_cells
from dpfc.experiments.studies.sampling import Source, make_sources
from dpfc.experiments.studies.store import RunStore
from dpfc.experiments.studies.versions import code_version, library_versions

__all__ = [
    "DataCost",
    "PlannedCell",
    "SweepPlan",
    "check_parameters",
    "plan_sweep",
    "privacy_costs",
    "seconds_left",
    "study_sources",
]


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


class PlannedCell(NamedTuple):
    """One line of a plan: runs of a method on a data set, over all ε."""

    dataset: str
    backbone: str | None
    label: str
    epsilons: list[float]
    settings: int
    seeds: int
    runs: int


class SweepPlan(NamedTuple):
    """What a sweep would do.

    Attributes
    ----------
    cells : list of PlannedCell
    runs, known : int
        Runs in all, and those that are there already.
    seconds : float
        Guess for the missing ones of a kind that was run before.
    unknown : int
        Missing runs of kinds that were never run here.
    embed : list of Path
        Feature caches that come first; what is known then is not yet.
    costs : list of DataCost
    chosen_from : int
        The most settings that one method has at one ε.
    """

    cells: list[PlannedCell]
    runs: int
    known: int
    seconds: float
    unknown: int
    embed: list[Path]
    costs: list[DataCost]
    chosen_from: int


def check_parameters(config: StudyConfig) -> None:
    """Refuse parameters that an estimator would refuse, before anything is embedded or run.

    Raises
    ------
    ValueError
        With the method, ε and setting.
    """
    from dpfc.experiments.estimators import make_study_estimator

    for cell in study_cells(config, [Rows(config.datasets[0].name, None, None, None, None, "")]):
        for setting in cell.grid if cell.method != CEILING else ():
            for ends in ("low", "high"):
                tried = setting | {name: _end(span, ends) for name, span in cell.ranges.items()}
                try:
                    model = make_study_estimator(
                        cell.method, epsilon=cell.epsilon, delta=cell.delta, **tried
                    )
                    model.privacy_plan()
                except (ValueError, TypeError) as error:
                    where = f"{cell.label} at ε = {cell.epsilon:g} with {tried or 'defaults'}"
                    raise ValueError(f"{where}: {error}") from None


def study_sources(config: StudyConfig, folder: Path) -> list[Source]:
    """Embed what is missing, and give the runs of a study."""
    check_parameters(config)
    return _sources(config, list(study_cells(config, find_rows(config, folder))))


def plan_sweep(config: StudyConfig, folder: Path, workers: int) -> SweepPlan:
    """Work out what a sweep would do; embeds nothing, runs nothing, writes nothing."""
    check_parameters(config)
    embed = missing_caches(config, folder)
    cells = list(study_cells(config, _unseen(config) if embed else find_rows(config, folder)))
    sources = _sources(config, cells)
    given = [(source, source.ready()) for source in sources]
    records = RunStore(folder).records() if folder.exists() else []
    keys = {record["key"] for record in records}
    missing = [run for _, runs in given for run in runs if run.key not in keys]
    seconds, unknown = seconds_left(missing, records, workers)
    total = sum(source.n_runs for source in sources)
    # Samplers that learn have not said yet what they will ask for.
    unknown += total - sum(len(runs) for _, runs in given)
    return SweepPlan(
        cells=_lines(config, cells),
        runs=total,
        known=sum(len(runs) for _, runs in given) - len(missing),
        seconds=seconds,
        unknown=unknown,
        embed=embed,
        costs=privacy_costs((runs[0], source.n_runs) for source, runs in given if runs),
        chosen_from=max(_n_settings(config, cell) for cell in cells),
    )


def _sources(config: StudyConfig, cells: list[Cell]) -> list[Source]:
    return make_sources(cells, config.search, code_version(), library_versions())


def _unseen(config: StudyConfig) -> list[Rows]:
    """Stand for rows of which some are not embedded yet."""
    return [
        Rows(data.name, backbone, None, None, None, "")
        for data in config.datasets
        for backbone in (config.backbones if data.builtin is None else [None])
    ]


def _lines(config: StudyConfig, cells: list[Cell]) -> list[PlannedCell]:
    """One line a method and data set."""
    lines: dict[tuple[str, str | None, str], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.rows.dataset, cell.rows.backbone, cell.label), []).append(cell)
    return [
        PlannedCell(
            *place,
            epsilons=[cell.epsilon for cell in found if cell.epsilon != math.inf],
            settings=_n_settings(config, found[0]),
            seeds=len(found[0].seeds),
            runs=sum(_n_settings(config, cell) * len(cell.seeds) for cell in found),
        )
        for place, found in lines.items()
    ]


def _n_settings(config: StudyConfig, cell: Cell) -> int:
    return len(cell.grid) * (config.search.trials if cell.ranges else 1)


def _end(span: Range, which: str) -> float | int:
    value = span.low if which == "low" else span.high
    return int(value) if span.integer else value


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
