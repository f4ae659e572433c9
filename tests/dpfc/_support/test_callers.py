"""Warnings about what surrounds a fit, its delta and its budget; and what the statement says."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    PolynomialFeatures,
    StandardScaler,
    TargetEncoder,
)

from dpfc import (
    BudgetWarning,
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    DPSGDClassifier,
    PrivacyWarning,
    evaluate_privately,
    summarize_privately,
)

N = 60
y = np.arange(N) % 2
X = np.random.default_rng(0).normal(size=(N, 4)) + 3.0 * np.eye(4)[y]
MAKERS = {
    "fc": lambda **options: DPFCClassifier(n_steps=1, **options),
    "gd": lambda **options: DPGradientClassifier(n_steps=1, **options),
    "ls": DPLeastSquaresClassifier,
    "newton": lambda **options: DPNewtonClassifier(n_steps=1, **options),
    "network": lambda **options: DPSGDClassifier("linear", n_steps=1, **options),
    "search": lambda **options: DPSearchCV(
        DPLeastSquaresClassifier(classes=options.pop("classes")),
        {"damping": [0.1, 0.2]},
        verbose=False,
        **options,
    ),
}
make_each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def said(call):
    """What a call warns of, by category, and what it gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = call()
    assert all(w.filename for w in caught)
    return value, {
        category: [str(w.message) for w in caught if w.category is category]
        for category in (PrivacyWarning, BudgetWarning)
    }


def plain(make):
    return make(classes=[0, 1], epsilon=50.0)


LEARNING = {
    "scaler": StandardScaler(),
    "pca": PCA(2),
    "best": SelectKBest(k=2),
    "targets": TargetEncoder(),
    "union": FeatureUnion([("own", Normalizer()), ("pca", PCA(2))]),
    "columns": ColumnTransformer([("scale", StandardScaler(), [0, 1])], remainder="passthrough"),
    "nested": Pipeline([("norm", Normalizer()), ("scale", StandardScaler())]),
}
BLIND = {
    "frozen": FrozenEstimator(StandardScaler().fit(X)),
    "norm": Normalizer(),
    "function": FunctionTransformer(np.tanh),
    "polynomial": PolynomialFeatures(2),
    "passed": "passthrough",
    "union": FeatureUnion([("own", Normalizer()), ("rest", "passthrough")]),
}


@make_each
@pytest.mark.parametrize("step", LEARNING)
def test_a_transformer_fitted_on_private_rows_is_named_in_a_warning_and_the_statement(make, step):
    pipeline = Pipeline([("first", Normalizer()), (step, LEARNING[step]), ("model", plain(make))])
    fitted, warned = said(lambda: pipeline.fit(X, y))
    (text,) = [w for w in warned[PrivacyWarning] if "of the pipeline" in w]
    assert f"step {step!r} ({type(LEARNING[step]).__name__})" in text
    (line,) = [s for s in fitted[-1].privacy_.rests_on if "of the pipeline" in s]
    assert line.startswith("NOT COVERED") and f"{step!r}" in line


@make_each
def test_a_step_that_learns_nothing_is_not_warned_about(make):
    fitted, warned = said(lambda: Pipeline([*BLIND.items(), ("model", plain(make))]).fit(X, y))
    assert warned[PrivacyWarning] == []
    assert not any("NOT COVERED" in s for s in fitted[-1].privacy_.rests_on)


def test_a_step_after_the_classifier_is_not_one_before_it():
    from sklearn.feature_selection import SelectFromModel

    chosen = SelectFromModel(plain(MAKERS["ls"]))
    steps = [("early", StandardScaler()), ("chosen", chosen), ("late", StandardScaler())]
    _, warned = said(lambda: Pipeline([*steps, ("model", "passthrough")]).fit(X, y))
    assert ["'early'" in text for text in warned[PrivacyWarning]] == [True]


SEVERAL = {
    "outputs": lambda model: MultiOutputClassifier(model).fit(X, np.c_[y, y]).estimators_[0],
    "one against the rest": lambda model: OneVsRestClassifier(model).fit(X, y).estimators_[0],
    "bagging": lambda model: BaggingClassifier(model, n_estimators=2).fit(X, y).estimators_[0],
    "voting": lambda model: VotingClassifier([("a", model)]).fit(X, y).estimators_[0],
    "calibration": lambda model: (
        CalibratedClassifierCV(model, cv=2).fit(X, y).calibrated_classifiers_[0].estimator
    ),
}


@make_each
@pytest.mark.parametrize("name", SEVERAL)
def test_one_of_several_fits_is_said_to_be_one(make, name):
    call = SEVERAL[name]
    if name == "bagging" and make is MAKERS["search"]:
        with pytest.raises(ValueError, match="random_state must be None"):  # it sets one
            call(plain(make))
        return
    fitted, warned = said(lambda: call(plain(make)))
    assert any(
        "one of several on the same rows" in w or "search or cross-validation" in w
        for w in warned[PrivacyWarning]
    )
    assert any("NOT COVERED" in s for s in fitted.privacy_.rests_on)


