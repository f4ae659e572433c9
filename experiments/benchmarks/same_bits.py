"""Whether a seeded fit has the same bits however its sums are worked out.

Run `python -m dpfc.experiments.benchmarks.same_bits`. Private sums are integers, so neither
threads nor blocks, kernels, the order of rows, where they lie, nor the device may change one bit
of a model. The table names what differs, and the exit status is 1 then. A GPU is tried where
there is one.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from dpfc.experiments.cli.console import print_table, run_command

__all__ = ["SOLVERS", "main", "variations"]

SOLVERS = (
    "DPFCClassifier",
    "DPLeastSquaresClassifier",
    "DPGradientClassifier",
    "DPNewtonClassifier",
)
_Fit = Callable[[], Any]


def variations(
    make: Callable[[], Any], X: NDArray[Any], y: NDArray[Any]
) -> Iterator[tuple[str, _Fit]]:
    """Yield ways to fit one model, the plain one first, each with its name."""
    import torch

    def fit() -> Any:
        return make().fit(X, y)

    yield "as it comes", fit
    for n_threads in (1, 2):
        yield f"{n_threads} thread(s)", partial(_threads, n_threads, fit)
    for size in (100, 4096, 65_536):
        yield f"blocks of {size:,} rows", partial(_blocks, size, fit)
    for kernel in ("int8", "float32", "float64"):
        yield f"{kernel} products", partial(_kernel, kernel, fit)
    order = np.random.default_rng(1).permutation(len(X))
    yield "permuted rows", lambda: make().fit(X[order], y[order])
    yield "columns in memory", lambda: make().fit(np.asfortranarray(X), y)
    yield "float64", lambda: make().fit(X.astype(np.float64), y)

    def from_cache() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return make().fit(_cached(Path(folder) / "cache", X, y))

    yield "feature cache", from_cache
    if torch.cuda.is_available():
        yield "on the GPU", lambda: make().fit(torch.from_numpy(X).cuda(), y)


def _cached(path: Path, X: NDArray[np.float32], y: NDArray[Any]) -> Any:
    from dpfc.features import FeatureCache, FeatureCacheWriter
    from dpfc.features.cache.manifest import CacheDescription

    description = CacheDescription(X.shape[1], "float32")
    with FeatureCacheWriter(path, description) as writer:
        writer.write(X, y)
        writer.finish()
    return FeatureCache.open(path)


def _threads(n: int, fit: _Fit) -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return fit()
    finally:
        torch.set_num_threads(before)


def _blocks(n_rows: int, fit: _Fit) -> Any:
    from dpfc.mechanism import bounded_sums

    names = ("_MAP_ROWS", "_LEAST_ROWS", "_MOST_ROWS")
    before = [getattr(bounded_sums, name) for name in names]
    for name in names:
        setattr(bounded_sums, name, n_rows)
    try:
        return fit()
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(bounded_sums, name, value)


def _kernel(name: str, fit: _Fit) -> Any:
    with _environment("DPFC_INTEGER_KERNEL", name):
        return fit()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _digest(model: Any) -> str:
    parts = (model.coef_, model.intercept_, np.asarray(model.center_, dtype=np.float64))
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()


def _command(
    rows: Annotated[int, typer.Option(help="Random rows.", min=1)] = 20_000,
    width: Annotated[int, typer.Option(help="Features of a row.", min=1)] = 200,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 5,
    solvers: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(SOLVERS),
) -> int:
    """Fit with one seed in every way, and compare the weights to the last bit."""
    import warnings

    import dpfc

    generator = np.random.default_rng(0)
    X = generator.standard_normal((rows, width), dtype=np.float32)
    X[::3] = abs(X[::3])  # some rows are taken the roots of
    y = np.asarray(abs(X[:, :classes]).argmax(axis=1))
    lines, same = [], True
    for solver in solvers.split(","):
        make = partial(getattr(dpfc, solver), classes=range(classes), random_state=0)
        digests: dict[str, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dpfc.PrivacyWarning)
            for name, fit in variations(make, X, y):
                digests[name] = _digest(fit())
                agrees = digests[name] == digests["as it comes"]
                same = same and agrees
                lines.append((solver, name, digests[name][:16], "same" if agrees else "DIFFERS"))
    print_table(("fit of", "how", "SHA-256 of its weights", ""), lines)
    return 0 if same else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
