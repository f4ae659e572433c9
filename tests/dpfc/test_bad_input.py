"""What is refused: by one ValueError, before anything is spent, without showing private values."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn
import torch
from scipy import sparse

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    InsufficientMemoryError,
)
from dpfc.mechanism.private_run import PrivateRun

N = 40
SECRET = 987654.321
SECRET_LABEL = "SECRETLABEL"
SECRET_NUMBER = 987654
CODES = np.arange(N) % 2


def features():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    X[5, 1] = SECRET
    return X


def with_value(value, row=7):
    X = features()
    X[row, 2] = value
    return X


def strings():
    X = features().astype(object)
    X[3, 0] = SECRET_LABEL
    return X


def labels(values):
    return np.resize(np.array(values), N)


DATA = {
    "NaN in X": (with_value(np.nan), CODES),
    "infinity in X": (with_value(np.inf), CODES),
    "minus infinity in X": (with_value(-np.inf), CODES),
    "NaN in float16": (np.where(np.eye(N, 3), np.nan, 1.0).astype(np.float16), CODES),
    "None in X": (np.where(np.eye(N, 3), None, features()), CODES),
    "one-dimensional X": (features()[:, 1], CODES),
    "a number for X": (SECRET, CODES),
    "three-dimensional X": (features()[:, :, None], CODES),
    "no rows": (features()[:0], CODES[:0]),
    "no columns": (features()[:, :0], CODES),
    "ragged X": ([[SECRET, 2.0], [3.0]] * (N // 2), CODES),
    "strings in X": (strings(), CODES),
    "strings only": ([[SECRET_LABEL] * 3] * N, CODES),
    "complex X": (features() * (1 + 1j), CODES),
    "X is None": (None, CODES),
    "X is a dict": ({"a": SECRET}, CODES),
    "an integer too large for a float": ([[10**400, 1, 2]] * N, CODES),
    "a tensor that requires a gradient": (
        torch.from_numpy(features()).requires_grad_(True),
        CODES,
    ),
    "y is missing": (features(), None),
    "too few labels": (features(), CODES[:-1]),
    "too many labels": (features(), np.r_[CODES, 1]),
    "two columns of labels": (features(), np.c_[CODES, CODES]),
    "a label outside classes": (features(), labels([0, 1, SECRET_NUMBER])),
    "a string label outside classes": (features(), labels(["0", SECRET_LABEL])),
    "an object label outside classes": (
        features(),
        np.resize(np.array([0, SECRET_LABEL], dtype=object), N),
    ),
    "continuous labels": (features(), np.linspace(0.0, SECRET, N)),
    "NaN label": (features(), labels([0.0, 1.0, np.nan])),
    "infinite label": (features(), labels([0.0, 1.0, np.inf])),
    "None label": (features(), np.resize(np.array([0, 1, None], dtype=object), N)),
    "complex labels": (features(), CODES + SECRET * 1j),
}

# scikit-learn's own checks ask for a TypeError where X is no array of numbers at all.
ERRORS = {"X is a dict": TypeError}


def never(*args, **kwargs):
    raise AssertionError("a budget was spent on bad input")


@pytest.fixture(autouse=True)
def _no_spend(monkeypatch):
    """No bad input may come as far as a spend."""
    monkeypatch.setattr(PrivateRun, "release", never)


def refusal(call):
    """The one error of a call, after looking for secrets in it and in its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(Exception) as raised:
            call()
    messages = [str(warning.message) for warning in caught]
    error = raised.value
    while error is not None:
        messages.append(f"{error!r} {error}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for message in messages:
        for secret in ("987654", "9.8765", SECRET_LABEL):
            assert secret not in message, f"a private value is shown: {message[:300]}"
    return raised.value


@pytest.mark.parametrize("X, y", DATA.values(), ids=DATA)
def test_bad_data_is_refused_before_any_spend_without_showing_a_value(X, y, request):
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(X, y))
    assert isinstance(error, ERRORS.get(request.node.callspec.id, ValueError)), repr(error)


def test_sparse_features_are_refused():
    # scikit-learn's own checks want a TypeError or ValueError here.
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(sparse.csr_array(features()), CODES))
    assert isinstance(error, TypeError | ValueError)
    assert "parse" in str(error)


@pytest.mark.parametrize("y", [np.full(N, SECRET_LABEL), np.full(N, SECRET_NUMBER)])
def test_labels_of_one_class_need_stated_classes(y):
    error = refusal(lambda: DPFCClassifier().fit(features(), y))
    assert isinstance(error, ValueError)
    assert "2 or more classes" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused_whatever_scikit_learn_is_told(value):
    """One such row would make every release NaN, and show that it is there."""
    with sklearn.config_context(assume_finite=True):
        error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(with_value(value), CODES))
    assert isinstance(error, ValueError)


