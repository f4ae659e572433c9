"""The same sums in float64, for an infinite budget: never private, and closed formulas hold.

`PrivateRun.release` takes what comes from here only where its plan asks for no noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.people import WHOLE, Shares
from dpfc.mechanism.queries import (
    ClassCounts,
    ClassGrams,
    ClassSums,
    Count,
    FeatureSum,
    GradientSum,
    Gram,
    HessianSum,
    Query,
)
from dpfc.mechanism.row_map import RowMap

__all__ = ["ReferenceRows"]

_BLOCK_ROWS = 4096


class ReferenceRows:
    """Bounded rows that are not rounded to integers, mapped again for every sum.

    Parameters
    ----------
    source : LabeledRows
    row_map : RowMap
    n_classes : int
    shares : Shares, optional
        Of rows that are weighed.
    """

    def __init__(
        self,
        source: LabeledRows,
        row_map: RowMap,
        n_classes: int,
        shares: Shares | None = None,
    ):
        self.shares = shares
        self.source = source
        self.row_map = row_map
        self.n_classes = n_classes

    @np.errstate(all="ignore")
    def sum(self, query: Query, selected: NDArray[np.bool_] | None = None) -> torch.Tensor:
        """Sum the query over all rows, or those that a mask (n_samples,) selects; float64."""
        n_columns = self.row_map.n_columns(self.source.n_features)
        total = torch.zeros(
            query.shape(n_columns, self.n_classes), dtype=torch.float64, device="cpu"
        )
        start, weights = 0, self._weights(query)
        for block, codes in self.source.blocks(_BLOCK_ROWS):
            place = slice(start, start + len(codes))
            keep = slice(None) if selected is None else selected[place]
            start += len(codes)
            rows = block if isinstance(block, np.ndarray) else block.cpu().numpy()
            part = self._block_sum(query, rows[keep], codes[keep], weights[place][keep])
            total += part.reshape(total.shape)
        return total

    def _weights(self, query: Query) -> NDArray[np.float64]:
        """What rows count in a sum: persons are not bounded where nothing is private."""
        shares = self.shares
        if shares is None or shares.weights is None:
            return np.ones(self.source.n_samples)
        return shares.weights.astype(np.float64) * (shares.scale / WHOLE)

    def _block_sum(
        self,
        query: Query,
        block: NDArray[Any],
        codes: NDArray[Any],
        weights: NDArray[np.float64],
    ) -> torch.Tensor:
        if query.reads != "digits" and not isinstance(query, Count | ClassCounts | FeatureSum):
            counts = query.summand(query.grid(self.row_map, block.shape[1]), self.n_classes)
            return torch.as_tensor(counts(block, codes)).to(torch.float64)
        rows = torch.from_numpy(self.row_map(block))
        of_row = torch.from_numpy(weights)[:, None]
        weighed = rows * of_row
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(codes), self.n_classes).double()
        match query:
            case Count():
                return of_row.sum()
            case ClassCounts():
                return (one_hot * of_row).sum(dim=0)
            case FeatureSum():
                return weighed.sum(dim=0)
            case ClassSums():
                return one_hot.T @ weighed
            case ClassGrams():
                return _weighted_grams(rows, weighed, one_hot)
            case Gram():
                return weighed.T @ rows
            case GradientSum():
                return _residual(query, rows @ query.coef.T, one_hot).T @ weighed
            case HessianSum():
                p = torch.sigmoid(rows @ query.coef.T)
                return _weighted_grams(rows, weighed, p * (1.0 - p))
        raise TypeError(f"no sum of {query.name} is known.")


def _weighted_grams(
    rows: torch.Tensor, weighed: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    parts = [(weighed * weights[:, k : k + 1]).T @ rows for k in range(weights.shape[1])]
    return torch.stack(parts)


def _residual(query: GradientSum, logits: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
    """Clipped residuals, shape (n_rows, n_outputs)."""
    softmax = query.loss.name == "softmax"
    p = torch.softmax(logits, dim=1) if softmax else torch.sigmoid(logits)
    residual = p - (one_hot[:, 1:] if p.shape[1] == 1 else one_hot)
    norms = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
    clipped: torch.Tensor = residual * (query.residual_bound / norms.clamp(min=1e-300)).clamp(
        max=1.0
    )
    return clipped
