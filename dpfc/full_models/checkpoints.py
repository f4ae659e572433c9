"""One file that a stopped fit goes on from: whole or not there, and checked before it is used.

It holds weights after a step, the state of the optimiser, and what was released so far: all of
it follows from releases. The state of the noise is kept for a seeded, unpublishable run only;
otherwise a fit that goes on draws fresh noise. A salted fingerprint of the private rows, which
tells whether they are the same, makes the file secret: only its owner may read it, and nothing
of that goes on into a model or statement.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from dpfc._support.files import ReservedFile, read_regular
from dpfc.accounting import PrivacyStatement

__all__ = [
    "CheckpointError",
    "check_alike",
    "config_digest",
    "read_checkpoint",
    "rows_digest",
    "weights_digest",
    "write_checkpoint",
]

_MAGIC = b"dpfc-checkpoint-3 "
_PART_NUMBERS = 1 << 24
_SALT_BYTES = 16
_TOKEN = re.compile(r"[0-9a-f]{32}")
_STATE = ("module", "mechanism", "rule", "average", "noise")


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read, or is not this fit's; says why and what to do."""


def config_digest(config: Mapping[str, Any]) -> str:
    """Digest of everything that has to be the same for a fit to go on."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def weights_digest(module: torch.nn.Module) -> str:
    """Name a module by its parameters' names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def rows_digest(rows: Iterable[torch.Tensor], salt: bytes) -> str:
    """Name private rows, labels and persons; salted, so that no table of guesses fits two files."""
    digest = hashlib.blake2b(salt=salt)
    for tensor in rows:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
        for part in torch.split(tensor, max(1, _PART_NUMBERS // max(1, tensor[0].numel()))):
            digest.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_checkpoint(path: Path, content: Mapping[str, Any], room: int = 0) -> None:
    """Write tensors, numbers and words; the file is replaced whole, once it is on disk.

    Parameters
    ----------
    path : Path
    content : mapping
    room : int
        Bytes that must be there, for what is written later.

    Raises
    ------
    CheckpointError
        If it cannot be written; an older one is left as it was.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    data = buffer.getvalue()
    header = _MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ReservedFile(path, room, shared=False) as file:
            file.write(header + data)
            file.publish(replace=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}."
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; runs no code from the file.

    Raises
    ------
    CheckpointError
        If the file is none, or was changed since it was written.
    """
    try:
        header, _, data = read_regular(path).partition(b"\n")
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}.") from error
    if not header.startswith(_MAGIC):
        raise CheckpointError(f"{path} is no checkpoint of dpfc; remove it, or name another file.")
    if hashlib.sha256(data).hexdigest().encode() != header[len(_MAGIC) :]:
        raise CheckpointError(
            f"{path} was changed or cut short after it was written, and cannot be trusted. Remove "
            "it to start afresh; that is a new fit, with a spend of its own."
        )
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # whatever torch raises at bytes that only look right
        raise CheckpointError(f"{path} cannot be read as a checkpoint.") from error
    if (problem := _problem(content)) is not None:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {problem}.")
    return content


def check_alike(kept: object, wanted: object, name: str) -> None:
    """Refuse what differs from an example in kind: keys, types, lengths, shapes of tensors.

    Parameters
    ----------
    kept : object
        Of a checkpoint.
    wanted : object
        What this fit would keep there; its values don't matter.
    name : str
        Of the place, for messages.

    Raises
    ------
    ValueError
        Names the place.
    """
    if isinstance(wanted, torch.Tensor):
        kind = (wanted.shape, wanted.dtype, wanted.layout)
        if not isinstance(kept, torch.Tensor) or (kept.shape, kept.dtype, kept.layout) != kind:
            raise ValueError(f"{name} must be a {wanted.dtype} tensor of {tuple(wanted.shape)}")
    elif isinstance(wanted, dict):
        if not isinstance(kept, dict) or kept.keys() != wanted.keys():
            raise ValueError(f"{name} must have the keys {', '.join(map(str, wanted))}")
        for key, entry in wanted.items():
            check_alike(kept[key], entry, f"{name}.{key}")
    elif isinstance(wanted, list | tuple):
        if type(kept) is not type(wanted) or len(kept) != len(wanted):
            raise ValueError(f"{name} must be a {type(wanted).__name__} of {len(wanted)}")
        for place, entry in enumerate(wanted):
            check_alike(kept[place], entry, f"{name}.{place}")
    elif _kind(kept) != _kind(wanted):
        raise ValueError(f"{name} must be of the type {type(wanted).__name__}")


def _kind(value: object) -> object:
    """The type; a sum that begins as a whole number may go on as another."""
    return "number" if type(value) in (int, float) else type(value)


def _problem(content: object) -> str | None:
    """What is wrong with the parts of a checkpoint that every fit has; None if nothing is."""
    if not isinstance(content, dict):
        return "it holds no parts by name"
    if not isinstance(content.get("digest"), str):
        return "digest must be a text"
    rows = content.get("rows")
    salt = rows.get("salt") if isinstance(rows, dict) else None
    if not isinstance(salt, bytes) or len(salt) != _SALT_BYTES:
        return f"rows.salt must be {_SALT_BYTES} bytes"
    token = content.get("token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return "token must be 32 digits of base 16"
    found = [name for name in _STATE if name in content]
    if found and len(found) < len(_STATE):
        return f"{next(name for name in _STATE if name not in content)} is missing"
    statement = content.get("statement")
    try:
        if statement is not None:
            PrivacyStatement.from_json(statement)
    except (ValueError, TypeError):
        return "statement is none of dpfc"
    return None