def test_errors_of_rows_and_labels_name_a_position(make_cache):
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(features(), CODES * SECRET_NUMBER))
    assert "row 1" in str(error)
    error = refusal(
        lambda: DPFCClassifier(classes=[0, 1]).fit(make_cache(with_value(np.nan), CODES))
    )
    assert "row 7" in str(error)


# -- parameters ----------------------------------------------------------------------

COMMON = {
    "epsilon": [0.0, -1.0, math.nan, -math.inf, True, "1.0", None, [1.0], 1j],
    "delta": [0.0, 1.0, 1.5, -1e-5, math.nan, math.inf, False, "1e-5", None],
    "neighboring_relation": ["add_one", "", None, 1, ["replace_one"]],
    "n_samples": [0, -5, 2.0, True, "40", math.inf, math.nan],
    "l2_clip_norm": [0.0, -1.0, math.nan, math.inf, True, "1", None],
    "normalize": [1, None, "yes"],
    "center": [0, None, "no"],
    "fit_intercept": [1, None],
    "intercept_scaling": [0.0, 1.0, -0.1, math.nan, True, None],
    "random_state": [-1, True, "0", 1.5],
    "verbose": [1, None],
    "classes": [
        [0],
        [],
        [0, 0],
        [0, 1, 1],
        [[0, 1], [2, 3]],
        [0.0, math.nan],
        [None, 1],
    ],
}
OWN = {
    DPFCClassifier: {
        "gram_share": [0.0, 1.0, -0.5, math.nan, True],
        "n_steps": [0, -1, 1.5, True, "20"],
        "step_size": [0.0, -1.0, "big", None, math.inf, math.nan],
        "logit_noise": [0.0, -1.0, math.nan, None],
        "residual_clip_norm": [0.0, -1.0, math.nan, None],
        "loss": ["hinge", "squared", None],
        "l2_regularization": [-1.0, math.nan, math.inf],
    },
    DPGradientClassifier: {
        "optimizer": ["lbfgs", None],
        "learning_rate": [0.0, -1.0, "big", None, math.inf],
        "momentum": [-0.1, 1.0, math.nan],
        "sampling_probability": [0.0, 1.5, -0.1, math.nan, True],
        "loss": ["squared"],
    },
    DPLeastSquaresClassifier: {
        "alpha": [0.0, -1.0, math.nan, "all", True],
        "sums_share": [0.0, 1.0, math.nan],
        "damping": [-1.0, math.nan, None],
    },
    DPNewtonClassifier: {
        "hessian_share": [0.0, 1.0, math.nan],
        "n_steps": [0, 2.5],
    },
}


@pytest.mark.parametrize("name", COMMON)
def test_bad_parameters_are_refused_before_the_data_is_read(estimator_class, name):
    for value in COMMON[name]:
        model = estimator_class(**{"classes": [0, 1], name: value})
        error = refusal(lambda model=model: model.fit(features(), CODES))
        assert isinstance(error, ValueError), f"{name}={value!r}: {error!r}"
        assert name in str(error), f"{name}={value!r}: {error!r}"


