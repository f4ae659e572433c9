"""Tars read in place: what lies where, without unpacking, following or decoding anything."""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from dpfc._support.files import open_regular
from dpfc._support.limits import LimitError, check_limit, shown_count
from dpfc._support.packages import require
from dpfc.features.datasets.base import printable
from dpfc.features.exceptions import DatasetError

__all__ = ["Place", "Shard", "expand_braces", "read_place", "reopened", "samples", "stat_of"]

# webdataset skips these as notes of its own.
_NOTES = re.compile(r"__[^/]*__(/|$)|__MACOSX/")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_BLOCK = tarfile.BLOCKSIZE
# A longer header holds no name; Python takes a time for it that grows with its square.
_MAX_HEADER_BYTES = 64 << 10
# Kinds of headers that belong to the file behind them, or to all.
_LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# Two empty blocks end a tar; most programs then fill the last record of 20 blocks.
_END_BYTES = 2 * _BLOCK
_BUFFER_BYTES = 1 << 20
# What braces count, by the rules of bash.
_NUMBER_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTER_RANGE = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?")


class Place(NamedTuple):
    """Where a file's content lies in its tar, in bytes."""

    offset: int
    size: int


class Shard(NamedTuple):
    """A tar that was walked.

    Attributes
    ----------
    path : Path
    name : str
        Its path relative to the folder that all tars of the data set lie in.
    rows : int
    size : int
        Bytes.
    changed : int
        Modification time in nanoseconds.
    """

    path: Path
    name: str
    rows: int
    size: int
    changed: int


def expand_braces(pattern: str) -> list[Path]:
    """Paths that a pattern such as ``shards-{000..012}.tar`` names, in its order.

    Raises
    ------
    DatasetError
        If its braces do not match, or it names a path twice, too many, or what is no tar.
    MissingDependencyError
        If webdataset, whose rules these are, is not installed.
    """
    require("webdataset", "a pattern with braces", "webdataset")
    from braceexpand import braceexpand

    try:
        count = _count_names(pattern)
        check_limit("shards", count, f"{_short(pattern)} names {shown_count(count)} files")
        names = list(braceexpand(pattern))
    except LimitError as error:
        raise DatasetError(str(error)) from None
    except (ValueError, RecursionError):
        raise DatasetError(f"the braces in {pattern!r} do not match.") from None
    if len(set(names)) < len(names):
        raise DatasetError(f"{pattern!r} names a file twice.")
    paths = [Path(name) for name in names]
    if any(path.suffix.lower() != ".tar" for path in paths):
        raise DatasetError(f"{pattern!r} must name .tar files only: braces are for shards.")
    return paths


def _count_names(pattern: str) -> int:
    """Names that ``braceexpand`` would give; the rules are bash's.

    Raises
    ------
    ValueError
        If the braces do not match.
    RecursionError
        If they are nested too deeply.
    """
    count = 1
    for expression in _brace_groups(pattern):
        count *= _count_alternatives(expression)
    return count


def _brace_groups(pattern: str) -> list[str]:
    """What stands in the outermost braces."""
    groups, depth, start = [], 0, 0
    for place, sign in _signs(pattern):
        if sign == "{":
            start = place + 1 if depth == 0 else start
            depth += 1
        elif sign == "}":
            depth -= 1
            if depth == 0:
                groups.append(pattern[start:place])
    if depth != 0:
        raise ValueError("the braces do not match")
    return groups


def _count_alternatives(expression: str) -> int:
    if (found := _NUMBER_RANGE.fullmatch(expression)) is not None:
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1) or 1
        return abs(last - first) // step + 1
    if (found := _LETTER_RANGE.fullmatch(expression)) is not None:
        return abs(ord(found[2]) - ord(found[1])) // (int(found[3] or 1) or 1) + 1
    return sum(_count_names(part) for part in _alternatives(expression))


