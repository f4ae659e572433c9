"""What a model says about a row depends on that row alone, to the last bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from dpfc import DPGradientClassifier
from dpfc.evaluation.scored_rows import ScoredRows, open_test_rows
from dpfc.mechanism.rows import ArrayRows, CacheRows


def scored(model, X, block_rows=4096):
    source = ArrayRows(X, np.zeros(len(X), dtype=np.int64))
    blocks = [rows for rows, _ in ScoredRows(source, model).blocks(block_rows)]
    return np.concatenate(blocks)


def data(n_classes, n=600, width=37):
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=n)
    X = rng.normal(size=(n, width)) + 2.0 * np.eye(width)[y]
    return X * 10.0 ** rng.uniform(-3, 3, size=(n, 1)), y


@pytest.fixture(scope="module", params=[2, 3, 9])
def n_classes(request):
    return request.param


def assert_rows_stand_alone(model, X):
    whole = scored(model, X)  # NaN, where scores overflow, is equal to NaN here
    np.testing.assert_array_equal(whole[1:], scored(model, X[1:]))
    np.testing.assert_array_equal(whole, scored(model, X, block_rows=7))
    alone = np.concatenate([scored(model, X[i : i + 1]) for i in range(40)])
    np.testing.assert_array_equal(whole[:40], alone)
    order = np.random.default_rng(1).permutation(len(X))
    np.testing.assert_array_equal(whole[order], scored(model, X[order]))


def test_a_row_is_scored_alike_in_any_company(estimator_class, n_classes):
    X, y = data(n_classes)
    model = estimator_class(epsilon=5.0, classes=range(n_classes)).fit(X, y)
    assert_rows_stand_alone(model, X)


def test_rows_near_a_tie_are_scored_alike_in_any_company(n_classes):
    """Rows on which a plain matrix product rounds to one side or to the other."""
    X, y = data(n_classes, n=200)
    model = DPGradientClassifier(epsilon=5.0, classes=range(n_classes), center=False).fit(X, y)
    model.intercept_ = np.zeros_like(model.intercept_)
    normal = model.coef_[0] - (model.coef_[1] if n_classes > 2 else 0.0)
    X -= np.outer(X @ normal, normal) / (normal @ normal)
    assert_rows_stand_alone(model, X)


def test_rows_without_a_bound_are_scored_alike_too(n_classes):
    X, y = data(n_classes, n=100)
    parameters = {"l2_clip_norm": np.inf, "normalize": False, "n_steps": 3}
    model = DPGradientClassifier(epsilon=np.inf, classes=range(n_classes), **parameters).fit(X, y)
    X[0], X[1], X[2], X[3] = 1e300, 5e-324, 0.0, 1e308
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of overflow would tell of a row
        assert_rows_stand_alone(model, X)
    predicted = model.classes_[scored(model, X)[:, 0].astype(int)]
    finite = np.arange(len(X)) != 3
    assert accuracy_score(model.predict(X)[finite], predicted[finite]) == 1.0


def test_scores_agree_with_the_model(estimator_class, n_classes):
    X, y = data(n_classes)
    model = estimator_class(epsilon=5.0, classes=range(n_classes)).fit(X, y)
    rows = scored(model, X)
    assert (model.classes_[rows[:, 0].astype(int)] == model.predict(X)).all()
    np.testing.assert_allclose(rows[:, 1:], model.predict_proba(X), atol=1e-4)


def test_the_centre_is_public_and_finite(estimator_class, n_classes):
    X, y = data(n_classes)
    model = estimator_class(epsilon=5.0, classes=range(n_classes)).fit(X, y)
    source = ArrayRows(X, y)
    centers = ScoredRows(source, model).central_logits
    assert (centers == ScoredRows(ArrayRows(X[:3], y[:3]), model).central_logits).all()
    assert centers.shape == (n_classes,) and np.isfinite(centers).all()
    model.intercept_ = model.intercept_ + 1e6 * np.arange(1, 1 + len(model.intercept_))
    assert np.isfinite(ScoredRows(source, model).central_logits).all()


def test_test_rows_come_as_arrays_lists_tensors_or_caches(three_classes, make_cache):
    X, y = three_classes
    model = DPGradientClassifier(classes=["a", "b", "c"]).fit(X, np.array(["a", "b", "c"])[y])
    names = np.array(["a", "b", "c"])[y]
    for features, labels in ((X, names), (X.tolist(), names.tolist()), (torch.from_numpy(X), names),
                             (X.astype(np.float16), names.astype(object))):  # fmt: skip
        rows = open_test_rows(model, features, labels)
        assert rows.codes.tolist() == y.tolist() and rows.n_samples == 90
    cached = open_test_rows(model, make_cache(X, y, ["a", "b", "c"]), None)
    assert cached.codes.tolist() == y.tolist()


def test_a_cache_that_is_streamed_is_scored_like_an_array(three_classes, make_cache):
    X, y = three_classes
    model = DPGradientClassifier(classes=range(3)).fit(X, y)
    streamed = CacheRows(make_cache(X, y), model.classes_)
    blocks = [rows for rows, _ in ScoredRows(streamed, model).blocks(16)]
    assert np.array_equal(np.concatenate(blocks), scored(model, X))
