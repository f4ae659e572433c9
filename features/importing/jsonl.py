"""Features from JSONL: one record a line, as hosted embedding services return them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.features.datasets.csv_rows import opened
from dpfc.features.datasets.tables import json_records
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.rows import BLOCK_ROWS, Columns, Rows, nth_line

__all__ = ["RECORD_IDS", "RecordFile", "open_records", "vectors_in"]

# By which name services give an id back: Gemini, OpenAI (whose `id` is the request's), Bedrock.
RECORD_IDS = ("key", "custom_id", "recordId", "id")
_LABEL = "label"
# Where vectors stand, from the envelope inwards. The first field that holds any is taken.
_FIELDS = (
    *("response", "body", "modelOutput"),
    *("embedding", "embeddings", "predictions", "data"),
    *("values", "float", "features", "vector"),
)
# These hold one vector: a list of lists in them is something else, such as one vector a token.
_ONE = {"embedding", "values", "features", "vector"}
_MAX_DEPTH = 8


@dataclass(frozen=True)
class RecordFile:
    """Features, and ids, labels and groups where they are, in a JSONL file.

    See `open_records`.
    """

    path: Path
    features_field: str | None
    label_field: str | None
    id_field: str | None
    group_field: str | None = None

    class_names = None

    @property
    def has_labels(self) -> bool:
        """Whether records carry labels."""
        return self.label_field is not None

    @property
    def has_ids(self) -> bool:
        """Whether records carry ids."""
        return self.id_field is not None

    @property
    def has_groups(self) -> bool:
        """Whether records say whose they are."""
        return self.group_field is not None

    @property
    def keeps_order(self) -> bool:
        """Whether the lines surely have the order of the requests; services give ids instead."""
        return not self.has_ids

    def rows(self) -> Iterator[Rows]:
        """Read blocks of rows of one width, and each failed request by itself."""
        pending: list[_Row] = []
        for row in self._each():
            full = len(pending) >= BLOCK_ROWS
            if pending and (full or row.vector is None or len(row.vector) != pending[0].width):
                yield self._block(pending)
                pending = []
            if row.vector is None:
                yield self._block([row])
            else:
                pending.append(row)
        if pending:
            yield self._block(pending)

    def _block(self, rows: Sequence["_Row"]) -> Rows:
        vectors = [row.vector for row in rows if row.vector is not None]
        return Rows(
            lambda row: self._place(rows[row].record),
            np.stack(vectors) if vectors else None,
            [row.id for row in rows] if self.has_ids else None,
            [row.label for row in rows] if self.has_labels and vectors else None,
            [row.group for row in rows] if self.has_groups and vectors else None,
        )

    def _each(self) -> Iterator["_Row"]:
        for index, record in enumerate(json_records(self.path)):
            row_id = field_of(record, self.id_field) if self.id_field else None
            if has_failed(record, self.features_field):
                yield _Row(index, None, row_id, None, None)
                continue
            found = vectors_in(record, self.features_field)
            if found is None:
                raise self._no_vector(index)
            label = field_of(record, self.label_field) if self.label_field else None
            group = field_of(record, self.group_field) if self.group_field else None
            if len(found) > 1 and self.has_labels:
                raise DatasetError(
                    f"{self._place(index)} holds {len(found)} embeddings and one label: give the "
                    "labels in a file of their own (labels)."
                )
            for place, values in enumerate(found):
                # One request with several texts has one id.
                part = f"{row_id}/{place}" if len(found) > 1 else row_id
                yield _Row(index, self._checked(values, index), part, label, group)

    def _checked(self, values: list[Any], index: int) -> NDArray[np.float64]:
        # Not left to NumPy: it reads strings and booleans as numbers too.
        if not values or not set(map(type, values)) <= {int, float}:
            raise DatasetError(
                f"the embedding in {self._place(index)} is empty or holds what is no number: "
                "correct the line, or ask the service for floats."
            )
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            raise DatasetError(
                f"the embedding in {self._place(index)} holds an integer too large to store."
            ) from None

    def _no_vector(self, index: int) -> DatasetError:
        wanted = "" if self.features_field is None else f" in {self.features_field!r}"
        return DatasetError(
            f"{self._place(index)} holds no embedding{wanted} in a shape that is known (lists of "
            "floats; base64 is none): name its field with features_column, such as "
            "'answer.0.vector'."
        )

    def _place(self, index: int) -> str:
        return f"line {nth_line(self.path, index)} of {self.path}"


@dataclass(frozen=True)
class _Row:
    """A row, its record's position in the file, and what the record says of it."""

    record: int
    vector: NDArray[np.float64] | None
    id: object
    label: object
    group: object

    @property
    def width(self) -> int:
        return 0 if self.vector is None else len(self.vector)


