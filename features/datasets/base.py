"""Rows of images or texts: what a data set gives, and what its kinds share.

Every data set gives its rows in one fixed order and holds at most a few of them in memory.
"""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from dpfc._support.files import IrregularFileError, check_replaceable, sha256_of_file
from dpfc._support.validation import Choice
from dpfc.features.datasets.decoding import decode_image
from dpfc.features.exceptions import DatasetError, UnreadableItemError, UnreadableTextError

if TYPE_CHECKING:
    from PIL import Image

    from dpfc.features.datasets.groups import Groups

__all__ = ["Dataset", "ImageDataset", "ImageItem", "Item", "TextDataset", "TextItem", "Wanted"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
FILE_SUFFIXES = (*TABLE_SUFFIXES, ".tar")
# What to do with a row that cannot be read, or lacks its label.
ON_ERROR = Choice(("stop", "skip"))
# Above this many bytes a fingerprint takes names, sizes and times instead of contents.
HASHED_BYTES_LIMIT = 8 << 30
# In the place of a label that a row lacks, where such rows are left out.
MISSING_LABEL = -1
# C0 and C1 controls (ESC among them), separators of lines, and marks of direction.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SPLIT_WORD = re.compile(
    r"(?:^|[-_.])(train|test|validation|valid|val|dev)(?=[-_.]|$)", re.IGNORECASE
)


class Item(Protocol):
    """One row of a data set: what `decode` returns is what a backbone's preparer takes."""

    @property
    def label(self) -> int | None:
        """Position in `class_names`; None if the data set has no labels, -1 if the row has none."""

    @property
    def id(self) -> str:
        """Unique and stable in its data set."""

    @property
    def group(self) -> str | None:
        """Whose row it is; None if the data set has no groups."""

    def decode(self, *, at_least: int | None = None) -> "Image.Image | str":
        """The image, or the text."""


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One row of a data set of images.

    Attributes
    ----------
    image : bytes, Path, PIL.Image.Image or None
        The encoded image, the file that holds it, or the image itself; None if the row has none.
    label : int or None
        Position in the data set's `class_names`; None if the data set has no labels, -1 if this
        row has none, which is then refused when it is decoded.
    id : str
        Unique and stable: a path relative to the data set's root, or ``row-000123``.
    group : str or None
        Which person, or other unit of privacy, the row belongs to; None if the data set has no
        groups.
    """

    image: "bytes | Path | Image.Image | None"
    label: int | None
    id: str
    group: str | None = None

    def decode(self, *, at_least: int | None = None) -> "Image.Image":
        """Decode the image to upright 8-bit RGB; see `decode_image`.

        Raises
        ------
        UnreadableItemError
            If the image is corrupt, truncated, missing or too large, or lacks its label.
        """
        _refuse_unlabelled(self)
        return decode_image(self.image, self.id, at_least=at_least)


@dataclass(frozen=True, slots=True)
class TextItem:
    """One row of a data set of texts.

    Attributes
    ----------
    text : str or None
        The text; None where the row holds none.
    label : int or None
        Position in the data set's `class_names`; None if the data set has no labels, -1 if this
        row has none, which is then refused when it is decoded.
    id : str
        Unique and stable: ``row-000123``.
    group : str or None
        As for `ImageItem`.
    """

    text: str | None
    label: int | None
    id: str
    group: str | None = None

    def decode(self, *, at_least: int | None = None) -> str:
        """Return the text.

        Raises
        ------
        UnreadableItemError
            If the row holds no text, or one that is no valid Unicode, or lacks its label.
        """
        _refuse_unlabelled(self)
        if not isinstance(self.text, str) or not self.text.strip():
            raise UnreadableTextError(
                f"{self.id!r} holds no text: fill it in or remove the row, and run again."
            )
        # Lone surrogates: JSON can write them, tokenizers and UTF-8 cannot.
        if not self.text.isascii() and any("\ud800" <= mark <= "\udfff" for mark in self.text):
            raise UnreadableTextError(
                f"{self.id!r} holds a text that is not valid Unicode (half of a surrogate pair): "
                "correct it or remove the row, and run again."
            )
        return self.text


def _refuse_unlabelled(item: Item) -> None:
    if item.label == MISSING_LABEL:
        raise UnreadableItemError(
            f"{item.id!r} has no label: fill it in or remove the row, and run again."
        )


class Dataset(ABC):
    """Rows in a fixed order, read lazily.

    Attributes
    ----------
    name : str
        Short name for people: a file's or folder's name, or the spec.
    modality : {"image", "text"}
        What the items decode to.
    class_names : list of str or None
        Names of the labels 0, 1, …; None if unknown.
    class_names_from_labels : bool
        Whether the names were collected from the rows' labels. They are then private like the
        labels.
    has_labels : bool
        Whether items carry a label.
    has_groups : bool
        Whether items say which person, or other unit, they belong to.
    columns : list of str
        Where labels could stand: columns of a table, or fields; empty if there are none.
    """

    modality: ClassVar[Literal["image", "text"]]
    name: str
    class_names: list[str] | None
    class_names_from_labels: bool = False
    has_labels: bool
    columns: Sequence[str] = ()
    _labels: NDArray[Any] | None = None
    _groups: "Groups | None" = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def items(self, start: int = 0) -> Iterator[Item]:
        """Yield the rows from position `start` on, without decoding those before it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of what identifies the rows: same fingerprint, same rows."""

    def __iter__(self) -> Iterator[Item]:
        return self.items()

    @property
    def has_groups(self) -> bool:
        """Whether items say which person, or other unit, they belong to."""
        return self._groups is not None

    def _forget_labels(self) -> None:
        """Go on as a data set without labels."""
        self.has_labels = self.class_names_from_labels = False
        self.class_names = self._labels = None

    def _label(self, position: int) -> int | None:
        return None if self._labels is None else int(self._labels[position])

    def _group(self, position: int) -> str | None:
        return None if self._groups is None else self._groups.names[self._groups.codes[position]]


class ImageDataset(Dataset):
    """Images in a fixed order, read lazily; see `Dataset`."""

    modality = "image"

    @abstractmethod
    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on, without decoding those before it."""


