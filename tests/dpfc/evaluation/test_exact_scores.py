"""Scores that depend on one row alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.evaluation.scored_rows import exact_scores


def rows_and_weights(seed, n_rows, width, bound, size):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, width))
    rows *= bound / np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows), torch.from_numpy(size * rng.normal(size=(10, width)))


@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 2000),
    bound=st.sampled_from([1e-30, 0.3, 1.0, 7.0, 1e30]),
    size=st.sampled_from([1e-250, 1e-12, 1.0, 1e12, 1e250]),
)
@settings(max_examples=40, deadline=None)
def test_a_row_has_the_same_scores_at_any_place_of_any_block(seed, width, bound, size):
    rows, coef = rows_and_weights(seed, 67, width, bound, size)
    whole = exact_scores(rows, coef, bound)
    for first, last in [(0, 1), (1, 67), (5, 12), (66, 67)]:
        assert torch.equal(exact_scores(rows[first:last], coef, bound), whole[first:last])
    # In any order of the sum as well: all of its terms are whole numbers.
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(exact_scores(rows[:, order], coef[:, order], bound), whole)


def test_plain_products_do_not_keep_that_promise():
    rows, coef = rows_and_weights(0, 67, 1999, 1.0, 1.0)
    order = torch.randperm(1999, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(rows[:, order] @ coef[:, order].T, rows @ coef.T)


@pytest.mark.parametrize("bound", [1.0, 3.0, 1e5])
@pytest.mark.parametrize("size", [1e-200, 2.0, 1e200])
def test_scores_are_close_to_the_plain_ones(bound, size):
    rows, coef = rows_and_weights(1, 50, 1280, bound, 1.0)
    largest = bound * float(torch.linalg.vector_norm(coef, dim=1).max())
    difference = (exact_scores(rows, size * coef, bound) / size - rows @ coef.T).abs().max()
    assert 0 < difference < 2**-22 * largest


def test_zero_weights_and_unbounded_rows_are_plain():
    rows, coef = rows_and_weights(2, 5, 8, 1.0, 1.0)
    assert not exact_scores(rows, torch.zeros_like(coef), 1.0).any()
    assert torch.equal(exact_scores(rows, coef, math.inf), rows @ coef.T)
