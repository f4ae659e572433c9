from __future__ import annotations

import copy
import json
import math
import pickle
import re
import time

import numpy as np
import pytest
from pydantic import ValidationError

from dpfc.accounting import (
    PrivacyPlan,
    PrivacyStatement,
    ReleaseRecord,
    ReleaseRequest,
    calibrate,
    gaussian_epsilon,
    make_statement,
)

RELATIONS = ["add_or_remove_one", "replace_one"]


def planned(epsilon=1.0, relation="add_or_remove_one", q=1.0, delta=1e-5) -> PrivacyPlan:
    return calibrate(
        [ReleaseRequest("gram", 0.2), ReleaseRequest("gradient", 0.8, 20, q)],
        target_epsilon=epsilon,
        target_delta=delta,
        neighboring_relation=relation,
    )


def record(name: str, z: float, count: int, q: float = 1.0, /, **changes) -> ReleaseRecord:
    return ReleaseRecord(
        **{
            "name": name,
            "description": "sum over rows of x x'",
            "shape": [10, 3],
            "l2_sensitivity": 0.5,
            "numerical_slack": 1e-6,
            "noise_multiplier": z,
            "noise_standard_deviation": z * (0.5 + 1e-6),
            "count": count,
            "sampling_probability": q,
            "share_of_budget": 0.5,
            **changes,
        }
    )


def ran(plan: PrivacyPlan, scale: float = 1.0) -> list[ReleaseRecord]:
    """Record what `plan` asks for, with `scale` times its noise."""
    return [
        record(r.name, scale * r.noise_multiplier, r.count, r.sampling_probability)
        for r in plan.releases
    ]


def state(plan: PrivacyPlan, records: list[ReleaseRecord] | None = None, **changes):
    arguments = {
        "estimator": "FeatureCovarianceClassifier(steps=20)",
        "seeded": False,
        "rests_on": ["Rows are bounded one by one."],
        "random_source": "operating system",
        **changes,
    }
    return make_statement(plan, ran(plan) if records is None else records, **arguments)


