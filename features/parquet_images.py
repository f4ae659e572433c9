"""Image Parquet files in the Hugging Face layout."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dpfc.features.datasets import ImageDataset, ImageItem, fingerprint_of_files, row_id
from dpfc.features.exceptions import DatasetError, UnreadableImageError

__all__ = ["ParquetImages"]

_BATCH_ROWS = 256
# Row groups can be large; with a buffer they are streamed.
_BUFFER_BYTES = 1 << 20
_MAX_LABEL = 2**31 - 1
_SPLIT_WORD = re.compile(
    r"(?:^|[-_.])(train|test|validation|valid|val|dev)(?=[-_.]|$)", re.IGNORECASE
)


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

    Raises
    ------
    DatasetError
        If a file is not such a file, files disagree, or their names mix splits (train, test).
    """

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self._paths = list(paths)
        _refuse_mixed_splits(self._paths)
        schemas, self._rows = zip(*(_inspect(path) for path in self._paths), strict=True)
        labelled = ["label" in schema.names for schema in schemas]
        if len(set(labelled)) > 1:
            unlabelled = self._paths[labelled.index(False)]
            raise DatasetError(f"{unlabelled} has no column 'label' but the files beside it have.")
        self.has_labels = labelled[0]
        self.class_names = _class_names(schemas[0]) if self.has_labels else None
        for path, schema in zip(self._paths, schemas, strict=True):
            if self.has_labels and _class_names(schema) != self.class_names:
                raise DatasetError(f"{path} names other classes than {self._paths[0]}.")
        if len(self) == 0:
            raise DatasetError(f"{self._paths[0]} holds no rows.")

    def __len__(self) -> int:
        return sum(self._rows)

    def items(self, start: int = 0) -> Iterator[ImageItem]:
        """Yield the rows from position `start` on; whole row groups before it are skipped."""
        position = 0
        for path in self._paths:
            try:
                with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
                    for group in range(file.num_row_groups):
                        rows = file.metadata.row_group(group).num_rows
                        if position + rows > start:
                            yield from self._group_items(file, group, position, start)
                        position += rows
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(
                    f"{path} cannot be read near row {position}: the file is damaged, "
                    "fetch or write it again."
                ) from error

    def _group_items(
        self, file: pq.ParquetFile, group: int, position: int, start: int
    ) -> Iterator[ImageItem]:
        columns = ["image.bytes", "label"] if self.has_labels else ["image.bytes"]
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns):
            skipped = min(max(start - position, 0), batch.num_rows)
            kept = batch.slice(skipped)
            position += skipped
            labels = kept.column("label").to_pylist() if self.has_labels else [None] * len(kept)
            images = kept.column("image")
            for i, label in enumerate(labels):
                yield self._item(images[i].as_py(), label, row_id(position))
                position += 1

    def _item(
        self, image: dict[str, bytes | None] | None, label: int | None, item_id: str
    ) -> ImageItem:
        data = image["bytes"] if image is not None else None
        if data is None:
            raise UnreadableImageError(
                f"image {item_id!r} has no bytes in the Parquet file: embed the images' bytes."
            )
        limit = _MAX_LABEL if self.class_names is None else len(self.class_names) - 1
        if self.has_labels and (label is None or not 0 <= label <= limit):
            raise DatasetError(
                f"{item_id} of {self.name} has a missing label or one outside its classes: "
                "correct it and run again."
            )
        return ImageItem(data, label, item_id)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and contents."""
        names = [path.name for path in self._paths]
        return fingerprint_of_files("image Parquet files", self._paths, names)


def _refuse_mixed_splits(paths: Sequence[Path]) -> None:
    """Refuse a folder whose files are the train and the test part of one data set."""
    splits = {word.lower() for path in paths for word in _SPLIT_WORD.findall(path.stem)}
    if len(splits) > 1:
        raise DatasetError(
            f"{paths[0].parent} holds Parquet files of several splits ({', '.join(sorted(splits))})"
            ": name one file, or give each split a folder of its own."
        )


def _inspect(path: Path) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a file whose columns are as they should be."""
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except Exception as error:  # a damaged footer raises whatever it likes
        raise DatasetError(f"{path} is not a readable Parquet file.") from error
    image = schema.field("image").type if "image" in schema.names else None
    fields = {f.name: f.type for f in image} if image and pa.types.is_struct(image) else {}
    bytes_type = fields.get("bytes")
    if bytes_type not in (pa.binary(), pa.large_binary()):
        raise DatasetError(
            f"{path} has no column 'image' of struct<bytes: binary, path: string>; "
            f"its columns are {', '.join(schema.names)}. Rename or convert the column."
        )
    if "label" in schema.names and not pa.types.is_integer(schema.field("label").type):
        raise DatasetError(
            f"column 'label' of {path} must hold integers, got {schema.field('label').type}."
        )
    return schema, rows


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Names in ``info.features.label.names`` of the metadata; None if there are none."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names or None
