"""What programs and people may rely on: fields of JSON, exit codes, help that fits a screen."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer

from dpfc.experiments.cli.app import app, main

PAGE = Path(__file__).parents[3] / "docs" / "command-line.md"
SCREEN = {"lines": 50, "columns": 100}


def all_commands() -> list[str]:
    """Every command and group, as typed."""

    def below(group, path):
        yield " ".join(path)
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, [*path, name])

    return list(below(typer.main.get_command(app), []))


def documented() -> dict[str, list[str]]:
    """Fields of each command's JSON, as the page has them."""
    parts = re.split(r"^### dpfc (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    cells = {
        name: re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {name: re.findall(r"`(\w+)`", " ".join(found)) for name, found in cells.items()}


FIELDS = documented()


@pytest.mark.parametrize("command", all_commands())
def test_help_fits_a_screen_and_has_an_example(dpfc, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", str(SCREEN["columns"]))
    result = dpfc(*command.split(), "--help")
    lines = result.out.splitlines()
    assert result.code == 0 and result.err == ""
    assert len(lines) <= SCREEN["lines"] and max(map(len, lines)) <= SCREEN["columns"]
    assert "Example" in result.out


def test_every_command_with_json_is_on_the_page():
    with_json = {name for name in all_commands() if "--json" in _options(name) or name == "results"}
    assert with_json == {name.split(" --")[0] for name in FIELDS}


def _options(path):
    command = typer.main.get_command(app)
    for name in path.split():
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.fixture(scope="module")
def made(write_cache, tmp_path_factory):
    """A folder with a cache, a ledger, a model, embeddings, a study and images."""
    folder = tmp_path_factory.mktemp("contract")
    write_cache(folder / "cache")
    np.savez(folder / "rows.npz", X=np.eye(4, dtype=np.float32), y=np.arange(4) % 2)
    (folder / "texts.csv").write_text("text,label\ngood,yes\nbad,no\n")
    (folder / "table.yaml").write_text(
        "columns:\n  text: {type: category, values: [good, bad]}\n  label: {role: label}\n"
    )
    (folder / "study.yaml").write_text(
        "name: small\ndatasets: [{name: digits, builtin: digits}]\nmethods: [ls]\n"
        "epsilons: [1]\nseeds: 1\n"
    )
    create = ["budget", "create", str(folder / "ledger.db"), "--dataset", "d", "--epsilon", "9"]
    assert main(create) == 0
    fit = ["fit", "--features", str(folder / "cache"), "--epsilon", "1"]
    spend = ["--ledger", str(folder / "ledger.db"), "--dataset", "d"]
    assert main([*fit, *spend, "--out", str(folder / "model")]) == 0
    sweep = ["sweep", str(folder / "study.yaml"), "--out", str(folder / "swept")]
    assert main([*sweep, "--workers", "1"]) == 0
    return folder


COMMANDS = {
    "features import": "features import rows.npz --out imported --class-names 0,1",
    "features info": "features info cache",
    "features verify": "features verify cache",
    "features export": "features export cache --out rows.npy",
    "schema": "schema --from-public texts.csv --label-column label --out schema.yaml",
    "schema check": "schema check table.yaml --table texts.csv",
    "summarize": "summarize --features cache --epsilon 1",
    "forecast": "forecast --public-features cache --n-samples 40 --epsilons 1 --repeats 2",
    "fit": "fit --features cache --epsilon 1 --out fitted",
    "train": "train --features cache --epsilon 1 --steps 2 --out trained",
    "search": "search --features cache --epsilon 1 --try logit_noise=0.5,1 --out searched",
    "search --strategy": "search --features cache --epsilon 1 --try logit_noise=0.5,1 --out drawn"
    " --strategy random_stopping",
    "evaluate": "evaluate --model model --features cache",
    "evaluate --epsilon": "evaluate --model model --features cache --epsilon 1",
    "predict": "predict --model model --features cache --out predictions.csv",
    "export": "export model --onnx exported.onnx",
    "sweep": "sweep study.yaml --out swept",
    "sweep --dry-run": "sweep study.yaml --out swept --dry-run",
    "results": "results study.yaml --study swept --format json",
    "budget create": "budget create ledger.db --dataset e --epsilon 1",
    "budget show": "budget show ledger.db",
    "budget history": "budget history ledger.db --dataset d",
    "budget remaining": "budget remaining ledger.db --dataset d",
    "budget head": "budget head ledger.db",
    "budget verify": "budget verify ledger.db",
    "budget group": "budget group --rows 5 --epsilon 1",
    "budget calibrate": "budget calibrate --epsilon 1",
    "budget calibrate --method": "budget calibrate --epsilon 1 --method ls",
}
# Test modules of their own run these, with the same check: they embed.
ELSEWHERE = {"demo", "extract"}


@pytest.mark.parametrize("group", ["", "budget", "features", "report", "schema"])
@pytest.mark.parametrize("columns", [60, 80, 100])
def test_lists_of_commands_have_whole_sentences(dpfc, monkeypatch, group, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    listed = dpfc(*group.split(), "--help").out.split("Commands:")[1]
    assert "..." not in listed and "…" not in listed
    assert listed.rstrip().endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_json_has_the_fields_of_the_page(dpfc, strict_json, made, monkeypatch, name):
    monkeypatch.chdir(made)
    words = COMMANDS[name].split()
    result = dpfc(*words, *([] if "json" in words else ["--json"]))
    assert result.code == 0, result.err
    report = strict_json(result.out)
    fields = FIELDS.get(name) or FIELDS[name.split(" --")[0]]
    assert sorted(report) == sorted(fields)
    assert report["command"] == name.split(" --")[0]


def test_no_command_is_left_out():
    assert {name.split(" --")[0] for name in COMMANDS} | ELSEWHERE == {
        name.split(" --")[0] for name in FIELDS
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("features verify cache", 0),
        ("features info nowhere", 1),
        ("fit --features cache --epsilon -1 --out new", 1),
        ("fit --features cache --epsilon many --out new", 2),
        ("fit --epsilon 1", 2),
        ("no-such-command", 2),
        ("budget show ledger.db --no-such-option", 2),
        ("sweep study.yaml seeds=-1", 1),
        ("results study.yaml --study empty", 1),
        ("report sweep study.yaml --study empty", 1),
    ],
)
def test_exit_codes_are_those_of_the_page(dpfc, made, monkeypatch, words, code):
    monkeypatch.chdir(made)
    result = dpfc(*words.split())
    assert result.code == code
    assert result.err.startswith("Error: ") == (code != 0)
    assert len(result.err.splitlines()) == (code != 0)


@pytest.mark.slow
def test_ctrl_c_ends_with_130(made, tmp_path):
    command = [Path(sys.executable).with_name("dpfc"), "sweep", "digits", "--out", tmp_path / "out"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("runs/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=120) == 130


@pytest.mark.slow
def test_a_report_of_a_study_is_written_with_its_pictures(dpfc, made, monkeypatch):
    monkeypatch.chdir(made)
    done = dpfc("report", "sweep", "study.yaml", "--study", "swept", "--figures", "pictures")
    assert done.code == 0, done.err
    written = [Path(line) for line in done.out.splitlines()]
    assert written[0] == Path("swept/report.html") and all(path.is_file() for path in written)
    assert {path.name for path in written} >= {"accuracy-vs-epsilon.png", "accuracy-vs-epsilon.svg"}
    page = written[0].read_text(encoding="utf-8")
    assert "dpfc sweep study.yaml" in page and "methods: [ls]" in page
    elsewhere = ("report", "sweep", "study.yaml", "--study", "swept", "--out", "page.html")
    assert dpfc(*elsewhere).code == 0
    again = dpfc(*elsewhere)
    assert again.code == 1 and "--force" in again.err
    assert dpfc(*elsewhere, "--force").code == 0


def test_old_spellings_work_for_one_version_and_say_what_they_are_called_now(
    dpfc, made, monkeypatch, tmp_path
):
    monkeypatch.chdir(made)
    now = dpfc("results", "study.yaml", "--study", "swept", "--format", "csv")
    before = dpfc("results", "study.yaml", "--out", "swept", "--format", "csv")
    assert before.code == now.code == 0 and before.out == now.out and now.err == ""
    assert before.err.startswith("Warning: --out with a folder is called --study now")
    page = tmp_path / "page.html"
    before = dpfc("report", "sweep", "study.yaml", "--study", "swept", "--to", page)
    assert before.code == 0 and page.exists()
    assert before.err.startswith("Warning: --to is called --out now")
    both = ("--out", tmp_path / "b.html", "--to", tmp_path / "c.html", "--study", "swept")
    assert "give --out alone" in dpfc("report", "sweep", "study.yaml", *both).err


def test_what_is_written_to_a_file_is_named_on_standard_output(dpfc, made, monkeypatch, tmp_path):
    monkeypatch.chdir(made)
    csv = tmp_path / "table.csv"
    done = dpfc("results", "study.yaml", "--study", "swept", "--format", "csv", "--out", csv)
    assert done.out == f"{csv}\n" and csv.exists()
