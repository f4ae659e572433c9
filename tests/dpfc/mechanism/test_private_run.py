"""Fits that spend from a ledger, and the accountant of one's choice."""

from __future__ import annotations

import math
import pickle
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from noise_checks import assert_noise
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.feature_selection import RFECV
from sklearn.model_selection import GridSearchCV, cross_val_score

import dpfc
from dpfc.accounting import BudgetExceeded, LedgerError, PrivacyLedger, PrivacyPlan
from dpfc.accounting.plans import PlannedRelease
from dpfc.accounting.search_budget import calibrate_search
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.noisy_sum import BoundedSum
from dpfc.mechanism.private_run import PrivateRun

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
    ledger.create_budget(
        "digits", epsilon=3.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=1
    )
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

    def interrupt(self, sigma, size):
        seen.append(len(ledger.history("digits")))
        raise KeyboardInterrupt

    monkeypatch.setattr(SystemNoise, "rounded_gaussian", interrupt)
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
from dpfc.mechanism.noise import SeededNoise, SystemNoise
def hang(self, sigma, size):
    print("drawing", flush=True)
    time.sleep(600)
SystemNoise.rounded_gaussian = hang
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
    monkeypatch.setattr(SystemNoise, "rounded_gaussian", lambda *_: pytest.fail("noise was drawn"))
    model = classifier(ledger, epsilon=1.0)
    with pytest.raises(BudgetExceeded, match="digits"):
        model.fit(*digits)
    assert not hasattr(model, "coef_")
    assert len(ledger.history("digits")) == 1


def test_two_fits_that_both_fitted_at_first_cannot_both_spend(ledger, digits, monkeypatch):
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
    monkeypatch.setattr(SystemNoise, "rounded_gaussian", lambda *_: pytest.fail("noise was drawn"))
    with pytest.raises(BudgetExceeded):
        classifier(ledger).fit(*digits)
    assert [spend.purpose for spend in ledger.history("digits")] == ["somebody was quicker"]


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
        plan = estimator(accountant=accountant, classes=range(2)).privacy_plan()
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
SUM = BoundedSum("x", [3], 1.0)


def three():
    return torch.zeros(3, dtype=torch.int64)


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


@pytest.mark.parametrize("wrong", [torch.zeros(7).long(), torch.zeros(3).int(), torch.zeros(3)])
def test_a_sum_of_another_shape_or_type_than_the_stated_is_not_published(wrong):
    for of in (SUM, replace(SUM, l2_sensitivity=0.0)):
        with pytest.raises(RuntimeError, match="not of the shape"):
            PrivateRun(SystemNoise(), PLAN).release("sum", of, lambda: wrong)


def test_a_sum_in_floating_point_is_published_only_where_no_noise_is_asked_for():
    real = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    for plan, of in (
        (PLAN, SUM),
        (PLAN, replace(SUM, l2_sensitivity=0.0)),
        (replace(PLAN, target_epsilon=math.inf), SUM),
    ):
        with pytest.raises(RuntimeError, match="not of the shape"):
            PrivateRun(SystemNoise(), plan).release("sum", of, lambda: real)
    released = PrivateRun(SystemNoise(), EXACT).release("sum", replace(SUM, unit=0.5), lambda: real)
    assert released.value is real and released.noise_standard_deviation == 0.0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"l2_sensitivity": math.inf}, "sensitivity of sum is not finite"),
        ({"l2_sensitivity": math.nan}, "sensitivity of sum is not finite"),
        ({"slack": math.inf}, "sensitivity of sum is not finite"),
        ({"l2_sensitivity": -1.0}, "sensitivity of sum is not finite"),
        ({"unit": math.inf}, "sensitivity of sum is not finite"),
        ({"unit": 0.0}, "sensitivity of sum is not finite"),
        ({"unit": -1.0}, "sensitivity of sum is not finite"),
        ({"l2_sensitivity": 2.0**49}, "more than integers hold"),
    ],
)
def test_noise_of_no_possible_size_is_refused_before_anything_is_spent(ledger, wrong, error):
    run = PrivateRun(SystemNoise(), ledger=ledger.path, dataset="digits")
    run.open(PLAN, "try")
    with pytest.raises(ValueError, match=error):
        run.release("sum", replace(SUM, **wrong), lambda: pytest.fail("rows were looked at"))
    assert run.records == [] and ledger.history("digits") == []