def strict_loads(text: str):
    """Parse JSON and refuse Infinity and NaN literals."""

    def refuse(literal):
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def conforms(value, schema, definitions) -> bool:
    """Check `value` against the part of JSON Schema that our models use."""
    if "$ref" in schema:
        return conforms(value, definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        return any(conforms(value, option, definitions) for option in schema["anyOf"])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema["type"]
    if kind == "object":
        known = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        return (
            isinstance(value, dict)
            and set(schema.get("required", [])) <= set(value)
            and all(
                conforms(item, known[key], definitions)
                if key in known
                else extra is not False and conforms(item, extra, definitions)
                for key, item in value.items()
            )
        )
    if kind == "array":
        return isinstance(value, list) and all(
            conforms(item, schema["items"], definitions) for item in value
        )
    if kind == "string":
        return isinstance(value, str) and re.search(schema.get("pattern", ""), value) is not None
    if kind in ("number", "integer"):
        return (
            isinstance(value, int if kind == "integer" else int | float)
            and not isinstance(value, bool)
            and value >= schema.get("minimum", -math.inf)
            and value <= schema.get("maximum", math.inf)
        )
    return {"boolean": isinstance(value, bool), "null": value is None}[kind]


STATEMENTS = {
    "full batch": lambda: state(planned()),
    "sampled": lambda: state(planned(q=0.1)),
    "sampled, replaced": lambda: state(planned(q=0.1, relation="replace_one")),
    "without noise": lambda: state(planned(math.inf, delta=0.0)),
    "seeded": lambda: state(planned(), seeded=True),
    "no record of a share": lambda: state(
        planned(), [record("gram", 100.0, 1, share_of_budget=None)]
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_survives_json_pickle_and_copy(name):
    statement = STATEMENTS[name]()
    assert PrivacyStatement.from_json(statement.to_json()) == statement
    assert PrivacyStatement.from_json(statement.to_json(indent=None)) == statement
    assert pickle.loads(pickle.dumps(statement)) == statement
    assert copy.deepcopy(statement) == statement


@pytest.mark.parametrize("name", STATEMENTS)
def test_json_is_strict_and_conforms_to_the_schema(name):
    value = strict_loads(STATEMENTS[name]().to_json())
    schema = strict_loads(json.dumps(PrivacyStatement.json_schema(), allow_nan=False))
    assert schema["$schema"].endswith("2020-12/schema")
    assert conforms(value, schema, schema["$defs"])
    assert set(schema["required"]) == set(value)
    for broken in ({"mu": "much"}, {"private": "maybe"}, {"surprise": 1}, {"releases": None}):
        assert not conforms({**value, **broken}, schema, schema["$defs"])
        with pytest.raises(ValidationError, match=next(iter(broken))):
            PrivacyStatement.from_json(json.dumps({**value, **broken}))


def test_infinity_is_written_as_text_and_read_back_as_a_number():
    statement = state(planned(math.inf, delta=0.0))
    value = strict_loads(statement.to_json())
    assert value["target_epsilon"] == value["mu"] == "inf"
    assert value["epsilon_by_accountant"] == {"exact": "inf", "rdp": "inf"}
    back = PrivacyStatement.from_json(statement.to_json())
    assert back.target_epsilon == back.mu == back.epsilon_by_accountant["exact"] == math.inf


def test_epsilon_is_composed_from_what_ran():
    plan = planned()
    statement = state(plan, ran(plan, scale=2.0))
    assert statement.mu == pytest.approx(plan.mu / 2)
    assert statement.epsilon_by_accountant["exact"] == gaussian_epsilon(statement.mu, 1e-5)
    assert statement.accountant == "exact"
    assert statement.private
    assert statement.reasons_not_private == []
    # PLD costs more and says no more than the closed form.
    assert list(statement.epsilon_by_accountant) == ["exact", "rdp"]
    assert statement.epsilon_by_accountant["rdp"] > statement.epsilon_by_accountant["exact"]


def test_sampled_releases_are_stated_by_pld_and_the_others_say_why_not():
    statement = state(planned(q=0.1, relation="replace_one"))
    assert statement.accountant == "pld"
    assert statement.mu is None
    assert 0.999 < statement.epsilon_by_accountant["pld"] <= 1
    assert statement.epsilon_by_accountant["exact"] == (
        "unavailable: exact has no closed form for Poisson sampling."
    )
    assert statement.epsilon_by_accountant["rdp"].startswith("unavailable: rdp has no bound")
    assert isinstance(state(planned(q=0.1)).epsilon_by_accountant["rdp"], float)


@pytest.mark.parametrize("q", [1.0, 0.1])
@pytest.mark.parametrize("relation", RELATIONS)
def test_less_noise_or_more_draws_than_planned_raise(q, relation):
    plan = planned(q=q, relation=relation)
    gram, gradient = ran(plan)
    once_more = record("gradient", gradient.noise_multiplier, gradient.count + 1, q)
    without_noise = record("gram", 0.0, 1)
    for records in (ran(plan, scale=0.99), [gram, once_more], [without_noise, gradient]):
        with pytest.raises(RuntimeError, match=r"^What ran exceeds the plan: .*Do not publish"):
            state(plan, records)
    assert state(plan, [gram]).private


def test_sampling_more_rows_than_planned_raises():
    plan = planned(q=0.1)
    gram, gradient = ran(plan)
    with pytest.raises(RuntimeError, match=r"^What ran exceeds the plan: epsilon"):
        state(plan, [gram, record("gradient", gradient.noise_multiplier, 20, 0.2)])


def test_rounding_of_a_recomputed_noise_multiplier_does_not_exceed_the_plan():
    rng = np.random.default_rng(0)
    for _ in range(200):
        epsilon, delta = float(10 ** rng.uniform(-3, 2)), float(10 ** rng.uniform(-12, -1))
        state_of = planned(epsilon, delta=delta)
        assert state(state_of, ran(state_of, scale=1 - 4e-16)).private


def test_a_seed_makes_a_statement_not_private():
    statement = state(planned(), seeded=True)
    assert not statement.private
    assert statement.reasons_not_private == [
        "random_state was given: anyone who knows the seed can remove the noise; do not publish"
    ]
    assert statement.to_text().startswith("NOT PRIVATE: random_state was given")


def test_an_infinite_epsilon_makes_a_statement_not_private():
    statement = state(planned(math.inf, delta=0.0))
    assert not statement.private
    assert statement.reasons_not_private[0].startswith("epsilon is infinite")
    assert statement.to_text().startswith("NOT PRIVATE: epsilon is infinite")
    assert "ε = ∞" in statement.to_text()


def test_the_text_tells_a_reader_everything():
    statement = state(planned(), unit_of_privacy="one patient")
    lines = str(statement).splitlines()
    assert lines[0] == "(ε = 1, δ = 1e-05)-DP, add or remove one patient"
    text = statement.to_text()
    for part in (
        "FeatureCovarianceClassifier(steps=20)",
        "exact  ε = 1  (tightest)",
        "rdp    ε = 1.09",
        "μ = 0.268",
        "gradient",
        "10×3",
        "18.65",
        "- Rows are bounded one by one.",
        "Random source: operating system",
        "dp-accounting 0.6.0",
    ):
        assert part in text
    replaced = state(planned(q=0.1, relation="replace_one")).to_text()
    assert replaced.startswith("(ε = 1, δ = 1e-05)-DP, replace one row\n")
    assert "Poisson 0.1" in replaced
    assert "unavailable: rdp has no bound" in replaced


def test_a_full_batch_statement_takes_less_than_50_milliseconds():
    plan = planned()
    records = ran(plan)
    state(plan, records)
    start = time.process_time()
    for _ in range(5):
        state(plan, records)
    assert (time.process_time() - start) / 5 < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_standard_deviation": 4.9},
        {"noise_standard_deviation": math.nan},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.inf},
        {"l2_sensitivity": math.inf},
        {"l2_sensitivity": math.nan},
        {"count": 0},
        {"sampling_probability": 0.0},
        {"share_of_budget": 1.5},
        {"name": ""},
        {"surprise": 1},
    ],
)
def test_an_impossible_record_is_refused(changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        record("gram", 10.0, 1, **changes)


def test_a_release_without_noise_may_have_no_finite_sensitivity():
    unbounded = record("gram", 0.0, 1, l2_sensitivity=math.inf, noise_standard_deviation=0.0)
    assert ReleaseRecord.model_validate_json(unbounded.model_dump_json()) == unbounded


def test_statements_and_records_are_frozen():
    statement = state(planned())
    with pytest.raises(ValidationError):
        statement.private = False
    with pytest.raises(ValidationError):
        statement.releases[0].count = 1
