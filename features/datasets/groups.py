"""Which person, or other unit, a row belongs to: the one rule for all sources.

The same persons are the same whatever holds them: a group is its text, without blanks around it,
and a whole number is the same group as an integer, as a float (``2.0``) and as text (``2`` or
``2.0``); ``02`` is text. What is missing, or is neither text nor whole number, is refused with
its row's position and never with its value: groups are as private as rows.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from dpfc.features.datasets.base import row_id
from dpfc.features.datasets.labels import whole_number
from dpfc.features.exceptions import DatasetError

__all__ = ["Groups", "group_texts", "read_groups"]

# From here on, not every integer is a float of 64 bits: two persons could be one.
_EXACT = 2.0**53


@dataclass(frozen=True)
class Groups:
    """The group of every row.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
        Equal exactly where the groups are, numbered in the order of their first rows.
    names : list of str
        The text of each code.
    """

    codes: NDArray[np.int32]
    names: list[str]

    def texts(self, codes: NDArray[np.int32]) -> list[str]:
        """The groups of some rows, by their codes."""
        return [self.names[code] for code in codes.tolist()]


def read_groups(
    values: Iterable[object], source: str, describe: Callable[[int], str] = row_id
) -> Groups:
    """Read the groups of all rows, by the rule above. 4 bytes a row, and each group once, are kept.

    Parameters
    ----------
    values : iterable of str, int, float or None
    source : str
        What holds them, for messages.
    describe : callable
        Gives the name of the row at a position, for messages.

    Raises
    ------
    DatasetError
        If a group is missing or of another type; the message names its row.
    """
    found: dict[str, int] = {}
    codes = array("i")
    for row, value in enumerate(values):
        text = _text_of(value)
        if text is None:
            _refuse(value, f"{describe(row)} of {source}")
        codes.append(found.setdefault(text, len(found)))
    return Groups(np.asarray(codes, dtype=np.int32), list(found))


def group_texts(values: Sequence[object], place: Callable[[int], str]) -> list[str]:
    """Groups as texts, by the rule above.

    Parameters
    ----------
    values : sequence of str, int, float or None
    place : callable
        Names the row at a position, for messages; only called for one.

    Raises
    ------
    DatasetError
        As `read_groups`.
    """
    texts = []
    for row, value in enumerate(values):
        text = _text_of(value)
        if text is None:
            _refuse(value, place(row))
        texts.append(text)
    return texts


def _text_of(value: object) -> str | None:
    """The text of a group; None where it is missing, or none."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else None
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    # Lone surrogates: JSON can write them, UTF-8 and so Parquet cannot.
    if not text or (not text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in text)):
        return None
    number = whole_number(text)
    return text if number is None else str(number)


def _refuse(value: object, where: str) -> NoReturn:
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise DatasetError(
            f"{where} has no group: say whose row it is, or remove it; where nobody else can have "
            "rows of the same person, give the row a group of its own."
        )
    raise DatasetError(
        f"{where} has a group that is neither text nor a whole number that is stored exactly: "
        "write groups as text or integers."
    )
