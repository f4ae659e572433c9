"""What several rows cost: closed forms, the bound for all mechanisms, and mixtures for samples."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, norm

from dpfc.accounting.accountants import compute_epsilon
from dpfc.accounting.events import GaussianSteps
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from dpfc.accounting.groups import (
    _mixture_epsilon,
    group_epsilon,
    group_guarantee,
    row_epsilon,
    row_guarantee,
)
from dpfc.accounting.profiles import privacy_profile

ADD_REMOVE, REPLACE = "add_or_remove_one", "replace_one"
ROWS = st.integers(1, 30)
EPSILONS = st.floats(0.01, 8)


def gaussian(noise_multiplier):
    return dp_accounting.GaussianDpEvent(noise_multiplier)


def sampled(probability, noise_multiplier, steps):
    event = dp_accounting.PoissonSampledDpEvent(probability, gaussian(noise_multiplier))
    return dp_accounting.SelfComposedDpEvent(event, steps)


def test_five_rows_at_epsilon_1_leave_a_row_0_173():
    assert row_epsilon(1.0, 1e-5, 5) == pytest.approx(0.1727, abs=5e-5)


@given(EPSILONS, ROWS)
def test_a_row_with_its_epsilon_gives_the_group_its_own_and_no_more(epsilon, rows):
    own = row_epsilon(epsilon, 1e-5, rows)
    mu = rows * gaussian_mu(own, 1e-5)
    assert mu <= gaussian_mu(epsilon, 1e-5) * (1 + 1e-12)
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, rel=1e-6)


@given(EPSILONS, ROWS)
def test_the_bound_for_all_mechanisms_is_the_sum_of_its_proof(epsilon, rows):
    found = group_guarantee(epsilon, 1e-12, rows)
    terms = math.fsum(math.exp(i * epsilon) for i in range(rows))
    assert found == pytest.approx((rows * epsilon, min(1.0, 1e-12 * terms)))
    one = row_guarantee(epsilon, 1e-12, rows)
    assert group_guarantee(*one, rows) == pytest.approx((epsilon, 1e-12))


@given(st.floats(0.05, 3), EPSILONS, ROWS)
def test_the_bound_for_all_mechanisms_covers_the_truth_of_gaussian_ones(mu, epsilon, rows):
    delta = gaussian_delta(mu, epsilon)
    if 1e-300 < delta < 1:
        bound = group_guarantee(epsilon, delta, rows)
        assert gaussian_delta(rows * mu, bound[0]) <= bound[1] * (1 + 1e-9)


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE])
def test_full_batches_are_exact(relation):
    event = dp_accounting.ComposedDpEvent([gaussian(3.0), gaussian(5.0)])
    mu = math.hypot(1 / 3, 1 / 5)
    for rows in (1, 2, 7):
        found = group_epsilon(event, rows, 1e-5, neighboring_relation=relation)
        assert found == pytest.approx(gaussian_epsilon(rows * mu, 1e-5), rel=1e-12)


def hockey_stick(epsilon, p, q, low, high):
    """δ at ε of one density against another, by integration."""

    def gap(x):
        return max(0.0, p(x) - math.exp(epsilon) * q(x))

    return quad(gap, low, high, limit=2000, epsabs=1e-13, epsrel=1e-10)[0]


@pytest.mark.parametrize(
    ("rows", "probability", "z"),
    [
        (1, 0.3, 1.0),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((3, 0.1, 1.0), (5, 0.5, 4.0))),
    ],
)
def test_one_sampled_release_is_the_mixture_that_integration_finds(rows, probability, z):
    delta = 1e-4
    found = group_epsilon(sampled(probability, z, 1), rows, delta, neighboring_relation=ADD_REMOVE)
    weights = binom.pmf(np.arange(rows + 1), rows, probability)

    def mixture(x):
        return float(weights @ norm.pdf(x, np.arange(rows + 1), z))

    def without(x):
        return float(norm.pdf(x, 0, z))

    reach = (-12 * z, rows + 12 * z)
    worst = [
        max(hockey_stick(e, mixture, without, *reach), hockey_stick(e, without, mixture, *reach))
        for e in (found, found * 0.98)
    ]
    assert worst[0] <= delta * (1 + 1e-6) < worst[1]


@pytest.mark.slow
def test_a_sample_of_nearly_all_rows_is_a_full_batch():
    found = group_epsilon(sampled(1 - 1e-9, 8.0, 3), 4, 1e-5, neighboring_relation=ADD_REMOVE)
    expected = gaussian_epsilon(math.sqrt(3) * 4 / 8, 1e-5)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("z", "steps"), [(30.0, 10_000), (3.8, 10_000), (1.0, 100)])
def test_the_grid_of_mixtures_is_fine_enough_for_many_steps(z, steps):
    """With one row it is what another implementation computes."""
    found = _mixture_epsilon((GaussianSteps(z, 0.01, steps),), 1, 1e-5)
    one = compute_epsilon(sampled(0.01, z, steps), 1e-5, neighboring_relation=ADD_REMOVE)
    assert one * (1 - 1e-4) <= found <= one * (1 + 3e-3)


@pytest.mark.slow
def test_a_group_of_one_row_is_the_row_and_more_rows_cost_more():
    event = sampled(0.02, 1.0, 50)
    one = compute_epsilon(event, 1e-5, neighboring_relation=ADD_REMOVE)
    costs = [group_epsilon(event, k, 1e-5, neighboring_relation=ADD_REMOVE) for k in (1, 2, 3)]
    assert costs[0] == pytest.approx(one, rel=1e-4)
    # More than k times ε: what is rare for one row is less so for several.
    assert costs[1] > 2 * costs[0] and costs[2] > 3 * costs[0]


def test_samples_that_replace_rows_take_the_best_point_of_the_curve():
    event = sampled(0.02, 2.0, 50)
    found = group_epsilon(event, 3, 1e-5, neighboring_relation=REPLACE)
    profile = privacy_profile(event, neighboring_relation=REPLACE)
    epsilons = np.linspace(found / 3 * 0.5, found / 3, 40)
    bounds = [group_guarantee(e, profile.delta(e), 3)[1] for e in epsilons.tolist()]
    assert bounds[-1] <= 1e-5 < min(bounds[:-2])


def test_searches_over_full_batches_divide_their_noise():
    search = RepeatAndSelectDpEvent(gaussian(40.0), 3.0, math.inf)
    divided = RepeatAndSelectDpEvent(gaussian(10.0), 3.0, math.inf)
    found = group_epsilon(search, 4, 1e-5, neighboring_relation=ADD_REMOVE)
    assert found == pytest.approx(
        compute_epsilon(divided, 1e-5, neighboring_relation=ADD_REMOVE), rel=1e-6
    )


def test_nothing_costs_nothing_and_no_noise_everything():
    kind = {"neighboring_relation": ADD_REMOVE}
    assert group_epsilon(dp_accounting.NoOpDpEvent(), 5, 1e-5, **kind) == 0
    assert group_epsilon(gaussian(0.0), 5, 1e-5, **kind) == math.inf
    assert group_guarantee(700.0, 1e-5, 10**6) == (7e8, 1.0)


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, None])
def test_what_is_no_number_of_rows_is_refused(rows):
    for use in (
        lambda: group_epsilon(gaussian(1.0), rows, 1e-5, neighboring_relation=ADD_REMOVE),
        lambda: group_guarantee(1.0, 1e-5, rows),
        lambda: row_guarantee(1.0, 1e-5, rows),
        lambda: row_epsilon(1.0, 1e-5, rows),
    ):
        with pytest.raises(ValueError, match="rows must be"):
            use()
