"""Short tables for notebooks, and the names that an object shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from html import escape
from typing import Any

__all__ = ["NotebookTable", "fields_table", "shown"]


def fields_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Write a two-column table as HTML; every text is escaped, and nothing is loaded."""
    body = "".join(
        f'<tr><th style="text-align: left">{escape(str(name))}</th>'
        f'<td style="text-align: left">{escape(shown(value))}</td></tr>'
        for name, value in rows
    )
    caption = f'<caption style="text-align: left">{escape(title)}</caption>'
    return f"<table>{caption}<tbody>{body}</tbody></table>"


def shown(value: object) -> str:
    """Write one value short: floats in six digits, arrays by their shape, none as a dash."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        parts = ", ".join(shown(part) for part in value)
        return parts if len(parts) <= 100 else f"{len(value)} values"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        size = getattr(value, "size", 0)
        return shown(value.tolist()) if size <= 10 else f"{' × '.join(map(str, shape))} values"  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return ", ".join(f"{key}: {shown(part)}" for key, part in value.items()) or "–"
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:199]}…"


class NotebookTable:
    """A dataclass that a notebook shows as a table of its fields."""

    def _repr_html_(self) -> str:
        rows: list[tuple[str, Any]] = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            rows.append((field.name, getattr(value, "short", value)))
        return fields_table(type(self).__name__, rows)
