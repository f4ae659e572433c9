"""Rows go through a network once before anything is spent: whatever a row may break shows then."""

from __future__ import annotations

import torch
from torch import nn

from dpfc.full_models.made_up_rows import made_up_blocks, vocabulary
from dpfc.full_models.module_rows import as_input
from dpfc.full_models.module_state import check_unchanged

__all__ = ["check_evaluation", "failed_on_row"]


def failed_on_row(place: int, error: Exception) -> str:
    """Words for a module that raised on a row: its place, and never what is in it."""
    return (
        f"the module fails on row {place} of X ({type(error).__name__}). Of whole numbers, every "
        "one must be a token that its embeddings have, from 0 on; put that row alone through the "
        "module to see more. Nothing was spent."
    )


def check_evaluation(module: nn.Module, like: torch.Tensor) -> None:
    """Refuse a module in evaluation mode whose scores of a row depend on earlier rows.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU.
    like : torch.Tensor of shape (1, ...)
        Any row's shape and dtype; its values are not used.

    Raises
    ------
    ValueError
    """
    like = as_input(torch.zeros_like(like), torch.device("cpu"))
    tokens = vocabulary(module, like)
    blocks = made_up_blocks(like, 1, tokens=tokens)
    check_unchanged(module, blocks, module)
