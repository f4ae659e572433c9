"""The tables of a ledger's file, by format, and whether a file has exactly those.

What SQLite keeps of a schema is text. A file is a ledger only if every table, index and
trigger reads as it was created here, and there is nothing else: a view in a table's place, a
trigger that was dropped or a rule that was edited is seen before anything is read through it.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Final

__all__ = [
    "APPLICATION_ID",
    "CHAINED_SINCE",
    "CHAINED_TABLES",
    "FORMAT",
    "FORMATS",
    "create_tables",
    "fill_in_tables",
    "schema_problem",
    "tables_of",
    "upgrade_tables",
]

# "dpfc" in ASCII, where SQLite keeps a number for the application that owns the file.
APPLICATION_ID: Final = int.from_bytes(b"dpfc", "big")
FORMATS: Final = (1, 2, 3)
FORMAT: Final = FORMATS[-1]

# Of what a file holds that no ledger has: what SQLite calls it, and how much of its name is said.
_KINDS: Final = ("table", "index", "trigger", "view")
_LONGEST_NAME: Final = 80

# What each format adds: tables with the columns that are unique, one by one or together.
_TABLES: Final[dict[int, dict[str, tuple[tuple[str, ...], ...]]]] = {
    1: {
        "budgets": (("id",), ("dataset_key",)),
        "spends": (("id",),),
        "statements": (("spend_id",),),
    },
    2: {
        "origins": (("id",),),
        "details": (("spend_id",), ("budget_id", "token")),
        "models": (("spend_id",),),
        "fingerprints": (("id",), ("budget_id", "digest")),
        "records": (("id",), ("table_name", "row_id"), ("hash",)),
    },
    3: {"units": (("budget_id",),)},
}
_SCHEMAS: Final = {
    1: """
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
""",
    2: """
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    salt TEXT NOT NULL
);
CREATE TABLE details (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    token TEXT,
    stated_purpose TEXT,
    made_by TEXT,
    not_private TEXT,
    UNIQUE (budget_id, token)
);
CREATE TABLE models (
    spend_id INTEGER PRIMARY KEY REFERENCES spends (id),
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL
);
CREATE TABLE fingerprints (
    id INTEGER PRIMARY KEY,
    budget_id INTEGER NOT NULL REFERENCES budgets (id),
    digest TEXT NOT NULL,
    UNIQUE (budget_id, digest)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    table_name TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    UNIQUE (table_name, row_id)
);
""",
    3: """
CREATE TABLE units (
    budget_id INTEGER PRIMARY KEY REFERENCES budgets (id),
    rows_per_unit INTEGER
);
""",
}
# The first format that has a chain.
CHAINED_SINCE: Final = 2
# Every row of these has a record in the chain. New rows are chained in this order: a budget
# before its spends.
CHAINED_TABLES: Final = (
    "origins",
    "budgets",
    "units",
    "fingerprints",
    "spends",
    "details",
    "models",
    "statements",
)
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


def tables_of(version: int) -> list[str]:
    """Names of the tables that a ledger of `version` has."""
    return [table for earlier in FORMATS if earlier <= version for table in _TABLES[earlier]]


def create_tables(connection: sqlite3.Connection) -> None:
    """Make an empty ledger of the newest format, in the open transaction."""
    for version in FORMATS:
        _add_tables(connection, version)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def upgrade_tables(connection: sqlite3.Connection, version: int) -> None:
    """Add what formats after `version` have, in the open transaction."""
    for later in FORMATS[FORMATS.index(version) + 1 :]:
        _add_tables(connection, later)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def fill_in_tables(connection: sqlite3.Connection, version: int) -> None:
    """Let a file of an earlier format be read as one of the newest, with nothing in it.

    The tables are temporary ones of this connection: the file is not touched.
    """
    for later in FORMATS[FORMATS.index(version) + 1 :]:
        for statement in _statements(_SCHEMAS[later]):
            temporary = statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1)
            connection.execute(temporary)


def schema_problem(connection: sqlite3.Connection, version: int) -> str | None:
    """Say how the file's schema differs from what a ledger of `version` has; None if not."""
    found = _schema_of(connection)
    expected = _expected_schema(version)
    for key in sorted(expected.keys() | found.keys(), key=str):
        kind, name = key
        if key not in found:
            return f"its {kind} {name} is missing"
        if key not in expected:
            return f"it has {_quoted(kind, name)} that no ledger has"
        if found[key] != expected[key]:
            return f"its {kind} {name} was changed"
    return None


def _quoted(kind: object, name: object) -> str:
    """Name what may be anybody's text, or no text, without what a terminal would obey."""
    quoted = repr(name)
    if len(quoted) > _LONGEST_NAME:
        quoted = quoted[: _LONGEST_NAME - 1] + "…"
    named = kind if kind in _KINDS else "part"
    return f"{'an' if named == 'index' else 'a'} {named} {quoted}"


def _schema_of(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, str | None]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM main.sqlite_master")
    return {(kind, name): (table, sql) for kind, name, table, sql in rows}


@cache
def _expected_schema(version: int) -> dict[tuple[str, str], tuple[str, str | None]]:
    connection = sqlite3.connect(":memory:")
    try:
        for earlier in FORMATS[: FORMATS.index(version) + 1]:
            _add_tables(connection, earlier)
        return _schema_of(connection)
    finally:
        connection.close()


def _add_tables(connection: sqlite3.Connection, version: int) -> None:
    triggers = [
        _TRIGGERS.format(table=table, same_key=" OR ".join(map(_same, keys)))
        for table, keys in _TABLES[version].items()
    ]
    for statement in _statements("".join([_SCHEMAS[version], *triggers])):
        connection.execute(statement)


def _same(columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{column} = NEW.{column}" for column in columns)


def _statements(script: str) -> list[str]:
    # executescript would commit what is open; statements run one by one in the transaction.
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement.strip())
            statement = ""
    return found
