"""What all estimators say of labels and classes, before anything is spent."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    DPSGDClassifier,
    InsufficientMemoryError,
    PrivacyWarning,
    evaluate_privately,
    load_model,
    summarize_privately,
)
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism
from dpfc.mechanism.labels import as_labels
from dpfc.mechanism.private_run import PrivateRun

N = 40
X = np.random.default_rng(0).normal(size=(N, 3))
CODES = np.arange(N) % 2
NAMES = np.array(["no", "yes"])[CODES]
SECRET = 987654.321
MAKERS = {
    "fc": lambda **options: DPFCClassifier(n_steps=1, **options),
    "gd": lambda **options: DPGradientClassifier(n_steps=1, **options),
    "ls": DPLeastSquaresClassifier,
    "newton": lambda **options: DPNewtonClassifier(n_steps=1, **options),
    "network": lambda **options: DPSGDClassifier("linear", n_steps=1, **options),
    "search": lambda **options: DPSearchCV(
        DPLeastSquaresClassifier(**options), {"damping": [0.1, 0.2]}, verbose=False
    ),
}
make_each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
unspent = pytest.fixture(lambda monkeypatch: forbid_spending(monkeypatch))


def forbid_spending(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a budget was spent on bad input")

    monkeypatch.setattr(PrivateRun, "release", never)
    monkeypatch.setattr(GradientMechanism, "__init__", never)


def with_label(labels, label, row=7):
    changed = np.asarray(labels).astype(object)
    changed[row] = label
    return changed


REFUSED = {
    "None among strings": (with_label(NAMES, None), ["no", "yes"], "missing label.* in row 7"),
    "NaN among strings": (with_label(NAMES, np.nan), ["no", "yes"], "missing label.* in row 7"),
    "a list of NaN and strings": (
        with_label(NAMES, math.nan).tolist(),
        ["no", "yes"],
        "missing label.* in row 7",
    ),
    "NA in a series": (
        pd.Series(with_label(NAMES, pd.NA), dtype="string"),
        ["no", "yes"],
        "missing label.* in row 7",
    ),
    "NA in a category": (
        pd.Series(with_label(NAMES, None), dtype="category"),
        ["no", "yes"],
        "missing label.* in row 7",
    ),
    "NA among integers": (
        pd.Series(with_label(CODES, pd.NA), dtype="Int64"),
        [0, 1],
        "missing label.* in row 7",
    ),
    "NaN among floats": (with_label(CODES, np.nan).astype(float), [0, 1], "missing label.* row 7"),
    "masked": (np.ma.masked_array(CODES, np.arange(N) == 7), [0, 1], "missing label.* row 7"),
    "numbers for strings": (CODES + 5, ["no", "yes"], "different types: y holds numbers"),
    "strings for numbers": (NAMES, [0, 1], "different types: y holds strings"),
    "a number among strings": (with_label(NAMES, 3), ["no", "yes"], "numbers in row 7"),
    "a string in a list of numbers": (
        with_label(CODES, "1").tolist(),
        ["0", "1"],
        "strings in row 7",
    ),
    "a tuple as a label": (with_label(NAMES, (1, 2)), ["no", "yes"], "row 7 has neither"),
    "dates": (CODES.astype("M8[D]"), [0, 1], "plain labels.*got datetime64"),
    "bytes": (NAMES.astype("S"), ["no", "yes"], "plain labels"),
    "complex": (CODES * 1j, [0, 1], "y must have|Complex|plain labels"),
    "sparse": (sparse.csr_array(CODES[:, None]), [0, 1], "dense, one label a row"),
    "a sparse tensor": (torch.from_numpy(CODES).to_sparse(), [0, 1], "plain labels"),
    "two columns": (np.c_[CODES, CODES], [0, 1], "1d array"),
    "one too few": (CODES[1:], [0, 1], "X has 40 rows and y has 39 labels"),
    "none": (None, [0, 1], "y must be given"),
    "a number": (SECRET, [0, 1], "1d array|one label a row"),
    "a dictionary": ({SECRET: 1}, [0, 1], "1d array|one label a row"),
    "a label outside": (with_label(CODES, SECRET), [0, 1], "not in classes, the first in row 7"),
}


@make_each
@pytest.mark.parametrize("y, classes, words", REFUSED.values(), ids=REFUSED)
def test_wrong_labels_are_refused_in_the_same_words_before_a_spend(
    make, y, classes, words, unspent
):
    with pytest.raises((TypeError, ValueError), match=words) as raised:
        make(classes=classes).fit(X, y)
    assert "98765" not in str(raised.value)


@pytest.mark.parametrize("y, classes, words", REFUSED.values(), ids=REFUSED)
def test_summaries_and_evaluations_say_the_same_of_labels(y, classes, words, monkeypatch):
    true = np.array(classes)[CODES]
    model = DPLeastSquaresClassifier(classes=classes).fit(X, true)
    forbid_spending(monkeypatch)
    with pytest.raises((TypeError, ValueError), match=words):
        evaluate_privately(model, X, y, epsilon=1.0)
    with pytest.raises((TypeError, ValueError), match=words):
        summarize_privately(X, y, epsilon=1.0, statistics=["class_counts"], classes=classes)


@make_each
def test_a_score_takes_the_same_labels_and_shows_none(make):
    of_names, of_codes = make(classes=["no", "yes"]).fit(X, NAMES), make(classes=[0, 1])
    of_codes.fit(X, CODES)
    for name, (y, classes, words) in REFUSED.items():
        if name == "a label outside":
            continue
        with pytest.raises((TypeError, ValueError), match=words) as raised:
            (of_names if isinstance(classes[0], str) else of_codes).score(X, y)
        assert type(raised.value) in (TypeError, ValueError)
        assert "98765" not in str(raised.value)
    hits = float(np.mean(of_codes.predict(X) == CODES))
    assert of_codes.score(X, CODES) == hits
    assert of_codes.score(X, with_label(CODES, SECRET).astype(float)) <= hits


@make_each
@pytest.mark.parametrize(
    "weights",
    ["a", [1.0] * (N - 1), [[1.0]] * N, [math.nan] * N, [-1.0] * N, [0.0] * N, {"a": 1}, 1j, ["b"]],
    ids=str,
)
def test_weights_of_a_score_are_numbers_of_rows(make, weights):
    model = make(classes=[0, 1]).fit(X, CODES)
    with pytest.raises((TypeError, ValueError), match="sample_weight must") as raised:
        model.score(X, CODES, weights)
    assert type(raised.value) in (TypeError, ValueError)
    picked = np.arange(N) < 10
    assert model.score(X, CODES, picked) == pytest.approx(model.score(X[picked], CODES[picked]))


# -- classes -------------------------------------------------------------------------

BAD_CLASSES = {
    "numbers and strings": [0, "1"],
    "an array of both": np.array([0, "1"], dtype=object),
    "a string": "01",
    "twice the same": ["a", "a", "b"],
    "one number of two types": [0, 1, 1.0],
    "a missing class": ["a", None],
    "NaN": [0.0, math.nan],
    "infinity": [0.0, math.inf],
    "dates": np.array(["2020", "2021"], dtype="M8[Y]"),
    "tuples": [(0, 1), (1, 0)],
    "bytes": [b"a", b"b"],
    "huge integers": [0, 10**40],
    "complex": [0, 1j],
    "one": ["a"],
    "a number": 3,
}


@make_each
@pytest.mark.parametrize("classes", BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_classes_are_different_plain_labels_of_one_type(make, classes, unspent):
    with pytest.raises(ValueError, match="classes"):
        make(classes=classes).fit(X, CODES)


@make_each
def test_measurements_are_no_classes(make, unspent):
    for y in (X[:, 0], np.arange(N), np.arange(N).astype(str), np.arange(N) * 1.0):
        with (
            pytest.warns(PrivacyWarning, match="classes were read"),
            pytest.raises(ValueError, match=r"Unknown label type|look like measurements"),
        ):
            make().fit(X, y)


_WIDE = 2**63
WIDE = {
    "uint64": np.array([_WIDE, _WIDE + 1], dtype=np.uint64),
    "beside a small one": np.array([3, _WIDE], dtype=np.uint64),
    "in a list beside a small one": [3, _WIDE],
    "in a list beside a negative one": [-3, _WIDE],
    "objects": np.array([3, _WIDE], dtype=object),
    "no 64 bits": [3, 2**70],
    "far below zero": [3, -(2**64)],
    "pandas": pd.array([3, _WIDE], dtype="UInt64"),
}


@make_each
@pytest.mark.parametrize("labels", WIDE.values(), ids=WIDE)
def test_whole_numbers_beyond_int64_are_refused_in_words_that_hold_no_label(make, labels, unspent):
    y = labels[CODES] if hasattr(labels, "dtype") else [labels[code] for code in CODES]
    first = int(np.flatnonzero([not -_WIDE <= int(label) < _WIDE for label in y])[0])
    for classes in (None, ["a", "b"], [0, 1]):
        with pytest.raises(ValueError, match=r"int64 does not hold .*, the first in row") as caught:
            make(classes=classes).fit(X, y)
        assert f"in row {first}:" in str(caught.value) and "y.astype(str)" in str(caught.value)
        assert "9223" not in str(caught.value)
    with pytest.raises(ValueError, match=r"classes must hold no whole number .* by strings, in y"):
        make(classes=list(labels)).fit(X, CODES)


def test_pandas_own_whole_numbers_keep_every_digit():
    labels = as_labels(pd.Series([2**60, 2**60 + 1], dtype="Int64"), 2, "fit")
    assert labels.tolist() == [2**60, 2**60 + 1]
    with pytest.raises(ValueError, match=r"missing label .* row 1"):
        as_labels(pd.Series([2**60, None], dtype="Int64"), 2, "fit")


KEPT = {
    "float16": np.array([0.5, 1.5], dtype=np.float16),
    "long double": np.array([0.1, 0.7], dtype=np.longdouble),
    "uint64": np.array([1, 2**63 - 1], dtype=np.uint64),
    "bool": np.array([False, True]),
    "objects": np.array(["x", "é"], dtype=object),
    "objects of numbers": np.array([3, 5], dtype=object),
    "fractions": np.array([Fraction(1, 2), Fraction(3, 2)], dtype=object),
}


@make_each
@pytest.mark.parametrize("labels", KEPT.values(), ids=KEPT)
@pytest.mark.filterwarnings("ignore:classes were read")
def test_what_may_be_fitted_can_be_saved_and_read_again(make, labels, tmp_path):
    """No fit spends and then cannot be saved; this failed for dates and for long doubles."""
    for classes in (None, list(labels)):
        try:
            model = make(classes=classes).fit(X, labels[CODES])
        except ValueError as error:
            assert "y " in str(error) or "classes" in str(error)
            continue
        model = getattr(model, "best_estimator_", model)
        model.save(tmp_path / "m.safetensors")
        again = load_model(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(again.classes_, model.classes_)


@pytest.mark.parametrize("name", ["fc", "network"])
def test_parameters_of_any_number_type_can_be_saved(name, tmp_path):
    model = MAKERS[name](classes=[0, 1], epsilon=Fraction(1, 2), delta=np.float32(1e-5))
    model.fit(X, CODES).save(tmp_path / "m.safetensors")
    assert load_model(tmp_path / "m.safetensors").epsilon == 0.5


# -- scikit-learn's meta-estimators --------------------------------------------------

METAS = {
    "voting": lambda model: VotingClassifier([("a", model)]).fit(X, NAMES),
    "stacking": lambda model: StackingClassifier([("a", model)]).fit(X, NAMES),
    "bagging": lambda model: BaggingClassifier(model, n_estimators=2).fit(X, NAMES),
    "one against the rest": lambda model: OneVsRestClassifier(model).fit(X, NAMES),
    "cross_val_predict": lambda model: cross_val_predict(model, X, NAMES, method="predict_proba"),
}


@pytest.mark.parametrize("call", METAS.values(), ids=METAS)
@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
@pytest.mark.parametrize("name", ["ls", "network"])
def test_labels_that_scikit_learn_recoded_are_said_to_be_so(call, name):
    for classes in (["no", "yes"], [-1, 1]):
        with pytest.raises(ValueError, match=r"scikit-learn recodes labels.*classes=range\(k\)"):
            call(MAKERS[name](classes=classes))
    call(MAKERS[name](classes=range(2)))


def test_the_words_about_recoding_are_for_whole_numbers_from_zero_only():
    with pytest.raises(ValueError, match="not in classes") as raised:
        DPFCClassifier(classes=["no", "yes"]).fit(X, CODES + 5)
    assert "recodes" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "search"])
def test_a_million_classes_are_refused_before_a_spend_with_what_they_would_take(
    name, monkeypatch, unspent
):
    monkeypatch.setattr("dpfc._support.memory.available_memory", lambda device: 2**26)
    model = MAKERS[name](classes=range(100_000))
    with pytest.raises(InsufficientMemoryError, match=r"weights.* take .* GiB"):
        model.fit(X, CODES)
