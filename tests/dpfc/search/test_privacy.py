"""What a search costs, to the last bit of its budget, and what it keeps secret."""

from __future__ import annotations

import math
import pickle
import sqlite3

import numpy as np
import pytest
from mechanisms import Transcript, squared_moves
from scipy.stats import chisquare
from sklearn.datasets import load_digits

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    load_model,
)
from dpfc.accounting import (
    PrivacyLedger,
    compute_epsilon,
    event_from_json,
    gaussian_epsilon,
    gaussian_mu,
)
from dpfc.accounting.ledger import ledger as ledger_module
from dpfc.accounting.search_budget import RunLaw
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.search.trials import Trial, Trials

DAMPING = {"damping": [0.1, 0.5, 2.0]}
STRATEGIES = ["composition", "random_stopping"]
SEEDED = "ignore:random_state was given"


def make(estimator=DPLeastSquaresClassifier, grid=None, own=None, **parameters):
    """A search over `grid`; `own` are parameters of the estimator."""
    model = estimator(**({"classes": range(10)} | (own or {})))
    return DPSearchCV(model, grid or DAMPING, **parameters)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400], y[:400]


# -- the guarantee -----------------------------------------------------------------------


def seed_with_last_coin(validates, n):
    return next(s for s in range(99) if SeededNoise(s).bernoulli(0.2, n)[-1] == validates)


@pytest.mark.filterwarnings(SEEDED)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("refit_share", [0.0, 0.4])
def test_what_one_row_moves_over_noise_is_the_whole_budget_and_no_more(
    digits, monkeypatch, validates, refit_share
):
    """The exact μ of a transcript, for a row in either part: fit or score, never both."""
    X, y = digits
    seed = seed_with_last_coin(validates, len(X))
    own = {"center": False, "fit_intercept": False}
    search = make(own=own, epsilon=2.0, refit_share=refit_share, random_state=seed)
    transcript = Transcript(monkeypatch)
    without, releases = transcript.record(lambda: search.fit(X[:-1], y[:-1]))
    with_row, _ = transcript.record(lambda: search.fit(X, y), repeat=releases)
    moved = squared_moves(without, with_row)
    mu = gaussian_mu(2.0, 1e-5)
    assert math.fsum(moved.values()) <= mu**2
    # The row is as long as rounding leaves it; a row may be a little longer, and noise is for that.
    grid = RowGrid.of(search.estimator._row_map(), X.shape[1])
    (row,) = grid.rows(X[-1:])
    longest = grid.squared_limit / float(np.square(row, dtype=np.float64).sum())
    assert 1.0 <= longest < 1.03
    most = {"class_sums": longest, "gram": longest**2, "hit_counts": 1.0}
    assert math.fsum(most[name] * step for name, step in moved.items()) == pytest.approx(
        mu**2, rel=2e-4
    )
    scores = (1 - refit_share) * mu**2 if validates else 0.0
    assert moved["hit_counts"] == pytest.approx(scores, rel=2e-4)


@pytest.mark.filterwarnings(SEEDED)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (DPFCClassifier, {"n_steps": [3, 6]}),
        (DPGradientClassifier, {"n_steps": [3, 6]}),
        (DPNewtonClassifier, {"n_steps": [1, 2]}),
    ],
)
def test_no_row_moves_more_than_the_budget(
    three_classes, monkeypatch, estimator, grid, relation, validates
):
    X, y = three_classes
    seed = seed_with_last_coin(validates, len(X))
    own = {"classes": range(3), "neighboring_relation": relation}
    search = make(estimator, grid, own, epsilon=2.0, random_state=seed)
    transcript = Transcript(monkeypatch)
    draws, releases = transcript.record(lambda: search.fit(X, y))
    if relation == "replace_one":
        X_other, y_other = X.copy(), y.copy()
        X_other[-1], y_other[-1] = -X[-1], (y[-1] + 1) % 3
    else:
        X_other, y_other = X[:-1], y[:-1]
    other, _ = transcript.record(lambda: search.fit(X_other, y_other), repeat=releases)
    moved = math.fsum(squared_moves(draws, other).values())
    assert 0.1 * gaussian_mu(2.0, 1e-5) ** 2 < moved <= gaussian_mu(2.0, 1e-5) ** 2


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
def test_the_statement_holds_the_whole_search(digits, strategy, relation):
    own = {"neighboring_relation": relation}
    search = make(own=own, epsilon=2.0, delta=1e-6, strategy=strategy).fit(*digits)
    statement = search.privacy_
    assert statement is search.best_estimator_.privacy_
    assert statement.kind == "search" and statement.private
    assert (statement.target_epsilon, statement.target_delta) == (2.0, 1e-6)
    epsilon = compute_epsilon(event_from_json(statement.event), 1e-6, neighboring_relation=relation)
    assert (1 - 1e-4) * 2.0 <= epsilon <= 2.0
    assert any("one secret coin a row" in sentence for sentence in statement.rests_on)
    secret = any("the time that the search took" in sentence for sentence in statement.rests_on)
    assert secret == (strategy == "random_stopping")
    assert not any("hyperparameters were chosen" in sentence for sentence in statement.rests_on)


