"""Files that appear whole or not at all, and folders that are checked before work begins."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from dpfc._support.files import check_replaceable, open_regular, open_whole

__all__ = ["SQLITE_HEADER", "check_writable", "open_whole", "write_whole"]

SQLITE_HEADER = b"SQLite format 3\0"


def check_writable(
    path: Path, *, force: bool, suffixes: Sequence[str] = (), option: str = "--out"
) -> None:
    """Refuse an output file that could not be written later, by trying its folder now.

    Parameters
    ----------
    path : Path
    force : bool
        Allow an existing file.
    suffixes : sequence of str
        Allowed endings, such as ``.csv``; any if empty.
    option : str
        What the path was given by.

    Raises
    ------
    ValueError
        If the name is not allowed or taken, is a database's (a ledger is never overwritten), or
        its folder is absent or not writable.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {str(path)!r}.")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: name a file in it.")
    try:
        check_replaceable(path)
    except OSError as error:
        raise ValueError(f"cannot write {option} {path}: {error.strerror}.") from error
    if (path.exists() or path.is_symlink()) and not force:
        raise ValueError(f"{option} {path} exists: choose another name, or overwrite with --force.")
    if path.exists() and _starts_with(path, SQLITE_HEADER):
        raise ValueError(f"{option} {path} is a ledger or another database: choose another name.")
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {option}, {path.parent}, does not exist: create it first.")
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise ValueError(f"cannot write to {path.parent}: {error.strerror}.") from error


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file under a temporary name beside it, flush it to disk and rename it.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left of it then.
    """
    with open_whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def _starts_with(path: Path, header: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(header)) == header
    except OSError:
        return False
