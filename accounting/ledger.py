"""The ledger: budgets of data sets, and every spend, in one file that processes share.

A budget belongs to a named data set. Each release is spent from it *before* its noise is
drawn: a process that dies in between leaves a spend without a release, never the reverse.
A spend that does not fit is refused and nothing is drawn.

The guarantee is the budget: all releases of a data set together are (ε, δ)-private, whoever
chose them and however they depend on one another (see `dpfc.accounting.filters`). What was
"spent so far" is bookkeeping; the number that a reader may rely on is the budget's ε.

The name is all that identifies a data set. The ledger never reads or hashes data: a hash of
private rows is itself a release. So it rests on people: two names for one data set are two
budgets, and void the claim; so does restoring an old copy of the file, or a release that was
made without the ledger. Records hold no private information, and no row counts.

Keep the file on a local disk: SQLite's locks are not reliable on network file systems.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dp_accounting

from dpfc.accounting._checks import NEIGHBORING_RELATIONS, check_choice, check_int
from dpfc.accounting._ledger_file import LedgerError, reading, writing
from dpfc.accounting._ledger_records import (
    Budget,
    BudgetExceeded,
    Remaining,
    Spend,
    check_fits,
    check_text,
    cost_of,
    cost_to_json,
    damage_named,
    find_budget,
    insert_budget,
    now,
    read_budgets,
    read_costs,
    remaining_of,
)
from dpfc.accounting.event_json import event_from_json, event_to_json
from dpfc.accounting.filters import make_filter

if TYPE_CHECKING:
    from dpfc.accounting.statements import PrivacyStatement

__all__ = [
    "Budget",
    "BudgetExceeded",
    "Charge",
    "LedgerError",
    "PrivacyLedger",
    "Remaining",
    "Spend",
]


class PrivacyLedger:
    """Budgets and spends in one file. Safe to use from many processes and threads.

    Parameters
    ----------
    path : str or path-like
        `create_budget` makes the file; nothing else does.

    Raises
    ------
    LedgerError
        From every method: when the file is missing, is no ledger, or cannot be used. The
        message says why; nothing was spent then.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"PrivacyLedger({str(self.path)!r})"

    def create_budget(
        self,
        dataset: str,
        *,
        epsilon: float,
        delta: float,
        neighboring_relation: str = "add_or_remove_one",
        unit_of_privacy: str = "one row",
        filter: str = "gdp",  # noqa: A002
    ) -> Budget:
        """Fix the budget of a data set, for good.

        Parameters
        ----------
        dataset : str
            A name of at most 200 characters for this data set, and no other. It is the only
            thing that identifies the data.
        epsilon : float in (0, inf)
        delta : float in (1e-100, 1)
        neighboring_relation : {"add_or_remove_one", "replace_one"}
        unit_of_privacy : str, default="one row"
        filter : {"gdp", "renyi"}, default="gdp"
            "gdp" takes full-batch Gaussian releases and loses nothing; "renyi" also takes
            Poisson sampling (under "add_or_remove_one") and private search.

        Raises
        ------
        LedgerError
            When the data set has a budget, also under a name that differs only in case,
            spaces or the encoding of a letter.
        ValueError
            When a parameter is outside its interval.
        """
        dataset = check_text("dataset", dataset)
        unit_of_privacy = check_text("unit_of_privacy", unit_of_privacy)
        check_choice("neighboring_relation", neighboring_relation, NEIGHBORING_RELATIONS)
        rule = make_filter(
            filter, epsilon=epsilon, delta=delta, neighboring_relation=neighboring_relation
        )
        budget = Budget(
            dataset,
            float(epsilon),
            float(delta),
            neighboring_relation,
            unit_of_privacy,
            now(),
            rule,
        )
        with writing(self.path, create=True) as connection:
            insert_budget(connection, self.path, budget)
        return budget

    def budgets(self) -> list[Budget]:
        """Every budget, in the order of creation."""
        with reading(self.path) as connection:
            return read_budgets(connection, self.path)

    def budget(self, dataset: str) -> Budget:
        """Look the budget of `dataset` up.

        Raises
        ------
        LedgerError
            When there is none; the message names those with a similar name.
        """
        with reading(self.path) as connection:
            return find_budget(connection, self.path, dataset)[1]

    def history(self, dataset: str) -> list[Spend]:
        """Every spend of `dataset`, oldest first, with what is known to have run."""
        from dpfc.accounting.statements import PrivacyStatement

        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            costs = read_costs(connection, self.path, number, budget)
            rows = connection.execute(
                "SELECT spends.id, purpose, event, made_at, statement FROM spends "
                "LEFT JOIN statements ON spend_id = spends.id WHERE budget_id = ? "
                "ORDER BY spends.id",
                (number,),
            ).fetchall()
        spends = []
        for row, share in zip(rows, budget.filter.shares(costs), strict=True):
            spend_id, purpose, event, made_at, text = row
            with damage_named(self.path, f"spend {spend_id}"):
                statement = None if text is None else PrivacyStatement.from_json(text)
                paid = event_from_json(json.loads(event))
            spends.append(Spend(spend_id, budget.dataset, purpose, paid, made_at, share, statement))
        return spends

    def remaining(self, dataset: str) -> Remaining:
        """What one more full-batch fit on `dataset` may have."""
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            costs = read_costs(connection, self.path, number, budget)
        return remaining_of(budget, costs)

    def check_spend(
        self,
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        neighboring_relation: str,
        purpose: str,
    ) -> Budget:
        """Raise what `spend` would raise now; records nothing."""
        check_text("purpose", purpose)
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            costs = read_costs(connection, self.path, number, budget)
        cost = cost_of(budget, event, neighboring_relation)
        check_fits(budget, costs, cost)
        return budget

    def spend(
        self,
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        neighboring_relation: str,
        purpose: str,
    ) -> Spend:
        """Pay for `event`; call it before any of its noise is drawn.

        When this returns, the spend is on disk and survives a crash of the process or the
        machine. Processes that spend at once wait for one another.

        Parameters
        ----------
        dataset : str
        event : DpEvent
            Everything that is about to be released.
        neighboring_relation : {"add_or_remove_one", "replace_one"}
            What the event's noise multipliers are for; must be the budget's.
        purpose : str
            In words, supplied by code, without anything private: "fit DPFCClassifier".

        Raises
        ------
        BudgetExceeded
            When it does not fit into what is left. Nothing is recorded; release nothing.
        LedgerError
            Also when the relation is not the budget's, or its filter cannot bound `event`.
        """
        purpose = check_text("purpose", purpose)
        # Bounding an event may take a second: not while others wait. A budget never changes.
        budget = self.budget(dataset)
        cost = cost_of(budget, event, neighboring_relation)
        text = json.dumps(event_to_json(event), allow_nan=False)
        made_at = now()
        with writing(self.path) as connection:
            number, found = find_budget(connection, self.path, dataset)
            if found != budget:
                raise LedgerError(
                    f"ledger {self.path} was replaced by another file; nothing was spent."
                )
            costs = read_costs(connection, self.path, number, budget)
            check_fits(budget, costs, cost)
            spend_id = connection.execute(
                "INSERT INTO spends (budget_id, purpose, event, cost, made_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (number, purpose, text, cost_to_json(cost), made_at),
            ).lastrowid
        assert spend_id is not None
        share = budget.filter.shares([*costs, cost])[-1]
        return Spend(spend_id, budget.dataset, purpose, event, made_at, share, None)

    def attach_statement(self, spend_id: int, statement: PrivacyStatement) -> None:
        """Keep what ran beside what was paid for; once for each spend.

        Raises
        ------
        LedgerError
            When there is no such spend, or it has a statement.
        """
        spend_id = check_int("spend_id", spend_id, 1)
        with writing(self.path) as connection:
            for table, key, wanted in (("spends", "id", True), ("statements", "spend_id", False)):
                query = f"SELECT 1 FROM {table} WHERE {key} = ?"
                if bool(connection.execute(query, (spend_id,)).fetchone()) != wanted:
                    problem = "there is no such spend" if wanted else "it has a statement already"
                    raise LedgerError(
                        f"no statement can be attached to spend {spend_id} of ledger "
                        f"{self.path}: {problem}."
                    )
            # No time is kept: beside the spend's, it would tell how many runs a search made.
            connection.execute(
                "INSERT INTO statements (spend_id, statement) VALUES (?, ?)",
                (spend_id, statement.to_json(indent=None)),
            )


