"""The ledger: budgets are fixed, spends are recorded or refused, names are one data set's."""

import copy
import math
import multiprocessing
import os
import pickle
import threading
import unicodedata
from functools import partial

import dp_accounting
import joblib
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.accounting.calibration import calibrate
from dpfc.accounting.gaussian import gaussian_mu
from dpfc.accounting.ledger.charges import Charge
from dpfc.accounting.ledger.ledger import (
    BudgetExceeded,
    LedgerError,
    PrivacyLedger,
    reasons_not_private,
)
from dpfc.accounting.ledger.names import dataset_key
from dpfc.accounting.ledger.records import Remaining, cost_of
from dpfc.accounting.ledger.statement import make_ledger_statement
from dpfc.accounting.plans import SEEDED, ReleaseRequest

ADD_REMOVE, REPLACE = "add_or_remove_one", "replace_one"
MU = gaussian_mu(1.0, 1e-5)
SAMPLED = dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(4.0)), 10
)
SEARCH = RepeatAndSelectDpEvent(dp_accounting.GaussianDpEvent(30.0), 3.0, math.inf)


def plan(epsilon, **changes):
    """Three releases of a fit at delta = 1e-5."""
    requests = [ReleaseRequest("a", 0.3), ReleaseRequest("b", 0.6, 7), ReleaseRequest("c", 0.1)]
    arguments = {"target_delta": 1e-5, "neighboring_relation": ADD_REMOVE} | changes
    return calibrate(requests, target_epsilon=epsilon, **arguments)


def charge(ledger, noise_multiplier=20.0, **changes):
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    arguments = {"neighboring_relation": ADD_REMOVE, "purpose": "fit"} | changes
    return Charge(ledger, "ward", event, **arguments)


def count_of(ledger, dataset="ward"):
    return len(ledger.history(dataset))


# -- budgets -------------------------------------------------------------------------


def test_a_budget_is_read_as_it_was_made(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    made = [
        ledger.create_budget("ward", epsilon=3, delta=1e-6, unit_of_privacy="one patient"),
        ledger.create_budget(
            "Größe 7", epsilon=0.1, delta=1e-9, neighboring_relation=REPLACE, filter="renyi"
        ),
    ]
    assert PrivacyLedger(str(ledger.path)).budgets() == made
    assert [ledger.budget(budget.dataset) for budget in made] == made
    assert made[0].epsilon == 3.0 and made[0].filter.mu == gaussian_mu(3.0, 1e-6)
    assert made[0].created_at.endswith("+00:00")
    assert ledger.history("ward") == []


@pytest.mark.parametrize(
    "twin",
    [
        "St Mary Café",
        "st mary café",
        "ST MARY CAFÉ",
        "  St  Mary   Café ",
        unicodedata.normalize("NFD", "St Mary Café"),
        "Ｓｔ Mary Café",  # a full-width S and t
        "ﬆ Mary Café",  # a ligature
        "St Mary\ufe0f Café\u3164",  # a variation selector and a filler, both unseen
    ],
)
def test_a_name_that_people_would_take_for_another_is_refused(tmp_path, twin):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("St Mary Café", epsilon=1, delta=1e-5)
    with pytest.raises(LedgerError, match="has a budget for 'St Mary Café'"):
        ledger.create_budget(twin, epsilon=9, delta=1e-5)
    assert [budget.epsilon for budget in ledger.budgets()] == [1.0]


@pytest.mark.parametrize(
    "slip",
    ["Station7", "station_07", "Station 7.", "Staton-7", "Sttation-7", "Staiton-7", "Stetion-7"],
)
def test_a_mistyped_name_is_asked_about_before_it_becomes_a_second_budget(tmp_path, slip):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("Station-7", epsilon=1, delta=1e-5)
    with pytest.raises(LedgerError, match="has a budget for 'Station-7': did you mean that"):
        ledger.create_budget(slip, epsilon=9, delta=1e-5)
    with pytest.raises(LedgerError, match=r"Did you mean 'Station-7'\? A second name for the same"):
        ledger.budget(slip)
    assert len(ledger.budgets()) == 1
    ledger.create_budget(slip, epsilon=9, delta=1e-5, another_budget=True)
    assert len(ledger.budgets()) == 2


@pytest.mark.parametrize(
    ("name", "slips"),
    [
        ("Ward 7", ("Wrd 7", "War-7", "ard 7", "Wadr 7", "Warrd7", "Wart 7", "ward 007")),
        ("ICU 3", ("IUC 3", "CIU-3")),
        ("Klinik Süd", ("Klink Süd", "Klinik Sdü", "Klinki Süd", "Klnik-Südd")),
    ],
)
def test_a_slip_in_a_short_word_or_in_each_word_is_asked_about(tmp_path, name, slips):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(name, epsilon=1, delta=1e-5)
    for slip in slips:
        with pytest.raises(LedgerError, match=f"has a budget for '{name}': did you mean that"):
            ledger.create_budget(slip, epsilon=9, delta=1e-5)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("Ward 7", ("Ward 8", "Ward 77", "Ward 7 b", "Word count", "Wing 7", "W 7", "Ward")),
        ("site A", ("site B", "site AB", "site AC")),
        ("ICU 3", ("ICU 4", "ECU 3", "IC 3", "ICUX 4")),
        ("men 2020", ("man 2020", "women 2020", "men 2002")),
    ],
)
def test_names_that_people_tell_apart_are_taken_without_a_question(tmp_path, name, others):
    for other in others:
        ledger = PrivacyLedger(tmp_path / f"{other}.db")
        ledger.create_budget(name, epsilon=1, delta=1e-5)
        ledger.create_budget(other, epsilon=1, delta=1e-5)
        assert len(ledger.budgets()) == 2


