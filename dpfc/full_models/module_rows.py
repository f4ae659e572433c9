"""Rows for networks: what users bring, checked before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dpfc.data import BlockSource, cache_labels, encode_labels, without_values

__all__ = ["MAX_ROWS", "ModuleRows", "UserRows", "as_input", "check_labels", "check_rows"]

# Of the data domain: the rounding of gradient sums is proven up to it.
MAX_ROWS = 2**21
_NO_LABELS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class ModuleRows:
    """Checked private rows (n_samples, ...) with their label codes (n_samples,), on the CPU."""

    X: torch.Tensor
    codes: torch.Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, places: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Some rows, as the network takes them, and their codes."""
        return as_input(self.X[places], device), self.codes[places].to(device)


@dataclass(frozen=True)
class UserRows:
    """Rows as a tensor, labels as they came, and a cache's class names."""

    X: torch.Tensor
    labels: NDArray[Any]
    class_names: list[str] | None = None


def as_input(X: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Rows as a network takes them: bytes become floats in [0, 1]."""
    X = X.to(device)
    return X.float() / 255.0 if X.dtype == torch.uint8 else X


def check_rows(X: Any, y: ArrayLike | None, *, labelled: bool = True) -> UserRows:
    """Turn what a user brings into a tensor and labels.

    Raises
    ------
    ValueError
        If rows are not numbers, not finite, too many or none, or do not fit the labels. Names
        a row's place at most, never a value.
    """
    if isinstance(X, BlockSource):
        return _cache_rows(X, y, labelled)
    if labelled and y is None:
        raise ValueError("DPSGDClassifier requires y to be passed.")
    tensor = _tensor(X)
    if not labelled:
        return UserRows(tensor, _NO_LABELS)
    labels = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
    if labels.ndim != 1 or len(labels) != len(tensor):
        raise ValueError(
            f"y must have one label a row: X has {len(tensor)} rows, y has the shape "
            f"{labels.shape}."
        )
    return UserRows(tensor, labels)


def check_labels(labels: NDArray[Any], classes: NDArray[Any]) -> torch.Tensor:
    """Codes of labels, shape (n_samples,).

    Raises
    ------
    ValueError
        If a label is not one of the classes; names its row.
    """
    return torch.from_numpy(encode_labels(labels, classes))


def _cache_rows(cache: BlockSource, y: ArrayLike | None, labelled: bool) -> UserRows:
    if y is not None:
        raise ValueError("y must be left out when X is a feature cache; it has labels.")
    blocks, labels = [], []
    for block, own in cache.blocks():
        blocks.append(np.asarray(block, dtype=np.float32))
        if labelled:
            labels.append(cache_labels(cache, own))
    found = np.concatenate(labels) if labelled else _NO_LABELS
    return UserRows(_tensor(np.concatenate(blocks)), found, cache.class_names)


def _tensor(X: Any) -> torch.Tensor:
    if isinstance(X, torch.Tensor):
        tensor = X.detach().cpu()
    else:
        with without_values():
            array = np.asarray(X)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"X must hold numbers only, got {array.dtype}.")
        if array.dtype.kind in "iu" and array.dtype != np.uint8:
            array = array.astype(np.int64)
        # A copy where it is read-only, which torch does not accept.
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(
            f"X must have one row or more, each an array, got the shape {tuple(tensor.shape)}."
        )
    if len(tensor) > MAX_ROWS:
        raise ValueError(f"X must have at most {MAX_ROWS} rows.")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"X must hold real numbers, got {tensor.dtype}.")
    if not tensor.is_floating_point():
        return tensor if tensor.dtype == torch.uint8 else tensor.long()
    tensor = tensor.float()
    finite = torch.isfinite(tensor).flatten(1).all(dim=1)
    if not bool(finite.all()):
        place = int(torch.argmin(finite.to(torch.int8)))
        raise ValueError(f"X contains NaN or infinity, first in row {place}.")
    return tensor
