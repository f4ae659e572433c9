from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import dp_accounting as dpa
import pytest

from dpfc.accounting import PlannedRelease, PrivacyPlan, ReleaseRequest


def release(name="gram", z=2.0, count=1, q=1.0, share=0.5) -> PlannedRelease:
    return PlannedRelease(name, z, count, q, share)


def plan(*releases: PlannedRelease) -> PrivacyPlan:
    return PrivacyPlan(1.0, 1e-5, "add_or_remove_one", releases)


def test_a_full_batch_release_is_one_gaussian_event():
    assert release().event == dpa.GaussianDpEvent(2.0)


def test_a_sampled_repeated_release_is_wrapped_from_the_inside_out():
    sampled = dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(2.0))
    assert release(count=7, q=0.1).event == dpa.SelfComposedDpEvent(sampled, 7)


def test_a_release_without_noise_is_not_private_even_when_sampled():
    assert release(z=0.0).event == dpa.NonPrivateDpEvent()
    assert release(z=0.0, q=0.1).event == dpa.NonPrivateDpEvent()


def test_a_plan_composes_its_releases_and_finds_them_by_name():
    first, second = release("gram"), release("gradient", count=3)
    both = plan(first, second)
    assert both.event == dpa.ComposedDpEvent([first.event, second.event])
    assert both["gradient"] is second
    with pytest.raises(KeyError, match="no release named 'hessian' in the plan"):
        both["hessian"]


def test_mu_adds_inverse_squares_of_full_batch_releases_only():
    assert plan(release("a", 2.0), release("b", 4.0, count=4)).mu == pytest.approx(math.sqrt(0.5))
    assert plan(release("a"), release("b", q=0.5)).mu is None
    assert plan(release("a"), release("b", z=0.0)).mu == math.inf


def test_names_in_a_plan_are_unique():
    with pytest.raises(ValueError, match=r"^names of releases must be unique, got "):
        plan(release("gram"), release("gram"))


def test_plans_are_frozen_and_can_be_copied_and_pickled():
    original = plan(release(q=0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        original.target_epsilon = 2.0
    assert pickle.loads(pickle.dumps(original)) == copy.deepcopy(original) == original


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", r"^name must be a non-empty string, got ''\.$"),
        ("share", 0.0, r"^share must be a float in \(0, 1\], got 0\.0\.$"),
        ("share", math.nan, r"^share must be a float in \(0, 1\], got nan\.$"),
        ("count", 0, r"^count must be an int in \[1, inf\), got 0\.$"),
        ("count", 1.5, r"^count must be an int in \[1, inf\), got 1\.5\.$"),
        ("count", True, r"^count must be an int in \[1, inf\), got True\.$"),
        ("sampling_probability", 0.0, r"^sampling_probability must be a float in \(0, 1\]"),
        ("sampling_probability", 1.1, r"^sampling_probability must be a float in \(0, 1\]"),
    ],
)
def test_a_bad_field_of_a_request_or_release_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        ReleaseRequest(**{"name": "gram", "share": 1.0, field: value})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(release(), **{field: value})


@pytest.mark.parametrize("bad", [-1.0, math.inf, math.nan, "2"])
def test_a_bad_noise_multiplier_is_named(bad):
    with pytest.raises(ValueError, match=r"^noise_multiplier must be a float in \[0, inf\), got "):
        release(z=bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1e-5, "replace_one"), r"^target_epsilon must be a float in \(0, inf\), got 0\.0\.$"),
        ((1.0, 0.0, "replace_one"), r"^target_delta must be a float in \(0, 1\), got 0\.0\.$"),
        ((math.inf, 1.0, "replace_one"), r"^target_delta must be a float in \[0, 1\), got 1\.0\.$"),
        ((1.0, 1e-5, "swap"), r"^neighboring_relation must be one of 'add_or_remove_one', "),
    ],
)
def test_a_bad_target_of_a_plan_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PrivacyPlan(*arguments, (release(),))