@pytest.mark.parametrize("other", ["Station-8", "Station-71", "Station-7 test", "Clinic-7", "S-7"])
def test_a_number_or_another_word_is_another_data_set(tmp_path, other):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("Station-7", epsilon=1, delta=1e-5)
    ledger.create_budget(other, epsilon=1, delta=1e-5)
    assert len(ledger.budgets()) == 2


def test_rows_that_the_ledger_knows_are_asked_about_under_another_name(ledger):
    ledger.create_budget("texts", epsilon=1, delta=1e-5)
    known = PrivacyLedger(ledger.path, fingerprint="f" * 64)
    charge(known).commit()
    event = dp_accounting.GaussianDpEvent(50.0)
    arguments = {"neighboring_relation": ADD_REMOVE, "purpose": "fit"}
    for use in (known.spend, known.check_spend, partial(Charge, known)):
        with pytest.raises(LedgerError, match=r"spent from the budget of 'ward' .* did you mean"):
            use("texts", event, **arguments)
    assert known.other_names("texts") == ["ward"] and count_of(ledger, "texts") == 0
    PrivacyLedger(ledger.path, fingerprint="0" * 64).spend("texts", event, **arguments)
    meant = PrivacyLedger(ledger.path, fingerprint="f" * 64, another_budget=True)
    meant.spend("texts", event, **arguments)
    known.spend("texts", event, **arguments)  # decided once
    charge(known).commit()
    assert (count_of(ledger, "texts"), count_of(ledger)) == (3, 2)
    assert b"f" * 64 not in ledger.path.read_bytes()


@pytest.mark.parametrize("what", ["check_spend", "spend", "Charge"])
def test_a_seeded_spend_is_refused_unless_it_is_allowed_by_its_own_word(ledger, what):
    event = dp_accounting.GaussianDpEvent(50.0)
    arguments = {"neighboring_relation": ADD_REMOVE, "purpose": "fit", "seeded": True}
    use = partial(Charge, ledger) if what == "Charge" else getattr(ledger, what)
    with pytest.raises(LedgerError, match=r"allow_not_private=True\)\. Nothing was spent"):
        use("ward", event, **arguments)
    assert count_of(ledger) == 0


def test_a_seeded_spend_is_said_wherever_the_budget_is_shown(ledger, spend):
    spend(ledger)
    allowed = PrivacyLedger(ledger.path, allow_not_private=True)
    spent = charge(allowed, seeded=True)
    spent.commit()
    reasons = [f"spend 2 (fit): {SEEDED}"]
    assert list(ledger.remaining("ward").reasons_not_private) == reasons
    assert reasons_not_private(ledger.history("ward")) == reasons
    assert [record.reasons_not_private for record in ledger.history("ward")] == [[], [SEEDED]]
    statement = make_ledger_statement(ledger, "ward")
    assert not statement.private and statement.reasons_not_private == reasons


def test_a_seeded_spend_of_before_is_said_as_well(from_before):
    assert "spend 2 (mean): random_state" in from_before.remaining("ward").reasons_not_private[0]
    assert from_before.remaining("Station 7").reasons_not_private == ()


