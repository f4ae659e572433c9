"""What a search costs: closed forms, the theorems' laws, and budgets that are kept and used."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import rdp_privacy_accountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, geom, logser, poisson

from dpfc.accounting import ReleaseRequest, calibrate, compute_epsilon, gaussian_mu
from dpfc.accounting.search_budget import RunLaw, calibrate_search, gaussian_target

TARGET = {
    "target_epsilon": 1.0,
    "target_delta": 1e-5,
    "neighboring_relation": "add_or_remove_one",
}
LAWS = [
    RunLaw(10.0, 1.0),
    RunLaw(4.0, 0.0),
    RunLaw(6.0, 0.5),
    RunLaw(5.0, 3.0),
    RunLaw(8.0, math.inf),
]


def pmf(law, most=4000):
    return np.array([law.probability(count) for count in range(most)])


# -- composition -------------------------------------------------------------------------


@pytest.mark.parametrize("refit_share", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("n_candidates", [1, 3, 12])
def test_runs_and_refit_compose_to_the_mu_of_one_fit(n_candidates, refit_share):
    plan = calibrate_search(n_candidates, refit_share=refit_share, **TARGET)
    mu = gaussian_mu(1.0, 1e-5)
    assert plan.run_mu == pytest.approx(mu * math.sqrt((1 - refit_share) / n_candidates), rel=1e-9)
    assert plan.refit_mu == pytest.approx(mu * math.sqrt(refit_share), rel=1e-9)
    assert n_candidates * plan.run_mu**2 + plan.refit_mu**2 <= mu**2
    assert plan.has_refit == (refit_share > 0)


def test_the_event_of_a_composition_is_every_run_and_the_refit():
    plan = calibrate_search(3, refit_share=0.5, **TARGET)
    assert plan.event == dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.GaussianDpEvent(plan.run_noise_multiplier), 3
            ),
            dp_accounting.GaussianDpEvent(plan.refit_noise_multiplier),
        ]
    )


def test_one_candidate_without_refit_gets_what_a_single_fit_gets():
    plan = calibrate_search(1, **TARGET)
    single = calibrate([ReleaseRequest("all", 1.0)], **TARGET)
    assert plan.run_noise_multiplier == single["all"].noise_multiplier


# -- random stopping ---------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("refit_share", [0.0, 0.4])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_random_stopping_uses_the_budget_and_keeps_it(law, refit_share, epsilon):
    target = TARGET | {"target_epsilon": epsilon}
    plan = calibrate_search(5, law=law, refit_share=refit_share, **target)
    spent = compute_epsilon(plan.event, 1e-5, neighboring_relation="add_or_remove_one")
    assert (1 - 1e-4) * epsilon <= spent <= epsilon
    assert plan.promise.accountant == "rdp"
    if refit_share:
        assert plan.refit_mu == pytest.approx(
            math.sqrt(refit_share) * gaussian_mu(epsilon, 1e-5), rel=1e-9
        )


def test_random_stopping_agrees_with_dp_accounting():
    plan = calibrate_search(5, law=RunLaw(10.0, 1.0), **TARGET)
    run = dp_accounting.GaussianDpEvent(plan.run_noise_multiplier)
    accountant = rdp_privacy_accountant.RdpAccountant(np.arange(2, 400).astype(float))
    accountant.compose(RepeatAndSelectDpEvent(run, 10.0, 1.0))
    # Ours has finer orders and may be a little below; never above.
    ours = compute_epsilon(plan.event, 1e-5, neighboring_relation="add_or_remove_one")
    assert 0.98 < ours / accountant.get_epsilon(1e-5) <= 1.0 + 1e-9


def test_many_runs_cost_less_than_their_composition():
    stopped = calibrate_search(30, law=RunLaw(30.0, 1.0), **TARGET)
    composed = calibrate_search(30, **TARGET)
    assert stopped.run_mu > 2 * composed.run_mu


def test_a_budget_too_small_for_the_number_of_runs_is_refused():
    with pytest.raises(ValueError, match="too small for a search"):
        calibrate_search(
            2, law=RunLaw(1e300, 1.0), **(TARGET | {"target_epsilon": 1e-8, "target_delta": 1e-12})
        )


def test_random_stopping_is_bounded_by_rdp_only():
    with pytest.raises(ValueError, match="accountant must be one of 'auto', 'rdp'"):
        calibrate_search(2, law=RunLaw(3.0, 1.0), accountant="exact", **TARGET)


@pytest.mark.parametrize("law", [None, RunLaw(3.0, 1.0)])
def test_an_infinite_budget_asks_for_no_noise(law):
    target = TARGET | {"target_epsilon": math.inf}
    plan = calibrate_search(3, law=law, refit_share=0.5, **target)
    assert plan.run_noise_multiplier == plan.refit_noise_multiplier == 0.0
    assert plan.run_mu == plan.refit_mu == math.inf
    relation = "add_or_remove_one"
    assert compute_epsilon(plan.event, 1e-5, neighboring_relation=relation) == math.inf


# -- laws of the number of runs ----------------------------------------------------------


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_law_sums_to_one_and_has_its_mean(law):
    probabilities = pmf(law)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-10)
    assert probabilities @ np.arange(len(probabilities)) == pytest.approx(law.mean, rel=1e-9)


def test_laws_that_have_a_name_are_those():
    counts = np.arange(1, 200)
    np.testing.assert_allclose(pmf(RunLaw(10.0, 1.0), 200)[1:], geom.pmf(counts, 0.1), rtol=1e-8)
    np.testing.assert_allclose(pmf(RunLaw(8.0, math.inf), 60), poisson.pmf(np.arange(60), 8.0))
    # -p / ((1 - p) log(1 - p)) = 4 at p = 0.898…; SciPy's own figure for its mean decides.
    law = RunLaw(float(logser.mean(0.9)), 0.0)
    np.testing.assert_allclose(pmf(law, 200)[1:], logser.pmf(counts, 0.9), rtol=1e-8)


def test_the_negative_binomial_law_is_definition_1_of_the_paper():
    eta, gamma = 0.5, 0.2
    mean = eta * (1 / gamma - 1) / (1 - gamma**eta)
    for count in range(1, 20):
        product = math.prod((step + eta) / (step + 1) for step in range(count))
        expected = (1 - gamma) ** count / (gamma**-eta - 1) * product
        assert RunLaw(mean, eta).probability(count) == pytest.approx(expected, rel=1e-8)


def test_a_truncated_law_never_gives_zero_and_poisson_may():
    assert RunLaw(3.0, 1.0).probability(0) == 0.0 and RunLaw(3.0, 1.0).draw(0.0) == 1
    assert RunLaw(3.0, math.inf).draw(0.0) == 0


def test_a_mean_of_one_is_one_run():
    assert [RunLaw(1.0, 1.0).draw(uniform) for uniform in (0.0, 0.5, 1 - 2**-53)] == [1, 1, 1]


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_last_uniform_ends_in_the_tail(law):
    count = law.draw(1 - 2**-53)
    assert law.mean < count < 2000
    assert law.probability(count) < 1e-12


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_draws_follow_the_law_and_a_law_of_another_mean_is_told_apart(law):
    uniforms = np.random.default_rng(7).random(4000)
    draws = np.bincount([law.draw(uniform) for uniform in uniforms])

    def p_value(stated):
        expected = len(uniforms) * pmf(stated, 400)
        cells = [cell for cell in range(len(draws)) if expected[cell] >= 8]
        observed = [draws[cell] for cell in cells]
        rest = len(uniforms) - sum(observed), len(uniforms) - sum(expected[cells])
        return chisquare([*observed, rest[0]], [*expected[cells], rest[1]]).pvalue

    assert p_value(law) > 1e-3
    assert p_value(RunLaw(1.2 * law.mean, law.shape)) < 1e-6


@pytest.mark.slow
@given(
    mean=st.floats(1, 1000),
    shape=st.sampled_from([0.0, 0.3, 1.0, 5.0, math.inf]),
    uniform=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=60, deadline=None)
def test_draws_invert_the_distribution_function(mean, shape, uniform):
    law = RunLaw(mean, shape)
    count = law.draw(uniform)
    below = math.fsum(law.probability(k) for k in range(count))
    assert below <= uniform + 1e-9
    assert below + law.probability(count) > uniform - 1e-9


@pytest.mark.parametrize(
    ("mean", "shape"), [(0.5, 1.0), (math.nan, 1.0), (math.inf, 1.0), (3.0, -1.0), (True, 1.0)]
)
def test_a_law_outside_its_intervals_is_refused(mean, shape):
    with pytest.raises(ValueError, match="must be a float in"):
        RunLaw(mean, shape)


# -- from μ to the (ε, δ) that estimators take -------------------------------------------


@given(mu=st.floats(1e-6, 20), delta=st.floats(1e-10, 0.5))
@settings(max_examples=100, deadline=None)
def test_the_target_of_a_mu_is_safe_and_tight(mu, delta):
    epsilon, lowered = gaussian_target(mu, delta)
    plan = calibrate(
        [ReleaseRequest("a", 0.3, 7), ReleaseRequest("b", 0.7)],
        target_epsilon=epsilon,
        target_delta=lowered,
        neighboring_relation="replace_one",
    )
    assert lowered <= delta
    assert (1 - 1e-8) * mu < plan.mu <= mu


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_candidates", 0), ("n_candidates", 1.5), ("refit_share", 1.0), ("refit_share", -0.1)],
)
def test_bad_input_is_named(name, value):
    arguments = {"n_candidates": 2, "refit_share": 0.5} | {name: value}
    with pytest.raises(ValueError, match=name):
        calibrate_search(**arguments, **TARGET)
