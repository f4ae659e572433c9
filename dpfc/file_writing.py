"""Models' files, which appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from dpfc._support.files import open_whole
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
