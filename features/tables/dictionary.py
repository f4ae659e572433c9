"""A schema from a data dictionary: a table with one line a column."""

from __future__ import annotations

import re
from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from dpfc._support.files import sha256_of_file
from dpfc._support.suggestions import did_you_mean
from dpfc._support.words import counted, shown
from dpfc.features.datasets.base import printable
from dpfc.features.datasets.tables import table_columns, table_rows
from dpfc.features.exceptions import DatasetError
from dpfc.features.tables.schema import TableSchema
from dpfc.features.tables.values import is_missing

__all__ = ["roles_of", "schema_from_dictionary"]

# What people call a dictionary's columns; ours first.
_HEADERS = {
    "name": ("variable", "column", "field", "variable name", "column name", "field name"),
    "type": ("kind", "data type", "datatype", "format type"),
    "role": (),
    "min": ("minimum", "lower", "lower bound"),
    "max": ("maximum", "upper", "upper bound"),
    "values": ("categories", "levels", "codes", "choices", "allowed values", "valid values"),
    "missing": ("missing value",),
    "unit": ("units",),
    "scale": (),
    "knots": (),
    "parts": (),
    "format": ("date format",),
    "unlisted": (),
}
_TYPES = {
    "number": ("numeric", "integer", "int", "float", "double", "decimal", "real", "continuous"),
    "category": ("categorical", "factor", "nominal", "ordinal", "enum", "string", "text", "char"),
    "boolean": ("bool", "logical", "binary", "yes/no", "flag"),
    "date": ("datetime", "timestamp", "day"),
}
_LISTS = ("values", "parts")
_ROLES = ("label", "group", "id", "ignore")


def schema_from_dictionary(
    path: str | PathLike[str],
    *,
    label_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    ignore: Collection[str] = (),
) -> TableSchema:
    """Read a data dictionary: a CSV (or TSV, JSONL, Parquet) with one line a column.

    Its own columns are called name, type, role, min, max, values, missing, unit, scale, knots,
    parts, format and unlisted, or a usual synonym; others, such as a description, are passed
    over. Values stand behind one another with ``|`` or ``;`` between them.

    Parameters
    ----------
    path : path
    label_column, group_column, id_column : str, optional
        Columns with these roles, where the dictionary does not say so.
    ignore : collection of str
        Columns to leave out.

    Raises
    ------
    DatasetError
        If the file cannot be read, or lacks the names or types.
    ValueError
        If a line is no column's; the message names the column and the key.
    """
    file = Path(path)
    keys = _keys(file)
    columns: dict[str, dict[str, Any]] = {}
    for number, cells in enumerate(table_rows(file, list(keys.values())), 1):
        column = {
            key: str(cell).strip()
            for key, cell in zip(keys, cells, strict=True)
            if not is_missing(cell, ("",))
        }
        name = column.pop("name", None)
        if name is None or name in columns:
            what = (
                "names no column" if name is None else f"names {name!r}, as a line before it does"
            )
            raise DatasetError(f"line {number} below the header of {file} {what}.")
        columns[name] = _column(column)
    roles = roles_of(
        columns, str(file), label=label_column, group=group_column, id=id_column, ignore=ignore
    )
    for name, role in roles.items():
        kept = {"values"} if role == "label" else set()
        columns[name] = {
            "role": role,
            **{key: columns[name][key] for key in kept & set(columns[name])},
        }
    lines = counted(len(columns), "column")
    source = f"data dictionary {printable(file.name)}, {lines}, SHA-256 {sha256_of_file(file)}"
    return TableSchema.from_dict({"columns": columns, "source": source}, shown(str(file)))


def roles_of(
    names: Collection[str], where: str, *, ignore: Collection[str], **named: str | None
) -> dict[str, str]:
    """The roles that a caller gives to columns, by their names.

    Raises
    ------
    DatasetError
        If there is no such column.
    """
    roles = dict.fromkeys(ignore, "ignore")
    roles |= {name: role for role, name in named.items() if name is not None}
    for name in roles:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DatasetError(f"{where} has no column {name!r}; it has {', '.join(names)}.{hint}")
    return roles


def _keys(file: Path) -> dict[str, str]:
    """The dictionary's own columns, by what they say."""
    found: dict[str, str] = {}
    for header in table_columns(file):
        plain = header.strip().casefold().replace("_", " ")
        for key, others in _HEADERS.items():
            if plain == key or plain in others:
                if key in found:
                    raise DatasetError(
                        f"{file} has columns {found[key]!r} and {header!r} for the {key}: remove "
                        "one."
                    )
                found[key] = header
    if "name" not in found or not found.keys() & {"type", "role"}:
        raise DatasetError(
            f"{file} is no data dictionary: it needs columns name and type, and for numbers min "
            "and max, for categories values."
        )
    return found


def _column(said: dict[str, str]) -> dict[str, Any]:
    """A line in a schema's words; what is wrong with it the schema says."""
    column: dict[str, Any] = dict(said)
    for key in _LISTS:
        if key in column:
            parts = re.split(r"\|" if "|" in said[key] else ";", said[key])
            column[key] = [part.strip() for part in parts]
    kind = said.get("type", "").casefold()
    column["type"] = next((ours for ours, others in _TYPES.items() if kind in others), kind)
    role = said.get("role", kind).casefold()
    if role in _ROLES:
        kept = {"values": column["values"]} if role == "label" and "values" in column else {}
        return {"role": role, **kept}
    column.pop("role", None)
    return column