def open_records(paths: Sequence[Path], columns: Columns) -> list[RecordFile]:
    """Open JSONL files of one service.

    Ids stand in the first of `RECORD_IDS` that the first record with an embedding has, labels in
    ``label`` if any record has it. Fields inside others are named with dots.

    Raises
    ------
    DatasetError
        If no record holds an embedding, or no record has a field that was named.
    """
    for path in paths:
        for index, record in enumerate(json_records(path)):
            if has_failed(record, columns.features):
                continue
            wanted = None if columns.labels_apart else columns.label
            group = columns.group_beside
            named = {"label_column": wanted, "id_column": columns.id, "group_column": group}
            for option, field in named.items():
                if field is not None and not _any_has(paths, field):
                    raise DatasetError(
                        f"line {nth_line(path, index)} of {path} has no field {field!r} "
                        f"({option}); it has {', '.join(map(repr, record))}."
                    )
            row_id = columns.id or next((name for name in RECORD_IDS if name in record), None)
            label = wanted
            if label is None and not columns.labels_apart and _any_has(paths, _LABEL):
                label = _LABEL
            return [RecordFile(path, columns.features, label, row_id, group) for path in paths]
    raise DatasetError(f"{paths[0]} holds no embedding: it is empty, or all requests have failed.")


def _any_has(paths: Sequence[Path], field: str) -> bool:
    """Whether any record has a field; one without a label must not hide those of the others."""
    first = field.split(".")[0].encode() if field.isascii() else b""
    for path in paths:
        with opened(path, "rb") as file:
            # Most records are sifted without being parsed, which takes far longer.
            if not any(first in line for line in file):
                continue
        if any(field_of(record, field) is not None for record in json_records(path)):
            return True
    return False


def field_of(record: dict[str, Any], name: str) -> Any:
    """A field, or one inside others (``instance.label``, ``data.0.index``); None if it is not."""
    if name in record:
        return record[name]
    node: Any = record
    for part in name.split("."):
        if isinstance(node, list):
            node = dict(enumerate(node)).get(int(part)) if part.isdecimal() else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    return node


def has_failed(record: dict[str, Any], features_field: str | None = None) -> bool:
    """Whether a record tells of a request that the service could not answer."""
    node: Any = record
    while isinstance(node, dict):
        code = node.get("status_code")
        if node.get("error") or (isinstance(code, int) and code >= 400):
            return True
        node = node.get("response", node.get("body"))
    # Vertex AI leaves `status` empty where all went well.
    told = bool(record.get("status")) or _is_null(record, features_field)
    return told and vectors_in(record, features_field) is None


def _is_null(record: dict[str, Any], features_field: str | None) -> bool:
    """Whether a record says that there is no vector: ``null`` where it would stand."""
    if features_field is not None:
        known = features_field in record or features_field.split(".")[0] in record
        return known and field_of(record, features_field) is None
    node: Any = record
    for _ in range(_MAX_DEPTH):
        node = node[0] if isinstance(node, list) and node else node
        name = next((n for n in _FIELDS if isinstance(node, dict) and n in node), None)
        if name is None:
            return False
        if node[name] is None:
            return True
        node = node[name]
    return False


def vectors_in(record: dict[str, Any], features_field: str | None = None) -> list[Any] | None:
    """Lists that are a record's vectors, in order, their values unchecked; None if it has none."""
    return _found(record if features_field is None else field_of(record, features_field))


def _found(node: Any, depth: int = 0) -> list[Any] | None:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(node, list):
        if node and type(node[0]) in (int, float):
            return [node]
        inner = [_found(item, depth + 1) for item in _in_order(node)]
        # One that is no vector makes the rest doubtful too: rows would shift.
        return [v for found in inner for v in found or ()] if inner and all(inner) else None
    if isinstance(node, dict):
        for name in _FIELDS:
            found = _found(node.get(name), depth + 1)
            if found is not None and (name not in _ONE or len(found) == 1):
                return found
    return None


def _in_order(items: list[Any]) -> list[Any]:
    """Sort the parts of an answer by the ``index`` that OpenAI's carry."""
    numbered = all(isinstance(item, dict) and type(item.get("index")) is int for item in items)
    return sorted(items, key=lambda item: item["index"]) if numbered else items
