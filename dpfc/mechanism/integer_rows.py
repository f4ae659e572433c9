"""Rows as integers: what private sums add up.

A row that `RowMap` bounds is turned (`dpfc.mechanism.rotation`), multiplied by a public number of
steps per unit of length and rounded to integers, whose squared length is held against L² in
integers. One digit of eight bits an entry is enough for rows of one length; rows that are only
clipped may be short, and get two. Sums of plain rows are cheap, and take finer steps.

All of it is worked out with the rows as columns, (n_columns, n_rows): what is said of one row is
then said of many next to each other in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dpfc._support.late import torch
from dpfc.mechanism.integer_products import LARGEST, product
from dpfc.mechanism.rotation import PLAIN_COLUMNS, Rotation
from dpfc.mechanism.row_map import RowMap, library, ordered_sum

__all__ = ["BASE", "RowGrid", "as_int64", "digits_of", "largest_of", "products_of_digits"]

BASE = 128  # of a number's digits: each lies in -64 … 63, the first in -127 … 127
_MAP_ROWS = 256  # rows that are worked on at once: they stay in a core's cache
_FINE = 2.0**20  # steps to the bound, for sums of plain rows
# A column's deviations in a turned row that the first digit reaches.
_REACH = math.sqrt(PLAIN_COLUMNS)
_CLEAR = 2.0**-14


def largest_of(n_digits: int) -> int:
    """The largest number that so many digits have."""
    return LARGEST * int(BASE ** (n_digits - 1))


def digits_of(values: Any, n_digits: int) -> list[Any]:
    """Split whole floats, at most `largest_of` either way, into digits, the last one first.

    Parameters
    ----------
    values : torch.Tensor or ndarray of float32 or float64; lost.

    Returns
    -------
    list of int8 arrays of its shape
    """
    xp, digits = library(values), []
    for _ in range(n_digits - 1):
        carry = xp.floor((values + BASE // 2) * (1.0 / BASE))
        values -= BASE * carry
        digits.append(_int8(values))
        values = carry
    return [*digits, _int8(values)]


def products_of_digits(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Multiply two matrices that are given by their digits, exactly, as int64."""
    total: Any = None
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            part = as_int64(product(left, right))
            part *= BASE ** (i + j)
            total = part if total is None else total + part
    return total


def as_int64(values: Any) -> Any:
    """Whole numbers of any type as int64."""
    return values.astype(np.int64) if isinstance(values, np.ndarray) else values.long()


