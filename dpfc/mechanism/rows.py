"""Checking what users bring: arrays, tensors or feature caches, before anything is spent.

The data domain is finite rows with labels inside `classes`, at most `MAX_SAMPLES` of
them. Whatever lies outside is refused here, to the owner of the data only; messages
name a row's position at most, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpfc._support.callers import warn_caller
from dpfc._support.late import torch
from dpfc._support.memory import available_memory
from dpfc.exceptions import PrivacyWarning
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.labels import encode_labels, public_classes
from dpfc.mechanism.people import Shares
from dpfc.mechanism.queries import MAX_SAMPLES
from dpfc.mechanism.user_rows import FLOAT_DTYPES, check_finite

__all__ = [
    "FLOAT_DTYPES",
    "ArrayRows",
    "BlockSource",
    "CacheRows",
    "SelectedRows",
    "cache_groups",
    "encode_labels",
    "label_gaps",
    "public_classes",
    "warn_of_numbered_labels",
]

_CHECK_ROWS = 4096
_NUMBERED = (
    "the feature cache numbers its classes in the order of the names that occur among its rows, "
    "so that one row with a name of its own renumbers others"
)


@runtime_checkable
class BlockSource(Protocol):
    """What a feature cache offers: `dpfc.features.FeatureCache` is one."""

    n_features: int
    class_names: list[str] | None

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def blocks(self, block_rows: int = ...) -> Iterator[tuple[Any, Any]]:
        """Yield (rows, labels) in a fixed order."""
        ...


def label_gaps(X: Any) -> list[str]:
    """What a statement has to say of a cache whose labels hang on which others there are."""
    numbered = getattr(X, "labels_numbered_by_rows", False)
    return [f"NOT COVERED unless all names were there anyway: {_NUMBERED}"] if numbered else []


def warn_of_numbered_labels(X: Any) -> None:
    """Say so before a spend."""
    if label_gaps(X):
        warn_caller(
            f"{_NUMBERED}, which no noise covers. Write it again with all class_names stated.",
            PrivacyWarning,
        )


class ArrayRows:
    """Rows of a checked array or tensor with their label codes.

    Parameters
    ----------
    X : ndarray or torch.Tensor of shape (n_samples, n_features)
    codes : ndarray of shape (n_samples,), int64
    shares : Shares, optional
    """

    def __init__(
        self,
        X: NDArray[Any] | torch.Tensor,
        codes: NDArray[np.int64],
        shares: Shares | None = None,
    ):
        self.shares = shares
        self.n_samples: int = X.shape[0]
        self.n_features: int = X.shape[1]
        self.device = torch.device("cpu") if isinstance(X, np.ndarray) else X.device
        self._X = X
        self.codes = codes

    def blocks(self, block_rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield (rows, codes)."""
        for start in range(0, self.n_samples, block_rows):
            yield self._X[start : start + block_rows], self.codes[start : start + block_rows]


