"""How many rows a budget's unit has, and what spends are charged for it."""

import contextlib
import math
import pickle
import sqlite3
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc.accounting.accountants import compute_epsilon
from dpfc.accounting.calibration import calibrate
from dpfc.accounting.events import event_mu
from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
from dpfc.accounting.groups import event_of_group
from dpfc.accounting.ledger.charges import Charge
from dpfc.accounting.ledger.ledger import BudgetExceeded, LedgerError, PrivacyLedger
from dpfc.accounting.ledger.statement import make_ledger_statement
from dpfc.accounting.plans import ReleaseRequest

KIND = {"neighboring_relation": "add_or_remove_one", "purpose": "fit"}
SAMPLED = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(50.0))


def gaussian(noise_multiplier):
    return dp_accounting.GaussianDpEvent(noise_multiplier)


@pytest.fixture
def make(tmp_path):
    def make(rows_per_unit, unit="one patient", **options):
        ledger = PrivacyLedger(tmp_path / f"{rows_per_unit}-{len(options)}.db")
        arguments = {"epsilon": 1.0, "delta": 1e-5, "unit_of_privacy": unit} | options
        ledger.create_budget("ward", rows_per_unit=rows_per_unit, **arguments)
        return ledger

    return make


@pytest.mark.parametrize(
    ("unit", "rows"),
    [
        ("one row", 1),
        ("One Image", 1),
        ("one record", 1),
        ("one patient", None),
        ("one household", None),
        ("one image of a patient", None),
    ],
)
def test_a_unit_that_is_no_row_by_its_name_has_many_unless_said(make, unit, rows):
    assert make("auto", unit).budget("ward").rows_per_unit == rows


@pytest.mark.parametrize("rows", [None, 1, 5, 2**31 - 1])
def test_what_was_said_is_kept(make, rows):
    budget = make(rows).budget("ward")
    assert budget.rows_per_unit == rows and budget.rows_were_stated


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "5", "many", 2**31])
def test_what_is_no_number_of_rows_is_refused_and_makes_no_ledger(make, tmp_path, rows):
    with pytest.raises(ValueError, match="rows_per_unit must be"):
        make(rows)
    assert list(tmp_path.iterdir()) == []


# -- many rows -----------------------------------------------------------------------


def test_a_spend_of_rows_is_refused_where_a_unit_may_have_many(make):
    ledger = make(None)
    uses = (
        lambda: ledger.spend("ward", gaussian(20.0), **KIND),
        lambda: ledger.check_spend("ward", gaussian(20.0), **KIND),
        lambda: Charge(ledger, "ward", gaussian(20.0), **KIND),
        lambda: ledger.remaining("ward", unit="row"),
    )
    for use in uses:
        with pytest.raises(LedgerError, match=r"one patient, who may have many rows.*groups"):
            use()
    assert ledger.history("ward") == []


def test_a_spend_of_groups_is_charged_as_it_is(make):
    for rows in (None, 1, 7):
        ledger = make(rows)
        spend = ledger.spend("ward", gaussian(20.0), unit="group", **KIND)
        assert spend.event == gaussian(20.0)
        assert ledger.remaining("ward").spent_share == pytest.approx(
            1 / (20 * gaussian_mu(1.0, 1e-5)) ** 2
        )


@pytest.mark.parametrize("unit", ["one row", "One Image"])
def test_a_spend_of_groups_does_not_cover_a_row(make, unit):
    """A row that is added to a group changes what all of it adds, by up to two sensitivities."""
    ledger = make(1, unit_of_privacy=unit)
    for use in (ledger.spend, ledger.check_spend):
        with pytest.raises(LedgerError, match=r"covers groups .*--rows-per-unit many"):
            use("ward", gaussian(20.0), unit="group", **KIND)
    assert ledger.history("ward") == []
    assert ledger.remaining("ward").epsilon > 0  # a row's own
    make(4, unit_of_privacy=unit).spend("ward", gaussian(20.0), unit="group", **KIND)


def test_an_unknown_unit_is_refused(make):
    with pytest.raises(ValueError, match="unit must be"):
        make(1).spend("ward", gaussian(20.0), unit="patient", **KIND)


