"""A privacy statement as plain text."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import TYPE_CHECKING, Final

from dpfc.accounting.statements.wording import Section, Table, content

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

__all__ = ["render_text"]

_LINE: Final = 92


def render_text(statement: PrivacyStatement) -> str:
    """Render everything that `content` says; the first line says what is guaranteed, or not."""
    said = content(statement)
    lines = []
    if said.not_private:
        lines.append(f"NOT PRIVATE: {'; '.join(said.not_private)}. Target: {said.guarantee}")
    else:
        lines.append(said.guarantee)
    lines += said.not_covered
    lines += [f"{name}: {value}" for name, value in said.facts]
    for section in said.sections:
        lines += ["", *_section(section)]
    return "\n".join(lines)


def _section(section: Section) -> list[str]:
    lines = [section.heading]
    for paragraph in section.paragraphs:
        lines += _wrapped(paragraph, "  ", "  ")
    for table in section.tables:
        lines += _table(table)
    for item in section.items:
        lines += _wrapped(item, "  - ", "    ")
    return lines


def _wrapped(text: str, first: str, following: str) -> list[str]:
    return textwrap.wrap(
        text,
        _LINE,
        initial_indent=first,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(table: Table) -> list[str]:
    rows = [table.columns, *table.rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    ]
    return [f"  {table.caption}:", *(f"    {line.rstrip()}" for line in lines)]


def _width(text: str) -> int:
    """Columns that text takes in a terminal: East Asian letters take two, accents none."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )
