"""Options that several commands share, with the words that explain them."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

__all__ = [
    "Accountant",
    "ClassWeight",
    "Classes",
    "Delta",
    "Epsilon",
    "Features",
    "Force",
    "Json",
    "Method",
    "MethodName",
    "ModelOut",
    "ModelPath",
    "NoHeader",
    "PublicFeatures",
    "PublicSize",
    "Relation",
    "Seed",
    "Settings",
    "Unlabelled",
    "old_spelling",
    "parse_numbers",
]

MethodName = Literal["fc", "ls", "gd", "newton"]
RelationName = Literal["add_or_remove_one", "replace_one"]
AccountantName = Literal["auto", "exact", "pld", "rdp"]


def _epsilon(text: str) -> float:
    """Read ε; what is too large for a float is no "inf", which means no noise at all."""
    try:
        value = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a valid float.") from None
    if math.isinf(value) and "inf" not in text.lower():
        raise typer.BadParameter(f"{text!r} is too large; for no noise at all, say 'inf'.")
    return value


Epsilon = Annotated[
    float,
    typer.Option(
        parser=_epsilon,
        metavar="<float>",
        help="ε, > 0; smaller is more private; 'inf': no noise at all.",
    ),
]
Delta = Annotated[
    float,
    typer.Option(help="δ of the guarantee, in (0, 1); well below 1 / (people)."),
]
Features = Annotated[
    Path,
    typer.Option("--features", metavar="DIR", help="Feature cache that `dpfc extract` wrote."),
]
ModelPath = Annotated[
    Path,
    typer.Option(
        "--model", metavar="FILE", help="Model file that `dpfc fit` or `dpfc train` wrote."
    ),
]
ModelOut = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Model file to write (safetensors).")
]
Method = Annotated[
    MethodName,
    typer.Option(
        help="fc: DP-FC, to start with. ls: DP-LS, least squares. gd: first order. "
        "newton: DP-Newton, slow."
    ),
]
PublicSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of rows, if it is public; private by default.",
    ),
]
PublicFeatures = Annotated[
    Path | None,
    typer.Option(
        "--public-features",
        metavar="DIR",
        help="Feature cache of public data, same backbone, labels not used: costs no budget and "
        "helps most where the budget is small. For fc only.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C",
        help="Public list of classes; needed only where the cache names none.",
    ),
]
ClassWeight = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=W,…",
        help="How much rows of a class count, as public numbers; or 'balanced', from noisy counts.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Make the run repeatable, and NOT private: who knows the seed can subtract the noise.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output, nothing else there."),
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="Write no labels, whether there are any or not.")
]
NoHeader = Annotated[
    bool,
    typer.Option("--no-header", help="Of a CSV: its first line is a row; columns are 1, 2, …."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output file.")]
Relation = Annotated[
    RelationName,
    typer.Option(
        metavar="NAME",
        help="What is hidden: add_or_remove_one row, or replace_one (up to twice the noise, number "
        "of rows public).",
    ),
]
Accountant = Annotated[
    AccountantName,
    typer.Option(
        metavar="NAME",
        help="How releases add up: auto (exact, or pld where rows are sampled), exact, pld, or "
        "rdp (more noise).",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A further parameter, such as n_steps=30; may be repeated.",
    ),
]


_Value = TypeVar("_Value")


def old_spelling(
    value: _Value | None, old: _Value | None, *, now: str, before: str
) -> _Value | None:
    """Take an option's value by the name that it had in the last version, too.

    Raises
    ------
    ValueError
        If it is given by both names.

    Warns
    -----
    UserWarning
        If it is given by the old name.
    """
    if old is None:
        return value
    if value is not None:
        raise ValueError(f"{before} is what {now} was called: give {now} alone.")
    text = f"{before} is called {now} now; the old name goes away with the next version."
    warnings.warn(text, UserWarning, stacklevel=2)
    return old


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
