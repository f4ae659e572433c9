"""What a sweep may run next: a cell's grid at once, sampled settings as Optuna asks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpfc._support.packages import require
from dpfc.experiments.studies.config import Range, Search
from dpfc.experiments.studies.runs import Cell, RunSpec

if TYPE_CHECKING:
    import optuna

__all__ = ["Source", "make_sources"]


class Source:
    """Runs of one setting of a cell's grid, and of what is sampled around it.

    Asked again after a stop, it gives the same runs in the same order, as long as it is told the
    same results: samplers are seeded from the study and the cell.

    Parameters
    ----------
    cell : Cell
    setting : mapping
        Of the grid.
    search : Search
    code : str
    versions : mapping
        As in `RunSpec`.
    """

    def __init__(
        self,
        cell: Cell,
        setting: Mapping[str, Any],
        search: Search,
        code: str,
        versions: Mapping[str, str],
    ):
        self._cell, self._setting, self._search = cell, dict(setting), search
        self._code, self._versions = code, versions
        self._study = _make_study(search, cell, setting) if cell.ranges else None
        self._trials = search.trials if cell.ranges else 1
        self._asked = 0
        self._open: dict[int, dict[str, float | None]] = {}
        self.runs: list[RunSpec] = []

    @property
    def n_runs(self) -> int:
        """Runs that there will be in all."""
        return self._trials * len(self._cell.seeds)

    def ready(self) -> list[RunSpec]:
        """Runs that may start now and were not given before."""
        given: list[RunSpec] = []
        while self._asked < self._trials and self._may_ask():
            parameters = dict(self._setting)
            if self._study is not None:
                trial = self._study.ask(_distributions(self._cell.ranges))
                parameters |= trial.params
            runs = self._cell.runs(parameters, self._code, self._versions)
            self._open[self._asked] = {run.key: None for run in runs}
            self._asked += 1
            given += runs
        self.runs += given
        return given

    def _may_ask(self) -> bool:
        """A sampler that learns waits until all runs of a trial are told."""
        return self._study is None or self._search.sampler == "random" or not self._open

    def tell(self, key: str, accuracy: float | None) -> None:
        """Say what a run found; None for one that failed."""
        for number, found in list(self._open.items()):
            if key in found:
                found[key] = -1.0 if accuracy is None else accuracy
                if all(value is not None for value in found.values()):
                    self._close(number, [float(value or 0.0) for value in found.values()])

    def _close(self, number: int, accuracies: list[float]) -> None:
        del self._open[number]
        if self._study is None:
            return
        if min(accuracies) < 0.0:
            import optuna

            self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, sum(accuracies) / len(accuracies))


def make_sources(
    cells: list[Cell], search: Search, code: str, versions: Mapping[str, str]
) -> list[Source]:
    """One source a setting of every cell's grid."""
    return [
        Source(cell, setting, search, code, versions) for cell in cells for setting in cell.grid
    ]


def _make_study(search: Search, cell: Cell, setting: Mapping[str, Any]) -> optuna.Study:
    require("optuna", "a range", "sweep")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    identity = (search.seed, cell.rows.dataset, cell.rows.backbone, cell.label, cell.epsilon)
    text = repr((identity, sorted(setting.items(), key=str)))
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    return optuna.create_study(direction="maximize", sampler=samplers[search.sampler](seed=seed))


def _distributions(ranges: Mapping[str, Range]) -> dict[str, Any]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        name: IntDistribution(int(span.low), int(span.high), log=span.log)
        if span.integer
        else FloatDistribution(span.low, span.high, log=span.log)
        for name, span in ranges.items()
    }
