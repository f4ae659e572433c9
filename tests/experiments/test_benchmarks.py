"""Benchmarks run, small."""

import numpy as np
import pytest

from dpfc.experiments.benchmarks import cifar10, fit_speed


def test_fit_speed_prints_both_ratios(capsys):
    assert fit_speed.main(["--rows", "300", "--width", "20", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "300 rows × 20 features" in out and "float32" in out and "float64" in out


def test_fit_speed_reads_a_cache(cache_path, capsys):
    assert fit_speed.main(["--features", str(cache_path), "--repeats", "1"]) == 0
    assert "90 rows × 6 features, 3 classes" in capsys.readouterr().out


def test_timings_are_positive():
    timing = fit_speed.measure(np.ones((40, 3), np.float32), np.arange(40) % 2, 2, repeats=1)
    assert timing.fit > 0 and min(timing.products.values()) > 0


def test_accuracy_table_repeats_with_its_seeds(cache_path, capsys, strict_json):
    arguments = ["--train", str(cache_path), "--test", str(cache_path), "--seeds", "2"]
    arguments += ["--epsilons", "8", "--methods", "fc,ls", "--ceiling"]
    outputs = []
    for _ in range(2):
        assert cifar10.main([*arguments, "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    report = strict_json(outputs[0])
    assert [(r["method"], r["epsilon"]) for r in report["results"]] == [("fc", 8), ("ls", 8)]
    assert report["ceiling"]["accuracy"] == 1 and "not private" in report["note"]
    assert cifar10.main(arguments) == 0
    assert "± standard error of 2 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "words"),
    [(["--methods", "fc,svm"], "got 'svm'"), (["--epsilons", "0"], "> 0")],
)
def test_bad_options_are_one_line(cache_path, capsys, extra, words):
    arguments = ["--train", str(cache_path), "--test", str(cache_path), *extra]
    assert cifar10.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("Error: ") and words in err and err.count("\n") == 1


def test_caches_of_different_widths_are_refused(write_cache, cache_path, tmp_path, capsys):
    write_cache(tmp_path / "wide", width=9)
    assert cifar10.main(["--train", str(cache_path), "--test", str(tmp_path / "wide")]) == 1
    assert "differ in width" in capsys.readouterr().err
