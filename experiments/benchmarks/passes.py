"""Passes of a fixed shape on this device: their rows, their cost, and what a row that goes moves.

Run `python -m dpfc.experiments.benchmarks.passes --device cuda`. For each network and way of
clipping: the passes that were found, the time of a step's sum in them as a ratio to the same rows
in one batch as it comes, and how far the sum moves, beyond what a row adds alone, when the
row goes; the rows are made up, and as bad as they come. Nothing is released.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer

from dpfc.experiments.cli.console import run_command
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, ClippedSums, make_clipped_sums
from dpfc.full_models.dp_sgd.passes import Passes, choose_passes
from dpfc.full_models.networks.factory import make_network

__all__ = ["main", "moved_beyond_own", "times"]

_CLASSES = 10
_SHAPES: dict[str, tuple[int, ...]] = {
    "linear": (17,),
    "mlp": (784,),
    "cnn": (1, 28, 28),
    "wrn-16-4": (3, 32, 32),
    "vit-tiny": (3, 32, 32),
    "dlr": (64, 2),
}
_SIZES = (1.0, 1e9, 1e-9, 1e30, 1e3)


def moved_beyond_own(sums: ClippedSums, passes: Passes, X: torch.Tensor) -> float:
    """Most that other rows' sum moves, in units of C, when the first row of several sets goes.

    Parameters
    ----------
    sums : ClippedSums
    passes : Passes
    X : torch.Tensor of shape (n_rows, ...)
        Taken as it is, at 10⁹ times its size, in mixed sizes, and almost all alike.
    """
    sizes = torch.tensor(_SIZES, device=X.device)[torch.arange(len(X), device=X.device) % 5]
    mixed = X * sizes.view(-1, *[1] * (X.ndim - 1))
    worst = 0.0
    for rows in (X, 1e9 * X, mixed, X[:1] + 1e-7 * X):
        codes = _codes(X)
        full, fewer, own = (
            _sum(sums, passes, rows[part], codes[part])
            for part in (slice(None), slice(1, None), slice(1))
        )
        worst = max(worst, float((full - fewer - own).norm()))
    return worst / sums.l2_clip_norm


def times(sums: ClippedSums, passes: Passes, X: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Medians of seconds: a sum over rows in passes, and over the same rows in one batch."""
    codes = _codes(X)
    taken: tuple[list[float], list[float]] = ([], [])
    plain = Passes(len(X))
    for _ in range(repeats):
        for ways, each in zip((passes, plain), taken, strict=True):
            each.append(_seconds(lambda ways=ways: _sum(sums, ways, X, codes), X.device))  # type: ignore[misc]
    return statistics.median(taken[0]), statistics.median(taken[1])


def _codes(X: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(X), device=X.device) % _CLASSES


def _sum(sums: ClippedSums, passes: Passes, X: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    for rows, own in zip(
        torch.split(X, passes.n_rows), torch.split(codes, passes.n_rows), strict=True
    ):
        laid, padded = passes.lay_out(rows.unsqueeze(1), own)
        sums.add(laid, padded, totals, n_rows=len(rows))
    return torch.cat([t.flatten() for t in totals])


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _command(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    networks: Annotated[str, typer.Option(help="Names, with commas between.")] = ",".join(_SHAPES),
    rows: Annotated[int, typer.Option(help="In a step, and a pass at most.")] = 64,
    repeats: Annotated[int, typer.Option(help="Of each time.")] = 5,
) -> None:
    """Print a line a network and way of clipping."""
    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, {rows} rows a step")
    print(
        f"{'network':10} {'clipping':10} {'passes':>14} {'ms':>8} {'/ batch':>8} {'moved / C':>10}"
    )
    for network in networks.split(","):
        generator = torch.Generator().manual_seed(0)
        X = torch.randn((rows, *_SHAPES[network]), generator=generator).to(where)
        for clipping in CLIPPINGS:
            module = make_network(network, input_shape=_SHAPES[network], n_classes=_CLASSES, seed=0)
            sums = make_clipped_sums(clipping, module.to(where).train(), 1.0)
            passes = choose_passes(
                sums,
                X[:1],
                n_copies=1,
                most_rows=rows,
                expected_rows=float(rows),
                sampling_probability=0.5,
            )
            fixed, batch = times(sums, passes, X, repeats)
            moved = moved_beyond_own(sums, passes, X[: 3 * passes.n_rows // 2 + 1])
            sums.close()
            shape = f"{passes.n_rows}{' aligned' if passes.aligned else ''}"
            print(
                f"{network:10} {clipping:10} {shape:>14} {1e3 * fixed:8.1f} {fixed / batch:8.2f} "
                f"{moved:10.1e}",
                flush=True,
            )


def main() -> int:
    """Run the command line."""
    return run_command(_command)


if __name__ == "__main__":
    sys.exit(main())
