"""How often a forecast's 80% interval covers what a private fit then reaches.

Run `python -m dpfc.experiments.benchmarks.forecast`. Rows of each data set are shuffled; a quarter
of them (4,000 at most) is declared public and forecasts what fits on the rest reach. A third of
the rest is held out to score those, which have a tenth, three tenths and all of the others. A
second forecast of the same fits knows no public row, but numbers alone: width, classes and
their shares, the decay of the spectrum, and the accuracy of logistic regression on the rest, as
a paper on these data would have it. `digits` has
a third, from another data set: MNIST's digits, brought to the same 64 pixels.

A cell is a data set, split, method, ε, number of rows and source; its truth are real private fits
on rows and with noise of their own. What is allowed for the difference between public and private
rows is calibrated: for each data set on all others, and its coverage is counted with that.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dpfc._support.files import write_whole
from dpfc._support.words import strict
from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import make_estimator
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import DATA_SETS, LARGEST_PIXELS, load_named
from dpfc.linear.forecast import Outcomes, interval, outcomes_of
from dpfc.linear.forecast_rows import (
    ANOTHER_SOURCE,
    SAME_SOURCE,
    SIMULATED,
    PublicRows,
    RowSource,
    SimulatedRows,
)

__all__ = ["calibrated", "coverage", "main", "split_rows"]

_PUBLIC_SHARE, _MOST_PUBLIC = 0.25, 4_000
_ROWS = (0.1, 0.3, 1.0)
_TRUTHS = 2
_ALLOWANCES = tuple(round(0.01 * step, 2) for step in range(31))
_SOURCES = ("public rows", "simulated", "another data set")
_SHIPPED = {
    "public rows": SAME_SOURCE,
    "simulated": SIMULATED,
    "another data set": ANOTHER_SOURCE,
}
_GOAL = 0.8

# A cell as it is kept: JSON's own types.
Cell = dict[str, Any]


def split_rows(data: Data, seed: int) -> tuple[Data, Data]:
    """Cut a data set into what is public and what is private: fit and test rows of the latter.

    Returns
    -------
    (Data, Data)
        The first has no test rows.
    """
    X, y = np.concatenate([data.X, data.X_test]), np.concatenate([data.y, data.y_test])
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order], y[order]
    n_public = min(int(_PUBLIC_SHARE * len(y)), _MOST_PUBLIC)
    n_test = (len(y) - n_public) // 3
    test, fit = slice(n_public, n_public + n_test), slice(n_public + n_test, None)
    public = Data(X[:n_public], y[:n_public], X[:0], y[:0], data.n_classes)
    return public, Data(X[fit], y[fit], X[test], y[test], data.n_classes)


def _sources(public: Data, private: Data, seed: int) -> dict[str, RowSource]:
    from dpfc.experiments.ceiling import bound_rows, logistic_ceiling

    _, accuracy = logistic_ceiling(private.X, private.y, private.X_test, private.y_test, (30.0,))
    shares = np.bincount(public.y, minlength=public.n_classes) + 0.5
    shares = shares / shares.sum()
    rows, _ = bound_rows(public.X, public.X)
    values = np.linalg.eigvalsh(np.cov(rows[:, : public.X.shape[1]].T))[::-1]
    # Axes that hold 95% of the energy; the rest is often noise, or nothing.
    most = max(int(np.searchsorted(np.cumsum(values) / values.sum(), 0.95)) + 1, 4)
    steps = np.log(np.arange(1, most + 1))
    decay = -float(np.polyfit(steps, np.log(np.maximum(values[:most], 1e-12)), 1)[0])
    simulated = SimulatedRows(
        public.X.shape[1],
        public.n_classes,
        float(np.clip(accuracy, shares.max() + 0.01, 0.99)),
        [float(share) for share in shares],
        float(np.clip(decay, 0.0, 10.0)),
        seed,
    )
    classes = range(public.n_classes)
    return {"public rows": PublicRows(public.X, public.y, classes, seed), "simulated": simulated}


def _another(seed: int) -> PublicRows:
    """Digits of other writers in the format of `digits`: MNIST's, in 8 x 8 cells of 0 to 16."""
    (named,) = load_named(["mnist5k"])
    X = np.concatenate([named.data.X, named.data.X_test]).reshape(-1, 28, 28)
    X = np.pad(X, ((0, 0), (2, 2), (2, 2))).reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    y = np.concatenate([named.data.y, named.data.y_test])
    largest = LARGEST_PIXELS["mnist5k"] / LARGEST_PIXELS["digits"]
    return PublicRows(X.reshape(-1, 64) / largest, y, range(10), seed)


def _cells(
    name: str,
    data: Data,
    seed: int,
    methods: Sequence[str],
    epsilons: Sequence[float],
    repeats: int,
) -> Iterator[Cell]:
    """Forecast and measure every cell of one split."""
    public, private = split_rows(data, seed)
    sources = _sources(public, private, seed)
    if name == "digits":
        sources["another data set"] = _another(seed)
    sizes = [int(part * len(private.y)) for part in _ROWS]
    for method in methods:
        model = make_estimator(method, delta=DELTA, classes=range(data.n_classes))
        found = {
            source: outcomes_of(model, rows, sizes, epsilons, repeats, seed)
            for source, rows in sources.items()
        }
        for n in sizes:
            for epsilon in epsilons:
                truths = [_truth(private, method, n, epsilon, [seed, k]) for k in range(_TRUTHS)]
                for source, outcomes in found.items():
                    kept = outcomes[n, epsilon]._asdict()
                    yield {
                        "data": name,
                        "split": seed,
                        "method": method,
                        "epsilon": epsilon,
                        "n_samples": n,
                        "source": source,
                        "truths": truths,
                        "n_private_test": len(private.y_test),
                        "outcomes": kept | {"accuracies": kept["accuracies"].tolist()},
                    }


