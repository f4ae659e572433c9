"""Features from Parquet files: a column of lists, or many columns of numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dpfc.features.datasets.parquet import stated_class_names
from dpfc.features.datasets.tables import parquet_batches, parquet_schema, table_columns
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.leaks import index_columns, refuse_suspects
from dpfc.features.importing.rows import Columns, Rows, chosen_column, place_in

__all__ = ["ParquetFeatures"]

_FEATURES = {"features", "embeddings", "embedding", "vector", "vectors", "values"}


class ParquetFeatures:
    """Features, and labels, ids and groups where they are, in a Parquet file.

    The features stand in one column of lists, of fixed or variable size, or in several columns of
    numbers whose names share a beginning (``features_column="f*"``), in the file's order; the
    label, the id, the group and the index of a data frame are none of them. Class names come from
    the ``huggingface`` metadata.

    Attributes
    ----------
    taken : list of str or None
        The columns of numbers, where the caller wrote a star.

    Raises
    ------
    DatasetError
        If the file is none, or lacks such columns.
    """

    keeps_order = True

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        names = table_columns(path)
        schema, rows = parquet_schema(path)
        if rows == 0:
            raise DatasetError(f"{path} holds no rows.")
        self._label = None
        if not columns.labels_apart:
            self._label = chosen_column(
                path, "column", names, "label_column", columns.label, {"label"}
            )
        self._id = chosen_column(path, "column", names, "id_column", columns.id, {"id"})
        wanted = columns.group_beside
        self._group = chosen_column(path, "column", names, "group_column", wanted, set())
        self.taken: list[str] | None = None
        if columns.features is not None and columns.features.endswith("*"):
            self._features = self.taken = self._starred(schema, columns)
        else:
            self._features = self._choose_features(schema, columns)
        self.has_labels = self._label is not None
        self.has_ids = self._id is not None
        self.has_groups = self._group is not None
        self.class_names = None if self._label is None else stated_class_names(schema, self._label)

    def rows(self) -> Iterator[Rows]:
        """Read blocks of rows."""
        # Each once: the id may be the group.
        named = dict.fromkeys([*self._features, self._label, self._id, self._group])
        start = 0
        for batch in parquet_batches(self.path, [name for name in named if name]):
            place = place_in("row", start, self.path)
            columns = [batch.column(name) for name in self._features]
            X = self._vectors(columns[0], start) if _is_list(columns[0].type) else None
            if X is None:
                X = np.column_stack([self._numbers(column, start) for column in columns])
            labels = batch.column(self._label).to_pylist() if self._label else None
            ids = batch.column(self._id).to_pylist() if self._id else None
            groups = batch.column(self._group).to_pylist() if self._group else None
            yield Rows(place, X, ids, labels, groups)
            start += batch.num_rows

    def _starred(self, schema: pa.Schema, columns: Columns) -> list[str]:
        """Columns of numbers that start as wanted and are features."""
        start = (columns.features or "")[:-1]
        unknown = [name for name in columns.drop if name not in schema.names]
        if unknown:
            raise DatasetError(f"{self.path} has no column {unknown[0]!r} (drop).")
        apart: set[str | None] = {"label" if columns.label is None else columns.label}
        apart |= {self._label, self._id, self._group, *index_columns(schema), *columns.drop}
        found = [n for n in schema.names if n.startswith(start) and n not in apart]
        if not start:  # all columns: those of strings are not meant
            found = [name for name in found if _is_number(schema.field(name).type)]
        for name in found:
            self._check(name, schema.field(name).type)
        if not found:
            raise DatasetError(
                f"{self.path} has no column of numbers that starts with {start!r} "
                "(features_column) and is no label, id or index."
            )
        refuse_suspects(self.path, found, labelled=self._label is not None)
        return found

    def _choose_features(self, schema: pa.Schema, columns: Columns) -> list[str]:
        if columns.drop:
            raise DatasetError("drop=[…] needs features_column='*': leave it away.")
        name = chosen_column(
            self.path, "column", schema.names, "features_column", columns.features, _FEATURES
        )
        if name is None:
            raise DatasetError(
                f"{self.path} has none of the columns {', '.join(sorted(_FEATURES))}: name the one "
                "that holds lists of numbers with features_column, or the beginning of many with a "
                "star, such as 'f*'."
            )
        kind = schema.field(name).type
        self._check(name, kind.value_type if _is_list(kind) else kind)
        return [name]

    def _check(self, name: str, kind: pa.DataType) -> None:
        if not _is_number(kind):
            raise DatasetError(
                f"column {name!r} of {self.path} must hold numbers or lists of numbers, got {kind}."
            )

    def _vectors(self, column: pa.Array, start: int) -> NDArray[Any]:
        """A column of lists as an array of shape (n, width)."""
        if column.null_count:
            raise self._missing(column, start)
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        odd = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
        if len(odd):
            raise DatasetError(
                f"row {start + odd[0]} of {self.path} has {lengths[odd[0]]} features, row {start} "
                f"has {lengths[0]}: all rows need the same number, 1 or more."
            )
        values = column.flatten()
        if values.null_count:
            place = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]
            raise self._missing(None, start + int(place) // int(lengths[0]))
        X: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(column), -1)
        return X

    def _numbers(self, column: pa.Array, start: int) -> NDArray[Any]:
        if column.null_count:
            raise self._missing(column, start)
        numbers: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return numbers

    def _missing(self, column: pa.Array | None, row: int) -> DatasetError:
        if column is not None:
            row += int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        return DatasetError(f"row {row} of {self.path} lacks features: fill it in or remove it.")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
