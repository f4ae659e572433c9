"""Writing a feature cache so that a kill at any moment loses at most one shard."""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from dpfc._support.files import sha256_of_file, write_whole
from dpfc.features.cache.manifest import (
    MANIFEST_NAME,
    SHARD_NAME,
    CacheDescription,
    Manifest,
    Shard,
    Skipped,
    shard_name,
)
from dpfc.features.cache.reader import cache_schema
from dpfc.features.exceptions import FeatureCacheError

__all__ = ["FeatureCacheWriter", "exclusive_lock", "is_cache_file", "refuse_overwritten"]

_TEMPORARY_SUFFIX = ".tmp"
# The random part is absent in the names that the first versions gave.
_TEMPORARY = re.compile(
    r"\.(?P<name>.+?)(\.[0-9a-f]{16}|\.[a-z0-9_]{8})?" + re.escape(_TEMPORARY_SUFFIX)
)


class FeatureCacheWriter:
    """Write a feature cache, or go on with one.

    Use it in a ``with`` statement, which locks the folder, and end it with `finish`. Leaving
    without that, or being killed, keeps the finished shards, and a writer with the same
    description goes on after row `n_covered` of the data set.

    Parameters
    ----------
    path : str or Path
        The folder: new, empty, or a feature cache with the same description.
    description : CacheDescription
        What the rows are.
    overwrite : bool
        Start afresh over another feature cache. Folders that hold anything else are refused.

    Attributes
    ----------
    n_written : int
        Rows in finished shards.
    n_covered : int
        Rows of the data set that finished shards cover: those written and those skipped.
    is_complete : bool
        Whether nothing is left to write.

    Raises
    ------
    FeatureCacheError
        On entering, if the folder is foreign, locked, damaged, not writable, or a cache with
        another description (the message names what differs); later, if a write fails.
    """

    def __init__(
        self, path: str | Path, description: CacheDescription, *, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self._manifest = Manifest(description)
        self._overwrite = overwrite
        self._schema = cache_schema(description)
        self._pending = 0
        self._skipped: list[Skipped] = []
        self._stack = ExitStack()

    @property
    def n_written(self) -> int:
        """Rows in finished shards."""
        return sum(shard.rows for shard in self._manifest.shards)

    @property
    def n_covered(self) -> int:
        """Rows of the data set that finished shards cover."""
        return self.n_written + len(self._manifest.skipped)

    @property
    def shard_rows(self) -> int:
        """Rows that every shard but the last covers."""
        return self._manifest.description.shard_rows

    @property
    def is_complete(self) -> bool:
        """Whether the cache was complete when it was opened, or is now."""
        return self._manifest.complete

    def __enter__(self) -> "FeatureCacheWriter":
        with ExitStack() as stack, _clear_errors(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise FeatureCacheError(f"{self.path} is a file: choose a folder for the cache.")
            self.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive_lock(self.path))
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def finish(self) -> None:
        """Write the last shard and mark the cache complete; does nothing if it is.

        Raises
        ------
        FeatureCacheError
            If there are no rows, or the disk refuses.
        """
        if self.is_complete:
            return
        if self._pending or self._skipped:
            self._finish_shard()
        if self.n_written == 0:
            raise FeatureCacheError(f"no rows were written to {self.path}.")
        self._save(replace(self._manifest, complete=True))

    def write(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Append rows. Shards are written as they fill up.

        Parameters
        ----------
        X : array-like, shape (n, n_features)
            Features; rounded to the cache's dtype.
        y : array-like of int, shape (n,), optional
            Labels; needed if and only if the description says so.
        ids : sequence of str, length n, optional
            Ids; needed if and only if the description says so.
        groups : sequence of str, length n, optional
            Whose rows they are, none of them empty; needed if and only if the description says so.

        Raises
        ------
        ValueError
            If shapes or columns are not those of the description.
        FeatureCacheError
            If a feature is not finite in the cache's dtype, or a shard cannot be written.
        """
        if self.is_complete:
            raise ValueError("the cache is complete: nothing can be appended.")
        features, labels = self._checked(X, y, ids, groups)
        start = 0
        while start < len(features):
            rows = min(self._room(), len(features) - start)
            source = slice(start, start + rows)
            target = slice(self._pending, self._pending + rows)
            self._features[target] = features[source]
            self._labels[target] = 0 if labels is None else labels[source]
            self._ids += [] if ids is None else ids[source]
            self._groups += [] if groups is None else groups[source]
            self._pending += rows
            start += rows
            if self._room() == 0:
                self._finish_shard()

    def note_passes(self, passes: Mapping[str, str]) -> None:
        """Note how rows go through the backbone; shards whose rows went otherwise are redone.

        Parameters
        ----------
        passes : mapping of str to str
            For the manifest; see `RowCheck.describe`.
        """
        found = self._manifest
        if found.passes == dict(passes):
            return
        # Of caches of older versions it is not known how their rows went.
        self._save(replace(found.first(0), passes=dict(passes)))
        self._remove_leftovers()

    def skip(self, row_id: str, reason: str) -> None:
        """Note that a row is left out; it takes a row's room in its shard all the same.

        So a shard covers the same rows of the data set whatever is skipped.

        Parameters
        ----------
        row_id : str
            Id of the row.
        reason : str
            Why; stands in the manifest.
        """
        if self.is_complete:
            raise ValueError("the cache is complete: nothing can be appended.")
        self._skipped.append(Skipped(row_id, reason, len(self._manifest.shards)))
        if self._room() == 0:
            self._finish_shard()

    def _room(self) -> int:
        """Rows that the current shard can still cover."""
        return self.shard_rows - self._pending - len(self._skipped)

    def _checked(
        self,
        X: ArrayLike,
        y: ArrayLike | None,
        ids: Sequence[str] | None,
        groups: Sequence[str] | None,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        about = self._manifest.description
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != about.n_features:
            raise ValueError(f"X must have shape (n, {about.n_features}), got {X.shape}.")
        columns = (
            ("y", y, about.has_labels),
            ("ids", ids, about.has_ids),
            ("groups", groups, about.has_groups),
        )
        for name, column, wanted in columns:
            if (column is not None) != wanted:
                raise ValueError(f"{name} must{'' if wanted else ' not'} be given for this cache.")
            if column is not None and np.shape(column) != (len(X),):
                raise ValueError(f"{name} must have shape ({len(X)},), got {np.shape(column)}.")
        if not all(isinstance(group, str) and group for group in groups or ()):
            raise ValueError("groups must be strings, none of them empty.")
        with np.errstate(over="ignore"):
            features = X.astype(about.dtype)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            row = repr(ids[bad[0]]) if ids is not None else self.n_written + self._pending + bad[0]
            remedy = (
                "store the cache as float32"
                if np.isfinite(X[bad]).all()
                else "the backbone's output itself is not finite"
            )
            raise FeatureCacheError(
                f"features of row {row} are not finite as {about.dtype}: {remedy}."
            )
        return features, None if y is None else _as_labels(y)

    def _prepare(self) -> None:
        """Find what is there and go on from it, or start afresh, or refuse."""
        names = {path.name for path in self.path.iterdir()}
        foreign = [name for name in names if not is_cache_file(name)]
        if self._overwrite:
            if foreign:
                raise self._foreign(foreign)
            # The manifest first: from here on, old shards are known to be stale.
            self._save(self._manifest)
        elif MANIFEST_NAME in names:
            self._resume(Manifest.read(self.path))
        elif any(not name.startswith(".") for name in names) or foreign:
            raise self._foreign(sorted(names))
        else:
            self._save(self._manifest)
        if not self.is_complete:
            self._remove_leftovers()
            about = self._manifest.description
            self._features = np.empty((about.shard_rows, about.n_features), dtype=about.dtype)
            self._labels = np.empty(about.shard_rows, dtype=np.int32)
            self._ids: list[str] = []
            self._groups: list[str] = []

    def _resume(self, found: Manifest) -> None:
        differences = found.description.differences(self._manifest.description)
        if differences:
            raise FeatureCacheError(
                f"{self.path} holds a feature cache of something else; it differs (there, here) "
                f"in {'; '.join(differences)}. Choose another folder, or start afresh with "
                "overwrite=True."
            )
        whole = [self._is_whole(shard) for shard in found.shards]
        if found.complete and all(whole):
            self._manifest = found
            return
        # Shards after a damaged one, and a short one, which only ends a cache, are redone.
        kept = whole.index(False) if False in whole else len(whole)
        if kept and found.covered(kept - 1) < found.description.shard_rows:
            kept -= 1
        self._save(found.first(kept))

    def _is_whole(self, shard: Shard) -> bool:
        try:
            return sha256_of_file(self.path / shard.file) == shard.sha256
        except FileNotFoundError:
            return False

    def _remove_leftovers(self) -> None:
        """Remove what a killed or overwritten run left: temporaries and unlisted shards."""
        listed = {shard.file for shard in self._manifest.shards}
        for path in self.path.iterdir():
            if is_cache_file(path.name) and path.name not in {MANIFEST_NAME, *listed}:
                path.unlink()

    def _finish_shard(self) -> None:
        index = len(self._manifest.shards)
        columns: dict[str, Any] = {"features": self._features[: self._pending].ravel()}
        columns["label"] = self._labels[: self._pending]
        columns["id"], columns["group"] = self._ids, self._groups
        data = _encode(columns, self._schema)
        shard = Shard(shard_name(index), self._pending, hashlib.sha256(data).hexdigest())
        with _clear_errors(self.path):
            _write(self.path / shard.file, data)
        listed = self._manifest
        self._save(
            replace(
                listed,
                shards=(*listed.shards, shard),
                skipped=(*listed.skipped, *self._skipped),
            )
        )
        self._pending, self._ids, self._groups, self._skipped = 0, [], [], []

    def _save(self, manifest: Manifest) -> None:
        with _clear_errors(self.path):
            _write(self.path / MANIFEST_NAME, manifest.to_json())
        self._manifest = manifest

    def _foreign(self, names: Sequence[str]) -> FeatureCacheError:
        return FeatureCacheError(
            f"{self.path} holds files that are not a feature cache's (such as {names[0]!r}): "
            "choose a new or empty folder."
        )


def _as_labels(y: ArrayLike) -> NDArray[np.int32]:
    labels = np.asarray(y)
    narrow = labels.astype(np.int32) if labels.dtype.kind in "iu" else None
    if narrow is None or not np.array_equal(narrow, labels):
        raise ValueError("y must hold integers that fit into 32 bits.")
    return narrow


def is_cache_file(name: str) -> bool:
    """Whether a file name is one that a writer gives."""
    found = _TEMPORARY.fullmatch(name)
    name = name if found is None else found["name"]
    return name == MANIFEST_NAME or SHARD_NAME.fullmatch(name) is not None


def refuse_overwritten(out: Path, sources: Iterable[Path]) -> None:
    """Refuse to start afresh over what a cache is to be made from.

    Raises
    ------
    FeatureCacheError
        If a source is the folder itself, or a file that it would lose; also through links.
    """
    if not out.is_dir():
        return
    lost = [out, *(path for path in out.iterdir() if is_cache_file(path.name))]
    for source in filter(Path.exists, sources):
        if any(path.exists() and path.samefile(source) for path in lost):
            raise FeatureCacheError(
                f"{source} is what the cache is made from, and overwriting {out} would remove it: "
                "choose another folder."
            )


def _encode(columns: dict[str, Any], schema: pa.Schema) -> memoryview:
    """A shard as the bytes of a Parquet file; the same bytes for the same rows."""
    arrays = []
    for field in schema:
        values = pa.array(columns[field.name])
        if field.name == "features":
            values = pa.FixedSizeListArray.from_arrays(values, type=field.type)
        arrays.append(values)
    sink = pa.BufferOutputStream()
    # Uncompressed: solvers read the cache many times, and features hardly compress.
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        sink,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        row_group_size=max(len(arrays[0]), 1),
    )
    return memoryview(sink.getvalue())


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into one sentence."""
    try:
        yield
    except OSError as error:
        raise FeatureCacheError(
            f"cannot write the feature cache {path} ({error.strerror}): {_advice_for(error)}."
        ) from error


def _write(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole, and flush its folder, so that its name outlives a power cut."""
    write_whole(path, data, suffix=_TEMPORARY_SUFFIX)
    if os.name != "posix":
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one writer.

    The lock sits on the folder itself: nothing is left behind, a killed process frees it, and
    a folder that may only be read can be locked too. Where the system has no ``flock``
    (Windows) nothing is locked.

    Raises
    ------
    FeatureCacheError
        If another process holds the folder.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeatureCacheError(
                f"another process is writing to {folder}: wait until it ends, "
                "or choose another folder."
            ) from error
        yield
    finally:
        os.close(descriptor)


def _advice_for(error: OSError) -> str:
    """What a user can do about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run the same command again: finished shards are kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    return "check the path and the disk, then run the same command again"
