"""Filters: what they accept, what is left, and what they promise.

The promise is checked against figures that do not come from the filter: Fractions,
dp_accounting's conversion at single orders, and the closed form of a Gaussian.
"""

import json
import math
from dataclasses import replace
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given
from hypothesis import strategies as st

from dpfc.accounting.calibration import calibrate
from dpfc.accounting.events import UnsupportedEventError
from dpfc.accounting.filters import (
    GaussianFilter,
    RenyiFilter,
    filter_from_json,
    make_filter,
)
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from dpfc.accounting.plans import ReleaseRequest

ADD_REMOVE, REPLACE = "add_or_remove_one", "replace_one"
BUDGETS = [(0.01, 1e-5), (0.1, 1e-9), (1.0, 1e-5), (8.0, 1e-5), (30.0, 1e-12), (1.0, 0.1)]
SAMPLED = dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(2.0)), 100
)
SEARCH = RepeatAndSelectDpEvent(dp_accounting.GaussianDpEvent(20.0), 5.0, math.inf)

epsilons = st.floats(1e-3, 50)
deltas = st.floats(1e-12, 0.3)
noise = st.floats(1e-3, 1e6)


def gaussian(z, count=1):
    event = dp_accounting.GaussianDpEvent(z)
    return dp_accounting.SelfComposedDpEvent(event, count) if count > 1 else event


def filter_of(kind, epsilon=1.0, delta=1e-5, relation=ADD_REMOVE):
    return make_filter(kind, epsilon=epsilon, delta=delta, neighboring_relation=relation)


def full_batch_plan(epsilon, delta, shares, relation=ADD_REMOVE):
    total = math.fsum(shares)
    requests = [
        ReleaseRequest(f"release {i}", share / total, count=i + 1) for i, share in enumerate(shares)
    ]
    return calibrate(
        requests, target_epsilon=epsilon, target_delta=delta, neighboring_relation=relation
    )


# -- Gaussian filter -----------------------------------------------------------------


@given(st.floats(1e-3, 1e3), st.lists(st.tuples(noise, st.integers(1, 10**6)), max_size=6))
def test_the_gdp_filter_is_the_sum_of_count_over_z_squared(mu, spends):
    rule = GaussianFilter(ADD_REMOVE, mu)
    exact = sum((count / Fraction(z) ** 2 for z, count in spends), Fraction(0))
    accepted = rule.accepts([gaussian(z, count) for z, count in spends])
    if exact > Fraction(mu) ** 2:
        assert not accepted
    # Each of the costs, and the limit, is rounded to the safe side by at most an ulp.
    if exact <= Fraction(mu) ** 2 * (1 - Fraction(1, 2**50)):
        assert accepted


@pytest.mark.parametrize(
    ("spends", "accepted"),
    [
        ([(2.0, 1)], True),
        ([(4.0, 4)], True),
        ([(4.0, 1)] * 4, True),
        ([(4.0, 1)] * 5, False),
        ([(4.0, 4), (1e12, 1)], False),
        ([(math.nextafter(2.0, 0), 1)], False),
        ([(math.nextafter(2.0, 3), 1)], True),
        ([], True),
    ],
)
def test_the_gdp_boundary_is_exact_where_the_floats_are(spends, accepted):
    rule = GaussianFilter(ADD_REMOVE, 0.5)
    assert rule.accepts([gaussian(z, count) for z, count in spends]) is accepted


def test_many_small_spends_are_summed_without_rounding():
    # In floats, 1 + 1e-17 == 1: a running sum would never fill up.
    rule = GaussianFilter(ADD_REMOVE, 1.0)
    assert rule.accepts_costs([(1.0 - 2.0**-53,), *[(2.0**-60,)] * 128])
    assert not rule.accepts_costs([(1.0 - 2.0**-53,), *[(2.0**-60,)] * 129])


