"""Every (epsilon, delta) pair of a mechanism, and what an attacker can make of it."""

from __future__ import annotations

import math

import dp_accounting as dpa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from dpfc.accounting import (
    compute_delta,
    compute_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    privacy_profile,
)
from dpfc.accounting.profiles import delta_profile, guarantee_profile, mu_profile

RATES = [1e-6, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999]
SAMPLED = dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(2.0)), 20)
PROFILES = {
    "closed form": mu_profile(1.0),
    "pld": privacy_profile(SAMPLED, neighboring_relation="add_or_remove_one"),
    "pld, replace": privacy_profile(SAMPLED, neighboring_relation="replace_one"),
    "rdp": privacy_profile(SAMPLED, neighboring_relation="add_or_remove_one", accountant="rdp"),
    "guarantee": guarantee_profile(1.0, 1e-5),
    "no noise": mu_profile(math.inf),
    "nothing": privacy_profile(dpa.NoOpDpEvent(), neighboring_relation="replace_one"),
}
NAMES = list(PROFILES)
rates = st.floats(0, 1)
epsilons = st.floats(0, 50)


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
def test_the_gaussian_trade_off_is_in_closed_form(mu):
    profile = mu_profile(mu)
    for rate in RATES:
        assert profile.true_positive_rate(rate) == pytest.approx(ndtr(ndtri(rate) + mu), rel=1e-9)
    assert profile.advantage == pytest.approx(2 * ndtr(mu / 2) - 1)
    assert profile.delta(1.0) == gaussian_delta(mu, 1.0)
    assert profile.epsilon(1e-5) == gaussian_epsilon(mu, 1e-5)


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_pld_matches_the_closed_form_for_full_batch_releases(mu, relation):
    event = dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(3 / mu), 9)
    exact, pld = (
        privacy_profile(event, neighboring_relation=relation, accountant=name)
        for name in ("exact", "pld")
    )
    for epsilon in (0.0, 0.1, 1.0, 3.0):
        delta = max(exact.delta(epsilon), 1e-12)
        assert delta <= pld.delta(epsilon) <= delta * (1 + 3e-3)
    for delta in (1e-9, 1e-5, 1e-2):
        if exact.epsilon(delta) > 0:
            assert exact.epsilon(delta) <= pld.epsilon(delta)
            assert pld.epsilon(delta) == pytest.approx(exact.epsilon(delta), rel=1e-3)
    for rate in RATES:
        truth = exact.true_positive_rate(rate)
        assert truth * (1 - 1e-9) <= pld.true_positive_rate(rate) <= truth * (1 + 2e-3)
    assert exact.advantage <= pld.advantage == pytest.approx(exact.advantage, rel=1e-3)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_a_profile_says_what_single_computations_say(accountant):
    rules = {"neighboring_relation": "add_or_remove_one", "accountant": accountant}
    profile = privacy_profile(SAMPLED, **rules)
    for epsilon in (0.3, 1.0, 2.0):
        assert profile.delta(epsilon) == pytest.approx(
            compute_delta(SAMPLED, epsilon, **rules), rel=3e-3
        )
    for delta in (1e-7, 1e-3):
        assert profile.epsilon(delta) == pytest.approx(
            compute_epsilon(SAMPLED, delta, **rules), rel=1e-3
        )


def test_sampled_attacks_are_bounded_by_every_pair_and_no_tighter_than_a_known_attack():
    profile = PROFILES["pld"]
    # The attack that looks at the sum of all outcomes alone, by simulation.
    rng = np.random.default_rng(0)
    drawn = rng.binomial(20, 0.1, 200_000)
    noise = 2.0 * math.sqrt(20) * rng.standard_normal((2, drawn.size))
    for rate in (0.01, 0.1, 0.5):
        threshold = np.quantile(noise[0], 1 - rate)
        power = float(np.mean(drawn + noise[1] > threshold))
        assert power <= profile.true_positive_rate(rate) + 5 / math.sqrt(drawn.size)
        for delta in (1e-8, 1e-5, 1e-2):
            pair = guarantee_profile(profile.epsilon(delta), delta)
            assert profile.true_positive_rate(rate) <= pair.true_positive_rate(rate) + 1e-12


