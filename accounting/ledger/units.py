"""How many rows a budget's unit of privacy has, and what a spend is for such a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dp_accounting

from dpfc._support.validation import Choice, check, check_int
from dpfc.accounting.events import UnsupportedEventError
from dpfc.accounting.groups import event_of_group
from dpfc.accounting.ledger.sqlite_file import LedgerError

if TYPE_CHECKING:
    from dpfc.accounting.ledger.records import Budget

__all__ = ["AUTO", "SPEND_UNIT", "charged_event", "resolve_rows_per_unit", "rows_charged"]

AUTO: Final = "auto"
# What the noise of a spend covers: one row, or all rows of a group.
SPEND_UNIT: Final = Choice(("row", "group"))
# Units that are rows by their name: whoever says so has one row a unit.
_ROWS: Final = {f"one {name}" for name in ("row", "record", "image", "text", "example", "sample")}
_MOST_ROWS: Final = 2**31 - 1


def resolve_rows_per_unit(rows_per_unit: int | str | None, unit_of_privacy: str) -> int | None:
    """How many rows a unit has at most; None for many.

    Parameters
    ----------
    rows_per_unit : int, "auto" or None
        "auto": 1 where the unit is a row by its name, such as "one row" or "one image", else None.
    unit_of_privacy : str

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if rows_per_unit is None:
        return None
    if rows_per_unit == AUTO:
        return 1 if _is_row(unit_of_privacy) else None
    return check_rows(rows_per_unit)


def _is_row(unit_of_privacy: str) -> bool:
    return unit_of_privacy.casefold() in _ROWS


def check_rows(rows_per_unit: object) -> int:
    """Return a number of rows, or raise ValueError for what is none."""
    rows = check_int("rows_per_unit", rows_per_unit, 1)
    if rows > _MOST_ROWS:
        raise ValueError(f"rows_per_unit must be an int in [1, {_MOST_ROWS}], got {rows!r}.")
    return rows


def rows_charged(budget: Budget, unit: str) -> int:
    """How many rows a spend is charged for, whose noise covers a row, or a group.

    Raises
    ------
    LedgerError
        If its noise covers one row, and the budget's unit may have any number of them.
    """
    check("unit", unit, SPEND_UNIT)
    if unit == "group":
        return 1
    if budget.rows_per_unit is None:
        word = budget.unit_of_privacy
        raise LedgerError(
            f"the budget of {budget.dataset!r} protects {word}, who may have many rows, and the "
            "noise of this spend covers one row: give groups, whose each row is (groups=…, or "
            "features that were written with --group-column). Where it is publicly known how many "
            f"rows {word} has at most, make another ledger, if nothing was spent from this one "
            "yet, with dpfc budget create … --rows-per-unit K (1: one row each). Nothing was spent."
        )
    return budget.rows_per_unit


def charged_event(budget: Budget, event: dp_accounting.DpEvent, unit: str) -> dp_accounting.DpEvent:
    """What an event is for one unit of the budget.

    Raises
    ------
    LedgerError
        As in `rows_charged`; also if the event samples rows, and a unit has several, or if its
        noise covers groups, and the unit is a row.
    """
    rows = rows_charged(budget, unit)
    if unit == "group" and budget.rows_per_unit == 1 and _is_row(budget.unit_of_privacy):
        # One row more changes the weights of all others of its group: the group is another one,
        # which is two sensitivities, one to remove and one to add.
        word = budget.unit_of_privacy
        raise LedgerError(
            f"the budget of {budget.dataset!r} protects {word}, and the noise of this spend covers "
            "groups with all their rows: one row more or less can move what its group adds by "
            "twice as much. Leave groups out, or make another ledger whose unit is what a group "
            'is, if nothing was spent from this one yet, with dpfc budget create … --unit "one '
            'person" --rows-per-unit many. Nothing was spent.'
        )
    try:
        return event_of_group(event, rows)
    except UnsupportedEventError as error:
        raise LedgerError(
            f"{budget.unit_of_privacy} has up to {rows} rows in {budget.dataset!r}, and {error} "
            "Sample whole groups (groups=…), or use all rows in every step "
            "(sampling_probability=1). Nothing was spent."
        ) from error
