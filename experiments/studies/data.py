"""The rows of both splits, as feature caches have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["Data", "check_pair", "load"]


class Data(NamedTuple):
    """Features (n, d) and integer labels (n,) of both splits, and the number of classes.

    Training rows that belong to persons come with whose they are, (n,).
    """

    X: NDArray[np.float32]
    y: NDArray[np.int32]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int32]
    n_classes: int
    groups: NDArray[np.int64] | None = None


def load(train: Path, test: Path) -> Data:
    """Read the feature caches of both splits into memory.

    Raises
    ------
    ValueError
        If they differ in their classes or in their width.
    """
    from dpfc.features import FeatureCache

    caches = [FeatureCache.open(train), FeatureCache.open(test)]
    check_pair(caches)
    X, X_test = (cache.load()[0].astype(np.float32) for cache in caches)
    y, y_test = (cache.read_labels() for cache in caches)
    groups = caches[0].groups() if caches[0].has_groups else None
    return Data(X, y, X_test, y_test, len(caches[0].class_names or ()), groups)


def check_pair(caches: Sequence[FeatureCache]) -> None:
    """Refuse caches of two splits that do not fit.

    Raises
    ------
    ValueError
        If they differ in their classes or in their width.
    """
    for cache in caches:
        if cache.class_names is None or cache.class_names != caches[0].class_names:
            raise ValueError("both caches must name the same classes in the same order.")
    if caches[0].n_features != caches[1].n_features:
        raise ValueError(
            f"the caches differ in width: {caches[0].n_features} and {caches[1].n_features}."
        )
