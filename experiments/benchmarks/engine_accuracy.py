"""Test accuracy of one engine of private sums beside another's, with default parameters.

Run it with each engine, that is, with each engine's environment: for one, from a clone,

    python -m dpfc.experiments.benchmarks.engine_accuracy run integers new.jsonl
    OTHER/.venv/bin/python experiments/benchmarks/engine_accuracy.py run float64 old.jsonl
    python -m dpfc.experiments.benchmarks.engine_accuracy compare old.jsonl new.jsonl

A run is one line of JSON, and one that is there is not made again. Engines draw other noise under
the same seed, so differences are of means over independent runs. How many seeds a data set gets,
5 to 20, follows from the floating-point operations of a fit, never from seconds. DP-Newton, with a
Hessian a class, is left out where its fit would take more than `_LARGEST` of them.

Data sets are those of the accuracy benchmark, and four that are made up, for rows whose length lies
in few columns or in one of them:

- `one-hot`: 12 categorical columns of 2 to 60 values, each the rarer the later, in 202 columns of
  zeros and ones. Every value has a weight for each of 3 classes, and the class is the largest sum
  of weights and noise. 12,000 rows.
- `counts`: how often 2,000 words come in a text of about 60. Words follow Zipf's law, four topics
  make each more or less frequent, and half or more of a text is of its own topic. 6,000 rows.
  `counts-300` is the same of 300 words, for DP-Newton.
- `heavy-tails`: 8 measurements on scales from 0.3 to 30, hyperbolic sines of normal variables
  whose means tell 3 classes apart: the largest measurement is often most of a row. 6,000 rows.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc._support.files import write_whole
from dpfc.experiments.benchmarks.common import DELTA, load_caches
from dpfc.experiments.cli.console import run_guarded
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import ESTIMATORS, LABELS, make_estimator
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import DATA_SETS, NamedData, load_named, name_data

__all__ = ["MADE", "Difference", "Job", "compare_files", "differences", "main", "run_missing"]

_SEED = 20230  # of generators: part of what a data set is
_CATEGORIES = (2, 3, 4, 5, 6, 8, 10, 14, 20, 30, 40, 60)
_SEED_WORK = 2e11  # floating-point operations for all seeds of a cell: 10 to 20 s on a core
_LARGEST = 2.5e11  # of one DP-Newton fit
_FEWEST, _MOST = 5, 20  # seeds
_TOLERANCE = 0.1  # points

Cell = tuple[str, str, float]  # data set, solver, ε


class Job(NamedTuple):
    """What one command line asks for; without `seeds`, as many as are affordable."""

    engine: str
    solvers: Sequence[str]
    epsilons: Sequence[float]
    seeds: int | None = None


class Difference(NamedTuple):
    """Mean accuracies of two engines in one cell, and of the difference the standard error.

    All in percent.
    """

    cell: Cell
    runs: tuple[int, int]
    old: float
    new: float
    standard_error: float

    @property
    def lost(self) -> bool:
        """Whether the new engine is behind by more than tolerance and noise."""
        return self.old - self.new > max(_TOLERANCE, 2.0 * self.standard_error)


# --- data that is made up --------------------------------------------------------------------


def _one_hot() -> Data:
    generator, n, n_classes = np.random.default_rng(_SEED), 18_000, 3
    columns, scores = [], generator.gumbel(size=(n, n_classes))
    for size in _CATEGORIES:
        frequencies = 1.0 / np.arange(1, size + 1)
        codes = generator.choice(size, n, p=frequencies / frequencies.sum())
        columns.append(np.eye(size, dtype=np.float32)[codes])
        scores += generator.normal(size=(size, n_classes))[codes]
    return _split(np.concatenate(columns, axis=1), scores.argmax(axis=1))


def _counts(n_words: int) -> Data:
    generator, n, n_topics = np.random.default_rng(_SEED + 1), 9_000, 4
    zipf = 1.0 / (np.arange(1, n_words + 1) + 2.7)
    topics = zipf * np.exp(0.6 * generator.normal(size=(n_topics, n_words)))
    topics /= topics.sum(axis=1, keepdims=True)
    y = generator.integers(0, n_topics, n)
    shares = 0.5 * np.eye(n_topics)[y] + 0.5 * generator.dirichlet(np.full(n_topics, 0.5), n)
    lengths = 5 + generator.lognormal(4.0, 0.5, n).astype(np.int64)
    return _split(generator.multinomial(lengths, shares @ topics), y)


def _heavy_tails() -> Data:
    generator, n, n_classes, width = np.random.default_rng(_SEED + 2), 9_000, 3, 8
    means = 0.8 * generator.normal(size=(n_classes, width))
    y = generator.integers(0, n_classes, n)
    normal = means[y] + generator.normal(size=(n, width))
    scales = generator.permutation(np.geomspace(0.3, 30.0, width))
    return _split(scales * np.sinh(1.5 * normal), y)


def _split(X: NDArray[Any], y: NDArray[Any]) -> Data:
    """The last third of independent rows is test."""
    X, y, n = X.astype(np.float32), y.astype(np.int32), 2 * len(y) // 3
    return Data(X[:n], y[:n], X[n:], y[n:], int(y.max()) + 1)


MADE: dict[str, Callable[[], Data]] = {
    "one-hot": _one_hot,
    "counts": partial(_counts, 2_000),
    "heavy-tails": _heavy_tails,
    "counts-300": partial(_counts, 300),
}


def _load(data: str | None, caches: Sequence[str]) -> list[NamedData]:
    everything = () if caches else (*MADE, *DATA_SETS)
    names = everything if data is None else tuple(data.split(","))
    made = [name_data(name, MADE[name]()) for name in names if name in MADE]
    others = load_named([name for name in names if name not in MADE])
    return [*made, *load_caches(caches), *others]


# --- runs ------------------------------------------------------------------------------------


def run_missing(sets: Sequence[NamedData], job: Job, out: Path) -> Iterator[dict[str, Any]]:
    """Make the runs that a file lacks, append each to it, and yield it."""
    known = {_key(run) for run in _read(out)}
    with out.open("a", encoding="utf-8") as file:
        for run, data in _planned(sets, job):
            if _key(run) in known:
                continue
            run["accuracy"] = _accuracy(data, run)
            file.write(json.dumps(run) + "\n")
            file.flush()
            yield run


def _planned(sets: Sequence[NamedData], job: Job) -> Iterator[tuple[dict[str, Any], Data]]:
    """Every run, without its accuracy; the first solver on all data sets first."""
    for solver in job.solvers:
        for name, data, digest in sets:
            where = {"engine": job.engine, "data": name, "rows": digest, "solver": solver}
            for epsilon in job.epsilons:
                for seed in range(_affordable(data, solver) if job.seeds is None else job.seeds):
                    yield where | {"epsilon": epsilon, "seed": seed}, data


def _affordable(data: Data, solver: str) -> int:
    """How many seeds a data set gets, from the products that its largest fit takes."""
    n, d = data.X.shape
    gram, products = 2.0 * n * d**2, 4.0 * n * d * data.n_classes
    if solver == "newton":  # five steps
        work = 5.0 * data.n_classes * (gram + d**3)
        if work > _LARGEST:
            return 0
    else:  # DP-FC's are the most of the other three's
        work = gram + 20.0 * products + 10.0 * d**3
    return int(min(max(_SEED_WORK / work, _FEWEST), _MOST))


def _accuracy(data: Data, run: Mapping[str, Any]) -> float:
    model = make_estimator(
        run["solver"],
        epsilon=run["epsilon"],
        delta=DELTA,
        classes=range(data.n_classes),
        random_state=run["seed"],
    )
    with warnings.catch_warnings():  # seeded, so that anyone can repeat it
        warnings.simplefilter("ignore")
        model.fit(data.X, data.y)
    return float(model.score(data.X_test, data.y_test))


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(run[part] for part in ("engine", "data", "rows", "solver", "epsilon", "seed"))


def _read(path: Path) -> list[dict[str, Any]]:
    """Runs of a file; a line that a killed process left unfinished is taken off it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_whole(path, whole)
    return [json.loads(line) for line in whole.splitlines()]


