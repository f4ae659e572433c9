"""Declared constraints on an estimator's parameters, and one voice for their errors."""

from __future__ import annotations

import inspect
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar, get_type_hints

__all__ = [
    "ACCOUNTANT",
    "BOUND",
    "DELTA",
    "EPSILON",
    "RELATION",
    "ROWS",
    "SHARE",
    "STEPS",
    "Choice",
    "Constraint",
    "Flag",
    "Interval",
    "Text",
    "check",
    "check_epsilon",
    "check_float",
    "check_int",
    "check_parameters",
    "check_target",
    "check_words",
    "declared",
    "refuse_text",
]

_Class = TypeVar("_Class", bound=type)
_Value = TypeVar("_Value")
_LAST = ("random_state", "verbose")
# Above it the δ of a Gaussian release is a difference that float64 does not resolve. It is no
# guarantee in any sense of the word either: "inf" says so.
_LARGEST_EPSILON = 1e15


class Constraint(Protocol):
    """A test of one value, and the words for it."""

    def accepts(self, value: object) -> bool:
        """Whether the value is allowed."""
        ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Interval:
    """A real number between two bounds, each open or closed; or an integer; or a word."""

    low: float
    high: float = math.inf
    closed: str = "neither"  # "left", "right", "both", "neither"
    integer: bool = False
    or_inf: bool = False
    words: tuple[str | None, ...] = ()

    def accepts(self, value: object) -> bool:
        """Whether the value is allowed; NaN and bool never are."""
        if isinstance(value, str) or value is None:
            return value in self.words
        kind = numbers.Integral if self.integer else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        if self.or_inf and number == math.inf:
            return True
        above = number >= self.low if self.closed in ("left", "both") else number > self.low
        below = number <= self.high if self.closed in ("right", "both") else number < self.high
        return above and below

    def __str__(self) -> str:
        left = "[" if self.closed in ("left", "both") else "("
        right = "]" if self.closed in ("right", "both") else ")"
        kind = "an int" if self.integer else "a float"
        words = " or inf" * self.or_inf + "".join(f" or {word!r}" for word in self.words)
        return f"{kind} in {left}{_plain(self.low)}, {_plain(self.high)}{right}{words}"


def _plain(bound: float) -> str:
    return f"{bound}" if isinstance(bound, int) else f"{bound:g}"


