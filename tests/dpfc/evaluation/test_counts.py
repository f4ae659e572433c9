"""Counts of scored test rows: sensitivity measured on neighbours, noise of the stated size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from noise_checks import assert_noise
from scipy.special import expit

from dpfc.accounting import PlannedRelease, PrivacyPlan
from dpfc.evaluation.counts import N_BINS, ConfusionCounts, HitCounts, ScoreHistogram
from dpfc.evaluation.scored_rows import IDENTITY
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.noise import SystemNoise
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.rows import ArrayRows

RELATIONS = ["add_or_remove_one", "replace_one"]
K = 3
QUERIES = [HitCounts(), ConfusionCounts(), ScoreHistogram(0), ScoreHistogram(2, -3.0)]


def label_of(query):
    return f"{query.name}{getattr(query, 'k', '')}"


def scored(rng, n):
    """Random scored rows and codes; some probabilities on an edge of the bins, some 0 or 1."""
    probabilities = rng.dirichlet([0.3] * K, size=n)
    edges = ScoreHistogram(0).edges
    special = rng.choice(np.concatenate([edges, [0.0, 1.0]]), size=(n, K))
    probabilities = np.where(rng.random((n, K)) < 0.3, special, probabilities)
    rows = np.column_stack([rng.integers(K, size=n), probabilities])
    return rows, rng.integers(K, size=n)


def grid_of(query):
    return query.grid(IDENTITY, 1 + K)


def total(query, rows, codes):
    counts = query.summand(grid_of(query), K)(rows, codes)
    assert counts.dtype == np.int64
    return counts.reshape(query.shape(1 + K, K))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("query", QUERIES, ids=label_of)
def test_neighbours_move_the_counts_by_exactly_the_stated_sensitivity_at_most(query, relation):
    rng = np.random.default_rng(0)
    stated = query.l2_sensitivity(grid_of(query), relation)
    distances = []
    for _ in range(300):
        rows, codes = scored(rng, 20)
        if relation == "replace_one":
            other_rows, other_codes = rows.copy(), codes.copy()
            new_row, new_code = scored(rng, 1)
            other_rows[7], other_codes[7] = new_row[0], new_code[0]
        else:
            other_rows, other_codes = rows[1:], codes[1:]
        moved = total(query, rows, codes) - total(query, other_rows, other_codes)
        distances.append(float(np.linalg.norm(moved)))
    largest = 1.0 if relation == "add_or_remove_one" else math.sqrt(2)
    assert set(distances) <= {0.0, largest} and largest in distances
    assert largest <= stated <= math.nextafter(largest, math.inf)


@pytest.mark.parametrize("query", QUERIES, ids=label_of)
def test_every_row_is_in_one_cell(query):
    rows, codes = scored(np.random.default_rng(1), 500)
    counts = total(query, rows, codes)
    assert counts.sum() == 500
    parts = sum(total(query, rows[i : i + 7], codes[i : i + 7]) for i in range(0, 500, 7))
    assert np.array_equal(counts, parts)
    assert not total(query, rows[:0], codes[:0]).any()


def test_a_row_without_a_number_for_a_probability_is_in_one_cell():
    rows = np.array([[0.0, math.nan, math.nan, math.nan]])
    for query in QUERIES:
        counts = total(query, rows, np.array([0]))
        assert counts.sum() == counts.max() == 1


def test_cells_are_where_they_are_said_to_be():
    rows = np.array([[1.0, 0.1, 0.8, 0.1], [2.0, 0.2, 0.2, 0.6], [0.0, 0.5, 0.3, 0.2]])
    codes = np.array([1, 0, 0])
    assert total(HitCounts(), rows, codes).tolist() == [2, 1]
    expected = np.zeros((K, K))
    expected[1, 1] = expected[0, 2] = expected[0, 0] = 1.0
    assert np.array_equal(total(ConfusionCounts(), rows, codes), expected)
    histogram = total(ScoreHistogram(0), rows, codes)
    assert histogram.sum(axis=1).tolist() == [1, 2]
    edges = ScoreHistogram(0).edges
    for row, code in zip(rows, codes, strict=True):
        assert histogram[int(code == 0), np.searchsorted(edges, row[1])] >= 1


@pytest.mark.parametrize("center", [0.0, -math.log(999), -math.log(1e6), math.log(1e6)])
def test_bins_ascend_and_are_narrow_around_the_centre(center):
    edges = ScoreHistogram(0, center).edges
    assert edges.shape == (N_BINS - 1,)
    assert (np.diff(edges) > 0).all() and edges[0] > 0 and edges[-1] < 1
    logits = np.log(edges) - np.log1p(-edges)
    assert np.diff(logits).min() < 0.05 and np.argmin(np.diff(logits)) in (14, 15)
    assert edges[15] == pytest.approx(expit(center))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("query", QUERIES, ids=label_of)
def test_noise_has_the_multiplier_times_the_sensitivity(query, relation):
    noise_multiplier, n_draws = 3.0, 1 + 1600 // math.prod(query.shape(1 + K, K))
    rows, codes = scored(np.random.default_rng(2), 50)
    plan = PrivacyPlan(
        1.0, 1e-5, relation, (PlannedRelease("counts", noise_multiplier, n_draws, 1.0, 1.0),)
    )
    source = ArrayRows(rows, codes)
    mechanism = GaussianMechanism(source, IDENTITY, K, PrivateRun(SystemNoise(), plan))
    draws = [mechanism.release("counts", query) for _ in range(n_draws)]
    (record,) = mechanism.run.records
    sigma = noise_multiplier * (1.0 if relation == "add_or_remove_one" else math.sqrt(2))
    assert sigma <= record.noise_standard_deviation <= sigma * (1 + 1e-12)
    assert record.l2_sensitivity == query.l2_sensitivity(grid_of(query), relation)
    exact = torch.from_numpy(total(query, rows, codes))
    noise = torch.stack([draw.value - exact for draw in draws])
    assert torch.equal(noise, noise.round())
    # Rounding adds 1/12 to the variance, but for terms of the order of exp(-2π²σ²).
    assert_noise(noise, math.hypot(sigma, 1 / math.sqrt(12)))
