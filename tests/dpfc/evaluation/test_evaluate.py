"""Private evaluation from end to end: exact without noise, accounted with it, and silent."""

from __future__ import annotations

import copy
import doctest
import json
import math
import warnings

import numpy as np
import pytest
import torch
from mechanisms import Transcript, squared_moves
from noise_checks import assert_noise
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_auc_score

import dpfc
from dpfc import PrivacyWarning, evaluate_privately
from dpfc.accounting import BudgetExceeded, LedgerError, PrivacyLedger
from dpfc.accounting.gaussian import gaussian_mu
from dpfc.evaluation import evaluate as evaluation
from dpfc.mechanism.noise import SystemNoise

EVERYTHING = ("accuracy", "confusion_matrix", "auc")
RELATIONS = ["add_or_remove_one", "replace_one"]
DELTA = 1e-5


def data(n_classes, n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    return rng.normal(size=(n, 6)) + 1.5 * np.eye(6)[y], y


@pytest.fixture(scope="module", params=[2, 3])
def fitted(request):
    """A model of 2 or 3 classes, and test rows that it has not seen."""
    X, y = data(request.param)
    model = dpfc.DPFCClassifier(epsilon=8.0, classes=range(request.param)).fit(X, y)
    return model, *data(request.param, n=400, seed=1)


@pytest.fixture(scope="module")
def three():
    X, y = data(3)
    model = dpfc.DPFCClassifier(epsilon=8.0, classes=range(3)).fit(X, y)
    return model, *data(3, n=400, seed=1)


@pytest.fixture
def ledger(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "test rows", epsilon=3.0, delta=DELTA, unit_of_privacy="one patient", rows_per_unit=1
    )
    return ledger


# -- figures -------------------------------------------------------------------------


@pytest.mark.parametrize("relation", RELATIONS)
def test_without_noise_figures_are_scikit_learns(fitted, relation):
    model, X, y = fitted
    result = evaluate_privately(
        model, X, y, epsilon=math.inf, metrics=EVERYTHING, neighboring_relation=relation
    )
    predicted, probabilities = model.predict(X), model.predict_proba(X)
    assert result.accuracy == accuracy_score(y, predicted) == model.score(X, y)
    assert result.confusion_matrix.dtype == np.float64
    np.testing.assert_array_equal(result.confusion_matrix, confusion_matrix(y, predicted))
    np.testing.assert_allclose(result.recall, recall_score(y, predicted, average=None))
    if len(model.classes_) == 2:
        expected = roc_auc_score(y, probabilities[:, 1])
        assert result.auc_per_class.tolist() == [result.auc]
    else:
        expected = roc_auc_score(y, probabilities, multi_class="ovr")
        assert result.auc == pytest.approx(result.auc_per_class.mean())
    # Scores in one bin count as ties; of other models' scores more may share one.
    assert result.auc == pytest.approx(expected, abs=0.015)
    assert result.n_samples == 400 and result.n_samples_interval == (400, 400)
    assert result.confusion_noise == 0.0
    assert not result.privacy_.private


def test_with_little_noise_figures_are_close_and_intervals_hold_them(fitted):
    model, X, y = fitted
    exact = evaluate_privately(model, X, y, epsilon=math.inf, metrics=EVERYTHING)
    noisy = evaluate_privately(model, X, y, epsilon=100.0, metrics=EVERYTHING)
    assert noisy.accuracy == pytest.approx(exact.accuracy, abs=0.02)
    assert noisy.auc == pytest.approx(exact.auc, abs=0.03)
    assert noisy.confusion_matrix == pytest.approx(exact.confusion_matrix, abs=5)
    # With so little noise, none of whole numbers may be left; that it is there is stated.
    assert noisy.n_samples == pytest.approx(400, abs=10) and noisy.confusion_noise > 0.0
    for value, (low, high) in (
        (exact.accuracy, noisy.accuracy_interval),
        (exact.auc, noisy.auc_interval),
        *zip(exact.recall, noisy.recall_intervals, strict=True),
    ):
        assert low < value < high


def test_what_was_not_asked_for_is_absent(three):
    model, X, y = three
    result = evaluate_privately(model, X, y, epsilon=1.0, metrics=["accuracy"])
    assert result.accuracy is not None
    for name in ("auc", "auc_interval", "auc_per_class", "confusion_matrix", "recall"):
        assert getattr(result, name) is None
    assert [release.name for release in result.privacy_.releases] == ["hit_counts"]
    assert result.confidence == 0.95 and result.classes_.tolist() == [0, 1, 2]


def test_higher_confidence_is_wider(three):
    model, X, y = three
    widths = [
        np.ptp(evaluate_privately(model, X, y, epsilon=math.inf, confidence=c).accuracy_interval)
        for c in (0.5, 0.95, 0.999)
    ]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("options", [{"n_samples": 400}, {"neighboring_relation": "replace_one"}])
def test_a_public_number_of_rows_is_used(three, options):
    model, X, y = three
    result = evaluate_privately(model, X, y, epsilon=0.5, **options)
    assert result.n_samples == 400.0 and result.n_samples_interval == (400.0, 400.0)


def test_a_cache_a_list_and_a_tensor_are_evaluated_alike(three, make_cache):
    model, X, y = three
    kinds = [
        (X, y),
        (X.tolist(), y.tolist()),
        (torch.from_numpy(X), torch.from_numpy(y)),
        (make_cache(X, y), None),
    ]
    results = [evaluate_privately(model, X, y, epsilon=math.inf) for X, y in kinds]
    for result in results[1:]:
        np.testing.assert_array_equal(result.confusion_matrix, results[0].confusion_matrix)


def test_every_estimator_can_be_evaluated(estimator_class):
    X, y = data(3)
    model = estimator_class(epsilon=8.0, classes=range(3)).fit(X, y)
    result = evaluate_privately(model, X, y, epsilon=math.inf, metrics=EVERYTHING)
    assert result.accuracy == model.score(X, y)
    assert type(model).__name__ in result.privacy_.estimator


# -- privacy -------------------------------------------------------------------------


@pytest.mark.parametrize("relation", RELATIONS)
def test_counts_carry_the_noise_that_the_budget_asks_for(relation):
    X, y = data(3)
    classes = range(15)  # most of them without a row: many cells to draw noise for
    model = dpfc.DPFCClassifier(epsilon=8.0, classes=classes).fit(X, y)
    exact = confusion_matrix(y, model.predict(X), labels=classes)
    sensitivity = 1.0 if relation == "add_or_remove_one" else math.sqrt(2)
    sigma = sensitivity / gaussian_mu(1.0, DELTA)
    options = {"epsilon": 1.0, "delta": DELTA, "neighboring_relation": relation}
    options["metrics"] = ["confusion_matrix"]
    results = [evaluate_privately(model, X, y, **options) for _ in range(8)]
    assert results[0].confusion_noise == pytest.approx(sigma, rel=1e-4)
    assert_noise(np.stack([result.confusion_matrix - exact for result in results]), sigma)


@pytest.mark.parametrize("relation", RELATIONS)
def test_neighbours_on_a_tie_move_all_counts_by_the_whole_budget_at_most(relation, monkeypatch):
    """Rows on which a plain matrix product rounds to one side or the other, and one that leaves."""
    X, y = data(3, n=300)
    model = dpfc.DPGradientClassifier(epsilon=math.inf, classes=range(3), center=False).fit(X, y)
    model.intercept_ = np.zeros(3)
    normal = model.coef_[0] - model.coef_[1]
    X -= np.outer(X @ normal, normal) / (normal @ normal)
    moved, transcript = [], Transcript(monkeypatch)
    options = {"epsilon": 2.0, "delta": DELTA, "metrics": EVERYTHING}
    options["neighboring_relation"] = relation
    for row in (0, 7, 299):
        other_X, other_y = np.delete(X, row, axis=0), np.delete(y, row)
        if relation == "replace_one":
            other_X = np.insert(other_X, row, -1e300 * X[row], axis=0)
            other_y = np.insert(other_y, row, (y[row] + 1) % 3)
        (draws, _), (others, _) = (
            transcript.record(lambda rows=rows: evaluate_privately(model, *rows, **options))
            for rows in ((X, y), (other_X, other_y))
        )
        moved.append(math.fsum(squared_moves(draws, others).values()))
    assert max(moved) <= gaussian_mu(2.0, DELTA) ** 2
    assert max(moved) >= 0.7 * gaussian_mu(2.0, DELTA) ** 2


def test_metrics_share_the_budget_equally(fitted):
    model, X, y = fitted
    result = evaluate_privately(model, X, y, epsilon=1.0, metrics=EVERYTHING)
    curves = 1 if len(model.classes_) == 2 else len(model.classes_)
    releases = {release.name: release for release in result.privacy_.releases}
    assert {name: r.count for name, r in releases.items()} == {
        "hit_counts": 1,
        "confusion_counts": 1,
        "score_histogram": curves,
    }
    mu = gaussian_mu(1.0, 1e-5)
    for release in releases.values():
        assert release.l2_sensitivity == 1.0
        spent = release.count / release.noise_multiplier**2
        assert spent == pytest.approx(mu**2 / 3, rel=1e-9)
    assert result.privacy_.epsilon_by_accountant["exact"] <= 1.0


def test_the_statement_says_what_ran_and_what_it_rests_on(three):
    model, X, y = three
    statement = evaluate_privately(model, X, y, epsilon=1.0).privacy_
    assert statement.kind == "evaluation" and statement.private
    assert statement.estimator == "evaluate_privately(DPFCClassifier)"
    assert any("model and its classes are public" in sentence for sentence in statement.rests_on)
    assert any("number of test rows is private" in sentence for sentence in statement.rests_on)
    assert statement.not_covered == []
    assert type(statement).from_json(statement.to_json()) == statement


def test_nothing_but_the_figures_depends_on_the_rows(three):
    model, X, y = three
    results = [
        evaluate_privately(model, X[rows], y[rows], epsilon=0.5, metrics=EVERYTHING)
        for rows in (slice(0, 1), slice(None))
    ]
    assert results[0].privacy_ == results[1].privacy_
    assert results[0].confusion_noise == results[1].confusion_noise
    shapes = [
        {name: np.shape(value) for name, value in vars(result).items() if name != "privacy_"}
        for result in results
    ]
    assert shapes[0] == shapes[1]


ODD = {
    "one row": lambda X, y: (X[:1], y[:1]),
    "one class": lambda X, y: (X[y == 1], y[y == 1]),
    "all wrong": lambda X, y: (X, (y + 1) % 3),
    "zero rows of features": lambda X, y: (np.zeros((25, 6)), np.arange(25) % 3),
    "equal rows": lambda X, y: (np.repeat(X[:1], 50, axis=0), np.repeat(y[:1], 50)),
    "huge and tiny": lambda X, y: (X * 10.0 ** np.linspace(-200, 200, len(X))[:, None], y),
    "two rows of one label each": lambda X, y: (X[:2], np.array([0, 2])),
    "as many labels as rows": lambda X, y: (X[:3], np.arange(3)),
}


@pytest.mark.parametrize("epsilon", [0.01, 5.0, math.inf])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_no_rows_cause_an_error_or_a_warning(three, odd, epsilon):
    model, X, y = three
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate_privately(model, *odd(X, y), epsilon=epsilon, metrics=EVERYTHING)
        str(result)
        json.dumps(result.to_dict(), allow_nan=False)
    for low, high in (result.accuracy_interval, result.auc_interval, *result.recall_intervals):
        assert 0.0 <= low <= high <= 1.0


def test_what_noise_hides_is_said_to_be_hidden(three):
    model, X, y = three
    result = evaluate_privately(model, X, y, epsilon=0.001, metrics=EVERYTHING, confidence=0.999999)
    assert math.isnan(result.accuracy) and result.accuracy_interval == (0.0, 1.0)
    assert math.isnan(result.auc) and result.auc_interval == (0.0, 1.0)
    assert "accuracy unknown: hidden by the noise" in str(result)
    assert result.to_dict()["accuracy"] is None


def test_a_seed_repeats_the_figures_and_is_warned_about(three):
    model, X, y = three
    results = []
    for _ in range(2):
        with pytest.warns(PrivacyWarning, match="must not be published") as caught:
            results.append(evaluate_privately(model, X, y, epsilon=1.0, random_state=3))
        assert caught[0].filename == __file__
    assert results[0].accuracy == results[1].accuracy
    assert not results[0].privacy_.private
    # Two draws of counts may be equal; that eight are has a probability below 1e-12.
    unseeded = [evaluate_privately(model, X, y, epsilon=1.0).accuracy for _ in range(8)]
    assert len(set(unseeded)) > 1


# -- the ledger ----------------------------------------------------------------------


def test_an_evaluation_files_one_spend_with_its_statement(three, ledger):
    model, X, y = three
    result = evaluate_privately(
        model, X, y, epsilon=1.0, metrics=EVERYTHING, ledger=ledger.path, dataset="test rows"
    )
    (spend,) = ledger.history("test rows")
    assert spend.purpose == "evaluate DPFCClassifier"
    assert spend.statement == result.privacy_
    assert result.privacy_.dataset == "test rows"
    assert result.privacy_.unit_of_privacy == "one patient"
    assert "each patient contributes one test row" in result.privacy_.rests_on


def test_the_spend_is_recorded_before_any_noise_is_drawn(three, ledger, monkeypatch):
    model, X, y = three
    seen = []

    def interrupt(self, sigma, size):
        seen.append(len(ledger.history("test rows")))
        raise KeyboardInterrupt

    monkeypatch.setattr(SystemNoise, "rounded_gaussian", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate_privately(model, X, y, epsilon=1.0, ledger=ledger.path, dataset="test rows")
    assert seen == [1]


def test_an_evaluation_that_exceeds_the_budget_draws_and_records_nothing(
    three, ledger, monkeypatch
):
    model, X, y = three
    options = {"ledger": ledger.path, "dataset": "test rows"}
    evaluate_privately(model, X, y, epsilon=2.9, **options)
    monkeypatch.setattr(SystemNoise, "rounded_gaussian", lambda *_: pytest.fail("noise was drawn"))
    with pytest.raises(BudgetExceeded, match="test rows"):
        evaluate_privately(model, X, y, epsilon=1.0, **options)
    assert len(ledger.history("test rows")) == 1


REFUSED = [
    ({"epsilon": math.inf}, LedgerError),
    ({"neighboring_relation": "replace_one"}, LedgerError),
    ({"X": np.full((400, 6), np.nan)}, ValueError),
    ({"y": np.full(400, 7)}, ValueError),
    ({"y": np.zeros(3, int)}, ValueError),
]


@pytest.mark.parametrize("change, error", REFUSED)
def test_what_is_refused_spends_nothing(three, ledger, change, error):
    model, X, y = three
    parameters = {"X": X, "y": y, "epsilon": 1.0, "ledger": ledger.path, "dataset": "test rows"}
    with pytest.raises(error):
        evaluate_privately(model, **(parameters | change))
    assert ledger.history("test rows") == []


# -- bad input -----------------------------------------------------------------------


BAD = [
    ({"epsilon": 0.0}, "epsilon must be a float in (0, inf], got 0.0"),
    ({"epsilon": "1"}, "epsilon must be"),
    ({"delta": 1.0}, "delta must be"),
    ({"confidence": 1.0}, "confidence must be a float in (0, 1), got 1.0"),
    ({"confidence": math.nan}, "confidence must be"),
    ({"metrics": "accuracy"}, "metrics must be a list of one or more of 'accuracy'"),
    ({"metrics": ()}, "metrics must be"),
    ({"metrics": None}, "metrics must be"),
    ({"metrics": [["auc"]]}, "metrics must be"),
    ({"metrics": ["auc", "auc"]}, "metrics must be"),
    ({"metrics": ["f1"]}, "metrics must be"),
    ({"n_samples": 0}, "n_samples must be"),
    ({"neighboring_relation": "both"}, "neighboring_relation must be"),
    ({"accountant": "zcdp"}, "accountant must be"),
    ({"ledger": "x.db"}, "ledger and dataset go together"),
    ({"random_state": -1}, "random_state must be"),
    ({"model": LogisticRegression()}, "model must be a fitted classifier of dpfc, got Logistic"),
    ({"model": BaseEstimator()}, "model must be"),
    ({"y": None}, "y must be given"),
    ({"y": [0, 1]}, "X has 400 rows and y has 2 labels"),
    ({"y": [0] * 399 + [9]}, "labels that are not in classes, the first in row 399"),
    ({"y": ["a"] * 400}, "not in classes"),
    ({"y": [math.nan] * 400}, "not in classes"),
    ({"y": np.zeros((400, 2))}, "y should be a 1d array"),
    ({"X": np.zeros((400, 5))}, "5 features"),
    ({"X": np.full((400, 6), math.inf)}, "X contains NaN or infinity, first in row 0"),
    ({"X": np.zeros((0, 6)), "y": []}, "minimum of 1 is required"),
]


@pytest.mark.parametrize("change, words", BAD)
def test_bad_input_is_named(three, change, words):
    model, X, y = three
    parameters = {"model": model, "X": X, "y": y, "epsilon": 1.0} | change
    with pytest.raises(ValueError) as caught:
        evaluate_privately(**parameters)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["coef_", "intercept_"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_diverged_is_refused_before_any_spend(three, ledger, name, value):
    model, X, y = three
    diverged = copy.deepcopy(model)
    getattr(diverged, name).flat[0] = value
    with pytest.raises(ValueError, match="weights are not all finite"):
        evaluate_privately(diverged, X, y, epsilon=1, ledger=ledger.path, dataset="test rows")
    assert ledger.history("test rows") == []


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_weights_of_any_finite_size_are_evaluated(three, size):
    model, X, y = three
    scaled = copy.deepcopy(model)
    for name in ("coef_", "length_coef_", "intercept_"):
        setattr(scaled, name, size * getattr(model, name))
    result = evaluate_privately(scaled, X, y, epsilon=math.inf)
    assert result.accuracy == pytest.approx(model.score(X, y), abs=0.01)


def test_a_cache_brings_its_own_labels(three, make_cache):
    model, X, y = three
    with pytest.raises(ValueError, match="y must be left out"):
        evaluate_privately(model, make_cache(X, y), y, epsilon=1.0)
    with pytest.raises(ValueError, match="holds no labels"):
        evaluate_privately(model, make_cache(X, None), epsilon=1.0)
    with pytest.raises(ValueError, match="5 features"):
        evaluate_privately(model, make_cache(X[:, :5], y), epsilon=1.0)


def test_an_unfitted_model_is_refused():
    with pytest.raises(NotFittedError):
        evaluate_privately(dpfc.DPFCClassifier(), np.zeros((3, 2)), [0, 1, 0], epsilon=1.0)


def test_the_example_runs():
    results = doctest.testmod(evaluation)
    assert results.attempted >= 5 and results.failed == 0
