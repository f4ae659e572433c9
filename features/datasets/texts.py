"""Texts and labels from tables: CSV, TSV, JSONL and Parquet."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import pyarrow as pa

from dpfc.features.datasets.base import (
    TextDataset,
    TextItem,
    Wanted,
    fingerprint_of_files,
    row_id,
)
from dpfc.features.datasets.groups import read_groups
from dpfc.features.datasets.labels import read_labels
from dpfc.features.datasets.tables import (
    column_named,
    parquet_schema,
    shown_columns,
    table_columns,
    table_rows,
)
from dpfc.features.exceptions import DatasetError

__all__ = ["TEXT_COLUMNS", "GivenTexts", "TextFiles", "choose_column"]

TEXT_COLUMNS = ("text", "sentence")


class TextFiles(TextDataset):
    """Rows of one or several tables, in the files' order.

    Opening reads all labels once, which also counts the rows; texts are read lazily. A null
    text is refused when its row is decoded.

    Parameters
    ----------
    paths : sequence of Path
        Tables of one kind with the same columns.
    name : str
        Short name for people.
    wanted : Wanted
        Columns; by default ``text`` or ``sentence``, and ``label`` if there is one; groups only
        where their column is named. Without
        class names, labels that are strings are named by the labels themselves, which is a look
        at private data; see `open_dataset`.

    Raises
    ------
    DatasetError
        If a file is damaged, lacks a column, a label is missing or outside the classes, or a
        group is missing.
    """

    def __init__(self, paths: Sequence[Path], name: str, wanted: Wanted) -> None:
        wanted.refuse_group_file("a table")
        self.name = name
        self._paths, self._header = list(paths), wanted.header
        first = self._paths[0]
        if not wanted.header and first.suffix.lower() not in (".csv", ".tsv"):
            raise DatasetError(f"header=False is for .csv and .tsv, not for {first}.")
        self.columns = table_columns(first, header=wanted.header)
        text = choose_column(first, self.columns, "text_column", wanted.text_column, TEXT_COLUMNS)
        if text is None:
            raise self._without_texts(first)
        label = None
        if not wanted.unlabelled:
            label = choose_column(
                first, self.columns, "label_column", wanted.label_column, ("label",)
            )
        self._columns = [text] if label is None else [text, label]
        group = choose_column(first, self.columns, "group_column", wanted.group_column, ())
        self._others = [] if group is None else [group]
        for path in self._paths:
            self._check(path, text)
        counts: list[int] = []
        values = chain.from_iterable(self._counted(path, counts) for path in self._paths)
        self.has_labels = label is not None
        self.class_names: list[str] | None = None
        if self.has_labels:
            labels = read_labels(values, name, wanted.class_names, skip_missing=wanted.skip_missing)
            self._labels = labels.codes
            self.class_names = labels.class_names
            self.class_names_from_labels = labels.from_labels
        elif wanted.class_names is not None:
            raise DatasetError(f"{name} has no labels for class_names: name the label_column.")
        else:
            deque(values, maxlen=0)
        self._rows = counts
        if len(self) == 0:
            raise DatasetError(f"{first} holds no rows.")
        if group is not None:
            persons = chain.from_iterable(self._values(path, group) for path in self._paths)
            self._groups = read_groups(persons, name)
            if len(self._groups.codes) != len(self):
                raise DatasetError(f"{first}, or a file beside it, changed: run again.")

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on."""
        first = 0
        for path, rows in zip(self._paths, self._rows, strict=True):
            skipped = min(max(start - first, 0), rows)
            texts = self._values(path, self._columns[0], skipped) if skipped < rows else ()
            for position, text in enumerate(texts, first + skipped):
                if position >= first + rows:
                    raise DatasetError(f"{path} grew while it was read: run again.")
                text = text if isinstance(text, str) else None
                yield TextItem(text, self._label(position), row_id(position), self._group(position))
            first += rows

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and contents, and of the columns' names."""
        names = [path.name for path in self._paths]
        columns = [*self._columns, *self._others]
        return fingerprint_of_files("texts in tables", self._paths, names, columns)

    def _check(self, path: Path, text: str) -> None:
        columns = table_columns(path, header=self._header)
        missing = [name for name in (*self._columns, *self._others) if name not in columns]
        if missing:
            raise DatasetError(
                f"{path} has no column {missing[0]!r}, which the files beside it have."
            )
        if path.suffix.lower() != ".parquet":
            return
        kind = parquet_schema(path)[0].field(text).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DatasetError(f"column {text!r} of {path} must hold strings, got {kind}.")

    def _without_texts(self, path: Path) -> DatasetError:
        return DatasetError(
            f"{path} has no column {' or '.join(map(repr, TEXT_COLUMNS))}; "
            f"{shown_columns(path, self.columns)}. Name the one with the "
            "texts: text_column=…"
        )

    def _values(self, path: Path, column: str, start: int = 0) -> Iterator[object]:
        for (value,) in table_rows(path, [column], start, header=self._header):
            yield value

    def _counted(self, path: Path, counts: list[int]) -> Iterator[object]:
        """The last column's values; their number goes to `counts`."""
        rows = 0
        for value in self._values(path, self._columns[-1]):
            rows += 1
            yield value
        counts.append(rows)


class GivenTexts(TextDataset):
    """Texts without labels that the caller holds.

    Parameters
    ----------
    texts : sequence of str
    """

    name = "texts"
    class_names = None
    has_labels = False

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on."""
        for position, text in enumerate(self._texts[start:], start):
            yield TextItem(text, None, row_id(position))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the texts."""
        content = repr(("given texts", self._texts)).encode("utf-8", "backslashreplace")
        return hashlib.sha256(content).hexdigest()


def choose_column(
    source: object, columns: Sequence[str], option: str, wanted: str | None, usual: Sequence[str]
) -> str | None:
    """The wanted column, or the first of the usual ones, or None; capitals do not matter.

    Raises
    ------
    DatasetError
        If a wanted column is missing; the message lists those that exist.
    """
    if wanted is None:
        found = (column_named(columns, name) for name in usual)
        return next((name for name in found if name is not None), None)
    column = column_named(columns, wanted)
    if column is None:
        raise DatasetError(
            f"{source} has no column {wanted!r} ({option}); {shown_columns(source, columns)}."
        )
    return column