class TextDataset(Dataset):
    """Texts in a fixed order, read lazily; see `Dataset`."""

    modality = "text"

    @abstractmethod
    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on, without keeping those before it."""


@dataclass(frozen=True)
class Wanted:
    """What the caller of `open_dataset` said, under the same names."""

    text_column: str | None = None
    label_column: str | None = None
    class_names: list[str] | None = None
    header: bool = True
    unlabelled: bool = False
    skip_missing: bool = False
    group_column: str | None = None
    groups: Path | None = None

    def refuse(self, what: str, *names: str) -> None:
        """Refuse what would be without effect."""
        for name in names:
            if getattr(self, name) is not None:
                raise DatasetError(f"{name} does not apply to {what}: leave it away.")
        if not self.header:
            raise DatasetError(f"header=False does not apply to {what}: leave it away.")

    def refuse_group_file(self, what: str) -> None:
        """Refuse a file of groups where they stand beside the rows."""
        if self.groups is not None:
            raise DatasetError(
                f"groups=… is for folders of images, not for {what}: name the column or field that "
                "says whose row it is, group_column=…"
            )


def checked_names(names: Sequence[str]) -> list[str]:
    """Return a caller's list of class names.

    Raises
    ------
    DatasetError
        If it is no list of different, non-empty strings.
    """
    if isinstance(names, set | frozenset):
        raise DatasetError("class_names must be in an order, which a set has not: pass a list.")
    listed = [names] if isinstance(names, str) else list(names)
    # Written with a blank behind each comma, names are still the names.
    listed = [name.strip() if isinstance(name, str) else name for name in listed]
    text = all(isinstance(name, str) and name for name in listed)
    if isinstance(names, str) or not text or not listed or len(set(listed)) < len(listed):
        raise DatasetError("class_names must be a list of different strings, none of them empty.")
    return listed


def refuse_irregular(path: Path) -> None:
    """Refuse a pipe, a socket or a device; what is not there is left to the caller.

    Raises
    ------
    DatasetError
        Says which it is.
    """
    try:
        check_replaceable(path)
    except IrregularFileError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error


def refuse_mixed_splits(paths: Sequence[Path]) -> None:
    """Refuse files that are the train and the test part of one data set.

    Raises
    ------
    DatasetError
        If the files' names tell of several splits.
    """
    splits = {word.lower() for path in paths for word in _SPLIT_WORD.findall(path.stem)}
    if len(splits) > 1:
        raise DatasetError(
            f"{paths[0].parent} holds files of several splits ({', '.join(sorted(splits))})"
            ": name one file, or give each split a folder of its own."
        )


def fingerprint_of_files(
    kind: str, paths: Sequence[Path], names: Sequence[str], extra: Sequence[str] = ()
) -> str:
    """SHA-256 of files' names, sizes and contents.

    Above 8 GiB in all, contents are replaced by modification times: a copy of such a data set
    counts as another one.

    Raises
    ------
    DatasetError
        If a file cannot be read.
    """
    digest = hashlib.sha256(repr((kind, list(extra))).encode())
    try:
        stats = [path.stat() for path in paths]
        by_content = sum(stat.st_size for stat in stats) <= HASHED_BYTES_LIMIT
        for path, name, stat in zip(paths, names, stats, strict=True):
            content = sha256_of_file(path) if by_content else str(stat.st_mtime_ns)
            digest.update(repr((name, stat.st_size, content)).encode())
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename}: {error.strerror}.") from error
    return digest.hexdigest()


def row_id(position: int) -> str:
    """Id of a row that has no path."""
    return f"row-{position:06d}"


def printable(name: str) -> str:
    """A file name as valid UTF-8 that can be shown; other bytes and control marks are escaped."""
    return without_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))


def without_controls(text: str) -> str:
    """A text that a terminal only shows: marks that steer it, or turn its direction, are escaped.

    Tabs and new lines count among them.
    """
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)
