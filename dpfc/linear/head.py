"""What a fitted linear classifier makes of a row: public arithmetic, in NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.linear.probabilities import Link, probabilities
from dpfc.mechanism.row_map import RowMap

__all__ = ["LinearHead"]


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Scores, probabilities and classes from weights on mapped rows.

    Parameters
    ----------
    row_map : RowMap
        Without the constant column.
    weights : ndarray of shape (n_outputs, n_columns)
        Of all columns of a mapped row; one output for two classes.
    intercept : ndarray of shape (n_outputs,)
    link : {"softmax", "sigmoid", "squared"}
        How scores become probabilities.
    classes : ndarray of shape (n_classes,)
    """

    row_map: RowMap
    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    link: Link
    classes: NDArray[Any]

    def scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Scores of float64 rows (n_rows, n_features), shape (n_rows, n_outputs)."""
        with np.errstate(all="ignore"):  # that a row's score overflows is not said
            scores: NDArray[np.float64] = self.row_map(rows) @ self.weights.T + self.intercept
        return scores

    def probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of each class, shape (n_rows, n_classes)."""
        return probabilities(scores, self.link)

    def codes(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of each row's most likely class, shape (n_rows,)."""
        if scores.shape[1] == 1:
            return (scores[:, 0] > 0).astype(np.int64)
        codes: NDArray[np.int64] = scores.argmax(axis=1)
        return codes

    def labels(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """Most likely class of each row, shape (n_rows,)."""
        return np.asarray(self.classes[self.codes(scores)])
