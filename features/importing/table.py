"""Features from tables of mixed columns, by a public schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dpfc.features.datasets.tables import shown_columns, table_columns, table_rows
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.rows import BLOCK_ROWS, Columns, Rows, place_in
from dpfc.features.tables.blocks import blocks_of
from dpfc.features.tables.columns import check_columns, encode_columns
from dpfc.features.tables.schema import TableSchema
from dpfc.features.tables.values import comparable, is_missing

__all__ = ["TABLE_SPEC", "TableFile"]

# In the place of a backbone's spec, where features are a table's columns.
TABLE_SPEC = "table"


class TableFile:
    """A table's rows as features: CSV, TSV, Parquet or JSONL.

    Label and id stand in the columns that have these roles, where the table has them; a group it
    must have.

    Attributes
    ----------
    taken : list of str
        Names of the features.
    facts : list of int
        For each feature a number, equal where only several together say what stands in a column.

    Raises
    ------
    DatasetError
        If the file is no table, lacks a column or has one of which the schema does not know.
    """

    keeps_order = True

    def __init__(self, path: Path, schema: TableSchema, columns: Columns = Columns()) -> None:
        self.path = path
        names = table_columns(path)
        if not set(names) & set(schema.columns):  # perhaps a row, not names
            raise DatasetError(
                f"{path} has none of the schema's columns; {shown_columns(path, names)}."
            )
        group = None if columns.groups_apart else schema.with_role("group")
        # Without their groups, rows would be protected one by one.
        check_columns(names, schema, str(path), [] if group is None else [group])
        label, self._id = (
            name if name in names else None for name in map(schema.with_role, ("label", "id"))
        )
        self._label = None if columns.labels_apart else label
        self._group = group
        self._schema = schema
        self._blocks = blocks_of(schema)
        self.taken = [name for block in self._blocks.values() for name in block.names]
        self.facts: list[int] = []
        for block in self._blocks.values():
            first = max(self.facts, default=-1) + 1
            self.facts += [first + fact for fact in block.facts()]
        self.has_labels = self._label is not None
        self.has_ids = self._id is not None
        self.has_groups = self._group is not None
        named = schema.class_names if self.has_labels else None
        self.class_names = None if named is None else list(named)

    def rows(self) -> Iterator[Rows]:
        """Read blocks of rows."""
        roles = (self._label, self._id, self._group)
        others = [name for name in roles if name is not None]
        names = [*self._blocks, *others]
        start, rows = 0, table_rows(self.path, names)
        while block := list(islice(rows, BLOCK_ROWS)):
            place = place_in("row", start, self.path)
            columns = dict(zip(names, zip(*block, strict=True), strict=True))
            X = encode_columns(columns, self._blocks, place)
            labels = None if self._label is None else self._labels(columns[self._label])
            ids = None if self._id is None else columns[self._id]
            groups = None if self._group is None else self._present(columns[self._group])
            yield Rows(place, X, ids, labels, groups)
            start += len(block)

    def _present(self, values: Sequence[Any]) -> list[object]:
        """None in the place of words for a missing value."""
        words = self._schema.missing_values
        return [None if is_missing(value, words) else value for value in values]

    def _labels(self, values: Sequence[Any]) -> list[object]:
        """As the schema writes them, where 1.0 is 1 and True true; None where there is none."""
        listed = {comparable(name): name for name in self.class_names or ()}
        words = self._schema.missing_values
        return [
            None
            if comparable(value) not in listed and is_missing(value, words)
            # What is no plain value is refused by the reader of labels.
            else listed.get(comparable(value), comparable(value))
            if isinstance(value, str | int | float)
            else value
            for value in values
        ]
