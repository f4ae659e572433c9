"""Files that appear whole or not at all, and a lock that dies with its process."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpfc._support.files import (
    IrregularFileError,
    check_replaceable,
    flush_folder,
    open_regular,
    open_whole,
)
from dpfc.features.exceptions import DatasetError, FeatureCacheError

TEMPORARY_SUFFIX = ".tmp"
_CHUNK_BYTES = 1 << 20
# The random part is absent in the names that the first versions gave.
_TEMPORARY = re.compile(
    r"\.(?P<name>.+?)(\.[0-9a-f]{16}|\.[a-z0-9_]{8})?" + re.escape(TEMPORARY_SUFFIX)
)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a regular file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def final_name(temporary: str) -> str | None:
    """Name that a file of `write_atomically` was to get; None if it is not one of its."""
    found = _TEMPORARY.fullmatch(temporary)
    return found["name"] if found is not None else None


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a random temporary name, flush it to disk and rename it.

    What a killed process leaves behind is known by its name, see `final_name`.

    Raises
    ------
    OSError
        If the file cannot be written, or would replace what is no regular file; the temporary
        file is removed.
    """
    with open_whole(path, suffix=TEMPORARY_SUFFIX) as file:
        file.write(data)
    flush_folder(path.parent)


def refuse_irregular(path: Path) -> None:
    """Refuse a pipe, a socket or a device; what is not there is left to the caller.

    Raises
    ------
    DatasetError
        Says which it is.
    """
    try:
        check_replaceable(path)
    except IrregularFileError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error


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


def advice_for(error: OSError) -> str:
    """What a user can do about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run the same command again: finished shards are kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    return "check the path and the disk, then run the same command again"
