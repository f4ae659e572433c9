"""What a `DpEvent` is made of: its releases, and the event as plain JSON and back.

In JSON an event is an object that names its class and holds its fields, such as
``{"type": "GaussianDpEvent", "noise_multiplier": 2.5}``. Floats keep every bit. Reading
looks names up in a fixed table: it imports nothing and runs nothing that the text names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc._support.validation import check_float, check_int

__all__ = ["event_from_json", "event_to_json"]

# Less noise counts as none and more as this much, which are upper bounds: squares and sums of
# what is in between neither overflow nor vanish.
_LEAST_NOISE: Final = 1e-100
_MOST_NOISE: Final = 1e100


class UnsupportedEventError(ValueError):
    """An accountant cannot evaluate an event; the message says which and why."""


class TooLittleNoiseError(UnsupportedEventError):
    """Epsilon is finite, and larger than the accountant can tell."""


@dataclass(frozen=True)
class GaussianSteps:
    """`count` Gaussian releases with one noise multiplier and one Poisson sampling probability.

    A noise multiplier of 0 stands for a release without noise.
    """

    noise_multiplier: float
    sampling_probability: float
    count: int

    @property
    def is_sampled(self) -> bool:
        """Whether rows are Poisson sampled, rather than all used."""
        return self.sampling_probability < 1


@dataclass(frozen=True)
class SelectionSteps:
    """`count` searches that run `inner` a random number of times and publish the best run only.

    The number of runs has the mean `mean` and is Poisson (`shape` infinite), geometric (1),
    logarithmic (0) or else truncated negative binomial.
    """

    inner: tuple[Steps, ...]
    mean: float
    shape: float
    count: int

    @property
    def is_sampled(self) -> bool:
        """Whether rows are Poisson sampled in one of the runs' releases."""
        return any(step.is_sampled for step in self.inner)


Steps = GaussianSteps | SelectionSteps


def gaussian_steps(event: dp_accounting.DpEvent) -> tuple[Steps, ...]:
    """Flatten `event`; equal releases are counted together, in order of appearance.

    The one place that multiplies counts, so that no accountant can forget them.

    Raises
    ------
    UnsupportedEventError
        When a leaf is not a Gaussian, Poisson-sampled Gaussian, NoOp or NonPrivate event,
        or a random search over such.
    """
    counts: Counter[Steps] = Counter()
    _count_steps(event, 1, counts)
    return tuple(replace(step, count=count) for step, count in counts.items())


def only_gaussian(steps: Iterable[Steps], accountant: str) -> tuple[GaussianSteps, ...]:
    """Return `steps`, or raise `UnsupportedEventError` in the name of `accountant`."""
    found = []
    for step in steps:
        if isinstance(step, SelectionSteps):
            raise UnsupportedEventError(
                f"{accountant} does not cover RepeatAndSelectDpEvent: the proof for random "
                "stopping (Papernot and Steinke 2022) is for rdp only."
            )
        found.append(step)
    return tuple(found)


def has_no_noise(steps: Iterable[Steps]) -> bool:
    """Whether a release, of a search's runs too, is made without noise."""
    return any(
        has_no_noise(step.inner) if isinstance(step, SelectionSteps) else step.noise_multiplier == 0
        for step in steps
    )


def event_mu(event: dp_accounting.DpEvent) -> float | None:
    """Composed mu of an event made of full-batch Gaussian releases; otherwise None."""
    steps = gaussian_steps(event)
    gaussian = [step for step in steps if isinstance(step, GaussianSteps) and not step.is_sampled]
    return composed_mu(gaussian) if len(gaussian) == len(steps) else None


def composed_mu(steps: Iterable[GaussianSteps]) -> float:
    """Return mu = sqrt(sum count / z^2) of full-batch releases; infinity without noise.

    References
    ----------
    Dong, Roth and Su (2022), Corollary 2.
    """
    terms = []
    for step in steps:
        if step.noise_multiplier == 0:
            return math.inf
        inverse = 1 / step.noise_multiplier
        terms.append(step.count * inverse * inverse)
    return math.sqrt(math.fsum(terms))


def probability_drawn(steps: Iterable[GaussianSteps]) -> float:
    """Probability with which a row takes part in any release.

    No delta above it needs noise: with the rest of the probability, a row changes nothing.
    """
    logs = []
    for step in steps:
        if not step.is_sampled:
            return 1.0
        logs.append(step.count * math.log1p(-step.sampling_probability))
    return -math.expm1(math.fsum(logs))


def _count_steps(event: dp_accounting.DpEvent, count: int, counts: Counter[Steps]) -> None:
    match event:
        case dp_accounting.NoOpDpEvent():
            pass
        case dp_accounting.NonPrivateDpEvent():
            counts[GaussianSteps(0.0, 1.0, 1)] += count
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            counts[GaussianSteps(_check_noise_multiplier(z), 1.0, 1)] += count
        case dp_accounting.PoissonSampledDpEvent(
            sampling_probability=q, event=dp_accounting.GaussianDpEvent(noise_multiplier=z)
        ):
            q = check_float("sampling_probability", q, 0, 1, closed="both")
            if q > 0:
                counts[GaussianSteps(_check_noise_multiplier(z), q, 1)] += count
        case dp_accounting.SelfComposedDpEvent(event=repeated, count=times):
            _count_steps(repeated, count * check_int("count", times, 1), counts)
        case dp_accounting.ComposedDpEvent(events=parts):
            for part in parts:
                _count_steps(part, count, counts)
        case RepeatAndSelectDpEvent(event=repeated, mean=mean, shape=shape):
            mean = check_float("mean", mean, 1, math.inf, closed="left")
            shape = check_float("shape", shape, 0, math.inf, closed="both")
            inner = gaussian_steps(repeated)
            if inner:
                counts[SelectionSteps(inner, mean, shape, 1)] += count
        case _:
            raise UnsupportedEventError(
                f"No accountant here evaluates {event!r}; events must be composed of "
                "GaussianDpEvent, PoissonSampledDpEvent of GaussianDpEvent, "
                "RepeatAndSelectDpEvent of these, NoOpDpEvent and NonPrivateDpEvent."
            )


def _check_noise_multiplier(value: object) -> float:
    """Return the noise multiplier, lowered to 0 or `_MOST_NOISE` where it is extreme."""
    number = check_float("noise_multiplier", value, 0, math.inf, closed="left")
    return min(number, _MOST_NOISE) if number >= _LEAST_NOISE else 0.0


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
