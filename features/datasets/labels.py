"""From labels as a source writes them to positions in a list of classes: the one rule for all.

The same labels give the same classes whatever holds them (a CSV can only write text, JSON and
Parquet know types) and whatever type they have:

- A label is its text, without blanks around it. A whole number is the same label as an integer,
  as a float (``2.0``) and as text (``2`` or ``2.0``); ``02`` is text. A bool is ``True`` or
  ``False``, and finds its class name in any capitals, as text too. What is neither text, bool nor
  number, or is missing, is refused.
- With class names, a label is one of them. Only where no name is a number are whole numbers
  positions in the list, from 0. Names and positions are not mixed.
- A list that belongs to the source's own integers (a column of classes, ``ClassLabel``) numbers
  them: there integers are positions whatever the names are.
- Without class names, whole numbers keep their value, from 0 on; other labels are numbered in the
  alphabetical order of their text. Numbers of which one has a fraction are refused, as text too.
"""

import math
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpfc.features.datasets.base import row_id
from dpfc.features.exceptions import DatasetError

__all__ = ["Labels", "read_labels", "whole_number"]

MAX_LABEL = 2**31 - 1
# More different labels than this are another column, and would fill the memory.
_MAX_CLASSES = 100_000
# From so many rows on, a column with more strings than half of the rows holds no classes.
_MANY_ROWS = 100
# A longer number is no class, and slow to parse.
_WHOLE = re.compile(r"-?(?:0|[1-9]\d{0,18})(?:\.0{1,20})?", re.ASCII)
_FRACTION = re.compile(r"-?\d{0,19}\.\d{1,20}", re.ASCII)
_BOOLS = ("true", "false")


@dataclass(frozen=True)
class Labels:
    """Labels as integers.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
        -1 for a row whose label is missing, where such rows may be.
    class_names : list of str or None
        Names of the codes 0, 1, …; None if the labels are whole numbers without names.
    from_labels : bool
        Whether the names were collected from the labels, which makes them as private.
    """

    codes: NDArray[np.int32]
    class_names: list[str] | None
    from_labels: bool


class _Label(NamedTuple):
    """A label's text, and what it was written as."""

    text: str
    kind: Literal["text", "bool", "number"]


class _RefusedError(Exception):
    """Why a label cannot be taken; raised with its place among the different ones."""

    def __init__(self, place: int, why: str) -> None:
        self.place, self.why = place, why


def read_labels(
    values: Iterable[object],
    source: str,
    class_names: list[str] | None = None,
    describe: Callable[[int], str] = row_id,
    *,
    numbered: bool = False,
    skip_missing: bool = False,
) -> Labels:
    """Read all labels of a source, by the rule above. 4 bytes a row are kept.

    Parameters
    ----------
    values : iterable of str, int, float, bool or None
    source : str
        What holds them, for messages.
    class_names : list of str, optional
        The public list.
    describe : callable
        Gives the name of the row at a position, for messages. A label is never shown.
    numbered : bool
        Whether `class_names` are the source's own and number its integers.
    skip_missing : bool
        Whether a missing label becomes -1 in the place of an error.

    Raises
    ------
    DatasetError
        If a label is missing, of another type, outside the list, or would lose its value; the
        message names its row.
    """
    found: dict[_Label, int] = {}
    # By type too: 1, 1.0 and True are one key of a dictionary.
    known: dict[tuple[type, object], int] = {}
    seen = array("i")
    for row, value in enumerate(values):
        place = known.get((type(value), value)) if _is_plain(value) else None
        if place is None:
            label = _label_of(value)
            if isinstance(label, str):
                raise DatasetError(f"{describe(row)} of {source} has {label}.")
            if label is None and not skip_missing:
                raise DatasetError(f"{describe(row)} of {source} has no label: correct it.")
            place = -1 if label is None else found.setdefault(label, len(found))
            if len(found) > _MAX_CLASSES:
                raise _no_classes(source, f"more than {_MAX_CLASSES:,} different labels")
            if label is not None:
                known[type(value), value] = place
        seen.append(place)
    order = np.asarray(seen, dtype=np.int32)
    try:
        codes, names = _numbered(list(found), class_names, numbered)
    except _RefusedError as refused:
        row = int(np.argmax(order == refused.place))
        raise DatasetError(f"{describe(row)} of {source} has a label {refused.why}.") from None
    derived = class_names is None and names is not None
    if derived and len(order) >= _MANY_ROWS and 2 * len(found) > len(order):
        raise _no_classes(source, f"{len(found):,} different labels for {len(order):,} rows")
    # The last entry is what the place -1 of a missing label finds.
    table = np.array([*codes, -1], dtype=np.int32)
    return Labels(table[order], names, derived)


