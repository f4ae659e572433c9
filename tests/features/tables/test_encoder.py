"""Tables as features: by the schema and each row alone."""

import pickle
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import dpfc
from dpfc import TableEncoder
from dpfc.features import DatasetError, TableSchema

pd = pytest.importorskip("pandas")

SCHEMA = {
    "columns": {
        "age": {"type": "number", "min": 0, "max": 100, "knots": 3, "missing": "indicator"},
        "income": {"type": "number", "min": 0, "max": 1e6, "scale": "log", "missing": 1000},
        "sex": {"type": "category", "values": ["F", "M"], "missing": "indicator"},
        "grade": {"type": "category", "values": [1, 2, 3], "unlisted": "refuse"},
        "smoker": {"type": "boolean", "missing": False},
        "seen": {
            "type": "date",
            "min": "2020-01-01",
            "max": "2024-12-31",
            "parts": ["date", "month", "weekday"],
            "missing": "indicator",
        },
        "ill": {"role": "label", "values": ["no", "yes"]},
        "who": {"role": "group"},
        "notes": "ignore",
    }
}
ROW = {
    "age": 50,
    "income": 30_000.0,
    "sex": "F",
    "grade": 2,
    "smoker": True,
    "seen": date(2022, 2, 3),
}
N_FEATURES = 3 + 8 + 4 + 3 + 1 + (8 + 12 + 7 + 1)


def encoded(**changes):
    return TableEncoder(SCHEMA).transform([ROW | changes])[0]


def one(column, *values):
    """Features of one column's values."""
    encoder = TableEncoder({"columns": {"x": column}})
    return encoder.transform({"x": list(values)}).astype(np.float64)


def filled(*rows):
    """Of shares that are filled between knots, the features."""
    shares = np.array(rows, dtype=float)
    return (2 * shares - 1) / np.sqrt(shares.shape[1])


def test_a_numbers_features_fill_one_after_the_other():
    column = {"type": "number", "min": 0, "max": 100, "knots": 3}
    expected = filled([0, 0], [0.5, 0], [1, 0], [1, 0.8], [1, 1])
    np.testing.assert_allclose(one(column, 0, 25, 50, 90, 100), expected, atol=1e-6)
    np.testing.assert_array_equal(one(column, -5, 1e300, -np.inf), one(column, 0, 100, 0))
    marked = one({**column, "missing": "indicator"}, 25, None)
    np.testing.assert_allclose(marked, [[0, -(0.5**0.5), 0], [0, 0, 1]], atol=1e-6)


def test_what_two_numbers_have_in_common_falls_with_their_distance():
    """Whatever the knots, so that more of them do not cost more."""
    for knots in (9, 33):
        X = one({"type": "number", "min": 0, "max": 8, "knots": knots}, 1, 2, 5, 8)
        np.testing.assert_allclose(X[0] @ X.T, [1, 0.75, 0, -0.75], atol=1e-6)


def test_two_knots_or_cells_are_one_feature():
    number = {"type": "number", "min": 0, "max": 10, "knots": 2}
    np.testing.assert_allclose(one(number, 0, 5, 10), [[-1], [0], [1]], atol=1e-6)
    np.testing.assert_allclose(one({"type": "boolean"}, "no", 1), [[-(0.5**0.5)], [0.5**0.5]])
    names = TableEncoder({"columns": {"x": number, "y": {"type": "boolean"}}})
    assert names.get_feature_names_out().tolist() == ["x", "y=true"]


def test_equal_ratios_are_equal_steps_on_a_log_scale():
    column = {"type": "number", "min": 1, "max": 10_000, "scale": "log", "knots": 5}
    steps = np.tril(np.ones((5, 4)), -1)
    np.testing.assert_allclose(one(column, 1, 10, 100, 1000, 10_000), filled(*steps), atol=1e-6)
    from_zero = {**column, "min": 0, "max": 3, "knots": 3}
    np.testing.assert_allclose(one(from_zero, 0, 1, 3), filled([0, 0], [1, 0], [1, 1]), atol=1e-6)


def test_a_category_is_one_of_its_values_other_or_missing():
    column = {"type": "category", "values": ["F", "M"], "missing": "indicator"}
    np.testing.assert_allclose(one(column, "F", "M", "X", None), np.eye(4) - 0.25)
    column |= {"unlisted": "missing"}
    np.testing.assert_allclose(one(column, "F", "M", "X", " NA "), np.eye(3)[[0, 1, 2, 2]] - 1 / 3)
    column |= {"missing": "M", "values": ["F", "M", "NA"]}
    np.testing.assert_allclose(one(column, None, "X", "NA"), np.eye(3)[[1, 1, 2]] - 1 / 3)


