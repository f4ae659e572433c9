"""The ledger's file: append-only, and one clear message for whatever is wrong with it."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dpfc.accounting.ledger import sqlite_file as _ledger_file
from dpfc.accounting.ledger.ledger import LedgerError, PrivacyLedger

SPEND = """
import sys, dp_accounting
from dpfc.accounting.ledger.ledger import PrivacyLedger
ledger = PrivacyLedger(sys.argv[1])
"""


@contextlib.contextmanager
def raw(ledger):
    """Open the file as any SQLite program would, outside of transactions."""
    connection = sqlite3.connect(ledger.path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def dump(ledger):
    with raw(ledger) as connection:
        return list(connection.iterdump())


@contextlib.contextmanager
def without_triggers(connection):
    """What somebody does who knows how: the triggers are back afterwards, as they were."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    triggers = connection.execute(query).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    yield
    for _, sql in triggers:
        connection.execute(sql)


@pytest.fixture
def filled(ledger, spend, statement_of):
    for _ in range(3):
        record = spend(ledger)
    ledger.attach_statement(record.id, statement_of(record.event))
    return ledger


# -- append-only ---------------------------------------------------------------------

CHEATS = [
    "UPDATE budgets SET epsilon = 100",
    'UPDATE budgets SET filter = \'{"kind": "gdp", "mu": 100}\'',
    "UPDATE spends SET cost = '[0.0]'",
    "UPDATE spends SET budget_id = 7 WHERE id = 1",
    "UPDATE statements SET statement = ''",
    "DELETE FROM budgets",
    "DELETE FROM spends",
    "DELETE FROM spends WHERE id = 3",
    "DELETE FROM statements",
    "INSERT OR REPLACE INTO spends SELECT id, 1, purpose, event, '[0.0]', made_at FROM spends",
    "REPLACE INTO spends (id, budget_id, purpose, event, cost, made_at) "
    "VALUES (2, 1, 'x', 'x', '[0.0]', 'x')",
    "REPLACE INTO statements VALUES (3, 'x')",
    # Another row number under the same name: REPLACE deletes by every unique column.
    "INSERT OR REPLACE INTO budgets SELECT 9, dataset, dataset_key, 100, delta, "
    "neighboring_relation, unit_of_privacy, filter, created_at FROM budgets",
    "INSERT INTO spends (id, budget_id, purpose, event, cost, made_at) "
    "VALUES (2, 1, 'x', 'x', '[0.0]', 'x') ON CONFLICT (id) DO UPDATE SET cost = '[0.0]'",
]


@pytest.mark.parametrize("statement", CHEATS)
def test_nothing_that_was_written_can_be_changed_through_sql(filled, statement):
    before = dump(filled)
    with raw(filled) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert dump(filled) == before


def test_the_tables_are_the_ones_in_the_documentation(filled):
    page = (Path(__file__).parents[3] / "docs" / "ledger.md").read_text()
    with raw(filled) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ).fetchall()
        assert [name for (name,) in tables] == [
            "budgets", "details", "fingerprints", "models", "origins", "records", "spends",
            "statements", "units",
        ]  # fmt: skip
        for (table,) in tables:
            for row in connection.execute(f"PRAGMA table_info({table})"):
                assert f"`{row[1]}`" in page, f"docs/ledger.md does not name {table}.{row[1]}"
        assert connection.execute("PRAGMA application_id").fetchone() == (0x64706663,)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


def test_no_row_holds_what_is_not_in_the_documented_columns(filled):
    """Events, names, figures: the file has no place for a row count or a value of the data."""
    with raw(filled) as connection:
        rows = connection.execute("SELECT * FROM spends").fetchall()
    assert [row[:3] for row in rows] == [(1, 1, "count"), (2, 1, "count"), (3, 1, "count")]
    assert {row[3] for row in rows} == {'{"type": "GaussianDpEvent", "noise_multiplier": 20.0}'}
    assert {row[4] for row in rows} == {"[0.0025]"}


# -- files that are no ledger --------------------------------------------------------


def _truncate(ledger, size):
    os.truncate(ledger.path, size)


def _flip(ledger):
    with ledger.path.open("r+b") as file:
        file.seek(4096 + 8)
        file.write(bytes(64))


def _execute(ledger, statement):
    with raw(ledger) as connection, without_triggers(connection):
        connection.execute(statement)


def _drop(ledger, table):
    with raw(ledger) as connection:
        connection.execute(f"DROP TABLE {table}")


