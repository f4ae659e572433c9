"""What people write into files is shown as they wrote it, and steers no program."""

import csv
import io
from types import SimpleNamespace

import pytest

from dpfc._support.csv_text import inert, write_csv
from dpfc._support.words import shown
from dpfc.experiments.cli import console
from dpfc.experiments.cli.console import print_table
from dpfc.experiments.cli.sweep import _print_cells, _progress
from dpfc.experiments.studies.table import group_rows, to_csv, to_text

MARKUP = ["[/x]", "[bold]b[/bold]", "[/]", ":cat:", "[link=http://x]y[/link]"]
FORMULAS = [
    "=cmd|'/c calc'!A1", "+1+1", "-2+3", "@SUM(A1)", " =1+1", "\t=1+1", "\uff1d1+1",
]  # fmt: skip


def spec(label):
    rows = SimpleNamespace(dataset=label, backbone=label)
    return SimpleNamespace(
        rows=rows, label=label, epsilon=1.0, seed=0, parameters={"loss": label}, key="0"
    )


def row(label="DP-FC", dataset="digits"):
    at = {"dataset": dataset, "backbone": None, "label": label, "epsilon": 1.0}
    return at | {"status": "ok", "parameters": "{}", "accuracy": -0.5, "seconds": 1.0}


@pytest.mark.parametrize("label", MARKUP)
@pytest.mark.parametrize("terminal", [True, False])
def test_a_sweep_shows_labels_as_they_are(label, terminal, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    with _progress(1) as report:
        report("start", spec(label), None)
        report("end", spec(label), {"status": "failed", "error": f"it was {label}"})
    assert capsys.readouterr().err.count(label) >= 5


@pytest.mark.parametrize("label", MARKUP)
def test_a_plan_and_tables_show_names_as_they_are(label, capsys):
    cell = SimpleNamespace(
        dataset=label, backbone=label, label=label, epsilons=[1.0], settings=1, seeds=1, runs=1
    )
    _print_cells(SimpleNamespace(cells=[cell]))
    assert capsys.readouterr().out.count(label) == 3
    print_table(("class", "rows"), [(label, "3")])
    assert label in capsys.readouterr().out


def test_no_table_on_a_pipe_is_cut(capsys):
    print_table(("class", "rows"), [("long " * 60, "3")])
    assert ("long " * 60).strip() in capsys.readouterr().out


@pytest.mark.parametrize("mark", ["\x1b[31m", "\x07", "\x9b2J", "\u202e", "\r"])
def test_no_text_steers_the_terminal(mark, capsys):
    text = f"a{mark}b"
    print_table(("class", "rows"), [(text, "3")])
    console._print_line("Error", f"there is no class {text}")
    with _progress(1) as report:
        report("end", spec(text), {"status": "failed", "error": text})
    print(to_text(group_rows([row(text, text)])))
    print(to_csv(group_rows([row(text)])))
    captured = capsys.readouterr()
    assert mark not in captured.out + captured.err
    assert shown("Bären 病棟 0") == "Bären 病棟 0"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_is_written_as_text(text):
    (_, line) = csv.reader(io.StringIO(to_csv(group_rows([row(text, text)]))))
    assert line[0] == line[2] == f"'{text}"


def test_numbers_and_texts_of_numbers_stay_as_they_are():
    cells = [-1.5, 3, None, "-1", "+1", "-1e-3", "a=b", "x", "", "Ölstand"]
    sink = io.StringIO()
    write_csv(sink, [cells])
    (found,) = csv.reader(io.StringIO(sink.getvalue()))
    assert found == ["" if cell is None else str(cell) for cell in cells]
    assert [inert(cell) for cell in cells] == cells


def test_predictions_run_nothing_in_a_spreadsheet(dpfc, write_cache, tmp_path):
    names = ("=a", "@b", "-1")
    write_cache(tmp_path / "cache", class_names=names)
    model = tmp_path / "m.safetensors"
    fit = ["fit", "--features", tmp_path / "cache", "--epsilon", "inf", "--method", "gd"]
    assert dpfc(*fit, "--out", model).code == 0
    result = dpfc(
        "predict",
        "--model",
        model,
        "--features",
        tmp_path / "cache",
        "--out",
        "-",
        "--proba",
    )
    head, *lines = csv.reader(io.StringIO(result.out))
    assert {line[1] for line in lines} == {"'=a", "'@b", "-1"}
    assert all(-1e9 < float(cell) < 1e9 for line in lines for cell in line[2:])
    assert head[2:] == ["probability_-1", "probability_=a", "probability_@b"]


def test_a_bar_in_a_label_ends_no_cell_of_a_table():
    head, _, line = to_text(group_rows([row("a|b")])).splitlines()
    assert line.replace(r"\|", "").count("|") == head.count("|")
