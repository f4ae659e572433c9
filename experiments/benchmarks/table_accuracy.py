"""Accuracy on tables that a public schema encodes: DP-FC as it comes, its peers, and no privacy.

Run `python -m dpfc.experiments.benchmarks.table_accuracy`. Every method gets the same encoded
features. Peers are those of the accuracy benchmark, with the best settings of a grid that is
searched on the test rows; diffprivlib's logistic regression gets the bound that the schema puts
on rows, and its defaults else. Its guarantee is (ε, 0), all others' (ε, 1e-5).
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.exceptions import MissingDependencyError
from dpfc.experiments.benchmarks.accuracy import METHODS, Job, run_cells
from dpfc.experiments.benchmarks.accuracy_table import OURS, Results, leads, make_results
from dpfc.experiments.benchmarks.common import DELTA, NOTE
from dpfc.experiments.benchmarks.table_sets import TABLES, Table, as_it_comes, encoded
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import make_estimator
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import name_data
from dpfc.experiments.studies.store import RunStore

__all__ = ["main"]

_STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the ceiling's regularisation; the best counts
_NOT_PEERS = (OURS, "dp-raft-half")  # the latter is a variation of ours
_PEERS = "dp-raft,dp-raft-half,prototypes,paper-fc,paper-ls"


def _command(
    data: Annotated[
        str, typer.Option(metavar="D,D,…", help=f"Of {', '.join(TABLES)}.")
    ] = "wine,breast-cancer",
    knots: Annotated[
        int | None, typer.Option(help="Of every number; by default the schema's.", min=2)
    ] = None,
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε.")] = "0.1,0.5,1,2,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=2)] = 20,
    peers: Annotated[
        str, typer.Option(metavar="M,M,…", help="Of the accuracy benchmark's; '' for none.")
    ] = _PEERS,
    diffprivlib: Annotated[
        bool, typer.Option(help="Run diffprivlib, which needs scikit-learn below 1.8.")
    ] = False,
    as_they_come: Annotated[
        bool,
        typer.Option("--as-they-come", help="Only numbers in their units, with no schema."),
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for runs.")] = Path(
        "runs/table-accuracy"
    ),
) -> None:
    """Print, as Markdown, test accuracies and by how much DP-FC is ahead or behind.

    Example: python -m dpfc.experiments.benchmarks.table_accuracy --data wine --seeds 5 --peers ""
    """
    names, budgets = data.split(","), parse_numbers(epsilons, "--epsilons")
    methods = [OURS, *(peer for peer in peers.split(",") if peer)]
    for name, known in [(n, TABLES) for n in names] + [(m, METHODS) for m in methods]:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}.")
    if diffprivlib:
        _logistic_of_diffprivlib()  # refused now, or never
    if as_they_come:
        for name in names:
            print("\n".join(_unscaled(name, TABLES[name](), budgets, seeds)), flush=True)
        print(f"Test accuracy in %, {seeds} seeds; {NOTE}.")
        return
    out.mkdir(parents=True, exist_ok=True)
    store = RunStore(out)
    for name in names:
        table = TABLES[name]()
        rows = encoded(table, knots)
        # The number of knots is part of the name: runs are filed under it.
        named = name_data(f"{name}, {rows.X.shape[1]} features", rows)
        for words, accuracy in run_cells([named], Job(budgets, seeds, methods), store):
            print(f"{words}: {100 * accuracy:.2f}", file=sys.stderr)
        results = make_results(store.records())
        theirs = [_diffprivlib(rows, _bound(table), e, seeds) for e in budgets if diffprivlib]
        print("\n".join(_lines(named.name, rows, results, budgets, methods, theirs)), flush=True)
    print(f"Test accuracy in %, {seeds} seeds; {NOTE}.")


def _unscaled(name: str, table: Table, epsilons: Sequence[float], seeds: int) -> Iterator[str]:
    """What the options for columns in units of their own give."""
    if any(column["type"] != "number" for column in table.schema.values()):
        raise ValueError(f"{name} has columns that are no numbers: it needs its schema.")
    data = as_it_comes(table)
    longest = math.hypot(*(column["max"] for column in table.schema.values()))
    settings: dict[str, dict[str, Any]] = {
        "defaults": {},
        "normalize=False": {"normalize": False, "l2_clip_norm": longest},
        "length_scaling=0.5": {"length_scaling": 0.5},
        'scale="private"': {"scale": "private"},
    }
    yield f"| {name}, as it comes | " + " | ".join(f"ε = {e:g}" for e in epsilons) + " |"
    yield "|---|" + "---|" * len(epsilons)
    for label, parameters in settings.items():
        scores = (_scores(data, parameters, epsilon, seeds) for epsilon in epsilons)
        yield _line(label, [f"{100 * mean:.1f} ± {100 * error:.1f}" for mean, error in scores])
    yield ""


def _scores(
    data: Data, parameters: dict[str, Any], epsilon: float, seeds: int
) -> tuple[float, float]:
    """Mean and standard error of DP-FC's test accuracy."""
    model = make_estimator(OURS, epsilon=epsilon, delta=DELTA, classes=range(data.n_classes))
    found = []
    for seed in range(seeds):
        with warnings.catch_warnings():  # the table says that its runs are seeded
            warnings.simplefilter("ignore")
            model.set_params(random_state=seed, **parameters).fit(data.X, data.y)
        found.append(model.score(data.X_test, data.y_test))
    return float(np.mean(found)), float(np.std(found, ddof=1)) / math.sqrt(seeds)


