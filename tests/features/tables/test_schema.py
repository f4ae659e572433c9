"""Schemas: what is public about a table's columns."""

from datetime import date

import pytest

from dpfc.features import TableSchema
from dpfc.features.tables.schema import CategoryColumn, NumberColumn, OtherColumn, read_schema

AGE = {"type": "number", "min": 0, "max": 100}


def written(tmp_path, text):
    path = tmp_path / "schema.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_and_python_say_the_same(tmp_path):
    path = written(
        tmp_path,
        """
source: the registry's data dictionary of 2024
columns:
  age: {type: number, min: 0, max: 100, unit: years}
  sex: {type: category, values: [F, M]}
  born: {type: date, min: 1900-01-01, max: 2024-12-31, parts: [date, month]}
  ill: {role: label, values: [no, yes]}
  name: ignore
""",
    )
    schema = read_schema(path)
    assert schema == TableSchema.from_dict(
        {
            "source": "the registry's data dictionary of 2024",
            "columns": {
                "age": {**AGE, "unit": "years"},
                "sex": {"type": "category", "values": ["F", "M"]},
                "born": {
                    "type": "date",
                    "min": date(1900, 1, 1),
                    "max": "2024-12-31",
                    "parts": ["date", "month"],
                },
                "ill": {"role": "label", "values": ["no", "yes"]},
                "name": {"role": "ignore"},
            },
        }
    )
    assert list(schema.features) == ["age", "sex", "born"]
    assert schema.class_names == ("no", "yes")
    assert schema.with_role("label") == "ill" and schema.with_role("group") is None


def test_a_schema_is_the_same_after_saving_and_as_plain_values(tmp_path):
    schema = TableSchema(
        columns={
            "age": NumberColumn(min=0, max=100, missing=50.0, knots=3),
            "code": CategoryColumn(values=("1", "02", "no", "true"), missing="no"),
            "born": {"type": "date", "min": "1900-01-01", "max": "2024-12-31"},
            "who": OtherColumn(role="group"),
        },
        knots=4,
    )
    schema.save(tmp_path / "schema.yaml")
    assert read_schema(tmp_path / "schema.yaml") == schema
    assert TableSchema.from_dict(schema.to_dict()) == schema
    assert TableSchema.from_dict(schema.to_dict()).sha256 == schema.sha256
    assert "written by hand" in (tmp_path / "schema.yaml").read_text(encoding="utf-8")


def test_listed_values_and_names_are_the_texts_that_stand_in_the_file(tmp_path):
    path = written(
        tmp_path,
        "columns:\n  no: {type: category, values: [yes, no, 1, 1.50, null]}\n  2: {role: id}\n",
    )
    schema = read_schema(path)
    assert list(schema.columns) == ["no", "2"]
    assert schema.columns["no"].values == ("yes", "no", "1", "1.50", "null")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"age": {**AGE, "min": 100}}, "column 'age': min must be below max"),
        ({"age": {**AGE, "max": float("inf")}}, "column 'age': max: Input should be a finite"),
        ({"age": {"type": "number", "min": 0}}, "column 'age': max: Field required"),
        ({"age": {**AGE, "bounds": 3}}, "column 'age': bounds is not known"),
        ({"age": {**AGE, "knot": 3}}, "knot is not known. Did you mean 'knots'?"),
        ({"age": {**AGE, "values": ["a"]}}, "values does not go with type: number"),
        (
            {"ill": {"role": "label", "type": "boolean"}},
            "type does not go with role: label; values lists its classes",
        ),
        ({"who": {"role": "group", "min": 0}}, "min does not go with role: group"),
        ({"age": {**AGE, "knots": 1}}, "column 'age': knots"),
        ({"age": {**AGE, "min": -1, "scale": "log"}}, "scale: log needs a min of 0 or more"),
        ({"age": {"type": "text"}}, "column 'age': type must be one of boolean, category"),
        ({"age": {"type": "number", "min": -1e308, "max": 1e308}}, "larger than numbers can be"),
        ({"s": {"type": "category", "values": []}}, "column 's': values"),
        ({"s": {"type": "category", "values": ["a", "a"]}}, "values holds 'a' twice"),
        ({"s": {"type": "category", "values": ["1", 1.0]}}, "values holds '1' twice"),
        ({"s": {"type": "category", "values": ["a", " "]}}, "holds an empty text"),
        ({"s": {"type": "category", "values": [True, False]}}, "quote 'yes', 'no'"),
        ({"s": {"type": "category", "values": ["a"], "missing": "b"}}, "missing must be refuse"),
        ({"d": {"type": "date", "min": "2024-01-01", "max": "2023-01-01"}}, "min must be before"),
        ({"d": {"type": "date", "min": "2024-01-01", "max": "2024-01-32"}}, "column 'd': max"),
        ({"a": AGE, "x": {"role": "label"}, "y": {"role": "label"}}, "both have the role label"),
        ({"x": {"role": "label"}}, "no column is a feature"),
        ({"a": AGE, "x": 3}, "column 'x'"),
    ],
)
def test_a_fault_is_named_with_its_column(columns, words):
    with pytest.raises(ValueError, match=r"^the schema: ") as caught:
        TableSchema.from_dict({"columns": columns})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("columns:\n  a: {type: boolean}\n  a: {type: boolean}\n", "line 3: column 'a' stands"),
        ("", "schema.yaml is no schema: it needs columns"),
        ("- 1\n", "schema.yaml is no schema: it needs columns"),
        ("columns: 3\n", "schema.yaml: columns: "),
        ("columns: {a: {type: boolean}}\ncolour: red\n", "colour is not known"),
        ("columns: [\n", "not YAML"),
    ],
)
def test_a_fault_of_a_file_names_the_file(tmp_path, text, words):
    with pytest.raises(ValueError, match=r"schema\.yaml") as caught:
        read_schema(written(tmp_path, text))
    assert words in str(caught.value)


def test_what_is_no_schema_is_refused():
    with pytest.raises(ValueError, match="must be a TableSchema, a dictionary or a path, got int"):
        read_schema(3)
