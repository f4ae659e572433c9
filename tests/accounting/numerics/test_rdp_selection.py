"""The cost of a random search, against dp_accounting, Monte Carlo and closed forms."""

from __future__ import annotations

import math

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given
from hypothesis import strategies as st

from dpfc.accounting.numerics.rdp import renyi_divergences
from dpfc.accounting.numerics.rdp_selection import (
    negative_binomial_gamma,
    renyi_deltas,
    selection_divergences,
)

# dp_accounting works on the orders that it is given: the same for both.
ORDERS = [1.05, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0]
RUNS = {
    "full batch": dpa.GaussianDpEvent(4.0),
    "composed": dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(20.0), 9),
    "sampled": dpa.SelfComposedDpEvent(
        dpa.PoissonSampledDpEvent(0.05, dpa.GaussianDpEvent(1.5)), 30
    ),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("mean", [1.0, 1.5, 5.0, 40.0])
@pytest.mark.parametrize("shape", [0.0, 0.3, 1.0, 4.0, math.inf])
def test_searches_cost_what_dp_accounting_says(run, mean, shape):
    event = RepeatAndSelectDpEvent(RUNS[run], mean, shape)
    theirs = rdp_privacy_accountant.RdpAccountant(ORDERS).compose(event).rdp
    ours = np.array(renyi_divergences(event, ORDERS, "add_or_remove_one"))
    # A divergence rises with its order; dp_accounting leaves that out. At mean 1, gamma is 1,
    # which it finds to within 1e-8.
    rising = np.minimum.accumulate(theirs[::-1])[::-1]
    rounding = 1e-6 if mean == 1 else 1e-9
    assert ours == pytest.approx(rising, rel=rounding)
    assert (ours >= rising * (1 - rounding)).all()


@pytest.mark.parametrize("mean", [1.0, 1.2, 3.0, 30.0, 1e4])
def test_gamma_of_the_geometric_law_is_one_over_its_mean(mean):
    found = negative_binomial_gamma(mean, 1.0)
    assert found == pytest.approx(1 / mean, rel=1e-9) and found <= 1 / mean * (1 + 1e-13)


@pytest.mark.parametrize("mean", [1.2, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", [0.0, 0.1, 0.5, 2.0, 7.0])
def test_gamma_gives_the_mean(mean, shape):
    gamma = negative_binomial_gamma(mean, shape)
    if shape == 0:
        found = (1 / gamma - 1) / math.log(1 / gamma)
    else:
        found = shape * (1 / gamma - 1) / (1 - gamma**shape)
    assert found == pytest.approx(mean, rel=1e-8)


@pytest.mark.parametrize(("mean", "shape"), [(3.0, 0.5), (5.0, 2.0), (10.0, 0.0)])
def test_gamma_by_monte_carlo(mean, shape):
    rng = np.random.default_rng(0)
    gamma = negative_binomial_gamma(mean, shape)
    if shape == 0:
        runs = rng.logseries(1 - gamma, 400_000)
    else:
        runs = rng.negative_binomial(shape, gamma, 2_000_000)
        runs = runs[runs > 0]
    error = runs.std() / math.sqrt(runs.size)
    assert runs.mean() == pytest.approx(mean, abs=5 * error)


@given(
    st.lists(st.floats(1e-4, 3), min_size=3, max_size=6),
    st.floats(1, 100),
    st.sampled_from([0.0, 0.5, 1.0, 3.0, math.inf]),
)
def test_a_search_costs_at_least_one_run_and_grows_with_its_mean(steps, mean, shape):
    divergences = np.cumsum(steps)
    orders = 1 + np.arange(1.0, divergences.size + 1)
    found = selection_divergences(orders, divergences, mean, shape)
    assert (found >= divergences * (1 - 1e-12)).all()
    assert (np.diff(found) >= 0).all()
    assert (selection_divergences(orders, divergences, 2 * mean, shape) >= found - 1e-12).all()


@pytest.mark.parametrize("winner", [0.2, 0.02])
def test_the_bound_covers_a_search_whose_divergence_is_known(winner):
    # A run says "win" with probability `winner`, or half of it on the neighbour. The best of a
    # geometric number of runs is a win unless all lose: 1 - E[(1 - p)^K].
    mean, order = 6.0, 3.0
    gamma = 1 / mean

    def best(p):
        return 1 - gamma * (1 - p) / (1 - (1 - gamma) * (1 - p))

    def renyi(p, q, a):
        terms = p**a * q ** (1 - a) + (1 - p) ** a * (1 - q) ** (1 - a)
        return math.log(terms) / (a - 1)

    orders = np.array([1.5, 2.0, 3.0, 5.0, 9.0, 20.0, 50.0])
    pairs = [(winner, winner / 2), (winner / 2, winner)]
    one_run = np.array([max(renyi(p, q, a) for p, q in pairs) for a in orders])
    bound = selection_divergences(orders, one_run, mean, 1.0)[orders == order][0]
    truth = max(renyi(best(p), best(q), order) for p, q in pairs)
    assert truth <= bound


def test_deltas_are_the_better_of_two_conversions():
    orders = np.array([2.0, 11.0])
    divergences = np.array([1e-3, 2e-3])
    found = renyi_deltas(orders, divergences, np.array([0.0, 1.0]))
    assert found[0] == pytest.approx(math.sqrt(-math.expm1(-1e-3)))
    by_order_11 = math.exp(10 * (2e-3 - 1 + math.log(1 - 1 / 11)) - math.log(11))
    assert found[1] == pytest.approx(by_order_11)
