"""Named columns of whatever people hold a table in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpfc._support.suggestions import did_you_mean
from dpfc.features.exceptions import DatasetError
from dpfc.features.tables.blocks import Block
from dpfc.features.tables.schema import TableSchema
from dpfc.features.tables.values import Fail, Values

__all__ = ["check_columns", "encode_columns", "table_of"]


def table_of(X: Any) -> dict[str, Any]:
    """Columns by name: of a data frame, an Arrow table, a mapping, or a sequence of records.

    Raises
    ------
    ValueError
        If it is none of these, a name is no text or stands there twice, or columns differ in
        length.
    """
    if isinstance(X, Mapping):
        names, columns = list(X), list(X.values())
    elif hasattr(X, "iloc") and hasattr(X, "columns"):  # pandas
        names, columns = list(X.columns), [X.iloc[:, place] for place in range(X.shape[1])]
    elif isinstance(X, pa.Table | pa.RecordBatch):
        names, columns = list(X.schema.names), list(X.columns)
    elif hasattr(X, "__arrow_c_stream__"):  # polars, and others that can show themselves to Arrow
        return table_of(pa.table(X))
    elif isinstance(X, Sequence) and not isinstance(X, str) and _are_records(X):
        names = list(dict.fromkeys(name for record in X for name in record))
        columns = [[record.get(name) for record in X] for name in names]
    else:
        raise ValueError(
            "X must be a table with named columns (a data frame, an Arrow table, a dictionary of "
            f"columns or a list of dictionaries), got {type(X).__name__}."
        )
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the names of X's columns must be texts.")
    if len(set(names)) < len(names):
        raise ValueError("X names a column twice.")
    if len({len(column) for column in columns}) > 1:
        raise ValueError("X's columns differ in length.")
    return dict(zip(names, columns, strict=True))


def _are_records(X: Sequence[Any]) -> bool:
    return all(isinstance(record, Mapping) for record in X)


def check_columns(
    names: Sequence[str], schema: TableSchema, where: str, further: Sequence[str] = ()
) -> None:
    """Refuse a table that lacks a column, or has one of which the schema does not know.

    Parameters
    ----------
    further : sequence of str
        Columns besides the features that are needed.

    Raises
    ------
    DatasetError
        The message names the column.
    """
    for name in [*schema.features, *further]:
        if name not in names:
            hint = did_you_mean(name, [name for name in names if name not in schema.columns])
            raise DatasetError(f"{where} has no column {name!r}, which the schema has.{hint}")
    # All known ones are there: the names are names, not a row of values.
    unknown = [name for name in names if name not in schema.columns]
    if unknown and schema.other_columns == "refuse":
        raise DatasetError(
            f"{where} has a column {unknown[0]!r}, which the schema has not: add it, with role: "
            "ignore if it is no feature, or other_columns: ignore for all such."
        )


def encode_columns(
    columns: Mapping[str, Any], blocks: Mapping[str, Block], place: Callable[[int], str]
) -> NDArray[np.float32]:
    """Features of rows, shape (n_rows, n_features); each row's depend on it alone.

    Parameters
    ----------
    place : callable
        Names the row at a position, for messages.

    Raises
    ------
    DatasetError
        If a value is not what the schema says; the message names the row and the column.
    """
    parts = [
        block.encode(_values(columns[name]), _failing(name, place))
        for name, block in blocks.items()
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _failing(name: str, place: Callable[[int], str]) -> Fail:
    def fail(row: int, what: str) -> NoReturn:
        raise DatasetError(f"{place(row)}: column {name!r} {what}.")

    return fail


def _values(column: Any) -> Values:
    """An array where a column is one of numbers or dates, else its values one by one."""
    if isinstance(column, np.ndarray):
        if column.ndim != 1:
            raise ValueError(f"a column must have one dimension, got {column.ndim}.")
        return column
    if isinstance(column, pa.Array | pa.ChunkedArray):
        kind = column.type
        plain = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if plain or pa.types.is_timestamp(kind):
            return np.asarray(
                column.to_numpy()
                if isinstance(column, pa.ChunkedArray)
                else column.to_numpy(zero_copy_only=False)
            )
        listed: list[Any] = column.to_pylist()
        return listed
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "iufM":
        return np.asarray(column)
    return list(column)
