"""How much memory there is, and refusing what does not fit before it is tried."""

from __future__ import annotations

import os

from dpfc._support.late import torch
from dpfc.exceptions import InsufficientMemoryError

__all__ = ["available_memory", "check_memory"]


def available_memory(device: torch.device) -> int:
    """Free memory in bytes, of the device's own kind."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(needed: int, what: str, advice: str, device: torch.device | None = None) -> None:
    """Refuse an allocation that does not fit.

    Parameters
    ----------
    needed : int
        Bytes.
    what, advice : str
        What takes them, and what to do instead.
    device : torch.device, optional
        The CPU's memory where it is left out.

    Raises
    ------
    InsufficientMemoryError
    """
    free = available_memory(device or torch.device("cpu"))
    if needed > free:
        raise InsufficientMemoryError(
            f"{what} take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. {advice}"
        )
