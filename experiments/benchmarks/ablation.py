"""What each part of DP-FC brings: test accuracy with one parameter changed, beside the defaults.

Run `python -m dpfc.experiments.benchmarks.ablation`. Every change is fitted with the seeds 0,
1, … of the defaults' runs and compared with them run by run.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from dpfc.experiments.benchmarks.cifar10 import DELTA, NOTE, Data
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers
from dpfc.experiments.estimators import make_estimator
from dpfc.experiments.studies.named_data import (
    DATA_SETS,
    CacheSpecs,
    NamedData,
    load_either,
)

__all__ = ["CHANGES", "Effect", "effects", "main", "paired_scores"]

# What is left out or set otherwise, and the parameters that do it.
CHANGES: dict[str, dict[str, Any]] = {
    "RDP accounting": {"accountant": "rdp"},
    "rows not centred": {"center": False},
    "rows clipped, not normalised": {"normalize": False},
    "no square roots": {"nonnegative_root": False},
    "no columns for the length": {"length_scaling": 0.0},
    "no constant column": {"fit_intercept": False},
    "next to no Gram matrix": {"gram_share": 1e-6},
    "Gram share 0.2": {"gram_share": 0.2},
    "residuals clipped at 0.25": {"residual_clip_norm": 0.25},
    "residuals clipped at 1": {"residual_clip_norm": 1.0},
    "5 steps": {"n_steps": 5},
    "10 steps": {"n_steps": 10},
    "40 steps": {"n_steps": 40},
    "logit noise 0.35": {"logit_noise": 0.35},
    "logit noise 1.4": {"logit_noise": 1.4},
    "sigmoid loss": {"loss": "sigmoid"},
}


class Effect(NamedTuple):
    """Mean change of accuracy against the defaults, in points, and its standard error."""

    change: str
    epsilon: float
    mean: float
    standard_error: float


def effects(
    data: Data, changes: Mapping[str, Mapping[str, Any]], epsilons: Sequence[float], seeds: int
) -> Iterator[tuple[float, float, list[Effect]]]:
    """Yield ε, the defaults' accuracy in percent, and every change's effect, ε by ε."""
    for epsilon in epsilons:
        defaults = paired_scores(data, {}, epsilon, seeds)
        found = []
        for change, parameters in changes.items():
            gains = 100.0 * (paired_scores(data, parameters, epsilon, seeds) - defaults)
            error = float(np.std(gains, ddof=1)) / math.sqrt(seeds)
            found.append(Effect(change, epsilon, float(gains.mean()), error))
        yield epsilon, 100.0 * float(defaults.mean()), found


def paired_scores(
    data: Data, parameters: Mapping[str, Any], epsilon: float, seeds: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
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


def _command(
    data: Annotated[
        str, typer.Option(metavar="D,D,…", help=f"Of {', '.join(DATA_SETS)}.")
    ] = "digits,mnist5k,decay10,imbalanced5",
    caches: CacheSpecs = None,
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε.")] = "0.1,1,8",
    seeds: Annotated[int, typer.Option(help="Runs a cell, seeded 0, 1, ….", min=2)] = 5,
) -> None:
    """Print, as Markdown, how many points of test accuracy each change costs or brings.

    Example: python -m dpfc.experiments.benchmarks.ablation --data digits --epsilons 0.5,2
    """
    budgets = parse_numbers(epsilons, "--epsilons")
    sets = load_either(data, caches)
    for named in sets:
        print(_table(named, budgets, seeds))
    print(f"Points against the defaults, paired over {seeds} seeds; δ = {DELTA:g}; {NOTE}.")


def _table(named: NamedData, epsilons: Sequence[float], seeds: int) -> str:
    rows: dict[str, list[str]] = {"defaults, accuracy in %": []}
    for epsilon, accuracy, found in effects(named.data, CHANGES, epsilons, seeds):
        print(f"{named.name}: ε = {epsilon:g} done", file=sys.stderr)
        rows["defaults, accuracy in %"].append(f"{accuracy:.2f}")
        for effect in found:
            text = f"{effect.mean:+.2f} ± {effect.standard_error:.2f}"
            rows.setdefault(effect.change, []).append(text)
    head = f"| {named.name} | " + " | ".join(f"ε = {epsilon:g}" for epsilon in epsilons) + " |"
    lines = [head, "|---|" + "---|" * len(epsilons)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
