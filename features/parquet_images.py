"""Image Parquet files in the Hugging Face layout."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from dpfc.features._labels import MAX_LABEL
from dpfc.features._tables import parquet_batches, parquet_schema
from dpfc.features.datasets import ImageDataset, ImageItem, fingerprint_of_files, row_id
from dpfc.features.exceptions import DatasetError
from dpfc.features.text_files import TEXT_COLUMNS

__all__ = ["ParquetImages", "holds_texts", "stated_class_names"]


class ParquetImages(ImageDataset):
    """Rows of one or several image Parquet files, in the files' order.

    Parameters
    ----------
    paths : sequence of Path
        Files with a column ``image`` (struct with a binary field ``bytes``) and, in all or in
        none of them, a column ``label`` (integer). Class names come from the ``huggingface``
        schema metadata of the first file.
    name : str
        Short name for people.
    label_column : str, optional
        Column of the labels in the place of ``label``.
    class_names : list of str, optional
        The public list of class names, where the files do not state it.

    Raises
    ------
    DatasetError
        If a file is not such a file, or files disagree.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        name: str,
        label_column: str | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.name = name
        self._paths = list(paths)
        self._label = label_column or "label"
        inspected = [_inspect(path, self._label) for path in self._paths]
        schemas = [schema for schema, _ in inspected]
        self._rows = [rows for _, rows in inspected]
        labelled = [self._label in schema.names for schema in schemas]
        if len(set(labelled)) > 1:
            unlabelled = self._paths[labelled.index(False)]
            raise DatasetError(
                f"{unlabelled} has no column {self._label!r} but the files beside it have."
            )
        self.has_labels = labelled[0]
        if not self.has_labels and (label_column or class_names):
            raise DatasetError(
                f"{self._paths[0]} has no column {self._label!r} for the labels; its columns are "
                f"{', '.join(schemas[0].names)}."
            )
        self.class_names = stated_class_names(schemas[0], self._label) if self.has_labels else None
        for path, schema in zip(self._paths, schemas, strict=True):
            if self.has_labels and stated_class_names(schema, self._label) != self.class_names:
                raise DatasetError(f"{path} names other classes than {self._paths[0]}.")
        if class_names is not None and self.class_names not in (None, class_names):
            raise DatasetError(f"{self._paths[0]} names its classes otherwise than class_names.")
        self.class_names = class_names or self.class_names
        if len(self) == 0:
            raise DatasetError(f"{self._paths[0]} holds no rows.")

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; whole row groups before it are skipped."""
        columns = ["image.bytes", self._label] if self.has_labels else ["image.bytes"]
        first = 0
        for path, rows in zip(self._paths, self._rows, strict=True):
            skipped = min(max(start - first, 0), rows)
            position = first + skipped
            for batch in parquet_batches(path, columns, skipped) if skipped < rows else ():
                images = batch.column("image")
                labels = batch.column(self._label).to_pylist() if self.has_labels else None
                for i in range(batch.num_rows):
                    label = None if labels is None else labels[i]
                    yield self._item(images[i].as_py(), label, row_id(position))
                    position += 1
            first += rows

    def _item(
        self, image: dict[str, bytes | None] | None, label: int | None, item_id: str
    ) -> ImageItem:
        limit = MAX_LABEL if self.class_names is None else len(self.class_names) - 1
        if self.has_labels and (label is None or not 0 <= label <= limit):
            raise DatasetError(
                f"{item_id} of {self.name} has a missing label or one outside its classes: "
                "correct it and run again."
            )
        return ImageItem(None if image is None else image["bytes"], label, item_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and contents."""
        names = [path.name for path in self._paths]
        return fingerprint_of_files("image Parquet files", self._paths, names)


def holds_texts(path: Path) -> bool:
    """Whether a Parquet file has a usual column of texts and none of images.

    Raises
    ------
    DatasetError
        If the file is no Parquet file.
    """
    names = parquet_schema(path)[0].names
    return "image" not in names and any(name in names for name in TEXT_COLUMNS)


def _inspect(path: Path, label: str) -> tuple[pa.Schema, int]:
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
    if label in schema.names and not pa.types.is_integer(schema.field(label).type):
        raise DatasetError(
            f"column {label!r} of {path} must hold integers, got {schema.field(label).type}."
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
