"""The ledger among processes: no overspending, and what was acknowledged survives kill -9."""

import json
import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dpfc.accounting.gaussian import gaussian_mu

PROGRAM = Path(__file__).with_name("spending_processes.py")


def run(mode, ledger, *numbers):
    command = [sys.executable, PROGRAM, mode, ledger.path, *map(json.dumps, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_integrity(ledger):
    with closing(sqlite3.connect(ledger.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize(
    ("n_spends", "n_fit"), [(5, 20), pytest.param(50, 200, marks=pytest.mark.slow)]
)
def test_eight_processes_at_once_spend_exactly_what_fits(ledger, n_spends, n_fit):
    noise_multiplier = math.sqrt(n_fit + 0.5) / gaussian_mu(1.0, 1e-5)
    done = run("race", ledger, noise_multiplier, 8, n_spends)
    assert done["codes"] == [0] * 8
    assert [len(lines) for lines in done["outcomes"]] == [n_spends] * 8
    lines = [line for lines in done["outcomes"] for line in lines]
    assert lines.count("exceeded") == 8 * n_spends - n_fit
    acknowledged = sorted(int(line) for line in lines if line != "exceeded")
    history = ledger.history("ward")
    assert acknowledged == [record.id for record in history] == list(range(1, n_fit + 1))
    assert len({record.purpose for record in history}) == n_fit
    assert ledger.budget("ward").filter.accepts([record.event for record in history])
    check_integrity(ledger)


@pytest.mark.parametrize("n_kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_no_acknowledged_spend(ledger, n_kills):
    done = run("kill", ledger, 1e5, n_kills, 0.04)
    assert len(done["acknowledged"]) == n_kills
    assert all(done["acknowledged"][1::2])
    history = ledger.history("ward")
    for number, acknowledged in enumerate(done["acknowledged"]):
        kept = [record.id for record in history if record.purpose == f"run {number}"]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1
    check_integrity(ledger)


def test_a_journal_that_a_killed_process_left_is_rolled_back_by_whoever_comes_next(ledger, spend):
    spend(ledger)
    done = run("leave_journal", ledger, 2)
    assert done == {"killed": True, "changed": True, "counts": [["1"], ["1"]], "restored": True}
    spend(ledger)
    assert len(ledger.history("ward")) == 2
    check_integrity(ledger)


def test_processes_that_race_to_the_first_write_give_an_old_file_one_chain(from_before):
    done = run("race", from_before, 1000.0, 4, 3)
    assert done["codes"] == [0] * 4
    check = from_before.verify(from_before.head())
    assert (check.n_spends, check.added_since) == (3 + 12, 0)
    assert len(from_before.history("ward")) == 2 + 12
    check_integrity(from_before)