@pytest.mark.parametrize(
    "estimator, name",
    [(estimator, name) for estimator, names in OWN.items() for name in names],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_bad_parameters_of_a_solver_are_refused(estimator, name):
    for value in OWN[estimator][name]:
        model = estimator(**{"classes": [0, 1], name: value})
        for call in (lambda model=model: model.fit(features(), CODES), model.privacy_plan):
            error = refusal(call)
            assert isinstance(error, ValueError), f"{name}={value!r}: {error!r}"
            assert str(error).startswith(f"{name} must be "), str(error)


@pytest.mark.parametrize(
    "name, value",
    [("epsilon", 10**400), ("n_samples", 10**400), ("classes", [0, [1]]), ("classes", 3)],
    ids=["huge epsilon", "huge n_samples", "ragged classes", "a number for classes"],
)
def test_odd_parameters_are_refused_by_name(name, value):
    model = DPFCClassifier(**{"classes": [0, 1], name: value})
    error = refusal(lambda: model.fit(features(), CODES))
    assert isinstance(error, ValueError), f"{error!r}"[:200]
    assert name in str(error)


def test_a_message_repeats_the_parameter():
    error = refusal(lambda: DPFCClassifier(epsilon=-1.0).privacy_plan())
    assert str(error) == "epsilon must be a float in (0, inf], got -1.0."


@pytest.mark.parametrize(
    "options",
    [
        {"l2_clip_norm": 1e200},
        {"l2_clip_norm": 1e153},
        {"l2_clip_norm": 1e-155},
        {"residual_clip_norm": 1e-320},
    ],
    ids=str,
)
def test_bounds_that_no_float_can_square_are_refused_before_any_spend(options):
    model = DPFCClassifier(classes=[0, 1], **options)
    error = refusal(lambda: model.fit(features(), CODES))
    assert isinstance(error, ValueError), repr(error)


# -- size ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        DPNewtonClassifier(classes=range(9)),
        DPLeastSquaresClassifier(classes=range(9), alpha=1.0),
        DPLeastSquaresClassifier(classes=range(9)),
        DPFCClassifier(classes=range(9)),
    ],
    ids=["DP-Newton", "DP-LS, weighted", "DP-LS", "DP-FC"],
)
def test_matrices_that_do_not_fit_are_refused_before_any_spend(model, monkeypatch):
    X = np.zeros((9, 400))
    monkeypatch.setattr("dpfc._support.memory.available_memory", lambda device: 8 * 400 * 400)
    error = refusal(lambda: model.fit(X, np.arange(9)))
    assert isinstance(error, InsufficientMemoryError), repr(error)


def test_more_rows_than_the_proof_covers_are_refused(monkeypatch):
    monkeypatch.setattr("dpfc.mechanism.rows.MAX_SAMPLES", 30)
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(features(), CODES))
    assert str(error) == "X must have at most 30 rows."


# -- caches --------------------------------------------------------------------------


def cache_refusal(make_cache, X, y, names=None, **options):
    model = DPFCClassifier(classes=options.pop("classes", None))
    error = refusal(lambda: model.fit(make_cache(X, y, names, **options)))
    assert isinstance(error, ValueError), repr(error)
    return str(error)


def test_bad_caches_are_refused_before_any_spend(make_cache):
    X = features().astype(np.float32)
    assert "labels" in cache_refusal(make_cache, X, None, classes=[0, 1])
    assert "class names" in cache_refusal(make_cache, X, labels([0, 1, 2]), ["a", "b"])
    assert "class names" in cache_refusal(make_cache, X, labels([0, -1]), ["a", "b"])
    assert "row 1" in cache_refusal(make_cache, X, labels([0, SECRET_NUMBER]), classes=[0, 1])
    cache_refusal(make_cache, X[:0], CODES[:0], classes=[0, 1])


def test_a_cache_with_labels_beside_it_is_refused(make_cache):
    cache = make_cache(features(), CODES)
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(cache, CODES))
    assert "left out" in str(error)


@pytest.mark.parametrize("n_rows", [N - 1, N + 1, 10 * N])
def test_a_cache_that_miscounts_its_rows_is_refused_before_any_spend(make_cache, n_rows):
    """Rows that never came would be whatever memory held, of any norm."""
    cache_refusal(make_cache, features(), CODES, classes=[0, 1], n_rows=n_rows)


def test_a_cache_of_another_width_is_refused_before_any_spend(make_cache):
    cache = make_cache(features(), CODES)
    cache.n_features = 5
    error = refusal(lambda: DPFCClassifier(classes=[0, 1]).fit(cache))
    assert isinstance(error, ValueError), repr(error)


# -- prediction ----------------------------------------------------------------------


def test_bad_rows_to_predict_are_refused_without_showing_a_value(two_classes, monkeypatch):
    monkeypatch.undo()
    model = DPFCClassifier(classes=[0, 1]).fit(*two_classes)
    bad = [
        np.full((2, 3), SECRET),
        np.full((2, 5), SECRET),
        np.full(4, SECRET),
        np.full((0, 4), SECRET),
        np.full((2, 4), np.nan),
        [[SECRET_LABEL] * 4],
        np.full((2, 4), SECRET * 1j),
    ]
    for X in bad:
        for method in (model.predict, model.predict_proba, model.decision_function):
            error = refusal(lambda X=X, method=method: method(X))
            assert isinstance(error, ValueError), repr(error)


def test_a_cache_of_another_width_is_not_predicted(two_classes, make_cache, monkeypatch):
    monkeypatch.undo()
    model = DPFCClassifier(classes=[0, 1]).fit(*two_classes)
    error = refusal(lambda: model.predict(make_cache(features(), CODES)))
    assert "3 features" in str(error)