DAMAGES = [
    (lambda ledger: ledger.path.unlink(), "does not exist; make it with: dpfc budget create"),
    (lambda ledger: ledger.path.write_bytes(b""), "is empty; make a budget with"),
    (lambda ledger: ledger.path.write_text("a,b\n1,2\n" * 99), "it is no SQLite file"),
    (lambda ledger: _truncate(ledger, 50), "is damaged; keep it"),
    (lambda ledger: _truncate(ledger, 8192), "is damaged; keep it"),
    (_flip, "is damaged; keep it"),
    (lambda ledger: _execute(ledger, "PRAGMA user_version = 4"), "has format 4, and this version"),
    (lambda ledger: _execute(ledger, "PRAGMA application_id = 7"), "of another program .*7"),
    (lambda ledger: _drop(ledger, "spends"), "is damaged: its table spends is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(filled, spend, damage, message):
    damage(filled)
    before = filled.path.read_bytes() if filled.path.exists() else None
    for use in (filled.history, filled.remaining, lambda name: spend(filled, dataset=name)):
        with pytest.raises(LedgerError, match=message) as caught:
            use("ward")
        assert str(filled.path) in str(caught.value)
    assert (filled.path.read_bytes() if filled.path.exists() else None) == before


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE spends SET cost = 'x' WHERE id = 2", "spend 2"),
        ("UPDATE spends SET cost = '[-1.0]' WHERE id = 2", "spend 2: cost must be a float"),
        ("UPDATE spends SET cost = '[NaN]' WHERE id = 2", "spend 2"),
        ("UPDATE spends SET cost = '[0.1, 0.2]' WHERE id = 2", "spend 2"),
        ("UPDATE spends SET cost = 7 WHERE id = 2", "spend 2: expected a list of 1 costs"),
        ("UPDATE spends SET cost = '{\"0\": 1}' WHERE id = 2", "spend 2: expected a list"),
        ("UPDATE spends SET cost = '[\"0.0\"]' WHERE id = 2", "spend 2: cost must be a float"),
        (f"UPDATE spends SET cost = '[1{'0' * 400}]' WHERE id = 2", "spend 2: cost must be"),
        ("UPDATE spends SET cost = x'ff' WHERE id = 2", "spend 2: its cost holds bytes"),
        ("UPDATE budgets SET filter = '{}'", "the budget of 'ward'"),
        ("UPDATE budgets SET filter = '[]'", "the budget of 'ward'"),
        ('UPDATE budgets SET filter = \'{"kind": "gdp", "mu": 1e999}\'', "the budget of 'ward'"),
        ("UPDATE budgets SET neighboring_relation = 'x'", "the budget of 'ward'"),
        ("UPDATE budgets SET epsilon = 'x'", "budget 1: its epsilon holds a text, where a ledger"),
        ("UPDATE budgets SET delta = 2", "the budget of 'ward': delta must be"),
        # A filter or a promise that changed in one digit: the filter must not allow more.
        ("UPDATE budgets SET epsilon = 0.9", "the budget of 'ward': its filter allows more"),
        ("UPDATE budgets SET delta = 9e-6", "the budget of 'ward': its filter allows more"),
        (
            'UPDATE budgets SET filter = \'{"kind": "gdp", "mu": 0.2681}\'',
            "the budget of 'ward': its filter allows more",
        ),
        (
            'UPDATE budgets SET filter = \'{"kind": "renyi", "orders": [9], "budgets": [1]}\'',
            "the budget of 'ward': its filter allows more",
        ),
    ],
)
def test_a_damaged_record_stops_every_spend_and_is_named(from_before, spend, statement, place):
    """In a file of the first format, which has no chain: by what the record says."""
    _execute(from_before, statement)
    uses = (
        from_before.history,
        from_before.remaining,
        lambda name: spend(from_before, dataset=name),
    )
    for use in uses:
        with pytest.raises(LedgerError, match=f"is damaged at {place}"):
            use("ward")


TEXTS = [
    ("budgets", "dataset"), ("budgets", "dataset_key"), ("budgets", "neighboring_relation"),
    ("budgets", "unit_of_privacy"), ("budgets", "filter"), ("budgets", "created_at"),
    ("spends", "purpose"), ("spends", "event"), ("spends", "cost"), ("spends", "made_at"),
    ("statements", "statement"),
]  # fmt: skip


@pytest.mark.parametrize("which", ["filled", "from_before"])
@pytest.mark.parametrize(("table", "column"), TEXTS)
def test_bytes_in_the_place_of_a_text_are_damage_that_is_named(request, which, table, column):
    ledger = request.getfixturevalue(which)
    first = f"(SELECT min(rowid) FROM {table})"
    _execute(ledger, f"UPDATE {table} SET {column} = x'ff00' WHERE rowid = {first}")
    for use in (ledger.history, ledger.remaining, ledger.budget, lambda _: ledger.budgets()):
        with pytest.raises(LedgerError, match=f"is damaged at .*: its {column} holds bytes") as no:
            use("ward")
        assert "JSON" not in str(no.value) and str(no.value).isprintable()


def test_a_text_that_is_no_unicode_is_damage(filled):
    _execute(filled, "UPDATE spends SET purpose = CAST(x'ff' AS TEXT)")
    with pytest.raises(LedgerError, match="is damaged") as caught:
        filled.history("ward")
    assert str(caught.value).isprintable()


def test_what_a_ledger_has_and_lacks_is_said_in_whole_words(filled):
    _execute(filled, "CREATE INDEX fast ON spends (purpose)")
    with pytest.raises(LedgerError, match="is damaged: it has an index 'fast' that no ledger has"):
        filled.budgets()


