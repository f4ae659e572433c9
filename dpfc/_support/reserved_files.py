"""Files whose room on the disk is taken before they are needed, and that appear whole."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from dpfc._support.files import NEW_FILE, check_replaceable

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing left behind is known for stale
    fcntl = None  # type: ignore[assignment]

__all__ = ["ReservedFile", "remove_stale"]

_SUFFIX = ".part"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
        if found.name.startswith(f".{path.name}.") and found.name.endswith(_SUFFIX):
            with suppress(OSError):
                descriptor = os.open(found, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        found.unlink()
                finally:
                    os.close(descriptor)


def _create(path: Path, *, shared: bool) -> tuple[int, Path]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(temporary, NEW_FILE, 0o666 if shared else 0o600)
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
