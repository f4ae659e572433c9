"""`dpfc forecast`: from public rows or numbers to a table and a picture, and nothing spent."""

import csv
import json

import pytest

QUICK = ["--n-samples", "40,900", "--epsilons", "0.5,8", "--repeats", 2, "--method", "ls"]
NUMBERS = ["--n-features", 6, "--n-classes", 3, "--accuracy", 0.9]


def test_public_rows_give_a_table_and_files(dpfc, strict_json, cache_path, tmp_path):
    table, page = tmp_path / "f.csv", tmp_path / "f.json"
    result = dpfc(
        *("forecast", "--public-features", cache_path, *QUICK, "--out", table, "--out", page)
    )
    assert result.code == 0, result.err
    assert "90 public rows" in result.out and "80% interval" in result.out
    report = strict_json(page.read_text())
    cells = list(csv.DictReader(table.read_text().splitlines()))
    assert [int(cell["n_samples"]) for cell in cells] == [40, 40, 900, 900]
    for cell, kept in zip(cells, report["cells"], strict=True):
        assert {name: float(value) for name, value in cell.items()} == kept
        assert 0 <= kept["low"] <= kept["accuracy"] <= kept["high"] <= 1
    assert report["cells"][-1]["accuracy"] > 0.9 and report["n_classes"] == 3


def test_numbers_alone_are_enough_and_the_same_seed_gives_the_same(dpfc, strict_json):
    found = [
        strict_json(dpfc("forecast", *QUICK, *NUMBERS, *more, "--json").out)
        for more in ([], [], ["--seed", 1], ["--class-shares", "0.5,0.3,0.2"])
    ]
    assert found[0] == found[1] and found[0]["cells"] != found[2]["cells"]
    assert found[0]["constant"] == pytest.approx(1 / 3) and found[3]["constant"] == 0.5


def test_fewer_test_rows_make_a_wider_interval(dpfc, strict_json):
    many, few = (
        strict_json(dpfc("forecast", *QUICK, *NUMBERS, *more, "--json").out)["cells"][-1]
        for more in ([], ["--n-test", 50])
    )
    assert few["accuracy"] == many["accuracy"] and few["low"] < many["low"] - 0.01


def test_pictures(dpfc, tmp_path):
    pytest.importorskip("vl_convert")
    files = [tmp_path / "f.png", tmp_path / "f.svg"]
    outs = [word for path in files for word in ("--out", path)]
    result = dpfc("forecast", *QUICK, *NUMBERS, *outs)
    assert result.code == 0, result.err
    assert files[0].read_bytes().startswith(b"\x89PNG")
    drawn = files[1].read_text()
    assert "40 rows" in drawn and "900 rows" in drawn and "80% intervals" in drawn


def test_help_says_that_no_private_row_is_read(dpfc):
    words = " ".join(dpfc("forecast", "--help").out.split())
    assert "reads no private row" in words and "Never the private one" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--public-features (a similar data set that is public)"),
        ([*NUMBERS, "--n-samples", "1.5"], "whole numbers"),
        ([*NUMBERS, "--n-samples", "1"], "--n-samples must be an int in [2"),
        ([*NUMBERS, "--epsilons", "0"], "--epsilons takes finite numbers > 0"),
        ([*NUMBERS, "--class-shares", "a,b"], "--class-shares takes numbers"),
        ([*NUMBERS, "--out", "forecast.pdf"], "--out must end in .csv"),
        ([*NUMBERS, "--method", "gd", "--set", "sampling_probability=0.1"], "full-batch"),
        (["--public-features", "nowhere"], "no feature cache at nowhere"),
    ],
)
def test_what_is_wrong_is_said(dpfc, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = dpfc("forecast", "--n-samples", 40, "--repeats", 2, *words)
    assert result.code == 1 and message in result.err, result.err
    assert not list(tmp_path.iterdir())


def test_files_that_are_there_are_kept(dpfc, cache_path, tmp_path):
    table = tmp_path / "f.csv"
    table.write_text("mine")
    assert dpfc("forecast", *QUICK, *NUMBERS, "--out", table).code == 1
    assert table.read_text() == "mine"
    inside = cache_path / "manifest.json"
    before = inside.read_bytes()
    words = ["--public-features", cache_path, "--out", inside, "--force"]
    assert dpfc("forecast", *QUICK, *words).code == 1 and inside.read_bytes() == before


def test_an_interrupt_leaves_nothing(dpfc, tmp_path, monkeypatch):
    from dpfc import DPLeastSquaresClassifier

    fit, calls = DPLeastSquaresClassifier.fit, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return fit(*arguments, **named)

    monkeypatch.setattr(DPLeastSquaresClassifier, "fit", interrupted)
    result = dpfc("forecast", *QUICK, *NUMBERS, "--out", tmp_path / "f.json")
    assert result.code == 130 and "interrupted" in result.err and len(calls) == 3
    assert not list(tmp_path.iterdir())


def test_unlabelled_public_rows_are_refused(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "bare", labels=False)
    result = dpfc("forecast", "--public-features", tmp_path / "bare", *QUICK)
    assert result.code == 1 and "holds no labels" in result.err


def test_json_file_and_output_are_the_same(dpfc, tmp_path):
    page = tmp_path / "f.json"
    result = dpfc("forecast", *QUICK, *NUMBERS, "--json", "--out", page)
    assert json.loads(result.out) == json.loads(page.read_text())