def test_a_ledger_is_a_path_that_says_more(ledger):
    said = PrivacyLedger(ledger.path, purpose="study", made_by="team A", allow_not_private=True)
    assert os.fspath(said) == str(ledger.path) and PrivacyLedger.of(said) is said
    assert PrivacyLedger.of(str(ledger.path)) == ledger != said
    assert pickle.loads(pickle.dumps(said)) == copy.deepcopy(said) == said
    assert repr(said).endswith("purpose='study', made_by='team A', allow_not_private=True)")
    with pytest.raises(ValueError, match="allow_not_private must be True or False"):
        PrivacyLedger(ledger.path, allow_not_private=1)
    with pytest.raises(ValueError, match="purpose must be a text"):
        PrivacyLedger(ledger.path, purpose="a\nb")


@given(st.text())
def test_keys_of_names_ignore_case_and_the_encoding_of_letters(name):
    key = dataset_key(name)
    assert dataset_key(key) == key
    assert dataset_key(name.casefold()) == key
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert dataset_key(unicodedata.normalize(form, name)) == key


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\0b", "a\u200bb", "x" * 201, None, 3, b"x"])
def test_a_name_must_be_short_and_seen(ledger, name):
    with pytest.raises(ValueError, match="dataset must be a text of 1 to 200 printable"):
        ledger.create_budget(name, epsilon=1, delta=1e-5)
    with pytest.raises(ValueError, match="dataset must be"):
        ledger.budget(name)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"epsilon": math.inf}, "epsilon"),
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"epsilon": 10**400}, "epsilon"),
        ({"epsilon": "1"}, "epsilon"),
        ({"delta": 0}, "delta"),
        ({"delta": 1}, "delta"),
        ({"neighboring_relation": "replace"}, "neighboring_relation"),
        ({"filter": "pld"}, "filter"),
        ({"unit_of_privacy": ""}, "unit_of_privacy"),
    ],
)
def test_a_bad_budget_is_refused_and_no_file_is_made(tmp_path, changes, name):
    ledger = PrivacyLedger(tmp_path / "new.db")
    with pytest.raises(ValueError, match=f"{name} must be"):
        ledger.create_budget("ward", **({"epsilon": 1.0, "delta": 1e-5} | changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["budget", "history", "remaining"])
def test_an_unknown_name_is_answered_with_similar_ones(ledger, method):
    ledger.create_budget("ward 2024", epsilon=1, delta=1e-5)
    with pytest.raises(LedgerError, match=r"no budget for 'Ward'. Did you mean 'ward'"):
        getattr(ledger, method)("Ward")
    with pytest.raises(LedgerError, match=r"no budget for 'warp 2024'. Did you mean 'ward 2024'"):
        getattr(ledger, method)("warp 2024")
    with pytest.raises(LedgerError, match=r"no budget for 'zzz'. Make one with: dpfc budget"):
        getattr(ledger, method)("zzz")


# -- spends --------------------------------------------------------------------------


def test_spends_are_listed_as_they_were_made(ledger, spend):
    ledger.create_budget("other", epsilon=1, delta=1e-5)
    made = [spend(ledger, 20.0, purpose="count"), spend(ledger, 10.0, purpose="mean  of x ")]
    spend(ledger, 40.0, dataset="other")
    assert ledger.history("ward") == made
    assert [record.purpose for record in made] == ["count", "mean  of x"]
    assert [record.event.noise_multiplier for record in made] == [20.0, 10.0]
    shares = [1 / z**2 / MU**2 for z in (20.0, 10.0)]
    assert [record.share_of_budget for record in made] == pytest.approx(shares, rel=1e-12)
    assert ledger.remaining("ward").spent_share == pytest.approx(sum(shares), rel=1e-12)
    assert ledger.remaining("other").spent_share == pytest.approx(1 / 1600 / MU**2, rel=1e-12)


def test_a_spend_that_does_not_fit_records_nothing_and_one_that_fits_still_does(ledger, spend):
    spend(ledger, 1 / (0.8 * MU))
    with pytest.raises(BudgetExceeded, match=r"budget of 'ward' .*64.0% is spent") as caught:
        spend(ledger, 1 / (0.7 * MU))
    assert ledger.remaining("ward").epsilon_text in str(caught.value)
    assert count_of(ledger) == 1
    spend(ledger, 1 / (0.5 * MU))
    assert count_of(ledger) == 2


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@settings(max_examples=25)
@given(parts=st.lists(st.floats(0.01, 0.4), max_size=4), delta=st.sampled_from([1e-5, 1e-9, 0.1]))
def test_the_remaining_epsilon_can_be_fitted_exactly_and_then_next_to_nothing_is_left(
    tmp_path_factory, kind, parts, delta
):
    ledger = PrivacyLedger(tmp_path_factory.mktemp("ledger") / "ledger.db")
    ledger.create_budget("ward", epsilon=2.0, delta=delta, filter=kind)

    def fit(epsilon):
        event = plan(epsilon, target_delta=delta).event
        ledger.spend("ward", event, neighboring_relation=ADD_REMOVE, purpose="fit")

    for part in parts:
        left = ledger.remaining("ward").epsilon
        if left > 0:
            fit(part * left)
    left = ledger.remaining("ward").epsilon
    if left > 0:
        fit(left)
        after = ledger.remaining("ward")
        assert after.epsilon < 1e-4 and after.spent_share > 1 - 1e-6
        with pytest.raises(BudgetExceeded):
            fit(max(0.01, 1.01 * after.epsilon))


@pytest.mark.parametrize("epsilon", [0.99999999, 1e-7, 123456.789, 3.0, 0.1 + 0.2, 5e-324, 0.0])
def test_epsilon_text_is_never_more_than_epsilon(epsilon):
    text = Remaining(0.5, 1.0, epsilon).epsilon_text
    assert epsilon * (1 - 1e-5) <= float(text) <= epsilon
    assert len(text.replace(".", "").strip("0").split("E")[0]) <= 6


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        dp_accounting.GaussianDpEvent(0.0),
        plan(math.inf).event,
    ],
)
def test_a_release_without_noise_is_refused(tmp_path, kind, event):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("ward", epsilon=50, delta=0.1, filter=kind)
    with pytest.raises(BudgetExceeded, match="without noise"):
        ledger.spend("ward", event, neighboring_relation=ADD_REMOVE, purpose="fit")
    assert ledger.history("ward") == []


