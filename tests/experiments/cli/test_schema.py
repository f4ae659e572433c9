"""`dpfc schema`, and a table's way from CSV to predictions."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpfc import load_model, model_card
from dpfc.features.tables.schema import read_schema

N = 400
RNG = np.random.default_rng(0)
ILL = RNG.random(N) < 0.5
HEADER = "who,age,sex,seen,income,smoker,code,notes,ill"


def table(n=N, *, ages=None, labels=True):
    """Rows in which the age tells who is ill."""
    ages = np.where(ILL, 70, 30) + RNG.integers(-9, 9, N) if ages is None else ages
    rows = [HEADER if labels else HEADER.removesuffix(",ill")]
    for i in range(n):
        sex = "" if i == 5 else "FM"[i % 2]
        row = f"p{i},{ages[i]},{sex},2024-0{1 + i % 9}-11,{10 ** (i % 6)},{'yn'[i % 2]},"
        row += f"0{i % 7},note {i}"
        rows.append(row + f",{'yes' if ILL[i] else 'no'}" * labels)
    return "\n".join(rows) + "\n"


@pytest.fixture
def sample(tmp_path):
    (tmp_path / "sample.csv").write_text(table())
    return tmp_path / "sample.csv"


def test_a_public_sample_becomes_a_schema_that_says_so(dpfc, sample, tmp_path):
    out = tmp_path / "schema.yaml"
    run = dpfc("schema", "--from-public", sample, "--label-column", "ill", "--out", out)
    assert run.code == 0, run.err
    assert "that file must be public" in run.out
    schema = read_schema(out)
    assert schema.source.startswith(f"public sample sample.csv, {N} rows, SHA-256 ")
    known = schema.to_dict()["columns"]
    assert known["ill"] == {"role": "label", "values": ["no", "yes"]}
    assert (known["age"]["type"], known["age"]["min"]) == ("number", 21)
    assert known["sex"]["values"] == ["F", "M"] and known["sex"]["missing"] == "indicator"
    assert (known["seen"]["min"], known["seen"]["max"]) == ("2024-01-01", "2024-12-31")
    assert known["income"]["scale"] == "log" and known["smoker"]["type"] == "boolean"
    # A code with zeros before it is no number; a text of many values is left out.
    assert known["code"]["values"] == [f"0{i}" for i in range(7)]
    assert known["notes"] == {"role": "ignore"} and known["who"] == {"role": "ignore"}


def test_a_public_sample_may_lack_whose_rows_they_are(dpfc, sample, tmp_path):
    out = tmp_path / "s.yaml"
    write = ["schema", "--from-public", sample, "--out", out, "--group-column"]
    run = dpfc(*write, "patient")
    assert run.code == 0, run.err
    assert read_schema(out).with_role("group") == "patient"
    run = dpfc(*write, "whom", "--force")
    assert run.code == 1 and "Did you mean 'who'?" in run.err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p,50,SECRET", "row 1 of new.csv has a label outside the schema's classes."),
        ("p,50,", "row 1 of new.csv has no label."),
        (",50,yes", "row 1 of new.csv has no group."),
        ("p,50,true", "Every value of new.csv fits."),
    ],
)
def test_a_check_looks_at_labels_and_groups_too(dpfc, tmp_path, monkeypatch, row, message):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(
        "columns:\n  who: {role: group}\n  age: {type: number, min: 0, max: 99}\n"
        "  ill: {role: label, values: [no, yes, True]}\n"
    )
    Path("new.csv").write_text(f"who,age,ill\np,40,no\n{row}\n")
    run = dpfc("schema", "check", "s.yaml", "--table", "new.csv")
    assert message in (run.err or run.out) and "SECRET" not in run.err
    # The import is of the same mind.
    taken = dpfc("features", "import", "new.csv", "--schema", "s.yaml", "--out", "cache")
    assert run.code == taken.code


def test_a_label_without_its_classes_is_pointed_out(dpfc, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("columns: {age: {type: boolean}, ill: {role: label}}")
    assert "label: list its public classes as values" in dpfc("schema", "check", path).out


def test_bounds_are_rounded_outwards(dpfc, tmp_path):
    (tmp_path / "s.csv").write_text("a,b,c,d\n0.123,1995,7,-41.5\n8.761,2003,7,1203\n")
    out = tmp_path / "s.yaml"
    assert dpfc("schema", "--from-public", tmp_path / "s.csv", "--out", out).code == 0
    columns = read_schema(out).columns
    bounds = [(columns[name].min, columns[name].max) for name in "abcd"]
    assert bounds == [(0.1, 8.8), (1995, 2003), (7, 8), (-100, 1300)]


def test_a_data_dictionary_becomes_a_schema(dpfc, tmp_path):
    (tmp_path / "d.csv").write_text(
        "Variable;Data type;Minimum;Maximum;Levels;Missing;Units;Description\n"
        "age;integer;0;110;;indicator;years;at admission\n"
        "sex;factor;;;F|M;;;\n"
        "seen;date;2020-01-01;2024-12-31;;;;\n"
        "smoker;binary;;;;no;;\n"
        "ward;string;;;A|B;;;\n"
        "note;ignore;;;;;;\n"
        "who;string;;;;;;\n"
    )
    out = tmp_path / "s.yaml"
    roles = ["--label-column", "ward", "--group-column", "who", "--out", out]
    run = dpfc("schema", "--from-dictionary", tmp_path / "d.csv", *roles)
    assert run.code == 0, run.err
    assert "0 to 110 years; missing: indicator" in run.out
    schema = read_schema(out)
    assert schema.source.startswith("data dictionary d.csv, 7 columns, SHA-256 ")
    assert list(schema.features) == ["age", "sex", "seen", "smoker"]
    assert schema.class_names == ("A", "B") and schema.with_role("group") == "who"
    assert schema.columns["smoker"].missing is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "is no data dictionary: it needs columns name and type"),
        ("name,type\nage,number\n", "column 'age': min: Field required"),
        ("name,type\nage,colour\n", "column 'age': type must be one of"),
        ("name,type\nage,boolean\nage,boolean\n", "line 2 below the header"),
        ("name,type,min,minimum\nage,number,1,2\n", "columns 'min' and 'minimum' for the min"),
        ("name,type\n,number\n", "line 1 below the header of"),
    ],
)
def test_a_bad_dictionary_is_refused(dpfc, tmp_path, text, words):
    (tmp_path / "d.csv").write_text(text)
    run = dpfc("schema", "--from-dictionary", tmp_path / "d.csv", "--out", tmp_path / "s.yaml")
    assert run.code == 1 and words in run.err
    assert not (tmp_path / "s.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from-public", "sample.csv"], "name the file to write with --out"),
        (["--from-public", "sample.csv", "--out", "sample.csv"], "--out must end in .yaml"),
        (["--from-public", "nowhere.csv", "--out", "s.yaml"], "cannot read nowhere.csv"),
        (["--from-public", "sample.csv", "--from-dictionary", "d.csv", "--out", "s.yaml"], "one"),
        (["--from-public", "sample.csv", "--label-column", "x", "--out", "s.yaml"], "no column"),
        (["check", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_options_are_told_in_one_line(dpfc, sample, monkeypatch, words, message):
    monkeypatch.chdir(sample.parent)
    run = dpfc("schema", *words)
    assert run.code == 1
    assert message in run.err and len(run.err.splitlines()) == 1


def test_from_csv_to_predictions(dpfc, sample, strict_json, tmp_path):
    schema, cache, model = tmp_path / "s.yaml", tmp_path / "cache", tmp_path / "m.safetensors"
    dpfc("schema", "--from-public", sample, "--label-column", "ill", "--out", schema)
    assert "Every value of" in dpfc("schema", "check", schema, "--table", sample).out
    run = dpfc("features", "import", sample, "--schema", schema, "--out", cache)
    assert run.code == 0, run.err
    assert "(public sample sample.csv, 400 rows), which counts as public" in run.out
    assert "schema of 9 columns (public sample sample.csv" in dpfc("features", "info", cache).out
    run = dpfc("fit", "--features", cache, "--epsilon", "50", "--out", model)
    assert "the table's schema is public" in run.out and "public sample sample.csv" in run.out
    opened = load_model(model)
    assert opened.features_from_["spec"] == "table"
    card = model_card(opened)
    assert (
        "public sample sample.csv, 400 rows" in card
        and "weights" not in card.split("## Privacy")[0]
    )
    assert "Columns: age (number), sex (category), seen (date), " in card
    (tmp_path / "new.csv").write_text(table(4, ages=[25, 75, 300, 28], labels=False))
    predict = ["predict", "--model", model, "--out", "-"]
    run = dpfc(*predict, "--table", tmp_path / "new.csv")
    assert run.code == 0, run.err
    rows = list(csv.DictReader(run.out.splitlines()))
    assert [row["predicted_class"] for row in rows] == ["no", "yes", "yes", "no"]
    # As the card says that it is done in Python.
    code = card.split("```python")[1].split("```")[0].replace("model.safetensors", str(model))
    names: dict[str, Any] = {"table": list(csv.DictReader((tmp_path / "new.csv").open()))}
    exec(code.replace("model.predict", "answer = model.predict"), names)
    assert names["answer"].tolist() == ["no", "yes", "yes", "no"]
    # A label that is there is not read.
    (tmp_path / "new.csv").write_text(table(4, ages=[25, 75, 300, 28]).replace("no\n", "SECRET\n"))
    assert dpfc(*predict, "--table", tmp_path / "new.csv").out == run.out
    (tmp_path / "new.csv").write_text(table(4, ages=[25, "SECRET", 3, 4]))
    run = dpfc(*predict, "--table", tmp_path / "new.csv")
    assert run.code == 1 and "row 1 of" in run.err and "SECRET" not in run.err
    run = dpfc(*predict, "--text", "a text")
    assert run.code == 1 and "give it new rows with --table" in run.err


def test_a_table_needs_a_model_of_tables(dpfc, sample, tmp_path):
    np.savez(tmp_path / "x.npz", X=np.eye(20), y=np.arange(20) % 2)
    dpfc("features", "import", tmp_path / "x.npz", "--out", tmp_path / "c")
    fit = ["fit", "--features", tmp_path / "c", "--epsilon", "1", "--classes", "0,1"]
    assert dpfc(*fit, "--out", tmp_path / "m").code == 0
    run = dpfc("predict", "--model", tmp_path / "m", "--table", sample, "--out", "-")
    assert run.code == 1 and "was not trained on a table" in run.err


def test_public_rows_of_the_same_schema_help_a_fit(dpfc, sample, tmp_path):
    schema = tmp_path / "s.yaml"
    dpfc("schema", "--from-public", sample, "--label-column", "ill", "--out", schema)
    (tmp_path / "public.csv").write_text(table(200))
    other = schema.read_text(encoding="utf-8").replace("min: 21", "min: 20")
    (tmp_path / "other.yaml").write_text(other, encoding="utf-8")
    for name, rows, by in (("c", sample, schema), ("same", "public.csv", schema),
                           ("other", "public.csv", tmp_path / "other.yaml")):  # fmt: skip
        run = dpfc("features", "import", tmp_path / rows, "--schema", by, "--out", tmp_path / name)
        assert run.code == 0, run.err
    fit = ["fit", "--features", tmp_path / "c", "--epsilon", "1", "--out", tmp_path / "m"]
    run = dpfc(*fit, "--public-features", tmp_path / "other")
    assert run.code == 1 and "another schema" in run.err
    run = dpfc(*fit, "--public-features", tmp_path / "same")
    assert run.code == 0, run.err
    assert "public_features hold no private rows" in run.out


@pytest.mark.parametrize(
    ("old", "new", "evaluate", "predict", "named"),
    [
        ("unit: y", "unit: years", 0, 0, ""),
        ("max: 99", "max: 200", 1, 1, "column 'age' differs"),
        ("knots: 3", "knots: 5", 1, 1, "knots: differs"),
        ("a: {role: label", "b: {role: label", 1, 0, "column 'b' differs"),
    ],
)
def test_rows_of_another_schema_are_refused(
    dpfc, tmp_path, monkeypatch, old, new, evaluate, predict, named
):
    monkeypatch.chdir(tmp_path)
    text = (
        "knots: 3\nother_columns: ignore\ncolumns:\n"
        "  age: {type: number, min: 0, max: 99, unit: y}\n  a: {role: label, values: [n, y]}\n"
    )
    Path("t.csv").write_text("age,a,b\n" + "1,n,n\n90,y,y\n1,y,n\n40,n,n\n" * 15)
    for name, schema in {"own": text, "other": text.replace(old, new)}.items():
        Path(f"{name}.yaml").write_text(schema)
        made = dpfc("features", "import", "t.csv", "--schema", f"{name}.yaml", "--out", name)
        assert made.code == 0, made.err
    assert dpfc("fit", "--features", "own", "--epsilon", "1", "--out", "m").code == 0
    rows = ["--model", "m", "--features", "other"]
    for run, code in (
        (dpfc("evaluate", *rows, "--epsilon", "1"), evaluate),
        (dpfc("predict", *rows, "--out", "-"), predict),
    ):
        assert run.code == code, run.err
        assert not code or named in run.err


def test_an_empty_table_is_told_as_such(dpfc, tmp_path):
    (tmp_path / "s.yaml").write_text("columns: {age: {type: boolean}}")
    (tmp_path / "empty.csv").write_text("")
    run = dpfc("schema", "check", tmp_path / "s.yaml", "--table", tmp_path / "empty.csv")
    assert run.code == 1 and "it has no columns at all" in run.err
