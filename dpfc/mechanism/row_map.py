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

__all__ = [
    "GRID",
    "LENGTH_PERIOD",
    "LEVEL",
    "REACH",
    "RowMap",
    "as_type",
    "exact_linear_map",
    "is_exact_linear_map",
    "library",
    "ordered_sum",
    "roots",
]

# Norms below are zero: of a row that is its centre but for rounding, or whose squares underflow.
_NO_LENGTH = {"float64": 2.0**-500, "float32": 2.0**-20}
_TURNED_ROWS = 32  # rows that are written at once as columns: more of them miss the cache
REACH = 4.0  # spreads about the centre, where scaled entries are cut
_PEAK = 2  # rows are scaled to a largest entry between 2 and 4, by a power of two
LEVEL = 0.75  # of the mean of a row's roots: what is taken off them
LENGTH_PERIOD = 4.0  # powers of two
GRID = 2.0**-26  # of unit rows and linear maps: sums of their products are exact in float64
_Rows = TypeVar("_Rows")  # a tensor in, a tensor out; an array in, an array out


@dataclass(frozen=True)
class RowMap:
    """Map a row x of any finite values to a row of norm at most `l2_bound`.

    0. `scale`, released: a column's centre is subtracted from its entry, which is multiplied by
       one over its spread and cut at 4 either way. Step 1 is left out then: what has been
       centred has no sign of its own.
    1. `nonnegative_root`, with `normalize`: a row without a negative entry is replaced
       by the square roots of its entries (the Hellinger map), less three quarters of
       their own mean: non-negative rows all lean the same way, which would take up most
       of their bounded length and costs budget to learn from them together. A quarter
       stays, so that nothing is lost where features are few.
    2. `normalize` scales x to length `l2_clip_norm` (a zero row stays zero);
       otherwise x is scaled down to that length if it is longer.
    3. `center`, a released vector, is subtracted, and step 2 is done again.
    4. `linear`, a public matrix, is multiplied from the right, and step 2 is done again.
    5. `length_scaling`, with `normalize`, appends two columns that say how long x was,
       which step 2 took away: two triangle waves of log2 ||x||, a quarter of a period
       apart. A period is a factor of 16, so that no scale has to be known.
    6. A constant column is appended: with `normalize` as a share of the length
       (the row is shortened so that the whole keeps length `l2_clip_norm`),
       otherwise as a plain column that lengthens the bound to
       sqrt(l2_clip_norm² + intercept_scaling²).

    Parameters
    ----------
    l2_clip_norm : float
        C, the length that a row is scaled to or clipped at; inf does neither.
    normalize : bool
    center : torch.Tensor or ndarray of shape (n_features,), or None
        In the units of the bounded row (step 2); like `linear`, of the kind that rows are.
    intercept_scaling : float
        The constant column's value (with `normalize`: in units of `l2_clip_norm`,
        below 1); 0 appends none.
    nonnegative_root : bool
    linear : torch.Tensor or ndarray of shape (n_features, n_features), or None
        From `exact_linear_map`; needs `normalize`.
    length_scaling : float
        Largest norm of the two columns for the length, in units of `l2_clip_norm`; 0 appends
        none. Its square and that of `intercept_scaling` add up to less than 1.
    scale : ndarray of shape (2, n_features), float64, or None
        Centres of columns, and one over their spreads.

    Notes
    -----
    The image is a bit-exact function of the row: it is made of elementwise IEEE
    operations (sums, products, quotients and square roots, all correctly rounded) in an
    order that the row's width alone decides, so a row has the same image at any place of
    any block, in PyTorch and in NumPy. It is worked out in the precision of the array that it
    is written to: float64 to predict with, float32 for private sums, which round it to integers
    and check their length (`dpfc.mechanism.integer_rows`).

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
    | all entries below the smallest normal number of their type | zero |
    | of any other size | scaled by a power of two first, so that nothing under- or overflows |
    | NaN, ±Inf | refused before any row is mapped (`dpfc.mechanism.rows`) |
    """

    l2_clip_norm: float = 1.0
    normalize: bool = True
    center: Any = None
    intercept_scaling: float = 0.0
    nonnegative_root: bool = False
    linear: Any = None
    length_scaling: float = 0.0
    scale: Any = None

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
    def _unit(self) -> float:
        """What the map works in units of: C, where it is finite."""
        return self.l2_clip_norm if math.isfinite(self.l2_clip_norm) else 1.0

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
        rows: Any = block
        if not isinstance(rows, np.ndarray) and rows.device.type == "cpu":
            on_cpu: Any = torch.from_numpy(self(rows.numpy()))
            return on_cpu  # type: ignore[no-any-return]
        xp, shape = library(rows), (len(rows), self.n_columns(rows.shape[1]))
        kind = {} if xp is np else {"device": rows.device}
        out, spare = (xp.empty(shape, dtype=xp.float64, **kind) for _ in range(2))
        self.into(rows, out, spare, 1.0)
        mapped: _Rows = out
        return mapped

    def into(self, block: Any, out: Any, spare: Any, scale: float) -> None:
        """Map a block of rows times a public number into an array, and work in another.

        Parameters
        ----------
        block : torch.Tensor or ndarray of shape (n_rows, n_features), any real dtype
        out, spare : torch.Tensor or ndarray of shape (n_rows, n_columns), float32 or float64
            All of one kind. With `scale`, a copy of the block in float64 is made; else no other
            memory is taken than a few numbers a row.
        scale : float
        """
        with np.errstate(all="ignore"):  # PyTorch does not warn either
            width = block.shape[1]
            rows, other = out[:, :width], spare[:, :width]
            size = scale * self._unit * math.sqrt(self.feature_share)  # once all is done
            if self.scale is not None:
                block = self._rescaled(block)
            exponents, nonnegative = _scaled(block, rows)
            norms = lengths = _norms(rows, other)
            if self.takes_roots and bool(nonnegative.any()):
                _take_roots(rows, other, nonnegative)
                norms = _norms(rows, other)
            plain = self.center is None and self.linear is None
            self._bound(rows, norms, size if plain else 1.0, exponents)
            if self.center is not None:
                rows -= self._public(self.center, rows) / self._unit
                self._bound(rows, _norms(rows, other), size if self.linear is None else 1.0)
            if self.linear is not None:
                unit = library(rows).round(_double(rows) / GRID) * GRID
                rows[:] = unit @ self._public(self.linear, unit)
                self._bound(rows, _norms(rows, other), size)
            if self.n_length_columns:
                size = scale * self.length_scaling * self._unit * (1.0 - 2.0**-40)
                out[:, width : width + 2] = size * _length_waves(lengths, exponents)
            if self.intercept_scaling > 0:
                out[:, -1] = scale * self.constant

    @property
    def takes_roots(self) -> bool:
        """Whether step 1 is done."""
        return self.nonnegative_root and self.normalize and self.scale is None

    def _rescaled(self, block: Any) -> Any:
        """Step 0, in float64: what overflows is cut as well."""
        rows = _double(block)
        centers, factors = self._public(self.scale, rows)
        return library(rows).clip((rows - centers) * factors, -REACH, REACH)

    def _bound(self, rows: Any, norms: Any, size: float, exponents: Any = None) -> None:
        """Step 2: scale each row to, or down to, length 1, times a size; the unit is C then."""
        xp = library(rows)
        # A factor below what rounding can add, so that the bound holds after rounding too.
        length = (1.0 - 2.0**-40) if math.isfinite(self.l2_clip_norm) else math.inf
        scales = length * (1.0 / norms)  # as PyTorch divides a number
        if self.normalize:
            scales[norms < _NO_LENGTH[str(rows.dtype).rpartition(".")[2]]] = 0.0
        else:
            longest = xp.ones_like(norms)
            if exponents is not None:
                longest = xp.ldexp(longest, exponents) / self._unit
            scales = xp.minimum(scales, longest)
        rows *= as_type(size * scales, rows)

    def _public(self, values: Any, rows: Any) -> Any:
        """A public array in the kind and precision of rows."""
        if isinstance(rows, np.ndarray):
            return np.asarray(values, dtype=rows.dtype)
        return torch.as_tensor(values).to(rows)


