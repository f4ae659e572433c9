"""A statement that was edited and contradicts itself cannot be read; the message says where."""

from __future__ import annotations

import copy
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from statement_examples import STATEMENTS, ledger_statement

from dpfc.accounting import PrivacyStatement
from dpfc.accounting.statements.statement import StatementError

CONTRADICTIONS = {
    "claims to be private": (
        "seeded",
        {"private": True},
        "private must be false exactly when reasons_not_private has entries",
    ),
    "hides why it is not private": (
        "seeded",
        {"reasons_not_private": []},
        "private must be false exactly when",
    ),
    "calls no noise private": (
        "without noise",
        {"private": True, "reasons_not_private": []},
        "private must be false when target_epsilon is infinite",
    ),
    "lowers the target": (
        "full batch",
        {"target_epsilon": 0.9},
        r"epsilon of what ran, .*, must be at most target_epsilon, 0.9",
    ),
    "lowers delta": ("full batch", {"target_delta": 1e-6}, "exact epsilon must be 1.1"),
    "lowers target and epsilons": (
        "full batch",
        {"target_epsilon": 0.5, ("epsilon_by_accountant", "exact"): 0.5},
        "exact epsilon must be 0.99",
    ),
    "lowers them under another accountant": (
        "full batch",
        {"target_epsilon": 0.5, "accountant": "rdp", ("epsilon_by_accountant", "rdp"): 0.5},
        "rdp epsilon must be at least the exact one",
    ),
    "lowers pld": (
        "full batch",
        {("epsilon_by_accountant", "pld"): 0.5},
        "pld epsilon must be at least the exact one",
    ),
    "has no epsilon": (
        "full batch",
        {("epsilon_by_accountant", "exact"): "unavailable: lost"},
        "exact epsilon must be 0.99",
    ),
    "has no epsilon of its accountant": (
        "sampled",
        {("epsilon_by_accountant", "pld"): "unavailable: lost"},
        "epsilon_by_accountant must hold a number for the statement's accountant",
    ),
    "has an exact epsilon of sampling": (
        "sampled",
        {("epsilon_by_accountant", "exact"): 0.5},
        "exact epsilon must be unavailable",
    ),
    "lowers mu": ("full batch", {"mu": 0.2}, r"mu must be 0.268\d*, as event says, got 0.2"),
    "has a mu of sampling": ("sampled", {"mu": 0.2}, "mu must be None"),
    "lowers the advantage": ("full batch", {("attack", "advantage"): 0.1}, "advantage must be"),
    "lowers a true-positive rate": (
        "full batch",
        {("attack", "points", 1, "true_positive_rate"): 0.012},
        r"true_positive_rate must be 0.019\d*, as event says, got 0.012",
    ),
    "adds noise to a release": (
        "full batch",
        {
            ("releases", 0, "noise_multiplier"): 9.0,
            ("releases", 0, "noise_standard_deviation"): 9.0 * (0.5 + 1e-6),
        },
        "event must be the composition of its releases",
    ),
    "says less noise than it multiplies": (
        "full batch",
        {("releases", 0, "noise_standard_deviation"): 1.0},
        r"noise_standard_deviation must be noise_multiplier \* \(l2_sensitivity \+ num",
    ),
    "lowers a sensitivity": (
        "full batch",
        {("releases", 0, "l2_sensitivity"): 0.25},
        r"noise_standard_deviation must be noise_multiplier \* \(l2_sensitivity \+ num",
    ),
    "drops a release of an evaluation": (
        "evaluation",
        {"releases": []},
        "event must be the composition of its releases",
    ),
    "publishes without noise": (
        "search",
        {("releases", 0, "noise_multiplier"): 0.0},
        "private must be false: something was released without noise",
    ),
    "runs without noise": (
        "search",
        {("event", "event", "noise_multiplier"): 0.0},
        "private must be false: something was released without noise",
    ),
    "hides what an attacker reaches": (
        "sampled",
        {("attack", "points"): []},
        "attack.points",
    ),
    "moves to rates where an attacker reaches less": (
        "sampled",
        {("attack", "points", 1, "false_positive_rate"): 1e-9},
        "points of attack must be at the false-positive rates",
    ),
    "asks an accountant of its own": (
        "sampled",
        {("epsilon_by_accountant", "ours"): 0.1},
        "epsilon_by_accountant.ours",
    ),
    "has an order that takes for ever": (
        "renyi ledger",
        {("budget", "filter", "orders", 0): 1e308},
        "orders",
    ),
    "drops a release": (
        "full batch",
        {"releases": []},
        "event must be the composition of its releases",
    ),
    "adds noise to the event": (
        "full batch",
        {("event", "events", 0, "noise_multiplier"): 9.0},
        "mu must be 0.26",
    ),
    "has an event that does not exist": (
        "full batch",
        {"event": {"type": "os.system"}},
        "type of an event must be one of",
    ),
    "has an event that no float counts": (
        "full batch",
        {"event": {"type": "SelfComposedDpEvent", "count": 10**400, "event": {}}},
        "count",
    ),
    "is a ledger's without a budget": ("full batch", {"kind": "ledger"}, "budget must be given"),
    "is a fit with a budget": ("ledger", {"kind": "fit"}, "budget must be given"),
    "has no data set": ("ledger", {"dataset": None}, "must name its dataset"),
    "drops a spend": (
        "ledger",
        {("budget", "spends"): []},
        "event must be the composition of the ledger's spends",
    ),
    "halves a spend": (
        "ledger",
        {("budget", "spends", 0, "event", "events", 0, "noise_multiplier"): 99.0},
        "event must be the composition of the ledger's spends",
    ),
    "promises less than its filter": (
        "ledger",
        {"target_epsilon": 2.9},
        "filter must keep target_epsilon at target_delta",
    ),
    "has a filter that would have refused": (
        "ledger",
        {("budget", "filter", "mu"): 0.1, "target_epsilon": 0.5},
        "filter must accept the spends",
    ),
    "lowers a ledger's advantage": ("ledger", {("attack", "advantage"): 0.1}, "advantage must be"),
    "has a filter of nothing": (
        "renyi ledger",
        {("budget", "filter", "orders"): [3.0]},
        "orders and budgets must be non-empty and equally many",
    ),
    "hides how much is spent": (
        "ledger",
        {("budget", "spent_share"): 0.01},
        "shares of the budget must be those that its filter counts",
    ),
    "makes a spend small": (
        "renyi ledger",
        {("budget", "spends", 1, "share_of_budget"): 0.0},
        "shares of the budget must be those that its filter counts",
    ),
    "has more left than is": (
        "ledger",
        {("budget", "remaining_epsilon"): 2.9},
        r"remaining_epsilon must be at most 2\.[0-8]",
    ),
    "hides that a spend is not private": (
        "ledger",
        {"private": True, "reasons_not_private": []},
        "private must be false: the statement of spend 3 is not",
    ),
    "files a statement of another relation": (
        "ledger",
        {("budget", "spends", 0, "statement", "neighboring_relation"): "replace_one"},
        "statement of spend 1 must be no ledger's and have the ledger's relation",
    ),
    "spends more than is possible": ("ledger", {("budget", "spent_share"): 2.0}, "spent_share"),
}


