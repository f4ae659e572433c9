"""The mean's share of the budget: the best of its model, and nothing where nothing is gained."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from dpfc import DPLeastSquaresClassifier
from dpfc.linear.centering import _CENTRED_ENERGY, mean_share


def worth(share, signal_to_noise, n_features):
    """What a class's sum keeps of its signal-to-noise ratio, squared."""
    error = n_features / (signal_to_noise**2 * share)
    return (1 - share) * _CENTRED_ENERGY / (_CENTRED_ENERGY + error)


@pytest.mark.parametrize("n_features", [16, 384, 1664])
@pytest.mark.parametrize("signal_to_noise", [1e2, 1e3, 1e5])
def test_no_other_share_keeps_more_signal(signal_to_noise, n_features):
    share = mean_share(signal_to_noise, n_features)
    shares = np.geomspace(1e-8, 0.9, 4000)
    best = worth(shares, signal_to_noise, n_features).max()
    if best > _CENTRED_ENERGY:
        assert worth(share, signal_to_noise, n_features) >= best * (1 - 1e-9)
    else:
        assert share == 0.0


@given(st.floats(1e-6, 1e12), st.integers(1, 10**5))
def test_a_share_is_one(signal_to_noise, n_features):
    assert 0.0 <= mean_share(signal_to_noise, n_features) < 0.5


def test_more_rows_need_a_smaller_share_and_few_rows_are_not_centred():
    shares = [mean_share(signal, 1280) for signal in (10, 200, 2000, 20_000, 1e6)]
    assert shares[0] == 0.0
    assert all(a > b > 0 for a, b in pairwise(shares[1:]))


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("accountant", ["exact", "pld", "rdp"])
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 16.0])
def test_moved_shares_stay_within_the_target_by_every_accountant(accountant, relation, epsilon):
    X, y = load_digits(return_X_y=True)
    for n in (50, 1797):
        model = DPLeastSquaresClassifier(
            epsilon, classes=range(10), accountant=accountant, neighboring_relation=relation
        ).fit(X[:n], y[:n])
        assert model.privacy_.epsilon_by_accountant[accountant] <= epsilon
        assert (model.center_ is None) == (
            "feature_sum" not in {r.name for r in model.privacy_.releases}
        )


@pytest.mark.parametrize("signal_to_noise", [1e30, 1e200, np.inf])
def test_a_share_is_finite_where_noise_is_next_to_nothing(signal_to_noise):
    assert 0.0 < mean_share(signal_to_noise, 100) < 1e-11