def library(rows: Any) -> Any:
    """NumPy or PyTorch, of which only what both have under one name is used."""
    return np if isinstance(rows, np.ndarray) else torch


def as_type(values: Any, like: Any) -> Any:
    """Values in another array's precision."""
    return values.astype(like.dtype) if isinstance(values, np.ndarray) else values.to(like.dtype)


def _double(values: Any) -> Any:
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def _scaled(block: Any, rows: Any) -> tuple[Any, Any]:
    """Write rows over powers of two, so that largest entries are below 4.

    Rows of numbers that are not normal become zero. Gives the exponents (n_rows, 1), and which
    rows have no negative entry (n_rows,).
    """
    xp = library(block)
    if block.dtype not in (xp.float32, xp.float64):
        block = _double(block)
    high, low = xp.amax(block, axis=1, keepdims=True), xp.amin(block, axis=1, keepdims=True)
    peaks = xp.maximum(high, -low)
    exponents = xp.frexp(peaks)[1] - _PEAK
    scales = xp.ldexp(xp.ones_like(_double(peaks)), -exponents)
    lost = peaks < xp.finfo(block.dtype).tiny
    scales[lost] = 0.0
    exponents[lost] = 0
    scales = as_type(scales, block)
    size = _TURNED_ROWS if xp is np else max(1, len(block))
    for start in range(0, len(block), size):
        part = slice(start, start + size)
        rows[part] = block[part] * scales[part]
    return exponents, low[:, 0] >= 0.0


