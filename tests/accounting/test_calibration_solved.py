"""Solving for noise, steps or sampling probability: on the safe side, and no further than 1e-4."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.accounting import (
    UnsupportedEventError,
    calibrate_noise_multiplier,
    calibrate_sampling_probability,
    calibrate_steps,
    compute_epsilon,
    gaussian_mu,
)
from dpfc.accounting.numerics.root_finding import find_count, find_log
from dpfc.accounting.plans import release_event

RELATIONS = ["add_or_remove_one", "replace_one"]
DELTA = 1e-5


def epsilon(z, steps, probability, *, accountant="auto", relation="add_or_remove_one"):
    return compute_epsilon(
        release_event(z, steps, probability),
        DELTA,
        neighboring_relation=relation,
        accountant=accountant,
    )


def ways() -> list[tuple[str, str, float, int]]:
    """List accountants, relations, sampling probabilities and steps that go together."""
    full = [(a, r, 1.0, n) for a in ("exact", "pld", "rdp") for r in RELATIONS for n in (1, 50)]
    sampled = [("pld", r, q, n) for r in RELATIONS for q, n in ((0.1, 50), (0.01, 1000))]
    return [*full, *sampled, ("rdp", "add_or_remove_one", 0.1, 50)]


@pytest.mark.parametrize(("accountant", "relation", "probability", "steps"), ways())
@pytest.mark.parametrize("target", [0.1, 1.0, 8.0])
def test_noise_multipliers_land_within_1e_4_below_the_target(
    accountant, relation, probability, steps, target
):
    z = calibrate_noise_multiplier(
        target_epsilon=target,
        target_delta=DELTA,
        steps=steps,
        sampling_probability=probability,
        neighboring_relation=relation,
        accountant=accountant,
    )
    found = epsilon(z, steps, probability, accountant=accountant, relation=relation)
    assert (1 - 1e-4) * target <= found <= target


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("target", [0.01, 0.1, 1.0, 4.0, 16.0])
@pytest.mark.parametrize(
    "probability",
    [pytest.param(1e-4, marks=pytest.mark.slow), pytest.param(1e-3, marks=pytest.mark.slow), 0.01],
)
def test_ten_thousand_sampled_steps(relation, target, probability):
    z = calibrate_noise_multiplier(
        target_epsilon=target,
        target_delta=DELTA,
        steps=10_000,
        sampling_probability=probability,
        neighboring_relation=relation,
    )
    assert (1 - 1e-4) * target <= epsilon(z, 10_000, probability, relation=relation) <= target


@pytest.mark.parametrize(
    ("accountant", "z", "probability"),
    [("exact", 30.0, 1.0), ("pld", 30.0, 1.0), ("rdp", 30.0, 1.0), ("pld", 1.0, 0.05)],
)
def test_one_step_more_than_the_largest_number_does_not_fit(accountant, z, probability):
    steps = calibrate_steps(
        z,
        target_epsilon=2.0,
        target_delta=DELTA,
        sampling_probability=probability,
        accountant=accountant,
    )
    assert epsilon(z, steps, probability, accountant=accountant) <= 2
    assert epsilon(z, steps + 1, probability, accountant=accountant) > 2


@given(st.floats(0.5, 1e5), st.floats(0.05, 10))
def test_steps_of_full_batch_releases_are_the_square_of_mu_z(z, target):
    mu = gaussian_mu(target, DELTA)
    expected = (mu * z) ** 2
    budget = {"target_epsilon": target, "target_delta": DELTA}
    if expected < 1 - 1e-9:
        with pytest.raises(ValueError, match=r"^not even one release with noise_multiplier="):
            calibrate_steps(z, **budget)
    elif expected > 1 + 1e-9:
        found = calibrate_steps(z, **budget)
        assert math.floor(expected * (1 - 1e-9)) <= found <= math.floor(expected * (1 + 1e-9))


@pytest.mark.parametrize(
    ("accountant", "relation", "z", "steps"),
    [
        ("pld", "add_or_remove_one", 1.0, 100),
        ("pld", "replace_one", 1.0, 100),
        ("rdp", "add_or_remove_one", 1.0, 100),
        ("auto", "add_or_remove_one", 5.0, 1000),
    ],
)
def test_sampling_probabilities_land_within_1e_4_below_the_target(accountant, relation, z, steps):
    probability = calibrate_sampling_probability(
        z,
        steps,
        target_epsilon=2.0,
        target_delta=DELTA,
        neighboring_relation=relation,
        accountant=accountant,
    )
    assert 0 < probability < 1
    found = epsilon(z, steps, probability, accountant=accountant, relation=relation)
    assert 2 * (1 - 1e-4) <= found <= 2


def test_the_full_batch_is_the_answer_where_it_fits():
    budget = {"target_epsilon": 1.0, "target_delta": DELTA}
    for accountant in ("auto", "exact", "pld", "rdp"):
        assert calibrate_sampling_probability(9.0, 2, **budget, accountant=accountant) == 1
    with pytest.raises(UnsupportedEventError, match=r"^exact has no closed form"):
        calibrate_sampling_probability(1.0, 2, **budget, accountant="exact")


@pytest.mark.slow
def test_with_next_to_no_noise_delta_alone_bounds_how_often_rows_are_drawn():
    found = calibrate_sampling_probability(0.02, 10, target_epsilon=2.0, target_delta=DELTA)
    assert 10 * found == pytest.approx(DELTA, rel=1e-4)


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda b: calibrate_steps(0.0, **b), r"^noise_multiplier must be a float in \(0, inf\)"),
        (lambda b: calibrate_steps(math.nan, **b), r"^noise_multiplier must be a float in"),
        (lambda b: calibrate_steps(1.0, **b, sampling_probability=0.0), r"^sampling_prob"),
        (lambda b: calibrate_sampling_probability(1.0, 0, **b), r"^steps must be an int in \[1"),
        (lambda b: calibrate_sampling_probability(1.0, 1.5, **b), r"^steps must be an int in \[1"),
        (lambda b: calibrate_noise_multiplier(**b, steps=True), r"^steps must be an int in \[1"),
        (lambda b: calibrate_steps(9.0, **{**b, "target_epsilon": math.inf}), r"^target_epsilon m"),
        (lambda b: calibrate_steps(1e12, **b), r"^1e\+15 steps and more fit the budget\.$"),
        (
            lambda b: calibrate_noise_multiplier(**b, steps=9, sampling_probability=1e-6),
            r"^a row is ever drawn with a probability of 9e-06, which target_delta=1e-05 allows",
        ),
        (
            lambda b: calibrate_noise_multiplier(
                **b, sampling_probability=0.1, neighboring_relation="replace_one", accountant="rdp"
            ),
            r"^rdp has no bound for Poisson sampling under 'replace_one'\.$",
        ),
    ],
)
def test_what_cannot_be_solved_says_why(solve, message):
    with pytest.raises(ValueError, match=message):
        solve({"target_epsilon": 1.0, "target_delta": DELTA})


curves = st.tuples(st.floats(-3, 3), st.floats(0.2, 4), st.floats(0, 30))


@given(curves, st.floats(1e-3, 1e3), st.floats(-20, 20))
@settings(max_examples=300)
def test_the_search_ends_just_below_the_target_on_any_smooth_curve(curve, target, start):
    offset, power, bend = curve

    def epsilon_at(log_x):
        return math.exp(min(offset + power * log_x + bend * math.tanh(log_x), 700))

    found = find_log(epsilon_at, target, start)
    assert (1 - 1e-4) * target <= epsilon_at(found) <= target


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_the_search_stops_below_a_jump(jump, start):
    def epsilon_at(log_x):
        return 0.0 if log_x <= jump else math.inf

    found = find_log(epsilon_at, 1.0, start)
    assert jump - 1e-5 <= found <= jump


def test_a_search_for_what_does_not_exist_ends_with_an_error():
    with pytest.raises(UnsupportedEventError, match=r"^the accountant finds no epsilon just below"):
        find_log(lambda _: math.inf, 1.0, 0.0)


@given(st.integers(0, 10**12), st.floats(0.3, 3))
def test_counts_are_exact(largest, power):
    def epsilon_at(count):
        return (count / (largest + 0.5)) ** power

    assert find_count(epsilon_at, 1.0) == largest
