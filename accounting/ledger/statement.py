"""The statement of a ledger: the budget of one data set, and every spend from it."""

from __future__ import annotations

import dp_accounting

from dpfc.accounting.accountants import ACCOUNTANTS, epsilon_by_accountant
from dpfc.accounting.events import event_mu, event_to_json
from dpfc.accounting.ledger.ledger import Budget, PrivacyLedger, Spend
from dpfc.accounting.ledger.records import reasons_not_private, remaining_of
from dpfc.accounting.statements.records import AttackRecord
from dpfc.accounting.statements.statement import NOT_COVERED, PrivacyStatement, package_versions

__all__ = ["make_ledger_statement"]

# The accountant whose terms the filter speaks.
_ACCOUNTANTS = {"gdp": "exact", "renyi": "rdp"}


def make_ledger_statement(ledger: PrivacyLedger, dataset: str) -> PrivacyStatement:
    """State the budget of a data set and what was spent from it.

    The guarantee is the budget, which the ledger's filter keeps however later choices depend
    on earlier releases. What the spends so far add up to is stated beside it as bookkeeping.
    It is not private when a recorded run was not: whoever knows the seed of one release
    learns what it was made from.

    Parameters
    ----------
    ledger : PrivacyLedger
    dataset : str

    Returns
    -------
    PrivacyStatement
        Of kind "ledger"; `budget` holds the spends, each with its statement if it finished.

    Raises
    ------
    LedgerError
        When the ledger cannot be read, or has no such data set.
    ValueError
        When what a spend's statement says contradicts what was charged.
    """
    budget = ledger.budget(dataset)
    spends = ledger.history(dataset)
    # Read once: between two readings another process may spend.
    remaining = remaining_of(budget, [budget.filter.cost(spend.event) for spend in spends])
    event = dp_accounting.ComposedDpEvent([spend.event for spend in spends])
    profile = budget.filter.profile()
    reasons = reasons_not_private(spends)
    return PrivacyStatement.model_validate(
        {
            "kind": "ledger",
            "estimator": "PrivacyLedger",
            "dataset": budget.dataset,
            "private": not reasons,
            "reasons_not_private": reasons,
            "target_epsilon": budget.epsilon,
            "target_delta": budget.delta,
            "neighboring_relation": budget.neighboring_relation,
            "unit_of_privacy": budget.unit_of_privacy,
            "accountant": _ACCOUNTANTS[budget.filter.kind],
            "epsilon_by_accountant": epsilon_by_accountant(
                event,
                budget.delta,
                neighboring_relation=budget.neighboring_relation,
                accountants=ACCOUNTANTS,
            ),
            "mu": event_mu(event),
            "event": event_to_json(event),
            "attack": AttackRecord.of(profile),
            "releases": [],
            "budget": {
                "created_at": budget.created_at,
                "filter": budget.filter.to_json(),
                "spent_share": remaining.spent_share,
                "remaining_epsilon": remaining.epsilon,
                "spends": [_spend(spend) for spend in spends],
            },
            "rests_on": _rests_on(budget, spends),
            "random_source": _random_source(spends),
            "versions": package_versions(),
        }
    )


def _spend(spend: Spend) -> dict[str, object]:
    return {
        "id": spend.id,
        "purpose": _what_for(spend),
        "made_at": spend.made_at,
        "share_of_budget": spend.share_of_budget,
        "event": event_to_json(spend.event),
        "statement": spend.statement,
    }


def _what_for(spend: Spend) -> str:
    """What a spend was for, who made it and what came of it, as far as was said."""
    said = spend.purpose + (f": {spend.stated_purpose}" if spend.stated_purpose else "")
    by = f"; by {spend.made_by}" if spend.made_by else ""
    file = f"; model file {spend.model.name}, SHA-256 {spend.model.sha256}" if spend.model else ""
    return said + by + file


def _rests_on(budget: Budget, spends: list[Spend]) -> list[str]:
    """What no ledger can know, then the gaps that the runs themselves name."""
    sentences = [
        "this data set has no other budget, under another name or in another file",
        _rows_each(budget),
        "nothing was released from it without the ledger, and no older copy of the ledger's "
        "file was put back",
        "what each run rests on; it is listed with the spend",
    ]
    unknown = [
        str(spend.id)
        for spend in spends
        if spend.statement is None and not spend.reasons_not_private
    ]
    if unknown:
        sentences.append(
            f"runs that kept no record (spend {', '.join(unknown)}) drew their noise from a "
            "secret source"
        )
    return sentences + [
        f"{sentence} (spend {spend.id})"
        for spend in spends
        if spend.statement is not None
        for sentence in spend.statement.rests_on
        if sentence.startswith(NOT_COVERED)
    ]


def _rows_each(budget: Budget) -> str:
    """What was said, or is taken, to be true of a unit's rows."""
    unit, rows = budget.unit_of_privacy, budget.rows_per_unit
    if rows is None:
        return f"every run was told rightly whose each row is, so that all rows of {unit} are one"
    if rows > 1:
        replaced = (
            ""
            if budget.neighboring_relation != "replace_one"
            else (", and takes the place of one with as many")
        )
        return (
            f"{unit} has at most {rows} rows in it{replaced}: a spend whose noise covers one row "
            f"is charged with its noise multipliers divided by {rows}"
        )
    if unit == "one row":
        return "nobody has more than one row in it: what is hidden is one row"
    said = "" if budget.rows_were_stated else "; nobody said so when the budget was made"
    return f"{unit} has at most one row in it{said}"


def _random_source(spends: list[Spend]) -> str:
    sources = {spend.statement.random_source for spend in spends if spend.statement is not None}
    return "; ".join(sorted(sources)) or "none was recorded"
