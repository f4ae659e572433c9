"""The benchmark of forecasts: rows are cut once, and coverage counts what it says."""

import numpy as np

from dpfc.experiments.benchmarks.forecast import calibrated, coverage, main, split_rows
from dpfc.experiments.studies.data import Data


def cell(name, truths, accuracies=(0.7, 0.7, 0.7)):
    outcomes = {
        "accuracies": list(accuracies),
        "gained": 0.0,
        "share": 1.0,
        "n_test": 10**6,
        "n_scored": "inf",
    }
    return {"data": name, "truths": truths, "n_private_test": 10**6, "outcomes": outcomes}


def test_public_and_private_rows_are_cut_without_overlap():
    rows = np.arange(120, dtype=np.float32).reshape(-1, 1)
    data = Data(rows[:90], np.zeros(90, int), rows[90:], np.zeros(30, int), 2)
    public, private = split_rows(data, 0)
    parts = [public.X, private.X, private.X_test]
    assert [len(part) for part in parts] == [30, 60, 30]
    assert sorted(np.concatenate(parts).ravel()) == list(range(120))


def test_coverage_counts_truths_within_the_interval():
    # Half of the width is 1.28 · 0.1 · √(0.7 · 0.3) = 0.0587.
    assert coverage([cell("a", [0.7, 0.758, 0.76, 0.642, 0.64])], 0.1) == [
        *(True, True, False, True, False)
    ]


def test_calibration_finds_the_allowance_that_covers_four_of_five():
    generator = np.random.default_rng(0)
    truths = generator.normal(0.7, 0.1 * np.sqrt(0.7 * 0.3), 2_000)
    assert abs(calibrated([cell("a", list(truths))]) - 0.1) <= 0.01


def test_the_command_measures_once_and_reports(tmp_path, capsys):
    words = ["--data", "breast-cancer", "--methods", "ls", "--epsilons", "2", "--repeats", "2"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    first = capsys.readouterr()
    assert "| breast-cancer | 3 |" in first.out and "6 cells" in first.err
    assert main([*words, "--out", str(tmp_path)]) == 0
    again = capsys.readouterr()
    assert again.out == first.out and again.err == ""