def _bound(table: Table) -> float:
    """The longest that a row can be: each column's features have length 1 at most."""
    return math.sqrt(len(table.schema))


def _logistic_of_diffprivlib() -> Any:
    try:
        return import_module("diffprivlib.models").LogisticRegression
    except ImportError as error:  # its forests need what scikit-learn took away
        raise MissingDependencyError(
            "--diffprivlib needs diffprivlib, and a scikit-learn that it works with: run "
            "pip install diffprivlib 'scikit-learn<1.8'."
        ) from error


def _diffprivlib(data: Data, bound: float, epsilon: float, seeds: int) -> NDArray[np.float64]:
    """Test accuracies of diffprivlib's logistic regression, shape (seeds,)."""
    theirs = _logistic_of_diffprivlib()
    models = (theirs(epsilon=epsilon, data_norm=bound, random_state=s)
              for s in range(seeds))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that do not converge under its noise
        scores = [model.fit(data.X, data.y).score(data.X_test, data.y_test) for model in models]
    return np.array(scores)


def _ceiling(data: Data) -> float:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # accuracy stands still before the weights do
        models = (LogisticRegression(C=c, max_iter=300).fit(data.X, data.y) for c in _STRENGTHS)
        return max(float(model.score(data.X_test, data.y_test)) for model in models)


def _lines(
    name: str,
    data: Data,
    results: Results,
    epsilons: Sequence[float],
    methods: Sequence[str],
    theirs: Sequence[NDArray[np.float64]],
) -> Iterator[str]:
    """One table, a line a method."""
    ceiling = 100.0 * _ceiling(data)
    ours = {e: results[name, OURS, e] for e in epsilons}
    yield f"| {name}, {len(data.y)} rows | " + " | ".join(f"ε = {e:g}" for e in epsilons) + " |"
    yield "|---|" + "---|" * len(epsilons)
    errors = [100.0 * (cell.standard_error or 0.0) for cell in ours.values()]
    means = [100.0 * cell.mean for cell in ours.values()]
    yield _line("DP-FC", [f"{m:.1f} ± {e:.1f}" for m, e in zip(means, errors, strict=True)])
    for method in methods[1:]:
        found = [results.get((name, method, e)) for e in epsilons]
        yield _line(method, ["–" if cell is None else f"{100 * cell.mean:.1f}" for cell in found])
    yield _line("not private", [f"{ceiling:.1f}"] * len(epsilons))
    yield _line("below not private", [f"{ceiling - mean:.1f}" for mean in means])
    peers = [method for method in methods if method not in _NOT_PEERS]
    ahead = {lead.epsilon: lead for lead in leads(results, peers) if lead.data == name}
    if ahead:
        cells = [f"{_difference(ahead[e].difference, ahead[e].standard_error)} ({ahead[e].peer})"
                 for e in epsilons]  # fmt: skip
        yield _line("ahead of the best peer", cells)
    if theirs:
        yield _line("diffprivlib", [f"{100 * scores.mean():.1f}" for scores in theirs])
        pairs = zip(ours.values(), theirs, strict=True)
        cells = [_lead(cell.accuracies, scores) for cell, scores in pairs]
        yield _line("ahead of diffprivlib", cells)
    yield ""


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def _difference(mean: float, standard_error: float | None) -> str:
    return f"{100 * mean:+.1f} ± {100 * (standard_error or 0.0):.1f}"


def _lead(ours: Mapping[int, float], theirs: NDArray[np.float64]) -> str:
    """Mean difference of runs with the same seeds."""
    gaps = np.array([ours[seed] for seed in range(len(theirs))]) - theirs
    return _difference(float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps)))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
