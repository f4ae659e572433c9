"""WebDataset tars: files that share a key are one sample, an image or a text with its label.

Of the library ``webdataset`` its rules are taken: what a sample is, and how braces name shards.
Its pipeline is not: that one reads all files before a row to come to it, deals shards out among
processes, runs the commands that ``pipe:`` names, and unpickles.

References
----------
The format: https://github.com/webdataset/webdataset
"""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dpfc._support.packages import require
from dpfc.features.datasets.base import (
    Dataset,
    ImageDataset,
    ImageItem,
    TextDataset,
    TextItem,
    Wanted,
    fingerprint_of_files,
    printable,
)
from dpfc.features.datasets.folders import IMAGE_SUFFIXES
from dpfc.features.datasets.groups import read_groups
from dpfc.features.datasets.labels import read_labels
from dpfc.features.datasets.tables import column_named
from dpfc.features.datasets.tar_index import Place, Shard, read_place, reopened, samples, stat_of
from dpfc.features.exceptions import DatasetError

__all__ = ["TarImages", "TarTexts", "open_tars"]

_IMAGE_ENDINGS = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_PICKLES = ("pickle", "pkl", "pt", "pth", "pyd")
# A longer text, label or .json is something else, and would fill the memory.
_MAX_TEXT_BYTES = 16 << 20
_SHOWN_ENDINGS = 10
_NONE, _FILE, _JSON = 0, 1, 2


class TarRows(Dataset):
    """Samples of one or several tars, in the files' order; see `open_tars`.

    Parameters
    ----------
    name : str
        Short name for people.
    index : _Index
        Where the files lie.
    content, labels : _Column
        The images or texts, and the labels.
    groups : _Column or None
        Whose rows they are.
    wanted : Wanted
        The public list of class names, and whether missing labels are refused here.
    """

    def __init__(
        self,
        name: str,
        index: "_Index",
        content: "_Column",
        labels: "_Column",
        groups: "_Column | None",
        wanted: Wanted,
    ) -> None:
        self.name = name
        self._index, self._content = index, content
        self._columns = [*content.endings, content.field, *labels.endings, labels.field]
        self._columns += [] if groups is None else [*groups.endings, groups.field]
        self.has_labels = labels.is_found and not wanted.unlabelled
        self.columns = index.shown_endings().split(", ")
        self.class_names: list[str] | None = None
        if self.has_labels:
            values = index.values(labels, "label_column")
            found = read_labels(
                values,
                name,
                wanted.class_names,
                index.ids.__getitem__,
                skip_missing=wanted.skip_missing,
            )
            self._labels = found.codes
            self.class_names = found.class_names
            self.class_names_from_labels = found.from_labels
        elif wanted.class_names is not None:
            raise DatasetError(f"{name} has no labels for class_names: name the label_column.")
        if groups is not None:
            persons = index.values(groups, "group_column")
            self._groups = read_groups(persons, name, index.ids.__getitem__)

    def __len__(self) -> int:
        return len(self._index.ids)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tars' names, sizes and contents, and of what is read from them."""
        shards = self._index.shards
        paths, names = [shard.path for shard in shards], [shard.name for shard in shards]
        columns = [self.modality, *map(str, self._columns)]
        return fingerprint_of_files("tars", paths, names, columns)


class TarImages(TarRows, ImageDataset):
    """Images in tars; see `TarRows`. A sample without one is refused when it is decoded."""

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; files before it are not read."""
        contents = self._index.contents(self._content, start)
        for position, image in enumerate(contents, start):
            row_id, group = self._index.ids[position], self._group(position)
            yield ImageItem(image, self._label(position), row_id, group)


class TarTexts(TarRows, TextDataset):
    """Texts in tars; see `TarRows`. A sample without one is refused when it is decoded."""

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on; files before it are not read."""
        texts = self._index.values(self._content, "text_column", start)
        for position, text in enumerate(texts, start):
            text = text if isinstance(text, str) else None
            row_id, group = self._index.ids[position], self._group(position)
            yield TextItem(text, self._label(position), row_id, group)


