"""Rows go through a network once before anything is spent: whatever a row may break shows then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.made_up_rows import made_up_blocks, repeatable, vocabulary
from dpfc.full_models.dp_sgd.module_checks import copy_of_module
from dpfc.full_models.dp_sgd.module_state import (
    ModuleState,
    augmentation_state,
    check_unchanged,
    difference,
    module_state,
)
from dpfc.full_models.dp_sgd.rows import ModuleRows, as_input
from dpfc.full_models.silence import in_silence

__all__ = ["check_augmentation", "check_evaluation", "check_every_row", "failed_on_row"]


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


def check_augmentation(augmentation: Augmentation, blocks: Sequence[torch.Tensor]) -> None:
    """Refuse an augmentation that does not fit rows, or that remembers earlier ones.

    Parameters
    ----------
    augmentation : Augmentation
    blocks : sequence of torch.Tensor
        Made-up rows of all kinds.

    Raises
    ------
    ValueError
    """
    with repeatable(blocks[0].device):
        if not augmentation.by_row:
            augmentation(blocks[0][:1])
            return
    rows = [block[:1] for block in blocks]
    try:
        first = _augmented(augmentation, rows[0])
    except Exception as error:  # whatever a callable of the user's own raises
        raise ValueError(f"augmentation does not take a made-up row: {error}") from error
    usable = [row for row in rows if _fits(augmentation, row)]
    before = augmentation_state(augmentation)
    for other in usable:
        _augmented(augmentation, other)
        again = _augmented(augmentation, rows[0])
        if not torch.equal(first, again) or augmentation_state(augmentation) != before:
            raise ValueError(
                "augmentation gives a row another result after it has seen other rows, with the "
                "same seed: it keeps something of rows, or draws from a generator of its own. "
                "Draw from torch's, NumPy's or Python's global generator, and keep nothing."
            )


def check_every_row(
    module: nn.Module, rows: ModuleRows, augmentation: Augmentation, device: torch.device, size: int
) -> None:
    """Put every row through once, where one may fail: error messages come before the spend.

    Parameters
    ----------
    module : torch.nn.Module
        A copy of it is used, and thrown away.
    rows : ModuleRows
    augmentation : Augmentation
    device : torch.device
        Of the module.
    size : int
        Rows at a time.

    Raises
    ------
    ValueError
        If the augmentation or the module fails on a row; names its position, never a value. If
        one of them keeps something of rows, which it did not of made-up ones.
    """
    spoilt = copy_of_module(module)
    for part in spoilt.modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            part.register_forward_pre_hook(_tokens_within)
    before = module_state(spoilt), augmentation_state(augmentation)
    with torch.no_grad(), repeatable(device), in_silence():
        for places in torch.split(torch.arange(len(rows)), size):
            X = rows.take(places, device)[0]
            changed = _each_augmented(augmentation, X, int(places[0]))
            _each_through(spoilt, changed, int(places[0]))
    _check_forgotten(spoilt, augmentation, *before)


def _check_forgotten(
    module: nn.Module, augmentation: Augmentation, before: ModuleState, of_augmentation: bytes
) -> None:
    """Refuse what private rows left something in: globals, too, which copies of a module share."""
    changed = difference(before, module_state(module))
    who = "module"
    if changed is None and augmentation_state(augmentation) != of_augmentation:
        who, changed = "augmentation", "an attribute, closure or global of it"
    if changed is not None:
        raise ValueError(
            f"the {who} keeps something of the rows that go through it: {changed} changes as rows "
            "of X are tried. That would carry what private rows left there, without noise. Remove "
            "it. Nothing was spent; globals hold it still, so start Python afresh before a next "
            "fit."
        )


def _each_augmented(augmentation: Augmentation, X: torch.Tensor, first: int) -> torch.Tensor:
    if not augmentation.by_row:
        return augmentation(X)[:, 0]
    changed = []
    for place, row in enumerate(torch.split(X, 1), first):
        try:
            changed.append(augmentation.check(row)[:, 0])
        except Exception as error:  # whatever a callable of the user's own raises
            raise ValueError(
                f"augmentation fails on row {place} of X ({type(error).__name__}), or gives it "
                "another shape or dtype. Nothing was spent."
            ) from None
    return torch.cat(changed)


def _each_through(module: nn.Module, X: torch.Tensor, first: int) -> None:
    try:
        module(X)
        return
    except Exception:  # whatever a module of the user's own raises
        pass
    for place, row in enumerate(torch.split(X, 1), first):
        try:
            module(row)
        except Exception as error:
            raise ValueError(failed_on_row(place, error)) from None
    raise ValueError(
        f"the module fails on rows {first} to {first + len(X) - 1} of X together, and on none of "
        "them alone. Nothing was spent."
    )


def _tokens_within(layer: Any, inputs: tuple[object, ...]) -> None:
    """Said here, since a GPU answers a wrong token by ending the process' work on it."""
    tokens = inputs[0] if inputs else None
    if not isinstance(tokens, torch.Tensor) or not tokens.numel():
        return
    if int(tokens.min()) < 0 or int(tokens.max()) >= layer.num_embeddings:
        raise IndexError("a token is not in the vocabulary")


def _augmented(augmentation: Augmentation, row: torch.Tensor) -> torch.Tensor:
    with repeatable(row.device):
        return augmentation.check(row)


def _fits(augmentation: Augmentation, row: torch.Tensor) -> bool:
    try:
        _augmented(augmentation, row)
    except Exception:  # whatever a callable of the user's own raises at made-up rows
        return False
    return True