@pytest.mark.parametrize("accountant", ["exact", "pld", "rdp"])
def test_the_estimators_accountant_vouches_for_the_search(digits, accountant):
    search = make(own={"accountant": accountant}, epsilon=2.0).fit(*digits)
    assert search.privacy_.accountant == accountant
    assert 1.99 < search.privacy_.epsilon_by_accountant[accountant] <= 2.0
    assert search.best_estimator_.accountant == accountant


def test_the_statement_lists_what_was_published(digits):
    composed = make(epsilon=2.0).fit(*digits).privacy_
    assert [(r.name, r.count) for r in composed.releases] == [
        ("count", 1),
        ("feature_sum", 1),
        ("class_sums", 1),
        ("gram", 1),
        ("hit_counts", 3),
    ]
    refit = [r for r in composed.releases if r.name != "hit_counts"]
    share = 0.7 * gaussian_mu(2.0, 1e-5) ** 2
    assert math.fsum(r.count / r.noise_multiplier**2 for r in refit) == pytest.approx(share)
    stopped = make(epsilon=2.0, strategy="random_stopping").fit(*digits).privacy_
    assert [(r.name, r.count) for r in stopped.releases][-1] == ("hit_counts", 1)


def test_the_cost_is_told_before_and_is_what_is_spent(digits):
    search = make(epsilon=1.0)
    cost = search.privacy_cost()
    mu = gaussian_mu(1.0, 1e-5)
    assert (cost.strategy, cost.n_candidates, cost.expected_runs) == ("composition", 3, 3.0)
    assert cost.single_mu == mu
    assert cost.run_mu == pytest.approx(mu * math.sqrt(0.3 / 3), rel=1e-9)
    assert cost.refit_mu == pytest.approx(mu * math.sqrt(0.7), rel=1e-9)
    assert cost.run_epsilon == gaussian_epsilon(cost.run_mu, 1e-5)
    text = str(cost)
    assert "a single fit without a search would have  ε = 1 " in text
    assert f"{cost.refit_epsilon:.4g}" in text
    assert not hasattr(search, "best_params_")
    assert search.fit(*digits).privacy_.releases[-1].noise_multiplier == 1 / cost.run_mu


def test_the_cost_of_random_stopping_names_the_mean_only():
    cost = make(strategy="random_stopping", mean_runs=7.5).privacy_cost()
    assert cost.expected_runs == 7.5 and cost.refit_mu is None and cost.refit_epsilon is None
    assert "7.5 runs on average, the number stays secret" in str(cost)
    assert "no refit" in str(cost)


def test_the_cost_is_printed_before_anything_is_drawn(digits, capsys, monkeypatch):
    def stop(self, probability, size):
        raise KeyboardInterrupt

    monkeypatch.setattr(SystemNoise, "bernoulli", stop)
    search = make()
    with pytest.raises(KeyboardInterrupt):
        search.fit(*digits)
    printed = capsys.readouterr()
    assert printed.out == "" and str(search.privacy_cost()) in printed.err


@pytest.mark.parametrize(
    ("own", "n_training", "n_refit"),
    [
        ({"n_samples": 390}, 312, 390),
        ({"neighboring_relation": "replace_one"}, None, None),
        ({}, None, None),
    ],
)
@pytest.mark.filterwarnings(SEEDED)
def test_the_size_of_the_training_part_is_public_knowledge_or_released(
    digits, monkeypatch, own, n_training, n_refit
):
    seen = []
    original = GaussianMechanism.__init__

    def record(self, source, row_map, n_classes, run, n_samples=None):
        names = [release.name for release in run.plan.releases]
        if "gradient" in names:
            seen.append((n_samples, "count" in names))
        original(self, source, row_map, n_classes, run, n_samples)

    monkeypatch.setattr(GaussianMechanism, "__init__", record)
    grid = {"n_steps": [2]}
    search = make(DPGradientClassifier, grid, own, random_state=3).fit(*digits)
    (training, counted), (refit, counted_again) = seen
    assert counted == counted_again == (not own)
    if "neighboring_relation" in own:
        n_training = int((~SeededNoise(3).bernoulli(0.2, 400)).sum())
    assert (training, refit) == (n_training, n_refit)
    assert search.best_estimator_.n_samples == own.get("n_samples")


# -- random stopping keeps its secrets ---------------------------------------------------

PUBLISHED = {
    "best_estimator_",
    "best_params_",
    "best_score_",
    "classes_",
    "features_from_",
    "n_features_in_",
    "privacy_",
}


