"""How spends are written into a ledger's file and read back, and what they cost."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import dp_accounting

from dpfc._support.validation import check_float
from dpfc.accounting.events import event_from_json, event_to_json
from dpfc.accounting.filters import Cost, GaussianFilter, PrivacyFilter
from dpfc.accounting.ledger.records import Budget, ModelFile, Spend
from dpfc.accounting.ledger.sqlite_file import damage_named

__all__ = [
    "find_token",
    "insert_spend",
    "read_costs",
    "read_reasons",
    "read_spends",
]

# Relative. A gdp filter's cost is exact but for one rounding; a Renyi divergence comes from a
# library whose versions differ in their last digits.
_TOLERANCE: Final = {"gdp": 1e-9, "renyi": 1e-3}


def insert_spend(
    connection: sqlite3.Connection,
    number: int,
    event: dp_accounting.DpEvent,
    cost: Cost,
    spent: Mapping[str, str],
    details: Mapping[str, str | None],
) -> int:
    """Add a spend on budget `number`, with what is known of it; return its number.

    Parameters
    ----------
    connection : Connection
    number : int
    event : DpEvent
    cost : tuple of float
    spent : mapping
        `purpose` and `made_at`.
    details : mapping
        `token`, `stated_purpose`, `made_by`, `not_private`; None where nothing is known.
    """
    spend_id = connection.execute(
        "INSERT INTO spends (budget_id, purpose, event, cost, made_at) VALUES (?, ?, ?, ?, ?)",
        (number, spent["purpose"], _event_text(event), _cost_text(cost), spent["made_at"]),
    ).lastrowid
    assert spend_id is not None
    if any(value is not None for value in details.values()):
        names = ("token", "stated_purpose", "made_by", "not_private")
        connection.execute(
            "INSERT INTO details VALUES (?, ?, ?, ?, ?, ?)",
            (spend_id, number, *(details[name] for name in names)),
        )
    return spend_id


def read_costs(
    connection: sqlite3.Connection, path: Path, number: int, budget: Budget
) -> list[Cost]:
    """What every spend so far adds; computed afresh from its event, and no sum is stored."""
    query = "SELECT id, event, cost FROM spends WHERE budget_id = ? ORDER BY id"
    costs = []
    for spend_id, event, cost in connection.execute(query, (number,)).fetchall():
        with damage_named(path, f"spend {spend_id}"):
            costs.append(_checked_cost(budget.filter, event, cost))
    return costs


def read_spends(
    connection: sqlite3.Connection, path: Path, number: int, budget: Budget
) -> list[Spend]:
    """Every spend on a budget, oldest first, with all that is known of it."""
    from dpfc.accounting.statements.statement import PrivacyStatement

    costs = read_costs(connection, path, number, budget)
    rows = connection.execute(
        "SELECT spends.id, purpose, event, made_at, statement, stated_purpose, made_by, token, "
        "not_private, name, sha256 FROM spends "
        "LEFT JOIN statements ON statements.spend_id = spends.id "
        "LEFT JOIN details ON details.spend_id = spends.id "
        "LEFT JOIN models ON models.spend_id = spends.id "
        "WHERE spends.budget_id = ? ORDER BY spends.id",
        (number,),
    ).fetchall()
    spends = []
    for row, share in zip(rows, budget.filter.shares(costs), strict=True):
        spend_id, purpose, event, made_at, text, said, made_by, token, not_private, *file = row
        with damage_named(path, f"spend {spend_id}"):
            statement = None if text is None else PrivacyStatement.from_json(text)
            paid = event_from_json(json.loads(event))
        spends.append(
            Spend(
                spend_id,
                budget.dataset,
                purpose,
                paid,
                made_at,
                share,
                statement,
                stated_purpose=said,
                made_by=made_by,
                token=token,
                not_private=not_private,
                model=None if file[0] is None else ModelFile(*file),
            )
        )
    return spends


def read_reasons(connection: sqlite3.Connection, path: Path, number: int) -> list[str]:
    """Why spends on a budget void its claim, one text for each reason; usually none."""
    rows = connection.execute(
        "SELECT spends.id, purpose, not_private, statement FROM spends "
        "LEFT JOIN statements ON statements.spend_id = spends.id "
        "LEFT JOIN details ON details.spend_id = spends.id "
        "WHERE spends.budget_id = ? ORDER BY spends.id",
        (number,),
    ).fetchall()
    reasons = []
    for spend_id, purpose, not_private, text in rows:
        with damage_named(path, f"the statement of spend {spend_id}"):
            said = [] if text is None else list(json.loads(text)["reasons_not_private"])
        said = said or ([] if not_private is None else [not_private])
        reasons += [f"spend {spend_id} ({purpose}): {reason}" for reason in said]
    return reasons


def find_token(connection: sqlite3.Connection, number: int, token: str) -> int | None:
    """Return the spend on budget `number` that was made under `token`; None if none was."""
    query = "SELECT spend_id FROM details WHERE budget_id = ? AND token = ?"
    row = connection.execute(query, (number, token)).fetchone()
    return None if row is None else int(row[0])


def _event_text(event: dp_accounting.DpEvent) -> str:
    return json.dumps(event_to_json(event), allow_nan=False)


def _cost_text(cost: Cost) -> str:
    """Write a cost; floats keep every bit."""
    return json.dumps(["inf" if number == math.inf else number for number in cost])


def _read_cost(text: str, length: int) -> Cost:
    numbers = json.loads(text)
    if not isinstance(numbers, list) or len(numbers) != length:
        raise ValueError(f"expected a list of {length} costs, got {text!r}")
    return tuple(
        math.inf if number == "inf" else check_float("cost", number, 0, math.inf, closed="left")
        for number in numbers
    )


def _checked_cost(rule: PrivacyFilter, event: str, text: str) -> Cost:
    """Return what an event costs: what was charged, or more where its event says more."""
    charged, found = _read_cost(text, len(rule.limits)), _cost_of_text(rule, event)
    tolerance = _TOLERANCE[rule.kind]
    # A gdp cost is the same in every version; a Renyi bound may have become better since.
    exact = rule.kind == GaussianFilter.kind
    for paid, needed in zip(charged, found, strict=True):
        less = math.isfinite(paid) and paid < needed * (1 - tolerance)
        if less or (exact and paid > needed * (1 + tolerance)):
            raise ValueError(f"its cost must be {needed!r}, as its event says, got {paid!r}.")
    return _larger(charged, found)


def _larger(first: Sequence[float], second: Sequence[float]) -> Cost:
    return tuple(map(max, zip(first, second, strict=True)))


@lru_cache(maxsize=4096)
def _cost_of_text(rule: PrivacyFilter, event: Any) -> Cost:
    return rule.cost(event_from_json(json.loads(event)))
