"""The ledger's SQLite file: its tables, and transactions that keep what they acknowledge.

Every operation opens a connection of its own, so that nothing is shared between threads,
forked processes or pickled objects. The file is only ever touched through SQLite: closing
it in any other way would drop the locks that another thread of the process holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["LedgerError", "reading", "writing"]

# "dpfc" in ASCII, where SQLite keeps a number for the application that owns the file.
APPLICATION_ID: Final = int.from_bytes(b"dpfc", "big")
FORMAT: Final = 1
BUSY_SECONDS: Final = 60.0

# Tables with the columns that are unique; all are append-only.
_TABLES: Final = {
    "budgets": ("id", "dataset_key"),
    "spends": ("id",),
    "statements": ("spend_id",),
}
_SCHEMA: Final = """
CREATE TABLE budgets (
    id INTEGER PRIMARY KEY,
    dataset TEXT NOT NULL,
    dataset_key TEXT NOT NULL UNIQUE,
    epsilon REAL NOT NULL,
    delta REAL NOT NULL,
    neighboring_relation TEXT NOT NULL,
    unit_of_privacy TEXT NOT NULL,
    filter TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE spends (
    id INTEGER PRIMARY KEY,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    purpose TEXT NOT NULL,
    event TEXT NOT NULL,
    cost TEXT NOT NULL,
    made_at TEXT NOT NULL
);
CREATE TABLE statements (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    statement TEXT NOT NULL
);
"""
# INSERT OR REPLACE would delete what has the same unique key without a DELETE: the third
# trigger refuses it.
_TRIGGERS: Final = """
CREATE TRIGGER {table}_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER {table}_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
CREATE TRIGGER {table}_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_key})
BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END;
"""

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
        connection.execute("BEGIN")
        _check_file(path, connection)
        yield connection


@contextmanager
def writing(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Change the ledger: all of it, durably, when the block ends, and nothing if it raises.

    Only one process at a time is inside such a block; others wait.

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
            _create_tables(connection)
        _check_file(path, connection)
        yield connection
        connection.execute("COMMIT")


@contextmanager
def _connect(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open the file; roll back whatever is not committed when the block ends."""
    if mode == "rw" and not path.exists():
        raise LedgerError(f"ledger {path} does not exist; make it with: dpfc budget create {path}")
    if path.is_dir():
        raise LedgerError(f"ledger {path} is a folder: name a file in it.")
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"ledger {path} {_reason(error)}.") from error
    finally:
        if connection is not None:
            connection.close()


def _reason(error: sqlite3.Error) -> str:
    # The low byte is the kind of error; the rest tells where it happened.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return _REASONS.get(code, f"cannot be used: {error}")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,))


def _create_tables(connection: sqlite3.Connection) -> None:
    triggers = [
        _TRIGGERS.format(table=table, same_key=" OR ".join(f"{key} = NEW.{key}" for key in keys))
        for table, keys in _TABLES.items()
    ]
    # executescript would commit what is open; statements run one by one in the transaction.
    statement = ""
    for line in "".join([_SCHEMA, *triggers]).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def _check_file(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        if _is_empty(connection):
            raise LedgerError(
                f"ledger {path} is empty; make a budget with: dpfc budget create {path}"
            )
        raise LedgerError(
            f"{path} is not a ledger: it is an SQLite file of another program "
            f"(application_id {application}, a ledger has {APPLICATION_ID})."
        )
    if version != FORMAT:
        raise LedgerError(
            f"ledger {path} has format {version}, and this version of dpfc reads {FORMAT}: "
            "install the version that wrote it."
        )
    # Reading a broken page may lose rows without an error: a spend, say.
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise LedgerError(f"ledger {path} {_REASONS[sqlite3.SQLITE_CORRUPT]}.")
