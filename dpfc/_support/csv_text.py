"""CSV that a spreadsheet opens without running what a text says."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

__all__ = ["inert", "write_csv"]

# What makes a spreadsheet take a cell for a formula, in plain and in full-width letters; blanks
# before it are skipped by some.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
# They steer a terminal, or turn the order of letters; a line feed and a tab do not.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def inert(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run; escape control characters.

    Parameters
    ----------
    cell : object
        Numbers, and texts that read as numbers, such as "-1", stay as they are.

    References
    ----------
    OWASP, CSV Injection.
    """
    if not isinstance(cell, str):
        return cell
    cell = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], cell)
    is_formula = _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def write_csv(file: TextIO, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows, the header among them, with every text made inert; None is an empty cell."""
    csv.writer(file, lineterminator="\n").writerows([inert(cell) for cell in row] for row in rows)
