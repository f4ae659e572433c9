"""What the ledger's rows hold, and how they are written and read."""

from __future__ import annotations

import hmac
import json
import math
import sqlite3
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc._support.notebook_tables import NotebookTable
from dpfc._support.validation import RELATION, check, check_float
from dpfc.accounting.events import UnsupportedEventError
from dpfc.accounting.filters import Cost, PrivacyFilter, filter_from_json, make_filter
from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
from dpfc.accounting.ledger.names import dataset_key, easily_taken_for, similar_names
from dpfc.accounting.ledger.sqlite_file import LedgerError, damage_named
from dpfc.accounting.ledger.units import check_rows

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import PrivacyStatement

_MAX_TEXT = 200
_DIGITS = 6
# Relative, of delta: far above the rounding of another machine, far below what matters. A
# filter that allows less keeps the promise, but no ledger makes one that allows much less.
_FILTER_TOLERANCE = 1e-6
# Far above the rounding of a division.
_DIVIDED = 1e-12
_FILTER_SLACK = 1e-2


class BudgetExceeded(LedgerError):  # noqa: N818
    """A spend does not fit into what is left; it was not recorded, and nothing was drawn."""


@dataclass(frozen=True)
class Budget(NotebookTable):
    """What all releases of one data set may add up to.

    Attributes
    ----------
    dataset : str
    epsilon : float in (0, inf)
    delta : float in (0, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    unit_of_privacy : str
        What is protected, such as "one patient".
    created_at : str
        ISO 8601, UTC.
    filter : PrivacyFilter
        The rule that accepts or refuses spends, fixed when the budget was created.
    rows_per_unit : int or None
        Rows that one unit has at most, which is publicly known; None for any number: spends must
        cover all rows of a group then.
    rows_were_stated : bool
        False for a budget of a version that did not ask, whose unit is taken to be one row.
    """

    dataset: str
    epsilon: float
    delta: float
    neighboring_relation: str
    unit_of_privacy: str
    created_at: str
    filter: PrivacyFilter
    rows_per_unit: int | None = 1
    rows_were_stated: bool = True


@dataclass(frozen=True)
class ModelFile(NotebookTable):
    """A file that a spend paid for: its name, and the SHA-256 of its bytes in hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Spend(NotebookTable):
    """One record of the ledger.

    Attributes
    ----------
    id : int
        Unique in the ledger, rising.
    dataset : str
    purpose : str
        What it was spent on, in words that the code supplies.
    event : DpEvent
        What was paid for.
    made_at : str
        ISO 8601, UTC.
    share_of_budget : float in [0, 1]
        Of μ² under a gdp filter; of the Renyi budget, at the order with the most left, under
        a renyi filter. Bookkeeping, not a claim.
    statement : PrivacyStatement or None
        What ran; None for a process that ended before, whose spend counts all the same.
    stated_purpose, made_by : str or None
        What it was for and who made it, in the words of whoever spent.
    token : str or None
        What the fit that paid is known by; unique in the budget.
    not_private : str or None
        Why what it paid for is not private, as known before its noise was drawn.
    model : ModelFile or None
        The file that was written of it.
    """

    id: int
    dataset: str
    purpose: str
    event: dp_accounting.DpEvent
    made_at: str
    share_of_budget: float
    statement: PrivacyStatement | None
    stated_purpose: str | None = None
    made_by: str | None = None
    token: str | None = None
    not_private: str | None = None
    model: ModelFile | None = None

    @property
    def reasons_not_private(self) -> list[str]:
        """Why this spend voids the budget's claim; empty when it does not."""
        said = [] if self.statement is None else list(self.statement.reasons_not_private)
        return said or ([] if self.not_private is None else [self.not_private])


