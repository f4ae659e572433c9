"""Integers of exactly rounded Gaussian noise a second, beside NumPy's inexact normal values.

Run `python -m dpfc.experiments.benchmarks.noise_speed`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer

from dpfc.experiments.cli.console import print_table, run_command
from dpfc.mechanism.noise import SystemNoise
from dpfc.mechanism.rounded_gaussian import rounded_gaussian

__all__ = ["main", "measure"]

_OPENDP_SHARE = 20  # OpenDP draws that many times fewer: it is that much slower


def measure(sigma: float, size: int, repeats: int = 3) -> dict[str, float]:
    """Draws a second of each sampler, the repeats of all interleaved (best of all repeats).

    Parameters
    ----------
    sigma : float
    size : int
        Draws of one repeat.
    repeats : int

    Returns
    -------
    dict
        Name to draws a second. OpenDP's discrete Gaussian is among them where it is installed.
    """
    generator = np.random.default_rng(0)
    samplers: dict[str, tuple[Callable[[int], object], int]] = {
        "rounded Gaussian, os.urandom": (lambda n: rounded_gaussian(sigma, n, os.urandom), size),
        "rounded Gaussian, seeded": (lambda n: rounded_gaussian(sigma, n, generator.bytes), size),
        "NumPy's standard_normal": (generator.standard_normal, size),
        "os.urandom alone, 8 bytes a draw": (lambda n: os.urandom(8 * n), size),
        f"rounded Gaussian, {os.cpu_count()} cores": (
            lambda n: SystemNoise().rounded_gaussian(sigma, n),
            size,
        ),
    }
    if importlib.util.find_spec("opendp") is not None:
        share = max(1, size // _OPENDP_SHARE)
        samplers["OpenDP's discrete Gaussian"] = (_opendp_sampler(sigma), share)
    best = dict.fromkeys(samplers, 0.0)
    for _ in range(repeats):
        for name, (draw, draws) in samplers.items():
            began = time.perf_counter()
            draw(draws)
            best[name] = max(best[name], draws / (time.perf_counter() - began))
    return best


def _opendp_sampler(sigma: float) -> Callable[[int], object]:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    noise = dp.m.make_gaussian(*space, scale=sigma)
    return lambda n: noise([0] * n)


def _command(
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise.")] = 1e6,
    size: Annotated[int, typer.Option(help="Draws of one repeat.", min=1)] = 1_000_000,
    repeats: Annotated[int, typer.Option(help="The best of so many counts.", min=1)] = 5,
) -> None:
    """Count draws a second of exact and inexact noise, in this very process, on one thread."""
    speeds = measure(sigma, size, repeats)
    print(f"{size:,} draws, σ = {sigma:g}; one thread but where cores are named\n")
    rows = [(name, f"{speed / 1e6:.2f}") for name, speed in speeds.items()]
    print_table(("what", "millions of draws a second"), rows)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
