"""A feature cache as one file of another format, shard by shard."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.csv_text import write_csv
from dpfc._support.files import open_whole
from dpfc.features.cache.reader import FeatureCache, cache_schema

__all__ = ["EXPORT_SUFFIXES", "export_cache"]


def export_cache(cache: FeatureCache, path: Path) -> None:
    """Write a cache's rows, in their order, to one file that appears whole or not at all.

    At most one shard is in memory.

    Parameters
    ----------
    cache : FeatureCache
    path : Path
        Its ending is the format. ``.npy``: the features, shape (n_samples, n_features).
        ``.npz``: arrays ``X``, and ``y``, ``ids``, ``groups``, ``class_names`` where the cache has
        them. ``.parquet``: columns ``features``, ``label``, ``id``, ``group``, and the class names
        in the schema's ``huggingface`` metadata. ``.csv``: columns ``id``, ``group``, ``label``,
        ``f0``, ``f1``, ….

    Raises
    ------
    FeatureCacheError
        If a shard is damaged.
    OSError
        If the file cannot be written.
    """
    with open_whole(path) as file:
        _WRITERS[path.suffix.lower()](cache, file)


def _write_npy(cache: FeatureCache, file: IO[bytes]) -> None:
    shape, dtype = (len(cache), cache.n_features), cache.description.dtype
    _write_array(file, shape, dtype, (X for X, _ in cache.blocks()))


def _write_npz(cache: FeatureCache, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with _member(archive, "X.npy") as member:
            _write_npy(cache, member)
        arrays: dict[str, NDArray[Any]] = {}
        if cache.description.has_labels:
            arrays["y"] = cache.read_labels()
        if cache.description.has_ids:
            arrays["ids"] = _texts(cache, "id")
        if cache.description.has_groups:
            arrays["groups"] = _texts(cache, "group")
        if cache.class_names is not None:
            arrays["class_names"] = np.array(cache.class_names, dtype=np.str_)
        for name, array in arrays.items():
            with _member(archive, f"{name}.npy") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _texts(cache: FeatureCache, column: str) -> NDArray[np.str_]:
    texts = [table.column(column).to_pylist() for table in cache.tables()]
    return np.array(list(chain.from_iterable(texts)), dtype=np.str_)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # A fixed time: the same cache gives the same bytes.
    return archive.open(zipfile.ZipInfo(name), "w", force_zip64=True)


def _write_array(
    file: IO[bytes], shape: tuple[int, int], dtype: str, blocks: Iterator[NDArray[np.floating]]
) -> None:
    """Write an array in NumPy's format, without ever holding it whole."""
    kind = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=dtype).data)


def _write_parquet(cache: FeatureCache, file: IO[bytes]) -> None:
    import pyarrow.parquet as pq

    schema = cache_schema(cache.description)
    if cache.class_names is not None:
        label = {"names": cache.class_names, "_type": "ClassLabel"}
        info = {"info": {"features": {"label": label}}}
        schema = schema.with_metadata({"huggingface": json.dumps(info)})
    with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer:
        for table in cache.tables():
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def _write_csv(cache: FeatureCache, file: IO[bytes]) -> None:
    about = cache.description
    present = {"id": about.has_ids, "group": about.has_groups, "label": about.has_labels}
    names = [name for name, there in present.items() if there]
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    write_csv(text, [[*names, *(f"f{i}" for i in range(cache.n_features))]])
    for table in cache.tables():
        X = table.column("features").combine_chunks().flatten().to_numpy()
        others = [table.column(name).to_pylist() for name in names]
        # NumPy's scalars print the fewest digits that give the same number back.
        rows = zip(X.reshape(-1, cache.n_features), *others, strict=True)
        write_csv(text, ([*values, *features] for features, *values in rows))
    text.detach()


_WRITERS: dict[str, Callable[[FeatureCache, IO[bytes]], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
EXPORT_SUFFIXES = tuple(_WRITERS)
