"""Processes that spend from one ledger at once, or are killed while they spend.

Run as a program, so that what it forks is not a copy of the test runner. One JSON document
comes out. Every process is forked after the imports: a kill then hits a spend.
"""

import json
import os
import random
import select
import signal
import sys
import time

import dp_accounting

from dpfc.accounting.ledger.ledger import BudgetExceeded, PrivacyLedger
from dpfc.accounting.ledger.sqlite_file import writing


def spend(ledger, noise_multiplier, purpose):
    return ledger.spend(
        "ward",
        dp_accounting.GaussianDpEvent(noise_multiplier),
        neighboring_relation="add_or_remove_one",
        purpose=purpose,
    ).id


def fork(work):
    """Start a process that runs `work(write)`; gives its id and the reading end of its pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 1
    try:
        work(lambda line: os.write(writer, line.encode() + b"\n"))
        code = 0
    finally:
        os._exit(code)


def lines_of(reader):
    with os.fdopen(reader) as file:
        return file.read().splitlines()


def journal_of(ledger):
    return ledger.path.with_name(ledger.path.name + "-journal")


def race(ledger, noise_multiplier, n_processes, n_spends):
    """All start at once; each line is the number of a spend, or "exceeded"."""
    gate, opener = os.pipe()

    def work(write):
        os.close(opener)
        os.read(gate, 1)  # ends when nobody can write any more
        for number in range(n_spends):
            try:
                write(str(spend(ledger, noise_multiplier, f"{os.getpid()} {number}")))
            except BudgetExceeded:
                write("exceeded")

    children = [fork(work) for _ in range(n_processes)]
    os.close(opener)
    outcomes = [lines_of(reader) for _, reader in children]
    codes = [os.waitpid(child, 0)[1] for child, _ in children]
    return {"outcomes": outcomes, "codes": codes}


def kill(ledger, noise_multiplier, n_kills, longest):
    """Kill one process after another at a random moment; gives what each acknowledged.

    Every second one has acknowledged a spend before its time runs: on a busy machine too,
    some kills hit a process in the middle of its spends.
    """
    moments = random.Random(0)
    acknowledged, hot_journals = [], 0
    for number in range(n_kills):

        def work(write, purpose=f"run {number}"):
            while True:
                write(str(spend(ledger, noise_multiplier, purpose)))

        child, reader = fork(work)
        if number % 2:
            select.select([reader], [], [])
        time.sleep(moments.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged.append([int(line) for line in lines_of(reader)])
        hot_journals += journal_of(ledger).exists()
        # This process finds whatever the other left.
        kept = {record.id for record in ledger.history("ward") if record.purpose == f"run {number}"}
        missing = set(acknowledged[-1]) - kept
        if missing or len(kept) > len(acknowledged[-1]) + 1:
            raise SystemExit(f"kill {number}: lost {missing}, kept {kept}")
    return {"acknowledged": acknowledged, "hot_journals": hot_journals}


def leave_journal(ledger, n_readers):
    """Kill a process whose change is in the file but not committed; then read in others."""
    before = ledger.path.read_bytes()

    def change(write):
        with writing(ledger.path) as connection:
            connection.execute("PRAGMA cache_size = 2")  # what does not fit is written early
            for _ in range(200):
                connection.execute(
                    "INSERT INTO spends (budget_id, purpose, event, cost, made_at) "
                    "VALUES (1, ?, '{}', '[0.001]', '')",
                    ("x" * 3000,),
                )
            os.kill(os.getpid(), signal.SIGKILL)

    child, _ = fork(change)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    changed = ledger.path.read_bytes() != before and journal_of(ledger).stat().st_size > 0

    def count(write):
        write(str(len(ledger.history("ward"))))

    readers = [fork(count) for _ in range(n_readers)]
    counts = [lines_of(reader) for _, reader in readers]
    for reader, _ in readers:
        os.waitpid(reader, 0)
    restored = ledger.path.read_bytes() == before and not journal_of(ledger).exists()
    return {"killed": killed, "changed": changed, "counts": counts, "restored": restored}


if __name__ == "__main__":
    mode, path, *numbers = sys.argv[1:]
    figures = [json.loads(number) for number in numbers]
    modes = {"race": race, "kill": kill, "leave_journal": leave_journal}
    print(json.dumps(modes[mode](PrivacyLedger(path), *figures)))
