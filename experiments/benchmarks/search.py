"""Does a search pay for itself? One fit without a search against two searches, at equal budgets.

Run `python -m dpfc.experiments.benchmarks.search --train DIR --test DIR` on feature caches that
`dpfc extract` wrote. The searches pay for every candidate and for its scores.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from dpfc.experiments.benchmarks.common import DELTA, NOTE
from dpfc.experiments.cli.console import print_json, print_table, run_command
from dpfc.experiments.cli.options import Json, Method, parse_numbers
from dpfc.experiments.estimators import LABELS, make_estimator, make_grid
from dpfc.experiments.studies.data import Data, load

__all__ = ["STRATEGIES", "Cell", "compare", "main"]

_SEARCHES = ("composition", "random_stopping")
# "Any candidate": the mean over candidates, what a choice without looking gets.
STRATEGIES = ("one fit, defaults", "one fit, any candidate", *_SEARCHES)
_TRY = ("logit_noise=0.35,0.7,1.4", "gram_share=0.05,0.2")


class Cell(NamedTuple):
    """Test accuracy of one strategy at one ε, over seeds, and its error over one fit's."""

    strategy: str
    epsilon: float
    mean: float
    deviation: float
    error_ratio: float


def compare(
    data: Data, method: str, tries: Sequence[str], epsilons: Sequence[float], seeds: int
) -> Iterator[Cell]:
    """Measure single fits, with defaults and with a candidate, and both searches, ε by ε.

    Parameters
    ----------
    data : Data
    method : str
        A key of `ESTIMATORS`.
    tries : sequence of str
        Candidates, each ``name=a,b,c``.
    epsilons : sequence of float
        Budgets of the fit, and of the whole search, at δ = 1e-5.
    seeds : int
        Runs a cell, seeded 0, 1, ….
    """
    from sklearn.base import clone
    from sklearn.model_selection import ParameterGrid

    from dpfc import DPSearchCV

    estimator = make_estimator(method, classes=range(data.n_classes))
    grid = make_grid(tries, estimator)
    for epsilon in epsilons:
        budget: dict[str, Any] = {"epsilon": epsilon, "delta": DELTA}
        single = clone(estimator).set_params(**budget)
        models = {
            STRATEGIES[0]: [single],
            STRATEGIES[1]: [clone(single).set_params(**params) for params in ParameterGrid(grid)],
            **{
                name: [DPSearchCV(estimator, grid, strategy=name, verbose=False, **budget)]
                for name in _SEARCHES
            },
        }
        baseline = None
        for strategy in STRATEGIES:
            scores = [_mean_accuracy(models[strategy], data, seed) for seed in range(seeds)]
            mean = float(np.mean(scores))
            baseline = 1.0 - mean if baseline is None else baseline
            ratio = (1.0 - mean) / max(baseline, 1e-12)
            yield Cell(strategy, epsilon, mean, float(np.std(scores)), ratio)


def _mean_accuracy(models: Sequence[Any], data: Data, seed: int) -> float:
    """Mean test accuracy of seeded fits."""
    from dpfc import PrivacyWarning

    with warnings.catch_warnings():  # the table says that its runs are seeded
        warnings.simplefilter("ignore", PrivacyWarning)
        fitted = [model.set_params(random_state=seed).fit(data.X, data.y) for model in models]
    return float(np.mean([model.score(data.X_test, data.y_test) for model in fitted]))


def _command(
    train: Annotated[Path, typer.Option(metavar="DIR", help="Feature cache to fit on.")],
    test: Annotated[Path, typer.Option(metavar="DIR", help="Feature cache to measure on.")],
    method: Method = "fc",
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="NAME=A,B,C",
            help=f"Candidates; may be repeated. By default {' and '.join(_TRY)}, for fc.",
        ),
    ] = None,
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")
    ] = "0.5,1,2,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=1)] = 3,
    json: Json = False,
) -> None:
    """Test accuracy of one fit and of two searches that cost the same ε.

    Example: python -m dpfc.experiments.benchmarks.search --train mnist-train --test mnist-test
    """
    if tries is None and method != "fc":
        raise ValueError(f"--try is needed for --method {method}: the default is for fc.")
    budgets = parse_numbers(epsilons, "--epsilons")
    data = load(train, test)
    cells = []
    for cell in compare(data, method, tries or _TRY, budgets, seeds):
        cells.append(cell)
        print(f"{cell.strategy}, ε = {cell.epsilon:g}: {_text(cell)}", file=sys.stderr)
    if json:
        rows = [cell._asdict() for cell in cells]
        print_json({"delta": DELTA, "note": NOTE, "seeds": seeds, "results": rows})
    else:
        _print(cells, method, budgets, seeds)


def _text(cell: Cell) -> str:
    return f"{100 * cell.mean:.2f} ± {100 * cell.deviation:.2f} ({cell.error_ratio:.2f})"


def _print(cells: Sequence[Cell], method: str, epsilons: Sequence[float], seeds: int) -> None:
    by_key = {(cell.strategy, cell.epsilon): _text(cell) for cell in cells}
    print_table(
        (LABELS[method], *(f"ε = {epsilon:g}" for epsilon in epsilons)),
        [(name, *(by_key[name, epsilon] for epsilon in epsilons)) for name in STRATEGIES],
    )
    print(f"\nTest accuracy in %, mean ± standard deviation of {seeds} run(s), δ = {DELTA:g}; in")
    print("brackets the error rate over that of one fit with defaults: below 1, the search paid.")
    print(f"{NOTE[0].upper()}{NOTE[1:]}.")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
