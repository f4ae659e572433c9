"""The runs that a study consists of: its grid spelled out, each with a key of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dpfc._support.words import strict
from dpfc.experiments.estimators import STUDY_LABELS
from dpfc.experiments.studies.config import Method, Range, StudyConfig, Values, estimator_parameters

__all__ = ["CEILING", "Cell", "Rows", "RunSpec", "study_cells"]

CEILING = "ceiling"


@dataclass(frozen=True)
class Rows:
    """Where a run finds its rows: a packaged data set, or two feature caches.

    Attributes
    ----------
    dataset : str
        Its name in the study.
    backbone : str or None
    builtin, train, test : str or None
    digest : str
        Of what the rows are; part of a run's key.
    rows_per_class : int or None
        Of the training rows; all of them where it is None.
    """

    dataset: str
    backbone: str | None
    builtin: str | None
    train: str | None
    test: str | None
    digest: str
    rows_per_class: int | None = None


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides a run's result, but for the machine it runs on."""

    rows: Rows
    method: str
    label: str
    epsilon: float
    delta: float
    seed: int | None
    parameters: Mapping[str, Any]
    code: str
    versions: Mapping[str, str]

    @property
    def key(self) -> str:
        """Digest of the configuration and the versions, 16 hexadecimal digits.

        Where rows lie and what a method is called are left out: neither changes a result.
        """
        content = asdict(self)
        del content["label"]
        content["rows"] = {
            "dataset": self.rows.dataset,
            "digest": self.rows.digest,
            "rows_per_class": self.rows.rows_per_class,
        }
        text = json.dumps(strict(content), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One data set, method and ε of a study, and what is tried in it.

    Attributes
    ----------
    grid : list of dict
        Settings of the parameters that are values or lists.
    ranges : dict
        Parameters that are sampled; every setting of the grid has samples of its own.
    """

    rows: Rows
    method: str
    label: str
    epsilon: float
    delta: float
    seeds: tuple[int | None, ...]
    grid: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def runs(
        self, parameters: Mapping[str, Any], code: str, versions: Mapping[str, str]
    ) -> list[RunSpec]:
        """One run a seed at this setting."""
        return [
            RunSpec(
                rows=self.rows,
                method=self.method,
                label=self.label,
                epsilon=self.epsilon,
                delta=self.delta,
                seed=seed,
                parameters=dict(sorted(parameters.items())),
                code=code,
                versions=versions,
            )
            for seed in self.seeds
        ]


def study_cells(config: StudyConfig, places: list[Rows]) -> Iterator[Cell]:
    """Spell a study out, data set by data set, in the order in which it is written."""
    for rows in places:
        for method in config.methods:
            values = _values(config, method)
            ranges = {name: value for name, value in values.items() if isinstance(value, Range)}
            grid = _grid({name: v for name, v in values.items() if name not in ranges})
            for epsilon in method.epsilons or config.epsilons:
                yield Cell(
                    rows=rows,
                    method=method.name,
                    label=method.label or STUDY_LABELS[method.name],
                    epsilon=epsilon,
                    delta=config.delta,
                    seeds=_seeds(config.seeds if method.seeds is None else method.seeds),
                    grid=grid,
                    ranges=ranges,
                )
        if config.ceiling:
            yield Cell(rows, CEILING, "not private", math.inf, config.delta, (None,))


def _values(config: StudyConfig, method: Method) -> dict[str, Values]:
    """A method's own parameters go before the study's."""
    known = estimator_parameters(method.name)
    shared = {name: value for name, value in config.parameters.items() if name in known}
    return shared | method.parameters


def _grid(values: Mapping[str, Values]) -> list[dict[str, Any]]:
    lists = [value if isinstance(value, list) else [value] for value in values.values()]
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*lists)]


def _seeds(seeds: int | list[int] | None) -> tuple[int | None, ...]:
    if seeds is None:
        return (None,)
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