# -- a stated number of rows ---------------------------------------------------------


def test_a_spend_of_rows_is_charged_as_the_stated_number_of_them(make):
    ledger = make(5)
    charge = Charge(ledger, "ward", gaussian(100.0), **KIND)
    assert charge.unit_of_privacy == "one row"  # what the fit's own statement is about
    charge.commit()
    (spend,) = ledger.history("ward")
    assert spend.event == gaussian(20.0)
    again = Charge(ledger, "ward", gaussian(100.0), paid=spend.id, **KIND)
    assert again.spend_id == spend.id
    with pytest.raises(LedgerError, match="does not pay for this"):
        Charge(ledger, "ward", gaussian(100.0), paid=spend.id, unit="group", **KIND)
    assert ledger.verify().n_spends == 1
    copy = pickle.loads(pickle.dumps(charge))
    copy.commit()
    assert [spend.event for spend in ledger.history("ward")] == [gaussian(20.0)] * 2


def test_k_rows_fit_exactly_as_often_as_their_mu_allows(make):
    """μ of the budget is √n k/z: the next spend of a row does not fit."""
    ledger = make(4, epsilon=1.0)
    z = 4 / gaussian_mu(1.0, 1e-5) * math.sqrt(3) * (1 + 1e-9)
    for _ in range(3):
        ledger.spend("ward", gaussian(z), **KIND)
    with pytest.raises(BudgetExceeded, match=r"at most ε = \d"):
        ledger.spend("ward", gaussian(1e3), **KIND)


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("kind", ["gdp", "renyi"])
@pytest.mark.parametrize("rows", [1, 2, 5, 20])
def test_a_fit_of_rows_with_exactly_what_remains_is_accepted(make, kind, rows, relation):
    ledger = make(rows, filter=kind, neighboring_relation=relation)
    how = {"neighboring_relation": relation, "purpose": "fit"}
    ledger.spend("ward", gaussian(9.0), unit="group", **how)
    left = ledger.remaining("ward", unit="row")
    assert left.mu == pytest.approx(ledger.remaining("ward").mu / rows, rel=1e-9)
    requests = [ReleaseRequest("a", 0.3), ReleaseRequest("b", 0.7, 7)]
    target = {"target_delta": 1e-5, "neighboring_relation": relation}
    plan = calibrate(requests, target_epsilon=left.epsilon, **target)
    ledger.spend("ward", plan.event, **how)
    with pytest.raises(BudgetExceeded):
        ledger.spend("ward", gaussian(1 / (0.05 * left.mu)), **how)


def test_a_sample_of_rows_is_refused_where_a_unit_has_several(make):
    several, one = make(2, filter="renyi"), make(1, filter="renyi")
    with pytest.raises(LedgerError, match=r"up to 2 rows .*Sample whole groups"):
        several.spend("ward", SAMPLED, **KIND)
    assert several.history("ward") == []
    several.spend("ward", SAMPLED, unit="group", **KIND)
    one.spend("ward", SAMPLED, **KIND)


# -- statements and files ------------------------------------------------------------


def test_the_statement_says_what_it_takes_a_unit_to_have(make):
    said = {}
    for rows in (None, 1, 5):
        ledger = make(rows)
        ledger.spend("ward", gaussian(100.0), unit="group", **KIND)
        ledger.spend("ward", gaussian(100.0), unit="group" if rows is None else "row", **KIND)
        statement = make_ledger_statement(ledger, "ward")
        said[rows] = statement.rests_on[1]
        assert said[rows] in " ".join(statement.to_text().split())
        k = rows or 1
        assert statement.mu == pytest.approx(math.sqrt(1 + k * k) / 100)
    assert said[1] == "one patient has at most one row in it"
    assert said[5].startswith("one patient has at most 5 rows in it:") and "divided by 5" in said[5]
    replaced = make_ledger_statement(make(5, neighboring_relation="replace_one"), "ward")
    assert "takes the place of one with as many" in replaced.rests_on[1]
    assert "whose each row is" in said[None]


FILES = Path(__file__).parents[1] / "files"


