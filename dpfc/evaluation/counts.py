"""What a private evaluation counts: one cell for each test row, so a row moves little.

Here the "rows" are what a public model says about each test row (`dpfc.evaluation.scored_rows`):
column 0 is the position of the predicted class in `classes_`, columns 1 … K are the
probabilities of the classes. Codes are the true labels.

| query | v | shape |
|---|---|---|
| HitCounts | one-hot: right or wrong | (2,) |
| ConfusionCounts | one-hot: true class x predicted class | (K, K) |
| ScoreHistogram(k) | one-hot: of class k or not x bin of the probability of k | (2, N_BINS) |

v is one-hot whatever the row holds: ||v|| = 1 and <v, v'> >= 0, so one added or removed
row moves a sum by 1 and one replaced row by at most √2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.people import Members
from dpfc.mechanism.queries import Query, Summand

__all__ = ["N_BINS", "ConfusionCounts", "HitCounts", "ScoreHistogram"]

# More bins carry more noise, fewer hide more of the order of the scores.
N_BINS = 32
_LARGEST_LOGIT = 8.0
_LINEAR_UP_TO = 0.1
_REACH = np.arcsinh(_LARGEST_LOGIT / _LINEAR_UP_TO)
_LOGITS = _LINEAR_UP_TO * np.sinh(np.linspace(-_REACH, _REACH, N_BINS - 1))


@dataclass(frozen=True)
class _Cells(Query):
    """Rows counted by the one cell that each falls into."""

    replace_factor = math.sqrt(2.0)

    reads = "rows"

    def row_norm(self, grid: RowGrid) -> float:
        """A one-hot vector has length 1."""
        return 1.0

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Count the rows of a block by cell."""
        size = math.prod(self.shape(grid.n_features, n_classes))

        def add(
            rows: NDArray[np.float64], codes: NDArray[np.int64], members: Members | None = None
        ) -> NDArray[np.int64]:
            weights = None if members is None else members.weights
            cells = self.cell(rows, codes, n_classes)
            return np.bincount(cells, weights, minlength=size).astype(np.int64)

        return add

    def cell(
        self, rows: NDArray[np.float64], codes: NDArray[np.int64], n_classes: int
    ) -> NDArray[np.int64]:
        """Position of each row's cell in the flattened sum, shape (n_rows,), int64."""
        raise NotImplementedError


@dataclass(frozen=True)
class HitCounts(_Cells):
    """Rows that are predicted right, and rows that are predicted wrong, shape (2,)."""

    name = "hit_counts"
    formula = "e_(right or wrong)"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """Right, wrong."""
        return (2,)

    def cell(
        self, rows: NDArray[np.float64], codes: NDArray[np.int64], n_classes: int
    ) -> NDArray[np.int64]:
        """0 where the predicted class is the true one, else 1."""
        return np.asarray(rows[:, 0] != codes, dtype=np.int64)


@dataclass(frozen=True)
class ConfusionCounts(_Cells):
    """Rows by true and predicted class, shape (n_classes, n_classes)."""

    name = "confusion_counts"
    formula = "e_y e_predicted^T"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """True classes down, predicted classes across."""
        return (n_classes, n_classes)

    def cell(
        self, rows: NDArray[np.float64], codes: NDArray[np.int64], n_classes: int
    ) -> NDArray[np.int64]:
        """Row of the true class, column of the predicted one."""
        predicted = rows[:, 0].astype(np.int64).clip(0, n_classes - 1)
        return np.asarray(codes * n_classes + predicted)


@dataclass(frozen=True)
class ScoreHistogram(_Cells):
    """Rows by whether they are of class k and by k's probability, shape (2, N_BINS).

    Bins are split at logits that are close to one another near `center` and further apart
    away from it: heavily noised models keep all probabilities near one value, sure ones
    spread them over many logits.

    Parameters
    ----------
    k : int
        Position of the class.
    center : float, default=0.0
        A public logit that probabilities of k are expected around.
    """

    name = "score_histogram"
    formula = "e_(y = k) e_(bin of p_k)^T"

    k: int
    center: float = 0.0

    @property
    def edges(self) -> NDArray[np.float64]:
        """Probabilities between bins, ascending, shape (N_BINS - 1,)."""
        return np.asarray(expit(self.center + _LOGITS))

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """Other classes, class k; bins from low to high."""
        return (2, N_BINS)

    def cell(
        self, rows: NDArray[np.float64], codes: NDArray[np.int64], n_classes: int
    ) -> NDArray[np.int64]:
        """Bins split at fixed public probabilities."""
        bins = np.searchsorted(self.edges, rows[:, 1 + self.k])
        return np.asarray((codes == self.k) * N_BINS + bins, dtype=np.int64)