@given(st.lists(st.tuples(noise, st.integers(1, 1000)), min_size=1, max_size=5), epsilons, deltas)
def test_what_the_gdp_filter_accepts_is_private_by_the_closed_form(spends, epsilon, delta):
    rule = filter_of("gdp", epsilon, delta)
    if rule.accepts([gaussian(z, count) for z, count in spends]):
        mu = math.sqrt(math.fsum(count / z / z for z, count in spends)) * (1 - 1e-15)
        assert gaussian_delta(mu, epsilon) <= delta * (1 + 1e-9)


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE])
@given(epsilons, deltas, st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_one_fit_with_the_whole_budget_fits_and_nothing_after_it(relation, epsilon, delta, shares):
    rule = filter_of("gdp", epsilon, delta, relation)
    plan = full_batch_plan(epsilon, delta, shares, relation)
    assert rule.accepts([plan.event])
    cost = rule.cost(plan.event)
    assert rule.remaining_mu([cost]) < 1e-4 * rule.mu
    tiny = full_batch_plan(epsilon * 1e-3, delta, [1.0], relation)
    assert not rule.accepts([plan.event, tiny.event])


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@given(epsilons, deltas, st.lists(st.floats(0.05, 1), min_size=1, max_size=5), st.floats(0.05, 1))
def test_what_is_left_can_be_spent_to_the_last_bit(kind, epsilon, delta, shares, part):
    rule = filter_of(kind, epsilon, delta)
    first = full_batch_plan(epsilon * part / 4, delta, shares).event
    if not rule.accepts([first]):
        return
    costs = [rule.cost(first)]
    mu = rule.remaining_mu(costs)
    assert rule.accepts_mu(mu, costs)
    assert not rule.accepts_mu(mu * (1 + 1e-9), costs)
    left = gaussian_epsilon(mu, delta) * (1 - 1e-9)
    if left > 0:  # delta alone may pay for what is left
        rest = full_batch_plan(left, delta, shares).event
        assert rule.accepts_costs([*costs, rule.cost(rest)])


@pytest.mark.parametrize("mu", [0.0, -1.0, math.nan, math.inf, 1e-200, "1", True])
def test_a_bad_mu_is_refused(mu):
    with pytest.raises(ValueError, match="mu must be"):
        GaussianFilter(ADD_REMOVE, mu)


# -- both filters --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_a_filter_promises_its_budget(kind, epsilon, delta):
    profile = filter_of(kind, epsilon, delta).profile()
    assert profile.delta(epsilon) <= delta
    assert profile.delta(epsilon) == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_a_filter_comes_back_from_json(kind, epsilon, delta):
    rule = filter_of(kind, epsilon, delta)
    text = json.dumps(rule.to_json(), allow_nan=False)
    assert filter_from_json(json.loads(text), ADD_REMOVE) == rule


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "pld"},
        {"kind": "gdp"},
        {"kind": "gdp", "mu": "1"},
        {"kind": "gdp", "mu": math.nan},
        {"kind": "renyi", "orders": [2.0], "budgets": []},
        {"kind": "renyi", "orders": [], "budgets": []},
        {"kind": "renyi", "orders": [1.0], "budgets": [1.0]},
        {"kind": "renyi", "orders": [2.0], "budgets": [math.inf]},
        {"kind": "renyi", "orders": 2.0, "budgets": 1.0},
    ],
)
def test_a_filter_is_read_from_nothing_else(data):
    with pytest.raises((ValueError, KeyError, TypeError)):
        filter_from_json(data, ADD_REMOVE)


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        gaussian(0.0),
        gaussian(1e-200),
        dp_accounting.ComposedDpEvent([gaussian(5.0), dp_accounting.NonPrivateDpEvent()]),
        gaussian(1e-3, 2**53),
    ],
)
def test_no_budget_holds_a_release_without_noise(kind, event):
    assert not filter_of(kind, 30.0, 0.3).accepts([event])


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize("z", [1e100, 1e160, 1e300])
def test_endless_noise_costs_next_to_nothing_but_not_nothing(kind, z):
    rule = filter_of(kind)
    assert all(0 < cost < 1e-190 for cost in rule.cost(gaussian(z)))
    assert rule.accepts([gaussian(z, 2**53)])


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
def test_nothing_released_costs_nothing(kind):
    rule = filter_of(kind)
    assert set(rule.cost(dp_accounting.NoOpDpEvent())) == {0.0}


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.integers(1, 50)), min_size=1, max_size=4))
def test_a_composition_costs_what_its_parts_cost(kind, spends):
    rule = filter_of(kind)
    parts = [gaussian(z, count) for z, count in spends]
    together = rule.cost(dp_accounting.ComposedDpEvent(parts))
    apart = np.sum([rule.cost(part) for part in parts], axis=0)
    assert together == pytest.approx(apart, rel=1e-12)
    repeated = rule.cost(dp_accounting.SelfComposedDpEvent(parts[0], 7))
    assert repeated == pytest.approx([7 * cost for cost in rule.cost(parts[0])], rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": math.inf},
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"delta": 1e-101},
        {"kind": "pld"},
        {"neighboring_relation": "any"},
    ],
)
def test_bad_budgets_are_refused_by_name(changes):
    arguments = {
        "kind": "gdp",
        "epsilon": 1.0,
        "delta": 1e-5,
        "neighboring_relation": ADD_REMOVE,
    } | changes
    name = {"kind": "filter"}.get(*changes, *changes)
    with pytest.raises(ValueError, match=f"{name} must be"):
        make_filter(arguments.pop("kind"), **arguments)


