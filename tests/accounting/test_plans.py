from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import dp_accounting as dpa
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# -- reallocation --------------------------------------------------------------------


def spread(z=3.0) -> PrivacyPlan:
    requests = [
        ReleaseRequest("count", 0.005),
        ReleaseRequest("mean", 0.03),
        ReleaseRequest("gram", 0.065),
        ReleaseRequest("gradient", 0.9, 20),
    ]
    return plan(
        *(
            PlannedRelease(r.name, z * math.sqrt(r.count / r.share), r.count, 1.0, r.share)
            for r in requests
        )
    )


@pytest.mark.parametrize("share", [0.0, 1e-12, 0.001, 0.03, 0.4, 0.92])
@pytest.mark.parametrize("keep", [(), ("count",), ("count", "gram")])
def test_reallocating_keeps_mu_and_what_was_drawn(share, keep):
    before = spread()
    after = before.reallocated("mean", share, keep=keep)
    assert after.mu <= before.mu
    assert after.mu == pytest.approx(before.mu, rel=1e-12)
    assert math.fsum(r.share for r in after.releases) == pytest.approx(1.0)
    assert ("mean" in {r.name for r in after.releases}) == (share > 0)
    for name in keep:
        assert after[name] == before[name]
    # The others keep their proportions.
    ratio = before["gradient"].noise_multiplier / before["gram"].noise_multiplier
    if "gram" not in keep:
        after_ratio = after["gradient"].noise_multiplier / after["gram"].noise_multiplier
        assert after_ratio == pytest.approx(ratio)
    # A share is what it says: of the whole budget, in 1/z².
    for r in after.releases:
        assert r.count / r.noise_multiplier**2 == pytest.approx(r.share * before.mu**2)


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.just(0.0) | st.floats(1e-9, 0.9)), max_size=5),
    st.floats(1e-3, 1e6),
)
def test_no_sequence_of_reallocations_raises_mu(shares, moves, z):
    total = math.fsum(shares)
    start = plan(
        *(
            PlannedRelease(f"r{i}", z * math.sqrt(total / share), 1, 1.0, share / total)
            for i, share in enumerate(shares)
        )
    )
    now = start
    for index, part in moves:
        names = [r.name for r in now.releases]
        if len(names) > 1:
            name = names[index % len(names)]
            pool = math.fsum(r.share for r in now.releases)
            now = now.reallocated(name, part * pool)
    assert now.mu <= start.mu
    assert now.mu == pytest.approx(start.mu, rel=1e-9)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, math.nan])
def test_a_share_that_others_cannot_pay_is_refused(share):
    with pytest.raises(ValueError, match="share must be"):
        spread().reallocated("mean", share)


def test_only_full_batch_releases_with_noise_are_reallocated():
    for other in (release("gradient", q=0.5), release("gradient", z=0.0)):
        with pytest.raises(ValueError, match="full-batch"):
            plan(release("mean"), other).reallocated("mean", 0.1)
    with pytest.raises(ValueError, match="share must be"):
        plan(release("mean"), release("gram")).reallocated("mean", 0.1, keep=("gram",))
    with pytest.raises(KeyError, match="no release named"):
        spread().reallocated("absent", 0.1)


def test_more_sampled_draws_than_memory_can_add_up_are_refused():
    with pytest.raises(
        ValueError, match="count must be at most 100,000,000 where rows are sampled"
    ):
        ReleaseRequest("gradient", 1.0, 100_000_001, 0.01)
    assert ReleaseRequest("gradient", 1.0, 10**12).count == 10**12  # in one closed form
