"""The chain over a ledger's rows: each record holds the hash of the one before.

A record is SHA-256 over the record before it and over every value of one row: a budget's
definition, a spend, what is known of it, its statement. A row that is changed, removed,
added or moved by anything but the ledger breaks the chain. Who can write the file can write
a new chain as well; the last hash, the *head*, kept elsewhere by the owner, shows that too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import Any, Final

from dpfc.accounting.ledger.schema import CHAINED_TABLES, tables_of

__all__ = ["chain_problem", "head_of", "name_of_row", "place_of", "seal"]

_START: Final = "0" * 64
_KEYS: Final = {
    table: "spend_id" if table in ("details", "models", "statements") else "id"
    for table in CHAINED_TABLES
} | {"units": "budget_id"}
# A row's own words for people.
_NAMES: Final = {
    "origins": "the origin",
    "budgets": "budget {}",
    "units": "the unit of budget {}",
    "fingerprints": "fingerprint {}",
    "spends": "spend {}",
    "details": "the details of spend {}",
    "models": "the model of spend {}",
    "statements": "the statement of spend {}",
    "records": "record {}",
}


def name_of_row(table: str, row_id: object) -> str:
    """Name a row for people."""
    return _NAMES.get(table, "an unknown row").format(row_id)


def seal(connection: sqlite3.Connection) -> None:
    """Give every row that has none its record, in the open transaction."""
    head = head_of(connection) or _START
    for table in CHAINED_TABLES:
        key = _KEYS[table]
        rows = connection.execute(
            f"SELECT {key}, * FROM {table} WHERE {key} NOT IN "
            "(SELECT row_id FROM records WHERE table_name = ?) ORDER BY 1",
            (table,),
        ).fetchall()
        for row_id, *values in rows:
            head = _hash(head, table, values)
            connection.execute(
                "INSERT INTO records (table_name, row_id, hash) VALUES (?, ?, ?)",
                (table, row_id, head),
            )


def head_of(connection: sqlite3.Connection) -> str | None:
    """Return the last record's hash; None before the first."""
    row = connection.execute("SELECT hash FROM records ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else str(row[0])


def place_of(connection: sqlite3.Connection, head: str) -> int | None:
    """How many records have been added since `head` was the last; None if it never was."""
    row = connection.execute(
        "SELECT count(*) FROM records WHERE id > (SELECT id FROM records WHERE hash = ?)", (head,)
    ).fetchone()
    known = connection.execute("SELECT 1 FROM records WHERE hash = ?", (head,)).fetchone()
    return int(row[0]) if known else None


def chain_problem(connection: sqlite3.Connection, version: int) -> str | None:
    """Say which row of a ledger of `version` is not as it was written; None when every one is.

    Raises
    ------
    ValueError, TypeError
        When a row holds what no ledger writes.
    """
    rows = {
        (table, row[0]): row[1:]
        for table in CHAINED_TABLES
        if table in tables_of(version)
        for row in connection.execute(f"SELECT {_KEYS[table]}, * FROM {table}")
    }
    head = _START
    records = connection.execute("SELECT id, table_name, row_id, hash FROM records ORDER BY id")
    for number, (record, table, row_id, stated) in enumerate(records.fetchall(), 1):
        name = name_of_row(table, row_id)
        values = rows.pop((table, row_id), None)
        if record != number or values is None:
            return f"{name}: it, or a record before it, was removed"
        head = _hash(head, table, list(values))
        if head != stated:
            return f"{name}: it was changed after it was written"
    if rows:
        table, row_id = next(iter(rows))
        return f"{name_of_row(table, row_id)}: it was not written by a ledger"
    return None


def _hash(before: str, table: str, values: list[Any]) -> str:
    row = json.dumps([before, table, *values], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(row.encode()).hexdigest()
