"""The ledger's SQLite file: transactions that keep what they acknowledge.

Every operation opens a connection of its own, so that nothing is shared between threads,
forked processes or pickled objects. The file is only ever touched through SQLite: closing
it in any other way would drop the locks that another thread of the process holds.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dpfc._support.files import check_replaceable
from dpfc.accounting.ledger.chain import chain_problem, seal
from dpfc.accounting.ledger.schema import (
    APPLICATION_ID,
    CHAINED_SINCE,
    FORMAT,
    FORMATS,
    create_tables,
    fill_in_tables,
    schema_problem,
    upgrade_tables,
)
from dpfc.accounting.ledger.values import value_problem

__all__ = ["LedgerError", "damage_named", "one_line", "reading", "writing"]

_LONGEST: Final = 300
BUSY_SECONDS: Final = 60.0

_REASONS: Final = {
    sqlite3.SQLITE_BUSY: f"is locked by another process for more than {BUSY_SECONDS:g} s; try "
    "again when that has finished",
    sqlite3.SQLITE_LOCKED: "is locked; try again",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
    sqlite3.SQLITE_READONLY: "cannot be written: give this user write access to the file and "
    "its folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check the path, and access to the file and its "
    "folder",
    sqlite3.SQLITE_PERM: "cannot be opened: access is denied",
    sqlite3.SQLITE_NOTADB: "is not a ledger: it is no SQLite file",
    sqlite3.SQLITE_CORRUPT: "is damaged; keep it, and ask its owner for a backup that holds "
    "every spend",
}


class LedgerError(ValueError):
    """A ledger cannot be used as asked; nothing was spent."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """See one consistent state of the ledger; needs no write access.

    Raises
    ------
    LedgerError
        When there is no ledger at `path`, or it cannot be read.
    """
    with _connect(path, "rw") as connection:
        connection.execute("PRAGMA temp_store = MEMORY")  # of tables that an old format lacks
        connection.execute("BEGIN")
        version = _check_file(path, connection)
        if version != FORMAT:
            fill_in_tables(connection, version)
        yield connection


@contextmanager
def writing(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Change the ledger: all of it, durably, when the block ends, and nothing if it raises.

    Only one process at a time is inside such a block; others wait. A file of an earlier
    format becomes one of the newest. What the block wrote is chained before it is stored.

    Parameters
    ----------
    path : Path
    create : bool, default=False
        Make the file and its tables where there are none.

    Raises
    ------
    LedgerError
        As in `reading`; also when the change cannot be stored.
    """
    with _connect(path, "rwc" if create else "rw") as connection:
        # A journal that is deleted, its folder flushed too: what COMMIT acknowledged survives
        # a power cut. On macOS a flush needs the second switch to reach the disk.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("BEGIN IMMEDIATE")
        if create and _is_empty(connection):
            create_tables(connection)
            _add_origin(connection)
            seal(connection)
        version = _check_file(path, connection)
        if version != FORMAT:
            upgrade_tables(connection, version)
            if version < CHAINED_SINCE:
                _add_origin(connection)
        yield connection
        # What an earlier format left in the file is chained as it was found: from here on it
        # cannot change.
        with damage_named(path, "a record"):
            seal(connection)
        connection.execute("COMMIT")


def _add_origin(connection: sqlite3.Connection) -> None:
    """Give the chain a beginning that no other ledger has."""
    connection.execute("INSERT INTO origins (id, salt) VALUES (1, ?)", (secrets.token_hex(32),))


@contextmanager
def _connect(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open the file; roll back whatever is not committed when the block ends."""
    if mode == "rw" and not path.exists():
        raise LedgerError(f"ledger {path} does not exist; make it with: dpfc budget create {path}")
    if path.is_dir():
        raise LedgerError(f"ledger {path} is a folder: name a file in it.")
    try:
        check_replaceable(path)  # by its name: opening and closing the file would drop locks
    except OSError as error:
        raise LedgerError(f"ledger {path} cannot be used: {error.strerror}.") from error
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"ledger {path} {_reason(error)}.") from error
    except UnicodeError as error:
        raise LedgerError(f"ledger {path} {_REASONS[sqlite3.SQLITE_CORRUPT]}.") from error
    finally:
        if connection is not None:
            connection.close()


def _reason(error: sqlite3.Error) -> str:
    if str(error).startswith("Could not decode"):  # Python's own, which quotes the text
        return _REASONS[sqlite3.SQLITE_CORRUPT]
    # The low byte is the kind of error; the rest tells where it happened.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, f"cannot be used: {one_line(error)}")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))


def _format_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_file(path: Path, connection: sqlite3.Connection) -> int:
    """Return the format of a ledger that is as a ledger wrote it; refuse any other file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = _format_of(connection)
    if application != APPLICATION_ID:
        if _is_empty(connection):
            raise LedgerError(
                f"ledger {path} is empty; make a budget with: dpfc budget create {path}"
            )
        raise LedgerError(
            f"{path} is not a ledger: it is an SQLite file of another program "
            f"(application_id {application}, a ledger has {APPLICATION_ID})."
        )
    if version not in FORMATS:
        known = f"{', '.join(map(str, FORMATS[:-1]))} and {FORMAT}"
        raise LedgerError(
            f"ledger {path} has format {version}, and this version of dpfc reads {known}: "
            "install the version that wrote it."
        )
    # Reading a broken page may lose rows without an error: a spend, say.
    if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise LedgerError(f"ledger {path} {_REASONS[sqlite3.SQLITE_CORRUPT]}.")
    problem = schema_problem(connection, version)
    if problem is not None:
        raise _changed(path, f": {problem}")
    problem = value_problem(connection, version)
    if problem is None and version >= CHAINED_SINCE:
        with damage_named(path, "its chain"):
            problem = chain_problem(connection, version)
    if problem is not None:
        raise _changed(path, f" at {problem}")
    return version


def _changed(path: Path, problem: str) -> LedgerError:
    return LedgerError(
        f"ledger {path} is damaged{problem}. It was changed by something that is no ledger, "
        "or by a bad disk: ask its owner for a backup that holds every spend."
    )


@contextmanager
def damage_named(path: Path, what: str) -> Iterator[None]:
    """Say which record of the ledger cannot be read.

    Raises
    ------
    LedgerError
        In place of what reading a malformed record raises; one line.
    """
    try:
        yield
    except LedgerError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise LedgerError(f"ledger {path} is damaged at {what}: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return an error's words without line breaks, cut where they get long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
