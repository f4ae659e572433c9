"""A column's values as features, scaled and centred by what is public."""

from __future__ import annotations

import itertools
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

Features = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """The features of one column, of about length 1 whatever the value is.

    A number is k - 1 features that fill one after the other: feature i goes from -1 to 1 between
    the knots i and i + 1, and all are divided by √(k - 1). Two numbers are the closer the nearer
    they lie, and a linear model on them is piecewise linear in the number.

    A category is a one among m cells, less 1/m each: the block's mean over its cells is zero
    whatever the rows are. Two cells say the same thing twice, so they are one feature of the same
    length, ± 1/√2.

    Attributes
    ----------
    names : tuple of str
        Of the features.
    encode : callable
        From values and a `Fail` to an array of shape (n_rows, n_features).
    ladders : tuple of str
        Names of the features that fill one after the other.

    References
    ----------
    Gorishniy, Rubachev, Babenko (2022), On Embeddings for Numerical Features in Tabular Deep
    Learning, equation 1 (piecewise linear encoding).
    """

    names: tuple[str, ...]
    encode: Callable[[Values, Fail], Features]
    ladders: tuple[str, ...] = ()

    def facts(self) -> list[int]:
        """For each feature, which fact of the column it is part of: a ladder as a whole is one."""
        alone = itertools.count(1)
        return [0 if name in self.ladders else next(alone) for name in self.names]


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
    rungs = _Ladder(
        _scaled(column, column.min), _scaled(column, column.max), column.knots or schema.knots
    )
    marked = column.missing == "indicator"

    def encode(values: Values, fail: Fail) -> Features:
        numbers, missing = as_numbers(values, schema.missing_values, fail)
        if isinstance(column.missing, float):
            numbers, missing = np.where(missing, column.missing, numbers), np.zeros_like(missing)
        _refuse_missing(missing, marked, fail)
        inside = np.clip(np.where(missing, column.min, numbers), column.min, column.max)
        if column.scale == "log":
            inside = _logarithms(inside, column)
        return _filled(rungs.fill(inside), missing, marked)

    knots = [f"{name}[{_unscaled(column, knot):.4g}]" for knot in rungs.knots[1:]]
    ladder = (name,) if len(knots) == 1 else tuple(knots)
    return Block((*ladder, *_mark(name, marked)), encode, ladder)


def _category(name: str, column: CategoryColumn, schema: TableSchema) -> Block:
    places = {comparable(value): place for place, value in enumerate(column.values)}
    marked = column.missing == "indicator"
    stands_in = places.get(comparable(column.missing), -1)
    other = column.unlisted == "other"
    size = len(places) + other

    def encode(values: Values, fail: Fail) -> Features:
        codes = as_codes(values, places, schema.missing_values, fail)
        unlisted = codes == -2
        if column.unlisted == "refuse" and unlisted.any():
            fail(int(unlisted.argmax()), "holds a value that the schema does not list")
        codes = np.where(unlisted, len(places) if other else -1, codes)
        codes = np.where(codes == -1, stands_in, codes)
        _refuse_missing(codes == -1, marked, fail)
        return _centred(_one_of(codes, size), codes == -1, marked)

    cells = [f"{name}={value}" for value in column.values] + [f"{name}={_OTHER}"] * other
    return Block(_cell_names(name, cells, marked), encode)


def _boolean(name: str, column: BooleanColumn, schema: TableSchema) -> Block:
    marked = column.missing == "indicator"
    stands_in = int(column.missing) if isinstance(column.missing, bool) else -1

    def encode(values: Values, fail: Fail) -> Features:
        codes = as_booleans(values, schema.missing_values, fail)
        codes = np.where(codes == -1, stands_in, codes)
        _refuse_missing(codes == -1, marked, fail)
        return _centred(_one_of(codes, 2), codes == -1, marked)

    return Block(_cell_names(name, [f"{name}=false", f"{name}=true"], marked), encode)


def _date(name: str, column: DateColumn, schema: TableSchema) -> Block:
    low, high = ((day - _EPOCH).days for day in (column.min, column.max))
    ladder = _Ladder(low, high, column.knots or schema.knots)
    marked = column.missing == "indicator"
    cells = {
        "date": [
            f"{name}[{date.fromordinal(_EPOCH.toordinal() + round(k))}]" for k in ladder.knots[1:]
        ],
        "month": [f"{name}.month={month}" for month in range(1, 13)],
        "weekday": [f"{name}.weekday={day}" for day in _WEEKDAYS],
    }

    def encode(values: Values, fail: Fail) -> Features:
        days, missing = as_days(values, column.format, schema.missing_values, fail)
        if isinstance(column.missing, date):
            days = np.where(missing, (column.missing - _EPOCH).days, days)
            missing = np.zeros_like(missing)
        _refuse_missing(missing, marked, fail)
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
        parts = {
            "date": lambda: ladder.fill(np.clip(days, low, high).astype(np.float64)),
            "month": lambda: _one_of(months, 12) - 1 / 12,
            "weekday": lambda: _one_of((days + _THURSDAY) % 7, 7) - 1 / 7,
        }
        features = np.concatenate([parts[part]() for part in column.parts], axis=1)
        return _filled(features, missing, marked)

    names = [name for part in column.parts for name in cells[part]]
    return Block((*names, *_mark(name, marked)), encode, tuple(cells["date"]))


class _Ladder:
    """Features of a number between evenly spaced knots."""

    def __init__(self, low: float, high: float, n_knots: int) -> None:
        self._low, self._width, self._n = low, high - low, n_knots
        self.knots = [low + self._width * i / (n_knots - 1) for i in range(n_knots)]

    def fill(self, inside: NDArray[np.float64]) -> Features:
        """By IEEE operations on each number alone."""
        steps = self._n - 1
        place = (inside - self._low) / self._width * steps
        share = np.clip(place[:, None] - np.arange(steps), 0.0, 1.0)
        features: Features = (2.0 * share - 1.0) / math.sqrt(steps)
        return features


def _one_of(codes: NDArray[np.int64], size: int) -> Features:
    """All of one cell; a code of -1 has no share of any."""
    shares: Features = (codes[:, None] == np.arange(size)).astype(np.float64)
    return shares


def _filled(features: Features, missing: NDArray[np.bool_], marked: bool) -> Features:
    """Features of numbers; a missing one is zero, and marked with a one in a feature of its own."""
    features[missing] = 0.0
    return np.column_stack([features, missing]) if marked else features


def _centred(shares: Features, missing: NDArray[np.bool_], marked: bool) -> Features:
    """Features of a block from its shares; a missing value has its own cell, or is zero."""
    shares = _filled(shares, missing, marked)
    size = shares.shape[1]
    centred = shares - 1.0 / size
    if not marked:
        centred[missing] = 0.0
    one: Features = centred[:, 1:] * math.sqrt(2.0)
    return one if size == 2 else centred


def _mark(name: str, marked: bool) -> list[str]:
    """Name of the feature that says that a value is missing."""
    return [f"{name}={_MISSING}"] * marked


def _cell_names(name: str, cells: list[str], marked: bool) -> tuple[str, ...]:
    names = [*cells, *_mark(name, marked)]
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
