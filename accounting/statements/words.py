"""Numbers, times, events and users' texts as a statement writes them, in one line each."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

__all__ = ["clean", "in_words", "lower", "moment", "percent", "upper"]


def upper(value: float, digits: int = 6) -> str:
    """Write an upper bound; it is rounded up, so that what is printed holds as well."""
    return _rounded(value, digits, ROUND_CEILING)


def lower(value: float, digits: int = 6) -> str:
    """Write what must be reached, such as noise; rounded down: no more than there is."""
    return _rounded(value, digits, ROUND_FLOOR)


def percent(value: float) -> str:
    """Write a probability that is an upper bound, rounded up to three digits."""
    return f"{_rounded(Decimal(repr(value)).scaleb(2), 3, ROUND_CEILING)}%"


def _rounded(value: float | Decimal, digits: int, rounding: str) -> str:
    if value == math.inf:
        return "∞"
    # From the shortest text that stands for a float: 0.1 is 0.1 in either direction.
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    return f"{float(Context(prec=digits, rounding=rounding).plus(exact)):.{digits}g}"


def clean(text: str) -> str:
    """Bring text into one line and make control and formatting characters visible."""
    line = " ".join(text.split())
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character)[0] == "C" else character
        for character in line
    )


def moment(text: str) -> str:
    """Write a time of ISO 8601 in UTC; what is none, or names no zone, stays as it is."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            return clean(text)
        return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return clean(text)


def in_words(event: dp_accounting.DpEvent) -> str:
    """Name what an event stands for, as an analyst would."""
    match event:
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            return f"a Gaussian release with noise multiplier {lower(z)}"
        case dp_accounting.PoissonSampledDpEvent(sampling_probability=q, event=inner):
            return f"{in_words(inner)} on a Poisson sample of rate {upper(q)}"
        case dp_accounting.SelfComposedDpEvent(event=inner, count=count):
            return f"{count} times ({in_words(inner)})"
        case RepeatAndSelectDpEvent(event=inner, mean=mean, shape=shape):
            law = "Poisson" if shape == math.inf else f"negative binomial of shape {shape:.6g}"
            return f"the best of {upper(mean)} runs on average ({law}), each: {in_words(inner)}"
        case dp_accounting.ComposedDpEvent(events=parts):
            return "; ".join(in_words(part) for part in parts) or "nothing"
        case dp_accounting.NonPrivateDpEvent():
            return "a release without noise"
        case _:
            return "nothing"
