"""Tables of mixed columns as feature caches, by a public schema."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpfc import TableEncoder
from dpfc.features import (
    DatasetError,
    FeatureCache,
    FeatureCacheError,
    TableSchema,
    import_features,
)

N = 700
RNG = np.random.default_rng(0)
SCHEMA = {
    "source": "the ward's data dictionary",
    "columns": {
        "patient": {"role": "group"},
        "visit": {"role": "id"},
        "age": {"type": "number", "min": 0, "max": 100, "missing": "indicator"},
        "ward": {"type": "category", "values": ["A", "B"]},
        "notes": "ignore",
        "ill": {"role": "label", "values": ["no", "yes"]},
    },
}
TABLE = {
    "patient": [f"p{i // 3}" for i in range(N)],
    "visit": [f"v{i}" for i in range(N)],
    "age": [None if i % 50 == 0 else int(age) for i, age in enumerate(RNG.integers(0, 110, N))],
    "ward": RNG.choice(["A", "B", "C"], N).tolist(),
    "notes": ["a, b"] * N,
    "ill": RNG.choice(["no", "yes"], N).tolist(),
}
ONE = {name: values[:1] for name, values in TABLE.items()}


def features(table=TABLE, schema=SCHEMA):
    return TableEncoder(schema).transform(table)


def codes(table=TABLE):
    return [["no", "yes"].index(label) for label in table["ill"]]


def write(path, table):
    arrow = pa.table(table)
    if path.suffix == ".parquet":
        pq.write_table(arrow, path)
    elif path.suffix == ".jsonl":
        arrow.to_pandas().to_json(path, orient="records", lines=True)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        arrow.to_pandas().to_csv(path, index=False, sep=separator)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.jsonl"])
def test_any_table_becomes_the_features_of_the_encoder(assert_holds, tmp_path, name):
    pytest.importorskip("pandas")
    path = write(tmp_path / name, TABLE)
    TableSchema.from_dict(SCHEMA).save(tmp_path / "schema.yaml")
    cache = import_features(
        path, tmp_path / "c", schema=tmp_path / "schema.yaml", shard_rows=300, dtype="float32"
    )
    assert_holds(cache, features(), codes(), ids=TABLE["visit"])
    assert cache.class_names == ["no", "yes"]
    # Codes in the order of first rows: three rows in a row are one patient's.
    assert cache.groups().tolist() == [i // 3 for i in range(N)]
    assert cache.manifest["preprocessing"]["schema"] == TableSchema.from_dict(SCHEMA).to_dict()


def test_the_schema_goes_on_to_models_and_the_file_does_not(tmp_path):
    write(tmp_path / "secret.csv", TABLE)
    cache = import_features(tmp_path / "secret.csv", tmp_path / "c", schema=SCHEMA)
    assert cache.origin["spec"] == "table"
    assert TableSchema.from_dict(cache.origin["preprocessing"]["schema"]) == (
        TableSchema.from_dict(SCHEMA)
    )
    assert "secret" not in str(cache.origin)


def test_a_cache_of_another_schema_is_not_gone_on_with(tmp_path):
    write(tmp_path / "t.csv", TABLE)
    import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)
    again = import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)
    assert len(again) == N
    with pytest.raises(FeatureCacheError):
        import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA | {"knots": 3})
    assert len(FeatureCache.open(tmp_path / "c")) == N


def test_several_files_follow_each_other(assert_holds, tmp_path):
    half = N // 2
    for name, part in (("a", slice(half)), ("b", slice(half, None))):
        write(tmp_path / f"{name}.csv", {key: values[part] for key, values in TABLE.items()})
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    cache = import_features(paths, tmp_path / "c", schema=SCHEMA, dtype="float32")
    assert_holds(cache, features(), codes(), ids=TABLE["visit"])


@pytest.mark.parametrize("kind", ["int", "text", "float"])
def test_numbers_are_the_classes_that_the_schema_calls_by_them(tmp_path, kind):
    """Not positions in its list: here 1 comes first."""
    columns = {
        "age": {"type": "number", "min": 0, "max": 9},
        "y": {"role": "label", "values": [1, 0]},
    }
    labels = {"int": [1, 0, 0], "text": ["1", "0.0", " 0"], "float": [1.0, 0.0, 0.0]}[kind]
    write(tmp_path / "t.parquet", {"age": [1, 2, 3], "y": labels})
    cache = import_features(tmp_path / "t.parquet", tmp_path / "c", schema={"columns": columns})
    assert cache.class_names == ["1", "0"]
    assert cache.read_labels().tolist() == [0, 1, 1]


def test_rows_without_a_label_are_refused_or_left_out(tmp_path):
    table = TABLE | {"ill": ["NA", *TABLE["ill"][1:]]}
    write(tmp_path / "t.csv", table)
    with pytest.raises(DatasetError, match=r"row 0 of .*t\.csv .*has no label"):
        import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)
    cache = import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA, on_error="skip")
    assert len(cache) == N - 1
    assert [row["id"] for row in cache.manifest["skipped"]] == ["v0"]


def test_rows_without_a_group_are_refused(tmp_path):
    write(tmp_path / "t.csv", TABLE | {"patient": [*TABLE["patient"][:-1], "NA"]})
    with pytest.raises(DatasetError, match=rf"row {N - 1} of .*t\.csv has no group"):
        import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)
    write(tmp_path / "t.csv", {k: v for k, v in TABLE.items() if k != "patient"})
    with pytest.raises(DatasetError, match="has no column 'patient', which the schema has"):
        import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)


TELLING = {
    "category": ({"type": "category", "values": ["flu"], "missing": "indicator"}, ["NA", "flu"]),
    "number": ({"type": "number", "min": 0, "max": 10}, [2, 7]),
    "boolean": ({"type": "boolean"}, ["no", "yes"]),
}


@pytest.mark.parametrize("kind", ["category", "number", "boolean"])
def test_a_column_that_tells_the_label_is_refused(tmp_path, kind):
    column, values = TELLING[kind]
    schema = SCHEMA | {"columns": SCHEMA["columns"] | {"diagnosis": column}}
    told = [values[label == "yes"] for label in TABLE["ill"]]
    write(tmp_path / "t.csv", TABLE | {"diagnosis": [str(value) for value in told]})
    with pytest.raises(DatasetError, match=r"feature 'diagnosis.*role: ignore"):
        import_features(tmp_path / "t.csv", tmp_path / "c", schema=schema)


def test_a_number_that_parts_the_classes_is_a_feature(tmp_path):
    """Its first and last features are the same for all rows of a class: not what it says."""
    ages = [(70 if label == "yes" else 20) + i % 9 for i, label in enumerate(TABLE["ill"])]
    write(tmp_path / "t.csv", TABLE | {"age": ages})
    assert len(import_features(tmp_path / "t.csv", tmp_path / "c", schema=SCHEMA)) == N


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("age,ward,ill\nSECRET,A,no\n", "row 0 of .*: column 'age' holds no number"),
        ("age,ill\n1,no\n", "has no column 'ward', which the schema has"),
        ("age,ward,ill,more\n1,A,no,SECRET\n", "has a column 'more', which the schema has not"),
        ("SECRET,3,4\nSECRET,A,no\n", "none of the schema's columns; its first line looks like"),
        ("age,ward,ill\n1,A,SECRET\n", "row 0 .*has a label outside its classes"),
        ("age,ward,ill\n1,A\n", "row 0 of .* has 2 fields, the header 3"),
        ("age,age,ward\n1,2,A\n", "names a column twice"),
        ("age,ward,ill\n", "holds no rows"),
        ("", "none of the schema's columns"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    columns = {k: v for k, v in SCHEMA["columns"].items() if k not in ("patient", "visit")}
    with pytest.raises(DatasetError, match=words) as caught:
        import_features(tmp_path / "t.csv", tmp_path / "c", schema={"columns": columns})
    assert "SECRET" not in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_column": "ward"}, "label_column does not go with schema"),
        ({"features_column": "*"}, "features_column does not go with schema"),
        ({"id_column": "visit"}, "id_column does not go with schema"),
        ({"group_column": "patient"}, "group_column does not go with schema"),
        ({"class_names": ["yes", "no"]}, "names its classes otherwise than class_names"),
        ({"schema": {"columns": {}}}, "no column is a feature"),
    ],
)
def test_the_schema_says_which_column_is_what(tmp_path, options, words):
    write(tmp_path / "t.csv", ONE)
    with pytest.raises(ValueError, match=words):
        import_features(tmp_path / "t.csv", tmp_path / "c", **{"schema": SCHEMA, **options})


def test_what_is_no_table_takes_no_schema(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(3))
    with pytest.raises(DatasetError, match="is no table that a schema can describe"):
        import_features(tmp_path / "x.npy", tmp_path / "c", schema=SCHEMA)