def stopped(digits, monkeypatch, runs, **parameters):
    monkeypatch.setattr(RunLaw, "draw", lambda self, uniform: runs)
    return make(epsilon=2.0, strategy="random_stopping", **parameters).fit(*digits)


def test_only_the_winner_is_published(digits, monkeypatch, capfd):
    few, many = (stopped(digits, monkeypatch, runs, verbose=True) for runs in (1, 30))
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == 2 * f"{few.privacy_cost()}\n"
    for search in (few, many):
        assert set(vars(search)) - set(search.get_params(deep=False)) == PUBLISHED
        assert set(vars(search.best_estimator_)) == set(vars(many.best_estimator_))
        assert b"Trial" not in pickle.dumps(search)
    # Numbers differ in their digits only; nothing of 29 losers would fit into this.
    sizes = [len(pickle.dumps(search)) for search in (few, many)]
    assert abs(sizes[0] - sizes[1]) < 100
    structure = [search.privacy_.model_dump() for search in (few, many)]
    for statement in structure:
        for release in statement["releases"]:
            # The winner's own: shares follow from its noisy count.
            for name in ("noise_multiplier", "noise_standard_deviation", "numerical_slack"):
                release[name] = None
    assert structure[0] == structure[1]


def test_the_published_score_is_the_winners_of_all_runs(digits, monkeypatch):
    trials = []
    original = Trials.run
    monkeypatch.setattr(
        Trials, "run", lambda self, params: trials.append(original(self, params)) or trials[-1]
    )
    search = stopped(digits, monkeypatch, 9)
    best = max(trials, key=lambda trial: trial.margin)
    assert len(trials) == 9 and search.best_params_ == best.params
    assert search.best_estimator_ is best.model
    assert search.best_score_ == pytest.approx(
        min(1.0, 0.5 + best.margin / 2 / (best.right + best.wrong))
    )


def test_candidates_are_drawn_uniformly(digits, monkeypatch):
    drawn = []
    model = make().fit(*digits).best_estimator_

    def run(self, params):
        drawn.append(params["damping"])
        record = model.privacy_.releases[-1]
        return Trial(params, model, [], record, right=1.0, wrong=0.0)

    monkeypatch.setattr(Trials, "run", run)
    stopped(digits, monkeypatch, 3000)
    _, counts = np.unique(drawn, return_counts=True)
    assert len(counts) == 3 and chisquare(counts).pvalue > 1e-8
    pairs = np.unique(np.array(drawn).reshape(-1, 2), axis=0, return_counts=True)[1]
    assert len(pairs) == 9 and chisquare(pairs).pvalue > 1e-8  # independent as well


@pytest.mark.parametrize("refit_share", [0.0, 0.5])
def test_no_run_at_all_is_a_random_candidate_of_zeros(digits, monkeypatch, tmp_path, refit_share):
    search = stopped(digits, monkeypatch, 0, distribution="poisson", refit_share=refit_share)
    assert math.isnan(search.best_score_) and search.best_params_ in [
        {"damping": value} for value in DAMPING["damping"]
    ]
    if refit_share == 0:
        assert not search.best_estimator_.coef_.any() and search.privacy_.releases == []
        assert set(search.predict(digits[0])) == {0}
    search.best_estimator_.save(tmp_path / "model")
    assert load_model(tmp_path / "model").privacy_ == search.privacy_


@pytest.mark.parametrize(
    ("parameters", "shape"),
    [
        ({}, 1.0),
        ({"shape": 0.0}, 0.0),
        ({"distribution": "poisson"}, math.inf),
        ({"distribution": "poisson", "mean_runs": 5}, math.inf),
    ],
)
def test_the_law_that_is_charged_is_the_law_that_is_drawn_from(
    digits, monkeypatch, parameters, shape
):
    laws = []
    monkeypatch.setattr(RunLaw, "draw", lambda self, uniform: laws.append(self) or 1)
    search = make(strategy="random_stopping", **parameters).fit(*digits)
    assert laws == [RunLaw(parameters.get("mean_runs", 3), shape)]
    (selection,) = event_from_json(search.privacy_.event).events
    assert (selection.mean, selection.shape) == (laws[0].mean, shape)


def test_a_ledger_keeps_no_time_from_after_the_spend(tmp_path, monkeypatch, digits):
    times = iter(f"2030-01-0{day}T00:00:00+00:00" for day in range(1, 9))
    monkeypatch.setattr(ledger_module, "now", lambda: next(times))
    path = tmp_path / "ledger.db"
    ledger = PrivacyLedger(path)
    ledger.create_budget("digits", epsilon=3.0, delta=1e-5, filter="renyi")
    make(strategy="random_stopping", ledger=path, dataset="digits").fit(*digits)
    assert ledger.history("digits")[0].statement is not None
    with sqlite3.connect(path) as connection:
        content = "\n".join(connection.iterdump())
    # The budget and the spend have their times; a later one would tell the number of runs.
    assert "2030-01-02" in content
    assert "2030-01-03" not in content
