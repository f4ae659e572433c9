"""Time of a DP-FC fit against the matrix products that it cannot do without.

Run `python -m dpfc.experiments.benchmarks.fit_speed`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.cli.console import print_table, run_command

__all__ = ["Timing", "main", "measure"]


@dataclass(frozen=True)
class Timing:
    """Seconds of a fit, and of its raw products in each precision (best of all repeats)."""

    rows: int
    width: int
    n_classes: int
    fit: float
    products: dict[str, float]
    faster_library: dict[str, str]


def measure(X: NDArray[np.float32], y: NDArray[Any], n_classes: int, repeats: int = 3) -> Timing:
    """Time `DPFCClassifier.fit`, and one Gram matrix and its steps' products on the same rows.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_features)
    y : ndarray of int, shape (n_samples,)
        In 0 … n_classes - 1.
    n_classes : int
    repeats : int
        The fastest of so many is kept.

    Returns
    -------
    Timing
    """
    from dpfc import DPFCClassifier

    model = DPFCClassifier(classes=range(n_classes))
    products, libraries = {}, {}
    for precision in ("float32", "float64"):
        times = {
            library: _best(run, repeats)
            for library, run in _products(X.astype(precision), n_classes, model.n_steps).items()
        }
        libraries[precision], products[precision] = min(times.items(), key=lambda item: item[1])
    fit = _best(lambda: model.fit(X, y), repeats)
    return Timing(len(X), X.shape[1], n_classes, fit, products, libraries)


def _products(
    X: NDArray[np.floating], n_classes: int, n_steps: int
) -> dict[str, Callable[[], object]]:
    """X^T X once, and X W and R^T X for each step, in both libraries."""
    import torch

    W = np.zeros((X.shape[1], n_classes), dtype=X.dtype)
    R = np.ones((len(X), n_classes), dtype=X.dtype)

    def run(x: Any, w: Any, r: Any) -> None:
        x.T @ x
        for _ in range(n_steps):
            x @ w
            r.T @ x

    tensors = [torch.from_numpy(array) for array in (X, W, R)]
    return {"NumPy": lambda: run(X, W, R), "torch": lambda: run(*tensors)}


def _best(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def _command(
    features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Feature cache with labels; else random.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Random rows.", min=1)] = 50_000,
    width: Annotated[int, typer.Option(help="Features of a random row.", min=1)] = 1280,
    classes: Annotated[int, typer.Option(help="Classes of random labels.", min=2)] = 10,
    repeats: Annotated[int, typer.Option(help="The best of so many counts.", min=1)] = 3,
) -> None:
    """Time a DP-FC fit beside its raw matrix products, in this very process."""
    if features is None:
        generator = np.random.default_rng(0)
        X = generator.standard_normal((rows, width), dtype=np.float32)
        y: NDArray[Any] = generator.integers(0, classes, rows)
    else:
        from dpfc.features import FeatureCache

        cache = FeatureCache.open(features)
        y = cache.read_labels()
        X = cache.load()[0].astype(np.float32)
        classes = len(cache.class_names) if cache.class_names else int(y.max()) + 1
    _print(measure(X, y, classes, repeats))


def _print(timing: Timing) -> None:
    rows = [("DPFCClassifier().fit", f"{timing.fit:.3f}", "")]
    for precision, seconds in timing.products.items():
        name = f"raw products, {precision} ({timing.faster_library[precision]})"
        rows.append((name, f"{seconds:.3f}", f"{timing.fit / seconds:.2f}"))
    print(f"{timing.rows:,} rows × {timing.width:,} features, {timing.n_classes} classes\n")
    print_table(("what", "seconds", "fit is … times as long"), rows)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
