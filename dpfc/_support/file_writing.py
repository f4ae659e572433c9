"""Models' files, which appear whole or not at all, and take no other file's place."""

from __future__ import annotations

import json
from pathlib import Path

from dpfc._support.files import IrregularFileError, open_regular, open_whole
from dpfc.exceptions import ModelFileError

__all__ = ["check_own_place", "open_whole", "write_model"]

_FORMATS = "dpfc-"  # what the names of all formats of ours begin with
_HEADER_BYTES = 100_000_000  # the most that safetensors allows


def write_model(path: Path, data: bytes) -> None:
    """Write a model's file.

    Raises
    ------
    ModelFileError
        If that fails, or would replace what is no model of ours; no partial file is left.
    """
    try:
        check_own_place(path)
        with open_whole(path) as file:
            file.write(data)
    except OSError as error:
        raise ModelFileError(f"cannot write the model to {path}: {error.strerror}.") from error


def check_own_place(path: Path) -> None:
    """Refuse a name that is taken by anything but a model of dpfc, or an empty file.

    Raises
    ------
    ModelFileError
        If the file there is another.
    OSError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(size) if size <= _HEADER_BYTES else b""
            empty = file.seek(0, 2) == 0
    except (FileNotFoundError, IrregularFileError):
        return  # free, or refused where it is written
    if not (empty or _is_ours(header)):
        raise ModelFileError(
            f"{path} is there and no model file of dpfc: only such are replaced. Choose another "
            "name, or remove it first."
        )


def _is_ours(header: bytes) -> bool:
    try:
        known = json.loads(header)["__metadata__"]["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(known, str) and known.startswith(_FORMATS)
