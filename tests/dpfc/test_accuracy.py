"""Accuracy on a small public data set does not silently fall; seeded, so it cannot flicker."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

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