def test_a_date_is_its_place_its_month_and_its_weekday():
    seen = SCHEMA["columns"]["seen"] | {"missing": "refuse"}
    row = one({**seen, "parts": ["month", "weekday"]}, "2022-02-03")[0]
    assert row[:12].argmax() == 1 and row[12:].argmax() == date(2022, 2, 3).weekday()
    place = {**seen, "parts": ["date"], "knots": 2}
    days = [(day - date(2020, 1, 1)).days / 1826 for day in (date(2020, 1, 1), date(2022, 2, 3))]
    np.testing.assert_allclose(
        one(place, "2019-05-05", "2022-02-03 23:59")[:, 0],
        2 * np.array(days) - 1,
        atol=1e-6,
    )
    german = {**place, "format": "%d.%m.%Y"}
    np.testing.assert_array_equal(one(german, "03.02.2022"), one(place, "2022-02-03"))


def test_public_values_stand_in_for_missing_ones():
    np.testing.assert_array_equal(encoded(income=None), encoded(income=1000))
    np.testing.assert_array_equal(encoded(smoker=""), encoded(smoker="no"))
    stands_in = {"type": "date", "min": "2020-01-01", "max": "2024-12-31", "missing": "2021-01-01"}
    np.testing.assert_array_equal(one(stands_in, "?"), one(stands_in, "2021-01-01"))


def test_cells_are_centred_and_rows_are_of_about_one_length():
    rng = np.random.default_rng(0)
    table = {
        "age": rng.uniform(-10, 110, 500),
        "income": rng.lognormal(8, 2, 500),
        "sex": rng.choice(["F", "M", "X"], 500),
        "grade": rng.integers(1, 4, 500),
        "smoker": rng.choice([True, False], 500),
        "seen": np.datetime64("2020-01-01") + rng.integers(0, 1800, 500),
    }
    X = TableEncoder(SCHEMA).transform(table)
    assert X.shape == (500, N_FEATURES) and X.dtype == np.float32
    lengths = np.linalg.norm(X, axis=1)
    assert lengths.max() < 1.5 * lengths.min()
    for start, stop in ((11, 15), (15, 18), (27, 39), (39, 46)):  # categories' cells
        np.testing.assert_allclose(X[:, start:stop].sum(axis=1), 0, atol=1e-6)


TABLE = {
    "age": [50, None, 17.5],
    "income": [30_000.0, None, 12.0],
    "sex": ["F", None, "M"],
    "grade": [2, 1, 3],
    "smoker": [True, None, False],
    "seen": [datetime(2022, 2, 3, 5), None, datetime(2024, 1, 1)],
}


def test_any_kind_of_table_has_the_same_features():
    expected = TableEncoder(SCHEMA).transform(TABLE)
    frame, arrow = pd.DataFrame(TABLE), pa.table(TABLE)
    records = [dict(zip(TABLE, row, strict=True)) for row in zip(*TABLE.values(), strict=True)]
    texts = {name: ["" if v is None else str(v) for v in TABLE[name]] for name in TABLE}
    kinds = {
        "frame": frame,
        "nullable": frame.convert_dtypes(),
        "objects": frame.astype(object),
        "categories": frame.astype({"sex": "category", "grade": "category"}),
        "arrow frame": frame.convert_dtypes(dtype_backend="pyarrow"),
        "arrow": arrow,
        "batch": arrow.to_batches()[0],
        "dictionary": arrow.set_column(2, "sex", arrow["sex"].dictionary_encode()),
        "records": records,
        "texts": texts,
        "decimals": TABLE | {"age": [Decimal(50), Decimal("NaN"), Decimal("17.5")]},
        "reversed": dict(reversed(TABLE.items())),
    }
    for kind, table in kinds.items():
        np.testing.assert_array_equal(TableEncoder(SCHEMA).transform(table), expected, kind)


class Streamed:
    """A table that only shows itself to Arrow, as those of polars do."""

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.table(TABLE).__arrow_c_stream__(requested_schema)


def test_a_table_that_shows_itself_to_arrow_is_read():
    expected = TableEncoder(SCHEMA).transform(TABLE)
    np.testing.assert_array_equal(TableEncoder(SCHEMA).transform(Streamed()), expected)


def test_a_rows_features_depend_on_it_alone():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "age": rng.uniform(0, 100, 300),
            "income": rng.lognormal(8, 2, 300),
            "sex": rng.choice(["F", "M", None], 300),
            "grade": rng.integers(1, 4, 300),
            "smoker": rng.choice([True, False], 300),
            "seen": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1800, 300), "D"),
        }
    )
    encoder = TableEncoder(SCHEMA).fit(table)
    whole = encoder.transform(table)
    order = rng.permutation(300)
    np.testing.assert_array_equal(encoder.transform(table.iloc[order]), whole[order])
    for row in range(0, 300, 37):
        alone = encoder.transform(table.iloc[[row]])[0]
        assert alone.tobytes() == whole[row].tobytes()
    other = clone(encoder).fit(table.iloc[:1])
    np.testing.assert_array_equal(other.transform(table), whole)


