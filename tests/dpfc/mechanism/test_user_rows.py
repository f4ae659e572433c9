"""One check of X: whatever rows come in, all estimators take or refuse it in the same words."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import sparse
from torch import nn

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSGDClassifier,
    evaluate_privately,
    load_model,
    summarize_privately,
)
from dpfc.accounting import PrivacyLedger
from dpfc.features import import_features
from dpfc.mechanism.user_rows import as_matrix, check_columns

N = 30
CODES = np.arange(N) % 2
ROWS = np.random.default_rng(0).normal(size=(N, 4))
WHOLE = np.round(ROWS * 10)
FRAME = pd.DataFrame(ROWS, columns=list("abcd"))
MAKERS = [
    lambda: DPFCClassifier(classes=[0, 1], n_steps=1),
    lambda: DPGradientClassifier(classes=[0, 1], n_steps=1),
    lambda: DPLeastSquaresClassifier(classes=[0, 1]),
    lambda: DPNewtonClassifier(classes=[0, 1], n_steps=1),
    lambda: DPSGDClassifier("linear", classes=[0, 1], n_steps=1),
]
pytestmark = pytest.mark.filterwarnings("ignore:the budget is too small")


def with_value(value, dtype=object):
    X = ROWS.astype(dtype)
    X[7, 2] = value
    return X


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


TAKEN = {
    "float64": ROWS,
    "float32": ROWS.astype(np.float32),
    "float16": ROWS.astype(np.float16),
    "long double": ROWS.astype(np.longdouble),
    "big-endian": ROWS.astype(">f8"),
    "big-endian integers": WHOLE.astype(">i4"),
    "integers": WHOLE.astype(np.int64),
    "bytes": np.abs(WHOLE).astype(np.uint8),
    "bool": ROWS > 0,
    "Fortran order": np.asfortranarray(ROWS),
    "read-only": read_only(ROWS),
    "a matrix": ROWS.view(np.matrix),
    "a list": ROWS.tolist(),
    "a list of integers": WHOLE.astype(int).tolist(),
    "a list of tensors": list(torch.from_numpy(ROWS)),
    "objects that are numbers": ROWS.astype(object),
    "masked without a mask": np.ma.masked_array(ROWS),
    "a tensor": torch.from_numpy(ROWS),
    "a bfloat16 tensor": torch.from_numpy(ROWS).bfloat16(),
    "a float16 tensor": torch.from_numpy(ROWS).half(),
    "a bool tensor": torch.from_numpy(ROWS) > 0,
    "a frame": FRAME,
    "a frame without names": pd.DataFrame(ROWS),
    "a frame of Float32": FRAME.astype("Float32"),
    "a frame of pyarrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "a frame of floats and bool": FRAME.assign(a=FRAME.a > 0),
    "a frame of nullable bool": (FRAME > 0).astype("boolean"),
    "a frame of integers and floats": FRAME.assign(a=range(N)),
    "a frame with a category of numbers": FRAME.assign(a=pd.Categorical([1, 2] * (N // 2))),
}
REFUSED = {
    "NaN": (with_value(np.nan, float), "NaN or infinity, first in row 7"),
    "infinity": (with_value(np.inf, float), "NaN or infinity, first in row 7"),
    "None among objects": (with_value(None), "NaN or infinity, first in row 7"),
    "NA among objects": (with_value(pd.NA), "NaN or infinity, first in row 7"),
    "NA in a frame": (
        pd.DataFrame(with_value(pd.NA)).astype("Float64"),
        "NaN or infinity, first in row 7",
    ),
    "a huge integer": (with_value(10**400), "NaN or infinity, first in row 7"),
    "masked": (np.ma.masked_array(ROWS, np.eye(N, 4) > 0), "masked entries, first in row 0"),
    "strings": (ROWS.astype(str), "numbers only, got strings"),
    "strings among objects": (with_value("1.5"), "numbers only, got strings"),
    "bytes strings": (ROWS.astype("S"), "numbers only, got strings"),
    "a category": (FRAME.assign(a=pd.Categorical(["x", "y"] * (N // 2))), "got strings"),
    "dates": (ROWS.astype("M8[s]"), "numbers only, got datetime64"),
    "a date in a frame": (FRAME.assign(a=pd.Timestamp("2020-01-01")), "got datetime64"),
    "spans": (ROWS.astype("m8[s]"), "numbers only, got timedelta64"),
    "records": (np.zeros(N, dtype=[("a", float), ("b", float)]), "numbers only, got records"),
    "complex": (ROWS * 1j, "real numbers only"),
    "a complex tensor": (torch.from_numpy(ROWS * 1j), "real numbers only"),
    "sparse": (sparse.csr_array(ROWS), "Sparse data"),
    "a sparse tensor": (torch.from_numpy(ROWS).to_sparse(), "Sparse data"),
    "a sparse frame": (FRAME.astype(pd.SparseDtype(float)), "Sparse data"),
    "a tensor with a gradient": (torch.from_numpy(ROWS).requires_grad_(), "X.detach"),
    "a tensor without data": (torch.empty(N, 4, device="meta"), "numbers only"),
    "one dimension": (ROWS[:, 0], "one row or more"),
    "a series": (FRAME.a, "one row or more"),
    "a number": (3.0, "one row or more"),
    "no rows": (ROWS[:0], "one row or more"),
    "no columns": (ROWS[:, :0], "one row or more"),
    "ragged": ([[1, 2], [3]] * (N // 2), "inhomogeneous|cannot be read"),
    "None": (None, "must be an array of numbers"),
    "a dictionary": ({"a": 1.0}, "must be an array of numbers"),
    "an object": (object(), "must be an array of numbers"),
    "names twice": (FRAME.set_axis(list("aabc"), axis=1), "same name, at 0 and 1"),
    "names of two types": (FRAME.set_axis(["a", 1, 2, 3], axis=1), "all be strings"),
}


@pytest.mark.parametrize("X", TAKEN.values(), ids=TAKEN)
def test_rows_of_every_kind_are_taken_by_all_estimators_at_fit_and_at_predict(X):
    for make in MAKERS:
        model = make().fit(X, CODES)
        assert model.predict(X).shape == (N,)
        assert 0.0 <= model.score(X, CODES) <= 1.0
        evaluate_privately(model, X, CODES, epsilon=9.0, metrics=["accuracy"])
    summarize_privately(X, epsilon=9.0)


@pytest.mark.parametrize("X, words", REFUSED.values(), ids=REFUSED)
def test_all_estimators_refuse_the_same_rows_in_the_same_words(X, words):
    said = set()
    for make in MAKERS:
        with pytest.raises((TypeError, ValueError), match=words) as at_fit:
            make().fit(X, CODES)
        said.add((type(at_fit.value), str(at_fit.value)))
    assert len(said) == 1
    assert said.pop()[0] in (TypeError, ValueError)


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_refused_at_fit_is_refused_at_predict_and_evaluation(make):
    model = make().fit(ROWS, CODES)
    for X, words in REFUSED.values():
        for call in (
            model.predict,
            model.predict_proba,
            lambda X: evaluate_privately(model, X, CODES, epsilon=1.0),
        ):
            with pytest.raises((TypeError, ValueError), match=words):
                call(X)
    for X, words in REFUSED.values():
        if "name" not in words and "strings" not in words:
            with pytest.raises((TypeError, ValueError), match=words):
                summarize_privately(X, epsilon=1.0)


@pytest.mark.parametrize("make", MAKERS)
def test_whole_numbers_are_predicted_after_a_fit_on_floats(make):
    model = make().fit(WHOLE, CODES)
    expected = model.predict_proba(WHOLE)
    for X in (WHOLE.astype(np.int64), WHOLE.astype(np.int16), WHOLE.astype(int).tolist()):
        np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-6)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("names", [list("abcd"), range(4)], ids=["strings", "numbers"])
def test_columns_in_another_order_or_of_other_names_are_refused(make, names, tmp_path):
    frame = FRAME.set_axis(names, axis=1)
    model = make().fit(frame, CODES)
    model.save(tmp_path / "m.safetensors")
    for known in (model, load_model(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(model))):
        known.predict(frame)
        for other in (frame[frame.columns[::-1]], frame.rename(columns={frame.columns[0]: "z"})):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pytest.raises((TypeError, ValueError), match=r"should match|all be strings"):
                    known.predict(other)
    assert hasattr(model, "feature_names_in_") == isinstance(names, list)
    refitted = model.fit(ROWS, CODES)
    assert not hasattr(refitted, "feature_names_in_")
    refitted.predict(pd.DataFrame(ROWS))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("fitted_as_frame", [True, False])
def test_columns_of_an_arrow_table_are_held_against_those_of_the_fit(make, fitted_as_frame):
    table = pa.table(FRAME)
    model = make().fit(FRAME if fitted_as_frame else table, CODES)
    assert list(model.feature_names_in_) == list(FRAME.columns)
    np.testing.assert_array_equal(model.predict(table), model.predict(FRAME))
    turned = table.select(table.column_names[::-1])
    for other in (turned, turned.to_batches()[0]):
        with pytest.raises(ValueError, match="stand in another order"):
            model.predict(other)


@pytest.mark.parametrize("make", MAKERS)
def test_names_at_only_one_of_fit_and_predict_are_warned_about(make):
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        make().fit(FRAME, CODES).predict(ROWS)
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        make().fit(ROWS, CODES).predict(FRAME)


def test_a_number_that_float32_cannot_hold_is_named_as_such_by_networks():
    with pytest.raises(ValueError, match=r"above 3.4e38.*first in row 7"):
        DPSGDClassifier("linear", classes=[0, 1]).fit(with_value(1e300, float), CODES)


def test_a_network_takes_bytes_and_tokens_as_it_was_fitted():
    of_bytes = DPSGDClassifier("linear", classes=[0, 1], n_steps=1)
    of_bytes.fit(np.abs(WHOLE).astype(np.uint8), CODES)
    with pytest.raises(ValueError, match="fitted on bytes"):
        of_bytes.predict(np.abs(WHOLE))
    of_floats = DPSGDClassifier("linear", classes=[0, 1], n_steps=1).fit(WHOLE, CODES)
    with pytest.raises(ValueError, match="X holds bytes"):
        of_floats.predict(np.abs(WHOLE).astype(np.uint8))
    of_tokens = DPSGDClassifier("dlr", classes=[0, 1], n_steps=1, vocabulary_size=5)
    tokens = np.arange(4 * N).reshape(N, 4) % 5
    of_tokens.fit(tokens, CODES)
    np.testing.assert_array_equal(
        of_tokens.predict(tokens.astype(np.uint8)), of_tokens.predict(tokens)
    )
    with pytest.raises(ValueError, match="fitted on whole numbers"):
        of_tokens.predict(tokens.astype(float))


@pytest.mark.parametrize("fraction", [False, True])
def test_whether_a_list_holds_tokens_does_not_follow_from_its_values(fraction):
    """One fraction among whole numbers would make a model of another kind."""
    rows = np.random.default_rng(0).integers(0, 5, size=(40, 6)).tolist()
    if fraction:
        rows[7][2] = 0.5
    model = DPSGDClassifier(nn.Linear(6, 2), epsilon=5.0, classes=[0, 1], n_samples=40, n_steps=2)
    assert model.fit(rows, np.arange(40) % 2).row_kind_ == "floats"


def test_a_list_holds_tokens_where_there_is_a_vocabulary():
    rows = np.random.default_rng(0).integers(0, 5, size=(40, 6)).tolist()
    model = DPSGDClassifier(
        "dlr", vocabulary_size=5, epsilon=5.0, classes=[0, 1], n_samples=40, n_steps=2
    )
    assert model.fit(rows, np.arange(40) % 2).row_kind_ == "tokens"
    rows[7][2] = 0.5
    with pytest.raises(ValueError, match="whole numbers"):
        model.fit(rows, np.arange(40) % 2)


# -- names of columns ----------------------------------------------------------------

IDENTIFIERS = (
    "id", "ID", "Id", "ids", "uuid", "guid", "patient_id", "PATIENT_ID", "patient id", "patient-id",
    "PatientID", "patientId", "row_uuid", "index", "idx", "Unnamed: 0", "__index_level_0__",
)  # fmt: skip
FEATURES = (
    "a",
    "valid",
    "paid",
    "humid",
    "grid",
    "solid",
    "fluid",
    "rapid",
    "PAID",
    "index_2",
    "video",
)


@pytest.mark.parametrize("make", MAKERS)
def test_a_column_that_is_called_as_an_identifier_is_named_before_anything_is_spent(make, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("ward", epsilon=1, delta=1e-5)
    frame = FRAME.assign(patient_id=np.arange(N) + 777777)
    model = make().set_params(ledger=ledger, dataset="ward")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="X has a feature")
        with pytest.raises(UserWarning, match="or an index are: 'patient_id'") as caught:
            model.fit(frame, CODES)
    assert "X.drop(columns=['patient_id'])" in str(caught.value)
    assert "777" not in str(caught.value)
    assert ledger.history("ward") == []


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_every_usual_name_of_an_identifier_is_warned_of(name):
    frame = FRAME.rename(columns={"b": name})
    for X in (frame, pa.Table.from_pandas(frame, preserve_index=False)):
        with pytest.warns(UserWarning, match="called as ids or an index are") as caught:
            check_columns(DPFCClassifier(), X, reset=True)
        assert len(caught) == 1 and repr(name) in str(caught[0].message)


def test_an_index_that_became_a_column_is_warned_of_and_names_of_features_are_not():
    with pytest.warns(UserWarning, match="are: 'index'"):
        check_columns(DPFCClassifier(), FRAME.reset_index(), reset=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FEATURES:
            check_columns(DPFCClassifier(), FRAME.set_axis([name, *"wxz"], axis=1), reset=True)
        check_columns(DPFCClassifier(), FRAME.set_axis(range(4), axis=1), reset=True)
        check_columns(DPFCClassifier(), FRAME.rename_axis(index="patient_id"), reset=True)


def test_the_names_that_an_import_refuses_are_those_that_a_fit_warns_of(tmp_path):
    for name in ("patientId", "Patient-ID", "uuid"):
        path = tmp_path / f"{name}.parquet"
        FRAME.rename(columns={"b": name}).to_parquet(path, index=False)
        with pytest.raises(ValueError, match=f"column '{name}' of .* has the name of ids"):
            import_features(path, tmp_path / "cache", features_column="*")


def test_many_identifiers_and_long_names_make_one_short_message():
    frame = pd.DataFrame(np.ones((2, 9)), columns=[f"{'x' * 300}{i}_id" for i in range(9)])
    with pytest.warns(UserWarning, match="and 4 more") as caught:
        check_columns(DPFCClassifier(), frame, reset=True)
    assert len(str(caught[0].message)) < 1300


COLUMNS = {
    "strings": (["x"] * N, "got strings"),
    "categories": (pd.Categorical(["x", "y"] * (N // 2)), "got strings"),
    "dates": (pd.date_range("2020-01-01", periods=N), "datetime64"),
    "complex": (np.ones(N) * 1j, "Complex data"),
    "objects": ([{}] * N, "got dict"),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("column", "words"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_that_holds_no_numbers_is_named(make, column, words):
    for frame in (FRAME.assign(ward=column), pd.DataFrame({"ward": column, "bed": column})):
        with pytest.raises(
            (TypeError, ValueError), match="X's column 'ward' cannot be a"
        ) as caught:
            make().fit(frame, CODES)
        assert words in str(caught.value) and "TableEncoder" in str(caught.value)
        assert "2020" not in str(caught.value) and "'x'" not in str(caught.value)


def test_a_column_of_a_table_of_arrow_that_holds_no_numbers_is_named():
    table = pa.table({"age": [1.0, 2.0], "ward": ["x", "y"]})
    with pytest.raises(ValueError, match="X's column 'ward' cannot be a feature"):
        as_matrix(table)


def test_the_name_of_a_file_in_the_place_of_rows_says_how_to_read_it():
    with pytest.raises(ValueError, match="got strings: a file is read first"):
        DPFCClassifier(classes=[0, 1]).fit("train.npy", CODES)
