"""Whether every value of a ledger's file is of its column's type.

SQLite keeps what it is given: bytes in a column of texts, or a text in one of numbers. What reads
it later would say so in words of its own.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from dpfc.accounting.ledger.chain import name_of_row
from dpfc.accounting.ledger.schema import tables_of

__all__ = ["value_problem"]

_TYPES: Final = {"TEXT": "text", "INTEGER": "integer", "REAL": "real"}
_WORDS: Final = {
    "blob": "bytes",
    "null": "nothing",
    "text": "a text",
    "integer": "a number",
    "real": "a number",
}


def value_problem(connection: sqlite3.Connection, version: int) -> str | None:
    """Say which row holds a value of another type than a ledger writes; None if none does.

    The schema must be that of `version`.
    """
    for table in tables_of(version):
        columns = connection.execute(f"PRAGMA main.table_info({table})").fetchall()
        for _, column, declared, not_null, _, is_key in columns:
            expected = _TYPES[declared]
            found = connection.execute(
                f"SELECT rowid, typeof({column}) FROM main.{table} "
                f"WHERE typeof({column}) NOT IN (?, ?) ORDER BY rowid LIMIT 1",
                (expected, expected if not_null or is_key else "null"),
            ).fetchone()
            if found is not None:
                row, kind = found
                return (
                    f"{name_of_row(table, row)}: its {column} holds {_WORDS[kind]}, where a ledger "
                    f"writes {_WORDS[expected]}"
                )
    return None
