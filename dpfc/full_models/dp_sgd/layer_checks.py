"""Whether every trained layer is given one entry a row, as Opacus' rules for layers expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

# Which take a place of the sequences at a time, or sequences with places first.
_OF_OPACUS = ("RNNLinear", "DPRNN", "DPLSTM", "DPGRU", "SequenceBias")

__all__ = ["check_layers_see_rows", "trained_layers"]


def check_layers_see_rows(module: nn.Module, rows: torch.Tensor) -> None:
    """Refuse layers that take something else than the rows of a batch, one after the other.

    Parameters
    ----------
    module : torch.nn.Module
        A copy that may be spoilt.
    rows : torch.Tensor of shape (n_rows, ...)
        Made-up rows.

    Raises
    ------
    ValueError
        Names the layer, and says what to do.
    """
    troubles: list[str] = []
    hooks = []
    for name, layer, _ in trained_layers(module):
        words = f"layer {name!r} ({type(layer).__name__})"

        def look(layer: nn.Module, inputs: tuple[Any, ...], words: str = words) -> None:
            trouble = _trouble(layer, inputs, len(rows))
            if trouble:
                troubles.append(f"{words} {trouble}")

        hooks.append(layer.register_forward_pre_hook(look))
    try:
        with torch.no_grad():
            module(rows)
    except Exception:  # said better where scores are looked at, unless a layer is to blame
        if not troubles:
            return
    finally:
        for hook in hooks:
            hook.remove()
    if troubles:
        raise ValueError(troubles[0])


def trained_layers(
    module: nn.Module, name: str = ""
) -> Iterator[tuple[str, nn.Module, list[nn.Parameter]]]:
    """Name, layer and trained parameters of all that a row's gradient is taken of at a time.

    A layer that Opacus has no rule for stands for all in it.
    """
    from opacus.grad_sample import GradSampleModule

    ruled = type(module) in GradSampleModule.GRAD_SAMPLERS
    if any(p.requires_grad for p in module.parameters(recurse=False)):
        own = [p for p in module.parameters(recurse=not ruled) if p.requires_grad]
        yield name, module, own
        if not ruled:
            return
    for child, part in module.named_children():
        yield from trained_layers(part, f"{name}.{child}".lstrip("."))


def _trouble(layer: nn.Module, inputs: tuple[Any, ...], n_rows: int) -> str:
    first = inputs[0] if inputs else None
    if type(layer).__name__ in _OF_OPACUS:
        return ""
    if not isinstance(first, torch.Tensor):
        return (
            "is given no rows, so that no gradient is one row's own. Pass it the rows, or keep its "
            "parameters in the module that does."
        )
    if isinstance(layer, nn.GroupNorm) and first.numel() <= n_rows * layer.num_groups:
        return (
            "has one number a group on such rows, and would make all of them zero. Use "
            "torch.nn.LayerNorm."
        )
    if first.ndim == 0 or len(first) != n_rows:
        return (
            f"is given {len(first) if first.ndim else 'no'} rows where the batch has {n_rows}; "
            "gradients of single rows need one entry a row, and rows first. Positions, say: "
            "torch.arange(length, device=x.device).repeat(len(x), 1) in place of "
            "torch.arange(length)[None]."
        )
    return ""
