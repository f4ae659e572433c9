from __future__ import annotations

import itertools
import math

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc.accounting import (
    ReleaseRequest,
    UnsupportedEventError,
    calibrate,
    compute_delta,
    compute_epsilon,
    default_accountant,
    gaussian_delta,
    gaussian_epsilon,
)
from dpfc.accounting.events import event_mu

RELATIONS = ["add_or_remove_one", "replace_one"]
ACCOUNTANTS = ["exact", "pld", "rdp"]
DELTA = 1e-5

GAUSSIAN = dpa.GaussianDpEvent(5.0)
SAMPLED = dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(2.0))
EVENTS = {
    "gaussian": GAUSSIAN,
    "sampled": SAMPLED,
    "no-op": dpa.NoOpDpEvent(),
    "non-private": dpa.NonPrivateDpEvent(),
    "self-composed": dpa.SelfComposedDpEvent(GAUSSIAN, 2),
    "self-composed sampled": dpa.SelfComposedDpEvent(SAMPLED, 2),
    "composed": dpa.ComposedDpEvent([GAUSSIAN, SAMPLED, dpa.SelfComposedDpEvent(GAUSSIAN, 3)]),
    "search": RepeatAndSelectDpEvent(dpa.SelfComposedDpEvent(GAUSSIAN, 2), 3.0, 1.0),
    "search over sampled": RepeatAndSelectDpEvent(SAMPLED, 3.0, math.inf),
    "composed search": dpa.ComposedDpEvent(
        [GAUSSIAN, RepeatAndSelectDpEvent(GAUSSIAN, 2.0, 0.0), dpa.NoOpDpEvent()]
    ),
}


def epsilon(event, accountant, relation="add_or_remove_one", delta=DELTA):
    return compute_epsilon(event, delta, neighboring_relation=relation, accountant=accountant)


def delta(event, accountant, relation="add_or_remove_one", target_epsilon=1.0):
    return compute_delta(
        event, target_epsilon, neighboring_relation=relation, accountant=accountant
    )


def supported() -> list[tuple[str, str, str]]:
    """List every event with the relations and accountants that evaluate it."""
    found = []
    for name, relation, accountant in itertools.product(EVENTS, RELATIONS, ACCOUNTANTS):
        text = repr(EVENTS[name])
        sampled, searched = "Poisson" in text, "RepeatAndSelect" in text
        covered = {
            "exact": not sampled and not searched,
            "pld": not searched,
            "rdp": not sampled or relation == "add_or_remove_one",
        }
        if covered[accountant]:
            found.append((name, relation, accountant))
    return found


@pytest.mark.parametrize(("name", "relation", "accountant"), supported())
def test_composing_n_times_equals_n_single_events(name, relation, accountant):
    event, n = EVENTS[name], 5
    repeated = dpa.SelfComposedDpEvent(event, n)
    singly = dpa.ComposedDpEvent([event] * n)
    nested = dpa.ComposedDpEvent([event, dpa.SelfComposedDpEvent(singly, 2)])
    for left, right in ((repeated, singly), (nested, dpa.SelfComposedDpEvent(event, 2 * n + 1))):
        expected = epsilon(right, accountant, relation)
        assert epsilon(left, accountant, relation) == pytest.approx(expected, rel=1e-9)
        expected = delta(right, accountant, relation)
        assert delta(left, accountant, relation) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("relation", RELATIONS)
def test_our_counts_agree_with_dp_accounting_composing_one_by_one(relation):
    accountant = dpa.pld.PLDAccountant(
        dpa.NeighboringRelation[relation.upper()], value_discretization_interval=1e-3
    )
    # dp_accounting takes sigma / C where the worst neighbours are 2C apart.
    scale = 2.0 if relation == "replace_one" else 1.0
    translated = dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(scale * 2.0))
    for _ in range(5):
        accountant.compose(translated).compose(dpa.GaussianDpEvent(scale * 5.0))
    ours = dpa.SelfComposedDpEvent(dpa.ComposedDpEvent([SAMPLED, GAUSSIAN]), 5)
    assert epsilon(ours, "pld", relation) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("z", [0.5, 2.0, 50.0])
