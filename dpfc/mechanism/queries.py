"""The sums over private rows that dpfc releases, each with its own sensitivity.

A query is a sum over rows of a function v(x, y). It states the largest norm that
one row's v can have, the sensitivity that follows for each neighbouring relation,
and how far the computed sum can be from the exact one. `dpfc.mechanism.private_run` adds noise
to a query's sum and to nothing else.

| query | v(x, y) | ||v|| at most | replaced row, times that |
|---|---|---|---|
| Count | 1 | 1 | 0 |
| ClassCounts | e_y | 1 | √2 |
| FeatureSum | x | C | 2 |
| ClassSums | e_y xᵀ | C | 2 |
| Gram | x xᵀ | C² | √2 |
| ClassGrams | e_y ⊗ x xᵀ | C² | √2 |
| GradientSum | clip_c(r) xᵀ | cC | 2 |
| HessianSum | h ⊗ x xᵀ, 0 <= h_k <= 1/4 | √K C²/4 | √2 |

One added or removed row moves the sum by at most ||v||. One replaced row moves it by
||v - v'|| <= 2 ||v||; where <v, v'> >= 0 always (outer products x xᵀ, one-hot labels,
non-negative weights), by at most √2 ||v||; where v is constant, not at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpfc._support.late import torch
from dpfc.mechanism.losses import Loss, SigmoidLoss

__all__ = [
    "MAX_SAMPLES",
    "ClassCounts",
    "ClassGrams",
    "ClassSums",
    "Count",
    "FeatureSum",
    "GradientSum",
    "Gram",
    "HessianSum",
    "Query",
]

# The data domain: data sets of at most this many rows. Bounds on rounding need one.
MAX_SAMPLES = 2**24
_UNIT = 2.0**-53  # unit roundoff of float64


@dataclass(frozen=True)
class Query:
    """A sum over rows; see the module's table.

    Attributes
    ----------
    name : str
        What the privacy statement calls the release.
    formula : str
        v(x, y), for people.
    replace_factor : float
        Sensitivity for one replaced row over that for one added or removed row.
    symmetric : bool
        The last two axes of the sum are a symmetric matrix.
    block_rows : int
        Rows that are summed in one matrix product.
    reads_rows : bool
        v depends on x, so that rows have to be bounded first.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    replace_factor: ClassVar[float]
    symmetric: ClassVar[bool] = False
    block_rows: ClassVar[int] = 4096
    reads_rows: ClassVar[bool] = True

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """Shape of the sum."""
        raise NotImplementedError

    def row_norm(self, l2_bound: float) -> float:
        """Largest norm of one row's v, for rows of norm at most `l2_bound`."""
        raise NotImplementedError

    def row_error(self, l2_bound: float, n_columns: int) -> float:
        """Largest distance of one row's computed v from its exact v (before summing)."""
        return 0.0

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Sum v over a block: rows (n_rows, n_columns) float64, codes (n_rows,) int64."""
        raise NotImplementedError

    def l2_sensitivity(self, l2_bound: float, neighboring_relation: str) -> float:
        """Largest change of the exact sum between neighbouring data sets."""
        if neighboring_relation == "replace_one":
            return self.replace_factor * self.row_norm(l2_bound)
        return self.row_norm(l2_bound)

    def rounding_bound(self, l2_bound: float, n_columns: int) -> float:
        """Largest distance of the computed from the exact sum, up to `MAX_SAMPLES` rows.

        A float64 matrix product over b rows is off by at most b u Σ|v|, adding the
        blocks by n/b u Σ|v|, in any order of operations (Higham 2002, section 3.1);
        Σ||v|| <= n ||v||.
        """
        adds = self.block_rows + MAX_SAMPLES / self.block_rows + 4
        per_row = adds * _UNIT * self.row_norm(l2_bound) + self.row_error(l2_bound, n_columns)
        return MAX_SAMPLES * per_row


@dataclass(frozen=True)
class Count(Query):
    """Number of rows, shape (1,)."""

    name = "count"
    formula = "1"
    replace_factor = 0.0
    reads_rows = False

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number."""
        return (1,)

    def row_norm(self, l2_bound: float) -> float:
        """Exactly 1."""
        return 1.0

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Count the rows."""
        return torch.full((1,), float(len(rows)), dtype=torch.float64, device=rows.device)


@dataclass(frozen=True)
class ClassCounts(Query):
    """Rows in each class, shape (n_classes,)."""

    name = "class_counts"
    formula = "e_y"
    replace_factor = math.sqrt(2.0)
    reads_rows = False

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number a class."""
        return (n_classes,)

    def row_norm(self, l2_bound: float) -> float:
        """A one-hot vector has length 1."""
        return 1.0

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Count the labels."""
        return torch.bincount(codes, minlength=n_classes).to(torch.float64)


@dataclass(frozen=True)
class FeatureSum(Query):
    """Sum of the rows, shape (n_columns,); a mean after division by a count."""

    name = "feature_sum"
    formula = "x"
    replace_factor = 2.0
    block_rows = 512  # rows are mapped on the way: a block stays in a core's cache

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number a column."""
        return (n_columns,)

    def row_norm(self, l2_bound: float) -> float:
        """A row's own norm."""
        return l2_bound

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Add the rows."""
        return rows.sum(dim=0)


@dataclass(frozen=True)
class ClassSums(Query):
    """Sum of the rows of each class, shape (n_classes, n_columns)."""

    name = "class_sums"
    formula = "e_y x^T"
    replace_factor = 2.0

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One row a class."""
        return (n_classes, n_columns)

    def row_norm(self, l2_bound: float) -> float:
        """||e_y|| ||x||."""
        return l2_bound

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """One-hot labels times rows, in one product."""
        return torch.nn.functional.one_hot(codes, n_classes).to(torch.float64).T @ rows


