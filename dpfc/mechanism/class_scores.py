"""Rows by class and by what a public linear model says of them: one cell for each row.

||v|| = 1 and <v, v'> >= 0, as v is one-hot whatever the row holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.people import Members
from dpfc.mechanism.queries import LinearQuery, Summand

__all__ = ["ClassScores"]


@dataclass(frozen=True)
class ClassScores(LinearQuery):
    """Rows by class and bin of their score, shape (n_classes, n_edges + 1).

    Parameters
    ----------
    coef : torch.Tensor of shape (1, n_columns), float64
    edges : ndarray of shape (n_edges,)
        Scores between bins, ascending; public.
    """

    name = "class_scores"
    formula = "e_y e_(bin of the score)^T"
    replace_factor = math.sqrt(2.0)
    turned = False

    edges: NDArray[np.float64]

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """Classes down, bins across, from low to high."""
        return (n_classes, len(self.edges) + 1)

    def row_norm(self, grid: RowGrid) -> float:
        """A one-hot vector has length 1."""
        return 1.0

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Count the rows of a block by cell; a person's, so that their length is one row's."""
        logits, n_bins = self._logits(grid), len(self.edges) + 1

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            scores, known = (
                part if isinstance(part, np.ndarray) else part.cpu().numpy()
                for part in (logits(rows)[0], codes)
            )
            cells = known * n_bins + np.searchsorted(self.edges, scores)
            weights = None
            if members is not None:
                weights = members.bounded(lambda i, j: cells[i] == cells[j], 1.0, power=0)
            counts = np.bincount(cells, weights, minlength=n_classes * n_bins)
            return counts.astype(np.int64).reshape(n_classes, n_bins)

        return add
