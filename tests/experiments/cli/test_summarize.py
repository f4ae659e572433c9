from __future__ import annotations

import pytest

from dpfc.accounting import PrivacyLedger


def test_it_prints_noisy_counts_by_class_name(dpfc, cache_path, strict_json):
    done = dpfc("summarize", "--features", cache_path, "--epsilon", "inf", "--json")
    report = strict_json(done.out)
    assert report["count"] == 90
    assert report["class_counts"] == {"ant": 30, "bee": 30, "cow": 30}
    assert report["privacy"]["reasons_not_private"]
    done = dpfc("summarize", "--features", cache_path, "--epsilon", "1")
    assert done.code == 0
    assert "rows by class, each ± " in done.out and "\n  ant" in done.out
    assert "(ε = 1, δ = 1e-05)-DP, add or remove one row" in done.out


def test_a_mean_needs_a_clip_norm_and_a_ledger_pays(dpfc, cache_path, tmp_path, strict_json):
    refused = dpfc("summarize", "--features", cache_path, "--epsilon", "1", "--statistics", "mean")
    assert refused.code != 0 and "--l2-clip-norm" in refused.err
    ledger = tmp_path / "ledger.db"
    PrivacyLedger(ledger).create_budget("ants", epsilon=2, delta=1e-5)
    done = dpfc(
        "summarize", "--features", cache_path, "--epsilon", "1", "--statistics", "mean",
        "--l2-clip-norm", "2", "--ledger", ledger, "--dataset", "ants", "--json",
    )  # fmt: skip
    assert len(strict_json(done.out)["mean"]) == 6
    assert [spend.statement.kind for spend in PrivacyLedger(ledger).history("ants")] == ["summary"]


@pytest.mark.parametrize("statistics", ["", "median", "count,count"])
def test_unknown_statistics_are_refused(dpfc, cache_path, statistics):
    done = dpfc("summarize", "--features", cache_path, "--epsilon", "1", "--statistics", statistics)
    assert done.code != 0 and "statistics must be a list" in done.err
