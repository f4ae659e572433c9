"""Nothing but releases decides: with the same releases, any data give the same model.

Sums of private rows are replaced by fixed numbers. If a default, a share, a stopping rule or
a sentence of the statement looked at the rows, their number or their labels in any other
way, two data sets would give two results.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpfc import DPFCClassifier
from dpfc.mechanism.bounded_sums import BoundedRows

RELATIONS = ["add_or_remove_one", "replace_one"]


def data(n, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.gamma(0.5, size=(n, 12)), rng.integers(3, size=n)


def fit(estimator_class, X, y, monkeypatch, size, **options):
    """Fit with releases that stand for data of `size` rows."""
    rng = np.random.default_rng(7)

    def fixed(self, query):
        import torch

        shape = query.shape(self.grid.n_columns, self.n_classes)
        if query.name == "count":
            return torch.full(shape, size)
        unit = query.unit(query.grid(self.row_map, self.source.n_features))
        values = rng.normal(size=shape) * size / 10 / unit
        values = values + values.swapaxes(-1, -2) if query.symmetric else values
        return torch.from_numpy(values).round().long()

    monkeypatch.setattr(BoundedRows, "sum", fixed)
    model = estimator_class(classes=range(3), random_state=3, **options)
    with pytest.warns(UserWarning, match="random_state"):
        return model.fit(X, y)


def published(model):
    names = ("coef_", "intercept_", "scale_", "center_", "linear_map_", "length_coef_")
    arrays = [getattr(model, name) for name in names]
    return [None if a is None else a.tolist() for a in arrays], model.privacy_.to_json()


@pytest.mark.parametrize("size", [5, 300, 100_000])
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
def test_what_is_published_depends_on_releases_only(estimator_class, monkeypatch, size, epsilon):
    one = fit(estimator_class, *data(40, 0), monkeypatch, size, epsilon=epsilon)
    other = fit(estimator_class, *data(711, 1, -3.0), monkeypatch, size, epsilon=epsilon)
    assert published(one) == published(other)


@pytest.mark.parametrize("size", [5, 300, 100_000])
def test_the_scale_of_columns_depends_on_releases_only(estimator_class, monkeypatch, size):
    options = {"epsilon": 2.0, "scale": "private"}
    one = fit(estimator_class, *data(40, 0), monkeypatch, size, **options)
    other = fit(estimator_class, *data(711, 1, -3e4), monkeypatch, size, **options)
    assert (one.scale_ is None) == (size == 5)
    assert published(one) == published(other)


@pytest.mark.parametrize("relation", RELATIONS)
def test_neither_do_public_features_let_anything_else_in(monkeypatch, relation):
    options = {
        "epsilon": 0.5,
        "public_features": data(30, 5)[0],
        "neighboring_relation": relation,
    }
    one = fit(DPFCClassifier, *data(64, 0), monkeypatch, 300, **options)
    other = fit(DPFCClassifier, *data(64, 1, -3.0), monkeypatch, 300, **options)
    assert one.linear_map_ is not None
    assert published(one) == published(other)


def test_the_share_of_the_mean_follows_the_noisy_count_and_not_the_data(monkeypatch):
    X, y = data(60, 0)
    shares = []
    for size in (5, 300, 100_000):
        model = fit(DPFCClassifier, X, y, monkeypatch, size, epsilon=1.0)
        drawn = {r.name: r.share_of_budget for r in model.privacy_.releases}
        shares.append(drawn.get("feature_sum", 0.0))
        assert math.fsum(drawn.values()) == pytest.approx(1.0)
    assert shares[0] > shares[1] > shares[2] > 0.0