@dataclass(frozen=True)
class Remaining(NotebookTable):
    """What is left of a budget. Bookkeeping: the guarantee is the budget itself.

    Attributes
    ----------
    spent_share : float in [0, 1]
    mu : float in [0, inf)
        Largest 1/z of one more full-batch Gaussian spend; 0 when exhausted.
    epsilon : float in [0, inf)
        The same as an epsilon at the budget's delta, rounded down: one more full-batch fit
        with exactly this target is accepted. 0 when exhausted.
    reasons_not_private : tuple of str
        Spends that void the claim of the whole budget, and why; empty when none does.
    """

    spent_share: float
    mu: float
    epsilon: float
    reasons_not_private: tuple[str, ...] = ()

    @property
    def epsilon_text(self) -> str:
        """Epsilon in six digits, never more than it is: a fit with this number is accepted."""
        context = Context(prec=_DIGITS, rounding=ROUND_FLOOR)
        return f"{context.create_decimal_from_float(self.epsilon).normalize(context)}"


@dataclass(frozen=True)
class LedgerCheck(NotebookTable):
    """What `PrivacyLedger.verify` found in a ledger that is as it was written.

    Attributes
    ----------
    n_budgets, n_spends : int
    head : str or None
        Hash of the last record; None for a file that no version with a chain wrote to.
    added_since : int or None
        Records after the head that was given; None when none was.
    """

    n_budgets: int
    n_spends: int
    head: str | None
    added_since: int | None


def reasons_not_private(spends: Sequence[Spend]) -> list[str]:
    """Why the claim of a budget is void, spend by spend; empty when it is not."""
    return [
        f"spend {spend.id} ({spend.purpose}): {reason}"
        for spend in spends
        for reason in spend.reasons_not_private
    ]


def check_text(name: str, value: object) -> str:
    """Return a short text for people, trimmed and in one encoding of its letters.

    Raises
    ------
    ValueError
        When it is empty, too long, or holds a character that is not seen.
    """
    if isinstance(value, str):
        # One letter may be written in two ways: "é", or "e" and an accent.
        text = unicodedata.normalize("NFC", value).strip()
        if 0 < len(text) <= _MAX_TEXT and text.isprintable():
            return text
    raise ValueError(
        f"{name} must be a text of 1 to {_MAX_TEXT} printable characters, got {value!r}."
    )