def whole_number(text: str) -> int | None:
    """The integer that a text writes, also as ``2.0``; None if it writes none."""
    return int(text.partition(".")[0]) if _WHOLE.fullmatch(text) else None


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _label_of(value: object) -> _Label | str | None:
    """A label's text; None if it is missing; else what is wrong with it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value != value:
        return None
    if isinstance(value, str):
        text = value.strip()
        return _Label(text, "text") if text else None
    if isinstance(value, bool):
        return _Label(str(value), "bool")
    if isinstance(value, float):
        if math.isinf(value):
            return "a label that is infinite: correct it"
        whole = value.is_integer() and abs(value) < 2**63
        return _Label(str(int(value)) if whole else repr(value), "number")
    if isinstance(value, int):
        return _Label(str(value) if abs(value) < 2**63 else "too large", "number")
    return "a label that is neither text nor number: convert it"


def _numbered(
    labels: Sequence[_Label], names: list[str] | None, numbered: bool
) -> tuple[list[int], list[str] | None]:
    """Codes of different labels, and the names of the codes."""
    if names is None:
        return _without_names(labels)
    public = _PublicNames(names)
    codes: list[int] = []
    first: dict[bool, int] = {}
    for place, label in enumerate(labels):
        is_position = public.is_position(label, numbered)
        code = public.position(label) if is_position else public.place_of(label)
        if code is None:
            what = " (whole numbers are positions, from 0)" if is_position else ""
            raise _RefusedError(
                place, f"outside its classes{what}: correct it, or state all class_names"
            )
        first.setdefault(is_position, place)
        codes.append(code)
    if len(first) > 1:
        raise _RefusedError(first[True], "that is a number, where others are names of classes")
    return codes, names


class _PublicNames:
    """A public list of class names, and how labels find their place in it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._size = len(names)
        self._by_text = {name: code for code, name in enumerate(names)}
        self._by_folded = {name.casefold(): code for code, name in enumerate(names)}
        self._by_number: dict[int, int] = {}
        for code, name in enumerate(names):
            if (number := whole_number(name)) is not None:
                self._by_number.setdefault(number, code)

    def is_position(self, label: _Label, numbered: bool) -> bool:
        """Whether a label counts in the list; which labels there are beside it plays no part."""
        if numbered:
            return label.kind == "number"
        return not self._by_number and whole_number(label.text) is not None

    def position(self, label: _Label) -> int | None:
        number = whole_number(label.text)
        return number if number is not None and 0 <= number < self._size else None

    def place_of(self, label: _Label) -> int | None:
        """Position of the name that a label is."""
        number = whole_number(label.text)
        if label.text in self._by_text and (number is None or label.kind == "text"):
            return self._by_text[label.text]
        if (folded := label.text.casefold()) in _BOOLS:  # JSON, R and Python write them in turn
            return self._by_folded.get(folded)
        return None if number is None else self._by_number.get(number)


def _without_names(labels: Sequence[_Label]) -> tuple[list[int], list[str] | None]:
    """Codes of labels that no list names, and the names if they are no whole numbers."""
    numbers = [whole_number(text) for text, _ in labels]
    if None not in numbers:
        for place, number in enumerate(numbers):
            if number is None or not 0 <= number <= MAX_LABEL:
                raise _RefusedError(
                    place,
                    f"outside its classes, 0 to {MAX_LABEL}: correct it, or state all class_names",
                )
        return [number for number in numbers if number is not None], None
    # A file of text cannot say that its numbers are no names: where all are numbers, they are not.
    measured = all(
        number is not None or _FRACTION.fullmatch(text)
        for number, (text, _) in zip(numbers, labels, strict=True)
    )
    for place, (_, kind) in enumerate(labels):
        if numbers[place] is None and (kind == "number" or measured):
            raise _RefusedError(
                place,
                "that is no whole number: name the column that holds classes, or state all "
                "class_names",
            )
    kinds = {kind: place for place, (_, kind) in reversed(list(enumerate(labels)))}
    if len(kinds) > 1:
        odd = next(kind for kind in ("number", "bool") if kind in kinds)
        what = {"number": "an integer", "bool": "a bool"}[odd]
        others = "strings" if "text" in kinds else "bools"
        raise _RefusedError(kinds[odd], f"that is {what}, where others are {others}")
    names = sorted(text for text, _ in labels)
    index = {name: code for code, name in enumerate(names)}
    return [index[text] for text, _ in labels], names


def _no_classes(source: str, what: str) -> DatasetError:
    return DatasetError(
        f"{source} has {what}: name the column of the classes, label_column=…, or state them all, "
        "class_names=…"
    )
