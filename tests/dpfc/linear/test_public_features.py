"""Public features: refused before a spend, free, and worth having."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dpfc
from dpfc import DPFCClassifier, DPLeastSquaresClassifier
from dpfc.accounting import PrivacyLedger
from dpfc.linear.public_features import PublicFeatures
from dpfc.mechanism.row_map import RowMap


def rows(n, seed, n_classes=4, n_features=60):
    """Classes in the few directions in which rows vary most."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, n_features + 1) ** -1.0
    means = np.random.default_rng(0).normal(size=(n_classes, n_features)) * scale**1.5
    y = rng.integers(n_classes, size=n)
    return 3.0 + means[y] + rng.normal(size=(n, n_features)) * scale, y


def fit(X, y, seed=0, **options):
    with pytest.warns(dpfc.PrivacyWarning, match="random_state"):
        return DPFCClassifier(classes=range(4), random_state=seed, **options).fit(X, y)


BAD = {
    "one row": (np.ones((1, 60)), "minimum of 2"),
    "another width": (np.ones((5, 59)), "59 features and X has 60"),
    "not finite": (np.full((5, 60), np.nan), "NaN"),
    "one dimension": (np.ones(60), "Expected 2D"),
    "text": ([["a"] * 60] * 3, "could not convert"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_public_features_are_refused_before_anything_is_spent(bad, tmp_path):
    features, words = BAD[bad]
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("rows", epsilon=3.0, delta=1e-5)
    model = DPFCClassifier(
        classes=range(4), public_features=features, ledger=ledger.path, dataset="rows"
    )
    with pytest.raises(ValueError, match=words):
        model.fit(*rows(50, 0))
    assert not hasattr(model, "coef_")
    assert ledger.history("rows") == []


def test_rows_must_be_normalised():
    model = DPFCClassifier(classes=range(4), public_features=np.ones((5, 60)), normalize=False)
    with pytest.raises(ValueError, match="normalize=True"):
        model.fit(*rows(50, 0))


def test_covariance_is_that_of_centred_bounded_rows():
    X, _ = rows(5000, 1)
    public = PublicFeatures(X, 60, RowMap(2.0, intercept_scaling=0.1, nonnegative_root=True))
    unit = RowMap(nonnegative_root=True)
    center = unit(torch.from_numpy(X)).mean(dim=0)
    centred = RowMap(nonnegative_root=True, center=center)(torch.from_numpy(X)).numpy()
    torch.testing.assert_close(public.center, center)
    expected = centred.T @ centred / len(X)
    assert np.linalg.norm(public.covariance().numpy() - expected) < 0.02
    assert float(public.covariance().trace()) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [1.0, 0.1, 0.0])
@pytest.mark.parametrize("linear", [False, True])
def test_rows_that_are_all_alike_tell_nothing(value, linear):
    public = PublicFeatures(np.full((300, 60), value), 60, RowMap(nonnegative_root=True))
    if linear:
        assert torch.equal(public.linear_map(0.1), public.linear_map(0.1).diag().diag())
    torch.testing.assert_close(public.covariance(), torch.eye(60, dtype=torch.float64) / 60)


def test_directions_below_the_threshold_are_damped_and_others_kept():
    public = PublicFeatures(rows(5000, 1)[0], 60, RowMap())
    values, vectors = torch.linalg.eigh(public.covariance())
    factors = (vectors.T @ public.linear_map(0.01) @ vectors).diag()
    expected = values / (values + 0.01)
    torch.testing.assert_close(factors / factors[-1], expected / expected[-1], atol=1e-5, rtol=1e-4)


def test_all_forms_of_public_features_give_the_same_model(make_cache):
    X, y = rows(300, 0)
    public = rows(200, 1)[0]
    forms = [public, public.tolist(), torch.from_numpy(public), make_cache(public, None)]
    first, *others = (fit(X, y, epsilon=1.0, public_features=form) for form in forms)
    for other in others:
        np.testing.assert_array_equal(first.coef_, other.coef_)


def test_a_small_budget_reaches_more_with_public_features_and_costs_the_same():
    X, y = rows(1500, 0)
    X_test, y_test = rows(2000, 2)
    public = rows(1000, 1)[0]
    plain, helped = (
        [fit(X, y, seed, epsilon=0.3, public_features=p) for seed in range(10)]
        for p in (None, public)
    )
    gains = [
        b.score(X_test, y_test) - a.score(X_test, y_test)
        for a, b in zip(plain, helped, strict=True)
    ]
    assert np.mean(gains) > 3 * np.std(gains, ddof=1) / math.sqrt(len(gains)) > 0
    assert helped[0].privacy_.mu == pytest.approx(plain[0].privacy_.mu, rel=1e-9)
    assert "public_features hold no private rows" in helped[0].privacy_.rests_on
    assert "public_features hold no private rows" not in plain[0].privacy_.rests_on


def test_without_noise_they_change_nothing():
    X, y = rows(300, 0)
    options = {"epsilon": math.inf, "classes": range(4)}
    plain = DPFCClassifier(**options).fit(X, y)
    helped = DPFCClassifier(**options, public_features=rows(200, 1)[0]).fit(X, y)
    np.testing.assert_allclose(helped.decision_function(X), plain.decision_function(X))


def test_a_model_comes_back_from_a_file_without_the_public_rows(tmp_path):
    X, y = rows(300, 0)
    model = fit(X, y, epsilon=1.0, public_features=rows(200, 1)[0])
    model.save(tmp_path / "model.safetensors")
    loaded = dpfc.load_model(tmp_path / "model.safetensors")
    assert loaded.public_features is None
    np.testing.assert_array_equal(loaded.linear_map_, model.linear_map_)
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))