@pytest.mark.parametrize("column", ["event = '{}'", "event = 'x'", "event = '[' || event || ']'"])
def test_a_damaged_event_is_named_in_the_history(from_before, column):
    _execute(from_before, f"UPDATE spends SET {column} WHERE id = 2")
    with pytest.raises(LedgerError, match="is damaged at spend 2"):
        from_before.history("ward")


def test_a_database_of_another_program_is_not_written_to(tmp_path):
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="SQLite file of another program"):
        PrivacyLedger(path).create_budget("ward", epsilon=1, delta=1e-5)
    assert path.read_bytes() == before


def test_a_folder_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(LedgerError, match="is a folder: name a file in it"):
        PrivacyLedger(tmp_path).create_budget("ward", epsilon=1, delta=1e-5)
    with pytest.raises(LedgerError, match="is a folder"):
        PrivacyLedger(tmp_path).budgets()
    missing = tmp_path / "missing" / "ledger.db"
    with pytest.raises(LedgerError, match="cannot be opened: check the path"):
        PrivacyLedger(missing).create_budget("ward", epsilon=1, delta=1e-5)
    assert not missing.parent.exists()


@pytest.mark.parametrize(
    "name",
    ["a ledger.db", "50%20.db", "a?mode=memory", "a#b.db", "Größe.db", "file:x.db", "'\".db"],
)
def test_any_name_of_a_file_is_that_file(tmp_path, spend, name):
    ledger = PrivacyLedger(tmp_path / name)
    ledger.create_budget("ward", epsilon=1, delta=1e-5)
    spend(ledger)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(ledger.history("ward")) == 1


def test_a_symbolic_link_is_the_file_it_points_to(filled, spend, tmp_path):
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.db"
    link.symlink_to(filled.path)
    spend(PrivacyLedger(link))
    assert len(filled.history("ward")) == 4
    assert link.is_symlink() and [path.name for path in link.parent.iterdir()] == ["link.db"]


def test_a_locked_ledger_is_waited_for_and_then_named(filled, spend, monkeypatch):
    monkeypatch.setattr(_ledger_file, "BUSY_SECONDS", 0.05)
    with raw(filled) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="is locked by another process"):
            spend(filled)
        connection.execute("ROLLBACK")
    assert len(filled.history("ward")) == 3


def test_a_full_disk_refuses_the_spend_and_keeps_the_ledger(filled, spend, monkeypatch):
    connect = sqlite3.connect

    def small(*arguments, **options):
        connection = connect(*arguments, **options)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(LedgerError, match="the disk is full"):
        for _ in range(500):
            spend(filled, 1e4, purpose="x" * 200)
    monkeypatch.undo()
    with raw(filled) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(filled.history("ward")) < 500
    spend(filled)


def test_a_commit_waits_for_the_disk_and_for_the_removal_of_the_journal(filled):
    """EXTRA (3) also flushes the folder: without it, a power cut can bring the journal back."""
    with _ledger_file.writing(filled.path) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
        assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_ledger_that_another_program_put_into_wal_mode_is_used_as_before(filled, spend):
    with raw(filled) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        spend(filled)  # beside a connection that keeps the log open
        assert len(filled.history("ward")) == 4
    assert len(filled.history("ward")) == 4
    assert [path.name for path in filled.path.parent.iterdir()] == [filled.path.name]


def test_an_interrupt_before_the_commit_leaves_nothing(filled):
    def interrupted():
        with _ledger_file.writing(filled.path) as connection:
            connection.execute(
                "INSERT INTO spends (budget_id, purpose, event, cost, made_at) "
                "VALUES (1, 'x', '{}', '[0.1]', '')"
            )
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(filled.history("ward")) == 3


# -- permissions ---------------------------------------------------------------------


@pytest.fixture
def as_somebody_else():
    """Run code on a ledger in a folder that others may enter, without root's rights."""
    folder = Path(tempfile.mkdtemp(prefix="dpfc ledger "))
    folder.chmod(0o755)

    def run(ledger, code):
        path = folder / "ledger.db"
        shutil.copy(ledger.path, path)
        path.chmod(0o444)
        drop = "import os\nif os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        return subprocess.run(
            [sys.executable, "-c", SPEND + drop + code, path], capture_output=True, text=True
        )

    yield run
    shutil.rmtree(folder)


def test_a_read_only_ledger_can_be_read_but_not_spent_from(filled, as_somebody_else):
    code = """
print(len(ledger.history("ward")), ledger.remaining("ward").spent_share)
try:
    ledger.spend("ward", dp_accounting.GaussianDpEvent(20.0),
                 neighboring_relation="add_or_remove_one", purpose="count")
except ValueError as error:
    print(error)
print(len(ledger.history("ward")))
"""
    done = as_somebody_else(filled, code)
    assert done.stderr == ""
    first, message, last = done.stdout.splitlines()
    assert first == f"3 {filled.remaining('ward').spent_share}"
    assert "cannot be written: give this user write access to the file and its folder" in message
    assert last == "3"