# -- Renyi filter --------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "delta"), [*BUDGETS, (1e-3, 1e-5), (1.0, 2e-100)])
def test_each_order_alone_keeps_its_part_of_delta_by_dp_accountings_conversion(epsilon, delta):
    rule = filter_of("renyi", epsilon, delta)
    part = delta / len(rule.orders)
    for order, budget in zip(rule.orders, rule.budgets, strict=True):
        promised, _ = rdp_privacy_accountant.compute_epsilon([order], [budget], part)
        assert promised <= epsilon * (1 + 1e-9)
        # And no more than that is held back; a larger budget would mean more than epsilon.
        more, _ = rdp_privacy_accountant.compute_epsilon([order], [budget * (1 + 1e-6)], part)
        assert more > epsilon


@pytest.mark.parametrize(("epsilon", "delta"), BUDGETS)
def test_the_renyi_profile_is_the_sum_over_its_orders_by_dp_accounting(epsilon, delta):
    rule = filter_of("renyi", epsilon, delta)
    for at in (0.5 * epsilon, epsilon, 2 * epsilon):
        parts = [
            rdp_privacy_accountant.compute_delta([order], [budget], at)[0]
            for order, budget in zip(rule.orders, rule.budgets, strict=True)
        ]
        assert rule.profile().delta(at) == pytest.approx(min(1, sum(parts)), rel=1e-9)


def test_one_order_within_its_budget_is_enough():
    rule = RenyiFilter(ADD_REMOVE, (2.0, 8.0), (1.0, 2.0))
    assert rule.accepts_costs([(0.5, 9.0), (0.5, 0.0)])
    assert rule.accepts_costs([(9.0, 1.0), (math.inf, 1.0)])
    assert not rule.accepts_costs([(0.5, 9.0), (0.6, 0.0)])
    # Which order holds must be the same for all: no mixing.
    assert not rule.accepts_costs([(0.5, 9.0), (9.0, 0.5)])


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE])
def test_the_renyi_cost_of_a_gaussian_is_order_over_two_z_squared(relation):
    rule = filter_of("renyi", relation=relation)
    expected = [7 * order / (2 * 3.0**2) for order in rule.orders]
    assert rule.cost(gaussian(3.0, 7)) == pytest.approx(expected, rel=1e-12)


def test_poisson_sampling_costs_what_dp_accounting_says_and_never_less():
    rule = filter_of("renyi")
    reference = rdp_privacy_accountant.RdpAccountant(rule.orders).compose(SAMPLED).rdp
    cost = rule.cost(SAMPLED)
    assert cost == pytest.approx(reference, rel=1e-9)
    assert all(mine >= theirs for mine, theirs in zip(cost, reference, strict=True))


