"""A ledger that was changed by hand or by a bad disk is seen, or reads as it was written."""

import contextlib
import json
import random
import shutil
import sqlite3

import dp_accounting
import pytest

from dpfc.accounting.ledger.ledger import LedgerError, ModelFile, PrivacyLedger

KINDS = {"neighboring_relation": "add_or_remove_one"}


@pytest.fixture
def full(ledger, spend, statement_of):
    """A ledger with a row in every table."""
    ledger.create_budget("sampled", epsilon=2.0, delta=1e-6, filter="renyi")
    records = [spend(ledger, z) for z in (20.0, 30.0, 25.0)]
    ledger.attach_statement(records[0].id, statement_of(records[0].event))
    told = PrivacyLedger(ledger.path, purpose="study 7", made_by="team A", fingerprint="a file")
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(4.0)), 10
    )
    spent = told.spend("sampled", event, purpose="fit", token="run-1", **KINDS)
    ledger.attach_model(spent.id, "ward.safetensors", "ab" * 32)
    return ledger


def content(ledger):
    """All that a ledger tells, and what it would still accept."""
    budgets = ledger.budgets()
    names = [budget.dataset for budget in budgets]
    told = [(ledger.history(name), ledger.remaining(name)) for name in names]
    return budgets, told, ledger.head()


def execute(ledger, *statements):
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def changed_as_by_hand(ledger, statement):
    """Change a row as somebody would who puts the triggers back afterwards."""
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as connection:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        for _, sql in triggers:
            connection.execute(sql)


# -- bytes ---------------------------------------------------------------------------


def assert_seen_or_harmless(ledger, path, data, expected):
    path.write_bytes(data)
    try:
        found = content(PrivacyLedger(path))
    except LedgerError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        assert len(str(error)) < 1000
        return True
    assert found == expected
    return False


