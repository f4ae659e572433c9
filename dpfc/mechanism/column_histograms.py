"""Where each column's values lie, on a scale that nobody has to know: logarithmic histograms.

A row adds one to one bin of every column, whatever its numbers are, so that what it contributes
has norm √d exactly. Bins are public: zero, and for either sign four bins to each power of two,
from 2⁻¹⁶ to 2²⁴; the outermost take all that lies beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.integer_rows import RowGrid, as_int64
from dpfc.mechanism.people import Members
from dpfc.mechanism.queries import Query, Summand
from dpfc.mechanism.row_map import library

__all__ = ["EXPONENTS", "N_BINS", "ColumnHistograms", "bin_edges"]

EXPONENTS = (-16, 24)  # of two: where the bins begin and end
_LOW, _HIGH = EXPONENTS
_PARTS = 4  # of a power of two
_ONE_SIGN = (_HIGH - _LOW) * _PARTS
N_BINS = 2 * _ONE_SIGN + 1
_LARGEST = (2.0 - 1.0 / _PARTS) * 2.0 ** (_HIGH - 1)  # where the last bin begins


def bin_edges() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edges of the positive bins, the first from 0 and the last to infinity.

    Bin 0 is zero itself; bin 1 + i is the i-th positive one; bin N_BINS // 2 + 1 + i is that one's
    mirror image.
    """
    powers = 2.0 ** np.arange(_LOW, _HIGH)[:, np.newaxis]
    lower = (powers * (1.0 + np.arange(_PARTS) / _PARTS)).ravel()
    lower[0] = 0.0
    return lower, np.append(lower[1:], np.inf)


@dataclass(frozen=True)
class ColumnHistograms(Query):
    """Rows by column and bin, shape (n_features, N_BINS).

    Two rows have a bin in common or not, column by column: <v, v'> >= 0.

    Parameters
    ----------
    n_features : int
    """

    n_features: int

    name = "column_histograms"
    formula = "(e_bin of x_j, for each column j)"
    replace_factor = math.sqrt(2.0)
    reads = "rows"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One histogram a column of the rows as they came."""
        return (self.n_features, N_BINS)

    def row_norm(self, grid: RowGrid) -> float:
        """One bin of each column."""
        return math.sqrt(self.n_features)

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Count the rows in every bin."""

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            xp = library(rows)
            kind = {} if xp is np else {"device": rows.device}
            places = _bins(rows) + N_BINS * xp.arange(self.n_features, **kind)
            weights: Any = None
            if members is not None:
                weights = np.repeat(members.weights.astype(np.float64), self.n_features)
                weights = weights if xp is np else torch.from_numpy(weights).to(rows.device)
            size = N_BINS * self.n_features
            return as_int64(xp.bincount(places.ravel(), weights, minlength=size))

        return add


def _bins(rows: Any) -> Any:
    """The number of each entry's bin, by exponent and mantissa: exact on any device."""
    xp = library(rows)
    values = rows.astype(np.float64) if xp is np else rows.double()
    mantissas, exponents = xp.frexp(xp.clip(abs(values), 2.0**_LOW, _LARGEST))
    parts = as_int64((2.0 * mantissas - 1.0) * _PARTS)  # whole parts of what is not negative
    places = (as_int64(exponents) - (1 + _LOW)) * _PARTS + parts + 1
    return xp.where(values == 0.0, 0 * places, places + _ONE_SIGN * (values < 0.0))
