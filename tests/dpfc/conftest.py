"""Small data sets, stand-ins for caches and noise sources, and the four estimators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
)

ESTIMATORS = [
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small sums are slower on many threads, most of all on shared cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


class FakeCache:
    """The little of a feature cache that dpfc reads, over two arrays in memory."""

    def __init__(self, X, y, class_names=None, n_rows=None):
        self.n_features = X.shape[1]
        self.class_names = class_names
        self._X, self._y = X, y
        self._n_rows = len(X) if n_rows is None else n_rows

    def __len__(self):
        return self._n_rows

    def blocks(self, block_rows=4096):
        for start in range(0, len(self._X), block_rows):
            rows = slice(start, start + block_rows)
            yield self._X[rows].copy(), None if self._y is None else self._y[rows].copy()


@pytest.fixture(params=ESTIMATORS, ids=lambda estimator: estimator.__name__)
def estimator_class(request):
    return request.param


@pytest.fixture
def make_cache():
    return FakeCache


@pytest.fixture(scope="session")
def three_classes():
    """90 rows of 3 well separated classes, labels 0 to 2."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    X = 4.0 * np.eye(6)[y] + rng.normal(size=(90, 6))
    return X, y


@pytest.fixture(scope="session")
def two_classes():
    """80 rows of 2 overlapping classes, labels 0 and 1."""
    rng = np.random.default_rng(1)
    y = np.arange(80) % 2
    X = 1.5 * np.eye(4)[y] + rng.normal(size=(80, 4))
    return X, y
