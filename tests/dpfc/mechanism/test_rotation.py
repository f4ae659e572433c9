"""The public rotation: orthogonal, the same everywhere, and it spreads what lies in few columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpfc.mechanism.rotation import PLAIN_COLUMNS, Rotation

SIGNS = "--+--+----+++--++++-+++---+--++-+--+++-++-++++++--++-+-+"
WIDTHS = [1, 5, 36, 37, 40, 64, 100, 387, 771, 1283]


def turned_identity(n_columns):
    """Where each column goes, one a column."""
    columns = np.eye(n_columns)
    Rotation(n_columns).turn(columns, np.empty_like(columns))
    return columns


@pytest.mark.parametrize("n_columns", WIDTHS)
def test_it_is_orthogonal_and_turns_back(n_columns):
    matrix, rotation = turned_identity(n_columns), Rotation(n_columns)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n_columns), atol=1e-14)
    back = rotation.turn_back(torch.from_numpy(matrix.T.copy()))
    np.testing.assert_allclose(back.numpy(), np.eye(n_columns), atol=1e-14)


@pytest.mark.parametrize("n_columns", WIDTHS)
def test_sums_turn_back_on_one_side_or_both(n_columns):
    rng = np.random.default_rng(0)
    matrix, rotation = turned_identity(n_columns), Rotation(n_columns)
    X = rng.normal(size=(3, 20, n_columns))
    turned = X @ matrix.T
    given = torch.from_numpy(turned.copy())
    np.testing.assert_allclose(rotation.turn_back(given).numpy(), X, atol=1e-12)
    assert np.array_equal(given.numpy(), turned)  # the caller's memory is his
    grams = torch.from_numpy(np.swapaxes(turned, 1, 2) @ turned)
    back = rotation.turn_back(grams, both_sides=True).numpy()
    np.testing.assert_allclose(back, np.swapaxes(X, 1, 2) @ X, atol=1e-10)


@pytest.mark.parametrize("n_columns", range(PLAIN_COLUMNS + 1, 2200, 17))
def test_no_single_column_keeps_what_eight_bits_would_cut(n_columns):
    """An entry of a row of length 1 reaches 6/√n; a one-hot row spreads to less, or nearly so."""
    columns = np.zeros((n_columns, 60))
    picked = np.unique(np.r_[0, n_columns - 1, np.linspace(0, n_columns - 1, 58).astype(int)])
    columns[picked, np.arange(len(picked))] = 1.0
    Rotation(n_columns).turn(columns, np.empty_like(columns))
    assert abs(columns).max() <= 6.0 / math.sqrt(n_columns)


def test_few_columns_stay_as_they_are():
    assert np.array_equal(turned_identity(PLAIN_COLUMNS), np.eye(PLAIN_COLUMNS))
    values = torch.ones(2, PLAIN_COLUMNS)
    assert Rotation(PLAIN_COLUMNS).turn_back(values) is values


def test_its_signs_are_the_same_in_every_release():
    """Public, and part of what two sites that add their sums have in common."""
    signs = np.concatenate([mixing.signs[:, 0] for mixing in Rotation(39)._mixings])
    assert "".join("+" if s > 0 else "-" for s in signs) == SIGNS


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_turn_to_the_same_bits_and_rows_by_themselves(dtype):
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(387, 50)).astype(dtype)
    rotation = Rotation(387)
    whole = columns.copy()
    rotation.turn(whole, np.empty_like(whole))
    tensor = torch.from_numpy(columns.copy())
    rotation.turn(tensor, torch.empty_like(tensor))
    assert np.array_equal(tensor.numpy(), whole)
    for i in (0, 31, 49):
        alone = columns[:, i : i + 1].copy()
        rotation.turn(alone, np.empty_like(alone))
        assert np.array_equal(alone[:, 0], whole[:, i])
