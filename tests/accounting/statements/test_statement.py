"""What a statement says of what ran, and that it survives a file."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from statistics import NormalDist

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from statement_examples import (
    SEARCH_EVENT,
    STATEMENTS,
    ledger_statement,
    planned,
    ran,
    record,
    searched,
    state,
)

from dpfc.accounting import (
    PrivacyStatement,
    ReleaseRecord,
    compute_epsilon,
    gaussian_epsilon,
    make_ledger_statement,
    privacy_profile,
)
from dpfc.accounting.statements.statement import StatementError

RELATIONS = ["add_or_remove_one", "replace_one"]
SCHEMA = "statements/privacy-statement-2.json"
EARLIER_SCHEMA = "statements/privacy-statement-1.json"
VERSION_1 = Path(__file__).parents[1] / "files" / "statement-1.json"
ROOT = Path(__file__).parents[3]
REGENERATE = (
    f"accounting/{SCHEMA} is not what the code writes. A published schema never changes: raise "
    "schema_version and publish another. Where this one was not released yet: "
    f"dpfc report schema > accounting/{SCHEMA}"
)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Make an example once, by name; "ledger" and "renyi ledger" too."""
    made = {}

    def make(name: str) -> PrivacyStatement:
        if name not in made:
            path = tmp_path_factory.mktemp("ledger") / "ledger.db"
            filters = {"ledger": "gdp", "renyi ledger": "renyi"}
            made[name] = (
                ledger_statement(path, filter=filters[name])
                if name in filters
                else STATEMENTS[name]()
            )
        return made[name]

    return make


EVERY = [*STATEMENTS, "ledger", "renyi ledger"]


