"""A column's values as features: shares of public cells, centred by their number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from dpfc.features.tables.schema import (
    BooleanColumn,
    CategoryColumn,
    DateColumn,
    FeatureColumn,
    NumberColumn,
    TableSchema,
)
from dpfc.features.tables.values import (
    Fail,
    Values,
    as_booleans,
    as_codes,
    as_days,
    as_numbers,
    comparable,
)

__all__ = ["Block", "blocks_of"]

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_THURSDAY = 3  # 1970-01-01
_EPOCH = date(1970, 1, 1)
_MISSING, _OTHER = "(missing)", "(other)"

Cells = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """The features of one column.

    A value is shares of m cells that add up to 1: all of one cell for a category; for a number,
    shares of the two knots that it lies between (a linear B-spline). From each share 1/m is
    taken, so that the block's mean over its cells is zero whatever the rows are, and no value
    makes a row much longer than another. Two cells say the same thing twice, so they are one
    feature of the same length, ± 1/√2.

    Attributes
    ----------
    names : tuple of str
        Of the features.
    encode : callable
        From values and a `Fail` to an array of shape (n_rows, n_features).

    References
    ----------
    Eilers, Marx (1996), Flexible Smoothing with B-splines and Penalties, section 2.
    """

    names: tuple[str, ...]
    encode: Callable[[Values, Fail], Cells]


def blocks_of(schema: TableSchema) -> dict[str, Block]:
    """The block of every feature column, in the schema's order."""
    return {name: _block(name, column, schema) for name, column in schema.features.items()}


def _block(name: str, column: FeatureColumn, schema: TableSchema) -> Block:
    if isinstance(column, NumberColumn):
        return _number(name, column, schema)
    if isinstance(column, CategoryColumn):
        return _category(name, column, schema)
    if isinstance(column, BooleanColumn):
        return _boolean(name, column, schema)
    return _date(name, column, schema)


def _number(name: str, column: NumberColumn, schema: TableSchema) -> Block:
    spline = _Spline(
        _scaled(column, column.min), _scaled(column, column.max), column.knots or schema.knots
    )
    marked = column.missing == "indicator"

    def encode(values: Values, fail: Fail) -> Cells:
        numbers, missing = as_numbers(values, schema.missing_values, fail)
        if isinstance(column.missing, float):
            numbers, missing = np.where(missing, column.missing, numbers), np.zeros_like(missing)
        _refuse_missing(missing, marked, fail)
        inside = np.clip(np.where(missing, column.min, numbers), column.min, column.max)
        if column.scale == "log":
            inside = _logarithms(inside, column)
        return _centred(spline.shares(inside), missing, marked)

    knots = [f"{name}[{_unscaled(column, knot):.4g}]" for knot in spline.knots]
    return Block(_names(name, knots, marked), encode)


def _category(name: str, column: CategoryColumn, schema: TableSchema) -> Block:
    places = {comparable(value): place for place, value in enumerate(column.values)}
    marked = column.missing == "indicator"
    stands_in = places.get(comparable(column.missing), -1)
    other = column.unlisted == "other"
    size = len(places) + other

    def encode(values: Values, fail: Fail) -> Cells:
        codes = as_codes(values, places, schema.missing_values, fail)
        unlisted = codes == -2
        if column.unlisted == "refuse" and unlisted.any():
            fail(int(unlisted.argmax()), "holds a value that the schema does not list")
        codes = np.where(unlisted, len(places) if other else -1, codes)
        codes = np.where(codes == -1, stands_in, codes)
        _refuse_missing(codes == -1, marked, fail)
        return _centred(_one_of(codes, size), codes == -1, marked)

    cells = [f"{name}={value}" for value in column.values] + [f"{name}={_OTHER}"] * other
    return Block(_names(name, cells, marked), encode)


def _boolean(name: str, column: BooleanColumn, schema: TableSchema) -> Block:
    marked = column.missing == "indicator"
    stands_in = int(column.missing) if isinstance(column.missing, bool) else -1

    def encode(values: Values, fail: Fail) -> Cells:
        codes = as_booleans(values, schema.missing_values, fail)
        codes = np.where(codes == -1, stands_in, codes)
        _refuse_missing(codes == -1, marked, fail)
        return _centred(_one_of(codes, 2), codes == -1, marked)

    return Block(_names(name, [f"{name}=false", f"{name}=true"], marked), encode)


