"""Texts and labels from tables: CSV, TSV, JSONL and Parquet."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import pyarrow as pa

from dpfc.features._labels import read_labels
from dpfc.features._tables import parquet_schema, table_columns, table_rows
from dpfc.features.datasets import TextDataset, TextItem, fingerprint_of_files, row_id
from dpfc.features.exceptions import DatasetError

__all__ = ["TEXT_COLUMNS", "TextFiles", "choose_column"]

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
    text_column, label_column : str, optional
        Columns; by default ``text`` or ``sentence``, and ``label`` if there is one.
    class_names : list of str, optional
        The public list of class names. Without it, labels that are strings are named by the
        labels themselves, which is a look at private data; see `open_dataset`.

    Raises
    ------
    DatasetError
        If a file is damaged, lacks a column, or a label is missing or outside the classes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        name: str,
        text_column: str | None = None,
        label_column: str | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.name = name
        self._paths = list(paths)
        columns = table_columns(self._paths[0])
        text = choose_column(self._paths[0], columns, "text_column", text_column, TEXT_COLUMNS)
        if text is None:
            raise DatasetError(
                f"{self._paths[0]} has no column {' or '.join(map(repr, TEXT_COLUMNS))}; its "
                f"columns are {', '.join(columns)}. Name the one with the texts: text_column=…"
            )
        label = choose_column(self._paths[0], columns, "label_column", label_column, ("label",))
        self.has_labels = label is not None
        self._columns = [text] if label is None else [text, label]
        for path in self._paths:
            self._check(path, text)
        counts: list[int] = []
        values = chain.from_iterable(self._counted(path, counts) for path in self._paths)
        self.class_names: list[str] | None = None
        if self.has_labels:
            labels = read_labels(values, name, class_names)
            self._labels = labels.codes
            self.class_names = labels.class_names
            self.class_names_from_labels = labels.from_labels
        elif class_names is not None:
            raise DatasetError(f"{name} has no labels for class_names: name the label_column.")
        else:
            for _ in values:
                pass
        self._rows = counts
        if len(self) == 0:
            raise DatasetError(f"{self._paths[0]} holds no rows.")

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int = 0) -> Iterator[TextItem]:
        """Yield the rows from position `start` on."""
        first = 0
        for path, rows in zip(self._paths, self._rows, strict=True):
            skipped = min(max(start - first, 0), rows)
            texts = table_rows(path, self._columns[:1], skipped) if skipped < rows else ()
            for position, (text,) in enumerate(texts, first + skipped):
                if position >= first + rows:
                    raise DatasetError(f"{path} grew while it was read: run again.")
                label = int(self._labels[position]) if self.has_labels else None
                text = text if isinstance(text, str) else None
                yield TextItem(text, label, row_id(position))
            first += rows

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and contents, and of the columns' names."""
        names = [path.name for path in self._paths]
        return fingerprint_of_files("texts in tables", self._paths, names, self._columns)

    def _check(self, path: Path, text: str) -> None:
        missing = [name for name in self._columns if name not in table_columns(path)]
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

    def _counted(self, path: Path, counts: list[int]) -> Iterator[object]:
        """The last column's values; their number goes to `counts`."""
        rows = 0
        for (value,) in table_rows(path, self._columns[-1:]):
            rows += 1
            yield value
        counts.append(rows)


def choose_column(
    source: object, columns: Sequence[str], option: str, wanted: str | None, usual: Sequence[str]
) -> str | None:
    """The wanted column, or the first of the usual ones, or None.

    Raises
    ------
    DatasetError
        If a wanted column is missing; the message lists those that exist.
    """
    if wanted is None:
        return next((name for name in usual if name in columns), None)
    if wanted not in columns:
        raise DatasetError(
            f"{source} has no column {wanted!r} ({option}); its columns are {', '.join(columns)}."
        )
    return wanted
