"""The ledger: budgets of data sets, and every spend, in one file that processes share.

A budget belongs to a named data set. Each release is spent from it *before* its noise is
drawn: a process that dies in between leaves a spend without a release, never the reverse.
A spend that does not fit is refused and nothing is drawn.

The guarantee is the budget: all releases of a data set together are (ε, δ)-private, whoever
chose them and however they depend on one another (see `dpfc.accounting.filters`). What was
"spent so far" is bookkeeping; the number that a reader may rely on is the budget's ε.

The name identifies a data set. The ledger never reads data; a fingerprint that the caller has
of it is kept as a keyed hash, so that the same rows under another name are asked about. That
hash comes from private rows: the file itself is not for publishing, statements made of it are.
So it rests on people: two names for one data set are two budgets, and void the claim; so does a
release that was made without the ledger, or an older copy of the file that was put back, unless
a head that was kept elsewhere tells. Records hold no rows and no row counts.

Keep the file on a local disk: SQLite's locks are not reliable on network file systems.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import dp_accounting

from dpfc._support.validation import RELATION, Flag, check, check_int
from dpfc.accounting.filters import make_filter
from dpfc.accounting.ledger.chain import head_of, place_of
from dpfc.accounting.ledger.records import (
    Budget,
    BudgetExceeded,
    LedgerCheck,
    ModelFile,
    Remaining,
    Spend,
    add_fingerprint,
    check_fits,
    check_text,
    cost_of,
    enumerate_budgets,
    find_budget,
    insert_budget,
    now,
    other_names,
    read_budgets,
    reasons_not_private,
    remaining_of,
)
from dpfc.accounting.ledger.spends import (
    find_token,
    insert_spend,
    read_costs,
    read_reasons,
    read_spends,
)
from dpfc.accounting.ledger.sqlite_file import LedgerError, reading, writing
from dpfc.accounting.ledger.units import AUTO, charged_event, resolve_rows_per_unit, rows_charged
from dpfc.accounting.plans import SEEDED

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

__all__ = [
    "Budget",
    "BudgetExceeded",
    "LedgerCheck",
    "LedgerError",
    "ModelFile",
    "PrivacyLedger",
    "Remaining",
    "Spend",
    "reasons_not_private",
]


class PrivacyLedger:
    """Budgets and spends in one file. Safe to use from many processes and threads.

    Parameters
    ----------
    path : str or path-like
        `create_budget` makes the file; nothing else does.
    purpose, made_by : str, optional
        What spends are for, and a public name of who makes them: at most 200 characters each,
        kept with every spend that is made through this object, and shown to readers.
    allow_not_private : bool, default=False
        Let a run with a `random_state` spend. Whoever knows the seed can remove its noise, so
        the budget's claim is void from then on, for all that was released under it.
    fingerprint : str, optional
        What tells these rows from others, such as the one in a feature cache's manifest. A
        hash of it with the ledger's own secret salt is kept with the budget.
    another_budget : bool, default=False
        Let rows whose fingerprint is known under another name spend from this budget too.

    Raises
    ------
    LedgerError
        From every method: when the file is missing, is no ledger, was changed by anything
        but a ledger, or cannot be used. The message says why; nothing was spent then.
    ValueError
        When a parameter is not allowed.

    Notes
    -----
    An estimator's `ledger=` takes the path, or such an object where more is to be said:
    ``ledger=PrivacyLedger("ledger.db", purpose="readmission study", made_by="team A")``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        purpose: str | None = None,
        made_by: str | None = None,
        allow_not_private: bool = False,
        fingerprint: str | None = None,
        another_budget: bool = False,
    ):
        self.path = Path(path).absolute()
        self.purpose = None if purpose is None else check_text("purpose", purpose)
        self.made_by = None if made_by is None else check_text("made_by", made_by)
        self.allow_not_private = check("allow_not_private", allow_not_private, Flag())
        self.fingerprint = None if fingerprint is None else check_text("fingerprint", fingerprint)
        self.another_budget = check("another_budget", another_budget, Flag())

    @classmethod
    def of(cls, ledger: str | os.PathLike[str]) -> PrivacyLedger:
        """Return `ledger` itself where it is one, or the one at that path."""
        return ledger if isinstance(ledger, cls) else cls(ledger)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivacyLedger) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        said = {
            name: value
            for name in ("purpose", "made_by", "allow_not_private", "another_budget")
            if (value := getattr(self, name))
        }
        further = "".join(f", {name}={value!r}" for name, value in said.items())
        return f"PrivacyLedger({str(self.path)!r}{further})"

    def create_budget(
        self,
        dataset: str,
        *,
        epsilon: float,
        delta: float,
        neighboring_relation: str = "add_or_remove_one",
        unit_of_privacy: str = "one row",
        rows_per_unit: int | str | None = AUTO,
        filter: str = "gdp",  # noqa: A002
        another_budget: bool = False,
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
            What is protected: all rows of it together.
        rows_per_unit : int, None or "auto", default="auto"
            Rows that one unit has at most, which must be publicly known. None: any number; then
            spends must cover whole groups. With a number, a spend that covers one row is charged
            as so many: its noise multipliers divided by it, exact for full-batch Gaussian releases
            and searches over them, and refused for samples of rows unless it is 1. "auto": 1 for a
            unit that is a row by its name ("one row", "one record", "one image", "one text", "one
            example", "one sample"), else None.
        filter : {"gdp", "renyi"}, default="gdp"
            "gdp" takes full-batch Gaussian releases and loses nothing; "renyi" also takes
            Poisson sampling (under "add_or_remove_one") and private search.
        another_budget : bool, default=False
            Allow a name that is easily taken for one that has a budget: these are other rows.

        Raises
        ------
        LedgerError
            When the data set has a budget, also under a name that differs only in case,
            spaces or the encoding of a letter; and, without `another_budget`, in punctuation
            or by a slip of one letter.
        ValueError
            When a parameter is outside its interval.
        """
        dataset = check_text("dataset", dataset)
        unit_of_privacy = check_text("unit_of_privacy", unit_of_privacy)
        rows = resolve_rows_per_unit(rows_per_unit, unit_of_privacy)
        check("neighboring_relation", neighboring_relation, RELATION)
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
            rows,
        )
        with writing(self.path, create=True) as connection:
            insert_budget(connection, self.path, budget, another=another_budget)
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
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            return read_spends(connection, self.path, number, budget)

    def remaining(self, dataset: str, *, unit: str = "group") -> Remaining:
        """What one more full-batch fit on `dataset` may have.

        Parameters
        ----------
        dataset : str
        unit : {"group", "row"}, default="group"
            What the fit's noise covers: the budget's unit, or one row, of which a unit may have
            several.

        Raises
        ------
        LedgerError
            Also for a row where a unit may have any number of them.
        """
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            costs = read_costs(connection, self.path, number, budget)
            reasons = read_reasons(connection, self.path, number)
        return remaining_of(budget, costs, reasons, rows=rows_charged(budget, unit))

    def other_names(self, dataset: str) -> list[str]:
        """Names of other budgets that rows of this ledger's `fingerprint` have spent from.

        Empty without a fingerprint, and where the rows are known to spend from `dataset`.
        """
        if self.fingerprint is None:
            return []
        with reading(self.path) as connection:
            number, _ = find_budget(connection, self.path, dataset)
            return other_names(connection, number, self.fingerprint)

    def find_spend(self, dataset: str, token: str) -> Spend | None:
        """Look up the spend on `dataset` that was made under `token`; None if there is none."""
        token = check_text("token", token)
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            if find_token(connection, number, token) is None:
                return None
            spends = read_spends(connection, self.path, number, budget)
        return next(spend for spend in spends if spend.token == token)

    def check_spend(
        self,
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        neighboring_relation: str,
        purpose: str,
        token: str | None = None,
        seeded: bool = False,
        unit: str = "row",
    ) -> Budget:
        """Raise what `spend` would raise now; records nothing."""
        check_text("purpose", purpose)
        self._check_seed(dataset, seeded)
        with reading(self.path) as connection:
            number, budget = find_budget(connection, self.path, dataset)
            self._check_new(connection, number, budget, token)
            costs = read_costs(connection, self.path, number, budget)
        cost = cost_of(budget, charged_event(budget, event, unit), neighboring_relation)
        check_fits(budget, costs, cost, rows=rows_charged(budget, unit))
        return budget

    def spend(
        self,
        dataset: str,
        event: dp_accounting.DpEvent,
        *,
        neighboring_relation: str,
        purpose: str,
        token: str | None = None,
        seeded: bool = False,
        unit: str = "row",
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
        token : str, optional
            What this spend is found by later, with `find_spend`; new to the budget.
        seeded : bool, default=False
            Whether the noise will come from a seed that somebody may know.
        unit : {"row", "group"}, default="row"
            What the event's noise multipliers are for: one row, or all rows of a group. One row is
            charged as the budget's `rows_per_unit` rows; what is recorded is that event.

        Raises
        ------
        BudgetExceeded
            When it does not fit into what is left. Nothing is recorded; release nothing.
        LedgerError
            Also when the relation is not the budget's, the budget's unit may have many rows and
            `unit` is "row", its filter cannot bound `event`, the token was used, `seeded` without
            `allow_not_private`, or the rows' fingerprint belongs to another budget.
        """
        purpose = check_text("purpose", purpose)
        self._check_seed(dataset, seeded)
        # Bounding an event may take a second: not while others wait. A budget never changes.
        budget = self.budget(dataset)
        rows, event = rows_charged(budget, unit), charged_event(budget, event, unit)
        cost = cost_of(budget, event, neighboring_relation)
        spent = {"purpose": purpose, "made_at": now()}
        details = {
            "token": token,
            "stated_purpose": self.purpose,
            "made_by": self.made_by,
            "not_private": SEEDED if seeded else None,
        }
        with writing(self.path) as connection:
            number, found = find_budget(connection, self.path, dataset)
            if found != budget:
                raise LedgerError(
                    f"ledger {self.path} was replaced by another file; nothing was spent."
                )
            self._check_new(connection, number, budget, token)
            costs = read_costs(connection, self.path, number, budget)
            check_fits(budget, costs, cost, rows=rows)
            if self.fingerprint is not None:
                add_fingerprint(connection, number, self.fingerprint)
            spend_id = insert_spend(connection, number, event, cost, spent, details)
        share = budget.filter.shares([*costs, cost])[-1]
        return Spend(
            spend_id,
            budget.dataset,
            purpose,
            event,
            spent["made_at"],
            share,
            None,
            stated_purpose=self.purpose,
            made_by=self.made_by,
            token=token,
            not_private=details["not_private"],
        )

    def _check_seed(self, dataset: str, seeded: bool) -> None:
        if seeded and not self.allow_not_private:
            raise LedgerError(
                f"random_state makes a spend that is not private: it would void the claim of "
                f"all that is released under the budget of {dataset!r}. Leave random_state out, "
                "or say ledger=PrivacyLedger(…, allow_not_private=True). Nothing was spent."
            )

    def _check_new(
        self, connection: sqlite3.Connection, number: int, budget: Budget, token: str | None
    ) -> None:
        """Refuse a token that was used, and rows that are known under another name."""
        if token is not None:
            used = find_token(connection, number, check_text("token", token))
            if used is not None:
                raise LedgerError(
                    f"spend {used} of ledger {self.path} was made under this token: it has paid."
                )
        if self.fingerprint is None or self.another_budget:
            return
        others = other_names(connection, number, self.fingerprint)
        if others:
            raise LedgerError(
                f"these rows have spent from the budget of {' and '.join(map(repr, others))} in "
                f"ledger {self.path}: did you mean that, instead of {budget.dataset!r}? A second "
                "budget for the same rows voids the claim of both. If that is meant, say "
                "ledger=PrivacyLedger(…, another_budget=True). Nothing was spent."
            )

    def attach_statement(self, spend_id: int, statement: PrivacyStatement) -> None:
        """Keep what ran beside what was paid for; once for each spend.

        Raises
        ------
        LedgerError
            When there is no such spend, or it has a statement.
        """
        spend_id = check_int("spend_id", spend_id, 1)
        with writing(self.path) as connection:
            self._check_unfiled(connection, spend_id, "statements", "statement")
            # No time is kept: beside the spend's, it would tell how many runs a search made.
            connection.execute(
                "INSERT INTO statements (spend_id, statement) VALUES (?, ?)",
                (spend_id, statement.to_json(indent=None)),
            )

    def attach_model(self, spend_id: int, name: str, sha256: str) -> None:
        """Keep which file was written of what a spend paid for; once for each spend.

        Parameters
        ----------
        spend_id : int
        name : str
            The file's name, of at most 200 characters; shown to readers.
        sha256 : str
            Of its bytes, 64 hexadecimal digits.

        Raises
        ------
        LedgerError
            When there is no such spend, or it has a model.
        """
        spend_id, name = check_int("spend_id", spend_id, 1), check_text("name", name)
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {sha256!r}.")
        with writing(self.path) as connection:
            self._check_unfiled(connection, spend_id, "models", "model")
            connection.execute("INSERT INTO models VALUES (?, ?, ?)", (spend_id, name, sha256))

    def head(self) -> str | None:
        """Hash of the last record; None for a file that no version with a chain wrote to.

        Keep it where nobody who writes the ledger can change it: `verify` with it later shows
        that nothing of what it covers was changed or removed, not even with all hashes made
        anew or an older copy put back.
        """
        with reading(self.path) as connection:
            return head_of(connection)

    def verify(self, head: str | None = None) -> LedgerCheck:
        """Read everything, and compute again what can be.

        Parameters
        ----------
        head : str, optional
            What `head` returned earlier.

        Returns
        -------
        LedgerCheck

        Raises
        ------
        LedgerError
            When anything is not as a ledger wrote it, the spends do not fit their budget, or
            `head` was never this ledger's.
        """
        with reading(self.path) as connection:
            for number, budget in enumerate_budgets(connection, self.path):
                read_spends(connection, self.path, number, budget)
                costs = read_costs(connection, self.path, number, budget)
                if not budget.filter.accepts_costs(costs):
                    raise LedgerError(
                        f"ledger {self.path} is damaged: what was spent on "
                        f"{budget.dataset!r} does not fit into its budget."
                    )
            (n_budgets,), (n_spends,) = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                for table in ("budgets", "spends")
            )
            added = None if head is None else place_of(connection, head)
            if head is not None and added is None:
                raise LedgerError(
                    f"ledger {self.path} never had the head {head}: it is another ledger, an "
                    "older copy, or was written anew."
                )
            return LedgerCheck(n_budgets, n_spends, head_of(connection), added)

    def _check_unfiled(
        self, connection: sqlite3.Connection, spend_id: int, table: str, what: str
    ) -> None:
        for name, key, wanted in (("spends", "id", True), (table, "spend_id", False)):
            query = f"SELECT 1 FROM {name} WHERE {key} = ?"
            if bool(connection.execute(query, (spend_id,)).fetchone()) != wanted:
                problem = "there is no such spend" if wanted else f"it has a {what} already"
                raise LedgerError(
                    f"no {what} can be attached to spend {spend_id} of ledger "
                    f"{self.path}: {problem}."
                )
