from __future__ import annotations

import math

import numpy as np
import pytest

from dpfc.accounting import (
    PrivacyPlan,
    ReleaseRequest,
    UnsupportedEventError,
    calibrate,
    compute_epsilon,
    gaussian_epsilon,
    gaussian_mu,
)
from dpfc.accounting.events import event_mu

RELATIONS = ["add_or_remove_one", "replace_one"]


def random_plan(rng: np.random.Generator) -> PrivacyPlan:
    """Calibrate 1 to 5 full-batch releases to a random target."""
    shares = rng.dirichlet(np.ones(rng.integers(1, 6)))
    requests = [
        ReleaseRequest(f"release {i}", float(share), int(10 ** rng.uniform(0, 3)))
        for i, share in enumerate(shares)
    ]
    return calibrate(
        requests,
        target_epsilon=float(10 ** rng.uniform(-2, 1.3)),
        target_delta=float(10 ** rng.uniform(-10, -2)),
        neighboring_relation=str(rng.choice(RELATIONS)),
    )


def epsilon_of(plan: PrivacyPlan, accountant: str) -> float:
    return compute_epsilon(
        plan.event,
        plan.target_delta,
        neighboring_relation=plan.neighboring_relation,
        accountant=accountant,
    )


@pytest.mark.slow
def test_a_thousand_random_full_batch_plans_meet_their_target_from_below():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        plan = random_plan(rng)
        exact = epsilon_of(plan, "exact")
        assert plan.accountant == "exact"
        assert plan.target_epsilon * (1 - 1e-9) <= exact <= plan.target_epsilon
        assert exact <= epsilon_of(plan, "rdp") * (1 + 1e-9)
        assert plan.mu <= gaussian_mu(plan.target_epsilon, plan.target_delta)


