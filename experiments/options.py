"""Options that several commands share, with the words that explain them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Delta",
    "Epsilon",
    "Features",
    "Force",
    "Json",
    "MethodName",
    "ModelPath",
    "Relation",
    "Settings",
    "parse_numbers",
]

MethodName = Literal["fc", "ls", "gd", "newton"]
RelationName = Literal["add_or_remove_one", "replace_one"]

Epsilon = Annotated[
    float,
    typer.Option(
        help="ε of the guarantee, a float > 0; smaller is more private. 'inf' adds no noise "
        "and protects nothing."
    ),
]
Delta = Annotated[
    float,
    typer.Option(help="δ of the guarantee, in (0, 1); well below 1 / (number of people)."),
]
Features = Annotated[
    Path,
    typer.Option("--features", metavar="DIR", help="Feature cache that `dpfc extract` wrote."),
]
ModelPath = Annotated[
    Path, typer.Option("--model", metavar="FILE", help="Model file that `dpfc fit` wrote.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output and nothing else there."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output file.")]
Relation = Annotated[
    RelationName,
    typer.Option(
        metavar="RELATION",
        help="What is hidden: add_or_remove_one (one row more or less), or replace_one (one row "
        "replaced by another: up to twice the noise, and the number of rows is public).",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A further parameter of the estimator, such as n_steps=30; may be repeated. "
        "The default is the estimator's.",
    ),
]


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Read comma-separated positive numbers, in the order given.

    Raises
    ------
    ValueError
        If one is no number, not positive, infinite, or given twice.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas between, got {text!r}.") from None
    if not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"{option} takes finite numbers > 0, got {text!r}.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{option} holds a number twice: {text!r}.")
    return numbers
