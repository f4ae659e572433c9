"""A table that says whose each file of a folder is."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dpfc.features.datasets.base import TABLE_SUFFIXES, refuse_irregular, row_id
from dpfc.features.datasets.groups import Groups, read_groups
from dpfc.features.datasets.tables import column_named, table_columns, table_rows
from dpfc.features.exceptions import DatasetError

__all__ = ["groups_of_files", "named_column"]

# As the library ``datasets`` calls it beside images, or as it stands in a cache.
_FILE_COLUMNS = ("file_name", "file", "id")


def groups_of_files(table: Path, column: str | None, files: Sequence[str]) -> Groups:
    """The groups of a folder's files, by their paths relative to it.

    Parameters
    ----------
    table : Path
        With a column ``file_name``, ``file`` or ``id``, and one of groups. Rows of files that are
        not in the folder are left aside.
    column : str or None
        The column of the groups; by default ``group``.
    files : sequence of str
        The paths.

    Raises
    ------
    DatasetError
        If the table cannot be read, lacks a column, names a file twice, or not at all.
    """
    refuse_irregular(table)
    if not table.is_file() or table.suffix.lower() not in TABLE_SUFFIXES:
        raise DatasetError(
            f"groups={str(table)!r} must be a table ({', '.join(TABLE_SUFFIXES)}) with a column "
            "file_name and a column group."
        )
    names = table_columns(table)
    group = named_column(table, names, (column or "group",), "group_column")
    file = named_column(table, names, _FILE_COLUMNS, "groups")
    wanted = set(files)
    found: dict[str, object] = {}
    for row, (name, value) in enumerate(table_rows(table, [file, group])):
        path = str(name).strip()
        if path in found:
            raise DatasetError(f"{row_id(row)} of {table} names a file that stands there before.")
        if path in wanted:
            found[path] = value

    def values() -> Iterator[object]:
        for path in files:
            yield found.get(path)

    return read_groups(values(), str(table), _quoted(files))


def named_column(table: Path, names: Sequence[str], usual: Sequence[str], option: str) -> str:
    """The first of some columns that a table has.

    Raises
    ------
    DatasetError
        If it has none; which others there are is not said: without a header they may be values.
    """
    for name in usual:
        found = column_named(names, name)
        if found is not None:
            return found
    raise DatasetError(
        f"the first line of {table} names no column {' or '.join(map(repr, usual))} ({option}): "
        "write a header, such as file_name,group."
    )


def _quoted(files: Sequence[str]) -> Callable[[int], str]:
    return lambda row: f"the line for {files[row]!r}"