@pytest.mark.slow  # starts two processes
def test_workers_see_the_pipeline_as_well():
    bagged = BaggingClassifier(
        make_pipeline(StandardScaler(), plain(MAKERS["ls"])), n_estimators=2, n_jobs=2
    )
    fitted, _ = said(lambda: bagged.fit(X, y))
    lines = fitted.estimators_[0][-1].privacy_.rests_on
    assert any("'standardscaler'" in line for line in lines)
    assert any("sklearn.ensemble" in line for line in lines)


# -- delta and budget ----------------------------------------------------------------


@make_each
def test_a_large_delta_is_warned_about_before_the_spend(make):
    _, warned = said(lambda: make(classes=[0, 1], epsilon=50.0, delta=2e-3).fit(X, y))
    assert sum("delta=0.002 is above 0.001" in w for w in warned[PrivacyWarning]) == 1
    _, warned = said(lambda: make(classes=[0, 1], epsilon=50.0, delta=1e-3).fit(X, y))
    assert not any("is above" in w for w in warned[PrivacyWarning])
    _, warned = said(lambda: make(classes=[0, 1], epsilon=math.inf, delta=0.5).fit(X, y))
    assert warned[PrivacyWarning] == []


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "search"])
@pytest.mark.parametrize("public", [True, False])
def test_a_delta_of_one_over_the_rows_is_warned_about_and_stated(name, public):
    options = {"classes": [0, 1], "epsilon": 50.0, "neighboring_relation": "replace_one"}
    if not public:
        options["neighboring_relation"] = "add_or_remove_one"
    model, warned = said(lambda: MAKERS[name](delta=0.05, **options).fit(X, y))
    counted = public or any(r.name == "count" for r in model.privacy_.releases)
    assert (
        any("not below 1 over the number of rows" in w for w in warned[PrivacyWarning]) == counted
    )
    assert any("1 over the number" in s for s in model.privacy_.rests_on) == counted
    model, warned = said(lambda: MAKERS[name](delta=1e-5, **options).fit(X, y))
    assert warned[PrivacyWarning] == []


def test_evaluations_and_summaries_warn_of_their_delta():
    model = plain(MAKERS["ls"]).fit(X, y)
    for call in (
        lambda delta: evaluate_privately(model, X, y, epsilon=50.0, delta=delta),
        lambda delta: summarize_privately(X, epsilon=50.0, delta=delta),
        lambda delta: summarize_privately(
            X, y, epsilon=50.0, delta=delta, statistics=["class_counts"], classes=[0, 1]
        ),
    ):
        result, warned = said(lambda call=call: call(0.05))
        assert [("is above" in w, "not below 1" in w) for w in warned[PrivacyWarning]] == [
            (True, False),
            (False, True),
        ]
        assert any("1 over the number" in s for s in result.privacy_.rests_on)
        assert said(lambda call=call: call(1e-5))[1][PrivacyWarning] == []


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "search"])
def test_a_budget_too_small_is_a_warning_that_says_what_would_do(name):
    small = {"classes": range(40), "epsilon": 0.01, "n_samples": N}
    model, warned = said(lambda: MAKERS[name](**small).fit(X, y))
    (text,) = warned[BudgetWarning]
    assert "about 60 rows in 40 classes" in text and "are the least" in text
    assert "epsilon" in text
    assert f"(not about privacy) {text.rstrip('.')}" in model.privacy_.rests_on
    enough = {"classes": [0, 1], "epsilon": 50.0, "n_samples": N}
    assert said(lambda: MAKERS[name](**enough).fit(X, y))[1][BudgetWarning] == []


def test_the_epsilon_that_would_do_is_no_longer_warned_about():
    options = {"classes": range(4), "n_samples": N}
    _, warned = said(lambda: DPLeastSquaresClassifier(0.05, **options).fit(X, y))
    needed = float(warned[BudgetWarning][0].rstrip(".").split("have to be ")[1].split()[0])
    assert 0.05 < needed < 10
    enough = DPLeastSquaresClassifier(1.06 * needed, **options)
    assert said(lambda: enough.fit(X, y))[1][BudgetWarning] == []


@make_each
def test_a_warning_points_at_the_line_of_the_user(make):
    with pytest.warns(PrivacyWarning, match="is above") as caught:
        make(classes=[0, 1], epsilon=50.0, delta=0.002).fit(X, y)
    assert {w.filename for w in caught if "is above" in str(w.message)} == {__file__}


@make_each
def test_the_statement_says_that_names_of_columns_stand_in_the_model(make):
    model = plain(make).fit(pd.DataFrame(X, columns=list("abcd")), y)
    assert any("names of the columns" in s for s in model.privacy_.rests_on)
    assert not any("names of the columns" in s for s in plain(make).fit(X, y).privacy_.rests_on)
