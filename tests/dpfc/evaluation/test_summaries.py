from __future__ import annotations

import doctest
import math
import warnings

import numpy as np
import pytest
from scipy.stats import chi2

import dpfc
from dpfc import PrivacyWarning, summarize_privately
from dpfc.accounting import PrivacyLedger
from dpfc.evaluation import summaries

EVERYTHING = ("count", "class_counts", "mean")


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    return rng.normal(size=(500, 4)), np.repeat([0, 1, 2], [300, 150, 50])


def exact(X, y, **options):
    return summarize_privately(
        X, y, epsilon=math.inf, statistics=EVERYTHING, classes=range(3), l2_clip_norm=1.5, **options
    )


def clipped_mean(X, bound):
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return (X * np.minimum(1, bound / lengths)).mean(axis=0)


def test_without_noise_it_counts_and_averages_exactly(data):
    X, y = data
    summary = exact(X, y)
    assert summary.count == 500
    assert summary.class_counts.tolist() == [300, 150, 50]
    np.testing.assert_allclose(summary.mean, clipped_mean(X, 1.5), rtol=1e-9)
    assert summary.noise_standard_deviation == {"count": 0, "class_counts": 0, "mean": 0}
    assert not summary.privacy_.private and summary.privacy_.kind == "summary"


def test_a_cache_gives_what_its_arrays_give(data, make_cache):
    X, y = data
    of_arrays, of_cache = exact(X, y), exact(make_cache(X, y), None)
    np.testing.assert_array_equal(of_cache.class_counts, of_arrays.class_counts)
    np.testing.assert_allclose(of_cache.mean, of_arrays.mean, rtol=1e-12)


def test_a_cache_without_labels_can_be_counted_and_averaged(data, make_cache):
    X, _ = data
    summary = summarize_privately(
        make_cache(X, None), epsilon=math.inf, statistics=["count", "mean"], l2_clip_norm=1.5
    )
    assert summary.count == 500 and summary.classes_ is None
    np.testing.assert_allclose(summary.mean, clipped_mean(X, 1.5), rtol=1e-9)
    for cache, words in ((make_cache(X, None), "holds no labels"), (make_cache(X, None), "pass")):
        with pytest.raises(ValueError, match=words):
            summarize_privately(
                cache, epsilon=1.0, statistics=["class_counts"],
                classes=range(3) if words == "holds no labels" else None,
            )  # fmt: skip


def assert_feature_sum(releases, sensitivity):
    """The squared length of rounded rows may exceed that of rows by 4·2⁻¹⁴ of it (`RowGrid`)."""
    stated = releases["feature_sum"].l2_sensitivity
    assert sensitivity <= stated <= sensitivity * (1 + 2.0**-13)


def test_noise_is_what_the_statement_says(data):
    """120 draws accept the stated deviation and would reject 0.8 and 1.25 times it."""
    X, y = data
    draws, counts = 120, []
    for seed in range(draws):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrivacyWarning)
            summary = summarize_privately(
                X, y, epsilon=1.0, statistics=EVERYTHING, classes=range(3), l2_clip_norm=1.5,
                random_state=seed,
            )  # fmt: skip
        counts.append([summary.count, *summary.class_counts])
    stated = np.array([summary.noise_standard_deviation["count"]]
                      + 3 * [summary.noise_standard_deviation["class_counts"]])  # fmt: skip
    errors = (np.array(counts) - [500, 300, 150, 50]) / stated
    low, high = chi2.ppf([1e-4, 1 - 1e-4], errors.size)
    squares = float((errors**2).sum())
    assert low < squares < high
    assert not low < squares / 0.8**2 < high
    assert not low < squares / 1.25**2 < high
    releases = {release.name: release for release in summary.privacy_.releases}
    assert list(releases) == ["count", "class_counts", "feature_sum"]
    assert_feature_sum(releases, 1.5)
    assert releases["count"].noise_standard_deviation == stated[0]
    assert summary.privacy_.epsilon_by_accountant["exact"] == pytest.approx(1.0, rel=1e-6)


