"""The privacy loss distributions: against closed forms, integrals, finer grids, dp_accounting."""

from __future__ import annotations

import math
import resource
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.special import ndtr

from dpfc.accounting.events import GaussianSteps
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpfc.accounting.numerics import pld as _pld
from dpfc.accounting.numerics.pld import pld_delta, pld_deltas, pld_epsilon
from dpfc.accounting.numerics.pld_curve import LossCurve, Window, compose
from dpfc.accounting.numerics.pld_step import DIRECTIONS, LossPair, discretise, loss_range

RELATIONS = list(DIRECTIONS)
DELTA = 1e-5

pairs = st.builds(
    LossPair,
    direction=st.sampled_from(["remove", "add", "replace"]),
    sampling_probability=st.one_of(st.just(1.0), st.floats(1e-6, 0.999)),
    shift=st.floats(1e-3, 8),
)


def one_delta(pair: LossPair, epsilons: np.ndarray) -> np.ndarray:
    """Hockey-stick divergences of a pair, in closed form; shape of `epsilons`."""
    cuts = pair.outcomes(epsilons)
    upper = sum(weight * ndtr(mean - cuts) for weight, mean in pair.upper)
    lower = sum(weight * ndtr(mean - cuts) for weight, mean in pair.lower)
    return upper - np.exp(epsilons) * lower


def two_delta(pair: LossPair, epsilon: float) -> float:
    """Divergence of a pair twice, by integrating the closed form over the first outcome."""
    ends = (min(m for _, m in pair.upper) - 12, max(m for _, m in pair.upper) + 12)
    outcomes = np.linspace(*ends, 400_001)
    density = sum(w * np.exp(-((outcomes - m) ** 2) / 2) for w, m in pair.upper)
    density /= math.sqrt(2 * math.pi)
    values = density * one_delta(pair, epsilon - pair.losses(outcomes))
    return float(trapezoid(values, outcomes))


@given(pairs)
@example(LossPair("replace", 0.999, 6.0))  # log ratios near log(1 - q), far from q near 0
def test_outcomes_invert_losses(pair):
    outcomes = np.linspace(-6, 6 + pair.shift, 50)
    losses = pair.losses(outcomes)
    assert (np.diff(losses) >= 0).all()
    # Where the loss hardly moves, rounding moves the outcome: compare losses.
    assert pair.losses(pair.outcomes(losses)) == pytest.approx(losses, rel=1e-9, abs=1e-13)


@given(pairs, st.floats(0.01, 2))
@settings(deadline=None)
def test_one_release_on_a_grid_is_never_easier_to_protect_than_the_truth(pair, coarseness):
    low, high = loss_range(pair, math.log(1e-15))
    interval = coarseness * (high - low) / 50
    part = discretise(pair, interval, low, high)
    losses = interval * np.arange(part.first, part.first + part.masses.size)
    assert (part.masses >= 0).all()
    assert part.masses.sum() + part.infinite_mass == pytest.approx(1, abs=1e-12)
    # The lower distribution gains nothing; it loses what is cut off at either end.
    assert np.sum(part.masses * np.exp(-losses)) <= 1 + 1e-9
    epsilons = np.linspace(max(low, -5), high, 37)
    gaps = np.maximum(0, -np.expm1(epsilons[:, None] - losses))
    found = part.infinite_mass + gaps @ part.masses
    truth = one_delta(pair, epsilons)
    assert (found >= truth * (1 - 1e-12) - 1e-15).all()


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("q", "z"), [(0.5, 0.7), (0.1, 1.0), (0.01, 0.5), (0.3, 5.0), (1.0, 2.0)])
def test_one_and_two_releases_match_integrals(relation, q, z):
    directions = [LossPair.of(GaussianSteps(z, q, 1), d) for d in DIRECTIONS[relation]]
    for epsilon in (0.0, 0.1, 0.5, 1.0):
        once = max(float(one_delta(pair, np.array([epsilon]))[0]) for pair in directions)
        twice = max(two_delta(pair, epsilon) for pair in directions)
        for count, truth in ((1, once), (2, twice)):
            if truth < 1e-9:
                continue
            found = pld_delta((GaussianSteps(z, q, count),), epsilon, relation)
            assert truth * (1 - 1e-9) <= found <= truth * (1 + 1e-4) + 1e-11


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(
    ("q", "z", "count"),
    [
        (0.01, 300.0, 10_000),
        (0.01, 1.0, 10_000),
        (0.1, 4.0, 10_000),
        (0.5, 2.0, 1000),
        (1e-3, 0.5, 1000),
        (1e-2, 0.3, 10),
        (1e-4, 0.4, 10_000),
        (1e-3, 0.6, 1),
    ],
)
def test_epsilon_is_within_2e_5_of_a_much_finer_grid(monkeypatch, relation, q, z, count):
    steps = (GaussianSteps(z, q, count),)
    found = pld_epsilon(steps, DELTA, relation)
    monkeypatch.setattr(_pld, "_EPSILON_TOLERANCE", _pld._EPSILON_TOLERANCE / 20)
    finer = pld_epsilon(steps, DELTA, relation)
    assert finer * (1 - 5e-6) <= found <= finer * (1 + 2e-5)


