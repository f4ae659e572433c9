"""The statement of a ledger: the budget is the claim, the spends are bookkeeping."""

from __future__ import annotations

import math
import sqlite3

import dp_accounting as dpa
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from statement_examples import GAP, ledger_statement, planned, state

from dpfc.accounting import (
    LedgerError,
    PrivacyLedger,
    event_from_json,
    gaussian_epsilon,
    gaussian_mu,
    make_ledger_statement,
)
from dpfc.accounting.profiles import mu_profile

MU = gaussian_mu(3, 1e-6)
SPENT = [gaussian_mu(epsilon, 1e-6) for epsilon in (1.0, 0.5, 0.5)]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    return ledger_statement(tmp_path_factory.mktemp("ledger") / "ledger.db")


@pytest.fixture(scope="module")
def renyi(tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    return ledger_statement(path, seeded=False, filter="renyi")


def test_the_guarantee_is_the_budget_and_not_what_was_spent(seeded):
    assert (seeded.kind, seeded.dataset, seeded.estimator) == (
        "ledger",
        "stays-2026",
        "PrivacyLedger",
    )
    assert (seeded.target_epsilon, seeded.target_delta) == (3, 1e-6)
    assert seeded.unit_of_privacy == "one patient"
    assert seeded.accountant == "exact" and seeded.releases == []
    profile = mu_profile(MU)
    assert seeded.attack.advantage == profile.advantage
    assert seeded.profile().epsilon(1e-6) == pytest.approx(3, rel=1e-9)
    for point in seeded.attack.points:
        assert point.true_positive_rate == profile.true_positive_rate(point.false_positive_rate)


def test_every_spend_is_there_and_one_did_not_finish(seeded):
    spends = seeded.budget.spends
    assert [spend.id for spend in spends] == [1, 2, 3]
    assert [spend.statement is not None for spend in spends] == [True, False, True]
    assert [spend.purpose for spend in spends] == ["fit DPFCClassifier"] * 3
    assert [spend.statement.target_epsilon for spend in spends[::2]] == [1.0, 0.5]
    for spend, mu in zip(spends, SPENT, strict=True):
        assert spend.share_of_budget == pytest.approx(mu**2 / MU**2, rel=1e-9)
        (first, _) = event_from_json(spend.event).events
        assert first.noise_multiplier == pytest.approx(1 / (mu * math.sqrt(0.2)), rel=1e-9)


def test_what_was_spent_and_what_is_left_add_up_in_squares(seeded):
    spent = math.fsum(mu**2 for mu in SPENT)
    assert seeded.mu == pytest.approx(math.sqrt(spent), rel=1e-9)
    assert seeded.epsilon_by_accountant["exact"] == pytest.approx(
        gaussian_epsilon(math.sqrt(spent), 1e-6), rel=1e-9
    )
    assert seeded.budget.spent_share == pytest.approx(spent / MU**2, rel=1e-9)
    left = gaussian_epsilon(math.sqrt(MU**2 - spent), 1e-6)
    assert seeded.budget.remaining_epsilon == pytest.approx(left, rel=1e-9)


def test_a_fit_at_the_remaining_epsilon_is_accepted_and_then_nothing_is_left(tmp_path):
    path = tmp_path / "ledger.db"
    remaining = ledger_statement(path).budget.remaining_epsilon
    ledger = PrivacyLedger(path)
    event = planned(remaining, delta=1e-6).event
    relation = "add_or_remove_one"
    ledger.spend("stays-2026", event, neighboring_relation=relation, purpose="the rest")
    after = make_ledger_statement(ledger, "stays-2026")
    assert after.budget.spent_share == pytest.approx(1)
    assert after.budget.remaining_epsilon < 1e-3
    # The claim is the budget's, whatever was spent.
    assert after.target_epsilon == 3 and after.attack.advantage == mu_profile(MU).advantage


def test_one_seeded_spend_makes_the_whole_not_private(seeded):
    assert not seeded.private
    assert seeded.reasons_not_private == [
        "spend 3 (fit DPFCClassifier): random_state was given: anyone who knows the seed can "
        "remove the noise; do not publish"
    ]


def test_without_a_seed_it_is_private(renyi):
    assert renyi.private and renyi.reasons_not_private == []


def test_gaps_of_the_runs_are_gaps_of_the_whole_and_name_their_spend(seeded, renyi):
    assert seeded.not_covered == [f"{GAP} (spend 3)"]
    assert renyi.not_covered == []
    assert "one patient has at most one row in it" in seeded.rests_on
    assert any("no record (spend 2)" in sentence for sentence in seeded.rests_on)


def test_a_renyi_budget_states_its_orders_and_takes_a_search(tmp_path, renyi):
    assert renyi.accountant == "rdp" and renyi.budget.filter.kind == "renyi"
    assert renyi.profile().epsilon(1e-6) <= 3 * (1 + 1e-9)
    assert renyi.attack.advantage < math.tanh(1.5) + 1e-6
    path = tmp_path / "ledger.db"
    ledger_statement(path, seeded=False, filter="renyi")
    search = RepeatAndSelectDpEvent(dpa.GaussianDpEvent(15.0), 10.0, 1.0)
    ledger = PrivacyLedger(path)
    ledger.spend("stays-2026", search, neighboring_relation="add_or_remove_one", purpose="search")
    statement = make_ledger_statement(ledger, "stays-2026")
    assert event_from_json(statement.budget.spends[3].event) == search
    assert statement.epsilon_by_accountant["exact"].startswith("unavailable: ")
    assert statement.epsilon_by_accountant["rdp"] < 3
    assert statement.budget.spent_share > renyi.budget.spent_share


def test_an_unspent_budget_has_a_statement(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("a", epsilon=1, delta=1e-5, neighboring_relation="replace_one")
    statement = make_ledger_statement(ledger, "a")
    assert statement.private and statement.budget.spends == []
    assert statement.budget.spent_share == 0
    assert statement.budget.remaining_epsilon == pytest.approx(1)
    assert statement.epsilon_by_accountant["exact"] == 0
    assert statement.random_source == "none was recorded"
    assert statement.to_text() and statement.to_markdown() and statement.to_html()


def test_only_the_named_data_sets_spends_are_stated(tmp_path):
    path = tmp_path / "ledger.db"
    ledger_statement(path)
    ledger = PrivacyLedger(path)
    ledger.create_budget("other", epsilon=1, delta=1e-5)
    assert make_ledger_statement(ledger, "other").budget.spends == []
    assert len(make_ledger_statement(ledger, "stays-2026").budget.spends) == 3


def test_an_unknown_data_set_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    ledger_statement(path)
    with pytest.raises(LedgerError, match=r"no budget for 'stays-2027'.*'stays-2026'"):
        make_ledger_statement(PrivacyLedger(path), "stays-2027")


def test_a_statement_that_was_filed_beside_too_small_a_charge_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    ledger_statement(path)
    ledger = PrivacyLedger(path)
    relation = "add_or_remove_one"
    charged = ledger.spend(
        "stays-2026",
        planned(0.1, delta=1e-6).event,
        neighboring_relation=relation,
        purpose="fit DPFCClassifier",
    )
    ledger.attach_statement(charged.id, state(planned(1.0, delta=1e-6)))
    with pytest.raises(ValueError, match="the statement of spend 4 holds more than was charged"):
        make_ledger_statement(ledger, "stays-2026")


def test_an_edited_budget_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    ledger_statement(path)
    with sqlite3.connect(path) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (trigger,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE budgets SET epsilon = 1")
    with pytest.raises(ValueError, match="is damaged: its trigger budgets_delete is missing"):
        make_ledger_statement(PrivacyLedger(path), "stays-2026")
