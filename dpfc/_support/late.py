"""torch, imported when first used: a fitted linear model predicts without it, and need not wait."""

from __future__ import annotations

import signal
import sys
import threading
from importlib import import_module
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["is_tensor", "torch"]


class _Late(ModuleType):
    """A module under its name. Unlike lazy_loader's, it is not in `sys.modules` before its use.

    SciPy and scikit-learn take a name there for a module in use, and would import it.
    """

    def __getattr__(self, name: str) -> Any:
        if self.__name__ not in sys.modules:
            _import_whole(self.__name__)
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def _import_whole(name: str) -> None:
    """Import, and let Ctrl-C come after: torch that is half imported cannot be imported again."""
    if threading.current_thread() is not threading.main_thread():  # where signals never come
        import_module(name)
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # set by no Python code, which could not set it again
        import_module(name)
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        import_module(name)
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])


if TYPE_CHECKING:
    import torch as torch
    from typing_extensions import TypeIs
else:
    torch = _Late("torch")


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether a value of any kind is a tensor, which nothing is before torch is imported."""
    return sys.modules.get("torch") is not None and isinstance(value, torch.Tensor)