def test_every_accountant_reads_the_noise_multiplier_as_noise_over_sensitivity(relation, z):
    event = dpa.GaussianDpEvent(z)
    truth = gaussian_epsilon(1 / z, DELTA)
    assert epsilon(event, "exact", relation) == truth
    assert epsilon(event, "pld", relation) == pytest.approx(truth, rel=1e-3)
    assert truth <= epsilon(event, "rdp", relation) <= 1.3 * truth


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("z", "count"), [(2.0, 10), (0.7, 1), (40.0, 1000)])
def test_sampling_with_probability_near_one_equals_the_closed_form(relation, z, count):
    # Under replace_one this fails by a factor of about 2 when noise multipliers are not doubled.
    almost_all = dpa.PoissonSampledDpEvent(1 - 1e-9, dpa.GaussianDpEvent(z))
    mu = math.sqrt(count) / z
    event = dpa.SelfComposedDpEvent(almost_all, count)
    assert epsilon(event, "pld", relation) == pytest.approx(gaussian_epsilon(mu, DELTA), rel=1e-3)
    assert delta(event, "pld", relation) == pytest.approx(gaussian_delta(mu, 1.0), rel=1e-2)


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_grid_shrinks_for_many_steps_of_little_privacy_loss(relation):
    z, count = 31_000.0, 10_000
    almost_all = dpa.PoissonSampledDpEvent(1 - 1e-9, dpa.GaussianDpEvent(z))
    truth = gaussian_epsilon(math.sqrt(count) / z, DELTA)
    assert 0.005 < truth < 0.02
    found = epsilon(dpa.SelfComposedDpEvent(almost_all, count), "pld", relation)
    assert found == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(("q", "z", "count"), [(0.01, 1.0, 100), (0.1, 2.0, 50)])
def test_replacing_a_sampled_row_costs_more_than_removing_it_and_less_than_doing_both(q, z, count):
    # With the same noise: z is per sensitivity, which is 2C for replacing and C for removing.
    def sampled(noise_multiplier):
        one = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(noise_multiplier))
        return dpa.SelfComposedDpEvent(one, count)

    replaced = epsilon(sampled(z), "pld", "replace_one")
    removed = epsilon(sampled(2 * z), "pld")
    assert removed < replaced
    # Removing and then adding a row: group privacy of two.
    both = delta(sampled(2 * z), "pld", target_epsilon=replaced / 2)
    assert (1 + math.exp(replaced / 2)) * both >= DELTA


def test_pld_is_at_most_rdp_on_random_plans_with_sampled_rows():
    rng = np.random.default_rng(0)
    for _ in range(40):
        q, z = 10 ** rng.uniform(-3, -0.05), 10 ** rng.uniform(-0.2, 1)
        one = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(z))
        event = dpa.SelfComposedDpEvent(one, int(10 ** rng.uniform(0, 3.5)))
        if rng.random() < 0.5:
            event = dpa.ComposedDpEvent([event, dpa.GaussianDpEvent(10 ** rng.uniform(0, 2))])
        target_delta = 10 ** rng.uniform(-9, -3)
        pld = epsilon(event, "pld", delta=target_delta)
        assert 0 <= pld <= epsilon(event, "rdp", delta=target_delta) * (1 + 1e-9)
        if pld > 0:
            found = delta(event, "pld", target_epsilon=pld)
            assert found == pytest.approx(target_delta, rel=2e-3)


