"""The one way to files: only regular ones are read or replaced, and new ones appear whole.

A pipe, socket or device under a file's name hangs a reader, fills its memory, or would be
replaced by a file. What is opened is checked on its descriptor, so that nothing can be put in
its place in between. What is written gets a random name first, which must be new and no link.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self, TextIO

from dpfc._support.limits import check_limit

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing left behind is known for stale
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "IrregularFileError",
    "ReservedFile",
    "check_regular",
    "check_replaceable",
    "error_words",
    "open_regular",
    "open_text",
    "open_whole",
    "read_regular",
    "remove_stale",
    "sha256_of_file",
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
_NEW_FILE = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_BUFFER_BYTES = 1 << 20
_RESERVED_SUFFIX = ".part"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
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


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
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
        return io.BufferedReader(io.FileIO(descriptor), _BUFFER_BYTES)
    except BaseException:
        os.close(descriptor)
        raise


def open_text(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", newline: str | None = None
) -> TextIO:
    """Open a regular file to read its text; raises as `open_regular` does."""
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


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a regular file's content, in hexadecimal; raises as `open_regular` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_whole(path: Path, *, suffix: str = "") -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block ends, and leaves nothing if it fails.

    Parameters
    ----------
    path : Path
        What it replaces may be a regular file only.
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
        with os.fdopen(os.open(temporary, _NEW_FILE, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check_replaceable(path)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)  # a write has none to tell
        raise


def write_whole(path: Path, data: bytes | memoryview | str, *, suffix: str = "") -> None:
    """Write a file under a temporary name beside it, flush it to disk and rename it.

    `suffix` is the end of the temporary name, by which what a killed process leaves is known.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left of it then.
    """
    with open_whole(path, suffix=suffix) as file:
        file.write(data.encode() if isinstance(data, str) else data)


class ReservedFile:
    """A file under a random name beside its own, locked while its process lives.

    Parameters
    ----------
    path : Path
        The name that `publish` gives it.
    n_bytes : int
        Room to take on the disk now.
    shared : bool
        Whether others may read it, as the umask allows.

    Raises
    ------
    OSError
        If there is no such room, or its folder cannot be written to.
    """

    def __init__(self, path: Path, n_bytes: int = 0, *, shared: bool = True):
        self.path = path
        self._descriptor, self._temporary = _create(path, shared=shared)
        try:
            if n_bytes:
                _allocate(self._descriptor, n_bytes)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Write the whole content, into the room that was taken, and flush it to disk.

        Raises
        ------
        OSError
        """
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        rest = memoryview(data)
        while len(rest):
            rest = rest[os.write(self._descriptor, rest) :]
        os.ftruncate(self._descriptor, len(data))
        os.fsync(self._descriptor)

    def publish(self, *, replace: bool) -> None:
        """Give the file its name.

        Raises
        ------
        FileExistsError
            If the name is taken, by whomever and however late, and is not to be replaced.
        OSError
        """
        if replace:
            check_replaceable(self.path)
            self._temporary.replace(self.path)
        else:
            _rename_to_free_name(self._temporary, self.path)
        self.close()

    def close(self) -> None:
        """Remove what was not published."""
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_stale(path: Path) -> None:
    """Remove what killed processes left of `ReservedFile`s of this name; nobody holds its lock."""
    if fcntl is None or not path.parent.is_dir():
        return
    for found in path.parent.iterdir():
        if found.name.startswith(f".{path.name}.") and found.name.endswith(_RESERVED_SUFFIX):
            with suppress(OSError):
                descriptor = os.open(found, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        found.unlink()
                finally:
                    os.close(descriptor)


def _check_mode(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise IrregularFileError(path, kind)


def _create(path: Path, *, shared: bool) -> tuple[int, Path]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_RESERVED_SUFFIX}")
        descriptor = os.open(temporary, _NEW_FILE, 0o666 if shared else 0o600)
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another process took it for stale before it was locked


def _allocate(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        chunk = bytes(1 << 20)
        for start in range(0, n_bytes, len(chunk)):
            os.write(descriptor, chunk[: n_bytes - start])
    os.fsync(descriptor)


def _rename_to_free_name(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)  # fails where the name is taken, unlike a rename
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.rename(path)