@pytest.fixture
def of_format_2(tmp_path):
    """As the version before units wrote it: "ward 7" (one patient) and "Größe"; a spend of each."""
    path = tmp_path / "before.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((FILES / "ledger-format-2.sql").read_text(encoding="utf-8"))
    return PrivacyLedger(path)


HEAD = "4939b199f890c36535258491094c6d7d6b18be89235d7dd6034582974c9eb331"


def test_a_budget_of_before_works_as_before_and_its_statement_says_what_nobody_stated(of_format_2):
    before = of_format_2.path.read_bytes()
    assert of_format_2.head() == HEAD
    budget = of_format_2.budget("ward 7")
    assert (budget.rows_per_unit, budget.rows_were_stated) == (1, False)
    assert of_format_2.remaining("ward 7").epsilon == pytest.approx(2.7434323757038523)
    assert of_format_2.path.read_bytes() == before  # reading writes nothing

    of_format_2.spend("ward 7", gaussian(9.0), **KIND)
    assert of_format_2.verify(HEAD).added_since == 1
    with contextlib.closing(sqlite3.connect(of_format_2.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM origins").fetchone() == (1,)
    sentence = make_ledger_statement(of_format_2, "ward 7").rests_on[1]
    assert (
        sentence == "one patient has at most one row in it; nobody said so when the budget was made"
    )


def test_a_row_that_was_changed_in_a_file_of_before_is_found(of_format_2):
    with contextlib.closing(sqlite3.connect(of_format_2.path)) as connection:
        (trigger,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'spends_update'"
        ).fetchone()
        connection.execute("DROP TRIGGER spends_update")
        connection.execute("UPDATE spends SET purpose = 'sum' WHERE id = 1")
        connection.execute(trigger)
        connection.commit()
    with pytest.raises(LedgerError, match="spend 1: it was changed after it was written"):
        of_format_2.history("ward 7")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("UPDATE units SET rows_per_unit = 1", "the unit of budget 1: it was changed"),
        ("UPDATE units SET rows_per_unit = NULL", "the unit of budget 1: it was changed"),
        ("DELETE FROM units", "the unit of budget 1: it, or a record before it, was removed"),
        ("UPDATE units SET rows_per_unit = 'x'", "the unit of budget 1: its rows_per_unit holds"),
    ],
)
def test_a_unit_that_was_changed_by_hand_stops_every_spend(make, change, place):
    ledger = make(5)
    with contextlib.closing(sqlite3.connect(ledger.path)) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'units'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(change)
        for _, sql in triggers:
            connection.execute(sql)
        connection.commit()
    with pytest.raises(LedgerError, match=f"is damaged at {place}"):
        ledger.spend("ward", gaussian(100.0), **KIND)


def test_sql_changes_no_unit(make):
    ledger = make(5)
    for change in (
        "UPDATE units SET rows_per_unit = 1",
        "DELETE FROM units",
        "INSERT OR REPLACE INTO units VALUES (1, 1)",
    ):
        with (
            contextlib.closing(sqlite3.connect(ledger.path)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            connection.execute(change)


# -- what an event is for a group ----------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 5, 13])
def test_mu_of_a_group_is_k_times_that_of_a_row(rows):
    event = dp_accounting.ComposedDpEvent(
        [gaussian(3.0), dp_accounting.SelfComposedDpEvent(gaussian(8.0), 12)]
    )
    assert event_mu(event_of_group(event, rows)) == pytest.approx(rows * event_mu(event))
    mu = event_mu(event)
    epsilon = compute_epsilon(
        event_of_group(event, rows), 1e-5, neighboring_relation="add_or_remove_one"
    )
    assert epsilon == pytest.approx(gaussian_epsilon(rows * mu, 1e-5))


def test_a_search_over_full_batches_is_the_search_over_divided_ones():
    search = RepeatAndSelectDpEvent(gaussian(30.0), 3.0, math.inf)
    assert event_of_group(search, 3) == RepeatAndSelectDpEvent(gaussian(10.0), 3.0, math.inf)
    assert event_of_group(SAMPLED, 1) == SAMPLED
    with pytest.raises(ValueError, match="samples of the rows"):
        event_of_group(dp_accounting.ComposedDpEvent([gaussian(2.0), SAMPLED]), 2)
