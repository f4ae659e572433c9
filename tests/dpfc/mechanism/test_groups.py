"""Persons and weights as users bring them: what is refused before a spend, and what follows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import dpfc
from dpfc import PrivacyWarning
from dpfc.accounting import LedgerError, PrivacyLedger
from dpfc.mechanism.groups import (
    balanced_factors,
    bounded_weights,
    class_factors,
    group_codes,
    rows_of_people,
)
from dpfc.mechanism.noise import SeededNoise
from dpfc.mechanism.people import WHOLE
from dpfc.mechanism.rows import ArrayRows

CALLS = {
    "fit": lambda X, y, **more: model().fit(X, y, **more),
    "search": lambda X, y, **more: dpfc.DPSearchCV(
        dpfc.DPLeastSquaresClassifier(classes=[0, 1]), {"damping": [0.2]}, verbose=False
    ).fit(X, y, **more),
    "evaluation": lambda X, y, **more: dpfc.evaluate_privately(
        model(epsilon=math.inf).fit(X, y), X, y, epsilon=1.0, **more
    ),
    "summary": lambda X, y, **more: dpfc.summarize_privately(X, epsilon=1.0, **more),
}


def model(**options):
    return dpfc.DPLeastSquaresClassifier(**{"classes": [0, 1], **options})


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)), rng.integers(2, size=n)


# -- persons -------------------------------------------------------------------------


def missing(at, n=40):
    groups = [f"p{i % 7}" for i in range(n)]
    groups[at] = None
    return groups


REFUSED = {
    "too few": (np.zeros(39), "39"),
    "a missing name": (missing(5), "row 5 has none"),
    "a number that is none": (np.where(np.arange(40) == 3, np.nan, 1.0), "row 3 has none"),
    "numbers and strings": ([1] * 39 + ["a"], "row 39"),
    "a table": (np.zeros((40, 2)), "group"),
    "a name that NumPy cuts": (["p\0" if i == 4 else "p" for i in range(40)], "row 4"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("groups, words", REFUSED.values(), ids=REFUSED)
def test_wrong_groups_are_refused_by_position_and_never_by_name(call, groups, words):
    with pytest.raises((TypeError, ValueError), match=words) as raised:
        call(*data(), groups=groups)
    assert "groups" in str(raised.value)
    assert "class" not in str(raised.value)
    assert "p3" not in str(raised.value)


def test_wrong_groups_and_weights_spend_nothing(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("ward", epsilon=3.0, delta=1e-5)
    named = {"ledger": tmp_path / "ledger.db", "dataset": "ward"}
    X, y = data()
    for options, more in (
        ({}, {"groups": np.zeros(3)}),
        ({"max_sample_weight": 1.0}, {"sample_weight": np.full(40, 2.0)}),
        ({"class_weight": {7: 1.0}}, {}),
        ({"class_weight": {0: 0.0, 1: 0.0}}, {}),
        ({"class_weight": "heavy"}, {}),
        ({"group_method": "median"}, {"groups": np.arange(40)}),
        ({"max_group_rows": 257}, {"groups": np.arange(40)}),
    ):
        with pytest.raises(ValueError):
            model(**named, **options).fit(X, y, **more)
    assert not ledger.history("ward")


@pytest.mark.parametrize(
    "groups",
    [
        [3, 3, 1, 2, 1],
        ["c", "c", "a", "b", "a"],
        np.array([3.0, 3.0, 1.0, 2.0, 1.0]),
        pd.Series(["c", "c", "a", "b", "a"], dtype="category"),
        pd.Series([3, 3, 1, 2, 1], dtype="Int64"),
    ],
    ids=["ints", "strings", "floats", "categories", "nullable"],
)
def test_persons_are_the_same_whatever_names_they_have(groups):
    codes = group_codes(None, groups, 5)
    assert codes[0] == codes[1]
    assert codes[2] == codes[4]
    assert len(set(codes.tolist())) == 3


def test_without_groups_a_fit_is_what_it_was():
    X, y = data()
    plain = model(random_state=3).fit(X, y)
    assert "each person contributes one row" in plain.privacy_.rests_on
    grouped = model(random_state=3).fit(X, y, groups=np.arange(40) // 4)
    assert any("in one group" in line for line in grouped.privacy_.rests_on)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_ledger_of_patients_with_many_rows_takes_grouped_spends_alone(call, tmp_path):
    """And the statement then says patient; without a ledger, a group of rows."""
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "ward", epsilon=9.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=None
    )
    X, y = data()
    groups = np.arange(40) // 4
    named = {"ledger": ledger, "dataset": "ward"}

    def called(**more):
        if call is CALLS["fit"]:
            return model(**more).fit(X, y, groups=groups if grouped else None)
        if call is CALLS["search"]:
            return dpfc.DPSearchCV(model(), {"damping": [0.2]}, verbose=False, **more).fit(
                X, y, groups=groups if grouped else None
            )
        more |= {"groups": groups} if grouped else {}
        if call is CALLS["summary"]:
            return dpfc.summarize_privately(X, epsilon=1.0, **more)
        public = model(epsilon=math.inf).fit(X, y)
        return dpfc.evaluate_privately(public, X, y, epsilon=1.0, **more)

    grouped = False
    with pytest.raises(LedgerError, match="group"):
        called(**named)
    assert not ledger.history("ward")
    assert called().privacy_.unit_of_privacy == "one row"
    grouped = True
    assert called(**named).privacy_.unit_of_privacy == "one patient"
    assert len(ledger.history("ward")) == 1
    assert called().privacy_.unit_of_privacy == "one group of rows"


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("call", CALLS, ids=CALLS)
def test_how_many_rows_persons_have_is_not_said_to_be_public(call, relation):
    X, y = data()
    how = {"neighboring_relation": relation, "classes": [0, 1]}
    if call in ("fit", "search"):
        learner = dpfc.DPLeastSquaresClassifier(**how)
        if call == "search":
            learner = dpfc.DPSearchCV(learner, {"damping": [0.2]}, verbose=False)
        done = learner.fit(X, y, groups=np.arange(40) // 4)
    else:
        groups = np.arange(40) // 4
        how = {"neighboring_relation": relation, "epsilon": 1.0, "groups": groups}
        if call == "summary":
            how |= {"statistics": ["class_counts"], "classes": [0, 1]}
            done = dpfc.summarize_privately(X, y, **how)
        else:
            done = dpfc.evaluate_privately(model(epsilon=math.inf).fit(X, y), X, y, **how)
    said = [line for line in done.privacy_.rests_on if line.startswith("the number of")]
    assert len(said) == 1
    assert said[0].startswith("the number of groups is ")
    assert ("public" in said[0]) == (relation == "replace_one")


def test_a_statement_says_where_the_largest_weight_is_from():
    X, y = data()
    weights = np.linspace(0.1, 1.0, 40)
    learners = (model, lambda **o: dpfc.DPSearchCV(model(**o), {"damping": [0.2]}, verbose=False))
    for make in learners:
        with pytest.warns(PrivacyWarning, match="max_sample_weight"):
            read = make().fit(X, y, weights).privacy_
        assert any(
            line.startswith("NOT COVERED") and "sample_weight" in line for line in read.rests_on
        )
        stated = make(max_sample_weight=1.0).fit(X, y, weights).privacy_
        assert any("largest sample_weight" in line for line in stated.rests_on)
        assert not any(line.startswith("NOT COVERED") for line in stated.rests_on)
        assert not any("sample_weight" in line for line in make().fit(X, y).privacy_.rests_on)


def test_one_row_of_a_person_may_have_a_weight_and_be_averaged():
    rows, units, weights = ArrayRows(np.eye(4), np.zeros(4, dtype=np.int64)), np.arange(4) // 2, 0.5
    drawn = rows_of_people(
        rows,
        units,
        np.full(4, weights),
        1.0,
        method="average",
        max_group_rows=1,
        noise=SeededNoise(0),
    )
    assert drawn.n_samples == 2
    assert drawn.shares.weights.tolist() == [WHOLE // 2] * 2


@pytest.mark.parametrize("relation, n_people", [("add_or_remove_one", 10), ("replace_one", 10)])
def test_a_count_is_of_persons(relation, n_people):
    X, _ = data(4000)
    groups = np.arange(4000) // 400
    summary = dpfc.summarize_privately(
        X,
        epsilon=1e4,
        statistics=["count", "mean"],
        l2_clip_norm=1e3,
        groups=groups,
        neighboring_relation=relation,
    )
    assert summary.count == pytest.approx(n_people, abs=0.2)
    means = X.reshape(10, 400, 5).mean(axis=1).mean(axis=0)
    assert np.abs(summary.mean - means).max() < 5.0  # noise of 1e3 over 10 persons at this ε


def test_an_evaluation_counts_a_person_once():
    """A hundred rows of one person, all wrong, beside nine persons with one right row each."""
    X, y = data(400, seed=1)
    y[:] = X[:, 0] > 0
    public = model(epsilon=math.inf).fit(X, y)
    right = np.flatnonzero(public.predict(X) == y)[:9]
    wrong = np.repeat(np.flatnonzero(public.predict(X) == y)[9:10], 100)
    rows = np.concatenate([right, wrong])
    labels = np.concatenate([y[right], 1 - y[wrong]])
    groups = np.concatenate([np.arange(9), np.full(100, 9)])
    result = dpfc.evaluate_privately(
        public, X[rows], labels, epsilon=1e4, metrics=["accuracy"], groups=groups
    )
    assert result.accuracy == pytest.approx(0.9, abs=0.02)


def test_pairs_of_rows_that_memory_does_not_hold_are_refused_before_a_spend(monkeypatch, tmp_path):
    monkeypatch.setattr("dpfc._support.memory.available_memory", lambda *_: 2**20)
    X, y = data(4000)
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "ward", epsilon=3.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=None
    )
    fit = model(ledger=ledger, dataset="ward", max_group_rows=256).fit
    with pytest.raises(dpfc.exceptions.InsufficientMemoryError, match="max_group_rows"):
        fit(X, y, groups=np.arange(4000) // 256)
    assert not ledger.history("ward")


def test_of_many_rows_some_are_drawn_and_means_of_classes_weigh_as_many_as_they_are_of():
    X = np.arange(24.0).reshape(12, 2)
    codes = np.array([0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0, 0])
    units = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    rows = ArrayRows(X, codes)
    noise = SeededNoise(0)
    drawn = rows_of_people(rows, units, None, 1.0, method="clip", max_group_rows=3, noise=noise)
    assert drawn.n_samples == 9
    assert drawn.shares.n_units == 3
    averaged = rows_of_people(
        ArrayRows(X, codes), units, None, 1.0, method="average", max_group_rows=256, noise=noise
    )
    ((means, found),) = averaged.blocks(100)
    assert found.tolist() == [0, 1, 0, 1, 0]
    expected = [X[:3].mean(0), X[3], X[4], X[5:8].mean(0), X[8:].mean(0)]
    assert np.allclose(means, expected)
    assert averaged.shares.weights.tolist() == [WHOLE, WHOLE // 3, WHOLE // 3, WHOLE, WHOLE]
    assert averaged.shares.units.tolist() == [0, 0, 1, 1, 2]


def test_a_persons_mean_is_its_own_to_the_bit_whoever_is_beside():
    rng = np.random.default_rng(0)
    n = 9000  # several blocks
    X, codes, units = rng.normal(size=(n, 3)), rng.integers(2, size=n), rng.integers(60, size=n)
    make = {"method": "average", "max_group_rows": 256, "noise": SeededNoise(0)}

    def means(keep):
        rows = rows_of_people(
            ArrayRows(X[keep], codes[keep]),
            np.unique(units[keep], return_inverse=True)[1],
            None,
            1.0,
            **make,
        )
        ((block, _),) = rows.blocks(10**6)
        return block

    everybody, others = means(np.ones(n, dtype=bool)), means(units != 0)
    assert np.array_equal(everybody[2:], others)


# -- weights -------------------------------------------------------------------------


def test_the_largest_weight_is_public_or_warned_of():
    weights = np.array([0.5, 2.0, 1.0])
    with pytest.warns(PrivacyWarning, match="max_sample_weight"):
        found, largest = bounded_weights(weights, 3, None)
    assert largest == 2.0
    assert bounded_weights(weights, 3, 4.0)[1] == 4.0
    with pytest.raises(ValueError, match="row 1") as raised:
        bounded_weights(weights, 3, 1.5)
    assert "2.0" not in str(raised.value)
    assert np.array_equal(found, weights)


@pytest.mark.parametrize("wrong", [[1.0, -1.0], [1.0, np.nan], [0.0, 0.0], [1.0], ["a", "b"]])
def test_wrong_weights_are_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        bounded_weights(wrong, 2, 1.0)


def test_classes_are_weighed_by_their_public_names():
    classes = np.array(["sick", "well"])
    assert class_factors({"sick": 5}, classes).tolist() == [5.0, 1.0]
    assert class_factors({}, classes).tolist() == [1.0, 1.0]
    for wrong in ({"ill": 2.0}, {"sick": -1.0}, {"sick": math.nan}, {0: 1.0}):
        with pytest.raises((TypeError, ValueError), match="class_weight"):
            class_factors(wrong, classes)


def test_balanced_weights_are_scikit_learns_and_none_grows_beyond_what_noise_can_tell():
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2], [60, 30, 10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert np.allclose(balanced_factors(np.array([60.0, 30.0, 10.0]), 0.0), expected)
    lost = balanced_factors(np.array([500.0, -3.0]), 20.0)
    assert lost.max() / lost.min() == 25.0


def test_weighted_least_squares_without_noise_are_the_weighted_normal_equations():
    """Halves and quarters are exact in whole weights."""
    X, y = data(60)
    weights = np.resize([1.0, 0.5, 0.25, 0.0], 60)
    fitted = (
        model(
            epsilon=math.inf,
            center=False,
            length_scaling=0.0,
            nonnegative_root=False,
            fit_intercept=False,
            l2_regularization=0.1,
            max_sample_weight=1.0,
            normalize=False,
            l2_clip_norm=math.inf,
        )
        if "length_scaling" in model().get_params()
        else model(
            epsilon=math.inf,
            center=False,
            nonnegative_root=False,
            fit_intercept=False,
            l2_regularization=0.1,
            max_sample_weight=1.0,
            normalize=False,
            l2_clip_norm=math.inf,
        )
    )
    fitted.fit(X, y, sample_weight=weights)
    gram = X.T @ (weights[:, None] * X) + 0.1 * np.eye(5)
    signs = np.where(y == 1, 1.0, -1.0)
    expected = np.linalg.solve(gram, X.T @ (weights * signs))
    assert np.allclose(fitted.coef_[0], expected, rtol=1e-8)
    doubled = model(**{**fitted.get_params(), "max_sample_weight": None, "class_weight": {1: 2.0}})
    doubled.fit(X, y)
    of_class = np.where(y == 1, 2.0, 1.0)
    gram = X.T @ (of_class[:, None] * X) + 0.1 * np.eye(5)
    assert np.allclose(doubled.coef_[0], np.linalg.solve(gram, X.T @ (of_class * signs)), rtol=1e-8)


def test_metadata_routing_brings_groups_and_weights_to_a_pipelines_last_step():
    from sklearn import config_context
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    X, y = data()
    with config_context(enable_metadata_routing=True):
        last = model(max_sample_weight=1.0).set_fit_request(groups=True, sample_weight=True)
        pipeline = make_pipeline(Normalizer(), last)
        pipeline.fit(X, y, groups=np.arange(40) // 2, sample_weight=np.ones(40))
    statement = pipeline[-1].privacy_
    assert any("in one group" in line for line in statement.rests_on)


def test_class_weights_come_back_from_a_file_with_their_keys(tmp_path):
    X, y = data()
    for classes, weights in (([0, 1], {1: 3}), (["no", "yes"], {"no": 0.5})):
        fitted = model(classes=classes, class_weight=weights).fit(X, np.array(classes)[y])
        fitted.save(tmp_path / "m")
        again = dpfc.load_model(tmp_path / "m")
        assert again.class_weight == weights
        assert np.array_equal(again.predict(X), fitted.predict(X))
