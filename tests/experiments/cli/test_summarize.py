from __future__ import annotations

import re

import numpy as np
import pytest

from dpfc.accounting import PrivacyLedger
from dpfc.features import CacheDescription, FeatureCacheWriter


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


def test_of_people_each_is_counted_once_and_the_words_say_so(dpfc, cache_path, tmp_path):
    grouped, model = tmp_path / "grouped", tmp_path / "model"
    description = CacheDescription(2, class_names=("a", "b"), has_labels=True, has_groups=True)
    y = np.arange(60) % 2
    with FeatureCacheWriter(grouped, description) as writer:
        writer.write(np.eye(2, dtype=np.float32)[y], y, groups=[f"p{n // 4}" for n in range(60)])
        writer.finish()
    words = ["--features", grouped, "--epsilon", "1e4"]
    out = dpfc("summarize", *words).out
    assert re.search(r"count \(one group of rows counts as 1\) 1[45]\.\d ± ", out)
    assert dpfc("fit", *words, "--out", model).code == 0
    out = dpfc("evaluate", "--model", model, *words).out
    assert re.search(r"test size about 15 \(.*\), one group of rows counts as 1", out)


@pytest.mark.parametrize("statistics", ["", "median", "count,count"])
def test_unknown_statistics_are_refused(dpfc, cache_path, statistics):
    done = dpfc("summarize", "--features", cache_path, "--epsilon", "1", "--statistics", statistics)
    assert done.code != 0 and "statistics must be a list" in done.err
