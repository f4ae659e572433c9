"""Files that appear whole or not at all, and a lock that dies with its process."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dpfc.features.exceptions import FeatureCacheError

TEMPORARY_SUFFIX = ".tmp"
_CHUNK_BYTES = 1 << 20


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def temporary_name(name: str) -> str:
    """Name that `write_atomically` gives a file until it is whole."""
    return f".{name}{TEMPORARY_SUFFIX}"


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk and rename it.

    Only one process may write a given path at a time: the temporary name is fixed, so that
    what a killed process left behind is known and overwritten.

    Raises
    ------
    OSError
        If the file cannot be written; the temporary file is removed.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename outlives a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
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


def advice_for(error: OSError) -> str:
    """What a user can do about a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run the same command again: finished shards are kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that you may write to"
    return "check the path and the disk, then run the same command again"
