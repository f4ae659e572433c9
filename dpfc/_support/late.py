"""torch, imported when first used: a fitted linear model predicts without it, and need not wait."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["is_tensor", "torch"]


class _Late(ModuleType):
    """A module under its name. Unlike lazy_loader's, it is not in `sys.modules` before its use.

    SciPy and scikit-learn take a name there for a module in use, and would import it.
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import torch as torch
    from typing_extensions import TypeIs
else:
    torch = _Late("torch")


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether a value of any kind is a tensor, which nothing is before torch is imported."""
    return sys.modules.get("torch") is not None and isinstance(value, torch.Tensor)