def _truth(data: Data, method: str, n: int, epsilon: float, seeds: Sequence[int]) -> float:
    """Accuracy of a real private fit on n of the private rows."""
    generator = np.random.default_rng([*seeds, n])
    rows = generator.permutation(len(data.y))[:n]
    model = make_estimator(
        method,
        epsilon=epsilon,
        delta=DELTA,
        classes=range(data.n_classes),
        random_state=int(generator.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data.X[rows], data.y[rows])
        return float(model.score(data.X_test, data.y_test))


def coverage(cells: Iterable[Cell], allowance: float) -> list[bool]:
    """Whether the interval covers, for every truth of every cell."""
    covered = []
    for cell in cells:
        low, high = interval(_outcomes(cell), allowance, cell["n_private_test"])
        covered += [bool(low - 1e-9 <= truth <= high + 1e-9) for truth in cell["truths"]]
    return covered


def _outcomes(cell: Cell) -> Outcomes:
    kept = cell["outcomes"]
    changed = {"accuracies": np.array(kept["accuracies"]), "n_scored": float(kept["n_scored"])}
    return Outcomes(**kept | changed)


def calibrated(cells: Sequence[Cell]) -> float:
    """The allowance whose coverage is closest to the goal, each data set counting the same."""
    names = sorted({cell["data"] for cell in cells})

    def missed(allowance: float) -> float:
        parts = [
            np.mean(coverage([c for c in cells if c["data"] == name], allowance)) for name in names
        ]
        return abs(float(np.mean(parts)) - _GOAL)

    return min(_ALLOWANCES, key=missed)


def to_markdown(cells: Sequence[Cell]) -> str:
    """Coverage of both sources by data set, with the allowance of all other data sets."""
    lines = []
    for source in _SOURCES:
        mine = [cell for cell in cells if cell["source"] == source]
        if not mine:
            continue
        names = list(dict.fromkeys(cell["data"] for cell in mine))
        lines += [
            f"### From {source}",
            "",
            "| data set | cells | allowance of the others | covered | as shipped | half width | "
            "mean error |",
            "|---|---|---|---|---|---|---|",
        ]
        everything: list[bool] = []
        for name in names:
            own = [cell for cell in mine if cell["data"] == name]
            others = [cell for cell in mine if cell["data"] != name]
            allowance = calibrated(others or own)
            covered = coverage(own, allowance)
            everything += covered
            widths, errors = zip(*(_width_and_error(cell, allowance) for cell in own), strict=True)
            shipped = np.mean(coverage(own, _SHIPPED[source]))
            lines.append(
                f"| {name} | {len(own)} | {allowance:.2f} | {np.mean(covered):.0%} | "
                f"{shipped:.0%} | {100 * np.mean(widths):.1f} | "
                f"{100 * np.mean(errors):+.1f} |"
            )
        lines += [
            f"| all | {len(mine)} | (of all: {calibrated(mine):.2f}) | {np.mean(everything):.0%} | "
            f"{np.mean(coverage(mine, _SHIPPED[source])):.0%} | | |",
            "",
        ]
    return "\n".join(lines)


def _width_and_error(cell: Cell, allowance: float) -> tuple[float, float]:
    outcomes = _outcomes(cell)
    low, high = interval(outcomes, allowance, cell["n_private_test"])
    return (high - low) / 2.0, float(np.mean(cell["truths"])) - outcomes.mean


def _command(
    data: Annotated[
        str, typer.Option(metavar="D,D,…", help=f"Of {', '.join(DATA_SETS)}; all by default.")
    ] = ",".join(DATA_SETS),
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")
    ] = "0.1,0.5,2,8",
    methods: Annotated[str, typer.Option(metavar="M,M,…", help="Of fc, ls, gd, newton.")] = (
        "fc,ls,gd"
    ),
    splits: Annotated[int, typer.Option(min=1, help="Cuts into public and private rows.")] = 1,
    repeats: Annotated[int, typer.Option(min=2, help="Fits a forecast's cell.")] = 6,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for cells and table.")] = Path(
        "runs/forecast"
    ),
) -> None:
    """Coverage of forecasts. What is in the folder already is not measured again.

    Example, two minutes: python -m dpfc.experiments.benchmarks.forecast --data breast-cancer,decay2
    --methods fc --epsilons 0.5,2
    """
    budgets, chosen = parse_numbers(epsilons, "--epsilons"), methods.split(",")
    out.mkdir(parents=True, exist_ok=True)
    for named in load_named(data.split(",")):
        for split in range(splits):
            path = out / f"{named.name}-{split}.json"
            if path.exists():
                continue
            cells = list(_cells(named.name, named.data, split, chosen, budgets, repeats))
            write_whole(path, json.dumps(strict(cells), indent=1))
            print(f"{named.name}, split {split}: {len(cells)} cells", file=sys.stderr, flush=True)
    everything: list[Cell] = []
    for path in sorted(out.glob("*.json")):
        everything += json.loads(path.read_text(encoding="utf-8"))
    text = to_markdown(everything)
    write_whole(out / "table.md", text)
    print(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
