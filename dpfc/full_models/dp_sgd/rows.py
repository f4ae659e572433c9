"""Rows for networks: what users bring, checked before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dpfc.full_models.dp_sgd.people import People
from dpfc.mechanism.labels import as_labels, encode_labels
from dpfc.mechanism.rows import BlockSource, cache_labels
from dpfc.mechanism.user_rows import as_numbers, check_finite

__all__ = [
    "MAX_ROWS",
    "ROW_KINDS",
    "ModuleRows",
    "UserRows",
    "as_input",
    "bounded_rows",
    "check_labels",
    "check_rows",
    "has_type",
    "row_kind",
]

# Of the data domain: the rounding of gradient sums is proven up to it.
MAX_ROWS = 2**21
# What rows of a tensor's type are to a network; all other whole numbers are int64 by then.
ROW_KINDS = {torch.float32: "floats", torch.uint8: "bytes", torch.int64: "tokens"}
_NO_LABELS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class ModuleRows:
    """Checked private rows (n_samples, ...) with their label codes (n_samples,), on the CPU.

    Where persons have several rows, `people` says whose each is.
    """

    X: torch.Tensor
    codes: torch.Tensor
    people: People | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def n_units(self) -> int:
        """Persons, or rows where each is somebody's only one."""
        return len(self) if self.people is None else len(self.people)

    def tensors(self) -> list[torch.Tensor]:
        """All that there is of them."""
        people = self.people
        whose = () if people is None else (people.order, people.sizes)
        return [self.X, self.codes, *map(torch.from_numpy, whose)]

    def take(self, places: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Some rows, as the network takes them, and their codes."""
        return as_input(self.X[places], device), self.codes[places].to(device)

    def like(self, device: torch.device) -> torch.Tensor:
        """A row of zeros, of the shape and kind that the network takes."""
        return as_input(self.X.new_zeros((1, *self.X.shape[1:])), device)


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


def bounded_rows(rows: torch.Tensor, bound: float) -> torch.Tensor:
    """Cut the numbers of float rows at a public bound, either way; each by itself alone."""
    if not rows.is_floating_point() or -bound <= float(rows.min()) <= float(rows.max()) <= bound:
        return rows
    return rows.clamp(-bound, bound)


def check_rows(
    X: Any, y: ArrayLike | None, *, labelled: bool = True, kind: str | None = None
) -> UserRows:
    """Turn what a user brings into a tensor and labels.

    Parameters
    ----------
    X, y
        As `DPSGDClassifier.fit` takes them.
    labelled : bool, default=True
        Whether labels are needed.
    kind : {"floats", "bytes", "tokens"} or None, default=None
        What the rows have to be. Whole numbers become floats where those are needed.

    Raises
    ------
    TypeError, ValueError
        If rows are not numbers, not finite, too many or none, do not fit the labels, or are of
        another kind. Names a row's place at most, never a value.
    """
    if isinstance(X, BlockSource):
        return _cache_rows(X, y, labelled)
    tensor = _tensor(X, kind)
    if not labelled:
        return UserRows(tensor, _NO_LABELS)
    return UserRows(tensor, as_labels(y, len(tensor), "DPSGDClassifier"))


def has_type(X: Any) -> bool:
    """Whether rows come with a type of numbers, which is public; a list of lists has none."""
    return hasattr(X, "dtype") or hasattr(X, "dtypes") or isinstance(X, BlockSource)


def row_kind(rows: torch.Tensor) -> str:
    """What checked rows are to a network: "floats", "bytes" or "tokens"."""
    return ROW_KINDS[rows.dtype]


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
        blocks.append(np.asarray(block))
        if labelled:
            labels.append(cache_labels(cache, own))
    found = np.concatenate(labels) if labelled else _NO_LABELS
    return UserRows(_tensor(np.concatenate(blocks), "floats"), found, cache.class_names)


def _tensor(X: Any, kind: str | None) -> torch.Tensor:
    rows = as_numbers(X)
    if isinstance(rows, torch.Tensor):
        tensor = rows.cpu()
    else:
        # Of the unsigned numbers torch knows bytes best. A copy where rows are read-only.
        wide = rows.astype(np.int64) if rows.dtype.kind in "iu" and rows.dtype != np.uint8 else rows
        tensor = torch.from_numpy(np.require(wide, requirements=["C", "W"]))
    if len(tensor) > MAX_ROWS:
        raise ValueError(f"X must have at most {MAX_ROWS} rows.")
    if tensor.is_floating_point():
        tensor = _single(tensor)
    elif tensor.dtype != torch.uint8:
        tensor = tensor.long()
    return tensor if kind is None else _of_kind(tensor, kind)


def _single(rows: torch.Tensor) -> torch.Tensor:
    """Finite float32 rows; says where a number is too large to be one."""
    check_finite(rows)
    narrow = rows.float()
    finite = torch.isfinite(narrow).flatten(1).all(dim=1)
    if not bool(finite.all()):
        place = int(torch.argmin(finite.to(torch.int8)))
        raise ValueError(
            "X has numbers above 3.4e38, which in float32, what networks compute in, are NaN or "
            f"infinity, first in row {place}. Scale or clip the rows."
        )
    return narrow


def _of_kind(rows: torch.Tensor, kind: str) -> torch.Tensor:
    """Rows of the kind that a network was fitted on, or none."""
    found = row_kind(rows)
    if found == kind:
        return rows
    if kind == "floats" and found == "tokens":
        return rows.float()
    if kind == "tokens" and found == "bytes":
        return rows.long()
    words = {"floats": "floats", "bytes": "bytes (uint8)", "tokens": "whole numbers (tokens)"}
    raise ValueError(
        f"X holds {words[found]}, and the network was fitted on {words[kind]}: bring X as it was "
        "for the fit."
    )
