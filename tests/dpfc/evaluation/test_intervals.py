"""Intervals hold what they say: closed forms without noise, coverage with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from dpfc.accounting import ReleaseRequest, calibrate
from dpfc.evaluation.counts import N_BINS, ScoreHistogram
from dpfc.evaluation.intervals import (
    Estimate,
    auc,
    macro_average,
    normal_quantile,
    number_of_rows,
    proportion,
)

Z = normal_quantile(0.95)
RUNS = 1000
# What 1,000 runs of a 95% interval may show. A coverage of 0.95 leaves it once in 200 times
# below and never above; intervals that leave the noise out are far below.
LEAST, MOST = 0.93, 0.99


def noise_of(epsilon, relation="add_or_remove_one"):
    plan = calibrate(
        [ReleaseRequest("counts", 1.0)],
        target_epsilon=epsilon,
        target_delta=1e-5,
        neighboring_relation=relation,
    )
    sensitivity = 1.0 if relation == "add_or_remove_one" else math.sqrt(2)
    return plan["counts"].noise_multiplier * sensitivity


def coverage(estimates, truth):
    return np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])


# -- proportions ---------------------------------------------------------------------


def test_normal_quantile():
    assert pytest.approx(1.959963984540054) == Z


@pytest.mark.parametrize(
    "hits, n", [(0, 10), (3, 10), (10, 10), (950, 1000), (1, 10**6), (0, 10**6), (10**6, 10**6)]
)
def test_without_noise_a_proportion_has_wilsons_interval(hits, n):
    estimate = proportion(hits, n - hits, Z, hits_variance=0.0, misses_variance=0.0)
    wilson = binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert estimate.value == hits / n
    assert estimate.interval == pytest.approx((wilson.low, wilson.high), abs=1e-11)


@pytest.mark.parametrize("hits, misses", [(500.0, 100.0), (40.0, 160.0)])
def test_without_sampling_a_proportion_has_fiellers_interval(hits, misses):
    """Noise so large that sampling is nothing beside it: the quadratic in closed form."""
    scale, variance = 1e8, (0.05 * 600 * 1e8) ** 2
    hits, misses = hits * scale, misses * scale
    n = hits + misses
    estimate = proportion(hits, misses, 1.0, hits_variance=variance, misses_variance=variance)
    roots = np.roots([n**2 - 2 * variance, 2 * variance - 2 * hits * n, hits**2 - variance])
    expected = np.clip(np.sort(roots), 0.0, 1.0)
    assert estimate.interval == pytest.approx(tuple(expected), abs=1e-6)


def accuracy_estimates(n, p, noise, assumed_noise, public):
    rng = np.random.default_rng(n)
    estimates, variance = [], assumed_noise**2
    for _ in range(RUNS):
        right = rng.binomial(n, p)
        hits, misses = right + noise * rng.normal(), n - right + noise * rng.normal()
        if public:
            hits = min(max((hits + n - misses) / 2, 0.0), n)
            estimates.append(
                proportion(hits, n - hits, Z, hits_variance=variance / 2,
                           misses_variance=variance / 2, covariance=-variance / 2)
            )  # fmt: skip
        else:
            estimates.append(
                proportion(hits, misses, Z, hits_variance=variance, misses_variance=variance)
            )
    return estimates


@pytest.mark.parametrize("public", [False, True], ids=["n_private", "n_public"])
@pytest.mark.parametrize("p", [0.6, 0.95])
@pytest.mark.parametrize("epsilon", [0.5, 5.0])
@pytest.mark.parametrize("n", [200, 2000])
def test_accuracys_interval_covers_sampling_and_noise(n, epsilon, p, public):
    noise = noise_of(epsilon, "replace_one" if public else "add_or_remove_one")
    covered = coverage(accuracy_estimates(n, p, noise, noise, public), p)
    assert LEAST <= covered <= MOST


@pytest.mark.parametrize("public", [False, True], ids=["n_private", "n_public"])
def test_the_check_of_coverage_refuses_intervals_without_the_noise(public):
    noise = noise_of(0.5)
    assert coverage(accuracy_estimates(200, 0.95, noise, 0.0, public), 0.95) < LEAST


def test_a_public_number_of_rows_narrows_accuracys_interval():
    noise = noise_of(0.5)
    private, public = (accuracy_estimates(200, 0.95, noise, noise, known) for known in (0, 1))
    widths = [np.mean([e.high - e.low for e in estimates]) for estimates in (private, public)]
    assert widths[1] < 0.95 * widths[0]


# -- area under the ROC curve --------------------------------------------------------


def histogram_of(labels, probabilities, center=0.0):
    bins = np.searchsorted(ScoreHistogram(1, center).edges, probabilities)
    counts = [np.bincount(bins[labels == k], minlength=N_BINS) for k in (0, 1)]
    return np.array(counts, dtype=np.float64)


def scores(rng, n, area, share, spread):
    """Binormal logits with the given area under the curve."""
    labels = (rng.random(n) < share).astype(int)
    distance = norm.ppf(area) * math.sqrt(2) * spread
    return labels, expit(rng.normal(distance * (labels - 0.5), spread))


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("area", [0.5, 0.8, 0.98])
def test_area_is_that_of_the_scores_up_to_ties_within_bins(area, spread):
    labels, probabilities = scores(np.random.default_rng(0), 3000, area, 0.3, spread)
    histogram = histogram_of(labels, probabilities)
    estimate = auc(histogram, 0.0, Z)
    assert estimate.value == pytest.approx(roc_auc_score(labels, probabilities), abs=0.006)
    bins = np.searchsorted(ScoreHistogram(1).edges, probabilities)
    assert estimate.value == pytest.approx(roc_auc_score(labels, bins), abs=1e-12)


def test_without_noise_the_area_has_newcombes_interval():
    """Method 5 on 5 and 4 rows, from its own equation."""
    histogram = np.zeros((2, N_BINS))
    histogram[1, [3, 9, 20, 28, 30]] = 1
    histogram[0, [2, 4, 10, 21]] = 1
    estimate = auc(histogram, 0.0, Z)
    assert estimate.value == pytest.approx((1 + 2 + 3 + 4 + 4) / 20)
    for theta in estimate.interval:
        rows = (5 + 4) / 2 - 1
        spread = 1 + rows * (1 - theta) / (2 - theta) + rows * theta / (1 + theta)
        variance = theta * (1 - theta) * spread / 20
        assert (estimate.value - theta) ** 2 == pytest.approx(Z**2 * variance, rel=1e-6)
    assert estimate.low < estimate.value < estimate.high


def test_a_perfect_order_of_few_rows_is_no_proof_of_a_perfect_area():
    histogram = np.zeros((2, N_BINS))
    histogram[0, :3], histogram[1, 5:9] = 1, 1
    for counts, value in ((histogram, 1.0), (histogram[::-1], 0.0)):
        estimate = auc(counts, 0.0, Z)
        assert estimate.value == value
        assert 0.3 < estimate.high - estimate.low < 0.6


AREAS = [
    (200, 5.0, 0.7, 0.5, 1.0),
    (2000, 0.5, 0.9, 0.5, 2.0),
    (2000, 5.0, 0.9, 0.5, 2.0),
    (2000, 5.0, 0.97, 0.3, 2.0),
    (2000, 5.0, 0.9, 0.1, 1.0),
    (2000, 0.5, 0.7, 0.5, 0.1),
]


def area_estimates(n, epsilon, area, share, spread, assumed=1.0):
    rng, noise = np.random.default_rng(n), noise_of(epsilon)
    estimates = []
    for _ in range(RUNS):
        histogram = histogram_of(*scores(rng, n, area, share, spread))
        histogram += noise * rng.normal(size=histogram.shape)
        estimates.append(auc(histogram, assumed * noise, Z))
    return estimates


@pytest.mark.parametrize("n, epsilon, area, share, spread", AREAS)
def test_areas_interval_covers_sampling_and_noise(n, epsilon, area, share, spread):
    estimates = area_estimates(n, epsilon, area, share, spread)
    assert LEAST <= coverage(estimates, area) <= MOST
    assert np.nanmean([estimate.value for estimate in estimates]) == pytest.approx(area, abs=0.01)


def test_the_check_of_coverage_refuses_areas_without_the_noise():
    assert coverage(area_estimates(2000, 0.5, 0.9, 0.5, 2.0, assumed=0.0), 0.9) < LEAST


# -- averages over classes -----------------------------------------------------------


def macro_estimate(rng, n, noise):
    """Three classes with noisy scores for each; the areas of all three are 0.9."""
    labels = rng.integers(3, size=n)
    distance = norm.ppf(0.9) * math.sqrt(2)
    histograms = []
    for k in range(3):
        own = (labels == k).astype(int)
        histogram = histogram_of(own, expit(distance * (own - 0.5) + rng.normal(size=n)))
        histograms.append(histogram + noise * rng.normal(size=histogram.shape))
    return macro_average([auc(h, noise, Z) for h in histograms],
                         [auc(h, 0.0, Z) for h in histograms])  # fmt: skip


@pytest.mark.parametrize("epsilon", [1.0, 5.0])
def test_the_average_over_classes_errs_on_the_wide_side_only(epsilon):
    rng, noise = np.random.default_rng(0), noise_of(epsilon)
    estimates = [macro_estimate(rng, 2000, noise) for _ in range(300)]
    assert coverage(estimates, 0.9) >= LEAST
    # Far from [0, 1]: half as wide as any single class's interval, or less, where noise rules.
    assert np.mean([e.high - e.low for e in estimates]) < (0.15 if epsilon == 1.0 else 0.08)


def test_the_average_adds_sampling_in_line_and_noise_in_squares():
    whole = [Estimate(0.8, 0.5, 0.9), Estimate(0.6, 0.2, 0.7)]
    average = macro_average(whole, [Estimate(0.8, 0.8, 0.8), Estimate(0.6, 0.6, 0.6)])
    assert average.value == pytest.approx(0.7)
    assert average.low == pytest.approx(0.7 - math.hypot(0.3, 0.4) / 2)
    assert average.high == pytest.approx(0.7 + math.hypot(0.1, 0.1) / 2)
    assert macro_average(whole, whole).low == pytest.approx(0.7 - (0.3 + 0.4) / 2)


def test_a_hidden_class_widens_the_average_and_hides_its_value():
    known, hidden = Estimate(0.9, 0.85, 0.95), Estimate(math.nan, 0.0, 1.0)
    average = macro_average([known, known, known, hidden], [known, known, known, hidden])
    assert math.isnan(average.value)
    # The hidden area lies anywhere between 0 and 1.
    assert average.low <= (3 * 0.85 + 0.0) / 4 + 1e-12
    assert average.high >= (3 * 0.95 + 1.0) / 4 - 1e-12
    assert macro_average([hidden] * 3, [hidden] * 3).interval == (0.0, 1.0)


# -- what noise hides, and anything that noise may do --------------------------------


def test_figures_that_noise_hides_are_nan_with_the_whole_interval():
    for hits, misses in ((5.0, 3.0), (-50.0, -2.0), (-3.0, 20.0)):
        estimate = proportion(hits, misses, Z, hits_variance=100.0, misses_variance=100.0)
        assert math.isnan(estimate.value) and estimate.interval == (0.0, 1.0)
    empty = proportion(0.0, 0.0, Z, hits_variance=0.0, misses_variance=0.0)
    assert math.isnan(empty.value) and empty.interval == (0.0, 1.0)
    histogram = np.full((2, N_BINS), 10.0)
    assert auc(histogram, 1.0, Z).value == pytest.approx(0.5)
    histogram[1] = 0.1
    assert math.isnan(auc(histogram, 1.0, Z).value)


def test_number_of_rows_covers_the_noise():
    rng = np.random.default_rng(0)
    estimates = [number_of_rows(25.0 + 7.0 * rng.normal(size=(2, 2)), 7.0, Z) for _ in range(RUNS)]
    assert LEAST <= coverage(estimates, 100.0) <= 0.97
    assert number_of_rows(np.full(4, -3.0), 1.0, Z).interval == (0.0, 2 * Z)


COUNTS = st.floats(-1e8, 1e8) | st.integers(-50, 5000).map(float)


def assert_sane(estimate):
    assert 0.0 <= estimate.low <= estimate.high <= 1.0
    if math.isnan(estimate.value):
        assert estimate.interval == (0.0, 1.0)
    else:
        assert estimate.low <= estimate.value <= estimate.high


@given(COUNTS, COUNTS, st.floats(0.0, 1e4), st.integers(1, 100), st.floats(0.01, 5.0))
def test_any_counts_give_a_proportion_and_an_interval(hits, misses, noise, factor, z):
    variance = noise**2
    assert_sane(
        proportion(hits, misses, z, hits_variance=variance, misses_variance=factor * variance)
    )


@example(0, 0.0, 6e-232, 1.0)  # the product of both numbers of rows is 0
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1e3), st.floats(0.0, 1e7), st.floats(0.01, 5.0))
def test_any_histogram_gives_an_area_and_an_interval(seed, noise, n, z):
    rng = np.random.default_rng(seed)
    histogram = n * rng.dirichlet([0.1] * 2 * N_BINS).reshape(2, N_BINS)
    histogram += noise * rng.normal(size=histogram.shape)
    assert_sane(auc(histogram, noise, z))
