"""What surrounds a private fit either does no more with the rows, or is named in a warning."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
)
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    scale,
)
from sklearn.semi_supervised import SelfTrainingClassifier

from dpfc import DPLeastSquaresClassifier, DPSGDClassifier, PrivacyWarning

N = 60
y = np.arange(N) % 2
X = np.random.default_rng(0).normal(size=(N, 4)) + 3.0 * np.eye(4)[y]
FRAME = pd.DataFrame(X, columns=list("abcd"))
WHOLE = FRAME.round().clip(-9, 9)


def private():
    return DPLeastSquaresClassifier(classes=[0, 1], epsilon=50.0)


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = call()
    return value, [str(w.message) for w in caught if w.category is PrivacyWarning]


class Wrapped(ClassifierMixin, BaseEstimator):
    """Somebody's own estimator around a classifier."""

    def __init__(self, classifier=None):
        self.classifier = classifier

    def fit(self, X, y):
        self.classifier_ = clone(self.classifier).fit(X, y)
        self.classes_ = self.classifier_.classes_
        return self

    def predict(self, X):
        return self.classifier_.predict(X)


def of_columns(step, rest="drop"):
    return ColumnTransformer([("s", step, ["a", "b"])], remainder=rest)


CATEGORIES = [np.arange(-9, 10)] * 2
BLIND = {
    "a fixed threshold": lambda: FixedThresholdClassifier(private(), threshold=0.4).fit(X, y),
    "categories that are given": lambda: make_pipeline(
        of_columns(OneHotEncoder(categories=CATEGORIES, sparse_output=False)), private()
    ).fit(WHOLE, y),
    "numbers of given categories": lambda: make_pipeline(
        of_columns(OrdinalEncoder(categories=CATEGORIES)), private()
    ).fit(WHOLE, y),
    "a function of each row": lambda: make_pipeline(FunctionTransformer(np.tanh), private()).fit(
        X, y
    ),
    "a function of columns": lambda: make_pipeline(
        FunctionTransformer(lambda rows: rows[["a", "b"]] * 2), private()
    ).fit(FRAME, y),
    "tables as output": lambda: (
        make_pipeline(Normalizer(), private()).set_output(transform="pandas").fit(FRAME, y)
    ),
    "a target as it is": lambda: TransformedTargetRegressor(private()).fit(X, y),
    "somebody's wrapper": lambda: Wrapped(private()).fit(X, y),
    "a clone": lambda: clone(private()).fit(X, y),
}


@pytest.mark.parametrize("name", BLIND)
def test_what_takes_nothing_from_the_rows_is_not_warned_about(name):
    assert warned(BLIND[name])[1] == []


LEARNING = {
    "a remainder": (
        lambda: make_pipeline(of_columns(Normalizer(), StandardScaler()), private()).fit(FRAME, y),
        "step 'columntransformer'",
    ),
    "categories found": (
        lambda: make_pipeline(of_columns(OneHotEncoder(sparse_output=False)), private()).fit(
            WHOLE, y
        ),
        "step 'columntransformer'",
    ),
    "rare categories": (
        lambda: make_pipeline(
            of_columns(OneHotEncoder(categories=CATEGORIES, min_frequency=2, sparse_output=False)),
            private(),
        ).fit(WHOLE, y),
        "step 'columntransformer'",
    ),
    "a function of all rows": (
        lambda: make_pipeline(FunctionTransformer(scale), private()).fit(X, y),
        "step 'functiontransformer'",
    ),
    "a function of a table": (
        lambda: make_pipeline(FunctionTransformer(lambda rows: rows - rows.mean()), private()).fit(
            FRAME, y
        ),
        "step 'functiontransformer'",
    ),
    "a vote": (
        lambda: VotingClassifier([("a", private()), ("b", LogisticRegression())]).fit(X, y),
        r"'b' \(LogisticRegression\) beside this classifier",
    ),
    "a stack": (
        lambda: StackingClassifier([("a", private())], cv=2).fit(X, y),
        r"'final_estimator' \(LogisticRegression\) beside this classifier",
    ),
    "below a private end": (
        lambda: StackingClassifier([("a", LogisticRegression())], private(), cv=2).fit(X, y),
        r"'a' \(LogisticRegression\) beside this classifier",
    ),
    "folds of a pipeline": (
        lambda: cross_val_score(make_pipeline(StandardScaler(), private()), X, y, cv=2),
        "step 'standardscaler'",
    ),
    "a search over a pipeline": (
        lambda: GridSearchCV(
            make_pipeline(StandardScaler(), private()),
            {"dpleastsquaresclassifier__damping": [0.1, 0.2]},
            cv=2,
        ).fit(X, y),
        "search or cross-validation",
    ),
    "pairs of classes": (
        lambda: OneVsOneClassifier(private()).fit(X, y),
        "one of several on the same rows",
    ),
    "a chain": (
        lambda: ClassifierChain(private()).fit(X, np.c_[y, y]),
        "one of several on the same rows",
    ),
    "self-training": (
        lambda: SelfTrainingClassifier(private()).fit(X, np.where(np.arange(N) % 3, y, -1)),
        "one of several on the same rows",
    ),
}