@given(st.floats(1e-3, 20), st.floats(1e-12, 0.5), rates)
def test_a_single_guarantee_bounds_attacks_by_its_two_lines(epsilon, delta, rate):
    found = guarantee_profile(epsilon, delta).true_positive_rate(rate)
    steep = math.exp(epsilon) * rate + delta
    flat = 1 - math.exp(-epsilon) * (1 - delta - rate)
    assert found == pytest.approx(min(1.0, steep, max(flat, 0.0)), abs=1e-12)


@given(st.floats(1e-2, 10), st.floats(1e-10, 0.1), epsilons)
def test_a_single_guarantee_has_the_divergences_of_its_trade_off_curve(target, delta, epsilon):
    profile = guarantee_profile(target, delta)
    found = profile.delta(epsilon)
    # delta(e) is the largest of power - exp(e) * rate; the corner or an end attains it.
    points = np.append(np.linspace(0, 1, 101), (1 - delta) / (1 + math.exp(target)))
    powers = np.array([profile.true_positive_rate(float(rate)) for rate in points])
    assert found == pytest.approx(float((powers - math.exp(epsilon) * points).max()), abs=1e-9)


@given(st.sampled_from(NAMES), epsilons, epsilons)
@settings(deadline=None)
def test_delta_falls_with_epsilon(name, first, second):
    low, high = sorted((first, second))
    profile = PROFILES[name]
    assert 0 <= profile.delta(high) <= profile.delta(low) * (1 + 1e-12) <= 1 + 1e-12


@given(st.sampled_from(NAMES), st.floats(1e-11, 0.9), st.floats(1e-11, 0.9))
@settings(deadline=None)
def test_epsilon_falls_with_delta_and_pays_for_it(name, first, second):
    low, high = sorted((first, second))
    profile = PROFILES[name]
    assert profile.epsilon(low) >= profile.epsilon(high) * (1 - 1e-9) >= 0
    if profile.epsilon(low) < math.inf:
        assert profile.delta(profile.epsilon(low)) <= low * (1 + 1e-9)


@given(st.sampled_from(NAMES), rates, rates)
@settings(deadline=None)
def test_true_positives_rise_with_false_positives_and_exceed_them(name, first, second):
    low, high = sorted((first, second))
    profile = PROFILES[name]
    assert low <= profile.true_positive_rate(low) <= 1
    assert profile.true_positive_rate(low) <= profile.true_positive_rate(high) + 1e-6
    assert profile.true_positive_rate(low) - low <= profile.advantage + 1e-6


def test_without_noise_an_attack_never_fails_and_without_a_release_it_is_a_guess():
    everything, nothing = PROFILES["no noise"], PROFILES["nothing"]
    for rate in RATES:
        assert everything.true_positive_rate(rate) == 1
        assert nothing.true_positive_rate(rate) == rate
    assert everything.delta(5.0) == everything.advantage == 1
    assert everything.epsilon(0.1) == math.inf
    assert nothing.delta(0.0) == nothing.epsilon(0.0) == nothing.advantage == 0


def test_a_curve_from_single_deltas():
    profile = delta_profile(lambda epsilon: gaussian_delta(1.0, epsilon))
    assert profile.delta(1.0) == pytest.approx(gaussian_delta(1.0, 1.0))
    assert profile.epsilon(1e-5) == pytest.approx(gaussian_epsilon(1.0, 1e-5), rel=1e-9)
    assert profile.true_positive_rate(0.1) == pytest.approx(ndtr(ndtri(0.1) + 1), rel=1e-4)


@pytest.mark.parametrize("name", ["closed form", "pld", "guarantee"])
@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("delta", -1.0, r"^epsilon must be a float in \[0, inf\), got -1\.0\.$"),
        ("delta", math.nan, r"^epsilon must be a float"),
        ("epsilon", 1.0, r"^delta must be a float in \[0, 1\), got 1\.0\.$"),
        ("true_positive_rate", 1.1, r"^false_positive_rate must be a float in \[0, 1\], got 1\.1"),
        ("true_positive_rate", "0.1", r"^false_positive_rate must be a float"),
    ],
)
def test_bad_arguments_are_named(name, method, value, message):
    with pytest.raises(ValueError, match=message):
        getattr(PROFILES[name], method)(value)
