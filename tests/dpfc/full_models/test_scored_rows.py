"""Private evaluation of networks: exact without noise, and each row scored by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix, roc_auc_score

from dpfc import DPSGDClassifier, evaluate_privately
from dpfc.full_models.scored_rows import ScoredNetworkRows

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def model(request):
    network = DPSGDClassifier(request.param, math.inf, classes=range(10), n_steps=40)
    return network.fit(X[:600], Y[:600])


def scored(model, rows, labels):
    return np.concatenate([block for block, _ in ScoredNetworkRows(model, rows, labels).blocks(64)])


def test_without_noise_figures_are_those_of_the_network(model):
    rows, labels = X[600:900], Y[600:900]
    result = evaluate_privately(
        model, rows, labels, epsilon=math.inf, metrics=("accuracy", "confusion_matrix", "auc")
    )
    predicted = model.predict(rows)
    assert result.accuracy == model.score(rows, labels)
    np.testing.assert_array_equal(result.confusion_matrix, confusion_matrix(labels, predicted))
    expected = roc_auc_score(labels, model.predict_proba(rows), multi_class="ovr")
    assert result.auc == pytest.approx(expected, abs=0.01)


def test_figures_are_released_with_noise_and_a_statement(model):
    result = evaluate_privately(model, X[600:], Y[600:], epsilon=2.0)
    assert abs(result.accuracy - model.score(X[600:], Y[600:])) < 0.1
    assert result.privacy_.private and result.privacy_.kind == "evaluation"
    assert result.privacy_.estimator == "evaluate_privately(DPSGDClassifier)"


def test_what_is_said_of_a_row_depends_on_that_row_alone(model):
    """To the last bit: else one removed row could tip the predictions of others."""
    rows, labels = X[600:800], Y[600:800]
    together = scored(model, rows, labels)
    kept = np.flatnonzero(np.random.default_rng(0).random(len(rows)) < 0.5)
    assert np.array_equal(scored(model, rows[kept], labels[kept]), together[kept])
    order = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(scored(model, rows[order], labels[order]), together[order])


def test_rows_of_another_shape_and_models_without_a_fit_are_refused(model):
    with pytest.raises(ValueError, match=r"rows of shape \(10,\).* expecting \(64,\)"):
        evaluate_privately(model, X[:5, :10], Y[:5], epsilon=1.0)
    with pytest.raises(NotFittedError):
        evaluate_privately(DPSGDClassifier(), X, Y, epsilon=1.0)
    with pytest.raises(ValueError, match="labels that are not in classes"):
        evaluate_privately(model, X[:5], [10] * 5, epsilon=1.0)


def test_a_row_without_a_finite_score_counts_as_one_row_and_spoils_no_sum():
    module = torch.nn.Sequential(torch.nn.Linear(64, 10, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(-9, 9, 640).view(10, 64))
    linear = DPSGDClassifier(
        module,
        math.inf,
        classes=range(10),
        n_steps=1,
        learning_rate=1e-9,
        optimizer="sgd",
        input_bound=3.3e38,
    ).fit(X[:60], Y[:60])
    huge = np.concatenate([X[:20], np.full((1, 64), 3e38, np.float32)])
    huge[-1, ::2] *= -1
    assert not np.isfinite(linear.decision_function(huge[-1:])).all()
    rows = scored(linear, huge, Y[:21])
    assert np.isfinite(rows).all() and np.array_equal(rows[:20], scored(linear, X[:20], Y[:20]))
    assert rows[-1, 1:].sum() == pytest.approx(1)
    result = evaluate_privately(linear, huge, Y[:21], epsilon=math.inf, metrics=("auc",))
    assert math.isfinite(result.auc)
