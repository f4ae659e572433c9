"""Signal against noise, direction by direction: what limits a private classifier on these rows.

Run `python -m dpfc.experiments.benchmarks.feature_signal --data digits`. Rows are mapped as the
estimators map them, with exact means; their covariance's eigenvectors are put into groups, and
for each group it is printed how much of a row's energy and of the class sums' lies there, and
how the class sums compare with the noise that the whole budget would add to them. This looks at
rows without privacy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NamedTuple

import numpy as np
import typer

from dpfc.experiments.benchmarks.common import DELTA, CacheSpecs, load_either
from dpfc.experiments.ceiling import bound_rows
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import DATA_SETS

__all__ = ["Group", "groups", "main"]

_EDGES = (0, 10, 30, 100, 300)


class Group(NamedTuple):
    """Some eigenvectors of the rows' covariance, by falling eigenvalue.

    `rows` and `classes` are shares of the energy of rows and of the centred class sums;
    `eigenvalue` is the group's largest times the number of rows, as a Gram matrix has it;
    `signal` is the energy of the centred class sums over that of noise with μ = 1.
    """

    first: int
    last: int
    rows: float
    classes: float
    eigenvalue: float
    signal: float


def groups(data: Data) -> list[Group]:
    """Describe the training rows of a data set, group by group."""
    X, _ = bound_rows(data.X, data.X_test)
    rows = X.astype(np.float64)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    values, vectors = values[::-1], vectors[:, ::-1]
    labels = np.eye(data.n_classes)[data.y] - 1.0 / data.n_classes
    sums = labels.T @ (rows @ vectors)
    # What rows of one class scatter around their mean adds to the sums by chance.
    chance = ((labels**2).sum(axis=1) @ (rows @ vectors) ** 2) / len(rows)
    energy = np.maximum((sums**2).sum(axis=0) - chance, 0.0)
    edges = [edge for edge in _EDGES if edge < len(values)] + [len(values)]
    return [
        Group(
            start + 1,
            stop,
            float(values[start:stop].sum() / values.sum()),
            float(energy[start:stop].sum() / energy.sum()),
            float(values[start]),
            float(energy[start:stop].sum() / ((data.n_classes - 1) * (stop - start))),
        )
        for start, stop in pairwise(edges)
    ]


def _command(
    data: Annotated[
        str, typer.Option(metavar="D,D,…", help=f"Of {', '.join(DATA_SETS)}.")
    ] = "digits,mnist5k",
    caches: CacheSpecs = None,
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε.")] = "0.1,1,8",
) -> None:
    """Print, as Markdown, where the classes differ and how loud the noise is there.

    Example: python -m dpfc.experiments.benchmarks.feature_signal --data digits --epsilons 0.5,2
    """
    budgets = parse_numbers(epsilons, "--epsilons")
    for named in load_either(data, caches):
        print(_table(named.name, named.data, budgets))


def _table(name: str, data: Data, epsilons: Sequence[float]) -> str:
    from dpfc.accounting import gaussian_mu

    mus = [gaussian_mu(epsilon, DELTA) for epsilon in epsilons]
    signals = " | ".join(f"signal ÷ noise, ε = {epsilon:g}" for epsilon in epsilons)
    lines = [
        f"| {name}: directions | rows' energy | class sums' energy | largest eigenvalue | "
        f"{signals} |",
        "|---|" + "---|" * (3 + len(epsilons)),
    ]
    for group in groups(data):
        ratios = " | ".join(f"{group.signal * mu**2:.3g}" for mu in mus)
        lines.append(
            f"| {group.first} to {group.last} | {group.rows:.1%} | {group.classes:.1%} | "
            f"{group.eigenvalue:.0f} | {ratios} |"
        )
    width = data.X.shape[1]
    edges = " | ".join(f"{math.sqrt(2.0 * width) / mu:.0f}" for mu in mus)
    lines.append(f"| a Gram's noise reaches, for all of μ² | | | | {edges} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
