"""Test accuracy of every method at every ε, over seeds that anyone can repeat.

Run `python -m dpfc.experiments.benchmarks.cifar10 --train DIR --test DIR` on feature caches
that `dpfc extract` wrote.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.cli.console import print_json, run_command
from dpfc.experiments.cli.options import Json, parse_numbers
from dpfc.experiments.estimators import ESTIMATORS, LABELS, make_estimator

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["DELTA", "NOTE", "Cell", "Data", "accuracies", "check_pair", "load", "main"]

DELTA = 1e-5
CEILING_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
NOTE = "seeded so that anyone can repeat it: models fitted this way are not private"


class Data(NamedTuple):
    """Features (n, d) and integer labels (n,) of both splits, and the number of classes."""

    X: NDArray[np.float32]
    y: NDArray[np.int32]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int32]
    n_classes: int


class Cell(NamedTuple):
    """Accuracy of one method at one ε: mean and standard error over seeds."""

    method: str
    epsilon: float
    mean: float
    standard_error: float | None
    seeds: int


def accuracies(
    data: Data, methods: Sequence[str], epsilons: Sequence[float], seeds: int
) -> Iterator[Cell]:
    """Fit with default parameters at δ = 1e-5 with the seeds 0, 1, …; yields cell by cell."""
    from dpfc import PrivacyWarning

    for method in methods:
        for epsilon in epsilons:
            model = make_estimator(
                method, epsilon=epsilon, delta=DELTA, classes=range(data.n_classes)
            )
            scores = []
            for seed in range(seeds):
                with warnings.catch_warnings():  # the table says that its runs are seeded
                    warnings.simplefilter("ignore", PrivacyWarning)
                    model.set_params(random_state=seed).fit(data.X, data.y)
                scores.append(model.score(data.X_test, data.y_test))
            error = float(np.std(scores, ddof=1)) / math.sqrt(seeds) if seeds > 1 else None
            yield Cell(method, epsilon, float(np.mean(scores)), error, seeds)


def load(train: Path, test: Path) -> Data:
    """Read the feature caches of both splits into memory.

    Raises
    ------
    ValueError
        If they differ in their classes or in their width.
    """
    from dpfc.features import FeatureCache

    caches = [FeatureCache.open(train), FeatureCache.open(test)]
    check_pair(caches)
    X, X_test = (cache.load()[0].astype(np.float32) for cache in caches)
    y, y_test = (cache.read_labels() for cache in caches)
    return Data(X, y, X_test, y_test, len(caches[0].class_names or ()))


def check_pair(caches: Sequence[FeatureCache]) -> None:
    """Refuse caches of two splits that do not fit.

    Raises
    ------
    ValueError
        If they differ in their classes or in their width.
    """
    for cache in caches:
        if cache.class_names is None or cache.class_names != caches[0].class_names:
            raise ValueError("both caches must name the same classes in the same order.")
    if caches[0].n_features != caches[1].n_features:
        raise ValueError(
            f"the caches differ in width: {caches[0].n_features} and {caches[1].n_features}."
        )


def _command(
    train: Annotated[Path, typer.Option(metavar="DIR", help="Feature cache to fit on.")],
    test: Annotated[Path, typer.Option(metavar="DIR", help="Feature cache to measure on.")],
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=1)] = 5,
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")
    ] = "0.1,0.5,1,2,4,8",
    methods: Annotated[
        str,
        typer.Option(
            metavar="M,M,…", help="Of fc, ls, gd, newton; newton takes minutes a fit on CIFAR-10."
        ),
    ] = "fc,ls,gd",
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling",
            help="Add non-private logistic regression, the best C on the test rows; minutes.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Mean ± standard error of test accuracy with default parameters, method by method.

    Example: python -m dpfc.experiments.benchmarks.cifar10 --train cifar10-train --test cifar10-test
    """
    budgets, names = parse_numbers(epsilons, "--epsilons"), methods.split(",")
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown:
        raise ValueError(f"--methods takes {', '.join(ESTIMATORS)}, got {unknown[0]!r}.")
    data = load(train, test)
    cells = []
    for cell in accuracies(data, names, budgets, seeds):
        cells.append(cell)
        print(f"{LABELS[cell.method]} ε = {cell.epsilon:g}: {_text(cell)}", file=sys.stderr)
    top = _ceiling(data) if ceiling else None
    if json:
        rows = [cell._asdict() for cell in cells]
        print_json({"delta": DELTA, "note": NOTE, "results": rows, "ceiling": top})
    else:
        _print(cells, names, budgets, top)


def _ceiling(data: Data) -> dict[str, Any]:
    from dpfc.experiments.benchmarks.ceiling import logistic_ceiling

    strength, accuracy = logistic_ceiling(
        data.X, data.y, data.X_test, data.y_test, CEILING_STRENGTHS
    )
    return {"model": "logistic regression, not private", "C": strength, "accuracy": accuracy}


def _text(cell: Cell) -> str:
    error = "" if cell.standard_error is None else f" ± {100 * cell.standard_error:.2f}"
    return f"{100 * cell.mean:.2f}{error}"


def _print(
    cells: Sequence[Cell],
    methods: Sequence[str],
    epsilons: Sequence[float],
    top: dict[str, Any] | None,
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("method", box=None, pad_edge=False)
    for epsilon in epsilons:
        table.add_column(f"ε = {epsilon:g}", justify="right", no_wrap=True)
    by_key = {(cell.method, cell.epsilon): _text(cell) for cell in cells}
    for method in methods:
        table.add_row(LABELS[method], *(by_key[method, epsilon] for epsilon in epsilons))
    console = Console(highlight=False)
    console.width = max(console.width, 16 * (len(epsilons) + 1))
    console.print(table)
    print(f"\nTest accuracy in %, mean ± standard error of {cells[0].seeds} runs, δ = {DELTA:g};")
    print(f"{NOTE}.")
    if top is not None:
        print(f"Ceiling: {top['model']}: {100 * top['accuracy']:.2f} (C = {top['C']:g}).")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
