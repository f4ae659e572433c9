"""Checking what users bring: arrays, tensors or feature caches, before anything is spent.

The data domain is finite rows with labels inside `classes`, at most `MAX_SAMPLES` of
them. Whatever lies outside is refused here, to the owner of the data only; messages
name a row's position at most, never a value.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from dpfc.exceptions import PrivacyWarning
from dpfc.memory import available_memory
from dpfc.parameters import refuse_text
from dpfc.queries import MAX_SAMPLES

__all__ = [
    "FLOAT_DTYPES",
    "ArrayRows",
    "BlockSource",
    "CacheRows",
    "encode_labels",
    "public_classes",
]

# What rows may come as; all else is converted to the first.
FLOAT_DTYPES = [np.float64, np.float32, np.float16]

_CHECK_ROWS = 4096


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


class ArrayRows:
    """Rows of a checked array or tensor with their label codes.

    Parameters
    ----------
    X : ndarray or torch.Tensor of shape (n_samples, n_features)
    codes : ndarray of shape (n_samples,), int64
    """

    def __init__(self, X: NDArray[Any] | torch.Tensor, codes: NDArray[np.int64]):
        self.n_samples: int = X.shape[0]
        self.n_features: int = X.shape[1]
        self.device = X.device if isinstance(X, torch.Tensor) else torch.device("cpu")
        self._X = X
        self.codes = torch.from_numpy(codes).to(self.device)

    def blocks(self, block_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (rows, codes)."""
        for start in range(0, self.n_samples, block_rows):
            rows = self._X[start : start + block_rows]
            if not isinstance(rows, torch.Tensor):
                # A copy: memory maps may be read-only, which torch does not accept.
                rows = torch.from_numpy(np.array(rows, dtype=np.float64))
            yield rows, self.codes[start : start + block_rows]


class CacheRows:
    """Rows of a feature cache, checked in one pass, then read again at every sum.

    Without `classes`, labels are not looked at, and every row has code 0.
    """

    def __init__(self, cache: BlockSource, classes: NDArray[Any] | None):
        self.n_samples = len(cache)
        self.n_features = cache.n_features
        self.device = torch.device("cpu")
        self._cache = cache
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
        self.codes = torch.from_numpy(np.concatenate(codes))

    def blocks(self, block_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (rows, codes), every block but the last of `block_rows` rows."""
        start, pending = 0, np.empty((0, self.n_features))
        for X, _ in self._cache.blocks(block_rows):
            pending = np.concatenate([pending, np.asarray(X, dtype=np.float64)])
            last = start + len(pending) == self.n_samples
            while len(pending) >= block_rows or (last and len(pending)):
                rows, pending = pending[:block_rows], pending[block_rows:]
                yield torch.from_numpy(rows), self.codes[start : start + len(rows)]
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
    return ArrayRows(X, streamed.codes.numpy())


def cache_labels(cache: BlockSource, labels: NDArray[Any] | None) -> NDArray[Any]:
    """Labels of a cache's block as class names where it has them, else as integers.

    Raises
    ------
    ValueError
        If the cache holds no labels, or a label has no class name.
    """
    if labels is None:
        raise ValueError("the feature cache holds no labels; extract it from labelled data.")
    if cache.class_names is None:
        return np.asarray(labels)
    names = np.asarray(cache.class_names)
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(names)):
        raise ValueError(
            f"the feature cache has labels outside its {len(names)} class names; extract it again."
        )
    return np.asarray(names[labels])


def public_classes(
    classes: Iterable[Any] | None, y: Iterable[NDArray[Any]], names: list[str] | None = None
) -> NDArray[Any]:
    """Return the sorted class labels: as stated, as a cache names them, or read from `y`.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or they are not hashable scalars.

    Warns
    -----
    PrivacyWarning
        If the classes are read from the private labels.
    """
    if classes is None:
        classes = names
    if classes is None:
        warnings.warn(
            "classes were read from the private labels: a released model then reveals which "
            "classes occur, without privacy. Pass classes=… to state them.",
            PrivacyWarning,
            stacklevel=4,
        )
        known = _as_text(np.unique(np.concatenate([np.unique(block) for block in y])))
        if len(known) < 2:
            raise ValueError(
                f"the labels have {len(known)} class(es); a classifier needs 2 or more classes. "
                "Pass classes=… if there are more."
            )
        return known
    refuse_text("classes", classes)
    try:
        listed = np.asarray(list(classes))
    except (TypeError, ValueError):
        listed = np.empty((0, 0))  # not a list, or a ragged one
    text = listed.dtype == object and all(isinstance(label, str) for label in listed.flat)
    if listed.ndim != 1 or not (text or listed.dtype.kind in "biufU"):
        raise ValueError("classes must be a list of plain labels, all numbers or all strings.")
    if listed.dtype.kind == "f" and not np.isfinite(listed).all():
        raise ValueError("classes must not contain NaN or infinity.")
    unique = _as_text(np.unique(listed))
    if len(unique) < 2 or len(unique) != len(listed):
        raise ValueError(
            f"classes must list two or more different labels, got {len(listed)} "
            f"label(s), {len(unique)} of them different."
        )
    return unique


def _as_text(labels: NDArray[Any]) -> NDArray[Any]:
    """Turn arrays of string objects into NumPy's own strings, which a model file can hold."""
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        return labels.astype(str)
    return labels


def encode_labels(y: NDArray[Any], classes: NDArray[Any], first_row: int = 0) -> NDArray[np.int64]:
    """Positions of the labels in the sorted `classes`, shape (n_samples,).

    Raises
    ------
    ValueError
        If a label is not one of `classes`; names the first such row's position.
    """
    try:
        codes = np.searchsorted(classes, y).clip(max=len(classes) - 1)
        unknown = np.flatnonzero(classes[codes] != y)
    except TypeError:
        raise ValueError(
            f"labels and classes have different types ({y.dtype} and {classes.dtype})."
        ) from None
    if len(unknown):
        raise ValueError(
            f"y has labels that are not in classes, the first in row "
            f"{first_row + int(unknown[0])}. Add the class, or remove such rows."
        )
    return codes.astype(np.int64)


def check_finite(X: Any, first_row: int = 0) -> None:
    """Refuse NaN and infinity, naming the first row's position.

    Raises
    ------
    ValueError
    """
    if isinstance(X, torch.Tensor):
        finite = torch.isfinite(X).all(dim=1).cpu().numpy()
    else:
        finite = np.isfinite(X).all(axis=1)
    if not finite.all():
        row = first_row + int(np.argmin(finite))
        raise ValueError(f"X contains NaN or infinity, first in row {row}.")


def check_size(n_samples: int) -> None:
    """Refuse data sets outside the domain that rounding bounds cover.

    Raises
    ------
    ValueError
    """
    if n_samples > MAX_SAMPLES:
        raise ValueError(f"X must have at most {MAX_SAMPLES} rows.")


@contextmanager
def without_values() -> Iterator[None]:
    """Keep the words of scikit-learn's checks and drop the data that some of them print.

    Raises
    ------
    TypeError, ValueError
        In place of whatever the checks raise.
    """
    try:
        yield
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        text = str(error)
        words = text.split("\n")[0].rstrip(" :.")
        if "could not convert" in text:
            words = "X must hold numbers only"
        if "Reshape your data" in text:
            words += ". Reshape your data to (n_samples, n_features)"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{words}.") from None