@pytest.mark.parametrize(("q", "z", "count"), [(0.01, 1.0, 1000), (0.1, 3.0, 100), (0.5, 5.0, 20)])
def test_rdp_is_not_far_above_pld(q, z, count):
    event = dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(z)), count)
    assert epsilon(event, "rdp") <= 1.5 * epsilon(event, "pld")


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_delta_inverts_epsilon(accountant):
    found = epsilon(GAUSSIAN, accountant)
    assert delta(GAUSSIAN, accountant, target_epsilon=found) == pytest.approx(DELTA, rel=1e-2)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_release_without_noise_is_infinite_everywhere(accountant, relation):
    for event in (
        dpa.NonPrivateDpEvent(),
        dpa.GaussianDpEvent(0.0),
        dpa.ComposedDpEvent([SAMPLED, dpa.SelfComposedDpEvent(dpa.NonPrivateDpEvent(), 3)]),
    ):
        assert epsilon(event, accountant, relation) == math.inf
        assert delta(event, accountant, relation) == 1


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_no_release_costs_nothing_and_delta_zero_allows_none(accountant):
    for nothing in (
        dpa.NoOpDpEvent(),
        dpa.ComposedDpEvent([]),
        dpa.PoissonSampledDpEvent(0.0, GAUSSIAN),
    ):
        assert epsilon(nothing, accountant, delta=0.0) == 0
        assert delta(nothing, accountant) == 0
    assert epsilon(GAUSSIAN, accountant, delta=0.0) == math.inf


def test_the_default_accountant_is_exact_unless_rows_are_sampled():
    assert default_accountant(dpa.ComposedDpEvent([GAUSSIAN, dpa.NoOpDpEvent()])) == "exact"
    assert default_accountant(dpa.ComposedDpEvent([GAUSSIAN, SAMPLED])) == "pld"
    assert default_accountant(dpa.PoissonSampledDpEvent(1.0, GAUSSIAN)) == "exact"


def test_accountants_that_cannot_evaluate_an_event_say_so():
    with pytest.raises(UnsupportedEventError, match=r"^exact has no closed form for Poisson samp"):
        epsilon(SAMPLED, "exact")
    with pytest.raises(
        UnsupportedEventError, match=r"^rdp has no bound for Poisson sampling under"
    ):
        epsilon(SAMPLED, "rdp", "replace_one")
    with pytest.raises(UnsupportedEventError, match=r"^pld resolves target_delta down to 1e-12"):
        epsilon(SAMPLED, "pld", delta=1e-13)
    assert issubclass(UnsupportedEventError, ValueError)


def test_rdp_does_not_multiply_rounding_errors_into_a_guarantee():
    z, q, count = 1e6, 1e-3, 10**18
    step = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(z))
    # About 1-GDP in truth, by the central limit theorem; dp_accounting says otherwise.
    truth = gaussian_epsilon(q * math.sqrt(count) / z, DELTA)
    orders = [float(order) for order in range(2, 33)]
    assert dpa.rdp.RdpAccountant(orders).compose(step, count).get_epsilon(DELTA) < truth / 2
    assert epsilon(dpa.SelfComposedDpEvent(step, count), "rdp") >= truth


@pytest.mark.parametrize(
    "event",
    [
        dpa.LaplaceDpEvent(1.0),
        dpa.UnsupportedDpEvent(),
        dpa.PoissonSampledDpEvent(0.1, dpa.SelfComposedDpEvent(GAUSSIAN, 2)),
        "gaussian",
    ],
)
def test_events_of_other_kinds_are_refused_by_every_accountant(event):
    for accountant in ACCOUNTANTS:
        with pytest.raises(UnsupportedEventError, match=r"^No accountant here evaluates "):
            epsilon(dpa.ComposedDpEvent([GAUSSIAN, event]), accountant)


