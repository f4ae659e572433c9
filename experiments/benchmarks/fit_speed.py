"""Time and memory of fits against the matrix products that they cannot do without.

Run `python -m dpfc.experiments.benchmarks.fit_speed`. Raw float32 products and fits take turns,
and medians are compared. `DPFC_INTEGER_KERNEL=float32` forces the kernel of machines whose int8
products are not exact.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.cli.console import print_table, run_command

__all__ = ["Timing", "main", "measure", "peak_memory"]


@dataclass(frozen=True)
class Timing:
    """Median seconds of a fit, and of its raw float32 products in the faster library."""

    name: str
    fit: float
    products: float

    @property
    def ratio(self) -> float:
        """How many times as long as its products a fit takes."""
        return self.fit / self.products


def measure(X: NDArray[np.float32], y: NDArray[Any], n_classes: int, repeats: int) -> list[Timing]:
    """Time DP-FC beside one Gram matrix and its steps' products, and DP-LS beside one Gram matrix.

    Parameters
    ----------
    X : ndarray of float32, shape (n_samples, n_features)
    y : ndarray of int, shape (n_samples,)
        In 0 … n_classes - 1.
    n_classes : int
    repeats : int
        Turns of which the median is taken.

    Returns
    -------
    list of Timing
    """
    from dpfc import DPFCClassifier, DPLeastSquaresClassifier

    timings = []
    for model in (DPFCClassifier(), DPLeastSquaresClassifier()):
        model.set_params(classes=range(n_classes))
        runs = _products(X, n_classes, getattr(model, "n_steps", 0))
        runs["fit"] = partial(model.fit, X, y)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                seconds[name].append(_seconds(run))
        fit, *products = (median(seconds[name]) for name in ("fit", "NumPy", "torch"))
        timings.append(Timing(type(model).__name__, fit, min(products)))
    return timings


def _products(
    X: NDArray[np.float32], n_classes: int, n_steps: int
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


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def peak_memory(rows: int, width: int, n_classes: int) -> int:
    """Bytes that a DP-FC fit takes above X, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_fit_alone, args=(rows, width, n_classes, theirs))
    process.start()
    theirs.close()
    try:
        return int(ours.recv())
    finally:
        process.join()


def _fit_alone(rows: int, width: int, n_classes: int, answer: Any) -> None:
    from dpfc import DPFCClassifier

    generator = np.random.default_rng(0)
    warnings.simplefilter("ignore")  # of a budget that is too small for so few rows
    model = DPFCClassifier(classes=range(n_classes))
    small = generator.standard_normal((200, 8), dtype=np.float32)
    model.fit(small, generator.integers(0, n_classes, 200))  # what is loaded once is no part of it
    X = generator.standard_normal((rows, width), dtype=np.float32)
    y = generator.integers(0, n_classes, rows)
    before = _peak()
    model.fit(X, y)
    answer.send(_peak() - before)


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage knows the parent's peak too, there
        (peak,) = (s for s in status.read_text().splitlines() if s.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _command(
    features: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Feature cache with labels; else random.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Random rows.", min=1)] = 50_000,
    width: Annotated[int, typer.Option(help="Features of a random row.", min=1)] = 1280,
    classes: Annotated[int, typer.Option(help="Classes of random labels.", min=2)] = 10,
    repeats: Annotated[int, typer.Option(help="Turns; their median counts.", min=1)] = 5,
) -> None:
    """Time fits beside their raw matrix products, in this very process, and measure memory."""
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
    _print(X, measure(X, y, classes, repeats), classes)


def _print(X: NDArray[np.float32], timings: list[Timing], n_classes: int) -> None:
    from dpfc.mechanism.integer_products import kernel_name

    rows, width = X.shape
    print(
        f"{rows:,} rows × {width:,} features, {n_classes} classes, {kernel_name('cpu')} products\n"
    )
    lines = [(t.name, f"{t.fit:.3f}", f"{t.products:.3f}", f"{t.ratio:.2f}") for t in timings]
    print_table(("fit of", "seconds", "raw products, float32", "times as long"), lines)
    above = peak_memory(rows, width, n_classes)
    entry = (above - 100 * width**2) / X.size
    print(f"\nPeak memory of a DP-FC fit above X: {above / 2**20:.0f} MiB; without 100 bytes for")
    print(f"each entry of a {width:,} × {width:,} matrix, {entry:.2f} bytes an entry of X.")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
