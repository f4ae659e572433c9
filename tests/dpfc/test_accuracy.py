"""Accuracy on a small public data set does not silently fall; seeded, so it cannot flicker."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

import dpfc
from dpfc import DPFCClassifier, DPGradientClassifier, DPLeastSquaresClassifier, DPNewtonClassifier

X, Y = load_digits(return_X_y=True)
TEST = np.arange(len(X)) % 4 == 0


@pytest.mark.filterwarnings("ignore::dpfc.exceptions.PrivacyWarning")
@pytest.mark.parametrize(
    ("estimator", "floor"),
    [
        (DPFCClassifier, 0.88),
        (DPGradientClassifier, 0.87),
        (DPLeastSquaresClassifier, 0.84),
        (DPNewtonClassifier, 0.80),
    ],
)
def test_ten_digits_are_learnt_at_epsilon_one(estimator, floor):
    scores = [
        estimator(epsilon=1.0, classes=range(10), random_state=seed)
        .fit(X[~TEST], Y[~TEST])
        .score(X[TEST], Y[TEST])
        for seed in range(3)
    ]
    assert np.mean(scores) >= floor


@pytest.mark.filterwarnings("ignore::dpfc.exceptions.PrivacyWarning")
def test_the_discriminant_shift_moves_thresholds_only():
    options = {"epsilon": 1.0, "classes": range(10), "random_state": 0}
    plain = DPLeastSquaresClassifier(discriminant_shift=0.0, **options).fit(X, Y)
    shifted = DPLeastSquaresClassifier(discriminant_shift=0.5, **options).fit(X, Y)
    np.testing.assert_array_equal(plain.coef_, shifted.coef_)
    assert (shifted.intercept_ <= plain.intercept_).all()
    assert (shifted.intercept_ < plain.intercept_).any()


def test_classes_that_differ_in_length_only_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 2
    X = rng.normal(size=(3000, 20)) * np.where(y == 1, 2.0, 1.0)[:, None]
    options = {"epsilon": 1.0, "classes": [0, 1], "random_state": 0}
    with pytest.warns(UserWarning, match="random_state"):
        model = DPFCClassifier(**options).fit(X[:2000], y[:2000])
        blind = DPFCClassifier(**options, length_scaling=0.0).fit(X[:2000], y[:2000])
    assert model.coef_.shape == (1, 20) and model.length_coef_.shape == (1, 2)
    assert blind.length_coef_ is None
    assert model.score(X[2000:], y[2000:]) > 0.9
    assert blind.score(X[2000:], y[2000:]) < 0.65
    evaluated = dpfc.evaluate_privately(model, X[2000:], y[2000:], epsilon=math.inf)
    assert evaluated.accuracy == pytest.approx(model.score(X[2000:], y[2000:]), abs=0.01)
    model.save(tmp_path / "model.safetensors")
    loaded = dpfc.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))


def test_columns_that_leave_nothing_for_features_are_refused():
    model = DPFCClassifier(intercept_scaling=0.8, length_scaling=0.6)
    with pytest.raises(ValueError, match="leave nothing for the features"):
        model.privacy_plan()