@pytest.mark.parametrize("name", LEARNING)
def test_what_takes_something_from_all_rows_is_named(name):
    call, words = LEARNING[name]
    with pytest.warns(PrivacyWarning, match=words):
        call()


def test_a_statement_names_what_stands_beside_its_classifier():
    vote = VotingClassifier([("a", private()), ("b", LogisticRegression())])
    fitted, _ = warned(lambda: vote.fit(X, y))
    lines = fitted.estimators_[0].privacy_.rests_on
    assert any("NOT COVERED: what 'b' (LogisticRegression) beside it" in line for line in lines)


def test_a_vote_of_private_classifiers_and_of_frozen_ones_has_none_beside_it():
    frozen = FrozenEstimator(LogisticRegression().fit(X, y))
    pipeline = make_pipeline(Normalizer(), private())
    vote = VotingClassifier([("a", private()), ("b", pipeline), ("c", frozen), ("d", "drop")])
    assert not any("beside" in text for text in warned(lambda: vote.fit(X, y))[1])


def network():
    return DPSGDClassifier("linear", n_steps=1, classes=[0, 1], epsilon=50.0)


AFTERWARDS = {
    "CalibratedClassifierCV": lambda model: CalibratedClassifierCV(FrozenEstimator(model)),
    "TunedThresholdClassifierCV": lambda model: TunedThresholdClassifierCV(
        model, cv="prefit", refit=False
    ),
    "StackingClassifier": lambda model: StackingClassifier([("a", model)], cv="prefit"),
}


@pytest.mark.parametrize("make", [private, network])
@pytest.mark.parametrize("name", AFTERWARDS)
def test_what_learns_from_the_scores_of_a_fitted_classifier_is_warned_about(name, make):
    fitted, _ = warned(lambda: make().fit(X, y))
    model, texts = warned(lambda: AFTERWARDS[name](fitted).fit(X, y))
    assert any(text.startswith(f"{name} learns from this classifier's scores") for text in texts)
    assert warned(lambda: model.predict(X))[1] == []  # it learns no more


def test_a_private_end_of_a_stack_learns_from_scores_with_noise():
    fitted, _ = warned(lambda: private().fit(X, y))
    stack = StackingClassifier([("a", fitted)], private(), cv="prefit")
    assert not any("learns from" in text for text in warned(lambda: stack.fit(X, y))[1])


def test_the_statement_says_that_it_rests_on_somebodys_wrapper():
    fitted, _ = warned(lambda: Wrapped(private()).fit(X, y))
    lines = fitted.classifier_.privacy_.rests_on
    assert "the fit of Wrapped, which calls this one, does no more with the rows" in lines
    plain, _ = warned(lambda: private().fit(X, y))
    assert not any("which calls this one" in line for line in plain.privacy_.rests_on)


def test_a_function_of_a_pipeline_sees_made_up_rows_beside_the_private_ones_only():
    seen = []
    step = FunctionTransformer(lambda rows: seen.append(len(rows)) or rows)
    warned(lambda: make_pipeline(step, private()).fit(X, y))
    assert set(seen) == {N, 8, 1}