def test_under_replace_one_the_number_of_rows_is_public_and_costs_nothing(data):
    X, y = data
    summary = summarize_privately(
        X, y, epsilon=1.0, statistics=EVERYTHING, classes=range(3), l2_clip_norm=1.5,
        neighboring_relation="replace_one",
    )  # fmt: skip
    assert summary.count == 500 and summary.noise_standard_deviation["count"] == 0
    releases = {release.name: release for release in summary.privacy_.releases}
    assert list(releases) == ["class_counts", "feature_sum"]
    rounded_up = math.nextafter(math.sqrt(2), math.inf)
    assert math.sqrt(2) <= releases["class_counts"].l2_sensitivity <= rounded_up
    assert_feature_sum(releases, 3.0)
    with pytest.raises(ValueError, match="there is nothing to release"):
        summarize_privately(X, epsilon=1.0, neighboring_relation="replace_one")


def test_only_what_is_asked_for_is_released(data):
    X, _ = data
    summary = summarize_privately(X, epsilon=0.5)
    assert summary.class_counts is summary.mean is summary.classes_ is None
    assert [release.name for release in summary.privacy_.releases] == ["count"]
    mean = summarize_privately(X, epsilon=0.5, statistics=["mean"], l2_clip_norm=1.0)
    assert mean.count is None and np.linalg.norm(mean.mean) <= 1 + 1e-12
    assert [release.name for release in mean.privacy_.releases] == ["count", "feature_sum"]


def test_it_spends_from_a_ledger_once_and_not_beyond_it(data, tmp_path):
    X, y = data
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "ward", epsilon=1.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=1
    )
    options = {"ledger": tmp_path / "ledger.db", "dataset": "ward"}
    summary = summarize_privately(
        X, y, epsilon=0.9, statistics=["class_counts"], classes=range(3), **options
    )
    (spend,) = ledger.history("ward")
    assert spend.purpose == "summarize: class_counts"
    assert spend.statement == summary.privacy_
    assert summary.privacy_.unit_of_privacy == "one patient"
    with pytest.raises(dpfc.BudgetExceeded):
        summarize_privately(X, epsilon=0.9, **options)
    assert len(ledger.history("ward")) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics": ["median"]}, "statistics must be a list of one or more of 'count'"),
        ({"statistics": []}, "statistics must be a list"),
        ({"statistics": None}, "statistics must be a list"),
        ({"statistics": [["count"]]}, "statistics must be a list"),
        ({"statistics": "count"}, "statistics must be a list"),
        ({"statistics": ["count", "count"]}, "each once"),
        ({"statistics": ["mean"]}, 'l2_clip_norm goes with "mean"'),
        ({"l2_clip_norm": 1.0}, 'l2_clip_norm goes with "mean"'),
        ({"statistics": ["mean"], "l2_clip_norm": 1e300}, "l2_clip_norm must be"),
        ({"statistics": ["class_counts"]}, "pass classes=…, the public list"),
        ({"statistics": ["class_counts"], "classes": [0, 1]}, "y has labels that are not in"),
        ({"statistics": ["class_counts"], "classes": [0, 1], "y": None}, "pass y"),
        ({"statistics": ["class_counts"], "classes": [0, 1], "y": [0, 1]}, "500 rows and y has 2"),
        ({"epsilon": 0}, "epsilon"),
        ({"delta": 1}, "delta"),
        ({"ledger": "x.db"}, "ledger and dataset go together"),
        ({"X": [[math.nan]]}, "NaN or infinity, first in row 0"),
        ({"X": [["a"]]}, "numbers only"),
    ],
)
def test_bad_input_is_named_and_nothing_is_drawn(data, changes, message, monkeypatch):
    monkeypatch.setattr(summaries, "GaussianMechanism", None)
    arguments = {"X": data[0], "y": data[1], "epsilon": 1.0, **changes}
    with pytest.raises(ValueError, match=message):
        summarize_privately(arguments.pop("X"), arguments.pop("y"), **arguments)


def test_a_seed_warns_and_makes_it_not_private(data):
    with pytest.warns(PrivacyWarning, match="random_state was given"):
        summary = summarize_privately(data[0], epsilon=1.0, random_state=0)
    assert not summary.privacy_.private


def test_the_docstring_example_runs():
    result = doctest.testmod(summaries)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("default", ["cpu", "meta"])
def test_another_default_device_or_numpys_errors_cost_no_budget(default):
    import torch

    rows = np.random.default_rng(0).normal(size=(60, 3)) * 10.0 ** np.arange(-200, 400, 200)
    torch.set_default_device(default)
    try:
        with np.errstate(all="raise"):
            summary = summarize_privately(
                rows, epsilon=1.0, statistics=("count", "mean"), l2_clip_norm=1.0
            )
    finally:
        torch.set_default_device("cpu")
    assert np.isfinite(summary.mean).all()