def _date(name: str, column: DateColumn, schema: TableSchema) -> Block:
    low, high = ((day - _EPOCH).days for day in (column.min, column.max))
    spline = _Spline(low, high, column.knots or schema.knots)
    marked = column.missing == "indicator"
    cells = {
        "date": [
            f"{name}[{date.fromordinal(_EPOCH.toordinal() + round(k))}]" for k in spline.knots
        ],
        "month": [f"{name}.month={month}" for month in range(1, 13)],
        "weekday": [f"{name}.weekday={day}" for day in _WEEKDAYS],
    }

    def encode(values: Values, fail: Fail) -> Cells:
        days, missing = as_days(values, column.format, schema.missing_values, fail)
        if isinstance(column.missing, date):
            days = np.where(missing, (column.missing - _EPOCH).days, days)
            missing = np.zeros_like(missing)
        _refuse_missing(missing, marked, fail)
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
        shares = {
            "date": lambda: spline.shares(np.clip(days, low, high).astype(np.float64)),
            "month": lambda: _one_of(months, 12),
            "weekday": lambda: _one_of((days + _THURSDAY) % 7, 7),
        }
        # That it is missing is said once, in the first part; the others are then at their middle.
        blocks = [
            _centred(shares[part](), missing, marked and place == 0)
            for place, part in enumerate(column.parts)
        ]
        return np.concatenate(blocks, axis=1)

    names: list[str] = []
    for place, part in enumerate(column.parts):
        names += _names(f"{name}.{part}", cells[part], marked and place == 0)
    return Block(tuple(names), encode)


class _Spline:
    """Linear B-splines on evenly spaced knots."""

    def __init__(self, low: float, high: float, n_knots: int) -> None:
        self._low, self._width, self._n = low, high - low, n_knots
        self.knots = [low + self._width * i / (n_knots - 1) for i in range(n_knots)]

    def shares(self, inside: NDArray[np.float64]) -> Cells:
        """Of the two knots that a number lies between; IEEE operations on it alone."""
        place = np.clip((inside - self._low) / self._width, 0.0, 1.0) * (self._n - 1)
        left = np.minimum(place.astype(np.int64), self._n - 2)
        shares = np.zeros((len(inside), self._n))
        rows = np.arange(len(inside))
        shares[rows, left] = 1.0 - (place - left)
        shares[rows, left + 1] = place - left
        return shares


def _one_of(codes: NDArray[np.int64], size: int) -> Cells:
    """All of one cell; a code of -1 has no share of any."""
    return (codes[:, None] == np.arange(size)).astype(np.float64)


def _centred(shares: Cells, missing: NDArray[np.bool_], marked: bool) -> Cells:
    """Features of a block from its shares; a missing value has its own cell, or is zero."""
    shares[missing] = 0.0
    if marked:
        shares = np.column_stack([shares, missing])
    size = shares.shape[1]
    centred = shares - 1.0 / size
    if not marked:
        centred[missing] = 0.0
    return centred[:, 1:] * math.sqrt(2.0) if size == 2 else centred


def _names(name: str, cells: list[str], marked: bool) -> tuple[str, ...]:
    names = [*cells, f"{name}={_MISSING}"] if marked else cells
    return tuple(names[1:] if len(names) == 2 else names)


def _refuse_missing(missing: NDArray[np.bool_], marked: bool, fail: Fail) -> None:
    if not marked and missing.any():
        fail(
            int(missing.argmax()),
            "holds no value: give the schema missing: indicator, or a public value that stands in",
        )


def _scaled(column: NumberColumn, bound: float) -> float:
    if column.scale == "linear":
        return bound
    return math.log(bound) if column.min > 0 else math.log1p(bound)


def _unscaled(column: NumberColumn, knot: float) -> float:
    if column.scale == "linear":
        return knot
    return math.exp(knot) if column.min > 0 else math.expm1(knot)


def _logarithms(inside: NDArray[np.float64], column: NumberColumn) -> NDArray[np.float64]:
    """One by one: NumPy's differ in the last bit with a number's place in the array."""
    return np.fromiter((_scaled(column, x) for x in inside.tolist()), np.float64, len(inside))
