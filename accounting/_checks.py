"""Checks of arguments, with one message format for the whole package."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Final, Literal

ACCOUNTANTS: Final = ("exact", "pld", "rdp")
# Above it the δ of a Gaussian release is a difference that float64 does not resolve. It is no
# guarantee in any sense of the word either: "inf" says so.
LARGEST_EPSILON: Final = 1e15
NEIGHBORING_RELATIONS: Final = ("add_or_remove_one", "replace_one")
# Why a run is not private whose noise comes from a seed.
SEEDED: Final = (
    "random_state was given: anyone who knows the seed can remove the noise; do not publish"
)

Closed = Literal["neither", "left", "right", "both"]


def check_float(
    name: str, value: object, low: float, high: float, *, closed: Closed = "neither"
) -> float:
    """Return `value` as a float, or raise when it is not a number in the interval.

    Booleans, NaN and strings are refused.

    Raises
    ------
    ValueError
        Names the parameter, the interval and the value.
    """
    left = "[" if closed in ("left", "both") else "("
    right = "]" if closed in ("right", "both") else ")"
    message = f"{name} must be a float in {left}{low:g}, {high:g}{right}, got {value!r}."
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(message)
    try:
        number = float(value)
    except OverflowError:  # an integer that no float holds
        raise ValueError(message) from None
    above = number >= low if left == "[" else number > low
    below = number <= high if right == "]" else number < high
    # A NaN fails both comparisons.
    if not (above and below):
        raise ValueError(message)
    return number


def check_int(name: str, value: object, low: int) -> int:
    """Return `value` as an int, or raise when it is not an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ValueError(f"{name} must be an int in [{low}, inf), got {value!r}.")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return `value`, or raise when it is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}.")
    return value


def check_name(value: object) -> str:
    """Return `value`, or raise when it is not a non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"name must be a non-empty string, got {value!r}.")
    return value


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Return `value`, or raise when it is not one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}.")
    return value


def check_epsilon(name: str, value: object) -> float:
    """Return a finite epsilon that figures can be computed for, or raise."""
    epsilon = check_float(name, value, 0, math.inf)
    if epsilon > LARGEST_EPSILON:
        raise ValueError(
            f"{name} must be at most {LARGEST_EPSILON:g}, got {value!r}: that much protects "
            "nothing. An infinite epsilon asks for no noise, where that is meant."
        )
    return epsilon


def check_target(target_epsilon: object, target_delta: object) -> tuple[float, float]:
    """Return a checked (epsilon, delta); delta may be 0 only when epsilon is infinite."""
    # The interval is half open, yet infinity is allowed: it means "no noise".
    if isinstance(target_epsilon, Real) and float(target_epsilon) == math.inf:
        return math.inf, check_float("target_delta", target_delta, 0, 1, closed="left")
    epsilon = check_epsilon("target_epsilon", target_epsilon)
    return epsilon, check_float("target_delta", target_delta, 0, 1)