def test_noise_too_little_for_pld_is_one_clear_error():
    almost_no_noise = dpa.GaussianDpEvent(1e-4)
    with pytest.raises(UnsupportedEventError, match=r"^pld counts privacy losses above 600 in one"):
        epsilon(almost_no_noise, "pld")
    assert delta(almost_no_noise, "pld") == 1
    assert epsilon(almost_no_noise, "exact") > 1e7


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_extreme_noise_gives_bounds_and_not_errors(accountant):
    for z in (5e-324, 1e-101):  # counts as none
        assert epsilon(dpa.GaussianDpEvent(z), accountant) == math.inf
        assert delta(dpa.GaussianDpEvent(z), accountant) == 1
    for z in (1e160, 1e300):  # counts as 1e100
        event = dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(z), 4)
        assert 0 <= epsilon(event, accountant) < 1e-12
        assert 0 <= delta(event, accountant) <= 1e-12
        sampled = dpa.PoissonSampledDpEvent(1e-300, event.event)
        assert 0 <= epsilon(sampled, "pld") < 1e-12
    assert event_mu(event) == pytest.approx(2e-100)


@pytest.mark.parametrize(
    ("event", "arguments", "message"),
    [
        (GAUSSIAN, {"delta": 1.0}, r"^target_delta must be a float in \[0, 1\), got 1\.0\.$"),
        (GAUSSIAN, {"relation": "swap"}, r"^neighboring_relation must be one of .*got 'swap'\.$"),
        (
            GAUSSIAN,
            {"accountant": "zcdp"},
            r"^accountant must be one of 'auto', 'exact', 'pld', 'rdp', got",
        ),
        (dpa.GaussianDpEvent(-1.0), {}, r"^noise_multiplier must be a float in \[0, inf\), got -1"),
        (
            dpa.SelfComposedDpEvent(GAUSSIAN, 0),
            {},
            r"^count must be an int in \[1, inf\), got 0\.$",
        ),
        (dpa.PoissonSampledDpEvent(2.0, GAUSSIAN), {}, r"^sampling_probability must be a float in"),
    ],
)
def test_a_bad_argument_is_named(event, arguments, message):
    with pytest.raises(ValueError, match=message):
        epsilon(event, **{"accountant": "exact", **arguments})


def test_a_negative_target_epsilon_is_refused():
    with pytest.raises(ValueError, match=r"^target_epsilon must be a float in \[0, inf\), got -1"):
        delta(GAUSSIAN, "exact", target_epsilon=-1.0)


def test_auto_asks_rdp_where_pld_does_not_resolve_delta():
    relation = {"neighboring_relation": "add_or_remove_one"}
    found = compute_epsilon(SAMPLED, 1e-13, **relation)
    assert found == compute_epsilon(SAMPLED, 1e-13, accountant="rdp", **relation)
    assert compute_epsilon(SAMPLED, 1e-12, **relation) == compute_epsilon(
        SAMPLED, 1e-12, accountant="pld", **relation
    )
    with pytest.raises(UnsupportedEventError, match="pld resolves target_delta down to 1e-12"):
        compute_epsilon(SAMPLED, 1e-13, neighboring_relation="replace_one")
    request = ReleaseRequest("gradient", 1.0, 100, 0.01)
    plan = calibrate([request], target_epsilon=2.0, target_delta=1e-13, **relation)
    assert plan.accountant == "rdp"
    assert 1.99 < compute_epsilon(plan.event, 1e-13, **relation) <= 2.0


@pytest.mark.parametrize(
    ("q", "count", "delta"),
    [(0.1, 10, 1e-5), (0.9, 1, 1e-9), (1e-3, 10**6, 1e-5), (1e-6, 10**6, 1e-9)],
)
def test_rdp_never_asks_more_of_more_noise(q, count, delta):
    found = []
    for z in np.geomspace(0.5, 1e9, 31):
        step = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(float(z)))
        event = dpa.SelfComposedDpEvent(step, count)
        found.append(
            compute_epsilon(
                event, delta, neighboring_relation="add_or_remove_one", accountant="rdp"
            )
        )
    for more, less in itertools.pairwise(found):
        assert less <= more * (1 + 1e-9)
    assert found[-1] < 0.02  # what the largest order leaves