@pytest.mark.parametrize("order", [2, 12, 145, 571, 1045])
@pytest.mark.parametrize(("q", "z"), [(1e-6, 1000.0), (1e-4, 1000.0), (0.01, 1.0), (0.5, 10.0)])
def test_a_sampled_cost_is_above_the_moment_in_many_digits(order, q, z):
    """Sampled Gaussians by Mironov, Talwar and Zhang (2019), equation (6).

    dp_accounting's own figure is up to 6e-4 below, where log moments are tiny.
    """
    mpmath = pytest.importorskip("mpmath")
    cost = RenyiFilter(ADD_REMOVE, (float(order),), (1.0,)).cost(
        dp_accounting.PoissonSampledDpEvent(q, gaussian(z))
    )
    with mpmath.workdps(50):
        p, moment = mpmath.mpf(q), mpmath.mpf(0)
        term = (1 - p) ** order
        for k in range(order + 1):
            moment += term * mpmath.exp(mpmath.mpf(k * k - k) / (2 * mpmath.mpf(z) ** 2))
            term *= p / (1 - p) * (order - k) / (k + 1)
        assert cost[0] >= mpmath.log(moment) / (order - 1)


def test_private_search_is_taken_by_renyi_and_refused_by_gdp():
    cost = filter_of("renyi").cost(SEARCH)
    run = filter_of("renyi").cost(gaussian(20.0))
    assert all(math.isfinite(mine) and mine > one for mine, one in zip(cost, run, strict=True))
    assert filter_of("renyi").accepts([SEARCH])
    with pytest.raises(UnsupportedEventError, match="not sampled ones or private selection"):
        filter_of("gdp").cost(SEARCH)


def test_sampling_is_refused_by_gdp():
    with pytest.raises(UnsupportedEventError, match="full-batch Gaussian releases only"):
        filter_of("gdp").cost(SAMPLED)


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
def test_sampling_of_every_row_is_full_batch_and_of_no_row_is_nothing(kind):
    rule = filter_of(kind)
    every = dp_accounting.PoissonSampledDpEvent(1.0, gaussian(3.0))
    assert rule.cost(every) == rule.cost(gaussian(3.0))
    assert set(rule.cost(dp_accounting.PoissonSampledDpEvent(0.0, gaussian(3.0)))) == {0.0}


def test_sampling_under_replace_one_has_no_bound():
    with pytest.raises(UnsupportedEventError, match="Poisson sampling under 'replace_one'"):
        filter_of("renyi", relation=REPLACE).cost(SAMPLED)
    assert filter_of("renyi", relation=REPLACE).accepts([SEARCH])


def test_an_event_of_another_kind_is_refused_by_both():
    for kind in ("gdp", "renyi"):
        with pytest.raises(UnsupportedEventError, match="LaplaceDpEvent"):
            filter_of(kind).cost(dp_accounting.LaplaceDpEvent(1.0))


@pytest.mark.parametrize(
    ("epsilon", "share"), [(0.1, 0.83), (0.5, 0.86), (1.0, 0.87), (4.0, 0.89), (8.0, 0.91)]
)
def test_a_renyi_filter_keeps_this_share_of_the_largest_gaussian_release(epsilon, share):
    kept = filter_of("renyi", epsilon).remaining_mu([]) / gaussian_mu(epsilon, 1e-5)
    assert share <= kept < share + 0.02


def test_a_renyi_filter_allows_what_rdp_does_with_sampled_steps_but_for_a_small_loss():
    """Steps allowed by the filter against steps at the best order, known in advance."""
    step = dp_accounting.PoissonSampledDpEvent(0.01, gaussian(1.0))
    rule = filter_of("renyi", 2.0)
    mine = max(int(limit / cost) for limit, cost in zip(rule.limits, rule.cost(step), strict=True))
    assert rule.accepts([dp_accounting.SelfComposedDpEvent(step, mine)])
    assert not rule.accepts([dp_accounting.SelfComposedDpEvent(step, mine + 1)])
    orders = np.concatenate([[1.25, 1.5, 1.75], np.arange(2, 65)])
    one = rdp_privacy_accountant.RdpAccountant(orders).compose(step).rdp

    def fits(count):
        return rdp_privacy_accountant.compute_epsilon(orders, one * count, 1e-5)[0] <= 2.0

    best = max(count for count in range(1, 20 * mine, 10) if fits(count))
    assert 0.7 * best < mine < best


def test_filters_of_two_budgets_differ_and_are_immutable():
    rule = filter_of("gdp")
    with pytest.raises(AttributeError):
        rule.mu = 9.0
    assert replace(rule, mu=2.0) != rule