@dataclass(frozen=True)
class Choice:
    """One of a few words, or, where that is allowed, None."""

    options: tuple[str, ...]
    or_none: bool = False

    def accepts(self, value: object) -> bool:
        """Whether the value is one of the options."""
        return (self.or_none and value is None) or (
            isinstance(value, str) and value in self.options
        )

    def __str__(self) -> str:
        words = ", ".join(repr(option) for option in self.options)
        return f"one of {words}" + " or None" * self.or_none


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def accepts(self, value: object) -> bool:
        """Whether the value is a bool."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "True or False"


@dataclass(frozen=True)
class Text:
    """A non-empty string, or a path; or None."""

    path: bool = False

    def accepts(self, value: object) -> bool:
        """Whether the value is a string, a path where one is meant, or None."""
        kinds = (str, os.PathLike) if self.path else (str,)
        return value is None or (isinstance(value, kinds) and bool(value))

    def __str__(self) -> str:
        return ("a path" if self.path else "a non-empty string") + " or None"


ACCOUNTANT = Choice(("auto", "exact", "pld", "rdp"))
RELATION = Choice(("add_or_remove_one", "replace_one"))
# What a run may spend: with inf there is no noise.
EPSILON = Interval(0, math.inf, closed="right")
DELTA = Interval(0, 1)
# Shares of a budget or of the rows: smaller ones have noise that no float holds.
SHARE = Interval(1e-9, 1)
# Norm bounds: squares of them, and of noise scaled by them, must stay within float64.
BOUND = Interval(1e-30, 1e30, closed="both", or_inf=True)
# A step leaves a number in the model, and takes a draw: more than these would never end.
STEPS = Interval(1, 10_000_000, closed="both", integer=True)
# Rows that are stated: sums over more would leave what numbers hold, in the middle of a fit.
ROWS = Interval(1, 10**12, closed="both", integer=True, words=(None,))


def declared(kind: _Class) -> _Class:
    """Let a dataclass's fields be checked parameters: `Annotated[float, SHARE] = 0.5`.

    Constraints go to `_constraints`. The signature has plain types, from any module, and ends
    with `random_state` and `verbose`, so that a subclass's own parameters come before these.
    Defaults do not stay on the class: a parameter that an old pickle lacks must not get one.
    """
    cls: Any = kind
    init = vars(cls)["__init__"]
    types, hints = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cls)]
    init.__annotations__ = {name: types[name] for name in names}
    cls._constraints = {n: c for n in names for c in getattr(hints[n], "__metadata__", ())}
    for name in vars(cls).keys() & names:
        delattr(cls, name)
    parameters = inspect.signature(init).parameters.values()
    ordered = sorted(parameters, key=lambda parameter: parameter.name in _LAST)
    init.__signature__ = inspect.Signature(ordered)
    return kind


def check(name: str, value: _Value, constraint: Constraint) -> _Value:
    """Return a value that its constraint allows.

    Raises
    ------
    ValueError
        Names the parameter, what it must be and what it is.
    """
    if not constraint.accepts(value):
        raise ValueError(f"{name} must be {constraint}, got {value!r}.")
    return value


def check_float(
    name: str, value: object, low: float, high: float, *, closed: str = "neither"
) -> float:
    """Return a number in an interval as a float; raises as `check`."""
    number: Any = check(name, value, Interval(low, high, closed))
    return float(number)


def check_int(name: str, value: object, low: int) -> int:
    """Return an integer of at least `low` as an int; raises as `check`."""
    number: Any = check(name, value, Interval(low, closed="left", integer=True))
    return int(number)


def check_epsilon(name: str, value: object) -> float:
    """Return a finite epsilon that figures can be computed for, or raise."""
    epsilon = check_float(name, value, 0, math.inf)
    if epsilon > _LARGEST_EPSILON:
        raise ValueError(
            f"{name} must be at most {_LARGEST_EPSILON:g}, got {value!r}: that much protects "
            "nothing. An infinite epsilon asks for no noise, where that is meant."
        )
    return epsilon


def check_target(target_epsilon: object, target_delta: object) -> tuple[float, float]:
    """Return a checked (epsilon, delta); delta may be 0 only when epsilon is infinite."""
    # The interval is half open, yet infinity is allowed: it means "no noise".
    if isinstance(target_epsilon, numbers.Real) and float(target_epsilon) == math.inf:
        return math.inf, check_float("target_delta", target_delta, 0, 1, closed="left")
    epsilon = check_epsilon("target_epsilon", target_epsilon)
    return epsilon, check_float("target_delta", target_delta, 0, 1)


def check_parameters(parameters: Mapping[str, Any], constraints: Mapping[str, Constraint]) -> None:
    """Check every parameter that has a constraint.

    Raises
    ------
    ValueError
        For the first parameter that is not allowed: what it must be and what it is.
    """
    for name, constraint in constraints.items():
        check(name, parameters[name], constraint)


def refuse_text(name: str, value: object) -> None:
    """Refuse a text where a list is meant: Python would take its characters one by one.

    Raises
    ------
    ValueError
    """
    if isinstance(value, str | bytes):
        raise ValueError(
            f"{name} must be a list, got the text {value!r}: write [{value!r}] for this one, or "
            f"list({value!r}) for its characters."
        )


def check_words(name: str, value: object, options: Sequence[str]) -> tuple[str, ...]:
    """Return a list's words, each one of `options` and there once, in the order of `options`.

    Raises
    ------
    ValueError
    """
    words = value if isinstance(value, list | tuple) else ()
    if not words or any(word not in options or words.count(word) > 1 for word in words):
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(
            f"{name} must be a list of one or more of {listed}, each once, got {value!r}."
        )
    return tuple(option for option in options if option in words)