def _take_roots(rows: Any, other: Any, nonnegative: Any) -> None:
    """Step 1, in place."""
    if bool(nonnegative.all()):
        _root(rows, other)
        return
    picked = rows[nonnegative]
    _root(picked, library(rows).empty_like(picked))
    rows[nonnegative] = picked


def _root(rows: Any, other: Any) -> None:
    roots(rows)
    other[:] = rows
    rows -= ordered_sum(other) * (LEVEL / rows.shape[1])


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
    room = 1.0 - math.sqrt(len(matrix)) * GRID
    return torch.round(matrix * (room / longest / GRID)) * GRID


def is_exact_linear_map(linear: NDArray[Any]) -> bool:
    """Whether `RowMap` may use a matrix: on the grid, columns of norm at most 1, float64."""
    with np.errstate(all="ignore"):
        return (
            linear.dtype == np.float64
            and np.array_equal(np.round(linear / GRID) * GRID, linear)
            and bool((np.linalg.norm(linear, axis=0) <= 1.0).all())
        )


def _length_waves(norms: Any, exponents: Any) -> Any:
    """Where in a period of `LENGTH_PERIOD` each row's log2 length lies, shape (n_rows, 2).

    Two triangle waves in [-1, 1] whose absolute values add up to 1, so their norm is at most 1.
    The logarithm is linear between powers of two: exponent and mantissa are exact, which
    a library's logarithm is not.
    """
    xp = library(norms)
    phases = (_log2(norms) + exponents) / LENGTH_PERIOD
    waves = xp.concatenate([_triangle(phases), _triangle(phases + 0.25)], axis=1)
    return xp.where(norms > 0.0, waves, 0.0)


def _log2(positive: Any) -> Any:
    mantissas, exponents = library(positive).frexp(positive)
    return exponents + (2.0 * mantissas - 2.0)


def _triangle(phases: Any) -> Any:
    return 4.0 * abs(phases - library(phases).floor(phases) - 0.5) - 1.0


def _norms(rows: Any, other: Any) -> Any:
    """Row norms, shape (n_rows, 1), as float64; the other array is lost."""
    library(rows).multiply(rows, rows, out=other)
    return 1.0 * _double(roots(ordered_sum(other)))


def roots(values: Any) -> Any:
    """Correctly rounded square roots, in place.

    PyTorch's own on the CPU come from a vector library that is one unit in the last place off in
    1.4% of values; which library takes a value, and so its last bit, may depend on the shape of
    the block. NumPy's are IEEE's on any processor, as PyTorch's are on a GPU.
    """
    if not isinstance(values, np.ndarray) and values.device.type != "cpu":
        return values.sqrt_()
    array = values if isinstance(values, np.ndarray) else values.numpy()
    np.sqrt(array, out=array)
    return values


def ordered_sum(values: Any, axis: int = 1) -> Any:
    """Sums over an axis of a matrix, pairwise in a fixed order, of length 1 there; in place.

    A library's reduction may split a sum differently for another block shape, and
    then a row's last bits would depend on its neighbours.
    """
    along = values if axis == 0 else values.T
    while (length := len(along)) > 1:
        half = length // 2
        folded = along[:half]
        folded += along[half : 2 * half]
        if length % 2:
            folded[:1] += along[length - 1 :]
        along = folded
    return along if axis == 0 else along.T
