"""A wide ResNet on CIFAR-10 from scratch, for as many steps as fit into some minutes.

Run `python -m dpfc.experiments.benchmarks.wide_resnet --train TRAIN.parquet --test TEST.parquet`.
The settings are those of De et al. (2022): WRN-16-4, batches of 4,096 rows in expectation, 16
copies of each row, shifted and mirrored, SGD without momentum at a learning rate of 2 for
gradients clipped at 1, and a moving average of the weights. How many steps are planned follows
from a trial on made-up rows, before the data is read: it tells nothing of them. Fits are seeded
so that anyone can repeat them, up to the number of steps: these models are not private.

References
----------
De, Berrada, Hayes, Smith, Balle (2022), Unlocking High-Accuracy Differentially Private Image
Classification through Scale; learning rate, momentum and clipping as in the authors' file
cifar10_wrn_16_4_eps1.py of jax_privacy.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.cli.console import run_command
from dpfc.experiments.cli.options import parse_numbers

if TYPE_CHECKING:
    from dpfc import DPSGDClassifier

__all__ = ["main", "read_pixels", "seconds_a_step"]

_SHAPE = (3, 32, 32)
_CLASSES = 10
# Of 50,000 rows: the paper's tables, and DP-FC's of docs/studies.md on frozen features.
_PAPER = {1.0: 56.8, 8.0: 79.5}
_DPFC = {1.0: 77.26, 8.0: 79.65}


def read_pixels(path: Path, rows: int | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pixels in [-1, 1], shape (n, 3, 32, 32), and labels of the first rows of a Parquet file.

    Raises
    ------
    ValueError
        If it holds no labelled images of 32 x 32 in ten classes.
    """
    from dpfc.features import open_dataset

    images, labels = [], []
    for item in open_dataset(path):
        image = np.asarray(item.decode())
        if image.shape != (*_SHAPE[1:], _SHAPE[0]) or item.label not in range(_CLASSES):
            raise ValueError(f"{path} must hold labelled images of 32 x 32 in ten classes.")
        images.append(image.transpose(2, 0, 1))
        labels.append(item.label)
        if len(images) == rows:
            break
    return np.stack(images).astype(np.float32) / 127.5 - 1.0, np.array(labels, dtype=np.int64)


def _model(rows: int, batch: int, copies: int, learning_rate: float) -> DPSGDClassifier:
    from dpfc import DPSGDClassifier

    return DPSGDClassifier(
        "wrn-16-4",
        delta=DELTA,
        classes=range(_CLASSES),
        n_samples=rows,
        sampling_probability=batch / rows,
        l2_clip_norm=1.0,
        optimizer="sgd",
        learning_rate=learning_rate,
        momentum=0.0,
        augmentation="crop-flip",
        augmentation_multiplicity=copies,
        ema_decay=0.9999,
    )


def seconds_a_step(model: DPSGDClassifier, n_samples: int) -> float:
    """Time two steps on made-up rows; what a fit does but once is not in it."""
    generator = np.random.default_rng(0)
    X = generator.random((n_samples, *_SHAPE), dtype=np.float32)
    y = np.arange(n_samples) % _CLASSES
    seconds = []
    for n_steps in (1, 3):
        began = time.perf_counter()
        _fit(model.set_params(n_steps=n_steps), X, y)
        seconds.append(time.perf_counter() - began)
    # Where set-up times differ by more than steps take, the longer fit bounds a step as well.
    return max(0.5 * (seconds[1] - seconds[0]), 0.1 * seconds[1])


def _fit(model: DPSGDClassifier, X: NDArray[np.float32], y: NDArray[np.int64]) -> None:
    from dpfc import PrivacyWarning

    with warnings.catch_warnings():  # the output says that fits are seeded
        warnings.simplefilter("ignore", PrivacyWarning)
        model.fit(X, y)


def _command(
    train: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to train on.")],
    test: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to test on.")],
    minutes: Annotated[float, typer.Option(help="Of training, for each ε.", min=0.01)] = 60.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    epsilons: Annotated[str, typer.Option(metavar="E,E,…", help="Budgets ε; δ is 1e-5.")] = "1,8",
    rows: Annotated[int, typer.Option(help="Rows to train on, the file's first.", min=10)] = 50_000,
    test_rows: Annotated[int, typer.Option(help="Rows to test on.", min=1)] = 10_000,
    batch: Annotated[int, typer.Option(help="Expected rows of a step.", min=1)] = 4096,
    copies: Annotated[int, typer.Option(help="Of each row.", min=1)] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of SGD.")] = 2.0,
    physical: Annotated[int, typer.Option(help="Copies at a time; decides memory.", min=1)] = 512,
    seed: Annotated[int, typer.Option(help="Of weights, batches and noise.", min=0)] = 0,
) -> None:
    """Print, as Markdown, the steps that fit into the time and the accuracy after them.

    Example, a few steps on a CPU: python -m dpfc.experiments.benchmarks.wide_resnet --train
    cifar10-train.parquet --test cifar10-test.parquet --device cpu --minutes 1 --rows 512 --batch 8
    """
    budgets = parse_numbers(epsilons, "--epsilons")
    model = _model(rows, batch, copies, learning_rate).set_params(
        physical_batch_size=physical, device=device, random_state=seed
    )
    a_step = seconds_a_step(model, rows)
    n_steps = max(1, int(60.0 * minutes / a_step))
    print(f"{a_step:.2f} s a step on made-up rows: {n_steps} steps in {minutes:g} minutes.\n")
    X, y = read_pixels(train, rows)
    if len(y) < rows:
        raise ValueError(f"{train} has {len(y)} rows: set --rows to that or less.")
    _report(model.set_params(n_steps=n_steps), (X, y), read_pixels(test, test_rows), budgets)


def _report(
    model: DPSGDClassifier,
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    test: tuple[NDArray[np.float32], NDArray[np.int64]],
    budgets: tuple[float, ...],
) -> None:
    print("| ε | steps | s a step | test accuracy | De et al. | DP-FC, frozen features |")
    print("|---|---|---|---|---|---|")
    for epsilon in budgets:
        began = time.perf_counter()
        _fit(model.set_params(epsilon=epsilon), *train)
        a_step = (time.perf_counter() - began) / model.n_steps
        beside = " | ".join(f"{of[epsilon]:.1f}" if epsilon in of else "" for of in (_PAPER, _DPFC))
        print(
            f"| {epsilon:g} | {model.n_steps} | {a_step:.2f} | {100 * model.score(*test):.1f} | "
            f"{beside} |"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