def check_pld_agrees(seed: int, plans: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(plans):
        plan = random_plan(rng)
        exact, pld = epsilon_of(plan, "exact"), epsilon_of(plan, "pld")
        # Its grid is pessimistic, and rounding errors are charged to the same side.
        assert exact <= pld <= exact * (1 + 1e-4)


def test_pld_agrees_with_the_closed_form_on_random_full_batch_plans():
    check_pld_agrees(seed=1, plans=100)


@pytest.mark.slow
def test_pld_agrees_with_the_closed_form_on_a_thousand_random_full_batch_plans():
    check_pld_agrees(seed=2, plans=1000)


@pytest.mark.parametrize("accountant", ["auto", "exact", "pld", "rdp"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_a_full_batch_plan_by_each_accountant_lands_just_below_its_target(accountant, relation):
    requests = [ReleaseRequest("gram", 0.3), ReleaseRequest("gradient", 0.7, count=25)]
    plan = calibrate(
        requests,
        target_epsilon=2.0,
        target_delta=1e-6,
        neighboring_relation=relation,
        accountant=accountant,
    )
    assert plan.accountant == ("exact" if accountant == "auto" else accountant)
    assert 2 * (1 - 1e-4) <= epsilon_of(plan, plan.accountant) <= 2
    if accountant == "rdp":
        assert plan.mu < 0.95 * gaussian_mu(2.0, 1e-6)
    else:
        assert plan.mu == pytest.approx(gaussian_mu(2.0, 1e-6), rel=1e-4)


def test_a_sampled_plan_by_rdp_lands_just_below_its_target_and_has_more_noise():
    requests = [ReleaseRequest("mean", 0.1), ReleaseRequest("gradient", 0.9, 100, 0.05)]
    budget = {"target_epsilon": 1.0, "target_delta": 1e-5}
    plans = {
        name: calibrate(
            requests, **budget, neighboring_relation="add_or_remove_one", accountant=name
        )
        for name in ("auto", "rdp")
    }
    assert plans["auto"].accountant == "pld"
    assert 1 - 1e-4 <= epsilon_of(plans["rdp"], "rdp") <= 1
    noise = {name: plan["gradient"].noise_multiplier for name, plan in plans.items()}
    assert noise["auto"] < noise["rdp"] < 1.3 * noise["auto"]


def test_accountants_that_cannot_evaluate_a_plan_refuse_it():
    requests = [ReleaseRequest("gradient", 1.0, 10, 0.1)]
    budget = {"target_delta": 1e-5, "neighboring_relation": "replace_one"}
    for target in (1.0, math.inf):
        with pytest.raises(UnsupportedEventError, match=r"^exact has no closed form for Poisson"):
            calibrate(requests, target_epsilon=target, **budget, accountant="exact")
    with pytest.raises(UnsupportedEventError, match=r"^rdp has no bound for Poisson sampling"):
        calibrate(requests, target_epsilon=1.0, **budget, accountant="rdp")
    with pytest.raises(ValueError, match=r"^accountant must be one of 'auto', 'exact', 'pld'"):
        calibrate(requests, target_epsilon=1.0, **budget, accountant="zcdp")


def test_rows_that_are_hardly_ever_drawn_need_no_noise_and_are_refused():
    with pytest.raises(UnsupportedEventError, match=r"^a row is ever drawn with a probability of"):
        calibrate(
            [ReleaseRequest("a", 0.5, 10, 1e-7), ReleaseRequest("b", 0.5, 80, 1e-7)],
            target_epsilon=1.0,
            target_delta=1e-5,
            neighboring_relation="add_or_remove_one",
        )


def test_shares_divide_the_squared_mu():
    plan = calibrate(
        [ReleaseRequest("gram", 0.25), ReleaseRequest("gradient", 0.75, count=20)],
        target_epsilon=1.0,
        target_delta=1e-5,
        neighboring_relation="replace_one",
    )
    assert 1 / plan["gram"].noise_multiplier ** 2 == pytest.approx(0.25 * plan.mu**2)
    assert 20 / plan["gradient"].noise_multiplier ** 2 == pytest.approx(0.75 * plan.mu**2)


def test_shares_that_sum_to_a_little_more_than_one_do_not_overspend():
    requests = [ReleaseRequest("a", 0.5), ReleaseRequest("b", 0.5 + 5e-10)]
    plan = calibrate(
        requests, target_epsilon=1.0, target_delta=1e-5, neighboring_relation="replace_one"
    )
    assert plan.mu <= gaussian_mu(1.0, 1e-5)


@pytest.mark.parametrize("sampling_probability", [1.0, 0.1])
def test_an_infinite_epsilon_asks_for_no_noise(sampling_probability):
    plan = calibrate(
        [ReleaseRequest("gradient", 1.0, 10, sampling_probability)],
        target_epsilon=math.inf,
        target_delta=0.0,
        neighboring_relation="add_or_remove_one",
    )
    assert plan["gradient"].noise_multiplier == 0
    assert epsilon_of(plan, "pld") == math.inf


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(
    ("epsilon", "sampling_probability", "count"),
    [(0.1, 0.1, 100), (1.0, 0.01, 1000), (8.0, 0.05, 300), (8.0, 0.001, 1000)],
)
def test_sampled_plans_land_just_below_their_target(relation, epsilon, sampling_probability, count):
    plan = calibrate(
        [
            ReleaseRequest("mean", 0.1),
            ReleaseRequest("gradient", 0.9, count, sampling_probability),
        ],
        target_epsilon=epsilon,
        target_delta=1e-5,
        neighboring_relation=relation,
    )
    assert (1 - 1e-4) * epsilon < epsilon_of(plan, "pld") <= epsilon
    # The family keeps the starting proportion: z = q / (m sqrt(share / count)).
    ratio = plan["gradient"].noise_multiplier / plan["mean"].noise_multiplier
    assert ratio == pytest.approx(sampling_probability * math.sqrt(0.1 / (0.9 / count)))


def test_sampling_needs_less_noise_than_full_batch():
    full, sampled = (
        calibrate(
            [ReleaseRequest("gradient", 1.0, 100, probability)],
            target_epsilon=1.0,
            target_delta=1e-5,
            neighboring_relation="add_or_remove_one",
        )["gradient"].noise_multiplier
        for probability in (1.0, 0.1)
    )
    assert sampled < full / 5


def one_request(**arguments):
    return calibrate(
        [ReleaseRequest("gram", 1.0)],
        **{
            "target_epsilon": 1.0,
            "target_delta": 1e-5,
            "neighboring_relation": "replace_one",
            **arguments,
        },
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_epsilon": 0.0}, r"^target_epsilon must be a float in \(0, inf\), got 0\.0\.$"),
        ({"target_epsilon": math.nan}, r"^target_epsilon must be a float in \(0, inf\), got nan\."),
        ({"target_epsilon": True}, r"^target_epsilon must be a float in \(0, inf\), got True\.$"),
        ({"target_epsilon": "1"}, r"^target_epsilon must be a float in \(0, inf\), got '1'\.$"),
        ({"target_delta": 0.0}, r"^target_delta must be a float in \(0, 1\), got 0\.0\.$"),
        ({"target_delta": 1.0}, r"^target_delta must be a float in \(0, 1\), got 1\.0\.$"),
        ({"neighboring_relation": "swap"}, r"^neighboring_relation must be one of .*got 'swap'\.$"),
    ],
)
def test_a_bad_target_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        one_request(**arguments)


def test_shares_that_do_not_sum_to_one_are_refused_with_their_sum():
    for requests, total in (([ReleaseRequest("a", 0.5)], "0.5"), ([], "0.0")):
        with pytest.raises(ValueError, match=rf"^shares must sum to 1, got a sum of {total}\.$"):
            calibrate(
                requests, target_epsilon=1.0, target_delta=1e-5, neighboring_relation="replace_one"
            )


def test_repeated_names_are_refused():
    with pytest.raises(ValueError, match=r"^names of releases must be unique"):
        calibrate(
            [ReleaseRequest("a", 0.5), ReleaseRequest("a", 0.5)],
            target_epsilon=1.0,
            target_delta=1e-5,
            neighboring_relation="replace_one",
        )


def test_a_delta_that_pld_cannot_resolve_is_refused_for_sampled_plans():
    with pytest.raises(UnsupportedEventError, match=r"^pld resolves target_delta down to 1e-12"):
        calibrate(
            [ReleaseRequest("gradient", 1.0, 10, 0.1)],
            target_epsilon=1.0,
            target_delta=1e-14,
            neighboring_relation="replace_one",
        )


@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-7, 1e-9, 1e-13])
@pytest.mark.parametrize("epsilon", [1.0, 1e-2, 1e-4, 3e-5, 1e-5, 1e-6, 1e-8, 1e-10, 1e-50])
def test_a_plan_of_next_to_no_epsilon_is_not_exceeded_by_rounding(epsilon, delta):
    """A statement would refuse it after the spend."""
    requests = [ReleaseRequest("a", 0.03), ReleaseRequest("b", 0.2), ReleaseRequest("c", 0.77, 20)]
    plan = calibrate(
        requests,
        target_epsilon=epsilon,
        target_delta=delta,
        neighboring_relation="add_or_remove_one",
        accountant="exact",
    )
    mu = event_mu(plan.event)
    for k in range(-20, 20):  # as the releases' shares and their order may round it
        assert gaussian_epsilon(mu * (1 - k * 2.0**-52), delta) <= epsilon
    assert mu >= gaussian_mu(epsilon, delta) * (1 - 1e-4)
