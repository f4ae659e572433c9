"""Fits that spend from a ledger, and the accountant of one's choice."""

from __future__ import annotations

import math
import pickle
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.feature_selection import RFECV
from sklearn.model_selection import GridSearchCV, cross_val_score

import dpfc
from dpfc.accounting import BudgetExceeded, LedgerError, PrivacyLedger, PrivacyPlan
from dpfc.accounting.plans import PlannedRelease
from dpfc.accounting.search_budget import calibrate_search
from dpfc.mechanism.noise import SystemNoise
from dpfc.mechanism.private_run import BoundedSum, PrivateRun

ESTIMATORS = [
    dpfc.DPFCClassifier,
    dpfc.DPLeastSquaresClassifier,
    dpfc.DPNewtonClassifier,
    dpfc.DPGradientClassifier,
]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400], y[:400]


@pytest.fixture
def ledger(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("digits", epsilon=3.0, delta=1e-5, unit_of_privacy="one patient")
    return ledger


def classifier(ledger, estimator=dpfc.DPLeastSquaresClassifier, **parameters):
    parameters = {"epsilon": 1.0, "classes": range(10), "dataset": "digits"} | parameters
    return estimator(ledger=ledger.path, **parameters)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_fit_files_one_spend_with_its_statement(ledger, digits, estimator):
    model = classifier(ledger, estimator).fit(*digits)
    (spend,) = ledger.history("digits")
    assert spend.purpose == f"fit {estimator.__name__}"
    assert spend.statement == model.privacy_
    assert model.privacy_.dataset == "digits"
    assert model.privacy_.unit_of_privacy == "one patient"
    assert "each patient contributes one row" in model.privacy_.rests_on


def seeded_runs(digits):
    """Everything that spends, as a function of `ledger=`."""
    X, y = digits
    common = {"epsilon": 1.0, "dataset": "digits", "random_state": 0}
    model = dpfc.DPLeastSquaresClassifier(epsilon=math.inf, classes=range(10)).fit(X, y)
    runs = {
        estimator.__name__: lambda ledger, estimator=estimator: estimator(
            ledger=ledger, classes=range(10), **common
        ).fit(X, y)
        for estimator in ESTIMATORS
    }
    return runs | {
        "DPSGDClassifier": lambda ledger: dpfc.DPSGDClassifier(
            "linear", n_steps=1, sampling_probability=1.0, classes=range(10), ledger=ledger,
            **common,
        ).fit(X, y),
        "DPSearchCV": lambda ledger: dpfc.DPSearchCV(
            dpfc.DPLeastSquaresClassifier(classes=range(10)), {"l2_clip_norm": [1.0, 2.0]},
            ledger=ledger, **common,
        ).fit(X, y),
        "evaluate": lambda ledger: dpfc.evaluate_privately(model, X, y, ledger=ledger, **common),
        "summarize": lambda ledger: dpfc.summarize_privately(X, ledger=ledger, **common),
    }  # fmt: skip


@pytest.mark.parametrize(
    "run",
    [
        *(estimator.__name__ for estimator in ESTIMATORS),
        *("DPSGDClassifier", "DPSearchCV", "evaluate", "summarize"),
    ],
)
@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
def test_a_seeded_run_spends_only_where_the_ledger_allows_it(ledger, digits, run):
    run = seeded_runs(digits)[run]
    with pytest.raises(LedgerError, match="allow_not_private=True"):
        run(ledger.path)
    assert ledger.history("digits") == []
    run(PrivacyLedger(ledger.path, allow_not_private=True, purpose="a trial"))
    (spend,) = ledger.history("digits")
    assert "random_state" in spend.not_private and spend.stated_purpose == "a trial"
    assert not spend.statement.private
    assert len(ledger.remaining("digits").reasons_not_private) == 1


def test_the_spend_is_recorded_before_any_noise_is_drawn(ledger, digits, monkeypatch):
    seen = []

    def interrupt(self, size):
        seen.append(len(ledger.history("digits")))
        raise KeyboardInterrupt

    monkeypatch.setattr(SystemNoise, "standard_normal", interrupt)
    with pytest.raises(KeyboardInterrupt):
        classifier(ledger).fit(*digits)
    assert seen == [1]
    (spend,) = ledger.history("digits")
    assert spend.statement is None


def test_a_killed_fit_stays_spent(ledger):
    script = f"""
import time
from sklearn.datasets import load_digits
import dpfc
from dpfc.mechanism.noise import SystemNoise
def hang(self, size):
    print("drawing", flush=True)
    time.sleep(600)
SystemNoise.standard_normal = hang
dpfc.DPFCClassifier(ledger={str(ledger.path)!r}, dataset="digits", classes=range(10)).fit(
    *load_digits(return_X_y=True))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"drawing\n"
        child.send_signal(signal.SIGKILL)
    (spend,) = ledger.history("digits")
    assert spend.purpose == "fit DPFCClassifier"


def test_a_fit_that_exceeds_the_budget_releases_and_records_nothing(ledger, digits, monkeypatch):
    classifier(ledger, epsilon=2.9).fit(*digits)
    monkeypatch.setattr(SystemNoise, "standard_normal", lambda *_: pytest.fail("noise was drawn"))
    model = classifier(ledger, epsilon=1.0)
    with pytest.raises(BudgetExceeded, match="digits"):
        model.fit(*digits)
    assert not hasattr(model, "coef_")
    assert len(ledger.history("digits")) == 1


def test_two_fits_that_both_fitted_at_first_cannot_both_spend(ledger, digits, monkeypatch):
    normal = SystemNoise.standard_normal

    def somebody_else(self):
        if not ledger.history("digits"):
            ledger.spend(
                "digits",
                dpfc.DPLeastSquaresClassifier(epsilon=2.9).privacy_plan().event,
                neighboring_relation="add_or_remove_one",
                purpose="somebody was quicker",
            )
        return 1000

    monkeypatch.setattr(dpfc.linear.base.GaussianMechanism, "n_samples", somebody_else)
    monkeypatch.setattr(SystemNoise, "standard_normal", lambda *_: pytest.fail("noise was drawn"))
    with pytest.raises(BudgetExceeded):
        classifier(ledger).fit(*digits)
    assert [spend.purpose for spend in ledger.history("digits")] == ["somebody was quicker"]
    assert normal is not SystemNoise.standard_normal


def test_the_whole_budget_can_be_spent_at_once_and_nothing_after(ledger, digits):
    classifier(ledger, epsilon=3.0).fit(*digits)
    assert ledger.remaining("digits").epsilon == 0.0
    with pytest.raises(BudgetExceeded):
        classifier(ledger, epsilon=1e-4).fit(*digits)


def test_what_remains_is_accepted_to_the_last_digit(ledger, digits):
    classifier(ledger, epsilon=1.0).fit(*digits)
    classifier(ledger, epsilon=ledger.remaining("digits").epsilon).fit(*digits)
    assert ledger.remaining("digits").spent_share == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("spoil", ["rows", "labels", "width"])
def test_bad_data_spends_nothing(ledger, digits, spoil):
    X, y = digits[0].copy(), digits[1].copy()
    if spoil == "rows":
        X[3, 2] = np.nan
    elif spoil == "labels":
        y[5] = 77
    else:
        y = y[:-1]
    with pytest.raises(ValueError):
        classifier(ledger).fit(X, y)
    assert ledger.history("digits") == []


def test_no_noise_no_spend(ledger, digits):
    with pytest.raises(LedgerError):
        classifier(ledger, epsilon=np.inf).fit(*digits)
    assert ledger.history("digits") == []


def test_the_relation_must_be_the_budgets(ledger, digits):
    with pytest.raises(LedgerError, match="neighboring_relation"):
        classifier(ledger, neighboring_relation="replace_one").fit(*digits)


def test_a_missing_ledger_is_named_and_not_made(tmp_path, digits):
    path = tmp_path / "typo.db"
    with pytest.raises(LedgerError, match=r"typo\.db"):
        dpfc.DPFCClassifier(ledger=path, dataset="digits", classes=range(10)).fit(*digits)
    assert not path.exists()


@pytest.mark.parametrize("parameters", [{"ledger": "x.db"}, {"dataset": "digits"}])
def test_ledger_and_dataset_go_together(digits, parameters):
    with pytest.raises(ValueError, match="ledger and dataset go together"):
        dpfc.DPFCClassifier(**parameters, classes=range(10)).fit(*digits)


@pytest.mark.parametrize("parameters", [{"ledger": 3}, {"ledger": ""}, {"dataset": b"x"}])
def test_bad_ledger_parameters_are_named(digits, parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"{name} must be"):
        dpfc.DPFCClassifier(**parameters, classes=range(10)).fit(*digits)


def test_clones_and_pickles_keep_the_ledger_and_spend_on_their_own(ledger, digits):
    model = classifier(ledger, epsilon=0.5)
    for copy in (clone(model), pickle.loads(pickle.dumps(model))):
        assert copy.get_params() == model.get_params()
        copy.fit(*digits)
    assert len(ledger.history("digits")) == 2


@pytest.mark.slow
def test_every_fit_of_a_grid_search_spends_in_its_own_process(ledger, digits):
    search = GridSearchCV(
        classifier(ledger, epsilon=0.1), {"l2_clip_norm": [1.0, 2.0]}, cv=2, n_jobs=2, refit=False
    )
    search.fit(*digits)
    assert len(ledger.history("digits")) == 4


@pytest.mark.parametrize(
    ("fit", "fits"),
    [
        (lambda model, X, y: GridSearchCV(model, {"normalize": [True]}, cv=2).fit(X, y), 3),
        (lambda model, X, y: cross_val_score(model, X, y, cv=2), 2),
        (lambda model, X, y: CalibratedClassifierCV(model, cv=2).fit(X, y), 2),
        (lambda model, X, y: RFECV(model, cv=2, step=0.9).fit(X, y), None),
    ],
    ids=["search", "cross-validation", "calibration", "feature elimination"],
)
def test_every_fit_within_scikit_learns_folds_spends_and_warns(ledger, digits, fit, fits):
    with pytest.warns(dpfc.PrivacyWarning, match="DPSearchCV") as caught:
        fit(classifier(ledger, epsilon=0.1), *digits)
    told = sum("DPSearchCV" in str(each.message) for each in caught)
    assert told == len(ledger.history("digits")) and fits in (None, told)


def test_a_plain_fit_gives_no_warning_about_searches(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dpfc.DPLeastSquaresClassifier(classes=range(10)).fit(*digits)


def test_a_model_file_does_not_tell_where_the_ledger_is(ledger, digits, tmp_path):
    path = tmp_path / "model.safetensors"
    classifier(ledger).fit(*digits).save(path)
    assert b"ledger.db" not in path.read_bytes()
    loaded = dpfc.load_model(path)
    assert loaded.ledger is None and loaded.dataset is None
    assert loaded.privacy_.dataset == "digits"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rdp_asks_for_more_noise_and_pld_for_as_much_as_exact(estimator):
    def multipliers(accountant):
        plan = estimator(accountant=accountant).privacy_plan()
        return np.array([release.noise_multiplier for release in plan.releases])

    assert (multipliers("exact") == multipliers("auto")).all()
    assert multipliers("pld") == pytest.approx(multipliers("exact"), rel=1e-4)
    assert (multipliers("rdp") > 1.005 * multipliers("exact")).all()


def test_the_headline_accountant_is_the_one_asked_for(digits):
    model = dpfc.DPLeastSquaresClassifier(accountant="rdp", classes=range(10)).fit(*digits)
    assert model.privacy_.accountant == "rdp"
    epsilons = model.privacy_.epsilon_by_accountant
    assert epsilons["exact"] < epsilons["rdp"] <= 1.0


def test_exact_accounting_of_a_sampled_plan_is_refused():
    model = dpfc.DPGradientClassifier(accountant="exact", sampling_probability=0.1)
    with pytest.raises(ValueError, match="exact"):
        model.privacy_plan()


def test_an_unknown_accountant_is_refused(digits):
    with pytest.raises(ValueError, match="accountant must be one of"):
        dpfc.DPFCClassifier(accountant="zcdp", classes=range(10)).fit(*digits)


# -- what a run refuses to do ---------------------------------------------------------

PLAN = PrivacyPlan(1.0, 1e-5, "add_or_remove_one", (PlannedRelease("sum", 2.0, 2, 1.0, 1.0),))
SUM = BoundedSum("x", [3], 1.0, 1.0, 0.0)


def three():
    return torch.zeros(3, dtype=torch.float64)


def test_a_run_with_a_ledger_draws_nothing_before_it_is_opened(ledger):
    run = PrivateRun(SystemNoise(), PLAN, ledger=ledger.path, dataset="digits")
    with pytest.raises(RuntimeError, match="opened before it draws"):
        run.release("sum", SUM, lambda: pytest.fail("rows were looked at"))
    with pytest.raises(RuntimeError, match="opened before it draws"):
        PrivateRun(SystemNoise()).release("sum", SUM, three)
    assert run.records == [] and ledger.history("digits") == []


def test_a_run_pays_once_before_its_first_sum_is_computed(ledger):
    run = PrivateRun(SystemNoise(), ledger=ledger.path, dataset="digits")
    run.open(PLAN, "try")
    paid = []

    def total():
        paid.append(len(ledger.history("digits")))
        return three()

    run.release("sum", SUM, total)
    run.release("sum", SUM, total)
    assert paid == [1, 1] and run.records[0].count == 2
    with pytest.raises(RuntimeError, match="all are spent"):
        run.release("sum", SUM, total)


def test_a_plan_that_is_paid_for_is_not_exchanged():
    run = PrivateRun(SystemNoise(), PLAN)
    with pytest.raises(AttributeError):
        run.plan = replace(PLAN, target_epsilon=9.0)


def test_parts_are_a_searchs_and_keep_to_its_shares():
    run = PrivateRun(SystemNoise())
    run.open(PLAN, "fit")
    with pytest.raises(RuntimeError, match="only a search"):
        run.part(PLAN)
    search = calibrate_search(
        3, target_epsilon=1.0, target_delta=1e-5, neighboring_relation="add_or_remove_one"
    )
    run.open(search, "search")
    dear = PlannedRelease("sum", 0.9 / max(search.run_mu, search.refit_mu), 1, 1.0, 1.0)
    with pytest.raises(RuntimeError, match="above its share"):
        run.part(replace(PLAN, releases=(dear,)))
    run.part(replace(PLAN, releases=(replace(dear, noise_multiplier=1 / search.run_mu),)))


@pytest.mark.parametrize("wrong", [torch.zeros(7).double(), torch.zeros(3)])
def test_a_sum_of_another_shape_than_the_stated_is_not_published(wrong):
    with pytest.raises(RuntimeError, match="not of the shape"):
        PrivateRun(SystemNoise(), PLAN).release("sum", SUM, lambda: wrong)


@pytest.mark.parametrize("handling", ["warn", "raise"])
def test_no_warning_of_numpys_tells_of_a_row(digits, handling):
    X, y = digits[0].copy(), digits[1]
    X[7] = 1e-200
    model = dpfc.DPLeastSquaresClassifier(normalize=False, center=False, classes=range(10))
    with np.errstate(all=handling), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.fit(X, y)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, dpfc.DPSGDClassifier])
def test_a_fit_works_whatever_pytorchs_default_device(ledger, digits, estimator):
    """With a GPU as the default, rows on the CPU would meet centres that are not there."""
    own = {} if estimator is dpfc.DPLeastSquaresClassifier else {"n_steps": 2}
    if estimator is dpfc.DPSGDClassifier:
        own["sampling_probability"] = 1.0  # all that this ledger's filter adds up
    with torch.device("meta"):
        model = classifier(ledger, estimator, **own).fit(*digits)
    (spend,) = ledger.history("digits")
    assert spend.statement == model.privacy_
