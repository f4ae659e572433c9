"""Image Parquet files in the Hugging Face layout."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from dpfc.features.datasets.base import (
    ImageDataset,
    ImageItem,
    Wanted,
    fingerprint_of_files,
    row_id,
)
from dpfc.features.datasets.groups import read_groups
from dpfc.features.datasets.labels import read_labels
from dpfc.features.datasets.tables import column_named, parquet_batches, parquet_schema, table_rows
from dpfc.features.datasets.texts import TEXT_COLUMNS
from dpfc.features.exceptions import DatasetError

__all__ = ["ParquetImages", "holds_texts", "stated_class_names"]


class ParquetImages(ImageDataset):
    """Rows of one or several image Parquet files, in the files' order.

    Parameters
    ----------
    paths : sequence of Path
        Files with a column ``image`` (struct with a binary field ``bytes``) and, in all or in
        none of them, a column ``label``. Class names come from the ``huggingface`` schema
        metadata of the first file, where integers are positions in them.
    name : str
        Short name for people.
    wanted : Wanted
        Column of the labels in the place of ``label``; class names, where the files do not
        state them; column of the groups.

    Raises
    ------
    DatasetError
        If a file is not such a file, or files disagree.
    """

    def __init__(self, paths: Sequence[Path], name: str, wanted: Wanted) -> None:
        wanted.refuse("image Parquet files")
        wanted.refuse_group_file("image Parquet files")
        self.name = name
        self._paths = list(paths)
        inspected = [_inspect(path) for path in self._paths]
        schemas = [schema for schema, _ in inspected]
        self._rows = [rows for _, rows in inspected]
        self.columns = schemas[0].names
        self._label_name = self._choose_label(schemas, wanted)
        self.has_labels = self._label_name is not None
        self.class_names: list[str] | None = None
        if len(self) == 0:
            raise DatasetError(f"{self._paths[0]} holds no rows.")
        if self._label_name is not None:
            self._read_labels(schemas, self._label_name, wanted)
        self._group_name = None
        if wanted.group_column is not None:
            self._group_name = self._column(schemas, wanted.group_column, "the groups", wanted=True)
            self._groups = read_groups(self._values(self._group_name or ""), name)

    def _choose_label(self, schemas: Sequence[pa.Schema], wanted: Wanted) -> str | None:
        if wanted.unlabelled:
            return None
        needed = bool(wanted.label_column or wanted.class_names)
        return self._column(schemas, wanted.label_column or "label", "the labels", wanted=needed)

    def _column(
        self, schemas: Sequence[pa.Schema], name: str, what: str, *, wanted: bool
    ) -> str | None:
        """The column of a name in all files; None if none has it and it is not wanted."""
        found = [column_named(schema.names, name) for schema in schemas]
        if found[0] is None and wanted:
            raise DatasetError(
                f"{self._paths[0]} has no column {name!r} for {what}; its columns are "
                f"{', '.join(schemas[0].names)}."
            )
        if len(set(found)) > 1:
            odd = self._paths[found.index(None) if None in found else 0]
            raise DatasetError(f"{odd} has no column {name!r} but the files beside it have.")
        return found[0]

    def _read_labels(self, schemas: Sequence[pa.Schema], label: str, wanted: Wanted) -> None:
        stated = stated_class_names(schemas[0], label)
        for path, schema in zip(self._paths, schemas, strict=True):
            if stated_class_names(schema, label) != stated:
                raise DatasetError(f"{path} names other classes than {self._paths[0]}.")
        if wanted.class_names is not None and stated not in (None, wanted.class_names):
            raise DatasetError(f"{self._paths[0]} names its classes otherwise than class_names.")
        labels = read_labels(
            self._values(label),
            self.name,
            stated or wanted.class_names,
            numbered=stated is not None,
            skip_missing=wanted.skip_missing,
        )
        self._labels, self.class_names = labels.codes, labels.class_names
        self.class_names_from_labels = labels.from_labels

    def _values(self, column: str) -> Iterator[object]:
        for path in self._paths:
            for (value,) in table_rows(path, [column]):
                yield value

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; whole row groups before it are skipped."""
        first = 0
        for path, rows in zip(self._paths, self._rows, strict=True):
            skipped = min(max(start - first, 0), rows)
            position = first + skipped
            for batch in parquet_batches(path, ["image.bytes"], skipped) if skipped < rows else ():
                for image in batch.column("image"):
                    content = image.as_py()
                    encoded = None if content is None else content["bytes"]
                    yield ImageItem(
                        encoded, self._label(position), row_id(position), self._group(position)
                    )
                    position += 1
            first += rows

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and contents, and of other columns than `label`."""
        names = [path.name for path in self._paths]
        extra = [] if self._label_name in (None, "label") else [self._label_name]
        extra += [] if self._group_name is None else [self._group_name]
        return fingerprint_of_files("image Parquet files", self._paths, names, extra)


def holds_texts(path: Path) -> bool:
    """Whether a Parquet file has a usual column of texts and none of images.

    Raises
    ------
    DatasetError
        If the file is no Parquet file.
    """
    names = parquet_schema(path)[0].names
    return "image" not in names and any(name in names for name in TEXT_COLUMNS)


def _inspect(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a file whose columns are as they should be."""
    schema, rows = parquet_schema(path)
    image = schema.field("image").type if "image" in schema.names else None
    fields = {f.name: f.type for f in image} if image and pa.types.is_struct(image) else {}
    bytes_type = fields.get("bytes")
    if bytes_type not in (pa.binary(), pa.large_binary()):
        raise DatasetError(
            f"{path} has no column 'image' of struct<bytes: binary, path: string>; "
            f"its columns are {', '.join(schema.names)}. Rename or convert the column; "
            "for texts name it with text_column=…"
        )
    return schema, rows


def stated_class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Names in ``info.features.<label>.names`` of the metadata; None if there are none."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names or None
