"""One spend that a mechanism makes just before its first draw."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import dp_accounting

from dpfc.accounting.events import event_to_json
from dpfc.accounting.ledger.ledger import LedgerError, PrivacyLedger
from dpfc.accounting.ledger.units import charged_event

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

__all__ = ["Charge"]


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
    token : str, optional
        What the spend is found by later: `PrivacyLedger.find_spend`.
    seeded : bool, default=False
        Whether the noise will come from a seed that somebody may know.
    paid : int, optional
        The spend that a process made which was stopped before it had drawn everything; this
        one goes on, and pays nothing.
    unit : {"row", "group"}, default="row"
        What the event's noise multipliers are for; see `PrivacyLedger.spend`.
    drawn : bool, default=False
        Whether that process had drawn everything; `paid` may have its statement then.

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
        token: str | None = None,
        seeded: bool = False,
        paid: int | None = None,
        drawn: bool = False,
        unit: str = "row",
    ):
        self._ledger = PrivacyLedger.of(ledger)
        self._event = event
        self._purpose = purpose
        self._token = token
        self._seeded = seeded
        self._paid: tuple[int, int] | None = None  # the process that paid, and its spend
        self._drawn = drawn
        self._unit = unit
        if paid is None:
            self.budget = self._ledger.check_spend(
                dataset,
                event,
                neighboring_relation=neighboring_relation,
                purpose=purpose,
                token=token,
                seeded=seeded,
                unit=unit,
            )
        else:
            self.budget = self._ledger.budget(dataset)
            self._check_paid(paid)
            self._paid = (os.getpid(), paid)

    @property
    def unit_of_privacy(self) -> str:
        """What the spend's own noise covers: the budget's unit, or a row where that has several."""
        several = self._unit == "row" and self.budget.rows_per_unit != 1
        return "one row" if several else self.budget.unit_of_privacy

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
                token=self._token,
                seeded=self._seeded,
                unit=self._unit,
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
        if self._drawn and self._filed():
            return
        self._ledger.attach_statement(self.spend_id, statement)

    def check_unfiled(self) -> None:
        """Refuse a spend whose statement another process filed; one that cannot be read passes.

        Raises
        ------
        LedgerError
        """
        filed = False
        with suppress(LedgerError):
            filed = self._filed()
        if filed and not self._drawn:
            raise LedgerError(
                f"another process went on with spend {self.spend_id} of ledger "
                f"{self._ledger.path} and completed it: what this one drew was not paid for, and "
                "is dropped."
            )

    def _filed(self) -> bool:
        spends = self._ledger.history(self.budget.dataset)
        return any(s.id == self.spend_id and s.statement is not None for s in spends)

    def _check_paid(self, spend_id: int) -> None:
        text = event_to_json(charged_event(self.budget, self._event, self._unit))
        for spend in self._ledger.history(self.budget.dataset):
            same = spend.purpose == self._purpose and event_to_json(spend.event) == text
            if spend.id == spend_id and same and (self._drawn or spend.statement is None):
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
