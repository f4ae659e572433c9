"""Scores of two classes, set by noisy counts: what is found, what is left alone, what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import make_classification
from sklearn.metrics import recall_score

import dpfc
from dpfc.linear.calibration import calibrated, score_edges

EDGES = score_edges(16.0)


def counts_of(logits, y):
    """Rows (n,) by class and bin."""
    bins = np.searchsorted(EDGES, logits)
    return np.stack([np.bincount(bins[y == k], minlength=len(EDGES) + 1) for k in (0, 1)]) * 1.0


def rows_of(slope, intercept, rare=1, n=200_000):
    """Logits without intercept, and labels that follow another slope and intercept."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=n)
    y = (rng.random(n) < expit(slope * logits + intercept)).astype(int)
    return logits, y if rare == 1 else 1 - y


@pytest.mark.parametrize("rare", [0, 1])
@pytest.mark.parametrize("slope, intercept", [(2.0, -5.0), (0.5, -2.5), (1.0, -3.0)])
def test_flat_or_steep_scores_are_set_right_and_a_tenth_of_a_point_buys_recall(
    slope, intercept, rare
):
    logits, y = rows_of(slope, intercept, rare)
    sign = 1.0 if rare == 1 else -1.0
    found, shift = calibrated(counts_of(sign * logits, y), 0.0, EDGES, 0.0)
    assert found == pytest.approx(slope, rel=0.1)
    assert sign * shift > intercept  # towards the rarer class
    best = (slope * logits + intercept > 0) == (y == rare)
    told = (found * logits + sign * shift > 0) == (y == rare)
    assert 0.0 < best.mean() - told.mean() < 0.004
    assert told[y == rare].mean() > best[y == rare].mean() + 0.01


def test_classes_that_are_about_as_frequent_are_left_alone():
    logits, y = rows_of(3.0, 0.3)
    assert calibrated(counts_of(logits, y), 0.0, EDGES, 0.7) == (1.0, 0.7)


def test_counts_that_are_lost_in_noise_change_nothing():
    counts = counts_of(*rows_of(3.0, -4.0, n=1000))
    assert calibrated(counts, 50.0, EDGES, 0.7) == (1.0, 0.7)


def test_whatever_noise_says_the_result_is_finite():
    rng = np.random.default_rng(1)
    for noise in (0.0, 1.0, 1e3, 1e9):
        for _ in range(50):
            counts = noise * rng.normal(size=(2, len(EDGES) + 1)) + rng.integers(1000, size=(2, 1))
            slope, shift = calibrated(counts, noise, EDGES, float(rng.normal()))
            assert math.isfinite(shift)
            assert 0.0 < slope < math.inf


def rare_rows(seed=0, n=6000):
    X, y = make_classification(
        n,
        n_features=20,
        n_informative=6,
        n_redundant=4,
        weights=[0.94],
        flip_y=0.02,
        random_state=5,
    )
    order = np.random.default_rng(seed).permutation(n)
    train, test = order[: n * 2 // 3], order[n * 2 // 3 :]
    return X[train], y[train], X[test], y[test]


LEARNERS = {
    "fc": dpfc.DPFCClassifier,
    "ls": dpfc.DPLeastSquaresClassifier,
    "newton": lambda **o: dpfc.DPNewtonClassifier(n_steps=3, **o),
    "gd": lambda **o: dpfc.DPGradientClassifier(n_steps=20, **o),
}


@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_a_rare_class_is_found_more_often_and_accuracy_is_kept(make):
    X, y, X_test, y_test = rare_rows()
    scores = {}
    for threshold in ("auto", None):
        model = make(epsilon=8.0, classes=[0, 1], threshold=threshold, random_state=0).fit(X, y)
        drawn = [release.name for release in model.privacy_.releases]
        assert ("class_scores" in drawn) == (threshold == "auto")
        found = recall_score(y_test, model.predict(X_test))
        scores[threshold] = (model.score(X_test, y_test), found)
    assert scores["auto"][0] >= scores[None][0] - 0.005
    assert scores["auto"][1] >= scores[None][1] + 0.05


def test_nothing_is_spent_where_it_cannot_help():
    X, y, *_ = rare_rows()
    options = {"epsilon": 1.0, "random_state": 0}

    def spent(model, rows=slice(None), labels=y):
        model.fit(X[rows], labels[rows])
        return "class_scores" in [release.name for release in model.privacy_.releases]

    three = np.where(X[:, 0] > 1.0, 2, y)
    assert spent(dpfc.DPFCClassifier(classes=[0, 1], **options))
    assert not spent(dpfc.DPFCClassifier(classes=[0, 1, 2], **options), labels=three)
    assert not spent(dpfc.DPFCClassifier(classes=[0, 1], fit_intercept=False, **options))
    assert not spent(dpfc.DPFCClassifier(classes=[0, 1], **options), rows=slice(400))
    with pytest.warns(dpfc.PrivacyWarning, match="classes were read"):
        assert spent(dpfc.DPFCClassifier(**options))
    with pytest.warns(dpfc.PrivacyWarning, match="classes were read"):
        assert not spent(dpfc.DPFCClassifier(**options), labels=three)


def test_what_is_not_spent_on_counts_goes_to_the_rest():
    X, y, *_ = rare_rows()
    three = np.where(X[:, 0] > 1.0, 2, y)
    model = dpfc.DPFCClassifier(epsilon=1.0, random_state=0)
    with pytest.warns(dpfc.PrivacyWarning):
        model.fit(X, three)
    stated = dpfc.DPFCClassifier(epsilon=1.0, random_state=0, classes=[0, 1, 2]).fit(X, three)
    for release, other in zip(model.privacy_.releases, stated.privacy_.releases, strict=True):
        assert release.noise_multiplier == pytest.approx(other.noise_multiplier, rel=1e-9)
    assert model.privacy_.mu <= stated.privacy_.mu * (1 + 1e-12)