# --- comparison ------------------------------------------------------------------------------


def differences(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> tuple[list[Difference], list[Cell]]:
    """Compare cells that both have, and name those that only one has, or has one run of.

    Raises
    ------
    ValueError
        If both do not have the same rows under a name, or one holds two engines.
    """
    _check(old, new)
    cells = [_by_cell(runs) for runs in (old, new)]
    found, missing = [], []
    for cell in dict.fromkeys(cell for runs in cells for cell in runs):
        scores = [np.array(list(runs.get(cell, {}).values())) for runs in cells]
        if min(map(len, scores)) < 2:
            missing.append(cell)
            continue
        error = math.sqrt(sum(float(score.var(ddof=1)) / len(score) for score in scores))
        before, after = (float(score.mean()) for score in scores)
        found.append(Difference(cell, (len(scores[0]), len(scores[1])), before, after, error))
    return found, missing


def _by_cell(runs: Sequence[Mapping[str, Any]]) -> dict[Cell, dict[int, float]]:
    """Accuracies in percent, by seed."""
    cells: dict[Cell, dict[int, float]] = {}
    for run in runs:
        scores = cells.setdefault((run["data"], run["solver"], run["epsilon"]), {})
        scores[run["seed"]] = 100.0 * run["accuracy"]
    return cells


def _check(*files: Sequence[Mapping[str, Any]]) -> None:
    for runs in files:
        engines = {run["engine"] for run in runs}
        if len(engines) != 1:
            raise ValueError(f"a file must hold the runs of one engine, not of {len(engines)}.")
    rows: dict[str, str] = {}
    for run in (run for runs in files for run in runs):
        if rows.setdefault(run["data"], run["rows"]) != run["rows"]:
            raise ValueError(f"{run['data']}: the runs are not all of the same rows.")


def compare_files(old: Path, new: Path) -> tuple[str, bool]:
    """Give a Markdown table, and whether every cell is there and none is lost."""
    found, missing = differences(_read(old), _read(new))
    lines = [
        "| data set | solver | ε | runs | old | new | difference | |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line, found),
    ]
    lost = sum(difference.lost for difference in found)
    gaps = [difference.new - difference.old for difference in found]
    error = math.sqrt(sum(difference.standard_error**2 for difference in found))
    lines += [
        "",
        f"{len(found)} cells, on average {np.mean(gaps):+.3f} ± {error / len(gaps):.3f} points; "
        f"in {lost} the new engine is behind by more than {_TOLERANCE} points and two standard "
        f"errors (by chance alone: about {0.023 * len(found):.0f} of these, at most)."
        if found
        else "No cell is in both files.",
    ]
    lines += [f"Not compared: {data}, {LABELS[solver]}, ε = {e:g}." for data, solver, e in missing]
    return "\n".join(lines), bool(found) and not lost and not missing


def _line(difference: Difference) -> str:
    (data, solver, epsilon), (before, after) = difference.cell, difference.runs
    gap = f"{difference.new - difference.old:+.2f} ± {difference.standard_error:.2f}"
    return (
        f"| {data} | {LABELS[solver]} | {epsilon:g} | {before}, {after} | {difference.old:.2f} "
        f"| {difference.new:.2f} | {gap} | {'**lost**' if difference.lost else ''} |"
    )


# --- command line ----------------------------------------------------------------------------

_app = typer.Typer(rich_markup_mode="markdown", add_completion=False)
_Runs = Annotated[Path, typer.Argument(help="Runs, one line of JSON each.")]


@_app.command()
def run(
    engine: Annotated[str, typer.Argument(help="What the engine is called, in every run.")],
    out: _Runs,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="D,D,…",
            help=f"Of {', '.join((*MADE, *DATA_SETS))}. By default all of them; none where --cache "
            "is given.",
        ),
    ] = None,
    caches: Annotated[
        list[str] | None,
        typer.Option(
            "--cache",
            metavar="NAME=TRAIN:TEST",
            help="Feature caches to run on as well; may be repeated.",
        ),
    ] = None,
    solvers: Annotated[
        str, typer.Option(metavar="S,S,…", help=f"Of {', '.join(ESTIMATORS)}.")
    ] = "fc,ls,gd,newton",
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε.")] = "0.1,1,8",
    seeds: Annotated[
        int | None, typer.Option(help="Runs a cell; by default what is affordable.", min=1)
    ] = None,
) -> None:
    """Fit on every data set with this environment's engine, and keep the accuracies.

    Example: python -m dpfc.experiments.benchmarks.engine_accuracy run float64 old.jsonl
    --data one-hot,heavy-tails --solvers fc
    """
    job = Job(engine, solvers.split(","), parse_numbers(epsilons, "--epsilons"), seeds)
    unknown = [solver for solver in job.solvers if solver not in ESTIMATORS]
    if unknown:
        raise ValueError(f"--solvers takes {', '.join(ESTIMATORS)}, got {unknown[0]!r}.")
    for made in run_missing(_load(data, caches or ()), job, out):
        words = f"{made['data']}, {LABELS[made['solver']]}, ε = {made['epsilon']:g}"
        print(f"{words}, seed {made['seed']}: {100 * made['accuracy']:.2f}", file=sys.stderr)


@_app.command()
def compare(old: _Runs, new: _Runs) -> None:
    """Print the engines' accuracies as Markdown; exit with 1 if the new one lost anywhere."""
    for path in (old, new):
        if not path.exists():
            raise ValueError(f"there are no runs: {path} does not exist.")
    table, kept = compare_files(old, new)
    print(table)
    raise typer.Exit(0 if kept else 1)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_guarded(lambda arguments: _app(arguments, standalone_mode=False), argv, _app)


if __name__ == "__main__":
    sys.exit(main())
