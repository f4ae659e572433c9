"""Benchmarks run, small."""

import numpy as np
import pytest

from dpfc.experiments.benchmarks import accountants, fit_speed, noise_speed, search


def test_fit_speed_prints_ratios_of_both_solvers_and_memory(capsys):
    assert fit_speed.main(["--rows", "300", "--width", "20", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "300 rows × 20 features" in out and "products" in out
    assert "DPFCClassifier" in out and "DPLeastSquaresClassifier" in out
    assert "bytes an entry of X" in out


@pytest.mark.slow
def test_fit_speed_reads_a_cache(cache_path, capsys):
    assert fit_speed.main(["--features", str(cache_path), "--repeats", "1"]) == 0
    assert "90 rows × 6 features, 3 classes" in capsys.readouterr().out


def test_timings_are_positive():
    for timing in fit_speed.measure(np.ones((40, 3), np.float32), np.arange(40) % 2, 2, repeats=1):
        assert timing.ratio == timing.fit / timing.products > 0


def test_noise_speed_prints_exact_and_inexact_noise(capsys):
    assert noise_speed.main(["--size", "2000", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "2,000 draws" in out and "rounded Gaussian, os.urandom" in out and "NumPy's" in out


@pytest.mark.slow
def test_searches_are_compared_with_one_fit_at_equal_budgets(cache_path, capsys, strict_json):
    arguments = ["--train", str(cache_path), "--test", str(cache_path), "--seeds", "2"]
    arguments += ["--epsilons", "4,8", "--try", "n_steps=3,6"]
    assert search.main([*arguments, "--json"]) == 0
    rows = strict_json(capsys.readouterr().out)["results"]
    assert [(r["strategy"], r["epsilon"]) for r in rows] == [
        (strategy, epsilon) for epsilon in (4, 8) for strategy in search.STRATEGIES
    ]
    assert rows[0]["error_ratio"] in (0.0, 1.0) and all(0.3 < r["mean"] <= 1 for r in rows)
    assert search.main(arguments) == 0
    assert "the search paid" in capsys.readouterr().out
    assert search.main([*arguments[:4], "--method", "ls"]) == 1
    assert "--try is needed" in capsys.readouterr().err


def test_accountants_are_compared_at_every_budget(capsys):
    arguments = ["--epsilons", "1,4", "--steps", "50", "--sampling-probability", "0.1"]
    assert accountants.main(arguments) == 0
    out = capsys.readouterr().out
    assert "1          3.7306    3.7308    4.0462" in out
    # Renyi divergences have no bound for sampling under replace_one.
    assert out.count("         -   ") == 2
    assert out.count(" times as long") == 2
