"""Weights of rows and classes as a user brings them: what they solve, and who passes them on."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import dpfc
from dpfc import DPFCClassifier, DPLeastSquaresClassifier, DPNewtonClassifier, DPSearchCV
from dpfc.mechanism.groups import balanced_factors

EXACT = {"epsilon": math.inf, "center": False, "nonnegative_root": False}


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=200)
    return rng.normal(size=(200, 4)) + 2.0 * np.eye(4)[y], y


@pytest.fixture
def weights(rows):
    return np.random.default_rng(1).integers(4, size=len(rows[1])).astype(float)


def repeated(rows, weights):
    times = weights.astype(int)
    return np.repeat(rows[0], times, axis=0), np.repeat(rows[1], times)


@pytest.mark.parametrize(
    "make",
    [
        DPLeastSquaresClassifier,
        lambda **o: DPFCClassifier(residual_clip_norm=math.inf, **o),
        lambda **o: DPNewtonClassifier(residual_clip_norm=math.inf, **o),
    ],
    ids=["ls", "fc", "newton"],
)
def test_without_noise_a_weight_is_a_row_that_comes_so_often(make, rows, weights):
    model = make(classes=range(3), max_sample_weight=3.0, **EXACT)
    weighed = model.fit(*rows, sample_weight=weights).coef_
    often = make(classes=range(3), **EXACT).fit(*repeated(rows, weights)).coef_
    np.testing.assert_allclose(weighed, often, rtol=1e-6, atol=1e-9)


def test_without_noise_least_squares_solves_the_weighted_normal_equations(rows, weights):
    options = EXACT | {"fit_intercept": False, "l2_regularization": 0.5}
    model = DPLeastSquaresClassifier(classes=range(3), max_sample_weight=3.0, **options)
    model.fit(*rows, sample_weight=weights)
    X = rows[0] / np.linalg.norm(rows[0], axis=1, keepdims=True)
    gram = X.T @ (weights[:, None] * X) + 0.5 * np.eye(4)
    expected = np.linalg.solve(gram, X.T @ (weights[:, None] * np.eye(3)[rows[1]])).T
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-8)


def test_weights_of_classes_are_weights_of_their_rows(rows):
    by_class = {0: 1.0, 1: 0.5, 2: 2.0}
    model = DPLeastSquaresClassifier(classes=range(3), class_weight=by_class, **EXACT).fit(*rows)
    own = np.array([by_class[label] for label in rows[1]])
    other = DPLeastSquaresClassifier(classes=range(3), max_sample_weight=2.0, **EXACT)
    np.testing.assert_allclose(model.coef_, other.fit(*rows, sample_weight=own).coef_, rtol=1e-9)


@pytest.mark.parametrize("names", [[0, 1, 2], ["a", "b", "c"]])
def test_a_model_file_keeps_weights_by_class(tmp_path, rows, names):
    by_class = {names[0]: 1.0, names[2]: 2.5}
    y = np.asarray(names)[rows[1]]
    model = DPFCClassifier(classes=names, class_weight=by_class).fit(rows[0], y)
    model.save(tmp_path / "model.safetensors")
    assert dpfc.load_model(tmp_path / "model.safetensors").class_weight == by_class


@pytest.mark.parametrize(
    "bad, said",
    [
        (-1.0, "sample_weight"),
        (math.nan, "sample_weight"),
        (math.inf, "sample_weight"),
        (4.0, "max_sample_weight"),
    ],
)
def test_bad_weights_are_refused_before_a_spend(tmp_path, rows, bad, said):
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("rows", epsilon=1.0, delta=1e-5)
    options = {"classes": range(3), "ledger": ledger, "dataset": "rows"}
    model = DPFCClassifier(max_sample_weight=3.0, **options)
    own = np.ones(len(rows[1]))
    own[7] = bad
    for wrong in (own, own[:-1], np.zeros(len(own))):
        with pytest.raises(ValueError, match="weight") as refused:
            model.fit(*rows, sample_weight=wrong)
        assert said in str(refused.value) or wrong is not own
        assert not hasattr(model, "coef_")
    assert not ledger.history("rows")


def test_scikit_learn_routes_weights_and_groups_to_a_fit(rows, weights):
    groups = np.arange(len(weights)) // 2
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", dpfc.PrivacyWarning)  # of seeds
        own = DPFCClassifier(classes=range(3), max_sample_weight=3.0, random_state=0)
        asked = sklearn.clone(own).set_fit_request(sample_weight=True, groups=True)
        pipeline = make_pipeline(Normalizer(), asked)
        pipeline.fit(*rows, sample_weight=weights, groups=groups)
        own.fit(Normalizer().fit_transform(rows[0]), rows[1], sample_weight=weights, groups=groups)
    np.testing.assert_array_equal(pipeline[-1].coef_, own.coef_)
    assert "all rows of a person" in " ".join(pipeline[-1].privacy_.to_text().split())


def test_scikit_learn_routes_weights_and_groups_to_a_search(rows, weights):
    groups = np.arange(len(weights)) // 2
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", dpfc.PrivacyWarning)  # of seeds
        model = DPFCClassifier(classes=range(3), max_sample_weight=3.0, n_steps=3)
        search = DPSearchCV(model, {"logit_noise": [0.5, 1.0]}, epsilon=5.0, random_state=0)
        search.set_fit_request(sample_weight=True, groups=True)
        pipeline = make_pipeline(Normalizer(), search)
        pipeline.fit(*rows, sample_weight=weights, groups=groups)
    assert "all rows of a person" in " ".join(pipeline[-1].privacy_.to_text().split())


def test_a_class_that_would_not_count_beside_another_is_warned_of(rows):
    model = DPFCClassifier(classes=range(3), class_weight={0: 121.0})
    with pytest.warns(UserWarning, match="does not count at all"):
        model.fit(*rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", dpfc.BudgetWarning)
        DPFCClassifier(classes=range(3), class_weight={0: 119.0, 1: 0.0}).fit(*rows)


@pytest.mark.parametrize("noise", [0.0, 5.0, 1e6])
@pytest.mark.parametrize("counts", [[1e6, 10.0], [1e6, -50.0], [-3.0, -4.0], [500.0, 500.0]])
def test_balanced_weights_stay_in_bounds_whatever_noise_says(counts, noise):
    factors = balanced_factors(np.array(counts), noise)
    assert (factors > 0.0).all()
    assert factors.max() <= 40.0 * factors.min() * (1 + 1e-12)
    assert factors.min() <= 1.0 <= factors.max() <= 20.5 + 1e-9


def test_balanced_weights_are_scikit_learns_where_counts_are_known():
    counts = np.array([800.0, 150.0, 50.0])
    np.testing.assert_allclose(balanced_factors(counts, 1.0), 1000.0 / (3 * counts))
