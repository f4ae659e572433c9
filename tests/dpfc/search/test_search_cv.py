"""DPSearchCV: what it chooses, as an estimator of scikit-learn, and on bad input."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPSearchCV,
    PrivacyWarning,
    load_model,
)
from dpfc.accounting import BudgetExceeded, PrivacyLedger
from dpfc.accounting.search_budget import RunLaw
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.search.trials import Trials

DAMPING = {"damping": [0.1, 0.5, 2.0]}
STRATEGIES = ["composition", "random_stopping"]
SEEDED = "ignore:random_state was given"


def make(estimator=DPLeastSquaresClassifier, grid=None, own=None, **parameters):
    """A search over `grid`; `own` are parameters of the estimator."""
    model = estimator(**({"classes": range(10)} | (own or {})))
    return DPSearchCV(model, DAMPING if grid is None else grid, **parameters)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400], y[:400]


# -- what it chooses ---------------------------------------------------------------------


@pytest.mark.filterwarnings(SEEDED)
@pytest.mark.parametrize("estimator", [DPLeastSquaresClassifier, DPFCClassifier])
def test_without_noise_it_is_the_best_by_exact_holdout_accuracy(digits, estimator):
    X, y = digits
    grid = {"l2_regularization": [1e-3, 0.1, 1.0, 30.0], "normalize": [True, False]}
    search = make(estimator, grid, epsilon=math.inf, random_state=3).fit(X, y)
    held_out = SeededNoise(3).bernoulli(0.2, len(X))
    exact = []
    for params in search.cv_results_["params"]:
        model = estimator(epsilon=math.inf, classes=range(10), **params)
        exact.append(model.fit(X[~held_out], y[~held_out]).score(X[held_out], y[held_out]))
    assert search.cv_results_["mean_test_score"].tolist() == pytest.approx(exact, abs=1e-12)
    assert len(set(exact)) > 3
    assert search.best_index_ == int(np.argmax(exact))
    assert search.best_score_ == pytest.approx(max(exact))
    refitted = estimator(epsilon=math.inf, classes=range(10), **search.best_params_).fit(X, y)
    np.testing.assert_allclose(search.best_estimator_.coef_, refitted.coef_, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings(SEEDED)
def test_without_refit_the_model_is_the_winners_from_the_training_part(digits):
    X, y = digits
    search = make(epsilon=math.inf, refit_share=0, random_state=3).fit(X, y)
    training = ~SeededNoise(3).bernoulli(0.2, len(X))
    model = DPLeastSquaresClassifier(epsilon=math.inf, classes=range(10), **search.best_params_)
    model.fit(X[training], y[training])
    np.testing.assert_allclose(search.best_estimator_.coef_, model.coef_, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings(SEEDED)
def test_ties_go_to_the_first_candidate(three_classes):
    X, y = three_classes
    grid = {"n_steps": [5, 6, 7]}
    search = make(DPFCClassifier, grid, {"classes": range(3)}, epsilon=math.inf, random_state=0)
    search.fit(X, y)
    assert search.cv_results_["rank_test_score"].tolist() == [1, 1, 1]
    assert search.best_index_ == 0 and search.best_params_ == {"n_steps": 5}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hopeless_candidate_loses(digits, strategy):
    grid = {"damping": [0.2, 1e6], "discriminant_shift": [0.0]}
    own = {"center": False, "fit_intercept": False}
    search = make(grid=grid, own=own, epsilon=30.0, strategy=strategy, mean_runs=40, shape=50.0)
    search.fit(*digits)
    assert search.score(*digits) > 0.7
    assert 0.6 < search.best_score_ <= 1.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_candidate_that_diverges_is_a_model_of_zeros_and_says_nothing(
    digits, strategy, capfd, monkeypatch
):
    monkeypatch.setattr(RunLaw, "draw", lambda self, uniform: 30)
    grid = {"learning_rate": [1e300, 0.5]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = {"epsilon": 8.0, "strategy": strategy, "verbose": False}
        search = make(DPGradientClassifier, grid, **options).fit(*digits)
    assert search.best_params_ == {"learning_rate": 0.5}
    assert search.score(*digits) > 0.5
    assert capfd.readouterr() == ("", "")


def test_the_best_score_is_near_the_accuracy_of_the_winner(digits):
    scores = [
        make(epsilon=20.0, refit_share=0).fit(*digits).best_score_ for _ in range(5)
    ]  # 80 rows, noise of 1 to 2 rows
    assert 0.75 < np.mean(scores) <= 1.0


# -- scikit-learn and files --------------------------------------------------------------


@parametrize_with_checks(
    [
        DPSearchCV(DPLeastSquaresClassifier(), {"damping": [0.2, 0.7]}, epsilon=4.0),
        DPSearchCV(
            DPLeastSquaresClassifier(),
            {"damping": [0.2, 0.7]},
            epsilon=4.0,
            strategy="random_stopping",
        ),
    ],
    expected_failed_checks=lambda search: {
        "check_sample_weight_equivalence_on_dense_data": "coins belong to rows, and noise grows "
        "with the largest weight"
    },
)
@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_clone_and_pickle(digits):
    search = make(epsilon=4.0)
    assert clone(search).get_params()["param_grid"] == DAMPING
    search.fit(*digits)
    again = pickle.loads(pickle.dumps(search))
    X = digits[0]
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))
    np.testing.assert_array_equal(again.decision_function(X), search.decision_function(X))
    assert again.privacy_ == search.privacy_


def test_a_grid_of_grids_is_tabulated(digits):
    grid = [{"damping": [0.1, 0.3]}, {"sums_share": [0.5], "center": [False]}]
    results = make(grid=grid, epsilon=8.0).fit(*digits).cv_results_
    assert results["params"] == [
        {"damping": 0.1},
        {"damping": 0.3},
        {"center": False, "sums_share": 0.5},
    ]
    assert results["param_sums_share"].mask.tolist() == [True, True, False]
    scores = results["mean_test_score"]
    assert results["rank_test_score"][np.argmax(scores)] == 1


def test_a_saved_winner_keeps_the_statement_of_the_search(digits, tmp_path):
    search = make(epsilon=2.0).fit(*digits)
    search.best_estimator_.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.privacy_ == search.privacy_ and loaded.privacy_.kind == "search"
    np.testing.assert_array_equal(loaded.predict(digits[0]), search.predict(digits[0]))


def test_a_cache_is_searched_like_arrays(make_cache, three_classes):
    X, y = three_classes
    cache = make_cache(X.astype(np.float32), y, class_names=["a", "b", "c"])
    search = make(own={"classes": None}, epsilon=20.0).fit(cache)
    assert search.classes_.tolist() == ["a", "b", "c"]
    assert search.score(cache) > 0.8


@pytest.mark.filterwarnings(SEEDED)
def test_a_seed_repeats_the_search_and_is_called_not_private(digits):
    first, second = (
        make(epsilon=1.0, random_state=5, strategy="random_stopping").fit(*digits) for _ in range(2)
    )
    assert first.best_score_ == second.best_score_ and not first.privacy_.private
    np.testing.assert_array_equal(first.best_estimator_.coef_, second.best_estimator_.coef_)
    with pytest.warns(PrivacyWarning, match="random_state"):
        make(random_state=5).fit(*digits)


def test_a_plain_search_gives_no_warning_and_scikit_learns_own_does(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().fit(*digits)
    outer = GridSearchCV(make(), {"validation_fraction": [0.2]}, cv=2, refit=False)
    with pytest.warns(PrivacyWarning, match="DPSearchCV"):
        outer.fit(*digits)


# -- ledger ------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    for name, kind in (("digits", "gdp"), ("stopped", "renyi")):
        ledger.create_budget(
            name,
            epsilon=3.0,
            delta=1e-5,
            unit_of_privacy="one patient",
            rows_per_unit=1,
            filter=kind,
        )
    return ledger


def paid(ledger, strategy, **parameters):
    name = "digits" if strategy == "composition" else "stopped"
    return make(ledger=ledger.path, dataset=name, strategy=strategy, **parameters), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_is_one_spend_with_its_statement(ledger, digits, strategy):
    search, name = paid(ledger, strategy)
    search.fit(*digits)
    (spend,) = ledger.history(name)
    assert spend.purpose == "search DPLeastSquaresClassifier"
    assert spend.statement == search.privacy_
    assert search.privacy_.dataset == name
    assert search.privacy_.unit_of_privacy == "one patient"
    # A fit of the same kind pays as well.
    assert clone(search.best_estimator_).get_params()["dataset"] == name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_ledger_is_charged_before_anything_is_drawn(ledger, digits, strategy, monkeypatch):
    search, name = paid(ledger, strategy)
    seen = []
    for source in ("bernoulli", "uniform", "rounded_gaussian"):
        original = getattr(SystemNoise, source)

        def watch(self, *arguments, source=source, original=original):
            seen.append((source, len(ledger.history(name))))
            return original(self, *arguments)

        monkeypatch.setattr(SystemNoise, source, watch)
    search.fit(*digits)
    assert seen[0] == ("bernoulli", 1) and {count for _, count in seen} == {1}
    assert ("uniform" in [source for source, _ in seen]) == (strategy == "random_stopping")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interrupted_search_stays_spent_and_publishes_nothing(
    ledger, digits, strategy, monkeypatch
):
    search, name = paid(ledger, strategy, epsilon=0.5)
    search.fit(*digits)

    def interrupt(self, params):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trials, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search.fit(*digits)
    assert [spend.statement is None for spend in ledger.history(name)] == [False, True]
    assert not [attribute for attribute in vars(search) if attribute.endswith("_")]


def test_what_does_not_fit_is_refused_and_nothing_is_drawn(ledger, digits, monkeypatch):
    monkeypatch.setattr(SystemNoise, "bernoulli", lambda *_: pytest.fail("a coin was drawn"))
    search, name = paid(ledger, "composition", epsilon=3.1)
    with pytest.raises(BudgetExceeded):
        search.fit(*digits)
    assert ledger.history(name) == []


def test_a_gdp_budget_does_not_take_random_stopping(ledger, digits):
    search = make(ledger=ledger.path, dataset="digits", strategy="random_stopping")
    with pytest.raises(ValueError, match="renyi filter"):
        search.fit(*digits)
    assert ledger.history("digits") == []


def test_bad_data_spends_nothing(ledger, digits):
    X = digits[0].copy()
    X[3, 2] = np.nan
    search, name = paid(ledger, "composition")
    with pytest.raises(ValueError, match="NaN"):
        search.fit(X, digits[1])
    assert ledger.history(name) == []


# -- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"delta": 1.0}, "delta must be"),
        ({"strategy": "bayes"}, "strategy must be one of"),
        ({"validation_fraction": 0.0}, "validation_fraction must be"),
        ({"validation_fraction": 1.0}, "validation_fraction must be"),
        ({"refit_share": 1.0}, "refit_share must be"),
        ({"refit_share": math.nan}, "refit_share must be"),
        ({"mean_runs": 0.5}, "mean_runs must be"),
        ({"distribution": "geometric"}, "distribution must be one of"),
        ({"shape": -1.0}, "shape must be"),
        ({"shape": math.inf}, "shape must be"),
        ({"verbose": 2}, "verbose must be"),
        ({"ledger": "x.db"}, "go together"),
        ({"random_state": "x"}, "random_state must be"),
        ({"grid": []}, "at least one candidate"),
        ({"grid": {"damping": []}}, "damping"),
        ({"grid": {"damping": 0.1}}, "param_grid must be"),
        ({"grid": 3}, "param_grid must be"),
        ({"grid": {"dampling": [0.1]}}, "dampling"),
        ({"grid": {"damping": [0.1, -1.0]}}, "damping must be"),
        ({"grid": {"epsilon": [1.0, 2.0]}}, "must not hold 'epsilon'"),
        ({"grid": {"random_state": [1, 2]}}, "must not hold 'random_state'"),
        ({"own": {"random_state": 3}}, "the estimator's random_state must be None"),
        ({"own": {"ledger": "a.db", "dataset": "a"}}, "the search pays once"),
        ({"own": {"neighboring_relation": "both"}}, "neighboring_relation must be"),
        (
            {"strategy": "random_stopping", "own": {"accountant": "exact"}},
            "accountant must be one of 'auto', 'rdp'",
        ),
    ],
)
def test_bad_parameters_are_named_before_any_row_is_seen(digits, monkeypatch, parameters, message):
    monkeypatch.setattr(SystemNoise, "bernoulli", lambda *_: pytest.fail("a coin was drawn"))
    with pytest.raises(ValueError, match=message):
        make(**parameters).fit(*digits)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sampled_rows_are_refused(digits, strategy):
    grid = {"sampling_probability": [1.0, 0.5]}
    with pytest.raises(ValueError, match="full-batch fits only"):
        make(DPGradientClassifier, grid, strategy=strategy).fit(*digits)


def test_another_librarys_estimator_is_refused(digits):
    with pytest.raises(ValueError, match="a classifier of dpfc, got LogisticRegression"):
        DPSearchCV(LogisticRegression(), {"C": [1.0]}).fit(*digits)