def open_tars(paths: Sequence[Path], name: str, wanted: Wanted) -> TarImages | TarTexts:
    """Open WebDataset tars as images, or as texts where there are no images.

    Files with the same path up to the first dot of their name are one sample, and its files lie
    one after the other. Opening walks all headers once and reads the labels; nothing is
    unpacked to disk. A row's id is its key; of several tars, the tar's name and the key.

    Parameters
    ----------
    paths : sequence of Path
        Tars, not compressed, in the order of the rows.
    name : str
        Short name for people.
    wanted : Wanted
        Ending of the files that hold the texts, or field of the ``.json`` files: given, the rows
        are texts; by default images are, and ``txt`` where no sample has an image. Ending or field
        of the labels: by default ``cls``, else the field ``label`` if a ``.json`` has it. Class
        names; without them, labels that are strings are named by the labels themselves, which is
        a look at private data; see `open_dataset`. Ending or field of the groups.

    Raises
    ------
    DatasetError
        If a tar is damaged or compressed, holds a link, a device, or a name that leads out of
        it, or samples that are torn apart; or if a label is missing or outside the classes.
    MissingDependencyError
        If webdataset is not installed.
    """
    wanted.refuse("tars")
    wanted.refuse_group_file("tars")
    text_column, label_column = wanted.text_column, wanted.label_column
    require("webdataset", "a WebDataset tar", "webdataset")
    images = _Column(() if text_column else _IMAGE_ENDINGS)
    texts = _Column((_ending(text_column or "txt"),), text_column)
    labels = _Column((_ending(label_column or "cls"),), label_column or "label")
    grouped = wanted.group_column
    groups = None if grouped is None else _Column((_ending(grouped),), grouped)
    index = _Index(paths, [c for c in (images, texts, labels, groups) if c is not None])
    if groups is not None:
        index.settle(groups, "group_column", grouped)
    if not wanted.unlabelled:
        index.settle(labels, "label_column", label_column)
    if images.is_found:
        return TarImages(name, index, images, labels, groups, wanted)
    index.settle(texts, "text_column", text_column)
    if not texts.is_found:
        raise DatasetError(
            f"{name} holds no image ({', '.join(_IMAGE_ENDINGS)}) and no txt, but files that end "
            f"in {index.shown_endings()}. Files must be named KEY.ENDING, with no other dot; for "
            "texts name their ending with text_column=…"
        )
    return TarTexts(name, index, texts, labels, groups, wanted)


class _Column:
    """Where one kind of file of every sample lies; 17 bytes a row.

    Attributes
    ----------
    endings : tuple of str
        Endings of the file's name, lower case.
    field : str or None
        Field of the sample's ``.json`` that is read if no sample has such a file.
    is_found : bool
        Whether a sample has it.
    """

    def __init__(self, endings: Sequence[str], field: str | None = None) -> None:
        self.endings, self.field = tuple(endings), field
        self.kinds, self.offsets, self.sizes = array("b"), array("q"), array("q")
        self.is_found = False

    def add(self, sample: dict[str, Any], sample_id: str) -> None:
        found = [ending for ending in self.endings if ending in sample]
        if len(found) > 1:
            raise DatasetError(f"sample {sample_id!r} has several images ({', '.join(found)}).")
        kind, place = _NONE, Place(0, 0)
        if found:
            kind, place = _FILE, sample[found[0]]
            self.is_found = True
        elif self.field is not None and "json" in sample:
            kind, place = _JSON, sample["json"]
        self.kinds.append(kind)
        self.offsets.append(place.offset)
        self.sizes.append(place.size)


