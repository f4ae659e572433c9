"""A table's values as numbers, texts, days; by each value alone, and no message quotes one."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MISSING_WORDS",
    "Fail",
    "Values",
    "as_booleans",
    "as_codes",
    "as_days",
    "as_numbers",
    "comparable",
    "is_missing",
]

MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}(?:\.0+)?", re.ASCII)
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_NO_VALUES = ("NAType", "NaTType")  # pandas'
_TOO_LARGE = 10**400
_LONGEST = 400  # letters of a number or a date

Values = Sequence[Any] | NDArray[Any]
Mask = NDArray[np.bool_]
# Refuses the row at a position; the text says what its value is not.
Fail = Callable[[int, str], NoReturn]


def is_missing(value: object, words: Collection[str]) -> bool:
    """Whether a value is none: null, NaN, or one of the words for it."""
    if value is None or type(value).__name__ in _NO_VALUES:
        return True
    if isinstance(value, str):
        return value.strip() in words
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float | np.floating) and bool(value != value)


def comparable(value: object) -> str:
    """A value's text: 2, 2.0 and "2.0" are one, and so are true and True."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        number = float(value)
        value = int(number) if number.is_integer() else repr(number)
    if isinstance(value, int) and abs(value) >= _TOO_LARGE:
        return "too large"  # which Python does not write out
    text = str(value).strip()
    if _WHOLE.fullmatch(text) and not _padded(text):
        return str(int(text.partition(".")[0]))
    return text.lower() if text.lower() in ("true", "false") else text


def _padded(text: str) -> bool:
    """Whether zeros stand before a number, as in codes, where they tell values apart."""
    digits = text.lstrip("+-").partition(".")[0]
    return len(digits) > 1 and digits[0] == "0"


def as_numbers(
    values: Values, words: Collection[str], fail: Fail
) -> tuple[NDArray[np.float64], Mask]:
    """Numbers, and which are missing (NaN there).

    Raises
    ------
    DatasetError
        By `fail`, at a value that is no number.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        plain = values.astype(np.float64)
        return plain, np.isnan(plain)
    found = np.empty(len(values))
    for row, value in enumerate(values):
        number = math.nan if is_missing(value, words) else _number(value)
        if number is None:
            fail(row, "holds no number such as 12.5")
        found[row] = number
    return found, np.isnan(found)


def _number(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        return float(text) if len(text) <= _LONGEST and _NUMBER.fullmatch(text) else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:  # an int: its bound it will be
        return math.inf if value == abs(value) else -math.inf


def as_codes(
    values: Values, places: Mapping[str, int], words: Collection[str], fail: Fail
) -> NDArray[np.int64]:
    """Places of texts in a public list: -1 for one that is missing, -2 for one that is not there.

    Parameters
    ----------
    places : mapping of `comparable` texts
    """

    def code_of(row: int, value: object) -> int:
        if isinstance(value, str) and (code := places.get(comparable(value))) is not None:
            return code  # also where it is one of the words for missing
        if is_missing(value, words):
            return -1
        if not isinstance(value, str | numbers.Real | np.bool_ | Decimal):
            fail(row, "holds neither text nor number")
        return places.get(comparable(value), -2)

    return _coded(values, code_of)


def as_booleans(values: Values, words: Collection[str], fail: Fail) -> NDArray[np.int64]:
    """1, 0, or -1 where the value is missing."""

    def code_of(row: int, value: object) -> int:
        if is_missing(value, words):
            return -1
        known = isinstance(value, str | numbers.Real | np.bool_)
        truth = _BOOLEANS.get(comparable(value).lower()) if known else None
        if truth is None:
            fail(row, "holds neither true nor false")
        return int(truth)

    return _coded(values, code_of)


def _coded(values: Values, code_of: Callable[[int, object], int]) -> NDArray[np.int64]:
    """Codes of values, by their row and themselves; equal texts are looked at once."""
    known: dict[str, int] = {}
    found = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(_listed(values)):
        code = known.get(value) if type(value) is str else None
        if code is None:
            code = code_of(row, value)
            if type(value) is str:
                known[value] = code
        found[row] = code
    return found


def as_days(
    values: Values, layout: str | None, words: Collection[str], fail: Fail
) -> tuple[NDArray[np.int64], Mask]:
    """Days since 1970-01-01, and which are missing (0 there)."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        missing = np.isnat(values)
        days = values.astype("datetime64[D]").astype(np.int64)
        return np.where(missing, 0, days), missing
    found = np.zeros(len(values), dtype=np.int64)
    missing = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values):
        if is_missing(value, words):
            missing[row] = True
            continue
        day = _day(value, layout)
        if day is None:
            iso = " such as 2026-01-31; for other forms give the schema a format"
            fail(row, "holds no date" + (iso if layout is None else f" as {layout!r}"))
        found[row] = (day - date(1970, 1, 1)).days
    return found, missing


def _day(value: object, layout: str | None) -> date | None:
    if isinstance(value, str) and len(value) <= _LONGEST:
        text = value.strip()
        try:
            read = (
                datetime.fromisoformat(text) if layout is None else datetime.strptime(text, layout)
            )
        except ValueError:  # its text quotes the value
            return None
        return read.date()
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[D]").item()
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else None


def _listed(values: Values) -> Sequence[Any]:
    """As Python's own values, which are faster to look at one by one."""
    return values.tolist() if isinstance(values, np.ndarray) else values
