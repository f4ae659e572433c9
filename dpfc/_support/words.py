"""Texts, numbers and values as people and programs get them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["counted", "plural", "shown", "strict"]


def shown(text: str) -> str:
    """Bring a text into one line in which marks that steer a terminal are escaped.

    Names of classes, files and studies come from other people's files.
    """
    line = " ".join(text.split())
    return "".join(mark if mark.isprintable() else ascii(mark)[1:-1] for mark in line)


def counted(number: int, what: str) -> str:
    """Write a number and what it counts: "1 budget", "2,000 budgets", "1 failed run"."""
    return f"{number:,} {plural(number, what)}"


def plural(number: float, what: str) -> str:
    """Name what a number counts: "budget", "budgets"."""
    return what if number == 1 else f"{what}s"


def strict(value: Any) -> Any:
    """Make a value fit for strict JSON: infinity becomes "inf", NumPy numbers plain ones."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    return "inf" if isinstance(value, float) and math.isinf(value) else value
