"""Files and folders that are checked before work begins."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dpfc._support.files import check_replaceable, open_regular

__all__ = ["SQLITE_HEADER", "check_writable"]

SQLITE_HEADER = b"SQLite format 3\0"


def check_writable(
    path: Path,
    *,
    reads: Iterable[Path | None],
    force: bool,
    suffixes: Sequence[str] = (),
    option: str = "--out",
) -> None:
    """Refuse an output file that could not be written later, or must not: it is an input.

    Parameters
    ----------
    path : Path
    reads : iterable of Path or None
        All files and folders that the command reads, its ledger and checkpoint too; None and what
        does not exist are passed over.
    force : bool
        Allow an existing file, if it is none of these.
    suffixes : sequence of str
        Allowed endings, such as ``.csv``; any if empty.
    option : str
        What the path was given by.

    Raises
    ------
    ValueError
        If the name is not allowed or taken, is a database's (a ledger is never overwritten) or
        that of an input, also through links, or its folder is absent or not writable.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {str(path)!r}.")
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder: name a file in it.")
    try:
        check_replaceable(path)
    except OSError as error:
        raise ValueError(f"cannot write {option} {path}: {error.strerror}.") from error
    if any(_is_same(path, file) for source in reads if source for file in _files_of(source, path)):
        raise ValueError(
            f"{option} {path} is a file that this command reads, which --force does not overwrite: "
            "choose another name."
        )
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


def _files_of(source: Path, out: Path) -> Iterator[Path]:
    """Files that an input consists of; of a folder, none where `out` cannot be among them."""
    if not source.is_dir():
        yield source
        # A ledger's own: SQLite undoes a write that was cut off by the first.
        yield from (source.with_name(source.name + end) for end in ("-journal", "-wal", "-shm"))
    elif out.exists() or out.is_symlink():
        from dpfc.features.cache.manifest import MANIFEST_NAME
        from dpfc.features.cache.writer import is_cache_file

        # Beside a cache's own files may lie what an earlier command made of it.
        is_cache = (source / MANIFEST_NAME).exists()
        for folder, _, names in os.walk(source):
            yield from (Path(folder, name) for name in names if not is_cache or is_cache_file(name))


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or are one name of a file or link in a folder."""
    if one.name == other.name and one.parent.resolve() == other.parent.resolve():
        return True
    try:
        return one.samefile(other)
    except OSError:  # one is absent, or cannot be reached
        return False


def _starts_with(path: Path, header: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(header)) == header
    except OSError:
        return False