def test_rare_draws_cost_what_one_draw_does():
    # Of 100 steps at most one draws the row, but for a probability of 5e-9.
    z, q, count = 0.3, 1e-6, 100
    one = LossPair.of(GaussianSteps(z, q, 1), "remove")
    for epsilon in (0.5, 1.0, 2.0):
        truth = count * float(one_delta(one, np.array([epsilon]))[0])
        found = pld_delta((GaussianSteps(z, q, count),), epsilon, "add_or_remove_one")
        assert 1e-8 < truth <= found < truth * (1 + 5e-3)


@pytest.mark.parametrize("count", [10**12, 10**15, 2**53])
def test_steps_without_number_leave_an_upper_bound_and_memory(count):
    q, z = 1e-3, 1e-3 * math.sqrt(count)  # about 1-GDP together
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert pld_epsilon(
        (GaussianSteps(z, q, count),), DELTA, "replace_one"
    ) >= 0.999 * gaussian_epsilon(1.0, DELTA)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500 * 1024


def test_few_large_losses_among_many_small_ones_leave_epsilon_tight():
    # Chernoff bounds are far above delta here, and must not say how much mass may be cut off.
    delta, steps = 1e-10, (GaussianSteps(1.0, 1e-6, 1),)
    found = pld_epsilon(steps, delta, "replace_one")
    pair = LossPair.of(steps[0], "replace")
    at, below = one_delta(pair, found * np.array([1.0, 1 - 1e-4]))
    assert at <= delta < below