@dataclass(frozen=True)
class RowGrid:
    """The public grid that rows are rounded to, and how they come onto it.

    Parameters
    ----------
    row_map : RowMap
    n_features : int
        Of a row as it came.
    n_digits : int
        Of an entry; 0 for the fine grid, of rows that are not turned, in whole float32 numbers.
    """

    row_map: RowMap
    n_features: int
    n_digits: int

    @classmethod
    def of(cls, row_map: RowMap, n_features: int) -> RowGrid:
        """The grid that sums of products of rows take."""
        return cls(row_map, n_features, 1 if row_map.normalize else 2)

    @property
    def n_columns(self) -> int:
        """Of a row on the grid."""
        return self.row_map.n_columns(self.n_features)

    @cached_property
    def rotation(self) -> Rotation:
        """What rows are turned by."""
        return Rotation(self.n_columns if self.n_digits else 0)

    @cached_property
    def length(self) -> float:
        """How many steps a row at the bound is long."""
        if not self.n_digits:
            return _FINE
        return largest_of(self.n_digits) * max(1.0, math.sqrt(self.n_columns) / _REACH)

    @property
    def unit(self) -> float:
        """How long a step is."""
        return self.row_map.l2_bound / self.length

    @cached_property
    def squared_limit(self) -> int:
        """L²: the largest squared length that a row on the grid can have.

        Rounding adds n/12 to it on average, and 2 length/√12 times a standard normal number; a
        row that is longer all the same is cut (`bounded_integers`).
        """
        room = self.n_columns / 12.0 + 4.0 * self.length / math.sqrt(3.0)
        return math.ceil(max(self.length**2 + room, self.length**2 * (1.0 + 4.0 * _CLEAR)))

    @property
    def l2_bound(self) -> float:
        """L, in steps; not below the root of `squared_limit`."""
        return math.nextafter(math.sqrt(self.squared_limit), math.inf)

    def rows(self, block: Any) -> list[Any]:
        """Rows (n_rows, n_features) on the grid: digits (n_columns, n_rows) int8, last one first.

        Fine ones as one array of whole float32 numbers.
        """
        shape = (max(1, self.n_digits), self.n_columns, len(block))
        if isinstance(block, np.ndarray):
            out: Any = np.empty(shape, dtype=np.int8 if self.n_digits else np.float32)
        else:
            kind = torch.int8 if self.n_digits else torch.float32
            out = torch.empty(shape, dtype=kind, device=block.device)
        for place, whole in self._parts(block):
            digits = digits_of(whole, self.n_digits) if self.n_digits > 1 else [whole]
            for target, digit in zip(out, digits, strict=True):
                target[:, place] = digit
        return list(out)

    def total(self, block: Any, weights: Any = None) -> Any:
        """Sum of rows on the fine grid: whole numbers far below 2⁵³, which float64 adds exactly.

        Whole weights (n_rows,) multiply them.
        """
        double: Any = np.float64 if isinstance(block, np.ndarray) else torch.float64
        if weights is None:
            return sum(whole.sum(1, dtype=double) for _, whole in self._parts(block))
        return sum(
            (_double(whole) * _double(weights[place])).sum(1) for place, whole in self._parts(block)
        )

    def _parts(self, block: Any) -> Iterator[tuple[slice, Any]]:
        """Whole numbers (n_columns, n_part) of parts of a block, in memory that is used again."""
        n_rows, size = len(block), _MAP_ROWS
        if isinstance(block, np.ndarray):
            spaces: Any = np.empty((3, self.n_columns * min(size, n_rows)), dtype=np.float32)
        else:
            size = max(1, n_rows)
            shape = (3, self.n_columns * n_rows)
            spaces = torch.empty(shape, dtype=torch.float32, device=block.device)
        most = largest_of(self.n_digits) if self.n_digits else int(_FINE)
        for start in range(0, max(1, n_rows), size):
            part = block[start : start + size]
            values, spare, whole = (
                space[: self.n_columns * len(part)].reshape(self.n_columns, -1) for space in spaces
            )
            self.row_map.into(part, values.T, spare.T, 1.0 / self.unit)
            self.rotation.turn(values, spare)
            bounded_integers(values, whole, spare, most, self.squared_limit)
            yield slice(start, start + len(part)), whole


def bounded_integers(values: Any, out: Any, spare: Any, most: int, squared_limit: int) -> Any:
    """Round each column to integers of a bounded squared length, which is checked in integers.

    A column that comes out too long is rounded towards zero instead, which lengthens none; one
    that were too long even so would be zero.

    Parameters
    ----------
    values, out, spare : torch.Tensor or ndarray of shape (n_entries, n_rows), float32
    most : int
        Of an entry, either way.
    squared_limit : int

    Returns
    -------
    out
    """
    xp = library(values)
    if values.dtype != xp.float32 or spare.dtype != xp.float32:
        raise TypeError("lengths are bounded for float32 alone.")
    xp.round(values, out=out)
    xp.clip(out, -most, most, out=out)
    # Far below the limit float32 says enough: it is off by 2⁻²⁴ of itself for each of at most
    # 2 log2 n + 2 roundings on the way of an entry.
    xp.multiply(out, out, out=spare)
    clear = ordered_sum(spare, axis=0)[0] < (1.0 - _CLEAR) * squared_limit
    if not bool(clear.all()):
        close = ~clear  # or no number
        rounded = out[:, close]
        shorter = xp.clip(xp.trunc(values[:, close]), -most, most)
        shorter = xp.where(_is_within(shorter, squared_limit), shorter, 0.0)
        out[:, close] = xp.where(_is_within(rounded, squared_limit), rounded, shorter)
    return out


def _is_within(whole: Any, squared_limit: int) -> Any:
    """Whether columns are no longer than the limit: squares below 2⁵³ add exactly in float64."""
    wide = _double(whole)
    return (wide * wide).sum(0) <= squared_limit


def _double(values: Any) -> Any:
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def _int8(values: Any) -> Any:
    return values.astype(np.int8) if isinstance(values, np.ndarray) else values.to(torch.int8)