# What reading does not find, since it would take an accountant.
FOUND_BY_VERIFYING = {
    "lowers target and epsilon": (
        "sampled",
        {"target_epsilon": 0.5, ("epsilon_by_accountant", "pld"): 0.5},
        r"pld epsilon must be at least 0\.99\d*, as event says, got 0\.5",
    ),
    "lowers what it does not rely on": (
        "sampled",
        {("epsilon_by_accountant", "rdp"): 0.5},
        "rdp epsilon must be at least",
    ),
    "has an epsilon where there is none": (
        "search",
        {("epsilon_by_accountant", "pld"): 0.5},
        "pld epsilon must be at least 'unavailable: ",
    ),
    "lowers a true-positive rate": (
        "search",
        {("attack", "points", 1, "true_positive_rate"): 0.011},
        "true_positive_rate must be at least",
    ),
    "lowers the advantage": ("sampled", {("attack", "advantage"): 0.01}, "advantage must be"),
    "runs with less noise": (
        "search",
        {("event", "event", "noise_multiplier"): 3.0},
        "rdp epsilon must be at least",
    ),
    "lowers what a spend would be on its own": (
        "renyi ledger",
        {("budget", "spends", 0, "statement", "epsilon_by_accountant", "rdp"): 1.0},
        "rdp epsilon must be at least",
    ),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What a statement of each kind is in a file."""
    folder = tmp_path_factory.mktemp("ledgers")
    statements = {name: make() for name, make in STATEMENTS.items()}
    statements["ledger"] = ledger_statement(folder / "a.db")
    statements["renyi ledger"] = ledger_statement(folder / "b.db", filter="renyi", seeded=False)
    return {name: json.loads(statement.to_json()) for name, statement in statements.items()}


def changed(value, changes):
    value = copy.deepcopy(value)
    for path, new in changes.items():
        *parents, last = path if isinstance(path, tuple) else (path,)
        part = value
        for key in parents:
            part = part[key]
        part[last] = new
    return value


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_statement_that_contradicts_itself_is_refused(written, name):
    example, changes, message = CONTRADICTIONS[name]
    original = written[example]
    PrivacyStatement.from_json(json.dumps(original))
    with pytest.raises(StatementError, match=message) as caught:
        PrivacyStatement.from_json(json.dumps(changed(original, changes)))
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("name", FOUND_BY_VERIFYING)
def test_a_statement_that_claims_less_than_its_events_is_found_by_verifying(written, name):
    example, changes, message = FOUND_BY_VERIFYING[name]
    PrivacyStatement.from_json(json.dumps(written[example])).verify()
    edited = PrivacyStatement.from_json(json.dumps(changed(written[example], changes)))
    with pytest.raises(ValueError, match=message):
        edited.verify()


@pytest.mark.parametrize("example", [*STATEMENTS, "ledger", "renyi ledger"])
def test_a_statement_of_what_ran_is_verified(written, example):
    PrivacyStatement.from_json(json.dumps(written[example])).verify()


@pytest.mark.parametrize("example", [*STATEMENTS, "ledger", "renyi ledger"])
def test_a_value_of_another_type_is_refused_by_the_schema_and_by_the_reader(written, example):
    """A number in quotes is no number, and 1 is not true."""
    schema = Draft202012Validator(PrivacyStatement.json_schema())
    value = written[example]
    tried = 0
    for path in paths(value):
        found = value
        for key in path:
            found = found[key]
        # Of the events inside an event the schema says nothing.
        if not isinstance(found, int | float) or "event" in path:
            continue
        for other in (str(found), int(found) if isinstance(found, bool) else bool(found)):
            edited = changed(value, {path: other})
            assert not schema.is_valid(edited), (path, other)
            with pytest.raises(StatementError):
                PrivacyStatement.from_json(json.dumps(edited))
            tried += 1
    assert tried > 20


@pytest.mark.parametrize("example", ["ledger", "renyi ledger"])
def test_what_ran_may_be_less_than_what_was_charged_and_never_more(written, example):
    """The third spend was charged for epsilon 0.5, the first ran at epsilon 1."""
    value = written[example]
    first, _, third = value["budget"]["spends"]
    assert first["statement"]["target_epsilon"] == 1.0
    assert third["statement"]["target_epsilon"] == 0.5
    less = changed(value, {("budget", "spends", 0, "statement"): third["statement"]})
    PrivacyStatement.from_json(json.dumps(less))
    more = changed(value, {("budget", "spends", 2, "statement"): first["statement"]})
    with pytest.raises(StatementError, match="statement of spend 3 holds more than was charged"):
        PrivacyStatement.from_json(json.dumps(more))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def paths(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*path, key))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_part_that_is_replaced_by_anything_is_read_or_refused(written, data):
    """No other error, whatever stands in a file; and what the schema refuses is not read."""
    value = written["ledger"]
    path = data.draw(st.sampled_from([path for path in paths(value) if path]))
    edited = changed(value, {path: data.draw(JSON)})
    text = json.dumps(edited)
    try:
        read = PrivacyStatement.from_json(text)
    except StatementError:
        return
    Draft202012Validator(PrivacyStatement.json_schema()).validate(edited)
    assert PrivacyStatement.from_json(read.to_json()) == read
    assert read.to_text() and read.to_markdown()


def sampled_statement(written, n):
    """A file that anybody could make: n different sampled releases, claimed to be of epsilon 0."""
    parts = [
        {
            "type": "PoissonSampledDpEvent",
            "sampling_probability": 0.001 + 1e-7 * i,
            "event": {"type": "GaussianDpEvent", "noise_multiplier": 5.0},
        }
        for i in range(n)
    ]
    value = copy.deepcopy(written["search"])
    value["event"] = {"type": "ComposedDpEvent", "events": parts}
    value["mu"] = None
    value["accountant"] = "pld"
    value["epsilon_by_accountant"] = {"exact": "unavailable: x", "pld": 0.0, "rdp": 0.0}
    return PrivacyStatement.from_json(json.dumps(value))


def test_a_statement_of_a_thousand_sampled_releases_is_refused_before_it_is_computed(written):
    statement = sampled_statement(written, 1000)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="1000 different sampled releases, and at most 64"):
        statement.verify()
    assert time.perf_counter() - began < 0.5
    with pytest.raises(ValueError, match="epsilon must be at least"):  # computed, where asked to
        sampled_statement(written, 3).verify(max_sampled_releases=3)


def test_a_ledgers_file_cannot_keep_its_reader_busy(written):
    value = copy.deepcopy(written["renyi ledger"])
    kept = value["budget"]["filter"]
    kept["orders"], kept["budgets"] = [1e6] * 99, [1.0] * 99
    part = {
        "type": "PoissonSampledDpEvent",
        "sampling_probability": 0.01,
        "event": {"type": "GaussianDpEvent", "noise_multiplier": 2000.0},
    }
    value["budget"]["spends"] = value["budget"]["spends"][:1]
    value["budget"]["spends"][0] |= {"event": part, "statement": None}
    value["event"] = {"type": "ComposedDpEvent", "events": [part]}
    value["mu"] = None
    value["epsilon_by_accountant"]["exact"] = "unavailable: x"
    began = time.perf_counter()
    with pytest.raises(StatementError, match="more sampled releases and higher orders than are"):
        PrivacyStatement.from_json(json.dumps(value))
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("example", ["full batch", "ledger", "renyi ledger"])
def test_a_damaged_file_is_answered_in_one_line(written, example):
    text = json.dumps(written[example]).encode()
    draws = random.Random(3)
    for number in range(200):
        damaged = bytearray(text)
        for _ in range(1 + number % 3):
            damaged[draws.randrange(len(text))] = draws.randrange(256)
        if number % 5 == 0:
            damaged = damaged[: draws.randrange(len(text))]
        try:
            PrivacyStatement.from_json(bytes(damaged))
        except StatementError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            assert str(error).startswith("no valid privacy statement: ")
