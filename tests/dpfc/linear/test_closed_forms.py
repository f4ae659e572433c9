"""Without noise and bounds, every solver ends where its problem's solution is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
)

OPEN = {
    "epsilon": math.inf,
    "normalize": False,
    "center": False,
    "l2_clip_norm": math.inf,
    "fit_intercept": False,
}
UNCLIPPED = {**OPEN, "residual_clip_norm": math.inf}
RHO = 2.0


@pytest.fixture(params=[2, 3], ids=["binary", "three classes"])
def data(request):
    rng = np.random.default_rng(request.param)
    n_classes = request.param
    y = np.arange(120) % n_classes
    X = np.eye(5)[y] + rng.normal(size=(120, 5)) * [1, 2, 0.5, 1, 1]
    return X, y, n_classes


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


def rooted(X):
    """Rows without a negative entry become their square roots, less 3/4 of their mean."""
    roots = np.sqrt(np.abs(X))
    roots -= 0.75 * roots.mean(axis=1, keepdims=True)
    return np.where((X >= 0).all(axis=1, keepdims=True), roots, X)


def pairs_to_one(weights):
    """Two classes keep the difference of their weights."""
    return weights[1:] - weights[:1] if len(weights) == 2 else weights


def optimum(X, y, n_classes, penalty, one_versus_rest):
    """scikit-learn's minimum of the sum of losses + penalty/2 ||W||²."""

    def fit(labels, strength):
        model = LogisticRegression(
            C=1.0 / strength, fit_intercept=False, tol=1e-12, max_iter=10_000
        )
        return model.fit(X, labels).coef_

    if n_classes == 2:
        # Softmax weights (-w/2, w/2) have half the penalty of w.
        return fit(y, penalty if one_versus_rest else penalty / 2)
    if one_versus_rest:
        return np.vstack([fit(y == k, penalty) for k in range(n_classes)])
    return fit(y, penalty)


# -- least squares -------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1e-6, 1.0, 100.0])
def test_least_squares_is_ridge_regression_on_one_hot_labels(data, penalty):
    X, y, n_classes = data
    model = DPLeastSquaresClassifier(**OPEN, classes=range(n_classes), l2_regularization=penalty)
    model.fit(X, y)
    gram = X.T @ X + penalty * np.eye(X.shape[1])
    expected = np.linalg.solve(gram, X.T @ np.eye(n_classes)[y]).T
    assert_close(model.coef_, pairs_to_one(expected), 1e-6)
    assert not model.intercept_.any()


def test_least_squares_without_a_penalty_gives_the_shortest_solution(data):
    X, y, n_classes = data
    X = np.hstack([X, X[:, :2]])
    model = DPLeastSquaresClassifier(**OPEN, classes=range(n_classes)).fit(X, y)
    expected = (np.linalg.pinv(X) @ np.eye(n_classes)[y]).T
    assert_close(model.coef_, pairs_to_one(expected), 1e-6)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_weighted_least_squares_solves_one_system_a_class(data, alpha):
    X, y, n_classes = data
    model = DPLeastSquaresClassifier(
        **OPEN, classes=range(n_classes), l2_regularization=3.0, alpha=alpha
    ).fit(X, y)
    ridge = 3.0 * np.eye(X.shape[1])
    expected = [
        np.linalg.solve(X[y == k].T @ X[y == k] + alpha * X.T @ X + ridge, X[y == k].sum(axis=0))
        for k in range(n_classes)
    ]
    assert_close(model.coef_, pairs_to_one(np.array(expected)), 1e-6)


def test_a_constant_column_is_a_penalized_intercept(data):
    X, y, n_classes = data
    options = {**OPEN, "fit_intercept": True}
    model = DPLeastSquaresClassifier(
        **options, classes=range(n_classes), l2_regularization=1.0, intercept_scaling=0.5
    ).fit(X, y)
    wide = np.hstack([X, np.full((len(X), 1), 0.5)])
    expected = np.linalg.solve(wide.T @ wide + np.eye(6), wide.T @ np.eye(n_classes)[y]).T
    assert_close(model.coef_, pairs_to_one(expected[:, :-1]), 1e-6)
    assert_close(model.intercept_, pairs_to_one(0.5 * expected[:, -1:])[:, 0], 1e-6)


