"""Features from NumPy's files: ``.npy``, mapped into memory, and ``.npz``, read as a stream."""

import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import IrregularFileError, open_regular
from dpfc._support.limits import LimitError, check_limit, shown_count
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.rows import BLOCK_ROWS, Columns, Rows, chosen_column, place_in

__all__ = ["NpyFile", "NpzFile", "check_column", "open_npy"]

_FEATURES = {"X", "features", "embeddings", "embedding", "vectors"}
_LABELS = {"y", "labels", "label"}
_IDS = {"ids", "id"}
_CLASS_NAMES = "class_names"
# Kinds of dtype. Whether a float is whole is seen when labels are read.
_ID_KINDS = "iuU"
LABEL_KINDS = "iufbU"
_VERSIONS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_GOES_ON = "goes on behind the array that its header states: fetch or write the file again."
# Of the record that ends a zip archive; its number of members where that does not fit in there.
_END_BYTES, _END_MARK, _MORE = 22, b"PK\5\6", 0xFFFF
# What the header of a pickle starts with; NumPy writes and reads those as .npy on request.
_PICKLE = b"\x80"
# What a damaged archive raises, by its compression.
_DAMAGES = (
    *(OSError, ValueError, EOFError, KeyError, RuntimeError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]


class NpyFile:
    """An array of shape (n_samples, n_features) in an ``.npy`` file.

    Raises
    ------
    DatasetError
        If the file holds anything else, pickled objects for one.
    """

    has_labels = False
    has_ids = False
    has_groups = False
    keeps_order = True
    class_names = None

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        label = None if columns.labels_apart else columns.label
        named = {"features": columns.features, "label": label, "id": columns.id}
        named["group"] = columns.group_beside
        for option, value in named.items():
            if value is not None:
                raise DatasetError(
                    f"{option}_column={value!r} does not apply to {path}, which holds one array "
                    "without names: leave it away; labels and groups go into files of their own "
                    "(labels, groups)."
                )
        self._array = open_npy(path)
        check_array(path, self._array.shape, self._array.dtype)

    def rows(self) -> Iterator[Rows]:
        """Read blocks of rows."""
        for start in range(0, len(self._array), BLOCK_ROWS):
            yield Rows(place_in("row", start, self.path), self._array[start : start + BLOCK_ROWS])


class NpzFile:
    """Arrays in an ``.npz`` file: features, and labels, ids and class names where it has them.

    Compressed or not, at most a block of rows is in memory; an array in Fortran order is read
    whole.

    Raises
    ------
    DatasetError
        If the file is none, arrays do not fit together, or several could be meant.
    """

    keeps_order = True

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        with _reading(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
            _check_members(file, archive)
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            if len(set(names)) < len(names):
                raise DatasetError(f"{path} holds two arrays of one name: write it again.")
            self._features = self._choose_features(names, columns.features)
            ids = chosen_column(path, "array", names, "id_column", columns.id, _IDS)
            labels = None
            if not columns.labels_apart:
                labels = chosen_column(path, "array", names, "label_column", columns.label, _LABELS)
            wanted = columns.group_beside
            groups = chosen_column(path, "array", names, "group_column", wanted, set())
            others = {"ids": ids, "labels": labels, "groups": groups}
            self._others = {key: name for key, name in others.items() if name is not None}
            self._check(archive)
            named = labels is not None and _CLASS_NAMES in names
            self.class_names = self._read_names(archive) if named else None
        self.has_labels = "labels" in self._others
        self.has_ids = "ids" in self._others
        self.has_groups = "groups" in self._others

    def rows(self) -> Iterator[Rows]:
        """Read blocks of rows."""
        start = 0
        with _reading(self.path), ExitStack() as stack:
            file = stack.enter_context(open_regular(self.path))
            archive = stack.enter_context(zipfile.ZipFile(file))

            def stream(name: str) -> Iterator[NDArray[Any]]:
                member = stack.enter_context(archive.open(f"{name}.npy"))
                return _stream(member, self._what(name))

            keys = list(self._others)
            streams = [stream(name) for name in (self._features, *self._others.values())]
            for X, *others in zip(*streams, strict=True):
                lists = {key: other.tolist() for key, other in zip(keys, others, strict=True)}
                yield Rows(place_in("row", start, self.path), X, **lists)
                start += len(X)

    def _choose_features(self, names: list[str], wanted: str | None) -> str:
        name = chosen_column(self.path, "array", names, "features_column", wanted, _FEATURES)
        if name is None and len(names) == 1:
            return names[0]
        if name is None:
            raise DatasetError(
                f"{self.path} holds arrays {', '.join(names) or '(none)'}: name the one with the "
                "features with features_column, that of the labels with label_column."
            )
        return name

    def _check(self, archive: zipfile.ZipFile) -> None:
        """Refuse arrays that do not fit together, by their headers."""

        def header(name: str) -> Header:
            with archive.open(f"{name}.npy") as member:
                return _read_header(member, self._what(name))

        shape, _, dtype = header(self._features)
        check_array(self._what(self._features), shape, dtype)
        for key, name in self._others.items():
            other, _, dtype = header(name)
            check_column(self._what(name), other, dtype, _ID_KINDS if key == "ids" else LABEL_KINDS)
            if other[0] != shape[0]:
                raise DatasetError(
                    f"{self._what(name)} has {other[0]} rows, {self._features!r} has {shape[0]}: "
                    "they must have as many."
                )

    def _what(self, name: str) -> str:
        return f"array {name!r} of {self.path}"

    def _read_names(self, archive: zipfile.ZipFile) -> list[str]:
        what = self._what(_CLASS_NAMES)
        with archive.open(f"{_CLASS_NAMES}.npy") as member:
            names = np.concatenate([*_stream(member, what), np.empty(0, np.str_)])
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DatasetError(f"{what} must hold strings, in one dimension.")
        return [str(name) for name in names]


def _check_members(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Refuse an archive in which a changed byte hides an array or gives it another name."""
    for member in archive.infolist():
        archive.open(member).close()  # its name stands beside its content, too
    file.seek(-_END_BYTES, os.SEEK_END)
    end = file.read(_END_BYTES)
    stated = int.from_bytes(end[10:12], "little")
    # Where a comment follows, this is not the record; where there are more, another has the number.
    if end.startswith(_END_MARK) and stated not in (len(archive.infolist()), _MORE):
        raise zipfile.BadZipFile("it states another number of members")


def open_npy(path: Path) -> NDArray[Any]:
    """Map an ``.npy`` file's array into memory.

    Raises
    ------
    DatasetError
        If it is none, is cut short, or holds pickled objects.
    """
    with _reading(path):
        with open_regular(path) as file:
            shape, _, dtype = _read_header(file, str(path))
            held = os.fstat(file.fileno()).st_size - file.tell()
        if held > math.prod(shape) * dtype.itemsize:
            raise DatasetError(f"{path} {_GOES_ON}")
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OverflowError, TypeError) as error:  # of sizes that no memory has
            raise ValueError(str(error)) from error
    return array


def check_array(what: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that cannot be features.

    Raises
    ------
    DatasetError
        If it has not two dimensions, is empty, or does not hold real numbers.
    """
    if len(shape) != 2:
        raise DatasetError(
            f"{what} has {len(shape)} dimensions: features need two, (n_samples, n_features)."
        )
    if min(shape) < 1:
        raise DatasetError(f"{what} is empty: it has {shape[0]} rows of {shape[1]} features.")
    if dtype.kind not in "fiu":
        raise DatasetError(
            f"{what} holds {dtype.name}, where features are real numbers: convert it with "
            "astype('float32')."
        )


def check_column(
    what: str, shape: tuple[int, ...], dtype: np.dtype[Any], kinds: str = LABEL_KINDS
) -> None:
    """Refuse an array that cannot be labels or, by their `kinds`, ids.

    Raises
    ------
    DatasetError
        If it has not one dimension, or holds neither numbers (for ids: integers) nor strings.
    """
    if len(shape) != 1:
        raise DatasetError(f"{what} has {len(shape)} dimensions: it needs one. Write it flat.")
    if dtype.kind not in kinds:
        raise DatasetError(f"{what} holds {dtype.name}: it must hold integers or strings.")


def _stream(member: IO[bytes], what: str) -> Iterator[NDArray[Any]]:
    """Yield blocks of rows of an array that stands in a stream."""
    shape, fortran_order, dtype = _read_header(member, what)
    if not shape:
        raise DatasetError(f"{what} is a single value: it needs one dimension.")
    yield from _blocks(member, what, shape, dtype, fortran_order=fortran_order)
    # Its checksum, too, is looked at when the end is.
    if member.read(1):
        raise DatasetError(f"{what} {_GOES_ON}")


def _blocks(
    member: IO[bytes],
    what: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    fortran_order: bool,
) -> Iterator[NDArray[Any]]:
    count = math.prod(shape[1:])
    if fortran_order and len(shape) > 1:
        size = math.prod(shape) * dtype.itemsize
        _check_bytes(size, f"{what} is in Fortran order and has {shown_count(size)} bytes")
        whole = _read_values(member, dtype, shape[0] * count, what).reshape(shape, order="F")
        for start in range(0, shape[0], BLOCK_ROWS):
            yield whole[start : start + BLOCK_ROWS]
        return
    size = min(BLOCK_ROWS, shape[0]) * count * dtype.itemsize
    _check_bytes(size, f"a block of {what} has {shown_count(size)} bytes")
    for start in range(0, shape[0], BLOCK_ROWS):
        rows = min(BLOCK_ROWS, shape[0] - start)
        yield _read_values(member, dtype, rows * count, what).reshape(rows, *shape[1:])


def _check_bytes(size: int, what: str) -> None:
    try:
        check_limit("array_bytes", size, what)
    except LimitError as error:
        raise DatasetError(str(error)) from None


def _read_values(member: IO[bytes], dtype: np.dtype[Any], count: int, what: str) -> NDArray[Any]:
    data = member.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise DatasetError(f"{what} is cut short: fetch or write the file again.")
    return np.frombuffer(data, dtype=dtype, count=count)


def _read_header(file: IO[bytes], what: str) -> Header:
    """Shape, order and dtype of an array; nothing of it is unpickled."""
    start = file.read(1)
    file.seek(0)
    if start == _PICKLE:
        raise DatasetError(
            f"{what} is a pickle, which could run code when it is read: save the array with "
            "np.save(…, allow_pickle=False)."
        )
    try:
        shape, fortran_order, dtype = _VERSIONS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # a damaged header raises whatever it likes
        raise DatasetError(f"{what} is not an array as np.save writes it.") from error
    if not all(type(side) is int and side >= 0 for side in shape):
        raise DatasetError(f"{what} states a shape that is none: fetch or write the file again.")
    if dtype.hasobject:
        raise DatasetError(
            f"{what} holds Python objects, which are pickled and could run code when they are "
            "read: convert it with astype('float32') (labels: to integers or strings)."
        )
    return shape, fortran_order, dtype


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one sentence."""
    try:
        yield
    except DatasetError:
        raise
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist.") from None
    except IrregularFileError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error
    except _DAMAGES as error:
        raise DatasetError(
            f"{path} cannot be read: it is damaged or cut short. Fetch or write it again."
        ) from error
