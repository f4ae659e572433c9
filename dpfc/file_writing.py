"""Files that appear whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dpfc.exceptions import ModelFileError

__all__ = ["open_whole", "write_model"]


def write_model(path: Path, data: bytes) -> None:
    """Write a model's file.

    Raises
    ------
    ModelFileError
        If that fails; no partial file is left.
    """
    try:
        with open_whole(path) as file:
            file.write(data)
    except OSError as error:
        raise ModelFileError(f"cannot write the model to {path}: {error.strerror}.") from error


@contextmanager
def open_whole(path: Path, *, shared: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block ends, and leaves nothing if it fails.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if shared:  # mkstemp makes files for their owner only
            temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Permissions that new files do not get; can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