@dataclass(frozen=True)
class Gram(Query):
    """Second moments of the rows, shape (n_columns, n_columns)."""

    name = "gram"
    formula = "x x^T"
    replace_factor = math.sqrt(2.0)
    symmetric = True

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix."""
        return (n_columns, n_columns)

    def row_norm(self, l2_bound: float) -> float:
        """||x xᵀ||_F = ||x||²."""
        return l2_bound**2

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """XᵀX."""
        return _gram(rows)


@dataclass(frozen=True)
class ClassGrams(Query):
    """Second moments of each class's rows, shape (n_classes, n_columns, n_columns)."""

    name = "class_grams"
    formula = "e_y (x) x x^T"
    replace_factor = math.sqrt(2.0)
    symmetric = True

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix a class."""
        return (n_classes, n_columns, n_columns)

    def row_norm(self, l2_bound: float) -> float:
        """||e_y|| ||x||²."""
        return l2_bound**2

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """One product a class, over that class's rows."""
        return torch.stack([_gram(rows[codes == k]) for k in range(n_classes)])


@dataclass(frozen=True)
class GradientSum(Query):
    """Clipped gradient of a loss with respect to linear weights, shape (n_outputs, n_columns).

    A row's gradient is r xᵀ with ||r xᵀ||_F = ||r|| ||x||, so bounding the residual r
    by c bounds the gradient, and no gradient of a single row is ever formed.

    Parameters
    ----------
    coef : torch.Tensor of shape (n_outputs, n_columns), float64
        Weights to take the gradient at.
    loss : Loss
    residual_clip_norm : float
        c; a longer residual is scaled down to it. The loss's own bound applies too.
    """

    name = "gradient"
    formula = "clip_c(r) x^T"
    replace_factor = 2.0
    block_rows = 512  # fits a core's cache, so that a block is read from memory once a step

    coef: torch.Tensor
    loss: Loss
    residual_clip_norm: float

    @property
    def residual_bound(self) -> float:
        """Largest norm of a clipped residual."""
        return min(self.residual_clip_norm, self.loss.residual_bound(len(self.coef)))

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """The weights' shape."""
        return (len(self.coef), n_columns)

    def row_norm(self, l2_bound: float) -> float:
        """||clip_c(r)|| ||x|| <= cC."""
        return self.residual_bound * l2_bound

    def row_error(self, l2_bound: float, n_columns: int) -> float:
        """Rounding of logits, exponentials and clip; residual and clip are 1-Lipschitz."""
        return l2_bound * _residual_error(self.coef, l2_bound)

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """Residuals of the block, clipped, times its rows."""
        # In this order the product reads the rows along memory, faster than rows @ coefᵀ does.
        logits = (self.coef @ rows.T).T
        residual = self.loss.residual(logits, codes)
        if self.residual_clip_norm < self.loss.residual_bound(len(self.coef)):
            norms = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
            residual *= (self.residual_clip_norm / norms.clamp(min=1e-300)).clamp(max=1.0)
        return residual.T @ rows


@dataclass(frozen=True)
class HessianSum(Query):
    """Hessians of one-versus-rest logistic losses, shape (n_outputs, n_columns, n_columns).

    Parameters
    ----------
    coef : torch.Tensor of shape (n_outputs, n_columns), float64
    """

    name = "hessian"
    formula = "h (x) x x^T"
    replace_factor = math.sqrt(2.0)
    symmetric = True

    coef: torch.Tensor

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix an output."""
        return (len(self.coef), n_columns, n_columns)

    def row_norm(self, l2_bound: float) -> float:
        """||h|| ||x||² with 0 <= h_k <= 1/4."""
        return math.sqrt(len(self.coef)) / 4.0 * l2_bound**2

    def row_error(self, l2_bound: float, n_columns: int) -> float:
        """The weight p (1 - p) is 1-Lipschitz in the logit."""
        return l2_bound**2 * _residual_error(self.coef, l2_bound)

    def block_sum(self, rows: torch.Tensor, codes: torch.Tensor, n_classes: int) -> torch.Tensor:
        """One product an output, of rows scaled by the root of their weight."""
        roots = SigmoidLoss.hessian_weights(rows @ self.coef.T).sqrt()
        return torch.stack([_gram(rows * roots[:, k : k + 1]) for k in range(len(self.coef))])


def _gram(rows: torch.Tensor) -> torch.Tensor:
    """XᵀX; on a CPU through NumPy, whose BLAS does half the work for a symmetric product."""
    if rows.device.type == "cpu":
        array = rows.numpy()
        return torch.from_numpy(np.asarray(array.T @ array))
    return rows.T @ rows


def _residual_error(coef: torch.Tensor, l2_bound: float) -> float:
    """Largest rounding error of a row's residual, clipped residual or Hessian weights."""
    n_outputs, n_columns = coef.shape
    logits = (n_columns + 2) * _UNIT * l2_bound * float(torch.linalg.vector_norm(coef))
    return logits + 32.0 * _UNIT * (math.sqrt(n_outputs) + n_outputs)