@pytest.mark.parametrize("n_flips", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_flipped_byte_is_seen_in_one_line_or_changes_nothing_that_is_read(
    full, tmp_path, n_flips
):
    expected, data = content(full), full.path.read_bytes()
    path, draws, seen = tmp_path / "flipped.db", random.Random(7), 0
    # Most of a small file's pages are empty: half of the flips hit what is not.
    used = [place for place, byte in enumerate(data) if byte]
    for number in range(n_flips):
        place = draws.choice(used) if number % 2 else draws.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= draws.randrange(1, 256)
        seen += assert_seen_or_harmless(full, path, bytes(flipped), expected)
    assert seen > n_flips / 4


def test_every_bit_of_a_cost_or_an_event_counts(full, tmp_path):
    """The fault that let epsilon = 1 compose to 1.26."""
    expected, data = content(full), full.path.read_bytes()
    for text in (b"[0.0025]", b'"noise_multiplier": 20.0', b"one patient", b"study 7", b"abab"):
        start = data.index(text)
        for place in range(start, start + len(text)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << (place % 7)
            assert assert_seen_or_harmless(full, tmp_path / "f.db", bytes(flipped), expected)


def test_a_file_that_is_cut_anywhere_is_seen(full, tmp_path):
    data, expected = full.path.read_bytes(), content(full)
    for size in range(1, len(data), len(data) // 23):
        assert assert_seen_or_harmless(full, tmp_path / "cut.db", data[:size], expected)


# -- rows ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE spends SET cost = '[0.001]' WHERE id = 1", "spend 1: it was changed"),
        ("UPDATE spends SET event = replace(event, '20.0', '21.0')", "spend 1: it was changed"),
        ("UPDATE spends SET made_at = '2020-01-01T00:00:00+00:00'", "spend 1: it was changed"),
        ("UPDATE spends SET purpose = 'nothing' WHERE id = 2", "spend 2: it was changed"),
        ("UPDATE spends SET budget_id = 2 WHERE id = 2", "spend 2: it was changed"),
        ("UPDATE budgets SET epsilon = 1.0000000001 WHERE id = 1", "budget 1: it was changed"),
        ("UPDATE budgets SET unit_of_privacy = 'a visit'", "budget 1: it was changed"),
        ("UPDATE budgets SET neighboring_relation = 'replace_one'", "budget 1: it was changed"),
        ("UPDATE details SET made_by = NULL", "the details of spend 4: it was changed"),
        ("UPDATE models SET sha256 = '00'", "the model of spend 4: it was changed"),
        ("UPDATE statements SET statement = '{}'", "the statement of spend 1: it was changed"),
        ("UPDATE origins SET salt = '00'", "the origin: it was changed"),
        ("UPDATE records SET hash = '00' WHERE id = 3", "it was changed"),
        ("DELETE FROM spends WHERE id = 2", "spend 2: it, or a record before it, was removed"),
        ("DELETE FROM statements", "the statement of spend 1: it, or a record"),
        ("DELETE FROM details", "the details of spend 4: it, or a record"),
        ("DELETE FROM records WHERE id = 2", "was removed"),
        (
            "INSERT INTO spends (budget_id, purpose, event, cost, made_at) "
            "SELECT budget_id, purpose, event, cost, made_at FROM spends WHERE id = 1",
            "spend 5: it was not written by a ledger",
        ),
        ("UPDATE spends SET purpose = x'ff' WHERE id = 2", "spend 2: its purpose holds bytes"),
        ("UPDATE records SET row_id = 'x' WHERE id = 2", "record 2: its row_id holds a text"),
    ],
)
def test_a_row_that_was_changed_by_hand_stops_everything_and_is_named(
    full, spend, statement, place
):
    changed_as_by_hand(full, statement)
    uses = (full.history, full.remaining, full.budget, lambda name: spend(full, dataset=name))
    for use in (*uses, lambda name: full.verify(), lambda name: full.head()):
        with pytest.raises(LedgerError, match=f"is damaged at .*{place}"):
            use("ward")


# -- the schema ----------------------------------------------------------------------

VIEW = [
    "ALTER TABLE spends RENAME TO old",
    "CREATE VIEW spends AS SELECT id, budget_id, purpose, event, '[0.0]' AS cost, made_at FROM old",
]


@pytest.mark.parametrize(
    "statements",
    [
        VIEW,
        ["DROP TRIGGER spends_update"],
        ["DROP TRIGGER records_delete"],
        ["DROP TRIGGER spends_replace", "CREATE TRIGGER spends_replace BEFORE INSERT ON spends "
         "WHEN 0 BEGIN SELECT RAISE(ABORT, 'a ledger is append-only'); END"],
        ["CREATE TRIGGER cheap AFTER INSERT ON spends BEGIN SELECT 1; END"],
        ["CREATE TABLE more (id INTEGER)"],
        ["CREATE INDEX fast ON spends (purpose)"],
        ["ALTER TABLE spends ADD COLUMN note TEXT"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["full", "from_before"])
def test_tables_indexes_and_triggers_must_be_exactly_a_ledgers(request, spend, which, statements):
    ledger = request.getfixturevalue(which)
    if which == "from_before":
        statements = [statement.replace("records", "budgets") for statement in statements]
    execute(ledger, *statements)
    for use in (ledger.history, ledger.remaining, lambda name: spend(ledger, dataset=name)):
        with pytest.raises(LedgerError, match="is damaged: it") as caught:
            use("ward")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "statements",
    [
        ['CREATE TABLE "a\n\x1b[2Jb" (id INTEGER)'],
        [f"CREATE TABLE {'x' * 5000} (id INTEGER)"],
        [
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_master SET type = 'i\n\x1b[2Jdex' WHERE name = 'spends'",
        ],
    ],
    ids=["name", "long name", "type"],
)
def test_what_a_damaged_file_names_cannot_break_or_fill_the_message(full, statements):
    execute(full, *statements)
    with pytest.raises(LedgerError) as caught:
        full.history("ward")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


# -- costs ---------------------------------------------------------------------------


def test_a_cost_that_its_event_contradicts_is_refused_in_a_file_without_a_chain(from_before, spend):
    changed_as_by_hand(from_before, "UPDATE spends SET cost = '[0.0001]' WHERE id = 1")
    with pytest.raises(LedgerError, match=r"spend 1: its cost must be 0.0025, as its event says"):
        spend(from_before)


def test_a_cost_of_a_sampled_spend_is_computed_again(from_before):
    query = "SELECT cost FROM spends WHERE id = 3"
    with contextlib.closing(sqlite3.connect(from_before.path)) as connection:
        costs = json.loads(connection.execute(query).fetchone()[0])
    small = json.dumps([cost / 2 for cost in costs])
    changed_as_by_hand(from_before, f"UPDATE spends SET cost = '{small}' WHERE id = 3")
    with pytest.raises(LedgerError, match="spend 3: its cost must be"):
        from_before.remaining("Station 7")


# -- files of before -----------------------------------------------------------------


def test_a_file_without_a_chain_is_read_and_gets_one_at_its_first_write(from_before, spend):
    before = from_before.path.read_bytes()
    told = [
        (from_before.history(name), from_before.remaining(name)) for name in ("ward", "Station 7")
    ]
    assert [len(spends) for spends, _ in told] == [2, 1]
    assert from_before.head() is None and from_before.verify().n_spends == 3
    with pytest.raises(LedgerError, match="never had the head"):
        from_before.verify("0" * 64)
    assert from_before.path.read_bytes() == before  # reading writes nothing

    spend(from_before, 50.0)
    head = from_before.head()
    assert head is not None and len(head) == 64
    assert from_before.history("ward")[:2] == told[0][0]
    assert from_before.history("Station 7") == told[1][0]
    assert from_before.verify(head).added_since == 0
    changed_as_by_hand(from_before, "UPDATE spends SET purpose = 'sum' WHERE id = 1")
    with pytest.raises(LedgerError, match="spend 1: it was changed"):
        from_before.history("ward")


# -- the head ------------------------------------------------------------------------


def test_a_head_that_was_kept_tells_what_was_added_since(full, spend, statement_of):
    head = full.head()
    assert full.verify(head).added_since == 0
    record = spend(full, 60.0)
    full.attach_statement(record.id, statement_of(record.event))
    check = full.verify(head)
    assert (check.n_budgets, check.n_spends, check.added_since) == (2, 5, 2)
    assert check.head == full.head() != head


def test_a_head_that_was_kept_finds_an_older_copy_and_a_chain_that_was_made_anew(
    full, spend, tmp_path
):
    copy = PrivacyLedger(shutil.copy(full.path, tmp_path / "copy.db"))
    spend(full, 60.0)
    head = full.head()
    assert copy.verify().n_spends == 4  # nothing is wrong with it by itself
    with pytest.raises(LedgerError, match="never had the head"):
        copy.verify(head)
    twin = PrivacyLedger(tmp_path / "twin.db")
    twin.create_budget(
        "ward", epsilon=1.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=1
    )
    other = PrivacyLedger(tmp_path / "other.db")
    other.create_budget(
        "ward", epsilon=1.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=1
    )
    with pytest.raises(LedgerError, match="never had the head"):
        twin.verify(other.head())


def test_a_spend_keeps_who_made_it_what_for_and_what_came_of_it(full):
    spend = full.history("sampled")[0]
    assert (spend.stated_purpose, spend.made_by, spend.token) == ("study 7", "team A", "run-1")
    assert spend.model == ModelFile("ward.safetensors", "ab" * 32)
    assert full.find_spend("sampled", "run-1") == spend
    assert full.find_spend("sampled", "run-2") is None and full.find_spend("ward", "run-1") is None
    with pytest.raises(LedgerError, match="has a model already"):
        full.attach_model(spend.id, "other", "ab" * 32)
    with pytest.raises(ValueError, match="sha256 must be 64 hexadecimal digits"):
        full.attach_model(1, "other", "ab")


def test_a_token_pays_once(full):
    with pytest.raises(LedgerError, match=r"spend 4 .* was made under this token"):
        full.spend(
            "sampled", dp_accounting.GaussianDpEvent(90.0), purpose="fit", token="run-1", **KINDS
        )
    assert len(full.history("sampled")) == 1
    full.spend("ward", dp_accounting.GaussianDpEvent(90.0), purpose="x", token="run-1", **KINDS)
