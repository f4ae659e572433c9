"""Many tensors as one vector: its norm inner products and gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

__all__ = ["gradient_of", "inner_product", "l2_norm"]


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter's privatised gradient.

    Raises
    ------
    RuntimeError
        If there is none: it would be moved by nothing, or by a stale value.
    """
    if parameter.grad is None:
        raise RuntimeError(
            f"A parameter of shape {tuple(parameter.shape)} has no gradient: give every "
            "parameter of the optimizer its privatised gradient before step()."
        )
    return parameter.grad


def l2_norm(tensors: Iterable[torch.Tensor]) -> float:
    """L2 norm over the entries of all tensors, in float64."""
    return math.hypot(
        *(float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in tensors)
    )


def inner_product(left: Iterable[torch.Tensor], right: Iterable[torch.Tensor]) -> float:
    """Sum of the products of entries, in float64."""
    return math.fsum(
        float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True)
    )
