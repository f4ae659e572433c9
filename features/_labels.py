"""From labels as a source writes them, integers or names, to positions in a list of classes."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpfc.features.datasets import row_id
from dpfc.features.exceptions import DatasetError

__all__ = ["Labels", "read_labels"]

MAX_LABEL = 2**31 - 1
# More different labels than this are another column, and would fill the memory.
_MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Labels:
    """Labels as integers.

    Attributes
    ----------
    codes : ndarray of int32, shape (n,)
    class_names : list of str or None
        Names of the codes 0, 1, …; None if the source holds integers without names.
    from_labels : bool
        Whether the names were collected from the labels, which makes them as private.
    """

    codes: NDArray[np.int32]
    class_names: list[str] | None
    from_labels: bool


def read_labels(
    values: Iterable[object],
    source: str,
    class_names: list[str] | None = None,
    describe: Callable[[int], str] = row_id,
) -> Labels:
    """Read all labels of a source.

    Strings are names in `class_names`; without such a list, the names are the sorted different
    strings. Integers, also written as decimal strings, are positions in the list. 4 bytes a row
    are kept.

    Parameters
    ----------
    values : iterable of int or str
    source : str
        What holds them, for messages.
    class_names : list of str, optional
        The public list.
    describe : callable
        Gives the name of the row at a position, for messages. A label is never shown.

    Raises
    ------
    DatasetError
        If a label is missing, neither int nor string, outside the list, or strings and integers
        are mixed.
    """
    places: dict[int | str, int] = {}
    seen = array("i")
    for row, value in enumerate(values):
        if type(value) not in (int, str) or value == "":
            what = "no label" if value in (None, "") else "a label that is no int and no string"
            raise DatasetError(f"{describe(row)} of {source} has {what}: correct it.")
        place = places.setdefault(value, len(places))  # type: ignore[arg-type]
        if place >= _MAX_CLASSES:
            raise DatasetError(
                f"{source} has more than {_MAX_CLASSES:,} different labels: name the column "
                "that holds the classes with label_column."
            )
        seen.append(place)
    order = np.asarray(seen, dtype=np.int32)

    def refuse(place: int, why: str) -> DatasetError:
        row = int(np.argmax(order == place))
        return DatasetError(f"{describe(row)} of {source} has a label {why}.")

    names, derived = class_names, False
    numbers = [_as_integer(value) for value in places]
    if names is None and None in numbers:
        wrong = [place for place, value in enumerate(places) if not isinstance(value, str)]
        if wrong:
            raise refuse(wrong[0], "that is an integer, where others are strings")
        names, derived = sorted(str(value) for value in places), True
    if names is not None and set(places) <= set(names):
        index = {name: code for code, name in enumerate(names)}
        codes = [index[str(value)] for value in places]
    else:
        limit = MAX_LABEL if names is None else len(names) - 1
        for place, number in enumerate(numbers):
            if number is None or not 0 <= number <= limit:
                raise refuse(place, "outside its classes: correct it, or state all class_names")
        codes = [number for number in numbers if number is not None]
    table = np.array(codes, dtype=np.int32)
    return Labels(table[order] if len(order) else order, names, derived)


def _as_integer(value: int | str) -> int | None:
    if isinstance(value, int):
        return value
    # Not int(): it takes "1_0" and " 1". More digits than a label has would be slow to parse.
    plain = value.isascii() and value.isdecimal() and len(value) <= 10
    return int(value) if plain else None
