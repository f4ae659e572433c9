"""Wrong kinds of everything: only ValueError and TypeError come out, and no private value."""

from __future__ import annotations

import datetime
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    DPSGDClassifier,
    evaluate_privately,
    load_model,
    summarize_privately,
)

N = 24
CODES = np.arange(N) % 2
SECRET = 987654.321
X = np.random.default_rng(0).normal(size=(N, 3))
X[5, 1] = SECRET


class Raises:
    """What fails, with a private value in its words, at whatever is done with it."""

    def fail(self, *args, **kwargs):
        raise RuntimeError(f"private: {SECRET}")

    __array__ = __len__ = __iter__ = __float__ = __getitem__ = fail


WRONG = {
    "None": None,
    "a text": "x",
    "an empty text": "",
    "bytes": b"x",
    "minus one": -1,
    "zero": 0,
    "a half": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "huge": 1e308,
    "tiny": 5e-324,
    "a huge integer": 10**400,
    "complex": 1j,
    "True": True,
    "an empty list": [],
    "a list of lists": [[1, 2], [3]],
    "a dictionary": {"a": 1},
    "a set": {1, 2},
    "an object": object(),
    "a class": dict,
    "a function": len,
    "an array": np.array([1.0, 2.0]),
    "an array of objects": np.array([None, "a", 1], dtype=object),
    "a date": datetime.date(2020, 1, 1),
    "NumPy's date": np.datetime64("2020"),
    "a tensor": torch.zeros(2),
    "a frame": pd.DataFrame({"a": [1]}),
    "NA": pd.NA,
}
MAKERS = {
    "fc": (DPFCClassifier, {"n_steps": 1}),
    "gd": (DPGradientClassifier, {"n_steps": 1}),
    "ls": (DPLeastSquaresClassifier, {}),
    "newton": (DPNewtonClassifier, {"n_steps": 1}),
    "network": (DPSGDClassifier, {"module": "linear", "n_steps": 1}),
    "search": (
        DPSearchCV,
        {
            "estimator": DPLeastSquaresClassifier(classes=[0, 1]),
            "param_grid": {"damping": [0.1]},
            "verbose": False,
        },
    ),
}
# Of which most values train a network before they are refused, or are allowed.
TRAINED = ("augmentation", "classes", "module", "vocabulary_size", "trainable")
DATA = {
    **WRONG,
    "what raises": Raises(),
    "secrets as text": np.full((N, 3), f"{SECRET}"),
    "secrets as objects": np.full((N, 3), SECRET, dtype=object),
    "dates": np.full((N, 3), 987654, dtype="M8[s]"),
    "a frame of dates and numbers": pd.DataFrame(X).assign(d=pd.Timestamp(987654, unit="s")),
    "three dimensions": np.full((N, 2, 2), SECRET),
    "one row more": np.full((N + 1, 3), SECRET),
    "labels of text": np.full(N, f"{SECRET}"),
    "labels of numbers": np.full(N, SECRET),
    "labels of both": np.array([SECRET, f"{SECRET}"] * (N // 2), dtype=object),
    "labels of lists": np.array([[SECRET]] * N),
    "labels of bytes": np.full(N, f"{SECRET}".encode()),
    "a sparse tensor": torch.full((N, 3), SECRET).to_sparse(),
    "labels of records": np.zeros(N, dtype=[("a", int)]),
}


def outcome(call):
    """What a call raises, once it is known to be allowed; None if nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except (ValueError, TypeError) as error:
            allowed = type(error) in (ValueError, TypeError) or type(error).__module__.startswith(
                ("dpfc", "sklearn.exceptions")
            )
            assert allowed, f"{type(error)}: {error}"[:300]
            said, found = [str(error)], error
        else:
            said, found = [], None
    for text in [*said, *(str(w.message) for w in caught)]:
        assert "987654" not in text and "9.8765" not in text, text[:300]
    return found


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: (kind(**options) if name == "search" else kind(classes=[0, 1], **options)).fit(
                X, CODES
            )
            for name, (kind, options) in MAKERS.items()
        }


def parameters():
    for name, (kind, options) in MAKERS.items():
        for parameter in kind(**options).get_params(deep=False):
            slow = [pytest.mark.slow] if name == "network" and parameter in TRAINED else []
            yield pytest.param(kind, options, parameter, id=f"{name}-{parameter}", marks=slow)


@pytest.mark.parametrize("kind, options, name", parameters())
def test_a_wrong_kind_of_a_parameter_is_a_value_or_a_type_error(kind, options, name, tmp_path):
    classes = {} if kind is DPSearchCV else {"classes": [0, 1]}
    for label, value in WRONG.items():
        if label == "a text" and name in ("ledger", "checkpoint"):
            value = str(tmp_path / "x")
        given = {**classes, **options, name: value}
        if name == "ledger":
            given["dataset"] = "rows"
        outcome(lambda given=given: kind(**given).fit(X, CODES))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "network" else []) for n in MAKERS],
)
def test_wrong_kinds_of_data_are_value_or_type_errors_without_a_value(name, fitted):
    model = fitted[name]
    kind, options = MAKERS[name]
    classes = {} if name == "search" else {"classes": [0, 1]}
    for data in DATA.values():
        outcome(lambda data=data: kind(**classes, **options).fit(data, CODES))
        assert outcome(lambda data=data: kind(**classes, **options).fit(X, data)) is not None
        assert outcome(lambda data=data: model.score(data, CODES)) or isinstance(data, np.ndarray)
        outcome(lambda data=data: model.score(X, data))
        outcome(lambda data=data: model.score(X, CODES, data))
        for method in (model.predict, model.predict_proba, model.decision_function):
            outcome(lambda data=data, method=method: method(data))


@pytest.mark.parametrize("name", MAKERS)
def test_evaluations_refuse_wrong_kinds_of_data_in_the_same_way(name, fitted):
    for data in DATA.values():
        outcome(lambda data=data: evaluate_privately(fitted[name], data, CODES, epsilon=1.0))
        outcome(lambda data=data: evaluate_privately(fitted[name], X, data, epsilon=1.0))


@pytest.mark.parametrize("name", ["epsilon", "delta", "metrics", "n_samples", "confidence",
                                  "neighboring_relation", "accountant", "ledger", "dataset",
                                  "random_state"])  # fmt: skip
def test_a_wrong_kind_of_an_evaluations_parameter(name, fitted):
    for value in WRONG.values():
        given = {"epsilon": 1.0, name: value}
        outcome(lambda given=given: evaluate_privately(fitted["ls"], X, CODES, **given))


@pytest.mark.parametrize("name", ["epsilon", "delta", "statistics", "classes", "l2_clip_norm",
                                  "neighboring_relation", "accountant", "ledger", "dataset",
                                  "random_state"])  # fmt: skip
def test_a_wrong_kind_of_a_summarys_parameter_or_data(name):
    for value in WRONG.values():
        given = {"epsilon": 1.0, "statistics": ["class_counts"], "classes": [0, 1], name: value}
        outcome(lambda given=given: summarize_privately(X, CODES, **given))
    for data in DATA.values():
        given = {"epsilon": 1.0, "statistics": ["class_counts"], "classes": [0, 1]}
        outcome(lambda data=data, given=given: summarize_privately(data, CODES, **given))
        outcome(lambda data=data, given=given: summarize_privately(X, data, **given))


def test_wrong_kinds_of_paths_and_modules_of_a_model(fitted, tmp_path):
    path = tmp_path / "m.safetensors"
    fitted["network"].save(path)
    for value in (*WRONG.values(), "\0", tmp_path):
        assert outcome(lambda value=value: load_model(value)) is not None
        outcome(lambda value=value: load_model(path, module=value))
    for value in WRONG.values():
        if not isinstance(value, str | bytes):
            assert outcome(lambda value=value: fitted["ls"].save(value)) is not None
