from __future__ import annotations

import math
import time

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.accounting import gaussian_delta, gaussian_epsilon, gaussian_mu

EPSILONS = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0]
DELTAS = [1e-15, 1e-12, 1e-9, 1e-5, 1e-3, 0.1, 0.5]

epsilons = st.floats(math.log(1e-4), math.log(100)).map(math.exp)
deltas = st.floats(math.log(1e-15), math.log(0.5)).map(math.exp)


def exact_delta(mu: float, epsilon: float) -> mpmath.mpf:
    """Evaluate the textbook formula with 80 digits."""
    with mpmath.workdps(80):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        return mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)


@pytest.mark.parametrize(
    ("epsilon", "noise_multiplier"),
    [(0.1, 30.75), (0.5, 7.03), (1, 3.731), (2, 1.994), (4, 1.081), (8, 0.600)],
)
def test_one_release_needs_the_published_noise_multiplier(epsilon, noise_multiplier):
    digits = len(str(noise_multiplier).split(".")[1])
    assert 1 / gaussian_mu(epsilon, 1e-5) == pytest.approx(noise_multiplier, abs=0.6 * 10**-digits)


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("delta", DELTAS)
def test_extreme_points_agree_with_80_digits(epsilon, delta):
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_delta(mu, epsilon) == pytest.approx(float(exact_delta(mu, epsilon)), rel=1e-9)
    # Within 1e-9 of the optimum, on either side of which the exact delta crosses.
    assert exact_delta(mu * (1 - 1e-9), epsilon) < delta < exact_delta(mu * (1 + 1e-9), epsilon)


def test_delta_is_the_total_variation_distance_at_epsilon_zero():
    assert gaussian_delta(1.0, 0.0) == pytest.approx(math.erf(0.5 / math.sqrt(2)), rel=1e-12)
    assert gaussian_epsilon(1.0, math.erf(0.5 / math.sqrt(2)) + 1e-9) == 0


def test_no_release_costs_nothing_and_no_noise_costs_everything():
    assert gaussian_delta(0.0, 0.0) == 0
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_delta(math.inf, 1.0) == 1
    assert gaussian_epsilon(math.inf, 1e-5) == math.inf
    # Its square is no float any more.
    assert gaussian_epsilon(1e155, 1e-5) == math.inf


@settings(max_examples=300, deadline=None)
@given(epsilon=epsilons, delta=deltas)
def test_mu_is_safe_and_its_epsilon_comes_back(epsilon, delta):
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    assert gaussian_delta(mu * (1 + 1e-9), epsilon) > delta
    assert gaussian_epsilon(mu, delta) <= epsilon


@settings(max_examples=300, deadline=None)
@given(mu=st.floats(1e-4, 20), delta=deltas)
def test_epsilon_is_safe_and_barely_so(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta
    if epsilon > 1e-4:
        assert gaussian_delta(mu, epsilon * (1 - 1e-8)) > delta


@given(mu=st.floats(1e-3, 20), epsilon=epsilons)
def test_delta_rises_with_mu_and_falls_with_epsilon(mu, epsilon):
    delta = gaussian_delta(mu, epsilon)
    assert 0 <= delta <= 1
    assert gaussian_delta(1.01 * mu, epsilon) >= delta >= gaussian_delta(mu, 1.01 * epsilon)


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.inf, math.nan, True, "1", None])
def test_mu_refuses_an_epsilon_that_is_no_positive_float(bad):
    with pytest.raises(ValueError, match=r"^epsilon must be a float in \(0, inf\), got .*\.$"):
        gaussian_mu(bad, 1e-5)


@pytest.mark.parametrize("bad", [-1e-5, 0.0, 1.0, math.nan, False, "1e-5"])
def test_a_delta_outside_the_unit_interval_is_refused(bad):
    for compute in (gaussian_mu, gaussian_epsilon):
        with pytest.raises(ValueError, match=r"^delta must be a float in \(0, 1\), got .*\.$"):
            compute(1.0, bad)


def test_messages_show_the_value():
    with pytest.raises(ValueError) as caught:
        gaussian_mu(-1.0, 1e-5)
    assert str(caught.value) == "epsilon must be a float in (0, inf), got -1.0."
    with pytest.raises(ValueError, match=r"^mu must be a float in \[0, inf\], got -1.0\.$"):
        gaussian_delta(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"^epsilon must be a float in \[0, inf\), got inf\.$"):
        gaussian_delta(1.0, math.inf)


@pytest.mark.parametrize("delta", [1e-5, 0.5, 0.999, 1e-90, 1e-300])
@pytest.mark.parametrize(
    "epsilon", [5e-324, 1e-300, 1e-100, 1e-20, 1e3, 1e8, 1e12, 1e15, 1e16, 1e100, 1e308, 1.79e308]
)
def test_every_finite_epsilon_is_answered_or_refused_at_once(epsilon, delta):
    began = time.perf_counter()
    try:
        mu = gaussian_mu(epsilon, delta)
    except ValueError as error:
        assert epsilon > 1e15 and "epsilon must be at most 1e+15" in str(error)
    else:
        assert 0 < mu < math.inf and epsilon <= 1e15
        assert gaussian_epsilon(mu, delta) <= epsilon
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("mu", [5e-324, 1e-300, 1e-20, 1e6, 1e9, 1e20, 1e100, 1e154, 1e200, 1e308])
def test_every_mu_has_an_epsilon_at_once(mu):
    began = time.perf_counter()
    for delta in (1e-300, 1e-5, 0.5):
        assert 0 <= gaussian_epsilon(mu, delta) <= math.inf
    assert time.perf_counter() - began < 0.5
