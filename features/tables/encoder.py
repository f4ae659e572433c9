"""A table of mixed columns as features, by a public schema alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from dpfc.features.tables.blocks import blocks_of
from dpfc.features.tables.columns import check_columns, encode_columns, table_of
from dpfc.features.tables.schema import TableSchema, read_schema

__all__ = ["TableEncoder"]


@dataclass(eq=False, repr=False)
class TableEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn a table of mixed columns into features by what is public about it.

    Nothing is learned from rows: bounds, categories and what a missing value counts as stand in
    the schema, so encoding spends no privacy, and a row's features depend on that row alone.
    A number's features fill one after the other between its knots, a category has a one of its
    own; each column's features are centred and of about one length.

    Parameters
    ----------
    schema : TableSchema, dict or path
        A YAML file, its contents, or an object; see the page on tables. All that it says counts
        as public: take it from a data dictionary or public data, never from private rows.

    Attributes
    ----------
    schema_ : TableSchema
    feature_names_in_ : ndarray of str
        Columns that become features; others of the schema may be missing.
    n_features_in_ : int

    Examples
    --------
    >>> schema = {
    ...     "columns": {
    ...         "age": {"type": "number", "min": 18, "max": 90, "unit": "years", "knots": 2},
    ...         "smoker": {"type": "boolean"},
    ...         "ward": {"type": "category", "values": ["A", "B", "C"]},
    ...     }
    ... }
    >>> encoder = TableEncoder(schema).fit()
    >>> encoder.transform([{"age": 54, "smoker": "no", "ward": "B"}]).round(2)
    array([[ 0.  , -0.71, -0.25,  0.75, -0.25, -0.25]], dtype=float32)
    >>> encoder.get_feature_names_out().tolist()
    ['age', 'smoker=true', 'ward=A', 'ward=B', 'ward=C', 'ward=(other)']
    """

    schema: TableSchema | Mapping[str, Any] | str | PathLike[str]

    def fit(self, X: Any = None, y: Any = None) -> TableEncoder:
        """Read the schema, and check the columns' names; no row is looked at.

        Parameters
        ----------
        X : table, optional
        y
            Ignored.

        Raises
        ------
        OSError, ValueError
            If the schema cannot be read, or is none.
        DatasetError
            If the table lacks a column or has one of which the schema does not know.
        """
        self.schema_ = read_schema(self.schema)
        if X is not None:
            check_columns(list(table_of(X)), self.schema_, "X")
        self.feature_names_in_ = np.array(list(self.schema_.features), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Features of a table's rows.

        Parameters
        ----------
        X : data frame, Arrow table, mapping of columns, or sequence of mappings
            Label, group and id need not be there.

        Returns
        -------
        ndarray of float32, shape (n_rows, n_features)

        Raises
        ------
        DatasetError
            If a column is missing or unknown, or a value is not what the schema says; the
            message names the column and the row's position, never the value.
        ValueError
            If X is no table with named columns.
        """
        schema = self._read()
        columns = table_of(X)
        check_columns(list(columns), schema, "X")
        return encode_columns(columns, blocks_of(schema), "row {}".format)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the features, such as ``age[45]``, ``sex=F`` and ``sex=(missing)``.

        Parameters
        ----------
        input_features
            Ignored: the schema says it.
        """
        blocks = blocks_of(self._read()).values()
        return np.array([name for block in blocks for name in block.names], dtype=object)

    def _read(self) -> TableSchema:
        """The schema as it was when `fit` read it; without `fit`, as it is."""
        fitted: TableSchema | None = getattr(self, "schema_", None)
        return read_schema(self.schema) if fitted is None else fitted

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags
