"""Columns that may not be features: labels, ids and indexes in a table of numbers."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpfc._support.column_names import is_id_name, is_index_name, is_label_name
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.first_pass import Survey

__all__ = ["index_columns", "refuse_label_columns", "refuse_suspects"]

# With fewer rows a class, a column can tell the classes apart by chance.
_ROWS_PER_CLASS = 10


def index_columns(schema: pa.Schema) -> list[str]:
    """Columns that are the index of a data frame, by their names or pandas' metadata."""
    found = [name for name in schema.names if is_index_name(name)]
    try:
        listed = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        found += [name for name in listed if isinstance(name, str) and name in schema.names]
    except (KeyError, TypeError, ValueError):
        pass  # not written by pandas
    return list(dict.fromkeys(found))


def refuse_suspects(path: object, taken: Sequence[str], *, labelled: bool) -> None:
    """Refuse a column that a star took and whose name is one of a label or of ids.

    Raises
    ------
    DatasetError
        The message names the column.
    """
    for name in taken:
        what = "ids" if is_id_name(name) else None
        what = "a label" if is_label_name(name) else what
        if what is not None:
            option = "id_column" if what == "ids" else "label_column"
            option += " (or group_column, if it says whose row it is)" if what == "ids" else ""
            remedy = "" if labelled and what == "a label" else f" name it with {option}, or"
            raise DatasetError(
                f"column {name!r} of {path} has the name of {what}, which would be a feature:"
                f"{remedy} leave it out with drop=[…]. If it is a feature, give it another name."
            )


def refuse_label_columns(
    survey: Survey,
    names: Sequence[str],
    codes: NDArray[np.int32],
    path: object,
    *,
    facts: Sequence[int] | None = None,
) -> None:
    """Refuse a column that equals the label, or tells it: it has one value for each class.

    Parameters
    ----------
    survey : Survey
        Has been run.
    names : sequence of str, length n_features
        The columns.
    codes : ndarray of int32
        Of all rows; -1 for one without a label.
    path : path
        Of the table, for the message.
    facts : sequence of int, length n_features, optional
        Where a schema made the features of columns: features of one number are one fact, which
        tells the label only if none of them varies within a class.

    Raises
    ------
    DatasetError
        The message names the column.
    """
    first: dict[int, NDArray[np.float64]] = {}
    equal = np.ones(len(names), dtype=bool)
    constant = np.ones(len(names), dtype=bool)
    position = labelled = 0
    for rows in survey.blocks():
        own = codes[position : position + len(rows)]
        position += len(rows)
        if rows.X is None:
            continue
        for code in np.unique(own[own >= 0]).tolist():
            X = rows.X[own == code].astype(np.float64)
            labelled += len(X)
            constant &= np.equal(X, first.setdefault(code, X[0])).all(axis=0)
            equal &= np.equal(X, code).all(axis=0)
    if len(first) < 2:
        return
    values = np.sort(np.stack(list(first.values())), axis=0)
    differs = (np.diff(values, axis=0) != 0).all(axis=0)
    tells = constant & differs & (labelled >= _ROWS_PER_CLASS * len(first))
    owners = np.arange(len(names)) if facts is None else np.asarray(facts)
    varies = np.bincount(owners, ~constant)[owners] > 0
    leaks = np.flatnonzero((equal | tells) & ~varies)
    if len(leaks):
        remedy = "Leave it out with drop=[…]" if facts is None else "Give its column role: ignore"
        raise DatasetError(
            f"{'column' if facts is None else 'feature'} {names[leaks[0]]!r} of {path} equals the "
            f"label: a classifier would read the answer from it. {remedy}."
        )
