"""What a statement says when the budget is too small."""

from __future__ import annotations

import numpy as np
import pytest

from dpfc.accounting import gaussian_mu


def clear_classes(n, n_classes):
    """Classes that could not be clearer: one direction each."""
    y = np.arange(n) % n_classes
    return np.eye(n_classes)[y] - 0.5, y


def sentences(model):
    return [s for s in model.privacy_.rests_on if "budget is too small" in s]


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_a_budget_is_too_small_where_noise_exceeds_a_classs_rows(estimator_class, relation):
    factor = 2.0 if relation == "replace_one" else 1.0
    enough = 4 * factor / gaussian_mu(0.1, 1e-5)
    for n, expected in ((int(0.8 * enough), 1), (int(1.3 * enough), 0)):
        X, y = clear_classes(n, 4)
        options = {"classes": range(4), "n_samples": n, "neighboring_relation": relation}
        model = estimator_class(0.1, **options).fit(X, y)
        assert len(sentences(model)) == expected
        if expected:
            assert f"about {n} rows in 4 classes" in sentences(model)[0]
            assert "not about privacy" in sentences(model)[0]


def test_nothing_is_said_where_no_noise_is_asked_for(estimator_class):
    model = estimator_class(np.inf, classes=range(2)).fit(*clear_classes(2, 2))
    assert sentences(model) == []
