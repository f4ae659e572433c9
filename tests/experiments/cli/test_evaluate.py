"""`dpfc evaluate`: private with --epsilon, the owner's own look without."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dpfc import load_model
from dpfc.accounting import PrivacyLedger
from dpfc.features import FeatureCache


@pytest.fixture
def ledger(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("test rows", epsilon=3.0, delta=1e-5)
    return ledger


@pytest.fixture
def evaluate(dpfc, fitted, cache_path):
    def run(*arguments):
        return dpfc("evaluate", "--model", fitted, "--features", cache_path, *arguments)

    return run


def test_the_owners_own_look_says_that_it_is_not_private(evaluate, strict_json):
    result = evaluate()
    assert result.out.startswith("accuracy 100.00% on 90 rows")
    assert "Not private: for the owner's eyes only." in result.out
    report = strict_json(evaluate("--json").out)
    assert report["accuracy"] == 1.0 and report["rows"] == 90
    assert report["note"].startswith("Not private")
    assert "privacy" not in report


def test_a_private_evaluation_prints_figures_and_the_statement(evaluate):
    result = evaluate("--epsilon", "2", "--metrics", "accuracy, auc,confusion_matrix")
    assert result.code == 0 and result.err == ""
    assert result.out.startswith("accuracy ")
    for words in ("AUC ", "test rows about ", "recall of each class", "  cow  ", "95%, each by"):
        assert words in result.out
    assert "(ε = 2, δ = 1e-05)-DP, add or remove one row" in result.out
    assert "eyes only" not in result.out


def test_private_json_is_strict_and_holds_no_exact_count(evaluate, strict_json):
    reports = [
        strict_json(evaluate("--epsilon", "5", "--delta", "1e-6", "--json").out) for _ in range(3)
    ]
    report = reports[0]
    assert report["command"] == "evaluate" and report["classes"] == ["ant", "bee", "cow"]
    assert report["privacy"]["kind"] == "evaluation" and report["privacy"]["private"]
    assert report["privacy"]["target_delta"] == 1e-6
    low, high = report["accuracy_interval"]
    assert 0.5 < low < 1.0 and 0.95 < high <= 1.0
    assert "rows" not in report and "per_class" not in report
    # Noise of whole numbers may be 0 in one cell, and is so in all of three runs' 27 cells with
    # a probability below 1e-9.
    exact = [[30.0, 0.0, 0.0], [0.0, 30.0, 0.0], [0.0, 0.0, 30.0]]
    assert any(run["confusion_matrix"] != exact for run in reports)
    assert report["auc"] is None
    assert [len(row) for row in report["confusion_matrix"]] == [3, 3, 3]


def test_hidden_figures_are_null_in_json(evaluate, strict_json):
    report = strict_json(evaluate("--epsilon", "0.001", "--confidence", "0.999999", "--json").out)
    assert report["accuracy"] is None and report["accuracy_interval"] == [0.0, 1.0]


def test_an_infinite_budget_gives_exact_figures_that_are_not_private(evaluate, strict_json):
    report = strict_json(evaluate("--epsilon", "inf", "--json").out)
    assert report["accuracy"] == 1.0 and report["n_samples"] == 90.0
    assert report["privacy"]["private"] is False
    assert "NOT PRIVATE" in evaluate("--epsilon", "inf").out


def test_replace_one_and_a_seed(evaluate, strict_json):
    arguments = ["--epsilon", "1", "--neighboring-relation", "replace_one", "--seed", "3", "--json"]
    first, second = (evaluate(*arguments) for _ in range(2))
    assert "random_state was given" in first.err
    reports = [strict_json(result.out) for result in (first, second)]
    assert reports[0]["n_samples"] == 90.0 and reports[0]["accuracy"] == reports[1]["accuracy"]
    assert reports[0]["privacy"]["neighboring_relation"] == "replace_one"


def test_a_spend_is_filed_and_what_exceeds_the_budget_is_refused(evaluate, ledger):
    options = ["--ledger", ledger.path, "--dataset", "test rows", "--metrics", "accuracy"]
    assert evaluate("--epsilon", "2", *options).code == 0
    (spend,) = ledger.history("test rows")
    assert spend.purpose == "evaluate DPGradientClassifier"
    assert spend.statement is not None and spend.statement.kind == "evaluation"
    refused = evaluate("--epsilon", "2.9", *options)
    assert refused.code == 1 and refused.out == "" and "test rows" in refused.err
    assert len(ledger.history("test rows")) == 1


def test_a_ledger_without_epsilon_is_refused_not_ignored(evaluate, ledger):
    result = evaluate("--ledger", ledger.path, "--dataset", "test rows")
    assert result.code == 1 and result.out == ""
    assert "--ledger needs --epsilon: without it nothing is private or spent." in result.err
    assert ledger.history("test rows") == []


NEEDS_EPSILON = [
    ("--delta", "1e-6"),
    ("--metrics", "auc"),
    ("--neighboring-relation", "replace_one"),
    ("--n-samples", "90"),
    ("--confidence", "0.9"),
    ("--accountant", "rdp"),
    ("--seed", "1"),
]


@pytest.mark.parametrize("option, value", NEEDS_EPSILON)
def test_options_of_a_budget_need_one(evaluate, option, value):
    result = evaluate(option, value)
    assert result.code == 1 and result.err == (
        f"Error: {option} needs --epsilon: without it nothing is private or spent.\n"
    )


BAD = [
    (["--epsilon", "0"], "epsilon must be a float in (0, inf], got 0.0", 1),
    (["--epsilon", "1", "--metrics", "f1"], "metrics must be a list of one or more of", 1),
    (["--epsilon", "1", "--metrics", ""], "metrics must be", 1),
    (["--epsilon", "1", "--confidence", "95"], "confidence must be a float in (0, 1)", 1),
    (["--epsilon", "1", "--dataset", "x"], "ledger and dataset go together", 1),
    (["--epsilon", "x"], "--epsilon", 2),
]


@pytest.mark.parametrize("arguments, words, code", BAD)
def test_bad_options_are_one_clear_line(evaluate, arguments, words, code):
    result = evaluate(*arguments)
    assert result.code == code and result.out == ""
    assert len(result.err.splitlines()) == 1 and words in result.err


@pytest.mark.parametrize(
    "cache, words",
    [
        ({"width": 9}, "has 9 features"),
        ({"labels": False}, "holds no labels"),
        ({"class_names": None}, "of different kinds"),
        ({"class_names": ("ant", "bee", "dog")}, "not in classes, the first in row 2"),
    ],
)
def test_caches_that_do_not_fit_are_named(dpfc, fitted, write_cache, tmp_path, cache, words):
    write_cache(tmp_path / "other", **cache)
    path = tmp_path / "other"
    result = dpfc("evaluate", "--model", fitted, "--features", path, "--epsilon", "1")
    assert result.code == 1 and result.out == ""
    assert len(result.err.splitlines()) == 1 and words in result.err


@pytest.mark.slow
def test_a_real_process_prints_what_the_library_computes(fitted, cache_path, strict_json):
    command = [sys.executable, "-c", "from dpfc.experiments.cli.app import main; exit(main())"]
    arguments = ["evaluate", "--model", fitted, "--features", cache_path, "--epsilon", "inf"]
    result = subprocess.run(
        [*command, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    report = strict_json(result.stdout)
    assert report["accuracy"] == load_model(fitted).score(FeatureCache.open(cache_path))
