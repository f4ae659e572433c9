"""A schema from a sample that is public: rounded bounds, and the values that occur."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import date, timedelta
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpfc._support.column_names import is_id_name, is_index_name
from dpfc._support.files import sha256_of_file
from dpfc._support.suggestions import did_you_mean
from dpfc._support.words import counted, shown
from dpfc.features.datasets.base import printable
from dpfc.features.datasets.tables import table_columns, table_rows
from dpfc.features.exceptions import DatasetError
from dpfc.features.tables.dictionary import roles_of
from dpfc.features.tables.schema import TableSchema
from dpfc.features.tables.values import (
    MISSING_WORDS,
    Values,
    as_booleans,
    as_days,
    as_numbers,
    comparable,
    is_missing,
)

__all__ = ["schema_from_public_sample"]

_MOST_VALUES = 50
# From so many rows on, texts of which most stand there once are names or notes.
_MANY_ROWS = 20
_HEAVY_TAIL = 20.0  # the largest of positive numbers over their median
_WEEK = 7


def schema_from_public_sample(
    path: str | PathLike[str],
    *,
    label_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    ignore: Collection[str] = (),
) -> TableSchema:
    """Write down what a public sample shows of its columns.

    Bounds are rounded outwards to two digits of their span. A text column with more than 50
    different values, or more than half as many as rows, is left out, as are columns whose names
    say that they number rows. Read what
    it wrote: it knows of the rows in the sample only.

    Parameters
    ----------
    path : path
        A table that is public. Nothing can check that: a schema is published with the model.
    label_column, group_column, id_column : str, optional
        Columns with these roles. The sample may lack the group, which published tables often do.
    ignore : collection of str
        Columns to leave out.

    Raises
    ------
    DatasetError
        If the file cannot be read, or has no such column.
    ValueError
        If no column is left that could be a feature.
    """
    file = Path(path)
    names = table_columns(file)
    # A name that is nearly one of the sample's is a slip of the pen.
    group = group_column if group_column is not None and group_column not in names else None
    absent = {} if group is None or did_you_mean(group, names) else {group: {"role": "group"}}
    roles = roles_of(
        names,
        str(file),
        label=label_column,
        group=None if absent else group_column,
        id=id_column,
        ignore=ignore,
    )
    rows = list(table_rows(file, names))
    if not rows:
        raise DatasetError(f"{file} holds no rows.")
    columns: dict[str, Any] = dict(absent)
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        if name in roles:
            columns[name] = {"role": roles[name]}
            if name == label_column:
                columns[name]["values"] = _different(values)
        else:
            columns[name] = _column(name, values)
    source = (
        f"public sample {printable(file.name)}, {counted(len(rows), 'row')}, "
        f"SHA-256 {sha256_of_file(file)}"
    )
    return TableSchema.from_dict({"columns": columns, "source": source}, shown(str(file)))


class _NotOfThisKindError(Exception):
    """A value is none of the kind that is tried."""


def _fail(row: int, what: str) -> NoReturn:
    raise _NotOfThisKindError


def _column(name: str, values: Values) -> dict[str, Any]:
    """What a column's values are; public, as they are."""
    present = [value for value in values if not is_missing(value, MISSING_WORDS)]
    if not present or is_index_name(name) or is_id_name(name):
        return {"role": "ignore"}
    missing = {"missing": "indicator"} if len(present) < len(values) else {}
    for look in (_boolean, _number, _date):
        try:
            return look(present) | missing
        except _NotOfThisKindError:
            continue
    found = _different(present)
    if len(found) > _MOST_VALUES or 2 * len(found) > len(present) >= _MANY_ROWS:
        return {"role": "ignore"}
    return {"type": "category", "values": found} | missing


def _boolean(values: Values) -> dict[str, Any]:
    as_booleans(values, MISSING_WORDS, _fail)
    return {"type": "boolean"}


def _number(values: Values) -> dict[str, Any]:
    numbers, _ = as_numbers(values, MISSING_WORDS, _fail)
    # Codes such as 02110 are names.
    texts = [value.strip() for value in values if isinstance(value, str)]
    if any(re.match(r"0\d", text) for text in texts) or not np.isfinite(numbers).all():
        raise _NotOfThisKindError
    low, high = float(numbers.min()), float(numbers.max())
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** (math.floor(math.log10(span)) - 1)
    if (numbers == np.floor(numbers)).all():
        step = max(step, 1.0)
    low, high = _rounded(math.floor(low / step), step), _rounded(math.ceil(high / step), step)
    column: dict[str, Any] = {"type": "number", "min": low, "max": max(high, low + step)}
    if low >= 0 and high > _HEAVY_TAIL * float(np.median(numbers)) > 0:
        column["scale"] = "log"
    return column


def _rounded(steps: int, step: float) -> float:
    """Without the digits that a product of floats adds."""
    return float(f"{steps * step:.12g}")


def _date(values: Values) -> dict[str, Any]:
    if any(not isinstance(value, str | date) for value in values):
        raise _NotOfThisKindError
    days, _ = as_days(values, None, MISSING_WORDS, _fail)
    first, last = (date(1970, 1, 1) + timedelta(int(day)) for day in (days.min(), days.max()))
    return {
        "type": "date",
        "min": date(first.year, 1, 1),
        "max": date(last.year, 12, 31),
        "parts": ["date", "month", "weekday"] if len(set(days % _WEEK)) > 1 else ["date", "month"],
    }


def _different(values: Values) -> list[str]:
    """The texts that occur, in the order of numbers or of letters."""
    texts = {comparable(v): None for v in values if not is_missing(v, MISSING_WORDS)}
    try:
        return sorted(texts, key=float)
    except ValueError:
        return sorted(texts)
