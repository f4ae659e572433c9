"""Models' files: bytes that hang on nothing but the model, and that take no other file's place."""

from __future__ import annotations

import json
from pathlib import Path

from dpfc._support.files import IrregularFileError, open_regular, write_whole
from dpfc.exceptions import ModelFileError

__all__ = ["in_order", "write_model"]

_FORMATS = "dpfc-"  # what the names of all formats of ours begin with
_LENGTH_BYTES = 8
_HEADER_BYTES = 100_000_000  # the most that safetensors allows


def in_order(data: bytes) -> bytes:
    """Sort a safetensors file's metadata, which the library writes in an order drawn anew.

    References
    ----------
    The format: https://github.com/huggingface/safetensors#format
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:end])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps(
        {"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors stay aligned
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[end:]


def write_model(path: Path, data: bytes) -> None:
    """Write a model's file.

    Raises
    ------
    ModelFileError
        If that fails, or would replace what is no model of ours; no partial file is left.
    """
    try:
        _check_own_place(path)
        write_whole(path, data)
    except OSError as error:
        raise ModelFileError(f"cannot write the model to {path}: {error.strerror}.") from error


def _check_own_place(path: Path) -> None:
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
            size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
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