def strict_loads(text: str):
    """Parse JSON and refuse Infinity and NaN literals."""

    def refuse(literal):
        raise AssertionError(f"{literal} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


# -- files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_statement_survives_json_pickle_and_copy(example, name):
    statement = example(name)
    assert PrivacyStatement.from_json(statement.to_json()) == statement
    assert PrivacyStatement.from_json(statement.to_json(indent=None)) == statement
    assert pickle.loads(pickle.dumps(statement)) == statement
    assert copy.deepcopy(statement) == statement


@pytest.mark.parametrize("name", EVERY)
def test_json_is_strict_and_conforms_to_the_schema(example, name):
    value = strict_loads(example(name).to_json())
    schema = PrivacyStatement.json_schema()
    Draft202012Validator(schema).validate(value)
    assert set(schema["$defs"]["PrivacyStatement"]["required"]) == set(value)
    for broken in ({"mu": "much"}, {"private": "maybe"}, {"surprise": 1}, {"releases": None}):
        assert not Draft202012Validator(schema).is_valid({**value, **broken})
        with pytest.raises(StatementError, match=next(iter(broken))):
            PrivacyStatement.from_json(json.dumps({**value, **broken}))
    for missing in value:
        rest = {key: item for key, item in value.items() if key != missing}
        assert not Draft202012Validator(schema).is_valid(rest)
        with pytest.raises(StatementError, match=missing):
            PrivacyStatement.from_json(json.dumps(rest))


def test_the_published_schema_is_the_one_of_this_version():
    published = files("dpfc.accounting").joinpath(SCHEMA).read_text(encoding="utf-8")
    schema = PrivacyStatement.json_schema()
    assert published == json.dumps(schema, indent=2, ensure_ascii=False) + "\n", REGENERATE
    Draft202012Validator.check_schema(schema)
    version = schema["$defs"]["PrivacyStatement"]["properties"]["schema_version"]["default"]
    assert schema["$id"] == f"urn:dpfc:privacy-statement:{version}"
    assert Path(SCHEMA).stem == f"privacy-statement-{version}"
    assert "---" not in published, "numpydoc's headings are no descriptions"


@pytest.mark.slow
def test_the_wheel_holds_the_schema_and_the_page(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    pytest.importorskip("build")
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (SCHEMA, EARLIER_SCHEMA, "statements/privacy-statement.html"):
        assert f"dpfc/accounting/{name}" in names


@pytest.mark.parametrize("version", ["0", "3", 1, None])
def test_another_schema_version_is_refused_by_that_alone(version):
    value = {"schema_version": version, "whatever": "it had"}
    with pytest.raises(StatementError, match=r"schema_version must be '1' or '2', got") as caught:
        PrivacyStatement.from_json(json.dumps(value))
    assert "more problems" not in str(caught.value)


def test_json_without_a_schema_version_is_no_statement():
    with pytest.raises(StatementError, match="there is no schema_version") as caught:
        PrivacyStatement.from_json('{"accuracy": 0.8}')
    assert "more problems" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"inf"', "1" * 5000, b"\xff\xfe"])
def test_what_is_no_statement_is_refused(text):
    with pytest.raises(StatementError):
        PrivacyStatement.from_json(text)


def test_infinity_is_written_as_text_and_read_back_as_a_number(example):
    statement = example("without noise")
    value = strict_loads(statement.to_json())
    assert value["target_epsilon"] == value["mu"] == "inf"
    assert value["epsilon_by_accountant"] == {"exact": "inf", "pld": "inf", "rdp": "inf"}
    back = PrivacyStatement.from_json(statement.to_json())
    assert back.target_epsilon == back.mu == back.epsilon_by_accountant["exact"] == math.inf


def test_statements_and_records_are_frozen(example):
    statement = example("full batch")
    with pytest.raises(ValidationError):
        statement.private = False
    with pytest.raises(ValidationError):
        statement.releases[0].count = 1


# -- version 1, whose sums were in floating point ------------------------------------


def test_a_statement_of_version_1_is_read_checked_and_written_as_it_was():
    text = VERSION_1.read_text(encoding="utf-8")
    statement = PrivacyStatement.from_json(text)
    assert statement.schema_version == "1"
    assert {release.sum_unit for release in statement.releases} == {None}
    statement.verify()
    assert statement.to_json() + "\n" == text
    for schema in (SCHEMA, EARLIER_SCHEMA):
        published = json.loads(files("dpfc.accounting").joinpath(schema).read_text("utf-8"))
        Draft202012Validator(published).validate(json.loads(statement.to_json()))


def test_a_statement_of_version_1_says_what_it_said():
    said = " ".join(PrivacyStatement.from_json(VERSION_1.read_bytes()).to_text().split())
    assert "for a sensitivity of 1 + 4.57913e-05 for rounding - feature_sum" in said
    assert "float64 sums; rounding is covered by numerical_slack, noise is on a public grid" in said
    assert "Statement schema: 1" in said and "whole multiples" not in said


def test_a_ledger_states_spends_of_both_versions(from_before, spend, statement_of):
    paid = spend(from_before)
    from_before.attach_statement(paid.id, statement_of(paid.event))
    statement = make_ledger_statement(from_before, "ward")
    value = strict_loads(statement.to_json())
    versions = [each["statement"]["schema_version"] for each in value["budget"]["spends"]]
    assert (value["schema_version"], versions) == ("2", ["1", "1", "2"])
    Draft202012Validator(PrivacyStatement.json_schema()).validate(value)
    assert PrivacyStatement.from_json(statement.to_json()) == statement


def test_the_unit_of_sums_came_with_version_2(example):
    value = {**strict_loads(example("full batch").to_json()), "schema_version": "1"}
    assert value["releases"][0]["sum_unit"] == 0.25
    with pytest.raises(StatementError, match="no sum_unit"):
        PrivacyStatement.from_json(json.dumps(value))


def test_a_noisy_sum_of_version_2_has_a_unit_that_its_sensitivity_holds(example):
    for change, words in ((None, "must have a sum_unit"), (1e9, "must not exceed")):
        value = strict_loads(example("full batch").to_json())
        value["releases"][0].pop("sum_unit")
        if change is not None:
            value["releases"][0]["sum_unit"] = change
        with pytest.raises(StatementError, match=words):
            PrivacyStatement.from_json(json.dumps(value))


@pytest.mark.parametrize("unit", [0.0, -1.0, math.inf, math.nan])
def test_sums_are_in_units_above_zero(unit):
    with pytest.raises(ValidationError, match="sum_unit"):
        record("gram", 4.0, 1, sum_unit=unit)


# -- what ran ------------------------------------------------------------------------


def test_epsilon_is_composed_from_what_ran():
    plan = planned()
    statement = state(plan, ran(plan, scale=2.0))
    assert statement.mu == pytest.approx(plan.mu / 2)
    assert statement.epsilon_by_accountant["exact"] == gaussian_epsilon(statement.mu, 1e-5)
    assert statement.accountant == "exact"
    assert statement.private
    assert statement.reasons_not_private == []
    epsilons = statement.epsilon_by_accountant
    assert list(epsilons) == ["exact", "pld", "rdp"]
    assert epsilons["exact"] <= epsilons["pld"] <= epsilons["exact"] * 1.001 < epsilons["rdp"]


def test_sampled_releases_are_stated_by_pld_and_the_others_say_why_not(example):
    statement = example("sampled, replaced")
    assert statement.accountant == "pld"
    assert statement.mu is None
    assert 0.999 < statement.epsilon_by_accountant["pld"] <= 1
    assert statement.epsilon_by_accountant["exact"] == (
        "unavailable: exact has no closed form for Poisson sampling."
    )
    assert statement.epsilon_by_accountant["rdp"].startswith("unavailable: rdp has no bound")
    assert isinstance(example("sampled").epsilon_by_accountant["rdp"], float)


def test_a_search_is_charged_for_all_that_it_ran_and_lists_what_it_published(example):
    statement = example("search")
    assert statement.kind == "search" and statement.accountant == "rdp"
    assert [release.name for release in statement.releases] == ["gram"]
    whole = compute_epsilon(
        SEARCH_EVENT, 1e-5, neighboring_relation="add_or_remove_one", accountant="rdp"
    )
    assert statement.epsilon_by_accountant["rdp"] == whole
    winner = gaussian_epsilon(1 / 4.0, 1e-5)
    assert whole > 1.5 * winner
    for other in ("exact", "pld"):
        assert statement.epsilon_by_accountant[other].startswith("unavailable: ")


def test_the_plans_accountant_is_the_statements():
    plan = dataclasses.replace(planned(1.0), target_epsilon=1.1, accountant="rdp")
    statement = state(plan)
    assert statement.accountant == "rdp"
    assert 1.05 < statement.epsilon_by_accountant["rdp"] <= 1.1
    with pytest.raises(RuntimeError, match=r"^What ran exceeds the plan: epsilon"):
        state(dataclasses.replace(plan, target_epsilon=1.05))


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


def test_a_search_that_exceeds_its_promise_raises():
    more = RepeatAndSelectDpEvent(dpa.GaussianDpEvent(4.0), 11.0, 1.0)
    assert searched().private
    with pytest.raises(RuntimeError, match=r"^What ran exceeds the plan: epsilon"):
        searched(event=dpa.SelfComposedDpEvent(more, 2))


def test_an_accountant_that_cannot_evaluate_what_ran_cannot_vouch_for_it():
    plan = planned()
    sampled = [record("gram", 100.0, 1, 0.1)]
    assert state(dataclasses.replace(plan, accountant="auto"), sampled).accountant == "pld"
    with pytest.raises(RuntimeError, match=r"cannot be bounded by its accountant; exact has no"):
        state(dataclasses.replace(plan, accountant="exact"), sampled)


def test_rounding_of_a_recomputed_noise_multiplier_does_not_exceed_the_plan():
    rng = np.random.default_rng(0)
    for _ in range(25):
        epsilon, delta = float(10 ** rng.uniform(-2, 1)), float(10 ** rng.uniform(-9, -1))
        state_of = planned(epsilon, delta=delta)
        assert state(state_of, ran(state_of, scale=1 - 4e-16)).private


def test_a_seed_makes_a_statement_not_private(example):
    statement = example("seeded")
    assert not statement.private
    assert statement.reasons_not_private == [
        "random_state was given: anyone who knows the seed can remove the noise; do not publish"
    ]


def test_an_infinite_epsilon_makes_a_statement_not_private(example):
    statement = example("without noise")
    assert not statement.private
    assert statement.reasons_not_private[0].startswith("epsilon is infinite")


# -- what an attacker can do ---------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("relation", RELATIONS)
def test_attacks_on_full_batch_releases_have_a_closed_form(epsilon, relation):
    statement = state(planned(epsilon, relation))
    mu, normal = statement.mu, NormalDist()
    assert [p.false_positive_rate for p in statement.attack.points] == [0.001, 0.01, 0.1]
    for point in statement.attack.points:
        expected = normal.cdf(normal.inv_cdf(point.false_positive_rate) + mu)
        assert point.true_positive_rate == pytest.approx(expected, rel=1e-9)
    assert statement.attack.advantage == pytest.approx(2 * normal.cdf(mu / 2) - 1, rel=1e-9)


def test_attacks_without_noise_always_succeed(example):
    attack = example("without noise").attack
    assert attack.advantage == 1
    assert [point.true_positive_rate for point in attack.points] == [1, 1, 1]


@pytest.mark.parametrize("name", ["sampled", "sampled, replaced", "search"])
def test_attacks_on_other_releases_are_read_off_the_profile(example, name):
    statement = example(name)
    profile = statement.profile()
    assert statement.attack.advantage == pytest.approx(profile.advantage)
    for point in statement.attack.points:
        rate = point.false_positive_rate
        expected = profile.true_positive_rate(rate)
        assert point.true_positive_rate == pytest.approx(expected)
        # The inequality of differential privacy itself, at the target.
        bound = math.exp(statement.target_epsilon) * rate + statement.target_delta
        assert rate < point.true_positive_rate <= bound * (1 + 1e-6)


def test_the_advantage_of_a_loose_bound_is_that_of_its_best_pair():
    """A search's delta at epsilon 0 is close to 1; its other pairs say more."""
    profile = privacy_profile(SEARCH_EVENT, neighboring_relation="add_or_remove_one")
    for epsilon in (0.25, 0.5, 1.0, 2.0):
        crossing = 1 - 2 * (1 - profile.delta(epsilon)) / (1 + math.exp(epsilon))
        assert profile.advantage <= crossing * (1 + 1e-3)
    assert profile.advantage < profile.delta(0.0)


# -- records -------------------------------------------------------------------------


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