def now() -> str:
    """Return this moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def remaining_of(
    budget: Budget,
    costs: Sequence[Cost],
    reasons_not_private: Sequence[str] = (),
    *,
    rows: int = 1,
) -> Remaining:
    """What is left of `budget` after spends of `costs`, for one charged as so many rows."""
    spent = min(1.0, math.fsum(budget.filter.shares(costs)))
    mu = budget.filter.remaining_mu(costs) / rows
    # Each release's noise multiplier is divided by the rows, and rounded.
    mu *= 1.0 if rows == 1 else 1.0 - _DIVIDED
    epsilon = gaussian_epsilon(mu, budget.delta) if mu > 0 else 0.0
    step = 1e-12
    # Until a fit that is calibrated to this epsilon fits as well.
    while epsilon > 0 and not budget.filter.accepts_mu(
        rows * gaussian_mu(epsilon, budget.delta), costs
    ):
        epsilon = epsilon * (1 - step) if step < 1 else 0.0
        step *= 2
    return Remaining(spent, mu, epsilon, tuple(reasons_not_private))


_SELECT_BUDGETS = (
    "SELECT id, dataset, epsilon, delta, neighboring_relation, unit_of_privacy, filter, "
    "created_at, budget_id, rows_per_unit FROM budgets LEFT JOIN units ON budget_id = id"
)


def insert_budget(
    connection: sqlite3.Connection, path: Path, budget: Budget, *, another: bool
) -> None:
    """Add a budget, unless its data set has one under this name or a twin of it.

    A name that is one slip away from another's is refused too, unless `another` is meant.
    """
    key = dataset_key(budget.dataset)
    query = "SELECT dataset FROM budgets WHERE dataset_key = ?"
    found = connection.execute(query, (key,)).fetchone()
    if found:
        raise LedgerError(
            f"ledger {path} has a budget for {found[0]!r}, and a budget is fixed when it is "
            "created. Another name for the same data would void its claim."
        )
    names = [name for (name,) in connection.execute("SELECT dataset FROM budgets ORDER BY id")]
    near = next((name for name in names if easily_taken_for(budget.dataset, name)), None)
    if near is not None and not another:
        raise LedgerError(
            f"ledger {path} has a budget for {near!r}: did you mean that, instead of "
            f"{budget.dataset!r}? A second name for the same rows would void the claim of both. "
            "For other rows, say another_budget=True."
        )
    number = connection.execute(
        "INSERT INTO budgets (dataset, dataset_key, epsilon, delta, neighboring_relation, "
        "unit_of_privacy, filter, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            budget.dataset,
            key,
            budget.epsilon,
            budget.delta,
            budget.neighboring_relation,
            budget.unit_of_privacy,
            json.dumps(budget.filter.to_json(), allow_nan=False),
            budget.created_at,
        ),
    ).lastrowid
    connection.execute("INSERT INTO units VALUES (?, ?)", (number, budget.rows_per_unit))


def find_budget(connection: sqlite3.Connection, path: Path, dataset: str) -> tuple[int, Budget]:
    """Row number and budget of `dataset`."""
    dataset = check_text("dataset", dataset)
    row = connection.execute(f"{_SELECT_BUDGETS} WHERE dataset = ?", (dataset,)).fetchone()
    if row is None:
        names = [name for (name,) in connection.execute("SELECT dataset FROM budgets")]
        raise LedgerError(
            f"ledger {path} has no budget for {dataset!r}."
            + (similar_names(dataset, names) or " Make one with: dpfc budget create")
        )
    return row[0], _budget_of(path, row)


def enumerate_budgets(connection: sqlite3.Connection, path: Path) -> list[tuple[int, Budget]]:
    """Row number and budget of each, in the order of creation."""
    rows = connection.execute(f"{_SELECT_BUDGETS} ORDER BY id").fetchall()
    return [(row[0], _budget_of(path, row)) for row in rows]


def read_budgets(connection: sqlite3.Connection, path: Path) -> list[Budget]:
    """Every budget, in the order of creation."""
    return [budget for _, budget in enumerate_budgets(connection, path)]


def add_fingerprint(connection: sqlite3.Connection, number: int, fingerprint: str) -> None:
    """Remember that rows of `fingerprint` spend from budget `number`."""
    digest = _digest(connection, fingerprint)
    query = "SELECT 1 FROM fingerprints WHERE budget_id = ? AND digest = ?"
    if connection.execute(query, (number, digest)).fetchone() is None:
        connection.execute(
            "INSERT INTO fingerprints (budget_id, digest) VALUES (?, ?)", (number, digest)
        )


def other_names(connection: sqlite3.Connection, number: int, fingerprint: str) -> list[str]:
    """Names of other budgets that rows of `fingerprint` have spent from.

    Empty too where the rows are known to spend from budget `number`: that was decided once.
    """
    query = (
        "SELECT budgets.id, dataset FROM fingerprints JOIN budgets ON budgets.id = budget_id "
        "WHERE digest = ? ORDER BY budgets.id"
    )
    known = connection.execute(query, (_digest(connection, fingerprint),)).fetchall()
    if any(other == number for other, _ in known):
        return []
    return [name for _, name in known]


def _digest(connection: sqlite3.Connection, fingerprint: str) -> str:
    """Hash a fingerprint with the ledger's salt: two ledgers cannot be compared by it."""
    row = connection.execute("SELECT salt FROM origins").fetchone()
    salt = "" if row is None else str(row[0])
    return hmac.new(salt.encode(), fingerprint.encode(), "sha256").hexdigest()


