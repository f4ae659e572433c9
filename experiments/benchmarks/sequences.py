"""What a diagonal linear RNN learns of sequences that this repository makes.

Run `python -m dpfc.experiments.benchmarks.sequences --task digits --epsilon 8`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from dpfc import DPSGDClassifier, PrivacyWarning
from dpfc.experiments.benchmarks.sequence_tasks import TASKS, SequenceTask
from dpfc.experiments.cli.console import run_command
from dpfc.full_models.networks.factory import make_network

__all__ = ["accuracy", "main", "train_privately", "train_without_privacy"]

_STEPS = {"digits": 300, "listops": 2000, "pathfinder": 2000}
_BATCH = 64
_RATE = 4e-3
_WEIGHT_DECAY = 0.01
_PRIVATE_STEPS, _PRIVATE_SAMPLING, _PRIVATE_RATE = 600, 0.2, 0.5


class _Line(NamedTuple):
    """One line of the table: accuracy is a share of the test rows."""

    task: str
    method: str
    accuracy: float
    seconds: float


def train_without_privacy(task: SequenceTask, steps: int, seed: int) -> torch.nn.Module:
    """Train "dlr" with AdamW on batches of 64, at a rate that rises and then falls to zero."""
    network = make_network(
        "dlr",
        input_shape=task.X.shape[1:],
        n_classes=task.n_classes,
        seed=seed,
        vocabulary_size=task.vocabulary_size,
    )
    rows, labels = torch.from_numpy(task.X), torch.from_numpy(task.y)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < _BATCH:
            order = torch.randperm(len(rows), generator=generator)
        batch, order = order[:_BATCH], order[_BATCH:]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(rows[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def accuracy(
    network: torch.nn.Module, rows: NDArray[np.generic], labels: NDArray[np.int64]
) -> float:
    """Give the share of rows whose largest logit is their label's."""
    found = [network(chunk).argmax(dim=1) for chunk in torch.split(torch.from_numpy(rows), 256)]
    return float((torch.cat(found).numpy() == labels).mean())


def train_privately(task: SequenceTask, epsilon: float, seed: int) -> DPSGDClassifier:
    """Train the same network with DP-SGD on Poisson samples of a fifth of the rows."""
    model = DPSGDClassifier(
        "dlr",
        epsilon=epsilon,
        classes=range(task.n_classes),
        vocabulary_size=task.vocabulary_size,
        optimizer="sgd",
        learning_rate=_PRIVATE_RATE,
        schedule="linear",
        n_steps=_PRIVATE_STEPS,
        sampling_probability=_PRIVATE_SAMPLING,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Seeded so that anyone gets these figures; the page says so.
        warnings.simplefilter("ignore", PrivacyWarning)
        return model.fit(task.X, task.y)


def _measure(name: str, steps: int | None, seed: int, epsilon: float | None) -> Iterator[_Line]:
    """Train on one task with every method, and test."""
    task = TASKS[name](seed=seed)
    start = time.perf_counter()
    network = train_without_privacy(task, steps or _STEPS[name], seed)
    seconds = time.perf_counter() - start
    yield _Line(name, "AdamW, not private", accuracy(network, task.X_test, task.y_test), seconds)
    if epsilon is not None:
        start = time.perf_counter()
        model = train_privately(task, epsilon, seed)
        seconds = time.perf_counter() - start
        yield _Line(
            name, f"DP-SGD, ε = {epsilon:g}", model.score(task.X_test, task.y_test), seconds
        )


def _command(
    task: Annotated[str, typer.Option(metavar="T,T,…", help=f"Of {', '.join(TASKS)}.")] = ",".join(
        TASKS
    ),
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Training steps; by default 300 for digits, 2,000 otherwise."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data, weights and batches.")] = 0,
    epsilon: Annotated[
        float | None, typer.Option(help="Train with DPSGDClassifier as well; δ is 1e-5.")
    ] = None,
) -> None:
    """Print, as Markdown, test accuracies of a diagonal linear RNN.

    Example: python -m dpfc.experiments.benchmarks.sequences --task digits --epsilon 8
    """
    names = task.split(",")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"there is no task {name!r}; tasks are {', '.join(TASKS)}.")
    print("| task | method | test accuracy | seconds |\n|---|---|---|---|")
    for name in names:
        for line in _measure(name, steps, seed, epsilon):
            print(f"| {line.task} | {line.method} | {line.accuracy:.1%} | {line.seconds:.0f} |")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
