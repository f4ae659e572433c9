"""A privacy statement as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dpfc.accounting.statements.wording import Section, Table, content

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

__all__ = ["render_markdown"]

# What Markdown gives a meaning inside a line; the last four make links of bare addresses.
_INLINE = re.compile(r"([\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_])|@|:(?=//)|(?<=www)\.)", re.I)
# What it gives a meaning at the start of one.
_START = re.compile(r"^(?:([-+=])|(\d+)([.)])(?=\s|$))")


def render_markdown(statement: PrivacyStatement, level: int = 1) -> str:
    """Render everything that `content` says, with tables; ends in a newline.

    Parameters
    ----------
    statement : PrivacyStatement
    level : int, default=1
        Of its heading, where it is part of a page.
    """
    said, mark = content(statement), "#" * level
    warning = "⚠ NOT PRIVATE: " if said.not_private else ""
    lines = [f"{mark} {warning}{escape(said.title)}", ""]
    for reason in said.not_private:
        lines += [f"> **⚠ NOT PRIVATE**: {escape(reason)}", ">"]
    if said.not_private:
        lines += [f"> Target: {escape(said.guarantee)}", ""]
    else:
        lines += [f"**{escape(said.guarantee)}**", ""]
    for sentence in said.not_covered:
        lines += [f"> **⚠** {escape(sentence)}", ""]
    lines += [f"- {escape_line(name)}: {escape(value)}" for name, value in said.facts]
    for section in said.sections:
        lines += ["", f"{mark}# {escape(section.heading)}", *_section(section)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Write text inside a line so that Markdown shows it as it is: no markup, link or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _INLINE.sub(r"\\\1", text)


def escape_line(text: str) -> str:
    """Do the same at the start of a line, where a number or a dash would start a list."""
    return _START.sub(r"\2\\\1\3", escape(text))


def _section(section: Section) -> list[str]:
    lines = []
    for paragraph in section.paragraphs:
        lines += ["", escape_line(paragraph)]
    for table in section.tables:
        lines += ["", *_table(table)]
    if section.items:
        lines += ["", *(f"- {escape_line(item)}" for item in section.items)]
    return lines


def _table(table: Table) -> list[str]:
    rows = [table.columns, ("---",) * len(table.columns), *table.rows]
    cells = [[cell if row is rows[1] else escape(cell) for cell in row] for row in rows]
    return [f"{escape_line(table.caption)}:", "", *(f"| {' | '.join(row)} |" for row in cells)]
