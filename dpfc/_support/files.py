"""The one way to files: only regular ones are read or replaced, and new ones appear whole.

A pipe, socket or device under a file's name hangs a reader, fills its memory, or would be
replaced by a file. What is opened is checked on its descriptor, so that nothing can be put in
its place in between. What is written gets a random name first, which must be new and no link.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from dpfc._support.limits import check_limit

__all__ = [
    "NEW_FILE",
    "IrregularFileError",
    "check_regular",
    "check_replaceable",
    "error_words",
    "flush_folder",
    "open_regular",
    "open_text",
    "open_whole",
    "read_regular",
    "write_whole",
]

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# A pipe is opened without waiting for its other end, a terminal without making it ours.
_READING = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
# Nobody can have put a link there.
NEW_FILE = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_BUFFER_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class IrregularFileError(OSError):
    """A name that should be a file's is that of a pipe, a socket or a device."""

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        words = f"it is {kind}, and only regular files are read or replaced"
        super().__init__(errno.EINVAL, words, os.fspath(path))


def error_words(error: BaseException) -> str:
    """What an error says, in a sentence's middle: of the system's, no number and no name twice."""
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split()).removesuffix(".")


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, for libraries that open files by their names themselves.

    Links are followed.

    Raises
    ------
    IrregularFileError
        If it is a pipe, a socket or a device.
    OSError
        If there is nothing of that name, or a folder.
    """
    _check_mode(os.stat(path).st_mode, path)  # noqa: PTH116  # paths may be strings


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Refuse a name that a new file must not take; one that is free is allowed.

    A link to a regular file would be replaced, and what it leads to left alone.

    Raises
    ------
    IrregularFileError
        If it is a pipe, a socket or a device, or a link to one.
    OSError
        If it is a folder.
    """
    with suppress(FileNotFoundError):
        check_regular(path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises
    ------
    IrregularFileError
        If it is a pipe, a socket or a device, or a link to one; it is not read then.
    OSError
        If it cannot be opened, or is a folder.
    """
    check_regular(path)  # opening alone acts on some devices
    descriptor = os.open(path, _READING)
    try:
        _check_mode(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb", buffering=_BUFFER_BYTES)
    except BaseException:
        os.close(descriptor)
        raise


def open_text(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", newline: str | None = None
) -> TextIO:
    """Open a regular file to read its text; raises as `open_regular` does."""
    import io

    return io.TextIOWrapper(open_regular(path), encoding=encoding, newline=newline)


def read_regular(path: str | os.PathLike[str], limit: str | None = None) -> bytes:
    """Content of a regular file.

    Parameters
    ----------
    path : path-like
    limit : str, optional
        Name of the limit in `dpfc._support.limits` on its bytes, for files that are parsed as
        a whole.

    Raises
    ------
    OSError
        As `open_regular`.
    LimitError
        If the file is larger.
    """
    with open_regular(path) as file:
        if limit is not None:
            size = os.fstat(file.fileno()).st_size
            check_limit(limit, size, f"{os.fspath(path)} has {size:,} bytes")
        return file.read()


@contextmanager
def open_whole(path: Path, *, shared: bool = True, suffix: str = "") -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block ends, and leaves nothing if it fails.

    Parameters
    ----------
    path : Path
        What it replaces may be a regular file only.
    shared : bool
        Whether others may read it, as the umask allows.
    suffix : str
        End of the random name that it has until then, after ``.NAME.``.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    check_replaceable(path)
    # Named before it is made: Ctrl-C in between, too, leaves nothing whose name is not known here.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{suffix}")
    try:
        with os.fdopen(os.open(temporary, NEW_FILE, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if shared:
            temporary.chmod(0o666 & ~_umask())
        check_replaceable(path)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)  # a write has none to tell
        raise


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name beside it, flush it to disk and rename it.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left of it then.
    """
    with open_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename outlives a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_mode(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise IrregularFileError(path, kind)


def _umask() -> int:
    """Permissions that new files do not get; can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
