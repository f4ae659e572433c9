"""Labels, or groups, that stand in a file of their own, and how they find their rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import open_text
from dpfc.features.datasets.base import TABLE_SUFFIXES, row_id
from dpfc.features.datasets.groups import Groups, read_groups
from dpfc.features.datasets.labels import Labels, read_labels
from dpfc.features.datasets.tables import column_named, table_columns, table_rows
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.arrays import check_column, open_npy
from dpfc.features.importing.jsonl import RECORD_IDS
from dpfc.features.importing.rows import Columns, IdDigests, id_text

__all__ = ["LABEL_SUFFIXES", "SideFile", "read_group_file", "read_label_file"]

LABEL_SUFFIXES = (".npy", ".txt", *TABLE_SUFFIXES)
_CHUNK_ROWS = 4096
_SEPARATORS = "\t;,|"
_COMPARED_LINES = 1000

Values = TypeVar("Values", Labels, Groups)
# Reads values, with a function that names the row at a position.
Take = Callable[[Iterable[object], Callable[[int], str]], Values]


@dataclass(frozen=True)
class SideFile(Generic[Values]):
    """Labels or groups, and the digests of the ids beside them.

    Attributes
    ----------
    path : Path
    what : {"label", "group"}
    values : Labels or Groups
    digests : IdDigests or None
        None where the file holds values alone: they then belong to the rows in their order.
    """

    path: Path
    what: Literal["label", "group"]
    values: Values
    digests: IdDigests | None

    def by_id(self, rows: NDArray[np.bytes_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Find the code of each row by its id.

        Parameters
        ----------
        rows : ndarray of shape (n,)
            Digests of the rows' ids.

        Returns
        -------
        codes : ndarray of int32, shape (n,)
            In the rows' order; -1 for a row that the file does not name, or has no label for.
        unused : ndarray of int64
            Positions of values that no row has.

        Raises
        ------
        ValueError
            If the file holds values alone.
        """
        if self.digests is None:
            raise ValueError(f"the {self.what}s have no ids.")
        mine = self.digests.to_array()
        codes = np.full(len(rows), -1, dtype=np.int32)
        unused = np.ones(len(mine), dtype=bool)
        if len(mine):
            order = np.argsort(mine)
            nearest = np.searchsorted(mine, rows, sorter=order)
            found = order[np.minimum(nearest, len(mine) - 1)]
            known = mine[found] == rows
            codes[known] = self.values.codes[found[known]]
            unused[found[known]] = False
        return codes, np.flatnonzero(unused)


def read_label_file(
    path: Path, columns: Columns, class_names: list[str] | None, *, skip_missing: bool = False
) -> SideFile[Labels]:
    """Read a file of labels: ``.npy``, ``.txt`` with one a line, or a table.

    A table with ids beside the labels (``id``, or one of `RECORD_IDS`) is matched by them. With
    `skip_missing`, a missing label becomes -1.

    Raises
    ------
    DatasetError
        If the file cannot be read, lacks such a column, or names an id twice.
    """

    def take(values: Iterable[object], describe: Callable[[int], str]) -> Labels:
        return read_labels(values, str(path), class_names, describe, skip_missing=skip_missing)

    return _read(path, "label", columns.label, columns.id, take)


def read_group_file(path: Path, columns: Columns) -> SideFile[Groups]:
    """Read a file of groups, of the same kinds as one of labels.

    Raises
    ------
    DatasetError
        As `read_label_file`, and if a group is missing.
    """

    def take(values: Iterable[object], describe: Callable[[int], str]) -> Groups:
        return read_groups(values, str(path), describe)

    return _read(path, "group", columns.group, columns.id, take)


def _read(
    path: Path,
    what: Literal["label", "group"],
    wanted: str | None,
    id_column: str | None,
    take: Take[Values],
) -> SideFile[Values]:
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        raise DatasetError(
            f"{path} is of no kind that is read as {what}s: {', '.join(LABEL_SUFFIXES)}."
        )
    if suffix in TABLE_SUFFIXES:
        return _read_table(path, what, wanted, id_column, take)
    if wanted is not None:
        raise DatasetError(f"{path} has no column {wanted!r} ({what}_column): it is no table.")
    values = _array_values(path) if suffix == ".npy" else _lines(path, what)
    describe = row_id if suffix == ".npy" else lambda row: f"line {row + 1}"
    return SideFile(path, what, take(values, describe), None)


def _read_table(
    path: Path,
    what: Literal["label", "group"],
    wanted: str | None,
    id_column: str | None,
    take: Take[Values],
) -> SideFile[Values]:
    names = table_columns(path)
    column = column_named(names, wanted or what)
    if column is None and wanted is None and len(names) == 1:
        column = names[0]
    if column is None:
        # Not which columns there are: without a header they would be values.
        raise DatasetError(
            f"the first line of {path} names no column {wanted or what!r}: write a header, such as "
            f"id,{what}, or name the column of the {what}s with {what}_column."
        )
    ids = [column_named(names, name) for name in (id_column, *RECORD_IDS) if name is not None]
    usual: list[str] = [name for name in ids if name is not None and name != column]
    digests = IdDigests() if usual else None

    def values() -> Iterator[object]:
        for row, line in enumerate(table_rows(path, [column, *usual[:1]])):
            if digests is not None:
                digests.add(id_text(line[1], lambda row: f"{row_id(row)} of {path}", row))
            yield line[0]

    taken = take(values(), row_id)
    repeated = None if digests is None else digests.first_repeated()
    if repeated is not None:
        raise DatasetError(
            f"{row_id(repeated)} of {path} has an id in column {usual[0]!r} that stands there "
            f"before: each may have one {what}."
        )
    return SideFile(path, what, taken, digests)


def _array_values(path: Path) -> Iterator[object]:
    array = open_npy(path)
    check_column(str(path), array.shape, array.dtype)
    for start in range(0, len(array), _CHUNK_ROWS):
        yield from array[start : start + _CHUNK_ROWS].tolist()


def _lines(path: Path, what: str) -> Iterator[str]:
    """One value a line; a table by another name is refused."""
    counts: set[tuple[int, ...]] = set()
    rows = 0
    try:
        with open_text(path, encoding="utf-8-sig") as file:
            for line in file:
                # Of the first lines, how often each holds each mark that could separate columns.
                if rows < _COMPARED_LINES:
                    counts.add(tuple(line.count(mark) for mark in _SEPARATORS))
                rows += 1
                yield line.rstrip("\n")
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not UTF-8: convert it.") from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    same = [column for column in zip(*counts, strict=True) if len(set(column)) == 1]
    if rows > 1 and any(column[0] for column in same):
        raise DatasetError(
            f"{path} should hold one {what} a line, but each line holds a separator, as in a "
            f"table: name it .csv or .tsv, with a header such as id,{what}."
        )
