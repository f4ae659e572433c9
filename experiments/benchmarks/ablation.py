"""What each part of DP-FC brings, from the runs of `dpfc sweep ablation`.

Run `python -m dpfc.experiments.benchmarks.ablation` after it. Every change is compared with the
defaults run by run: both have the same seeds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from dpfc.experiments.benchmarks.common import NOTE
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.studies.table import load_results

__all__ = ["DEFAULTS", "Effect", "effects", "main"]

DEFAULTS = "defaults"

# Test accuracies by seed: of a data set, an ε and a label.
Scores = dict[tuple[str, float], dict[str, dict[int, float]]]


class Effect(NamedTuple):
    """Mean change of accuracy against the defaults, in points, and its standard error."""

    mean: float
    standard_error: float


def effects(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, float], dict[str, Effect]]:
    """Pair every run of a study's table with the defaults' of the same seed.

    Returns
    -------
    dict
        By data set and ε, and there by label.

    Raises
    ------
    ValueError
        If there are fewer than two pairs of a label.
    """
    return {
        place: {label: _effect(label, by_seed, found[DEFAULTS]) for label, by_seed in found.items()}
        for place, found in _scores(rows).items()
    }


def _scores(rows: Iterable[Mapping[str, Any]]) -> Scores:
    scores: Scores = {}
    for row in rows:
        if row["status"] == "ok":
            cell = scores.setdefault((row["dataset"], row["epsilon"]), {DEFAULTS: {}})
            cell.setdefault(row["label"], {})[row["seed"]] = row["accuracy"]
    return scores


def _effect(label: str, found: Mapping[int, float], defaults: Mapping[int, float]) -> Effect:
    gains = [100.0 * (found[seed] - defaults[seed]) for seed in found if seed in defaults]
    if len(gains) < 2:
        raise ValueError(f"{label} has fewer than two runs with seeds of the defaults.")
    return Effect(float(np.mean(gains)), float(np.std(gains, ddof=1)) / math.sqrt(len(gains)))


def _command(
    study: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the study that was run.")
    ] = Path("runs/ablation"),
) -> None:
    """Print, as Markdown, how many points of test accuracy each change costs or brings.

    Example, after dpfc sweep ablation: python -m dpfc.experiments.benchmarks.ablation
    """
    rows = load_results(study).to_pylist()
    found, scores = effects(rows), _scores(rows)
    for data in dict.fromkeys(data for data, _ in found):
        epsilons = [epsilon for name, epsilon in found if name == data]
        accuracies = [np.mean([*scores[data, e][DEFAULTS].values()]) for e in epsilons]
        lines = {"defaults, accuracy in %": [f"{100.0 * accuracy:.2f}" for accuracy in accuracies]}
        for epsilon in epsilons:
            for label, (mean, error) in found[data, epsilon].items():
                if label != DEFAULTS:
                    lines.setdefault(label, []).append(f"{mean:+.2f} ± {error:.2f}")
        print(f"| {data} | " + " | ".join(f"ε = {epsilon:g}" for epsilon in epsilons) + " |")
        print("|---|" + "---|" * len(epsilons))
        for label, cells in lines.items():
            print(f"| {label} | {' | '.join(cells)} |")
        print()
    print(f"Points against the defaults, paired over seeds; {NOTE}.")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
