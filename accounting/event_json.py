"""Events as plain JSON, and back: what the ledger stores and what statements publish.

A `DpEvent` becomes an object that names its class and holds its fields, such as
``{"type": "GaussianDpEvent", "noise_multiplier": 2.5}``. Floats keep every bit. Reading
looks names up in a fixed table: it imports nothing and runs nothing that the text names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc.accounting._checks import check_float, check_int

__all__ = ["event_from_json", "event_to_json"]

# Compositions nest a few levels; Python's own stack ends near 1,000.
_MAX_DEPTH: Final = 50
# Floats count exactly up to here.
_MAX_COUNT: Final = 2**53

_Number = Callable[[str, object], float]


def _in_interval(low: float, high: float, closed: Any) -> _Number:
    return lambda name, value: check_float(name, value, low, high, closed=closed)


def _count(name: str, value: object) -> int:
    count = check_int(name, value, 1)
    if count > _MAX_COUNT:
        raise ValueError(f"{name} must be an int in [1, 2**53], got {count!r}.")
    return count


# Numbers by class and field. "event" and "events" come on top, in _PARTS.
_NUMBERS: Final[dict[type[dp_accounting.DpEvent], dict[str, _Number]]] = {
    dp_accounting.NoOpDpEvent: {},
    dp_accounting.NonPrivateDpEvent: {},
    dp_accounting.GaussianDpEvent: {"noise_multiplier": _in_interval(0, math.inf, "left")},
    dp_accounting.PoissonSampledDpEvent: {"sampling_probability": _in_interval(0, 1, "both")},
    dp_accounting.SelfComposedDpEvent: {"count": _count},
    dp_accounting.ComposedDpEvent: {},
    RepeatAndSelectDpEvent: {
        "mean": _in_interval(1, math.inf, "left"),
        "shape": _in_interval(0, math.inf, "both"),
    },
}
_PARTS: Final = {
    dp_accounting.PoissonSampledDpEvent: "event",
    dp_accounting.SelfComposedDpEvent: "event",
    dp_accounting.ComposedDpEvent: "events",
    RepeatAndSelectDpEvent: "event",
}
_CLASSES: Final = {event_class.__name__: event_class for event_class in _NUMBERS}


def event_to_json(event: dp_accounting.DpEvent) -> dict[str, Any]:
    """Write an event as plain JSON values.

    Parameters
    ----------
    event : DpEvent
        Made of `GaussianDpEvent`, `PoissonSampledDpEvent`, `SelfComposedDpEvent`,
        `ComposedDpEvent`, `RepeatAndSelectDpEvent`, `NoOpDpEvent`, `NonPrivateDpEvent`.

    Returns
    -------
    dict
        Strict JSON: an infinite `shape` (Poisson many repetitions) becomes "inf".

    Raises
    ------
    ValueError
        When `event` holds another class, or a field is outside its interval.
    """
    return _encode(event, 0)


def event_from_json(data: object) -> dp_accounting.DpEvent:
    """Read what `event_to_json` wrote, parsed by any JSON parser.

    Raises
    ------
    ValueError
        When `data` is anything else: an unknown type, a missing or further field, a number
        outside its interval, or more than 50 levels.
    """
    return _decode(data, 0)


def _encode(event: object, depth: int) -> dict[str, Any]:
    _check_depth(depth)
    event_class = type(event)
    if event_class not in _NUMBERS:
        raise ValueError(f"event must be made of {_listed()}, got {event!r}.")
    data: dict[str, Any] = {"type": event_class.__name__}
    for name, check in _NUMBERS[event_class].items():
        number = check(name, getattr(event, name))
        data[name] = "inf" if number == math.inf else number
    part = _PARTS.get(event_class)
    if part == "event":
        data[part] = _encode(getattr(event, part), depth + 1)
    elif part == "events":
        parts = _check_sequence(getattr(event, part))
        data[part] = [_encode(item, depth + 1) for item in parts]
    return data


def _decode(data: object, depth: int) -> dp_accounting.DpEvent:
    _check_depth(depth)
    if not isinstance(data, Mapping):
        raise ValueError(f"an event must be a JSON object, got {type(data).__name__}.")
    name = data.get("type")
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"type of an event must be one of {_listed()}, got {name!r}.")
    event_class = _CLASSES[name]
    part = _PARTS.get(event_class)
    fields = {*_NUMBERS[event_class], *([part] if part else [])}
    if set(data) != {"type", *fields}:
        raise ValueError(
            f"{name} must have the fields {sorted(fields)}, got {sorted(map(str, data))!r}."
        )
    values: dict[str, Any] = {}
    for field, check in _NUMBERS[event_class].items():
        value = math.inf if field == "shape" and data[field] == "inf" else data[field]
        values[field] = check(field, value)
    if part == "event":
        values[part] = _decode(data[part], depth + 1)
    elif part == "events":
        values[part] = [_decode(item, depth + 1) for item in _check_sequence(data[part])]
    return event_class(**values)


def _check_sequence(value: object) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"events must be a list, got {type(value).__name__}.")
    return value


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"an event must have at most {_MAX_DEPTH} levels.")


def _listed() -> str:
    return ", ".join(_CLASSES)
