"""Whether code takes numbers out of tensors: a condition on a whole batch needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["looking_for_reads"]

# What gives Python a tensor's numbers, or its memory, without an operation that says so.
_FUNCTIONS = frozenset(
    (
        "__array__", "__contains__", "__dlpack__", "__format__", "__reduce_ex__", "__repr__",
        "__str__", "cond", "data_ptr", "is_nonzero", "numpy", "storage", "to_dlpack", "tolist",
        "untyped_storage", "while_loop",
    )
)  # fmt: skip
_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@contextmanager
def looking_for_reads(memory: bool = True) -> Iterator[list[str]]:
    """Collect, meanwhile, the operations whose result is Python's, or whose shape hangs on numbers.

    These are those that PyTorch itself marks so (for its compiler, which has to stop at them),
    an index by a mask, and what hands out a tensor's memory. Code that could have a condition is
    found by the reading, whatever the numbers are. `memory`: whether the last counts, which is
    how a backbone's pass ends.
    """
    found: list[str] = []

    class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if _reads(func, args):
                found.append(str(func))
            # In inference mode operations that are made of others come whole.
            with self:
                parts = func.decompose(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {})) if parts is NotImplemented else parts

    class Functions(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if memory and getattr(func, "__name__", "") in _FUNCTIONS:
                found.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Operations(), Functions():  # type: ignore[no-untyped-call]
        yield found


def _reads(operation: Any, args: tuple[Any, ...]) -> bool:
    if operation in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default):
        return any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in args[1]
        )
    return any(tag in _TAGS for tag in getattr(operation, "tags", ()))