class CacheRows:
    """Rows of a feature cache, checked in one pass, then read again at every sum.

    Without `classes`, labels are not looked at, and every row has code 0.
    """

    def __init__(self, cache: BlockSource, classes: NDArray[Any] | None):
        self.n_samples = len(cache)
        self.n_features = cache.n_features
        self.device = torch.device("cpu")
        self._cache = cache
        self.shares: Shares | None = None
        self.dtype: np.dtype[Any] | None = None
        codes, start = [], 0
        for X, y in cache.blocks(_CHECK_ROWS):
            self._check_block(X, y)
            check_finite(X, first_row=start)
            codes.append(
                np.zeros(len(X), dtype=np.int64)
                if classes is None
                else encode_labels(cache_labels(cache, y), classes, first_row=start)
            )
            start += len(X)
        if start != self.n_samples:
            raise ValueError("the feature cache does not hold the number of rows that it states.")
        check_size(start)
        self.codes: NDArray[np.int64] = np.concatenate(codes)

    def blocks(self, block_rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield (rows, codes), every block but the last of `block_rows` rows."""
        start, pending = 0, np.empty((0, self.n_features), dtype=self.dtype)
        for X, _ in self._cache.blocks(block_rows):
            pending = np.concatenate([pending, X])
            last = start + len(pending) == self.n_samples
            while len(pending) >= block_rows or (last and len(pending)):
                rows, pending = pending[:block_rows], pending[block_rows:]
                yield rows, self.codes[start : start + len(rows)]
                start += len(rows)

    def _check_block(self, X: NDArray[Any], y: NDArray[Any] | None) -> None:
        """Refuse a cache whose blocks do not fit what it states."""
        self.dtype = self.dtype or X.dtype
        widths_fit = X.ndim == 2 and X.shape[1] == self.n_features
        if not widths_fit or X.dtype != self.dtype or (y is not None and len(y) != len(X)):
            raise ValueError(
                f"the feature cache must hold rows of {self.n_features} features, of one dtype, "
                "with a label each; extract it again."
            )


class SelectedRows:
    """The rows that a mask selects, in order.

    Parameters
    ----------
    source : LabeledRows
    selected : ndarray of shape (n_samples,), bool
    """

    def __init__(self, source: LabeledRows, selected: NDArray[np.bool_]):
        self._source = source
        self.selected = selected
        self.codes = source.codes[selected]
        self.n_samples = len(self.codes)
        self.n_features = source.n_features
        self.device = source.device
        self.shares = None if source.shares is None else source.shares.of(selected)

    def blocks(self, block_rows: int) -> Iterator[tuple[Any, NDArray[np.int64]]]:
        """Yield (rows, codes) of at most `block_rows` rows, as many blocks as the source has."""
        start = 0
        for rows, codes in self._source.blocks(block_rows):
            keep = self.selected[start : start + len(rows)]
            start += len(rows)
            if not isinstance(rows, np.ndarray):
                yield rows[torch.from_numpy(keep).to(rows.device)], codes[keep]
            else:
                yield rows[keep], codes[keep]


def open_cache(cache: BlockSource, classes: NDArray[Any] | None) -> ArrayRows | CacheRows:
    """Read a cache into memory where a quarter of the free memory holds it, else stream it."""
    streamed = CacheRows(cache, classes)
    dtype = streamed.dtype or np.dtype(np.float32)
    size = dtype.itemsize * streamed.n_samples * streamed.n_features
    if size > available_memory(streamed.device) // 4:
        return streamed
    X = np.empty((streamed.n_samples, streamed.n_features), dtype=dtype)
    start = 0
    for block, _ in cache.blocks(_CHECK_ROWS):
        X[start : start + len(block)] = block
        start += len(block)
    return ArrayRows(X, streamed.codes)


def cache_labels(cache: BlockSource, labels: NDArray[Any] | None) -> NDArray[Any]:
    """Labels of a cache's block as class names where it has them, else as integers.

    Raises
    ------
    ValueError
        If the cache holds no labels, or a label has no class name.
    """
    if labels is None:
        raise ValueError(
            "the feature cache holds no labels: extract it from labelled data, or import it with "
            "labels."
        )
    if cache.class_names is None:
        return np.asarray(labels)
    names = np.asarray(cache.class_names)
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(names)):
        raise ValueError(
            f"the feature cache has labels outside its {len(names)} class names; extract it again."
        )
    return np.asarray(names[labels])


def check_size(n_samples: int) -> None:
    """Refuse data sets outside the domain, of which no sum leaves 64 bits.

    Raises
    ------
    ValueError
    """
    if n_samples > MAX_SAMPLES:
        raise ValueError(f"X must have at most {MAX_SAMPLES} rows.")


def cache_groups(cache: BlockSource) -> NDArray[np.int64] | None:
    """Codes of the persons that a cache's rows belong to; None if the source has no such column.

    Not every source of blocks knows of persons, so `has_groups` and `groups` are no part of
    `BlockSource`.

    Returns
    -------
    ndarray of int64, shape (n_samples,), or None
        Equal exactly where the persons are.

    Raises
    ------
    ValueError
        If the source does not give one integer for each row.
    """
    if not getattr(cache, "has_groups", False):
        return None
    codes = np.asarray(cache.groups())  # type: ignore[attr-defined]
    if codes.shape != (len(cache),) or codes.dtype.kind not in "iu":
        raise ValueError("groups() of the feature cache must give one integer for each row.")
    return codes.astype(np.int64)