def test_a_file_with_another_map_is_refused(tmp_path):
    X, y = rows(300, 0)
    model = fit(X, y, epsilon=1.0, public_features=rows(200, 1)[0])
    model.linear_map_ = model.linear_map_ + 1e-12
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(dpfc.ModelFileError, match="linear map"):
        dpfc.load_model(tmp_path / "model.safetensors")


def test_a_file_with_plain_roots_is_refused(tmp_path, monkeypatch):
    X, y = rows(300, 0)
    monkeypatch.setattr(dpfc.linear.saving, "LINEAR_FORMAT", "dpfc-model-1")
    for root in (True, False):
        path = tmp_path / f"{root}.safetensors"
        fit(X, y, epsilon=1.0, nonnegative_root=root).save(path)
    monkeypatch.undo()
    dpfc.load_model(tmp_path / "False.safetensors")
    with pytest.raises(dpfc.ModelFileError, match="square roots of rows in another way"):
        dpfc.load_model(tmp_path / "True.safetensors")


def test_a_file_from_before_roots_is_read_as_it_was_fitted(tmp_path, monkeypatch):
    X, y = rows(300, 0)
    model = fit(X, y, epsilon=1.0, nonnegative_root=False)
    parameters = model.get_params()
    del parameters["nonnegative_root"]
    monkeypatch.setattr(model, "get_params", lambda deep=True: dict(parameters))
    model.save(tmp_path / "model.safetensors")
    loaded = dpfc.load_model(tmp_path / "model.safetensors")
    assert loaded.nonnegative_root is False
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))


def test_a_search_that_tried_them_says_so():
    X, y = rows(400, 0)
    for grid in ({"public_features": [None, rows(50, 1)[0]]}, {"gram_share": [0.02, 0.1]}):
        search = dpfc.DPSearchCV(DPFCClassifier(classes=range(4)), grid, epsilon=4.0).fit(X, y)
        said = "public_features hold no private rows" in search.privacy_.rests_on
        assert said == ("public_features" in grid)


def test_an_empty_cache_and_half_precision_tensors(make_cache):
    X, y = rows(50, 0)
    empty = make_cache(np.empty((0, 60)), None)
    with pytest.raises(ValueError, match="minimum of 2"):
        DPFCClassifier(classes=range(4), public_features=empty).fit(X, y)
    half = torch.from_numpy(rows(50, 1)[0]).to(torch.bfloat16)
    assert fit(X, y, public_features=half).linear_map_ is not None


def test_other_solvers_have_no_such_parameter():
    assert "public_features" not in DPLeastSquaresClassifier().get_params()