def test_the_relation_must_be_the_budgets(ledger):
    event = dp_accounting.GaussianDpEvent(20.0)
    with pytest.raises(LedgerError, match="is for neighboring_relation='add_or_remove_one'"):
        ledger.spend("ward", event, neighboring_relation=REPLACE, purpose="fit")
    with pytest.raises(ValueError, match="neighboring_relation must be one of"):
        ledger.spend("ward", event, neighboring_relation="any", purpose="fit")
    assert count_of(ledger) == 0


@pytest.mark.parametrize("event", [SAMPLED, SEARCH], ids=["sampled", "search"])
def test_a_gdp_filter_names_the_filter_that_takes_more(ledger, event):
    with pytest.raises(LedgerError, match=r"gdp filter of 'ward' cannot .* A renyi filter takes"):
        ledger.spend("ward", event, neighboring_relation=ADD_REMOVE, purpose="fit")
    ledger.create_budget("sampled", epsilon=1, delta=1e-5, filter="renyi")
    ledger.spend("sampled", event, neighboring_relation=ADD_REMOVE, purpose="fit")
    assert [record.event for record in ledger.history("sampled")] == [event]
    assert count_of(ledger) == 0


@pytest.mark.parametrize("kind", ["gdp", "renyi"])
def test_sampling_under_replace_one_is_refused_without_advice_that_does_not_help(tmp_path, kind):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("ward", epsilon=1, delta=1e-5, neighboring_relation=REPLACE, filter=kind)
    with pytest.raises(LedgerError, match="cannot take this spend") as caught:
        ledger.spend("ward", SAMPLED, neighboring_relation=REPLACE, purpose="fit")
    assert "A renyi filter takes" not in str(caught.value)
    assert ("Poisson sampling under 'replace_one'" in str(caught.value)) == (kind == "renyi")
    assert ledger.history("ward") == []


@pytest.mark.parametrize("purpose", ["", "x" * 201, "a\nb", None])
def test_a_purpose_must_be_short_and_seen(ledger, spend, purpose):
    with pytest.raises(ValueError, match="purpose must be"):
        spend(ledger, purpose=purpose)
    assert count_of(ledger) == 0


def test_two_ledgers_on_one_file_see_each_other(ledger, spend):
    other = PrivacyLedger(os.path.relpath(ledger.path))
    spend(ledger)
    spend(other)
    assert ledger.history("ward") == other.history("ward") and count_of(other) == 2
    with pytest.raises(BudgetExceeded):
        spend(other, 1 / MU)