NO_DATE = (
    "column 'seen' holds no date such as 2026-01-31; for other forms give the schema a format."
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"age": "old"}, "row 1: column 'age' holds no number such as 12.5."),
        ({"age": "1_000"}, "row 1: column 'age' holds no number such as 12.5."),
        ({"age": True}, "row 1: column 'age' holds no number such as 12.5."),
        ({"age": [1]}, "row 1: column 'age' holds no number such as 12.5."),
        ({"sex": ["F"]}, "row 1: column 'sex' holds neither text nor number."),
        ({"grade": 4}, "row 1: column 'grade' holds a value that the schema does not list."),
        (
            {"grade": None},
            "row 1: column 'grade' holds no value: give the schema missing: indicator, or a "
            "public value that stands in.",
        ),
        ({"smoker": "sometimes"}, "row 1: column 'smoker' holds neither true nor false."),
        ({"smoker": 2}, "row 1: column 'smoker' holds neither true nor false."),
        ({"seen": "03/02/2022"}, f"row 1: {NO_DATE}"),
        ({"seen": 20_220_203}, f"row 1: {NO_DATE}"),
    ],
)
def test_a_wrong_value_is_named_by_row_and_column_and_not_quoted(changes, words):
    with pytest.raises(DatasetError) as caught:
        TableEncoder(SCHEMA).transform([ROW, ROW | changes])
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({k: [v] for k, v in ROW.items() if k != "sex"}, "X has no column 'sex', which the sch"),
        (
            {k.replace("income", "Income"): [v] for k, v in ROW.items()},
            "X has no column 'income', which the schema has. Did you mean 'Income'?",
        ),
        ({k: [v] for k, v in (ROW | {"height": 1}).items()}, "X has a column 'height', which"),
        ({k: [v] * (1 + (k == "sex")) for k, v in ROW.items()}, "X's columns differ in length"),
        (np.zeros((3, 6)), "X must be a table with named columns"),
        ("a.csv", "X must be a table with named columns"),
        (pd.DataFrame([[1, 2]], columns=["age", "age"]), "X names a column twice"),
        (pd.DataFrame([[1, 2]]), "names of X's columns must be texts"),
        ({"age": np.zeros((2, 2))} | {k: [v, v] for k, v in ROW.items() if k != "age"}, "one dim"),
    ],
)
def test_another_table_is_refused(table, words):
    with pytest.raises(ValueError) as caught:
        TableEncoder(SCHEMA).transform(table)
    assert words in str(caught.value)


def test_other_columns_may_be_ignored_and_roles_be_absent():
    schema = SCHEMA | {"other_columns": "ignore"}
    rows = [ROW | {"height": 3, "ill": "no", "who": "a", "notes": object()}]
    np.testing.assert_array_equal(TableEncoder(schema).transform(rows)[0], encoded())


def test_it_follows_the_conventions_of_scikit_learn(tmp_path):
    frame = pd.DataFrame([ROW, ROW])
    TableSchema.from_dict(SCHEMA).save(tmp_path / "schema.yaml")
    for schema in (SCHEMA, TableSchema.from_dict(SCHEMA), tmp_path / "schema.yaml"):
        encoder = clone(TableEncoder(schema))
        assert encoder.get_params() == {"schema": schema}
        assert encoder.fit(frame) is encoder
        copy = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_array_equal(copy.transform(frame), encoder.transform(frame))
    (tmp_path / "schema.yaml").unlink()
    assert copy.transform(frame).shape == (2, N_FEATURES)
    names = encoder.get_feature_names_out()
    assert len(set(names)) == N_FEATURES and encoder.n_features_in_ == 6
    table = encoder.set_output(transform="pandas").transform(frame)
    assert table.columns.tolist() == names.tolist()
    assert table.index.equals(frame.index)


def test_a_private_classifier_takes_its_features():
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], 400)
    frame = pd.DataFrame([ROW] * 400)
    frame["age"] = np.where(y == "yes", 80, 20) + rng.normal(0, 5, 400)
    # Without noise the classes must come apart by the age alone.
    model = make_pipeline(
        TableEncoder(SCHEMA),
        dpfc.DPLeastSquaresClassifier(epsilon=np.inf, classes=["no", "yes"]),
    )
    assert model.fit(frame, y).score(frame, y) > 0.95


VALUES = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.datetimes(),
    st.decimals(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(["F", "3", " 2.0 ", "1e400", "2022-02-30", "NA", "yes", "²", "１"]),
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(ROW, VALUES)), min_size=1, max_size=4))
def test_any_value_becomes_a_bounded_row_or_a_refusal_that_quotes_nothing(rows):
    try:
        X = TableEncoder(SCHEMA).transform(rows)
    except DatasetError as error:
        column = str(error).split("'")[1]
        assert column in ROW
        assert str(error).split(": column")[0] in {f"row {i}" for i in range(len(rows))}
        assert (error.__cause__ is None and error.__suppress_context__) or error.__context__ is None
        return
    assert X.shape == (len(rows), N_FEATURES)
    assert np.isfinite(X).all() and np.abs(X).max() <= 1
