"""Peak memory of a fit on a wide network: ghost clipping beside every row's gradient in memory.

Run `python -m dpfc.experiments.benchmarks.ghost_memory`. Each fit runs in a fresh process. What
counts is the most memory during `fit` above what the process held before it: on the CPU its
resident memory, on a GPU what PyTorch allocated there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dpfc.experiments.cli.console import run_command

__all__ = ["main", "peak_memory"]

_MIB = 2.0**20
_STATUS = Path("/proc/self/status")


def peak_memory(clipping: str, width: int, batch: int, device: str = "cpu") -> int:
    """Bytes that a fit takes at most, measured in a process of its own.

    Parameters
    ----------
    clipping : {"hooks", "functorch", "ghost"}
    width : int
        Of the network: linear from `width` to `width`, tanh, and linear to ten classes.
    batch : int
        Rows of every step.
    device : {"cpu", "cuda"}, default="cpu"

    Raises
    ------
    OSError
        Where there is no /proc, on the CPU.
    """
    from dpfc.experiments.studies.loop import process_pool

    with process_pool(1, 1) as pool:
        return pool.submit(_measure, clipping, width, batch, device).result()


def _measure(clipping: str, width: int, batch: int, device: str) -> int:
    import torch

    from dpfc import DPSGDClassifier

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 10)
    )
    model = DPSGDClassifier(
        module,
        epsilon=8.0,
        classes=range(10),
        n_samples=batch,
        n_steps=2,
        sampling_probability=1.0,
        clipping=clipping,
        physical_batch_size=batch,
        device=device,
    )
    X, y = torch.rand(batch, width), torch.arange(batch) % 10
    before = torch.cuda.memory_allocated() if device == "cuda" else _status("VmRSS")
    model.fit(X, y)
    after = torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")
    return int(after - before)


def _status(name: str) -> int:
    """Read memory of this process, in bytes; getrusage would count its parent's peak as well."""
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def _command(
    width: Annotated[int, typer.Option(help="Inputs and hidden units.", min=1)] = 2048,
    batch: Annotated[int, typer.Option(help="Rows of every step.", min=1)] = 64,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Print, as Markdown, peak memory and how ghost clipping compares.

    Example: python -m dpfc.experiments.benchmarks.ghost_memory --width 4096
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"--device takes cpu and cuda, got {device!r}.")
    peaks = {
        clipping: peak_memory(clipping, width, batch, device) for clipping in ("hooks", "ghost")
    }
    print(f"{width} → {width} → 10, {batch} rows a step, {device}\n")
    print("| clipping | peak above the start of the fit, MiB | share of hooks |\n|---|---|---|")
    for clipping, peak in peaks.items():
        print(f"| {clipping} | {peak / _MIB:.0f} | {peak / peaks['hooks']:.2f} |")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(_command, argv)


if __name__ == "__main__":
    sys.exit(main())