def test_a_relative_path_stays_the_same_file_after_a_change_of_folder(tmp_path, spend, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = PrivacyLedger("here.db")
    ledger.create_budget("ward", epsilon=1, delta=1e-5)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spend(ledger)
    assert count_of(PrivacyLedger(tmp_path / "here.db")) == 1


def test_a_file_replaced_while_a_spend_is_bounded_is_refused(ledger, spend, tmp_path, monkeypatch):
    other = PrivacyLedger(tmp_path / "other.db")
    other.create_budget("ward", epsilon=9.0, delta=1e-5, filter="renyi")

    def replaced(*arguments):
        other.path.replace(ledger.path)
        return cost_of(*arguments)

    monkeypatch.setattr("dpfc.accounting.ledger.ledger.cost_of", replaced)
    with pytest.raises(LedgerError, match="was replaced by another file; nothing was spent"):
        spend(ledger)
    assert count_of(ledger) == 0


def test_threads_cannot_overspend(ledger, spend):
    noise_multiplier = 1 / (MU * math.sqrt(1 / 10.5))  # ten fit
    outcomes = []

    def buy():
        for _ in range(5):
            try:
                outcomes.append(spend(ledger, noise_multiplier).id)
            except BudgetExceeded:
                outcomes.append(None)

    threads = [threading.Thread(target=buy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(None) == 10
    assert sorted(filter(None, outcomes)) == [record.id for record in ledger.history("ward")]


def test_joblib_workers_spend_from_the_ledger_they_were_sent(ledger):
    def buy(number):
        event = dp_accounting.GaussianDpEvent(50.0)
        return ledger.spend("ward", event, neighboring_relation=ADD_REMOVE, purpose=f"{number}").id

    ids = joblib.Parallel(n_jobs=2)(joblib.delayed(buy)(number) for number in range(6))
    assert sorted(ids) == [record.id for record in ledger.history("ward")]
    assert sorted(record.purpose for record in ledger.history("ward")) == [*"012345"]


# -- statements ----------------------------------------------------------------------


def test_a_statement_is_attached_once_to_a_spend_that_exists(ledger, spend, statement_of):
    first, second = spend(ledger), spend(ledger)
    statement = statement_of(first.event)
    ledger.attach_statement(second.id, statement)
    assert [record.statement for record in ledger.history("ward")] == [None, statement]
    with pytest.raises(LedgerError, match=f"spend {second.id} .* has a statement already"):
        ledger.attach_statement(second.id, statement)
    with pytest.raises(LedgerError, match=r"spend 999 .* there is no such spend"):
        ledger.attach_statement(999, statement)
    with pytest.raises(ValueError, match="spend_id must be an int"):
        ledger.attach_statement(0, statement)


# -- charges -------------------------------------------------------------------------


def test_a_charge_pays_once_and_only_when_committed(ledger):
    paid = charge(ledger)
    assert paid.budget == ledger.budget("ward") and count_of(ledger) == 0
    for _ in range(3):
        paid.commit()
    assert count_of(ledger) == 1


def test_a_charge_is_completed_after_it_was_committed(ledger, statement_of):
    paid = charge(ledger)
    statement = statement_of(dp_accounting.GaussianDpEvent(20.0))
    with pytest.raises(RuntimeError, match="completed after it was committed"):
        paid.complete(statement)
    paid.commit()
    paid.complete(statement)
    assert [record.statement for record in ledger.history("ward")] == [statement]
    with pytest.raises(LedgerError, match="has a statement already"):
        paid.complete(statement)


@pytest.mark.parametrize(
    "duplicate",
    [lambda paid: pickle.loads(pickle.dumps(paid)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_copy_of_a_paid_charge_pays_for_itself(ledger, duplicate):
    paid = charge(ledger)
    paid.commit()
    twin = duplicate(paid)
    twin.commit()
    twin.commit()
    paid.commit()
    assert count_of(ledger) == 2


def test_a_forked_child_pays_for_itself(ledger):
    paid = charge(ledger)
    paid.commit()
    child = multiprocessing.get_context("fork").Process(target=paid.commit)
    child.start()
    child.join()
    assert child.exitcode == 0
    paid.commit()
    assert count_of(ledger) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"noise_multiplier": 1.0}, BudgetExceeded),
        ({"noise_multiplier": 0.0}, BudgetExceeded),
        ({"neighboring_relation": REPLACE}, LedgerError),
        ({"purpose": ""}, ValueError),
    ],
)
def test_a_charge_that_cannot_be_paid_is_refused_when_it_is_made(ledger, changes, error):
    with pytest.raises(error):
        charge(ledger, **changes)
    assert count_of(ledger) == 0


def test_a_charge_that_no_longer_fits_is_refused_when_committed(ledger, spend):
    late = charge(ledger)
    spend(ledger, 1 / MU * (1 + 1e-12))
    with pytest.raises(BudgetExceeded):
        late.commit()
    assert count_of(ledger) == 1