def test_normalizing_and_centring_are_what_a_pipeline_would_do(data):
    X, y, n_classes = data
    model = DPLeastSquaresClassifier(
        math.inf, classes=range(n_classes), l2_regularization=1.0, fit_intercept=False
    ).fit(X, y)
    assert 0 < (X >= 0).all(axis=1).sum() < len(X)
    bounded = rooted(X) / np.linalg.norm(rooted(X), axis=1, keepdims=True)
    centred = bounded - bounded.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = np.linalg.solve(centred.T @ centred + np.eye(5), centred.T @ np.eye(n_classes)[y]).T
    assert_close(model.center_, bounded.mean(axis=0), 1e-6)
    assert_close(model.coef_, pairs_to_one(expected), 1e-6)
    scores = centred @ pairs_to_one(expected).T
    decision = model.decision_function(X)
    assert_close(decision.reshape(scores.shape), scores, 1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_prediction_uses_rows_as_fitting_did(data, normalize):
    X, y, n_classes = data
    model = DPLeastSquaresClassifier(
        math.inf, classes=range(n_classes), l2_regularization=1.0, l2_clip_norm=2.0,
        intercept_scaling=0.3, normalize=normalize,
    ).fit(X, y)  # fmt: skip
    rows = rooted(X) if normalize else X
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bounded = rows * (2.0 / norms if normalize else np.minimum(1.0, 2.0 / norms))
    centred = bounded - model.center_
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    centred *= 2.0 / norms if normalize else np.minimum(1.0, 2.0 / norms)
    if normalize:
        wide = np.hstack([centred * math.sqrt(1 - 0.09), np.full((len(X), 1), 0.6)])
    else:
        wide = np.hstack([centred, np.full((len(X), 1), 0.3)])
    weights = np.linalg.solve(wide.T @ wide + np.eye(6), wide.T @ np.eye(n_classes)[y]).T
    expected = wide @ pairs_to_one(weights).T
    assert_close(model.decision_function(X).reshape(expected.shape), expected, 1e-6)


# -- logistic regression -------------------------------------------------------------


def test_newton_reaches_the_one_versus_rest_optimum(data):
    X, y, n_classes = data
    model = DPNewtonClassifier(
        **UNCLIPPED, classes=range(n_classes), l2_regularization=RHO, n_steps=25
    ).fit(X, y)
    assert_close(model.coef_, optimum(X, y, n_classes, RHO, one_versus_rest=True), 1e-6)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_feature_covariance_reaches_the_logistic_optimum(data, loss):
    X, y, n_classes = data
    model = DPFCClassifier(
        **UNCLIPPED,
        classes=range(n_classes),
        l2_regularization=RHO,
        loss=loss,
        step_size=1.0,
        n_steps=400,
    ).fit(X, y)
    expected = optimum(X, y, n_classes, RHO, one_versus_rest=loss == "sigmoid")
    assert_close(model.coef_, expected, 1e-6)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_first_order_training_reaches_the_logistic_optimum(data, loss, optimizer):
    X, y, n_classes = data
    model = DPGradientClassifier(
        **UNCLIPPED,
        classes=range(n_classes),
        l2_regularization=RHO,
        loss=loss,
        optimizer=optimizer,
        learning_rate=0.1 if optimizer == "sgd" else 0.02,
        n_steps=900,
    ).fit(X, y)
    expected = optimum(X, y, n_classes, RHO, one_versus_rest=loss == "sigmoid")
    assert_close(model.coef_, expected, 1e-6)


def test_a_stated_number_of_rows_scales_the_steps(data):
    X, y, n_classes = data
    options = {**UNCLIPPED, "classes": range(n_classes), "n_steps": 1, "learning_rate": 1.0}
    stated = DPGradientClassifier(**options, n_samples=1200).fit(X, y)
    counted = DPGradientClassifier(**options).fit(X, y)
    assert_close(10 * stated.coef_, counted.coef_, 1e-12)
