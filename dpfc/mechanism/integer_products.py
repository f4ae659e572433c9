"""Products of int8 matrices as exact integers, by the fastest kernel that a machine has.

| kernel | how | exact because |
|---|---|---|
| int8 | int8 products with int32 accumulation (VNNI, AMX, tensor cores) | sums stay below 2³¹ |
| float32 | float products of `_FLOAT32_DEPTH` terms at a time | partial sums stay below 2²⁴ |
| float64 | the same in float64 | partial sums stay below 2⁵³ |

Sums of integers need no order, so all three give the same integers, for any block, thread and
device. Some processors have int8 products that saturate without a word, so each process holds a
kernel against NumPy's integers before its first use, and takes the next one where a bit differs.
The environment variable `DPFC_INTEGER_KERNEL` names one instead.

References
----------
PyTorch issue 136746 and ONNX Runtime issue 6004 (saturation without VNNI).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch

__all__ = ["KERNEL_VARIABLE", "MOST_TERMS", "kernel_name", "product"]

KERNEL_VARIABLE = "DPFC_INTEGER_KERNEL"
LARGEST = 127  # of a digit, either way
MOST_TERMS = 2**31 // LARGEST**2 - 1  # of one sum that int32 holds
_FLOAT32_DEPTH = 2**24 // LARGEST**2
_CUDA_MULTIPLE = 32  # what the sides of an int8 product have to be on a GPU
_LEAST_SIDE = 2  # on a CPU: PyTorch 2.13 mistakes the strides of a row or column for a matrix's


def product(a: Any, b: Any) -> Any:
    """Multiply two matrices of int8 numbers in -127 … 127, exactly.

    Parameters
    ----------
    a : ndarray or torch.Tensor of shape (m, k), int8
        A tensor on a GPU is worked on there.
    b : of the same kind, shape (k, n), int8
        k is at most `MOST_TERMS`.

    Returns
    -------
    of the same kind, shape (m, n), int32
    """
    if a.shape[1] > MOST_TERMS:
        raise ValueError(f"a sum of products must have at most {MOST_TERMS} terms.")
    if not isinstance(a, np.ndarray):
        return _KERNELS[kernel_name(a.device.type)](a, b)
    result = _KERNELS[kernel_name("cpu")](torch.from_numpy(a), torch.from_numpy(b))
    return result.numpy()


def kernel_name(device: str) -> str:
    """Which kernel products take on a device: the one that is named, else the first exact one.

    Raises
    ------
    ValueError
        If the environment names none, or one that is wrong here.
    """
    named = os.environ.get(KERNEL_VARIABLE, "")
    if not named:
        return next(name for name in _KERNELS if _is_exact(name, device))
    if named not in _KERNELS:
        known = ", ".join(_KERNELS)
        raise ValueError(f"{KERNEL_VARIABLE} must be one of {known}, got {named!r}.")
    if not _is_exact(named, device):
        raise ValueError(
            f"{KERNEL_VARIABLE}={named}: this machine's {named} products are not exact. Take "
            "another, or unset it."
        )
    return named


@cache
def _is_exact(name: str, device: str) -> bool:
    """Whether a kernel gives NumPy's integers where sums are largest, and where they are not."""
    generator, kernel = np.random.default_rng(0), _KERNELS[name]
    try:
        for rows, depth, columns in ((40, 1283, 24), (200, 4099, 130), (1, 64, 1), (4, 1, 44)):
            a = generator.integers(-LARGEST, LARGEST + 1, (rows, depth)).astype(np.int8)
            b = generator.integers(-LARGEST, LARGEST + 1, (columns, depth)).astype(np.int8).T
            ends = np.where(a < 0, -LARGEST, LARGEST).astype(np.int8)
            most = np.full_like(a, LARGEST)
            pairs = ((a, b), (ends, b.copy()), (b.T, a.T), (most, most.T), (most, -most.T))
            if not all(_agrees(kernel, left, right, device) for left, right in pairs):
                return False
    except (RuntimeError, NotImplementedError):  # a machine or version that has it not
        return False
    return True


def _agrees(
    kernel: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    a: NDArray[np.int8],
    b: NDArray[np.int8],
    device: str,
) -> bool:
    found = kernel(torch.from_numpy(a).to(device), torch.from_numpy(b).to(device)).cpu().numpy()
    # Of integers below 2⁵³, which float64 adds without rounding.
    return np.array_equal(found, a.astype(np.float64) @ b.astype(np.float64))


def _int8(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    sides = (a.shape[0], a.shape[1], b.shape[1])
    if a.device.type == "cpu":
        more = [max(0, _LEAST_SIDE - side) for side in sides]
    else:
        more = [-side % _CUDA_MULTIPLE for side in sides]
    if not any(more):
        # Nor does it take views that repeat a row.
        return torch._int_mm(*(m.contiguous() if 0 in m.stride() else m for m in (a, b)))
    a = torch.nn.functional.pad(a, (0, more[1], 0, more[0]))
    b = torch.nn.functional.pad(b, (0, more[2], 0, more[1]))
    return torch._int_mm(a, b)[: sides[0], : sides[2]]


def _float32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((a.shape[0], b.shape[1]), dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], _FLOAT32_DEPTH):
        terms = slice(start, start + _FLOAT32_DEPTH)
        total += (a[:, terms].float() @ b[terms].float()).to(torch.int32)
    return total


def _float64(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.double() @ b.double()).to(torch.int32)


_KERNELS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "int8": _int8,
    "float32": _float32,
    "float64": _float64,
}
