"""Events as JSON: every event comes back to the bit, and nothing else is read."""

import json
import math

import dp_accounting
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from hypothesis import given
from hypothesis import strategies as st

from dpfc.accounting.events import event_from_json, event_to_json

GAUSSIAN = {"type": "GaussianDpEvent", "noise_multiplier": 2.5}

finite = st.floats(0, allow_infinity=False, allow_nan=False)
leaves = st.one_of(
    st.just(dp_accounting.NoOpDpEvent()),
    st.just(dp_accounting.NonPrivateDpEvent()),
    st.builds(dp_accounting.GaussianDpEvent, finite),
)


def _wrap(inner):
    return st.one_of(
        st.builds(dp_accounting.PoissonSampledDpEvent, st.floats(0, 1), inner),
        st.builds(dp_accounting.SelfComposedDpEvent, inner, st.integers(1, 2**53)),
        st.builds(dp_accounting.ComposedDpEvent, st.lists(inner, max_size=4)),
        st.builds(
            RepeatAndSelectDpEvent,
            inner,
            st.floats(1, allow_infinity=False),
            st.floats(0) | st.just(math.inf),
        ),
    )


events = st.recursive(leaves, _wrap, max_leaves=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "event", "events", "noise_multiplier", "count", "x"]),
            inner | st.sampled_from(["GaussianDpEvent", "ComposedDpEvent", "SelfComposedDpEvent"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


def nested(levels):
    event = dp_accounting.GaussianDpEvent(1.0)
    for _ in range(levels):
        event = dp_accounting.SelfComposedDpEvent(event, 1)
    return event


@given(events)
def test_every_event_comes_back_to_the_bit_through_strict_json(event):
    text = json.dumps(event_to_json(event), allow_nan=False)
    assert event_from_json(json.loads(text)) == event


def test_the_format_is_the_class_and_its_fields():
    event = dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(2.5)), 7
            ),
            RepeatAndSelectDpEvent(dp_accounting.GaussianDpEvent(2.5), 10.0, math.inf),
        ]
    )
    sampled = {"type": "PoissonSampledDpEvent", "sampling_probability": 0.1, "event": GAUSSIAN}
    search = {"type": "RepeatAndSelectDpEvent", "mean": 10.0, "shape": "inf", "event": GAUSSIAN}
    assert event_to_json(event) == {
        "type": "ComposedDpEvent",
        "events": [{"type": "SelfComposedDpEvent", "count": 7, "event": sampled}, search],
    }


@given(json_values)
def test_any_other_json_is_refused_with_a_value_error_or_read_as_an_event(value):
    try:
        event = event_from_json(value)
    except ValueError:
        return
    assert event_from_json(event_to_json(event)) == event


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "must be a JSON object, got NoneType"),
        ([GAUSSIAN], "must be a JSON object, got list"),
        ("GaussianDpEvent", "must be a JSON object, got str"),
        ({}, "type of an event must be one of NoOpDpEvent, .*got None"),
        ({"type": "LaplaceDpEvent", "noise_multiplier": 1.0}, "got 'LaplaceDpEvent'"),
        ({"type": "__import__"}, "got '__import__'"),
        ({"type": ["GaussianDpEvent"]}, "type of an event"),
        ({"type": "GaussianDpEvent"}, r"must have the fields \['noise_multiplier'\]"),
        ({**GAUSSIAN, "count": 3}, "must have the fields"),
        ({**GAUSSIAN, "noise_multiplier": math.nan}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": math.inf}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": "inf"}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": -1}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": True}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": "2.5"}, "noise_multiplier must be a float"),
        ({**GAUSSIAN, "noise_multiplier": 10**400}, "noise_multiplier must be a float"),
        ({"type": "SelfComposedDpEvent", "event": GAUSSIAN, "count": 0}, "count must be an int"),
        ({"type": "SelfComposedDpEvent", "event": GAUSSIAN, "count": 2.0}, "count must be an int"),
        ({"type": "SelfComposedDpEvent", "event": GAUSSIAN, "count": 2**53 + 1}, "2\\*\\*53"),
        ({"type": "SelfComposedDpEvent", "event": None, "count": 2}, "got NoneType"),
        ({"type": "ComposedDpEvent", "events": GAUSSIAN}, "events must be a list, got dict"),
        ({"type": "ComposedDpEvent", "events": "GaussianDpEvent"}, "events must be a list"),
        (
            {"type": "PoissonSampledDpEvent", "event": GAUSSIAN, "sampling_probability": 1.5},
            "sampling_probability must be a float",
        ),
        (
            {"type": "RepeatAndSelectDpEvent", "event": GAUSSIAN, "mean": 0.5, "shape": 1},
            "mean must be a float",
        ),
        (
            {"type": "RepeatAndSelectDpEvent", "event": GAUSSIAN, "mean": 2, "shape": -0.5},
            "shape must be a float",
        ),
    ],
)
def test_bad_json_is_refused_and_named(data, message):
    with pytest.raises(ValueError, match=message):
        event_from_json(data)


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.LaplaceDpEvent(1.0),
        dp_accounting.GaussianDpEvent(math.nan),
        dp_accounting.GaussianDpEvent(-1.0),
        dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(1.0), 0),
        dp_accounting.ComposedDpEvent([dp_accounting.UnsupportedDpEvent()]),
        dp_accounting.ComposedDpEvent("ab"),
        "GaussianDpEvent",
        None,
    ],
)
def test_an_event_outside_the_format_is_not_written(event):
    with pytest.raises(ValueError):
        event_to_json(event)


def test_fifty_levels_are_read_and_written_and_more_are_refused():
    assert event_from_json(event_to_json(nested(50))) == nested(50)
    with pytest.raises(ValueError, match="at most 50 levels"):
        event_to_json(nested(51))
    deeper = {"type": "SelfComposedDpEvent", "count": 1, "event": event_to_json(nested(50))}
    with pytest.raises(ValueError, match="at most 50 levels"):
        event_from_json(deeper)


def test_whole_numbers_are_floats_where_the_event_has_floats():
    event = event_from_json({**GAUSSIAN, "noise_multiplier": 2})
    assert isinstance(event.noise_multiplier, float)
