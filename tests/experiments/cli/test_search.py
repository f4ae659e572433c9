"""`dpfc search`: the cost first, then the result; in one process and in real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dpfc import load_model
from dpfc.accounting import PrivacyLedger
from dpfc.accounting.search_budget import RunLaw

DPFC = [Path(sys.executable).with_name("dpfc")]
TRY = ["--method", "ls", "--try", "damping=0.1,0.5,2"]


@pytest.fixture
def search(dpfc, cache_path, tmp_path):
    """Run `dpfc search` on a small cache; the model goes to `tmp_path / "model"`."""
    base = ["search", "--features", cache_path, "--out", tmp_path / "model"]

    def run(*arguments, epsilon=8):
        return dpfc(*base, "--epsilon", epsilon, *arguments)

    return run


def test_the_cost_comes_first_and_the_result_is_saved_with_its_statement(search, tmp_path):
    result = search(*TRY)
    assert result.code == 0
    assert result.err.splitlines()[0] == (
        "Search by composition among 3 candidates, each runs once."
    )
    assert "a single fit without a search would have  ε = 8 " in result.err
    lines = result.out.splitlines()
    assert [line.split()[-1] for line in lines[:3]] == [
        "damping=0.1",
        "damping=0.5",
        "damping=2",
    ]
    model = load_model(tmp_path / "model")
    assert f"Best: damping={model.damping}, noisy accuracy " in lines[3]
    assert lines[4] == "(ε = 8, δ = 1e-05)-DP, add or remove one row"
    assert model.privacy_.kind == "search" and model.classes_.tolist() == ["ant", "bee", "cow"]


def test_the_cost_is_shown_before_the_rows_are_read(search, monkeypatch):
    def stop(self, X, y=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("dpfc.search.search_cv.DPSearchCV.fit", stop)
    result = search(*TRY)
    assert result.code == 130 and result.out == ""
    assert result.err.splitlines()[-1] == "Error: interrupted."
    assert "each run's fit and score have" in result.err


def test_every_combination_is_a_candidate(search, strict_json):
    result = search(*TRY, "--try", "center=yes,no", "--set", "sums_share=0.6", "--json")
    report = strict_json(result.out)
    assert report["cost"]["n_candidates"] == 6 == len(report["candidates"])
    params = [candidate["params"] for candidate in report["candidates"]]
    assert {"damping": 0.5, "center": False} in params and report["best_params"] in params
    assert report["privacy"]["kind"] == "search" and report["privacy"]["private"]
    assert "seconds" not in report and "rows" not in report
    best = max(candidate["noisy_accuracy"] for candidate in report["candidates"])
    assert report["best_score"] == best


def test_random_stopping_prints_the_winner_only(search, strict_json, monkeypatch):
    monkeypatch.setattr(RunLaw, "draw", lambda self, uniform: 13)
    stop = ["--strategy", "random_stopping", "--mean-runs", 5, "--shape", 0]
    result = search(*TRY, *stop)
    assert result.code == 0 and "5 runs on average, the number stays secret" in result.err
    assert len(result.out.splitlines()) == 4 and result.out.startswith("Best: damping=")
    report = strict_json(search(*TRY, *stop, "--json", "--force").out)
    assert report["candidates"] is None and "13" not in report["cost"].values()
    (event,) = report["privacy"]["event"]["events"]
    assert (event["mean"], event["shape"]) == (5, 0)


def test_a_search_in_which_nothing_ran(search, strict_json, monkeypatch):
    monkeypatch.setattr(RunLaw, "draw", lambda self, uniform: 0)
    stop = ["--strategy", "random_stopping", "--distribution", "poisson"]
    assert search(*TRY, *stop).out.startswith("Nothing was run, as a Poisson law may have it.")
    assert strict_json(search(*TRY, *stop, "--json", "--force").out)["best_score"] is None


def test_a_ledger_is_charged_once(search, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("animals", epsilon=3.0, delta=1e-5)
    paid = ["--ledger", ledger.path, "--dataset", "animals"]
    assert search(*TRY, *paid, epsilon=2.5).code == 0
    (spend,) = ledger.history("animals")
    assert spend.purpose == "search DPLeastSquaresClassifier"
    assert spend.statement == load_model(tmp_path / "model").privacy_
    refused = search(*TRY, *paid, "--force", epsilon=2.5)
    assert refused.code == 1 and len(ledger.history("animals")) == 1


def test_a_refit_share_of_zero_leaves_the_winners_own_model(search, strict_json):
    report = strict_json(search(*TRY, "--refit-share", 0, "--json").out)
    assert report["cost"]["refit_mu"] is None
    assert len(report["privacy"]["event"]["events"]) == 1


def test_a_seed_is_called_not_private_in_the_first_line(search):
    result = search(*TRY, "--seed", 1)
    assert result.code == 0 and "NOT PRIVATE: random_state was given" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--try", "damping"], "--try takes name=a,b,c, got 'damping'."),
        (["--try", "damping=0.1,high"], "damping must be a number, got 'high'."),
        (["--try", "damping=0.1,0.10"], "--try damping holds a value twice: '0.1,0.10'."),
        (["--try", "damping=1", "--try", "damping=2"], "--try damping is given twice."),
        (["--try", "epsilon=1,2"], "--try epsilon is not needed: use --epsilon."),
        (["--try", "dampling=1"], "has no parameter 'dampling'. Did you mean 'damping'?"),
        (["--try", "damping=-1,1"], "damping must be a float in [0, inf)"),
        (["--try", "damping=1", "--strategy", "bayes"], "Invalid value for '--strategy'"),
        (["--try", "damping=1", "--refit-share", "1"], "--refit-share must be"),
        (["--try", "damping=1", "--validation-fraction", "0"], "--validation-fraction must be"),
        ([], "Missing option '--try'"),
    ],
)
def test_bad_arguments_are_one_clean_line_and_write_nothing(search, tmp_path, arguments, message):
    result = search("--method", "ls", *arguments)
    assert result.code in (1, 2) and result.out == ""
    assert message in result.err.splitlines()[-1]
    assert not (tmp_path / "model").exists()


def test_help_tells_what_must_not_be_published(dpfc):
    result = dpfc("search", "--help")
    assert result.code == 0 and result.err == ""
    words = " ".join(result.out.split())
    assert "do not publish how long the search took" in words and "Example: dpfc search" in words


@pytest.mark.slow
def test_search_and_predict_in_real_processes(cache_path, tmp_path):
    out = tmp_path / "searched.safetensors"
    command = ["search", "--features", cache_path, "--epsilon", "8", *TRY, "--out", out]
    done = subprocess.run(
        [*DPFC, *map(str, command)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 and "Best: damping=" in done.stdout
    predict = ["predict", "--model", out, "--features", cache_path, "--out", "-"]
    done = subprocess.run(
        [*DPFC, *map(str, predict)], capture_output=True, text=True, timeout=120, check=True
    )
    assert len(done.stdout.splitlines()) == 91