class _Index:
    """The samples of tars: their ids, and where their files lie.

    Parameters
    ----------
    paths : sequence of Path
    columns : sequence of _Column
        Are filled.
    """

    def __init__(self, paths: Sequence[Path], columns: Sequence[_Column]) -> None:
        parent = os.path.commonpath([path.absolute().parent for path in paths])
        self.ids: list[str] = []
        self.shards: list[Shard] = []
        self._endings: dict[str, None] = {}
        for path in paths:
            name = printable(Path(os.path.relpath(path, parent)).as_posix())
            first = len(self.ids)
            stat = stat_of(path)
            for sample in samples(path):
                key = printable(sample["__key__"])
                self.ids.append(key if len(paths) == 1 else f"{name}/{key}")
                if len(self._endings) < _SHOWN_ENDINGS:
                    self._endings.update(dict.fromkeys(islice(sample, 1, None)))
                for column in columns:
                    column.add(sample, self.ids[-1])
            self._refuse_torn(path, first)
            rows = len(self.ids) - first
            self.shards.append(Shard(path, name, rows, stat.st_size, stat.st_mtime_ns))
        if not self.ids:
            raise DatasetError(f"{paths[0]} holds no samples: files named KEY.ENDING.")

    def shown_endings(self) -> str:
        """Some of the endings that there are, for messages."""
        return ", ".join(list(self._endings)[:_SHOWN_ENDINGS])

    def _refuse_torn(self, path: Path, first: int) -> None:
        seen: set[str] = set()
        for sample_id in self.ids[first:]:
            if sample_id in seen:
                raise DatasetError(
                    f"the files of sample {sample_id!r} do not lie together in {path}: pack it "
                    "again with its files sorted (tar --sort=name)."
                )
            seen.add(sample_id)

    def settle(self, column: _Column, option: str, wanted: str | None) -> None:
        """Find out whether a column that is no file is a field of a ``.json``.

        Raises
        ------
        DatasetError
            If it is wanted and neither.
        """
        if column.is_found or column.field is None:
            return
        fields: dict[str, None] = {}
        # Up to the first that has it: one sample without a label must not hide those of others.
        for position, content in enumerate(self.contents(column)):
            if column.kinds[position] == _JSON:
                fields.update(dict.fromkeys(_json_object(content or b"", self.ids[position])))
            found = column_named(list(fields), column.field)
            if found is not None:
                column.field, column.is_found = found, True
                break
        if wanted is not None and not column.is_found:
            raise DatasetError(
                f"no file in {self.shards[0].path} ends in {column.endings[0]!r} ({option}), but "
                f"in {self.shown_endings()}; fields of the .json: "
                f"{', '.join(list(fields)[:_SHOWN_ENDINGS]) or 'none'}."
            )
        if column.is_found:
            column.endings = ()

    def values(self, column: _Column, option: str, start: int = 0) -> Iterator[object]:
        """Yield the texts, or what the ``.json`` fields hold; None where there is none."""
        as_json = not column.endings
        for position, content in enumerate(self.contents(column, start), start):
            kind, where = column.kinds[position], self.ids[position]
            if content is None or kind != (_JSON if as_json else _FILE):
                yield None
            elif as_json:
                yield _json_object(content, where).get(column.field or "")
            else:
                yield _text(content, where, option)

    def contents(self, column: _Column, start: int = 0) -> Iterator[bytes | None]:
        """Yield the bytes from row `start` on; None where a sample has no such file."""
        first = 0
        for shard in self.shards:
            end = first + shard.rows
            if start < end:
                with reopened(shard) as file:
                    for row in range(max(start, first), end):
                        yield self._content(file, column, row)
            first = end

    def _content(self, file: IO[bytes], column: _Column, row: int) -> bytes | None:
        if column.kinds[row] == _NONE:
            return None
        size = column.sizes[row]
        if column.endings != _IMAGE_ENDINGS and size > _MAX_TEXT_BYTES:
            raise DatasetError(
                f"a text, label or group of {self.ids[row]!r} is larger than "
                f"{_MAX_TEXT_BYTES:,} bytes: name another column."
            )
        return read_place(file, Place(column.offsets[row], size))


def _ending(column: str) -> str:
    """Ending of the files that a column means."""
    ending = column.lower().removeprefix(".")
    if ending in _PICKLES:
        raise DatasetError(
            f"{column!r} files are pickled, which can run any code when they are read: they never "
            "are. Store labels as .cls, .txt or .json."
        )
    return ending


def _text(content: bytes, where: str, option: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise DatasetError(f"a file of {where!r} is not UTF-8: convert it.") from None
    # A label's file often ends with a new line, which is not part of it.
    return text.strip() if option == "label_column" else text


def _json_object(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):  # its text quotes the file
        raise DatasetError(f"the .json of {where!r} is not valid JSON.") from None
    if not isinstance(found, dict):
        raise DatasetError(f"the .json of {where!r} must hold one JSON object.")
    return found
