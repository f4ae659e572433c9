"""CSV and TSV files row by row: which separator and quotes they have, and what stands in them."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from dpfc._support.files import open_regular
from dpfc.features.exceptions import DatasetError

__all__ = ["csv_header", "csv_rows", "looks_like_names", "opened"]

# A longer text is something else: a quote that is never closed takes the rest of its file.
_MAX_FIELD = 16 << 20
_SEPARATORS = (",", ";", "\t", "|")
_HEAD_BYTES = 1 << 20
# Rows that are compared with the first line.
_COMPARED_ROWS = 1000
# What people call columns: starts with a letter, short, few words.
_NAME = re.compile(r"[^\W\d_][\w./#%()-]*(?: [\w./#%()-]+){0,2}|_\w+")
_LONGEST_NAME = 40

# The limit of the module, for all readers of the process; only ever raised.
csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD))


@dataclass(frozen=True)
class _Dialect:
    """How a file separates its fields.

    Attributes
    ----------
    separator : str
    by_line : bool
        Whether every line is a row, so that a quote inside a field is a letter like others.
    skip_blanks : bool
        Whether a blank follows each separator.
    """

    separator: str
    by_line: bool
    skip_blanks: bool


def csv_header(path: Path, *, header: bool = True) -> list[str]:
    """Names of the columns, without blanks around them; their numbers from 1 without a header.

    Raises
    ------
    DatasetError
        If the file cannot be read.
    """
    first = next(csv_rows(path, header=False), [])
    return [name.strip() for name in first] if header else [str(i + 1) for i in range(len(first))]


def csv_rows(path: Path, *, header: bool = True) -> Iterator[list[str]]:
    """Yield the rows, all of the first line's width; empty lines are skipped.

    The separator is a comma (.csv) or a tab (.tsv), or another that the first line holds where it
    holds none of these. In a file with tabs in which every line has as many fields as the first,
    quotes need not be closed.

    Raises
    ------
    DatasetError
        If the file is damaged; the message names the row and nothing that it holds.
    """
    dialect = _dialect(path)
    row, width = (-1 if header else 0), None
    with opened(path, "r", encoding="utf-8-sig", newline="\n" if dialect.by_line else "") as file:
        try:
            for line in _lines(file, dialect):
                if not line:
                    continue
                width = width or len(line)
                if len(line) != width:
                    raise DatasetError(
                        f"row {row} of {path} has {len(line)} fields, the "
                        f"{'header' if header else 'first row'} {width}: "
                        "quote texts that hold the delimiter."
                    )
                if row >= 0:
                    yield line
                row += 1
        except UnicodeDecodeError:
            raise DatasetError(
                f"{path} is not UTF-8 at or after row {max(row, 0)}: convert it."
            ) from None
        except csv.Error as error:
            _refuse(path, row, error)


def looks_like_names(path: Path) -> bool:
    """Whether the first line holds names of columns; else it may be a row, which is private.

    A name is short, starts with a letter, and does not stand in its column again.
    """
    rows = csv_rows(path, header=False)
    try:
        first = [name.strip() for name in next(rows, [])]
        if not all(_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME for name in first):
            return False
        for row in islice(rows, _COMPARED_ROWS):
            if any(a == b.strip() for a, b in zip(first, row, strict=True)):
                return False
    except DatasetError:
        return False
    return True


def _refuse(path: Path, row: int, error: csv.Error) -> NoReturn:
    where = f"{path} is not well-formed after row {row}"
    if "field larger" in str(error):
        raise DatasetError(
            f"{where}: a field is longer than {_MAX_FIELD:,} characters, so a quote may not be "
            "closed."
        ) from None
    raise DatasetError(
        f"{where} ({error}): look for a quote that is not closed, or for one inside a text that "
        "must be doubled."
    ) from None


def _dialect(path: Path) -> _Dialect:
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    return _found_dialect(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _found_dialect(path: Path, size: int, changed: int) -> _Dialect:
    """Read off the first line, and for tabs off all lines; once for each state of a file."""
    own = "\t" if path.suffix.lower() == ".tsv" else ","
    with opened(path, "rb") as file:
        head = (line for line in iter(lambda: file.readline(_HEAD_BYTES), b"") if line.strip())
        first = next(head, b"").removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    separator = own
    if own not in first:
        separator = max(_SEPARATORS, key=lambda mark: (first.count(mark), mark == own))
    skip_blanks = f"{separator} " in first
    return _Dialect(separator, separator == "\t" and _each_line_is_a_row(path), skip_blanks)


def _each_line_is_a_row(path: Path) -> bool:
    """Whether all lines have as many tabs as the first: then no quoted field holds a new line."""
    with opened(path, "rb") as file:
        counts = (line.count(b"\t") for line in file if line.strip(b"\r\n"))
        first = next(counts, 0)
        return first > 0 and all(count == first for count in counts)


def _lines(file: Any, dialect: _Dialect) -> Iterator[list[str]]:
    if dialect.by_line:
        for line in file:
            text = line.rstrip("\r\n")
            yield [_unquoted(field) for field in text.split("\t")] if text else []
        return
    yield from csv.reader(
        file, delimiter=dialect.separator, strict=True, skipinitialspace=dialect.skip_blanks
    )


def _unquoted(field: str) -> str:
    """A field without its quotes, if they stand around it as CSV wants it."""
    inner = field[1:-1]
    is_quoted = (
        len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    )
    return inner.replace('""', '"') if is_quoted else field


def opened(path: Path, mode: str, **options: Any) -> Any:
    """Open a regular file, ``rb`` or ``r``.

    Raises
    ------
    DatasetError
        If it cannot be opened.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    return file if mode == "rb" else io.TextIOWrapper(file, **options)