class Charge:
    """One spend that a mechanism makes just before its first draw.

    Everything is checked when it is made, before any private row is read: the budget exists,
    the relation is its own, its filter can bound the event, and the event would fit now.

    A copy, by pickle or `copy`, or in a forked process, has not paid: it pays for itself.

    Parameters
    ----------
    ledger : str or path-like
    dataset : str
    event : DpEvent
        Everything that is about to be released.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    purpose : str
        In words, supplied by code, without anything private.
    paid : int, optional
        The spend that a process made which was stopped before it had drawn everything; this
        one goes on, and pays nothing.

    Attributes
    ----------
    budget : Budget

    Raises
    ------
    BudgetExceeded, LedgerError
        As in `PrivacyLedger.spend`; nothing is recorded. Also where `paid` is no spend on this
        event, or one that is complete.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str],
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        neighboring_relation: str,
        purpose: str,
        paid: int | None = None,
    ):
        self._ledger = PrivacyLedger(ledger)
        self._event = event
        self._purpose = purpose
        self._paid: tuple[int, int] | None = None  # the process that paid, and its spend
        if paid is None:
            self.budget = self._ledger.check_spend(
                dataset, event, neighboring_relation=neighboring_relation, purpose=purpose
            )
        else:
            self.budget = self._ledger.budget(dataset)
            self._check_paid(paid)
            self._paid = (os.getpid(), paid)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_paid": None}

    def commit(self) -> None:
        """Pay, durably; does nothing when this process has paid.

        Raises
        ------
        BudgetExceeded, LedgerError
            When another process was faster, or the ledger cannot be written. Draw nothing.
        """
        if self.spend_id is None:
            spend = self._ledger.spend(
                self.budget.dataset,
                self._event,
                neighboring_relation=self.budget.neighboring_relation,
                purpose=self._purpose,
            )
            self._paid = (os.getpid(), spend.id)

    def complete(self, statement: PrivacyStatement) -> None:
        """File what ran beside the spend.

        Raises
        ------
        RuntimeError
            When this process has not paid.
        LedgerError
            When the ledger cannot be written, or this was done before.
        """
        if self.spend_id is None:
            raise RuntimeError("a charge is completed after it was committed.")
        self._ledger.attach_statement(self.spend_id, statement)

    def _check_paid(self, spend_id: int) -> None:
        text = event_to_json(self._event)
        for spend in self._ledger.history(self.budget.dataset):
            same = spend.purpose == self._purpose and event_to_json(spend.event) == text
            if spend.id == spend_id and same and spend.statement is None:
                return
        raise LedgerError(
            f"spend {spend_id} of ledger {self._ledger.path} does not pay for this: there is no "
            "such spend, it was for something else, or what it paid for is complete."
        )

    @property
    def spend_id(self) -> int | None:
        """Number of the spend in the ledger, once this process has paid."""
        if self._paid is None or self._paid[0] != os.getpid():
            return None
        return self._paid[1]
