"""Accuracy where what is protected is a person with several rows, by how rows are bounded.

Run `python -m dpfc.experiments.benchmarks.people`. Generated persons have 1 to 20 rows, as
many of each number; of `--cache` data sets, made-up persons have `--rows` rows each, one after the
other. Every way gets the same persons, ε and δ, add or remove one person:

- clip: what a person's rows add to a sum is scaled down to what one row may (the default);
- average: the mean of a person's rows of each class, bounded in the same way;
- draw: one row of each person, drawn by a secret coin;
- account: every row counts fully, and noise is k times as large, k the most rows of a person:
  group privacy as it follows for Gaussian releases from that of a row.

Test rows are of other persons, and each is predicted by itself.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.accounting.gaussian import gaussian_epsilon
from dpfc.exceptions import BudgetWarning, PrivacyWarning
from dpfc.experiments.benchmarks.common import DELTA, NOTE, CacheSpecs, load_caches
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import make_estimator

__all__ = ["WAYS", "People", "made_people", "main"]

_MOST = 20  # rows of a made-up person
WAYS: dict[str, dict[str, Any]] = {
    "clip": {},
    "average": {"group_method": "average"},
    "draw": {"max_group_rows": 1},
}


class People(NamedTuple):
    """Training rows with whose they are, and test rows of other persons."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    n_classes: int


def made_people(seed: int, *, label_of: str, n_people: int = 1000, n_features: int = 50) -> People:
    """Generate persons with 1 to 20 rows: a class, what is the person's own, and the row's own.

    Parameters
    ----------
    seed : int
    label_of : {"person", "row"}
        Whether all rows of a person have one label.
    n_people : int, default=1000
        To train on; a quarter as many to test.
    n_features : int, default=50
    """
    rng = np.random.default_rng(seed)
    n_all, n_classes = n_people + n_people // 4, 4
    centers = 0.5 * rng.normal(size=(n_classes, n_features))
    groups = np.repeat(np.arange(n_all), rng.integers(1, _MOST + 1, size=n_all))
    units = groups if label_of == "person" else np.arange(len(groups))
    y = rng.integers(n_classes, size=len(units))[units]
    own = 0.7 * rng.normal(size=(n_all, n_features))[groups]
    X = centers[y] + own + rng.normal(size=(len(groups), n_features))
    train = groups < n_people
    return People(X[train], y[train], groups[train], X[~train], y[~train], n_classes)


def fitted_accuracy(people: People, method: str, way: str, epsilon: float, seed: int) -> float:
    """Accuracy on the test rows of one fit."""
    options: dict[str, Any] = {"classes": range(people.n_classes), "random_state": seed}
    model = make_estimator(method, epsilon=epsilon, delta=DELTA, **options)
    groups: NDArray[np.int64] | None = people.groups
    if way == "account":
        most = int(np.bincount(people.groups).max())
        plan = model.privacy_plan()
        assert plan.mu is not None
        model.set_params(epsilon=gaussian_epsilon(plan.mu / most, DELTA))
        groups = None
    else:
        model.set_params(**WAYS[way])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (BudgetWarning, PrivacyWarning))
        model.fit(people.X, people.y, groups=groups)
    return float(model.score(people.X_test, people.y_test))


def _data_sets(caches: Sequence[str] | None, rows: int) -> dict[str, Callable[[int], People]]:
    """What persons are made from, by name; each takes a seed."""
    if not caches:
        return {
            f"generated, labels of {label_of}s": partial(made_people, label_of=label_of)
            for label_of in ("person", "row")
        }
    made: dict[str, Callable[[int], People]] = {}
    for named in load_caches(caches):
        data = named.data
        people = People(
            data.X,
            np.asarray(data.y),
            np.arange(len(data.y)) // rows,
            data.X_test,
            np.asarray(data.y_test),
            data.n_classes,
        )
        made[named.name] = partial(_same, people)
    return made


def _command(
    cache: CacheSpecs = None,
    rows: Annotated[int, typer.Option(min=1, help="Of a made-up person, with --cache.")] = 5,
    epsilons: Annotated[str, typer.Option(help="Separated by commas.")] = "1",
    seeds: Annotated[int, typer.Option(min=2)] = 10,
    methods: Annotated[str, typer.Option(help="Of fc, ls, newton, gd.")] = "fc,ls,newton,gd",
) -> None:
    """Print accuracy by data set, method and way, and each way's distance from the default."""
    print(f"{NOTE}; δ = {DELTA:g}, mean ± standard error of {seeds} seeds")
    print("| data | method | ε | " + " | ".join([*WAYS, "account"]) + " | best - clip |")
    print("|---|---|---|" + "---|" * (len(WAYS) + 2))
    for name, make in _data_sets(cache, rows).items():
        people = [make(seed) for seed in range(seeds)]
        for method in methods.split(","):
            for epsilon in parse_numbers(epsilons, "--epsilons"):
                scores = {
                    way: 100.0
                    * np.array(
                        [fitted_accuracy(p, method, way, epsilon, s) for s, p in enumerate(people)]
                    )
                    for way in (*WAYS, "account")
                }
                best = max(scores.values(), key=lambda s: float(s.mean()))
                cells = [_figure(s) for s in (*scores.values(), best - scores["clip"])]
                print(f"| {name} | {method} | {epsilon:g} | {' | '.join(cells)} |", flush=True)


def _same(people: People, seed: int) -> People:
    return people


def _figure(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
