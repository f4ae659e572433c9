"""Tables read row by row: CSV, TSV, JSONL and Parquet, each in bounded memory."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpfc.features.exceptions import DatasetError

__all__ = ["json_records", "parquet_batches", "parquet_schema", "table_columns", "table_rows"]

_BATCH_ROWS = 256
# Row groups can be large; with a buffer they are streamed.
_BUFFER_BYTES = 1 << 20


def table_columns(path: Path) -> list[str]:
    """Names of a table's columns; of a JSONL file, the fields of its first record.

    Raises
    ------
    DatasetError
        If the file is not such a table, or names a column twice.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        names = list(parquet_schema(path)[0].names)
    elif suffix in (".jsonl", ".ndjson"):
        names = next((list(record) for record in json_records(path)), [])
    else:
        names = next(_csv_lines(path), [])
    if len(set(names)) < len(names):
        raise DatasetError(f"{path} names a column twice; its columns are {', '.join(names)}.")
    return names


def table_rows(path: Path, columns: Sequence[str], start: int = 0) -> Iterator[tuple[Any, ...]]:
    """Yield the values of some columns from row `start` on.

    Parameters
    ----------
    path : Path
        The table; its suffix says what it is.
    columns : sequence of str
        Names that `table_columns` gave. A field that a JSONL record lacks is None.
    start : int
        Rows to leave out.

    Raises
    ------
    DatasetError
        If the file is damaged; the message names the row and nothing that it holds.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        for batch in parquet_batches(path, columns, start):
            yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    elif suffix in (".jsonl", ".ndjson"):
        for record in islice(json_records(path), start, None):
            yield tuple(record.get(name) for name in columns)
    else:
        lines = _csv_lines(path)
        header = next(lines, [])
        places = [header.index(name) for name in columns]
        for line in islice(lines, start, None):
            yield tuple(line[place] for place in places)


def parquet_schema(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a Parquet file.

    Raises
    ------
    DatasetError
        If the file is none.
    """
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
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if position + rows <= start:
                    position += rows
                    continue
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
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
    with _opened(path, "rb") as file:
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


def _csv_lines(path: Path) -> Iterator[list[str]]:
    """Yield header and rows, all of the header's width; empty lines are skipped."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    row, width = -1, None
    with _opened(path, "r", encoding="utf-8-sig", newline="") as file:
        try:
            for line in csv.reader(file, delimiter=delimiter, strict=True):
                if not line:
                    continue
                width = width or len(line)
                if len(line) != width:
                    raise DatasetError(
                        f"row {row} of {path} has {len(line)} fields, the header {width}: "
                        "quote texts that hold the delimiter."
                    )
                yield line
                row += 1
        except UnicodeDecodeError:
            raise DatasetError(
                f"{path} is not UTF-8 at or after row {max(row, 0)}: convert it."
            ) from None
        except csv.Error as error:
            raise DatasetError(
                f"{path} is not well-formed after row {row} ({error}): look for a quote that is "
                "not closed."
            ) from None


def _opened(path: Path, mode: str, **options: Any) -> Any:
    try:
        return path.open(mode, **options)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
