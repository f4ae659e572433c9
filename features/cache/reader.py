"""The feature cache: a folder of Parquet shards with a manifest that holds their checksums."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dpfc._support.files import check_regular, read_regular, sha256_of_file
from dpfc._support.validation import check_int
from dpfc.features.cache.manifest import NUMBERED_BY_ROWS, CacheDescription, Manifest, Shard
from dpfc.features.cache.parquet_reading import read_columns
from dpfc.features.exceptions import FeatureCacheError

__all__ = ["FeatureCache", "cache_schema"]

_RUN_AGAIN = "run the same command again (`dpfc extract` or `dpfc features import`)"

# A name, or an id of the hub: no path.
_PUBLIC_SPEC = re.compile(r"\w[\w-]*(:\w[\w.-]*(/\w[\w.-]*)?(#\w+)?)?", re.ASCII)

Block = tuple[NDArray[np.floating], NDArray[np.int32] | None]


def cache_schema(description: CacheDescription) -> pa.Schema:
    """Columns of a shard. None may hold nulls: without them Parquet reads three times faster."""
    value = pa.float16() if description.dtype == "float16" else pa.float32()
    vector = pa.list_(pa.field("element", value, nullable=False), description.n_features)
    fields = [pa.field("features", vector, nullable=False)]
    if description.has_labels:
        fields.append(pa.field("label", pa.int32(), nullable=False))
    if description.has_ids:
        fields.append(pa.field("id", pa.string(), nullable=False))
    if description.has_groups:
        fields.append(pa.field("group", pa.string(), nullable=False))
    return pa.schema(fields)


class FeatureCache:
    """A complete feature cache, read shard by shard.

    Open one with `FeatureCache.open`. A shard's checksum is verified when it is first read.

    Attributes
    ----------
    path : Path
        The folder.
    description : CacheDescription
        What the rows are.
    n_features : int
        Length of a feature row.
    class_names : list of str or None
        Names of the labels 0, 1, …; None if unknown.
    labels_numbered_by_rows : bool
        Whether the numbers of classes follow from the names that occur among the rows.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.description = manifest.description
        names = manifest.description.class_names
        self.n_features: int = manifest.description.n_features
        self.class_names: list[str] | None = None if names is None else list(names)
        told = manifest.description.dataset
        self.labels_numbered_by_rows = told.get("labels") == NUMBERED_BY_ROWS
        self._manifest = manifest
        self._schema = cache_schema(manifest.description)
        self._verified: set[str] = set()

    @classmethod
    def open(cls, path: str | Path) -> "FeatureCache":
        """Open a complete cache; reads the manifest and each shard's Parquet footer only.

        Raises
        ------
        FeatureCacheError
            If the folder is no feature cache, the cache is incomplete or of an unknown format
            version, or a shard is missing, truncated, or has other rows or columns than the
            manifest says.
        """
        path = Path(path)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise FeatureCacheError(
                f"no feature cache at {path}: it {what}. Write one with `dpfc extract`, or with "
                "`dpfc features import` from arrays or embeddings made elsewhere."
            )
        manifest = Manifest.read(path)
        if not manifest.complete:
            raise FeatureCacheError(
                f"the feature cache {path} is incomplete: {_RUN_AGAIN}, it resumes."
            )
        cache = cls(path, manifest)
        for shard in manifest.shards:
            cache._check_footer(shard)
        return cache

    @classmethod
    def verify(cls, path: str | Path) -> list[str]:
        """Check every byte of a cache's files against its manifest, and that against itself.

        The checksums tell accidents, not an attacker who writes new ones.

        Returns
        -------
        list of str
            What is wrong, a sentence for each damaged file; empty if nothing is. Of a damaged
            manifest's shards nothing can be said.
        """
        path = Path(path)
        try:
            manifest = Manifest.read(path, strict=True)
        except FeatureCacheError as error:
            return [str(error)]
        found = list(cls(path, manifest)._damages())
        if not manifest.complete:
            found.append(f"{path} is incomplete: {_RUN_AGAIN}, it resumes.")
        return found

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands in ``manifest.json``."""
        return self._manifest.to_dict()

    @property
    def origin(self) -> dict[str, Any] | None:
        """What makes rows like these of new images or texts; a model that is published holds it.

        The backbone's spec (None where it names a file of this computer), its weights' SHA-256,
        the preprocessing and the dtype; None for imported features, whose sources are private.
        """
        backbone = self.description.backbone
        spec, weights = backbone.get("spec"), backbone.get("weights_sha256")
        if not isinstance(spec, str) or not isinstance(weights, str):
            return None
        return {
            "spec": spec if _PUBLIC_SPEC.fullmatch(spec) else None,
            "weights_sha256": weights,
            "preprocessing": dict(self.description.preprocessing),
            "dtype": self.description.dtype,
        }

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._manifest.shards)

    def __repr__(self) -> str:
        return f"<FeatureCache {str(self.path)!r}: {len(self)} rows of {self.n_features}>"

    def blocks(self, block_rows: int = 4096) -> Iterator[Block]:
        """Stream the rows in their fixed order; at most one shard is in memory.

        Parameters
        ----------
        block_rows : int
            Most rows in a block. A block ends where its shard ends.

        Yields
        ------
        X : ndarray of float16 or float32, shape (rows, n_features)
        y : ndarray of int32, shape (rows,), or None
            Labels; None if the cache has none.

        Raises
        ------
        ValueError
            If `block_rows` is no positive int.
        FeatureCacheError
            If a shard is damaged.
        """
        return self._blocks(check_int("block_rows", block_rows, 1))

    def _blocks(self, block_rows: int) -> Iterator[Block]:
        for index in range(len(self._manifest.shards)):
            X, y = self._arrays(index)
            for start in range(0, len(X), block_rows):
                rows = slice(start, start + block_rows)
                # Copies: Arrow's memory is read-only, which PyTorch warns about.
                yield X[rows].copy(), None if y is None else y[rows].copy()

    def tables(self) -> Iterator[pa.Table]:
        """Stream the shards as Arrow tables of all columns: features, label, id, group.

        Raises
        ------
        FeatureCacheError
            If a shard is damaged.
        """
        for index in range(len(self._manifest.shards)):
            yield self._read(index, self._schema.names)

    def load(self) -> Block:
        """All features, shape (n_samples, n_features), and labels, shape (n_samples,) or None.

        Raises
        ------
        FeatureCacheError
            If a shard is damaged.
        """
        X = np.empty((len(self), self.n_features), dtype=self.description.dtype)
        y = np.empty(len(self), dtype=np.int32) if self.description.has_labels else None
        start = 0
        for index, shard in enumerate(self._manifest.shards):
            rows = slice(start, start + shard.rows)
            X[rows], labels = self._arrays(index)
            if y is not None and labels is not None:
                y[rows] = labels
            start += shard.rows
        return X, y

    def read_labels(self) -> NDArray[np.int32]:
        """All labels, shape (n_samples,).

        Raises
        ------
        FeatureCacheError
            If the cache has no labels, or a shard is damaged.
        """
        if not self.description.has_labels:
            raise FeatureCacheError(f"the feature cache {self.path} has no labels.")
        tables = [self._read(i, ["label"]) for i in range(len(self._manifest.shards))]
        labels: NDArray[np.int32] = pa.concat_tables(tables).column("label").to_numpy().copy()
        return labels

    @property
    def has_groups(self) -> bool:
        """Whether the cache says which person, or other unit, each row belongs to."""
        return self.description.has_groups

    def groups(self) -> NDArray[np.int64]:
        """The person of every row as a code, shape (n_samples,).

        Returns
        -------
        ndarray of int64
            Equal exactly where the persons are; numbered from 0 in the order in which they appear.

        Raises
        ------
        FeatureCacheError
            If the cache has no groups, or a shard is damaged.
        """
        if not self.has_groups:
            raise FeatureCacheError(
                f"the feature cache {self.path} does not say whose rows it holds: write it again "
                "with group_column=… (--group-column)."
            )
        known: dict[str, int] = {}
        codes = []
        for index in range(len(self._manifest.shards)):
            column = self._read(index, ["group"]).column("group").combine_chunks()
            # Arrow numbers a shard's persons in the order in which they appear in it.
            shard = column.dictionary_encode()
            own = [known.setdefault(name, len(known)) for name in shard.dictionary.to_pylist()]
            codes.append(np.array(own, dtype=np.int64)[shard.indices.to_numpy()])
        return np.concatenate(codes)

    def _arrays(self, index: int) -> Block:
        columns = ["features", "label"] if self.description.has_labels else ["features"]
        table = self._read(index, columns)
        features = table.column("features").combine_chunks()
        X = features.flatten().to_numpy().reshape(-1, self.n_features)
        return X, table.column("label").to_numpy() if self.description.has_labels else None

    def _read(self, index: int, columns: list[str]) -> pa.Table:
        shard = self._manifest.shards[index]
        path = self.path / shard.file
        try:
            check_regular(path)
            source: Path | pa.BufferReader = path
            if shard.file not in self._verified:
                content = read_regular(path)
                if hashlib.sha256(content).hexdigest() != shard.sha256:
                    raise self._damaged(path, "does not match its checksum")
                # The bytes that were checked are the bytes that are parsed.
                source = pa.BufferReader(content)
            table = read_columns(source, columns)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(path, "cannot be read") from error
        self._verified.add(shard.file)
        return table

    def _damages(self) -> Iterator[str]:
        """Read every byte of every shard, and say of each damaged one what is wrong with it."""
        for shard in self._manifest.shards:
            try:
                self._check_footer(shard)
                if sha256_of_file(self.path / shard.file) != shard.sha256:
                    raise self._damaged(self.path / shard.file, "does not match its checksum")
            except OSError as error:
                yield f"{self.path / shard.file} cannot be read: {error.strerror}."
            except FeatureCacheError as error:
                yield str(error)

    def _check_footer(self, shard: Shard) -> None:
        path = self.path / shard.file
        try:
            check_regular(path)
        except FileNotFoundError:
            raise self._damaged(path, "is missing") from None
        except OSError as error:
            raise self._damaged(path, f"cannot be read ({error.strerror})") from error
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except Exception as error:  # a damaged footer raises whatever it likes
            raise self._damaged(path, "is not a readable Parquet file") from error
        if rows != shard.rows:
            raise self._damaged(path, f"holds {rows} rows, the manifest says {shard.rows}")
        if not schema.equals(self._schema):
            raise self._damaged(path, "has other columns, width or dtype than the manifest")

    @staticmethod
    def _damaged(path: Path, what: str) -> FeatureCacheError:
        return FeatureCacheError(f"{path} {what}: {_RUN_AGAIN}, it repairs the cache.")
