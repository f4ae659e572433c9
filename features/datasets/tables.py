"""Tables read row by row: CSV, TSV, JSONL and Parquet, each in bounded memory."""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpfc._support.files import check_regular
from dpfc.features.datasets.csv_rows import csv_header, csv_rows, looks_like_names, opened
from dpfc.features.exceptions import DatasetError

__all__ = [
    "column_named",
    "json_records",
    "parquet_batches",
    "parquet_schema",
    "shown_columns",
    "table_columns",
    "table_rows",
]

_JSON_SUFFIXES = (".jsonl", ".ndjson")

_BATCH_ROWS = 256
# More are values in the place of names, and would fill the memory.
_MAX_FIELDS = 10_000
# Row groups can be large; with a buffer they are streamed.
_BUFFER_BYTES = 1 << 20


def table_columns(path: Path, *, header: bool = True) -> list[str]:
    """Names of a table's columns; of a JSONL file, the fields of all its records.

    Parameters
    ----------
    path : Path
    header : bool
        Whether the first line of a CSV or TSV names the columns; else they are 1, 2, ….

    Raises
    ------
    DatasetError
        If the file is not such a table, or names a column twice.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        names = list(parquet_schema(path)[0].names)
    elif suffix in _JSON_SUFFIXES:
        names = _json_fields(path)
    else:
        names = csv_header(path, header=header)
    if len(set(names)) < len(names):
        raise DatasetError(f"{path} names a column twice; {shown_columns(path, names)}.")
    return names


def shown_columns(path: object, names: Sequence[str]) -> str:
    """A table's columns for a message, unless they look like a row: values are never shown."""
    if not names:
        return "it has no columns at all"
    is_csv = isinstance(path, Path) and path.suffix.lower() in (".csv", ".tsv")
    numbered = [str(i + 1) for i in range(len(names))]
    if is_csv and list(names) != numbered and not looks_like_names(Path(str(path))):
        return (
            "its first line looks like values, not like names: if it has no header, say so with "
            "header=False and name columns by their number, from 1"
        )
    return f"its columns are {', '.join(names)}"


def column_named(names: Sequence[str], wanted: str) -> str | None:
    """The column of a name, or the only one that differs in capitals and blanks; None if none."""
    if wanted in names:
        return wanted
    near = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    return near[0] if len(near) == 1 else None


def table_rows(
    path: Path, columns: Sequence[str], start: int = 0, *, header: bool = True
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of some columns from row `start` on.

    Parameters
    ----------
    path : Path
        The table; its suffix says what it is.
    columns : sequence of str
        Names that `table_columns` gave. A field that a JSONL record lacks is None.
    start : int
        Rows to leave out.
    header : bool
        As for `table_columns`.

    Raises
    ------
    DatasetError
        If the file is damaged; the message names the row and nothing that it holds.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        for batch in parquet_batches(path, columns, start):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    elif suffix in _JSON_SUFFIXES:
        for record in islice(json_records(path), start, None):
            yield tuple(record.get(name) for name in columns)
    else:
        names = csv_header(path, header=header)
        places = [names.index(name) for name in columns]
        for line in islice(csv_rows(path, header=header), start, None):
            yield tuple(line[place] for place in places)


def _json_fields(path: Path) -> list[str]:
    """Fields of all records: one without a label must not hide those of the others."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    return list(_found_fields(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=256)
def _found_fields(path: Path, size: int, changed: int) -> tuple[str, ...]:
    """Once for each state of a file."""
    fields: dict[str, None] = {}
    for record in json_records(path):
        fields.update(dict.fromkeys(record))
        if len(fields) > _MAX_FIELDS:
            raise DatasetError(
                f"the records of {path} have more than {_MAX_FIELDS:,} different fields."
            )
    return tuple(fields)


def parquet_schema(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a Parquet file.

    Raises
    ------
    DatasetError
        If the file is none.
    """
    _check(path)
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except Exception as error:  # a damaged footer raises whatever it likes
        raise DatasetError(f"{path} is not a readable Parquet file.") from error


def parquet_batches(path: Path, columns: Sequence[str], start: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield the rows from position `start` on; whole row groups before it are skipped.

    Raises
    ------
    DatasetError
        If the file is damaged.
    """
    position = 0
    _check(path)
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if position + rows <= start:
                    position += rows
                    continue
                # Without Arrow's threads, as in `parquet_reading`.
                for batch in file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    skipped = min(max(start - position, 0), batch.num_rows)
                    position += batch.num_rows
                    if skipped < batch.num_rows:
                        yield batch.slice(skipped)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} cannot be read near row {position}: the file is damaged, "
            "fetch or write it again."
        ) from error


def json_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, one a line; empty lines are skipped.

    Raises
    ------
    DatasetError
        If a line is not one JSON object in UTF-8; the message names the line.
    """
    with opened(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode())
            except UnicodeDecodeError:
                raise DatasetError(f"line {number} of {path} is not UTF-8: convert it.") from None
            except (ValueError, RecursionError):  # its text quotes the line
                raise DatasetError(f"line {number} of {path} is not valid JSON.") from None
            if not isinstance(record, dict):
                raise DatasetError(f"line {number} of {path} must hold one JSON object.")
            yield record


def _check(path: Path) -> None:
    """Refuse what pyarrow, which opens files by their names, would hang on."""
    try:
        check_regular(path)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
