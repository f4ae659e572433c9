"""What unlabelled public features bring, for public rows that are like the private ones and not.

Run `python -m dpfc.experiments.benchmarks.public_features`. A fifth of the training rows, drawn at
random, plays the public data: without labels, and not among the rows that are fitted. With
`--public DIR`, the rows of another feature cache do.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.benchmarks.common import DELTA, NOTE, CacheSpecs, load_either
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import make_estimator
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import DATA_SETS

__all__ = ["main", "split"]

_PUBLIC_PART = 5  # one row in so many


def split(data: Data) -> tuple[Data, NDArray[Any]]:
    """Take a fifth of the training rows out, without their labels."""
    public = np.random.default_rng(0).permutation(len(data.y)) % _PUBLIC_PART == 0
    return data._replace(X=data.X[~public], y=data.y[~public]), data.X[public]


def _command(
    data: Annotated[
        str, typer.Option(metavar="D,D,…", help=f"Of {', '.join(DATA_SETS)}.")
    ] = "digits,mnist5k,decay10",
    caches: CacheSpecs = None,
    public: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Feature cache that plays the public data."),
    ] = None,
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε.")] = "0.1,0.5,1,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=2)] = 5,
) -> None:
    """Print, as Markdown, test accuracy with and without public features.

    Example: python -m dpfc.experiments.benchmarks.public_features --data digits --epsilons 0.5
    """
    from dpfc.features import FeatureCache

    budgets = parse_numbers(epsilons, "--epsilons")
    head = " | ".join(f"ε = {epsilon:g}" for epsilon in budgets)
    print(f"| data | public rows | |  {head} |\n|---|---|---|" + "---|" * len(budgets))
    for named in load_either(data, caches):
        private, features = split(named.data)
        name = "a fifth of the same"
        if public is not None:
            private, features, name = named.data, FeatureCache.open(public).load()[0], public.name
        for line in _lines(private, features, budgets, seeds):
            print(f"| {named.name} | {len(features)}, {name} | {line} |")
    print(f"\nTest accuracy in %, {seeds} seeds, δ = {DELTA:g}; {NOTE}.")


def _lines(
    private: Data, features: NDArray[Any], epsilons: Sequence[float], seeds: int
) -> list[str]:
    without, gains = ["without"], ["gain"]
    for epsilon in epsilons:
        plain = _scores(private, {}, epsilon, seeds)
        helped = _scores(private, {"public_features": features}, epsilon, seeds)
        difference = 100.0 * (helped - plain)
        error = float(np.std(difference, ddof=1)) / math.sqrt(seeds)
        without.append(f"{100.0 * plain.mean():.2f}")
        gains.append(f"{difference.mean():+.2f} ± {error:.2f}")
        print(f"ε = {epsilon:g} done", file=sys.stderr)
    return [" | ".join(without), " | ".join(gains)]


def _scores(
    data: Data, parameters: Mapping[str, Any], epsilon: float, seeds: int
) -> NDArray[np.float64]:
    """Test accuracy of DP-FC with these parameters, seed by seed, shape (seeds,)."""
    from dpfc import PrivacyWarning

    model = make_estimator("fc", epsilon=epsilon, delta=DELTA, classes=range(data.n_classes))
    model.set_params(**parameters)
    scores = []
    for seed in range(seeds):
        with warnings.catch_warnings():  # the table says that its runs are seeded
            warnings.simplefilter("ignore", PrivacyWarning)
            model.set_params(random_state=seed).fit(data.X, data.y)
        scores.append(model.score(data.X_test, data.y_test))
    return np.array(scores)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
