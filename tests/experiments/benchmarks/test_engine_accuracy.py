"""Two engines beside each other: runs go on where they stopped, and a loss is seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dpfc.experiments.benchmarks.engine_accuracy import (
    MADE,
    Job,
    compare_files,
    differences,
    main,
    run_missing,
)
from dpfc.experiments.studies.data import Data
from dpfc.experiments.studies.named_data import name_data


def tiny():
    rng = np.random.default_rng(0)
    y = np.arange(90, dtype=np.int32) % 2
    X = (rng.normal(size=(90, 3)) + 2.0 * y[:, None]).astype(np.float32)
    return name_data("tiny", Data(X[:60], y[:60], X[60:], y[60:], 2))


def make_runs(engine, accuracies, *, data="toy", rows="0", epsilon=1.0):
    where = {"engine": engine, "data": data, "rows": rows, "solver": "fc", "epsilon": epsilon}
    return [where | {"seed": seed, "accuracy": a} for seed, a in enumerate(accuracies)]


def write(path, *runs):
    path.write_text("".join(json.dumps(run) + "\n" for part in runs for run in part))
    return path


# --- runs ------------------------------------------------------------------------------------


def test_runs_are_made_once_and_a_torn_line_is_made_again(tmp_path):
    job, out = Job("float64", ("ls", "fc"), (1.0, 8.0), seeds=2), tmp_path / "runs.jsonl"
    made = list(run_missing([tiny()], job, out))
    whole = out.read_text()
    assert [json.loads(line) for line in whole.splitlines()] == made
    assert [(run["solver"], run["epsilon"], run["seed"]) for run in made] == [
        (solver, epsilon, seed) for solver in ("ls", "fc") for epsilon in (1, 8) for seed in (0, 1)
    ]
    assert all(0.0 <= run["accuracy"] <= 1.0 for run in made)
    assert list(run_missing([tiny()], job, out)) == [] and out.read_text() == whole
    out.write_text(whole[:-20])
    assert list(run_missing([tiny()], job, out)) == made[-1:] and out.read_text() == whole
    more = list(run_missing([tiny()], job._replace(seeds=3), out))
    assert [run["seed"] for run in more] == [2] * 4


def test_another_engine_and_other_rows_are_other_runs(tmp_path):
    job, out = Job("float64", ("ls",), (1.0,), seeds=1), tmp_path / "runs.jsonl"
    other = tiny()._replace(digest="other")
    assert len(list(run_missing([tiny()], job, out))) == 1
    assert len(list(run_missing([other], job, out))) == 1
    assert len(list(run_missing([tiny()], job._replace(engine="integers"), out))) == 1


def test_small_data_gets_many_seeds_and_large_data_no_newton(tmp_path):
    job, tiny_set = Job("float64", ("ls", "newton"), (1.0,)), tiny()
    made = list(run_missing([tiny_set], job, tmp_path / "runs.jsonl"))
    assert [run["solver"] for run in made] == ["ls"] * 20 + ["newton"] * 20
    wide = tiny_set.data._replace(X=np.zeros((60, 5_000), np.float32))
    planned = run_missing(
        [tiny_set._replace(data=wide)], job._replace(solvers=("newton",)), tmp_path / "no.jsonl"
    )
    assert list(planned) == []


@pytest.mark.parametrize(
    ("name", "width", "n_classes"),
    [("one-hot", 202, 3), ("heavy-tails", 8, 3), ("counts-300", 300, 4)],
)
def test_made_up_data_is_what_it_says(name, width, n_classes):
    data = MADE[name]()
    assert data.X.shape[1] == width and len(data.X) == 2 * len(data.X_test)
    assert set(np.unique(data.y)) == set(np.unique(data.y_test)) == set(range(n_classes))
    if name == "one-hot":
        assert set(np.unique(data.X)) == {0.0, 1.0} and (data.X.sum(axis=1) == 12).all()
    if name == "counts-300":
        assert (data.X >= 0).all() and 50 < np.median(data.X.sum(axis=1)) < 70
    if name == "heavy-tails":
        shares = np.abs(data.X).max(axis=1) / np.linalg.norm(data.X, axis=1)
        assert np.median(shares) > 0.8


# --- comparison ------------------------------------------------------------------------------


def test_a_loss_beyond_noise_and_tolerance_is_marked():
    old = make_runs("float64", [0.80, 0.82]) + make_runs("float64", [0.8, 0.8], epsilon=8.0)
    # One point behind, of which two standard errors are 2.8; and 0.05 and 0.15 behind of 0.
    noisy = make_runs("integers", [0.79, 0.81])
    for second, lost in ([0.7995, False], [0.7985, True], [0.9, False]):
        new = noisy + make_runs("integers", [second, second], epsilon=8.0)
        (first, last), missing = differences(old, new)
        assert first.new - first.old == pytest.approx(-1.0) and not first.lost
        assert first.standard_error == pytest.approx(np.sqrt(2.0)) and first.runs == (2, 2)
        assert last.standard_error == pytest.approx(0.0, abs=1e-9)
        assert last.lost == lost and missing == []
    new = make_runs("integers", [0.77, 0.79])  # three behind
    (first, *_), missing = differences(old, new)
    assert first.lost and missing == [("toy", "fc", 8.0)]


def test_files_that_cannot_be_compared_are_refused():
    old = make_runs("float64", [0.8, 0.8])
    with pytest.raises(ValueError, match="not all of the same rows"):
        differences(old, make_runs("integers", [0.8, 0.8], rows="1"))
    with pytest.raises(ValueError, match="one engine, not of 2"):
        differences(old, old + make_runs("integers", [0.8, 0.8]))
    with pytest.raises(ValueError, match="one engine, not of 0"):
        differences(old, [])


def test_the_table_says_what_is_lost_and_what_is_missing(tmp_path):
    runs = [make_runs("float64", [0.8, 0.8]), make_runs("float64", [0.9, 0.9], data="other")]
    old = write(tmp_path / "old", *runs)
    new = write(tmp_path / "new", make_runs("integers", [0.79, 0.79]))
    table, kept = compare_files(old, new)
    assert "| toy | DP-FC | 1 | 2, 2 | 80.00 | 79.00 | -1.00 ± 0.00 | **lost** |" in table
    assert "1 cells, on average -1.000 ± 0.000 points; in 1 the new engine is behind" in table
    assert "Not compared: other, DP-FC, ε = 1." in table and not kept
    assert compare_files(old, write(tmp_path / "both", *_renamed(runs)))[1]


def _renamed(runs):
    return [[run | {"engine": "integers"} for run in part] for part in runs]


def test_the_commands_run_and_their_exit_code_is_the_answer(tmp_path, capsys):
    out, copy = str(tmp_path / "runs.jsonl"), str(tmp_path / "copy.jsonl")
    line = ["--data", "heavy-tails", "--solvers", "ls", "--epsilons", "8", "--seeds", "2"]
    assert main(["run", "float64", out, *line]) == 0
    assert "heavy-tails, DP-LS, ε = 8, seed 1" in capsys.readouterr().err
    made = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    write(tmp_path / "copy.jsonl", [run | {"accuracy": run["accuracy"] / 2} for run in made])
    assert main(["compare", out, out]) == 0
    assert "| heavy-tails | DP-LS | 8 | 2, 2 |" in capsys.readouterr().out
    assert main(["compare", out, copy]) == 1 and main(["compare", copy, out]) == 0
    assert "**lost**" in capsys.readouterr().out
    assert main(["compare", out, str(tmp_path / "none")]) == 1
    assert main(["run", "float64", out, "--solvers", "no"]) == 1