def test_what_fails_after_it_was_paid_for_stays_on_record(ledger):
    class Broken(SystemNoise):
        def rounded_gaussian(self, sigma, size):
            raise OSError("no entropy")

    for noise, total, error in (
        (SystemNoise(), lambda: 1 // 0, ZeroDivisionError),
        (Broken(), three, OSError),
    ):
        run = PrivateRun(noise, PLAN)
        with pytest.raises(error):
            run.release("sum", SUM, total)
        assert [record.count for record in run.records] == [1]


# -- what a run adds ------------------------------------------------------------------

EXACT = PrivacyPlan(math.inf, 1e-5, "add_or_remove_one", (PlannedRelease("sum", 0.0, 2, 1.0, 1.0),))


class Scripted(SeededNoise):
    """Says how large noise was asked for, and gives whole numbers that tests can tell."""

    def __init__(self):
        super().__init__(0)
        self.asked = []

    def rounded_gaussian(self, sigma, size):
        self.asked.append((sigma, size))
        return 1000 * len(self.asked) + np.arange(size)


def test_a_release_is_the_sum_plus_whole_numbers_times_the_unit():
    noise = Scripted()
    run, of = PrivateRun(noise, PLAN), BoundedSum("x", [2, 2], 12.0, unit=0.1, slack=0.25)
    total = torch.tensor([[1, -2], [2**53 + 1, -(2**60)]])
    released = run.release("sum", of, lambda: total)
    assert noise.asked == [(pytest.approx(2.0 * 12.25), 4)]
    # Added as integers; a float holds 2^53 + 1003 only once it is rounded.
    whole = [1 + 1000, -2 + 1001, 2**53 + 1 + 1002, -(2**60) + 1003]
    assert released.value.flatten().tolist() == [float(each) * 0.1 for each in whole]
    assert released.value.dtype == torch.float64
    assert total[0, 0] == 1  # the sum itself is left as it is
    assert released.noise_standard_deviation == run.noise_scale("sum", of)
    (record,) = run.records
    assert (record.l2_sensitivity, record.numerical_slack) == (12.0 * 0.1, 0.25 * 0.1)
    assert record.noise_standard_deviation == released.noise_standard_deviation
    assert record.sum_unit == 0.1


@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_symmetric_release_has_noise_on_both_sides_of_the_diagonal(batch):
    noise = Scripted()
    shape = [*batch, 3, 3]
    of = BoundedSum("x xᵀ", shape, 5.0, symmetric=True)
    total = torch.arange(math.prod(shape)).view(shape)
    total = total + total.mT
    added = PrivateRun(noise, PLAN).release("sum", of, lambda: total).value - total
    assert torch.equal(added, added.mT)
    on, off = torch.diagonal(added, dim1=-2, dim2=-1), added[..., *torch.triu_indices(3, 3, 1)]
    assert len(on.unique()) == on.numel() and len(off.unique()) == off.numel()
    assert not set(on.flatten().tolist()) & set(off.flatten().tolist())
    (off_sigma, off_size), (on_sigma, on_size) = noise.asked
    assert (off_size, on_size) == (off.numel(), on.numel())
    assert (off_sigma, on_sigma) == (pytest.approx(10.0 / math.sqrt(2)), pytest.approx(10.0))


def test_what_lies_below_the_diagonal_of_a_symmetric_sum_is_never_published():
    of = BoundedSum("x xᵀ", [2, 2], 5.0, symmetric=True)
    values = [
        PrivateRun(Scripted(), PLAN).release(
            "sum", of, lambda low=low: torch.tensor([[1, 2], [low, 3]])
        )
        for low in (2, 2**40)
    ]
    assert torch.equal(values[0].value, values[1].value)


def test_the_noise_is_never_smaller_than_the_exact_product():
    rng = np.random.default_rng(0)
    for z, sensitivity, slack in np.exp(rng.uniform(-9, 9, size=(500, 3))):
        noise = Scripted()
        plan = replace(PLAN, releases=(PlannedRelease("sum", z, 1, 1.0, 1.0),))
        of = BoundedSum("x xᵀ", [2, 2], sensitivity, slack=slack, symmetric=True)
        PrivateRun(noise, plan).release("sum", of, lambda: torch.zeros((2, 2), dtype=torch.int64))
        (off, _), (on, _) = noise.asked
        exact = Fraction(z) * (Fraction(sensitivity) + Fraction(slack))
        assert exact <= Fraction(on) <= exact * (1 + Fraction(1, 10**15))
        assert exact**2 / 2 <= Fraction(off) ** 2


@pytest.mark.parametrize("kind", ["secure", "seeded"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_noise_has_the_stated_size_and_a_wrong_one_is_noticed(kind, symmetric):
    noise = SystemNoise() if kind == "secure" else SeededNoise(1)
    of = BoundedSum("x", [7, 300, 300], 2.0**20, unit=0.25, symmetric=symmetric)
    total = torch.full((7, 300, 300), 7)
    released = PrivateRun(noise, PLAN).release("sum", of, lambda: total)
    added = released.value - 0.25 * 7.0
    upper = torch.triu_indices(300, 300, 1)
    off = 1.0 / math.sqrt(2) if symmetric else 1.0
    for draws, factor in ((added[:, *upper], off), (added.diagonal(dim1=1, dim2=2), 1.0)):
        assert_noise(draws, factor * released.noise_standard_deviation)


def test_sums_without_noise_are_published_as_they_are():
    total = torch.tensor([1, 2, 2**53 - 1])
    for plan, of in ((EXACT, SUM), (PLAN, replace(SUM, l2_sensitivity=0.0))):
        run = PrivateRun(Scripted(), plan)
        released = run.release("sum", replace(of, unit=2.0), lambda: total)
        assert released.value.tolist() == [2.0, 4.0, 2.0**54 - 2.0]
        assert released.noise_standard_deviation == run.noise_scale("sum", of) == 0.0
        assert run.records[0].sum_unit == (None if run.exact else 2.0)
        assert run.noise.asked == []


def test_draws_of_several_sizes_are_recorded_as_the_largest():
    for sizes in ((1.0, 3.0), (3.0, 1.0)):
        run = PrivateRun(Scripted(), PLAN)
        for size in sizes:
            run.release("sum", replace(SUM, l2_sensitivity=size, slack=1.0, unit=size), three)
        (record,) = run.records
        assert (record.count, record.l2_sensitivity, record.numerical_slack) == (2, 9.0, 3.0)


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


@pytest.mark.parametrize(("rows", "charged"), [(None, None), (1, 8.0), (4, 2.0)])
def test_a_run_of_rows_is_charged_as_the_rows_of_a_unit_and_one_of_groups_as_it_is(
    tmp_path, rows, charged
):
    ledger = PrivacyLedger(tmp_path / "units.db")
    unit = {"unit_of_privacy": "one patient", "rows_per_unit": rows}
    ledger.create_budget("stays", epsilon=3.0, delta=1e-5, **unit)
    plan = replace(PLAN, releases=(replace(PLAN.releases[0], noise_multiplier=8.0, count=1),))

    def drawn(**options):
        run = PrivateRun(SystemNoise(), ledger=ledger.path, dataset="stays")
        run.open(plan, "test", **options)
        run.release("sum", SUM, lambda: torch.zeros(3, dtype=torch.int64))
        noise = ledger.history("stays")[-1].event.events[0].noise_multiplier
        return noise, run.unit_of_privacy

    if rows is None:
        with pytest.raises(LedgerError, match="who may have many rows"):
            drawn()
        assert ledger.history("stays") == []
    else:
        assert drawn() == (charged, "one row" if rows > 1 else "one patient")
    assert drawn(unit_of_spend="group") == (8.0, "one patient")
