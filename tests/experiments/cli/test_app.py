"""The commands on good inputs."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import dpfc as package
from dpfc import load_model
from dpfc.features import FeatureCache

DPFC = [Path(sys.executable).with_name("dpfc")]
COMMANDS = [
    "demo",
    "extract",
    "fit",
    "train",
    "evaluate",
    "predict",
    "budget",
    "budget calibrate",
    "sweep",
    "results",
]

# The package's own __init__ imports every classifier; an empty one shows what the command adds.
HELP_WITHOUT_CLASSIFIERS = """
import sys, types
package = types.ModuleType("dpfc")
package.__path__ = [sys.argv.pop(1)]
sys.modules["dpfc"] = package
from dpfc.experiments.cli.app import main
code = main(sys.argv[1:])
print(sorted({"torch", "sklearn", "scipy", "numpy", "matplotlib", "pyarrow"} & set(sys.modules)))
sys.exit(code)
"""


def run_process(*arguments, **options):
    command = [*DPFC, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, **options
    )


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], ["train", "--help"]])
def test_help_imports_nothing_slow(words):
    folder = str(Path(package.__file__).parent)
    command = [sys.executable, "-c", HELP_WITHOUT_CLASSIFIERS, folder, *words]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_says_what_the_command_does(dpfc, command):
    result = dpfc(*command.split(), "--help")
    assert result.code == 0 and result.err == ""
    assert f"dpfc {command}" in result.out
    if command != "budget":
        assert "Example" in result.out


def test_version_and_no_arguments_at_all(dpfc):
    assert dpfc("--version").out == f"dpfc {package.__version__}\n"
    assert "Usage: dpfc" in dpfc().out


@pytest.mark.slow
def test_fit_evaluate_and_predict_in_real_processes(cache_path, tmp_path, strict_json):
    model = tmp_path / "model.safetensors"
    fit = run_process("fit", "--features", cache_path, "--epsilon", "8", "--out", model, "--json")
    assert fit.returncode == 0 and fit.stderr == ""
    report = strict_json(fit.stdout)
    assert "seconds" not in report and "rows" not in report  # both tell of the rows
    assert report["privacy"]["private"] is True and report["classes"] == ["ant", "bee", "cow"]
    assert "90" not in fit.stdout.replace(report["model"], "").split('"privacy"')[0]

    evaluate = run_process("evaluate", "--model", model, "--features", cache_path, "--json")
    report = strict_json(evaluate.stdout)
    assert report["rows"] == 90 and [c["rows"] for c in report["per_class"]] == [30, 30, 30]
    assert "without noise" in report["note"]

    predict = run_process("predict", "--model", model, "--features", cache_path, "--out", "-")
    rows = list(csv.reader(predict.stdout.splitlines()))
    assert rows[0] == ["id", "predicted_class"] and len(rows) == 91 and rows[1][0] == "r0"


def test_fit_prints_the_statement_and_keeps_it_in_the_model(dpfc, cache_path, tmp_path):
    out = tmp_path / "model.safetensors"
    result = dpfc("fit", "--features", cache_path, "--epsilon", 1, "--method", "ls", "--out", out)
    assert result.code == 0 and result.err == ""
    assert load_model(out).privacy_.to_text() in result.out
    assert load_model(out).get_params()["verbose"] is False


def test_set_takes_any_parameter_by_its_type(dpfc, cache_path, tmp_path):
    out = tmp_path / "model.safetensors"
    settings = [
        "n_steps=3",
        "center=false",
        "step_size=0.5",
        "loss=sigmoid",
        "residual_clip_norm=2",
    ]
    flags = [part for setting in settings for part in ("--set", setting)]
    result = dpfc("fit", "--features", cache_path, "--epsilon", 1, "--out", out, *flags)
    assert result.code == 0
    parameters = load_model(out).get_params()
    assert [parameters[s.split("=")[0]] for s in settings] == [3, False, 0.5, "sigmoid", 2]


def test_a_seed_repeats_the_model_and_is_called_not_private(dpfc, cache_path, tmp_path):
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for out in outs:
        fit = ["fit", "--features", cache_path, "--epsilon", 1, "--seed", 3, "--method", "gd"]
        result = dpfc(*fit, "--out", out)
        assert result.code == 0 and result.out.startswith("NOT PRIVATE: random_state was given")
    assert np.array_equal(load_model(outs[0]).coef_, load_model(outs[1]).coef_)


def test_classes_are_stated_where_the_cache_names_none(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "cache", class_names=None)
    fit = ["fit", "--features", tmp_path / "cache", "--epsilon", 1, "--method", "gd"]
    silent = dpfc(*fit, "--out", tmp_path / "a", "--classes", "0,1,2,3")
    assert silent.err == "" and load_model(tmp_path / "a").classes_.tolist() == [0, 1, 2, 3]
    warned = dpfc(*fit, "--out", tmp_path / "b")
    assert warned.code == 0 and warned.err.startswith("Warning: classes were read")


def test_force_overwrites(dpfc, cache_path, tmp_path):
    out = tmp_path / "model.safetensors"
    out.write_text("old")
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--method", "gd", "--out", out]
    assert dpfc(*fit).code == 1 and out.read_text() == "old"
    assert dpfc(*fit, "--force").code == 0 and load_model(out)


def test_infinite_epsilon_is_written_as_strict_json(dpfc, cache_path, tmp_path, strict_json):
    fit = ["fit", "--features", cache_path, "--epsilon", "inf", "--method", "gd", "--json"]
    report = strict_json(dpfc(*fit, "--out", tmp_path / "model").out)
    assert report["privacy"]["target_epsilon"] == "inf" and not report["privacy"]["private"]


def test_evaluate_shows_each_class(dpfc, fitted, cache_path):
    result = dpfc("evaluate", "--model", fitted, "--features", cache_path)
    assert result.out.startswith("accuracy 100.00% on 90 rows")
    assert all(name in result.out for name in ("ant", "bee", "cow", "without noise"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predictions_match_the_model(dpfc, fitted, cache_path, tmp_path, suffix, strict_json):
    out = tmp_path / f"predictions.{suffix}"
    predict = ["predict", "--model", fitted, "--features", cache_path, "--proba", "--json"]
    report = strict_json(dpfc(*predict, "--out", out).out)
    if suffix == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pq.read_table(out).to_pylist()
    assert [*rows[0]] == report["columns"] and len(rows) == report["rows"] == 90
    expected = load_model(fitted).predict(FeatureCache.open(cache_path))
    assert [row["predicted_class"] for row in rows] == expected.tolist()
    probabilities = [[float(r[f"probability_{c}"]) for c in ("ant", "bee", "cow")] for r in rows]
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1)


def test_rows_are_counted_where_the_cache_has_no_ids(dpfc, fitted, write_cache, tmp_path):
    write_cache(tmp_path / "cache", ids=False, labels=False)
    result = dpfc("predict", "--model", fitted, "--features", tmp_path / "cache", "--out", "-")
    assert result.out.splitlines()[:2] == ["row,predicted_class", "0,ant"]


def test_a_reader_that_stops_early_gets_no_error(fitted, cache_path):
    command = [*DPFC, "predict", "--model", fitted, "--features", cache_path, "--out", "-"]
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert result.returncode == 1 and result.stderr == ""


def test_budget_of_a_method_is_what_fit_spends(dpfc, cache_path, tmp_path, strict_json):
    budget = strict_json(
        dpfc("budget", "calibrate", "--epsilon", 1, "--method", "gd", "--json").out
    )
    fit = ["fit", "--features", cache_path, "--epsilon", 1, "--method", "gd", "--json"]
    spent = strict_json(dpfc(*fit, "--out", tmp_path / "model").out)["privacy"]
    exact = [part["epsilon_by_accountant"]["exact"] for part in (budget, spent)]
    assert exact[1] <= exact[0] <= 1 and exact[1] == pytest.approx(exact[0], rel=1e-9)
    # The mean's share is settled by the fit, once the number of rows was released.
    # Counts by class and score are of two classes, and the calibration knows of none.
    planned, drawn = ({r["name"]: r["count"] for r in p["releases"]} for p in (budget, spent))
    assert planned == drawn | {"class_scores": 1}


def test_budget_of_gaussian_releases(dpfc, strict_json):
    calibrate = ["budget", "calibrate", "--epsilon", 1]
    one = strict_json(dpfc(*calibrate, "--json").out)
    assert one["releases"][0]["noise_multiplier"] == pytest.approx(1 / one["mu"])
    assert one["releases"][0]["noise_multiplier"] == pytest.approx(3.7306, abs=1e-4)
    sampled = ["--steps", 20, "--sampling-probability", 0.1]
    many = strict_json(dpfc(*calibrate, *sampled, "--json").out)
    assert many["mu"] is None and 0.99 < many["epsilon_by_accountant"]["pld"] <= 1
    assert many["epsilon_by_accountant"]["exact"].startswith("unavailable: ")
    assert "noise multiplier" in dpfc(*calibrate).out


def test_extract_digits(dpfc, tmp_path, strict_json):
    out = tmp_path / "features"
    extract = ["extract", "--data", "digits:test", "--out", out, "--image-size", 32, "--json"]
    result = dpfc(*extract)
    report = strict_json(result.out)
    assert report["rows"] == len(FeatureCache.open(out)) and report["n_features"] == 1280
    again = dpfc(*extract[:-1])
    assert "× 1,280 features" in again.out and str(out) in again.out and again.out.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_says_so_and_exits_with_130(tmp_path):
    command = [*DPFC, "extract", "--data", "digits", "--out", str(tmp_path / "f")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "f" / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "Error: interrupted.\n"