@given(
    mu=st.floats(1e-3, 8),
    log_delta=st.floats(-26, -3),
    relation=st.sampled_from(RELATIONS),
    parts=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_full_batch_releases_match_the_closed_form(mu, log_delta, relation, parts):
    delta = math.exp(log_delta)
    truth = gaussian_epsilon(mu, delta)
    steps = tuple(GaussianSteps(math.sqrt(parts * n) / mu, 1.0, n) for n in range(1, parts + 1))
    found = pld_epsilon(steps, delta, relation)
    assert truth <= found
    if truth > 0.01 * mu:  # where delta pays nearly alone, epsilon is a small rest
        assert found <= truth * (1 + 1e-4)


@pytest.mark.parametrize("mu", [0.01, 1.0, 5.0])
def test_deltas_at_many_epsilons_match_the_closed_form(mu):
    deltas_at = pld_deltas((GaussianSteps(1 / mu, 1.0, 1),), "add_or_remove_one")
    epsilons = np.linspace(0, gaussian_epsilon(mu, 1e-11), 40)
    truth = np.array([gaussian_delta(mu, float(epsilon)) for epsilon in epsilons])
    found = deltas_at(epsilons)
    assert (found >= truth).all() and found == pytest.approx(truth, rel=3e-3)
    assert deltas_at(np.array([700.0])) == _pld.SMALLEST_DELTA


@pytest.mark.parametrize("relation", RELATIONS)
def test_deltas_at_many_epsilons_match_single_ones(relation):
    steps = (GaussianSteps(1.0, 0.05, 200), GaussianSteps(4.0, 1.0, 2))
    deltas_at = pld_deltas(steps, relation)
    epsilons = np.array([0.0, 0.3, 1.0, 3.0])
    single = [pld_delta(steps, float(epsilon), relation) for epsilon in epsilons]
    assert deltas_at(epsilons) == pytest.approx(single, rel=2e-3)


def test_no_row_is_drawn_often_enough_to_need_noise():
    assert pld_epsilon((GaussianSteps(1e-3, 1e-7, 99),), DELTA, "replace_one") == 0
    assert pld_epsilon((GaussianSteps(1e-3, 1e-7, 102),), DELTA, "replace_one") == math.inf


def test_losses_come_back_into_a_window_that_is_too_small_only_to_raise_delta():
    pair = LossPair("remove", 1.0, 1.0)
    low, high = loss_range(pair, math.log(1e-15))
    part = discretise(pair, 0.01, low, high)
    wide = compose([(part, 4)], 0.01, Window(-20.0, 40.0, 0.0, 3.0))
    epsilons = np.linspace(0, 5, 20)
    for tilt in (0.0, 1.0, 3.0):
        narrow = compose([(part, 4)], 0.01, Window(-1.0, 6.0, tilt, 3.0))
        assert (narrow.deltas(epsilons) >= wide.deltas(epsilons) * (1 - 1e-9)).all()


def test_a_tilt_keeps_what_rounding_drowns():
    part = discretise(LossPair("remove", 1.0, 0.1), 1e-3, -1.5, 1.5)
    # 100 releases of mu = 0.1 are one of mu = 1.
    epsilon = gaussian_epsilon(1.0, 1e-14)
    found = [
        compose([(part, 100)], 1e-3, Window(-8.0, 18.0, tilt, 9.0)).deltas(np.array([epsilon]))[0]
        for tilt in (0.0, 8.0)
    ]
    assert found[0] > 1e-13
    assert 1e-14 <= found[1] == pytest.approx(1e-14, rel=1e-2)


def test_a_curve_of_two_losses_by_hand():
    curve = LossCurve(1, 1.0, np.array([0.5, 0.3]), infinite_mass=0.2)
    expected = [0.2 + 0.3 * -math.expm1(-0.5), 0.2, 0.2]
    assert curve.deltas(np.array([1.5, 2.0, 9.0])) == pytest.approx(expected)
    assert curve.epsilon(expected[0]) == pytest.approx(1.5)
    assert curve.epsilon(0.19) == math.inf
    # Below the window, delta is at most linear in exp(epsilon), from 1 at minus infinity.
    at_one = 0.2 + 0.3 * -math.expm1(-1.0)
    assert curve.deltas(np.array([0.0])) == pytest.approx([1 - math.exp(-1) * (1 - at_one)])


MEMORY = """
import resource, sys
from dpfc.accounting import calibrate_noise_multiplier
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for relation in ("add_or_remove_one", "replace_one"):
    for probability in (1e-4, 1e-3, 1e-2, 0.1):
        for epsilon in (0.01, 0.1, 1.0, 16.0):
            calibrate_noise_multiplier(
                target_epsilon=epsilon, target_delta=1e-5, steps=10_000,
                sampling_probability=probability, neighboring_relation=relation,
            )
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_ten_thousand_steps_need_less_than_500_mebibytes():
    command = [sys.executable, "-c", MEMORY]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 500
