"""Bounding each row by itself: the step that makes sensitivities finite.

A row's image depends on that row and on public or already released values only,
never on other rows, so the bound holds for any neighbour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch

__all__ = ["RowMap", "exact_linear_map", "is_exact_linear_map"]

_SQUARE_SAFE = 1e150  # norms between one over this and this are computed accurately
_TINY = float(np.finfo(np.float64).tiny)  # the smallest normal number
_LEVEL = 0.75  # of the mean of a row's roots: what is taken off them
_LENGTH_PERIOD = 4.0  # powers of two
_GRID = 2.0**-26  # of unit rows and linear maps: sums of their products are exact in float64
_Rows = TypeVar("_Rows")  # a tensor in, a tensor out; an array in, an array out


@dataclass(frozen=True)
class RowMap:
    """Map a row x of any finite values to a row of norm at most `l2_bound`.

    0. `nonnegative_root`, with `normalize`: a row without a negative entry is replaced
       by the square roots of its entries (the Hellinger map), less three quarters of
       their own mean: non-negative rows all lean the same way, which would take up most
       of their bounded length and costs budget to learn from them together. A quarter
       stays, so that nothing is lost where features are few.
    1. `normalize` scales x to length `l2_clip_norm` (a zero row stays zero);
       otherwise x is scaled down to that length if it is longer.
    2. `center`, a released vector, is subtracted, and step 1 is done again.
    3. `linear`, a public matrix, is multiplied from the right, and step 1 is done again.
    4. `length_scaling`, with `normalize`, appends two columns that say how long x was,
       which step 1 took away: two triangle waves of log2 ||x||, a quarter of a period
       apart. A period is a factor of 16, so that no scale has to be known.
    5. A constant column is appended: with `normalize` as a share of the length
       (the row is shortened so that the whole keeps length `l2_clip_norm`),
       otherwise as a plain column that lengthens the bound to
       sqrt(l2_clip_norm² + intercept_scaling²).

    Parameters
    ----------
    l2_clip_norm : float
        C, the length that a row is scaled to or clipped at; inf does neither.
    normalize : bool
    center : torch.Tensor or ndarray of shape (n_features,), or None
        In the units of the bounded row (step 1); like `linear`, of the kind that rows are.
    intercept_scaling : float
        The constant column's value (with `normalize`: in units of `l2_clip_norm`,
        below 1); 0 appends none.
    nonnegative_root : bool
    linear : torch.Tensor or ndarray of shape (n_features, n_features), or None
        From `exact_linear_map`; needs `normalize`.
    length_scaling : float
        Largest norm of the two columns for the length, in units of `l2_clip_norm`; 0 appends
        none. Its square and that of `intercept_scaling` add up to less than 1.

    Notes
    -----
    The image is a bit-exact function of the row: it is made of elementwise IEEE
    operations (sums, products, quotients and square roots, all correctly rounded) in an
    order that the row's width alone decides, so a row has the same image at any place of
    any block, in PyTorch and in NumPy. Rounding here adds nothing to a sensitivity.

    The product with `linear` is exact in any order of summation: unit rows are rounded
    to multiples of 2⁻²⁶ and the matrix holds such multiples with columns of norm at most
    1, so every partial sum is a multiple of 2⁻⁵² and, by Cauchy and Schwarz, below 2.

    References
    ----------
    Arandjelović, Zisserman (2012), Three Things Everyone Should Know to Improve Object
    Retrieval (the square root of non-negative features).

    | input row | output |
    |---|---|
    | zero | zero, then centred and scaled like any other |
    | equal to the centre | zero (plus the constant column) |
    | all entries below the smallest normal float64 | zero (left as it is without `normalize`) |
    | norm below 1e-150 or above 1e150 | scaled without under- or overflow |
    | NaN, ±Inf | refused before any row is mapped (`dpfc.mechanism.rows`) |
    """

    l2_clip_norm: float = 1.0
    normalize: bool = True
    center: Any = None
    intercept_scaling: float = 0.0
    nonnegative_root: bool = False
    linear: Any = None
    length_scaling: float = 0.0

    @property
    def l2_bound(self) -> float:
        """The largest norm that a mapped row can have."""
        if self.normalize:
            return self.l2_clip_norm
        return math.hypot(self.l2_clip_norm, self.intercept_scaling)

    @property
    def constant(self) -> float:
        """Value of the constant column; 0 where there is none."""
        return self.intercept_scaling * (self.l2_clip_norm if self.normalize else 1.0)

    @property
    def n_length_columns(self) -> int:
        """How many columns say how long a row was."""
        return 2 if self.normalize and self.length_scaling > 0 else 0

    @property
    def feature_share(self) -> float:
        """Squared length that is left for features, in units of `l2_clip_norm`²."""
        if not self.normalize:
            return 1.0
        return 1.0 - self.intercept_scaling**2 - self.length_scaling**2

    def n_columns(self, n_features: int) -> int:
        """Width of a mapped row."""
        return n_features + self.n_length_columns + (self.intercept_scaling > 0)

    def __call__(self, block: _Rows) -> _Rows:
        """Map a block of rows.

        Parameters
        ----------
        block : torch.Tensor or ndarray of shape (n_rows, n_features), any real dtype

        Returns
        -------
        torch.Tensor or ndarray of shape (n_rows, n_columns), float64
        """
        with np.errstate(all="ignore"):  # PyTorch does not warn either
            mapped: _Rows = self._mapped(block)
        return mapped

    def _mapped(self, block: Any) -> Any:
        xp = _library(block)
        # Not torch.asarray, which takes rows to PyTorch's default device.
        rows = block = np.asarray(block, np.float64) if xp is np else block.to(torch.float64)
        if self.nonnegative_root and self.normalize:
            rows = _rooted(rows)
        rows = self._bound(rows)
        if self.center is not None:
            rows = self._bound(rows - self.center)
        if self.linear is not None:
            unit = xp.round(rows / (self.l2_clip_norm * _GRID)) * _GRID
            rows = self._bound(unit @ self.linear)
        if self.feature_share < 1.0:
            rows = rows * math.sqrt(self.feature_share)
        if self.n_length_columns:
            size = self.length_scaling * self.l2_clip_norm * (1.0 - 2.0**-40)
            rows = xp.concatenate([rows, size * _length_waves(block)], axis=1)
        if self.intercept_scaling > 0:
            rows = xp.concatenate([rows, xp.full_like(rows[:, :1], self.constant)], axis=1)
        return rows

    def _bound(self, rows: Any) -> Any:
        """Step 1: scale each row to, or down to, length C."""
        if math.isinf(self.l2_clip_norm):
            return rows
        # A factor below what rounding can add, so that the bound holds after rounding too.
        length = self.l2_clip_norm * (1.0 - 2.0**-40)
        norms = _norms(rows)
        peaks = _peaks(rows, norms)
        if bool((peaks != 1.0).any()):
            rows = rows / peaks
            norms = _norms(rows)
        scale = length * (1.0 / norms.clip(min=_TINY))  # as PyTorch divides a number
        if self.normalize:
            scale = _library(rows).where(norms < _TINY, 0.0, scale)
        else:
            scale = _library(rows).minimum(scale, peaks)
        return rows * scale


def _library(rows: Any) -> Any:
    """NumPy or PyTorch, of which only what both have under one name is used."""
    return np if isinstance(rows, np.ndarray) else torch


def _rooted(rows: Any) -> Any:
    """Step 0."""
    xp = _library(rows)
    nonnegative = xp.amin(rows, axis=1, keepdims=True) >= 0.0
    if not bool(nonnegative.any()):
        return rows
    roots = _roots(abs(rows))
    roots -= _sums(roots) * (_LEVEL / roots.shape[1])
    return roots if bool(nonnegative.all()) else xp.where(nonnegative, roots, rows)


def exact_linear_map(matrix: torch.Tensor) -> torch.Tensor:
    """Scale a public matrix to columns of norm at most 1, on the grid that `RowMap` needs.

    Parameters
    ----------
    matrix : torch.Tensor of shape (n_features, n_features), not zero

    Returns
    -------
    torch.Tensor, float64
    """
    longest = torch.linalg.vector_norm(matrix, dim=0).max()
    # Rounding lengthens a column by at most √d/2 grid steps.
    room = 1.0 - math.sqrt(len(matrix)) * _GRID
    return torch.round(matrix * (room / longest / _GRID)) * _GRID


def is_exact_linear_map(linear: NDArray[Any]) -> bool:
    """Whether `RowMap` may use a matrix: on the grid, columns of norm at most 1, float64."""
    with np.errstate(all="ignore"):
        return (
            linear.dtype == np.float64
            and np.array_equal(np.round(linear / _GRID) * _GRID, linear)
            and bool((np.linalg.norm(linear, axis=0) <= 1.0).all())
        )


def _peaks(rows: Any, norms: Any) -> Any:
    """Largest entry of rows whose squares over- or underflow, and 1 for all others."""
    safe = (norms < _SQUARE_SAFE) & (norms > 1.0 / _SQUARE_SAFE)
    xp = _library(rows)
    if bool(safe.all()):
        return xp.ones_like(norms)
    largest = xp.amax(abs(rows), axis=1, keepdims=True)
    return xp.where(safe | (largest < _TINY), 1.0, largest)


def _length_waves(rows: Any) -> Any:
    """Where in a period of `_LENGTH_PERIOD` each row's log2 length lies, shape (n_rows, 2).

    Two triangle waves in [-1, 1] whose absolute values add up to 1, so their norm is at most 1.
    The logarithm is linear between powers of two: exponent and mantissa are exact, which
    a library's logarithm is not.
    """
    xp = _library(rows)
    norms = _norms(rows)
    peaks = _peaks(rows, norms)
    if bool((peaks != 1.0).any()):
        norms = _norms(rows / peaks)
    phases = (_log2(norms) + _log2(peaks)) / _LENGTH_PERIOD
    waves = xp.concatenate([_triangle(phases), _triangle(phases + 0.25)], axis=1)
    return xp.where(norms < _TINY, 0.0, waves)


def _log2(positive: Any) -> Any:
    mantissas, exponents = _library(positive).frexp(positive)
    return exponents + (2.0 * mantissas - 2.0)


def _triangle(phases: Any) -> Any:
    return 4.0 * abs(phases - _library(phases).floor(phases) - 0.5) - 1.0


def _norms(rows: Any) -> Any:
    """Row norms, shape (n_rows, 1)."""
    return _roots(_sums(rows * rows))


def _roots(values: Any) -> Any:
    """Correctly rounded square roots of float64 numbers.

    PyTorch's own on the CPU come from a vector library that is one unit in the last place off in
    1.4% of values; which library takes a value, and so its last bit, may depend on the shape of
    the block. NumPy's are IEEE's on any processor, as PyTorch's are on a GPU.
    """
    if isinstance(values, np.ndarray):
        return np.sqrt(values)
    if values.device.type != "cpu":
        return values.sqrt()
    return torch.from_numpy(np.sqrt(values.numpy()))


def _sums(rows: Any) -> Any:
    """Row sums, shape (n_rows, 1), pairwise in a fixed order.

    A library's reduction may split a sum differently for another block shape, and
    then a row's last bits would depend on its neighbours.
    """
    while (width := rows.shape[1]) > 1:
        half = width // 2
        folded = rows[:, :half] + rows[:, half : 2 * half]
        if width % 2:
            folded[:, :1] += rows[:, -1:]
        rows = folded
    return rows