def _budget_of(path: Path, row: Sequence[Any]) -> Budget:
    _, dataset, epsilon, delta, relation, unit, rule, created_at, stated, rows = row
    with damage_named(path, f"the budget of {dataset!r}"):
        parsed = filter_from_json(json.loads(rule), relation)
        epsilon = check_float("epsilon", epsilon, 0, math.inf)
        delta = check_float("delta", delta, 0, 1)
        # SQLite has no checksums: a changed digit would go unseen, and the filter decides.
        if parsed.delta(epsilon) > delta * (1 + _FILTER_TOLERANCE):
            raise ValueError("its filter allows more than its epsilon and delta.")
        if parsed.delta(epsilon) < delta * (1 - _FILTER_SLACK):
            raise ValueError("its filter allows less than its epsilon and delta.")
        rows = (None if rows is None else check_rows(rows)) if stated is not None else 1
    about = (dataset, epsilon, delta, relation, unit, created_at, parsed)
    return Budget(*about, rows_per_unit=rows, rows_were_stated=stated is not None)


def cost_of(budget: Budget, event: dp_accounting.DpEvent, neighboring_relation: str) -> Cost:
    """What `event` would add, if the budget's filter and relation admit it at all."""
    check("neighboring_relation", neighboring_relation, RELATION)
    if neighboring_relation != budget.neighboring_relation:
        raise LedgerError(
            f"the budget of {budget.dataset!r} is for neighboring_relation="
            f"{budget.neighboring_relation!r}, and this spend is for {neighboring_relation!r}: "
            "use the budget's."
        )
    try:
        return budget.filter.cost(event)
    except UnsupportedEventError as error:
        raise LedgerError(
            f"the {budget.filter.kind} filter of {budget.dataset!r} cannot take this spend: "
            f"{error}{_ways_out(budget, event)}"
        ) from error


def _ways_out(budget: Budget, event: dp_accounting.DpEvent) -> str:
    """Say what a budget's filter would take in the place of `event`, and which filter takes it."""
    other = make_filter(
        "renyi",
        epsilon=budget.epsilon,
        delta=budget.delta,
        neighboring_relation=budget.neighboring_relation,
    )
    ways = ""
    if _holds(event, RepeatAndSelectDpEvent):
        ways = " This one takes a search with strategy='composition'."
    elif _holds(event, dp_accounting.PoissonSampledDpEvent):
        ways = " This one takes steps over all rows: sampling_probability=1."
    try:
        other.cost(event)
    except UnsupportedEventError:
        return ways
    return (
        f"{ways} A renyi filter takes this spend as it is, and is chosen when a budget is created: "
        "if nothing was spent from this one yet, make another ledger in its place with "
        "dpfc budget create … --filter renyi."
    )


def _holds(event: dp_accounting.DpEvent, kind: type[dp_accounting.DpEvent]) -> bool:
    """Whether an event is, or is made of, one of a kind."""
    parts = [*getattr(event, "events", ()), *filter(None, [getattr(event, "event", None)])]
    return isinstance(event, kind) or any(_holds(part, kind) for part in parts)


def check_fits(budget: Budget, costs: Sequence[Cost], cost: Cost, *, rows: int = 1) -> None:
    """Raise BudgetExceeded unless `cost`, charged as so many rows, fits after `costs`."""
    if budget.filter.accepts_costs([*costs, cost]):
        return
    promise = f"ε = {budget.epsilon:g} at δ = {budget.delta:g}"
    if not any(math.isfinite(number) for number in cost):
        raise BudgetExceeded(
            f"no budget holds this spend on {budget.dataset!r} ({promise}): it has a release "
            "without noise, or with too little for its filter to bound. Nothing was spent."
        )
    left = remaining_of(budget, costs, rows=rows)
    raise BudgetExceeded(
        f"this spend does not fit into the budget of {budget.dataset!r} ({promise}), of which "
        f"{left.spent_share:.1%} is spent; one more full-batch fit may have at most ε = "
        f"{left.epsilon_text}. Nothing was spent."
    )