def _alternatives(expression: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for place, sign in _signs(expression):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            parts.append(expression[start:place])
            start = place + 1
    return [*parts, expression[start:]]


def _signs(text: str) -> list[tuple[int, str]]:
    """Braces and commas with their places; a backslash takes the next one's meaning."""
    found, place = [], 0
    while place < len(text):
        if text[place] in "{},":
            found.append((place, text[place]))
        place += 2 if text[place] == "\\" else 1
    return found


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 200 else f"{pattern[:200]}…")


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a tar in order, grouped as webdataset does it.

    Parameters
    ----------
    path : Path
        A tar that is not compressed. Only its headers are read.

    Yields
    ------
    dict
        ``__key__``, and the `Place` of each file by its ending in lower case.

    Raises
    ------
    DatasetError
        If the tar is damaged, cut off, compressed, or holds a link, a device, a name that
        leads out of it, or two files with the same name.
    """
    from webdataset.tariterators import group_by_keys

    try:
        for sample in group_by_keys(_files(path)):
            del sample["__url__"]
            yield sample
    except DatasetError:
        raise
    except ValueError as error:
        name = printable(str(error.args[0]).partition(": duplicate")[0])
        raise DatasetError(f"{path} holds {name!r} twice, in capitals or not.") from None


class _BoundedHeader(tarfile.TarInfo):
    """A header whose extensions are refused unread where they are long."""

    @classmethod
    def frombuf(cls, *args: Any, **options: Any) -> "_BoundedHeader":
        header = super().frombuf(*args, **options)
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise DatasetError(
                f"has a header of {header.size:,} bytes, where {_MAX_HEADER_BYTES:,} are the most"
            )
        return header


def _files(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the regular files, in the form that `group_by_keys` takes."""
    last = -1
    _refuse_compressed(path)
    try:
        with (
            _opened(path) as file,
            tarfile.open(fileobj=file, mode="r:", tarinfo=_BoundedHeader) as tar,
        ):
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                # A header with a negative size would lead round in circles.
                if member.offset <= last:
                    raise tarfile.ReadError
                last = member.offset
                name = _checked_name(path, member)
                if name is not None:
                    place = Place(member.offset_data, member.size)
                    yield {"fname": name, "data": place, "__url__": ""}
            _check_end(path, tar.offset)
    except DatasetError as error:
        if str(error).startswith("has a header"):
            raise DatasetError(f"{path} {error}: pack its files again.") from None
        raise
    except Exception as error:  # a damaged header raises whatever it likes
        where = "is not a readable tar" if last < 0 else f"is damaged or cut off after byte {last}"
        raise DatasetError(f"{path} {where}: fetch or write it again.") from error


def _refuse_compressed(path: Path) -> None:
    with _opened(path) as file:
        if file.read(6).startswith(_COMPRESSED):
            raise DatasetError(f"{path} is compressed, so rows cannot be found: decompress it.")


def _checked_name(path: Path, member: tarfile.TarInfo) -> str | None:
    """Name of a regular file; None for what is left out: folders, hidden files and notes."""
    name = member.name
    if name.startswith("/") or ".." in name.split("/"):
        shown = printable(name)
        raise DatasetError(
            f"{path} holds {shown!r}, a name that leads out of it: remove that file."
        )
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        raise DatasetError(
            f"{path} holds {printable(name)!r}, which is a link, a device or a sparse file: only "
            "plain files are read. Pack the files again (tar --dereference --hard-dereference)."
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    hidden = any(part.startswith(".") for part in parts)
    name = "/".join(parts)
    return None if hidden or _NOTES.match(name) else name


def _check_end(path: Path, offset: int) -> None:
    """Refuse what `tarfile` takes for the end: a damaged header, a cut, a second tar behind."""
    with _opened(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(offset)
        if file.read(_END_BYTES) != bytes(_END_BYTES):
            raise tarfile.ReadError
        if size - offset > _END_BYTES and size % tarfile.RECORDSIZE:
            raise DatasetError(
                f"{path} is cut off in its last record, after byte {size}: fetch or write it again."
            )
        while chunk := file.read(_BUFFER_BYTES):
            if chunk.strip(b"\0"):
                raise DatasetError(
                    f"{path} goes on behind its end mark, as two tars joined to one do: keep them "
                    "as two files."
                )


def stat_of(path: Path) -> os.stat_result:
    """Size and times of a file.

    Raises
    ------
    DatasetError
        If there is no such file.
    """
    try:
        return path.stat()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error


def reopened(shard: Shard) -> IO[bytes]:
    """Open a tar that was walked.

    Raises
    ------
    DatasetError
        If it changed since.
    """
    stat = stat_of(shard.path)
    if (stat.st_size, stat.st_mtime_ns) != (shard.size, shard.changed):
        raise DatasetError(f"{shard.path} changed after it was opened: run again.")
    return _opened(shard.path)


def _opened(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}.") from error


def read_place(file: IO[bytes], place: Place) -> bytes:
    """Content of a file in an open tar.

    Raises
    ------
    DatasetError
        If it cannot be read to its end.
    """
    try:
        file.seek(place.offset)
        content = file.read(place.size)
    except OSError as error:
        raise DatasetError(f"cannot read {file.name}: {error.strerror}.") from error
    if len(content) < place.size:
        raise DatasetError(f"{file.name} shrank while it was read: run again.")
    return content
