from __future__ import annotations

import math
import time

import numpy as np
import pytest

from dpfc.accounting import (
    PrivacyPlan,
    ReleaseRequest,
    UnsupportedEventError,
    calibrate,
    compute_epsilon,
    gaussian_mu,
)

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


def test_random_full_batch_plans_meet_their_target_from_below_and_rdp_reports_more():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        plan = random_plan(rng)
        exact = epsilon_of(plan, "exact")
        assert plan.target_epsilon * (1 - 1e-9) <= exact <= plan.target_epsilon
        assert exact <= epsilon_of(plan, "rdp")
        assert plan.mu <= gaussian_mu(plan.target_epsilon, plan.target_delta)


def check_pld_agrees(seed: int, plans: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(plans):
        plan = random_plan(rng)
        exact, pld = epsilon_of(plan, "exact"), epsilon_of(plan, "pld")
        assert pld == pytest.approx(exact, rel=1e-3)
        # Its grid is pessimistic, up to rounding of the convolution.
        assert pld >= exact * (1 - 1e-6)


def test_pld_agrees_with_the_closed_form_on_random_full_batch_plans():
    check_pld_agrees(seed=1, plans=60)


@pytest.mark.slow
def test_pld_agrees_with_the_closed_form_on_a_thousand_random_full_batch_plans():
    check_pld_agrees(seed=2, plans=1000)


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
    start = time.process_time()
    plan = calibrate(
        [
            ReleaseRequest("mean", 0.1),
            ReleaseRequest("gradient", 0.9, count, sampling_probability),
        ],
        target_epsilon=epsilon,
        target_delta=1e-5,
        neighboring_relation=relation,
    )
    assert time.process_time() - start < 5
    assert (1 - 1e-3) * epsilon < epsilon_of(plan, "pld") <= epsilon
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
