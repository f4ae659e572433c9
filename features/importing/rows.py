"""What an imported file gives: rows of features, their ids and labels, and where they stand."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import open_regular
from dpfc.features.datasets.groups import group_texts
from dpfc.features.exceptions import DatasetError

__all__ = [
    "BLOCK_ROWS",
    "Columns",
    "IdDigests",
    "Rows",
    "Source",
    "chosen_column",
    "id_text",
    "nth_line",
    "place_in",
]

# Rows that a source reads at a time.
BLOCK_ROWS = 256

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Columns:
    """What the caller said of a file's columns, arrays or fields; None leaves it to the file.

    With `labels_apart`, labels come from a file of their own and those beside features are not
    looked at; with `groups_apart`, groups. Columns in `drop` are no features.
    """

    features: str | None = None
    label: str | None = None
    id: str | None = None
    labels_apart: bool = False
    drop: tuple[str, ...] = field(default=(), repr=False)
    group: str | None = field(default=None, repr=False)
    groups_apart: bool = field(default=False, repr=False)

    @property
    def group_beside(self) -> str | None:
        """The column of the groups that stand beside the features."""
        return None if self.groups_apart else self.group


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one file.

    Attributes
    ----------
    place : callable
        Names the row at a position in this block for people: ``line 7 of e.jsonl``.
    X : ndarray of shape (n, n_features) or None
        Real numbers of any dtype; None for one row that a service could not embed.
    ids, labels : sequence or None
        One each a row, as the file writes them; None if the file has none. A row without
        features has no label.
    groups : sequence or None
        Whose rows they are, as the file writes it; None if the file has none, or for a row without
        features.
    """

    place: Callable[[int], str]
    X: NDArray[Any] | None
    ids: Sequence[object] | None = None
    labels: Sequence[object] | None = None
    groups: Sequence[object] | None = None

    def __len__(self) -> int:
        return 1 if self.X is None else len(self.X)

    def id_texts(self) -> list[str] | None:
        """The ids as strings.

        Raises
        ------
        DatasetError
            If one is missing, or neither int nor string.
        """
        if self.ids is None:
            return None
        return [id_text(value, self.place, row) for row, value in enumerate(self.ids)]

    def group_texts(self) -> list[str] | None:
        """The groups as strings.

        Raises
        ------
        DatasetError
            If one is missing, or neither text nor whole number.
        """
        return None if self.groups is None else group_texts(self.groups, self.place)


def id_text(value: object, place: Callable[[int], str], row: int) -> str:
    """An id as a string.

    `place` names the row for a message; it may read the file again, so it is only called for one.

    Raises
    ------
    DatasetError
        If it is missing, neither int nor string, or no valid Unicode.
    """
    if type(value) not in (int, str) or value == "":
        raise DatasetError(
            f"{place(row)} has no id, or one that is no int and no string: correct it, or name the "
            "column of the ids with id_column."
        )
    text = str(value)
    # Lone surrogates: JSON can write them, UTF-8 and so Parquet cannot.
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DatasetError(f"{place(row)} has an id that is not valid Unicode: correct it.")
    return text


class Source(Protocol):
    """One file with features."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def has_labels(self) -> bool:
        """Whether labels stand beside the features, and are wanted."""

    @property
    def has_ids(self) -> bool:
        """Whether every row has an id."""

    @property
    def has_groups(self) -> bool:
        """Whether every row with features says whose it is."""

    @property
    def keeps_order(self) -> bool:
        """Whether the rows surely have the order of a list of labels beside the file."""

    @property
    def class_names(self) -> list[str] | None:
        """Names of the labels that the file states; None if it states none."""

    def rows(self) -> Iterator[Rows]:
        """Read all rows from the first on; can be called again.

        Raises
        ------
        DatasetError
            If the file is damaged; the message names the place and nothing that stands there.
        """


class IdDigests:
    """What is kept of ids: 16 bytes each, whatever their length."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, text: str) -> None:
        """Append an id."""
        self._bytes += hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()

    def to_array(self) -> NDArray[np.bytes_]:
        """All digests, shape (n,), which compare and sort as ids do not need to."""
        return np.frombuffer(bytes(self._bytes), dtype=f"S{_DIGEST_BYTES}")

    def first_repeated(self, ignored: Collection[int] = ()) -> int | None:
        """Position of the first id that stands there a second time; None if all differ."""
        digests = self.to_array()
        order = np.argsort(digests, kind="stable")
        order = order[~np.isin(order, list(ignored))] if ignored else order
        repeated = order[1:][digests[order[1:]] == digests[order[:-1]]]
        return int(repeated.min()) if len(repeated) else None


def place_in(unit: str, first: int, path: Path) -> Callable[[int], str]:
    """Name rows of a block that starts at position `first` of a file."""
    return lambda row: f"{unit} {first + row} of {path}"


def nth_line(path: Path, index: int) -> int:
    """Number, from 1, of the line that holds a JSONL file's record at a position from 0.

    Counted when a message needs it: empty lines hold no record.
    """
    with open_regular(path) as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next(islice(filled, index, None), 0)


def chosen_column(
    path: Path, kind: str, names: Sequence[str], option: str, wanted: str | None, usual: set[str]
) -> str | None:
    """The wanted name, or the only one that is usual, or None.

    Raises
    ------
    DatasetError
        If the wanted one is missing, or several are usual.
    """
    if wanted is not None:
        if wanted not in names:
            raise DatasetError(
                f"{path} has no {kind} {wanted!r} ({option}); it has {', '.join(names)}."
            )
        return wanted
    found = [name for name in names if name in usual]
    if len(found) > 1:
        raise DatasetError(f"{path} has {kind}s {', '.join(found)}: choose one with {option}.")
    return found[0] if found else None
