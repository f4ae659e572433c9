"""A model's file appears whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dpfc.exceptions import ModelFileError

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside the target, flush, and rename.

    Raises
    ------
    ModelFileError
        If that fails; no partial file is left.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are for their owner only; the model gets the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ModelFileError(f"cannot write the model to {path}: {error.strerror}.") from error
