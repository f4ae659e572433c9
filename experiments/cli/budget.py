"""`dpfc budget`: budgets of data sets in a ledger, and what a budget buys."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc._support.words import counted
from dpfc.experiments.cli.calibrate import calibrate
from dpfc.experiments.cli.console import print_json, print_table
from dpfc.experiments.cli.group_cost import group
from dpfc.experiments.cli.options import Json, Relation

if TYPE_CHECKING:
    from dpfc.accounting.ledger.ledger import Budget, Remaining, Spend

__all__ = ["budget_app"]

_NOTE = (
    "The guarantee is the budget, however it is spent. What is spent so far is bookkeeping, not a "
    "claim."
)
_GDP_ONLY = (
    "This budget cannot pay for training on samples of the rows (`dpfc train`, unless\n"
    "--sampling-probability is 1), nor for a search with random stopping. If you will need those,\n"
    "make another ledger in its place, before anything is spent:"
)
_MANY = (
    "Only fits with groups may spend from it, for nobody said how many rows {unit} has: write the\n"
    "features with --group-column, or make another ledger with --rows-per-unit (1: one row each)."
)
_SEVERAL = (
    "A fit without groups is charged as {rows} rows, which takes much more of the budget than its\n"
    "--epsilon says; one with groups is not. `dpfc budget remaining` tells what either may have."
)
_NO_HEAD = "none yet: an earlier version wrote this file, and the next write adds it"

_Ledger = Annotated[Path, typer.Argument(metavar="LEDGER", help="Ledger: one SQLite file.")]
_Dataset = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the data set, as the budget has it.")
]

budget_app = typer.Typer(rich_markup_mode=None)


@budget_app.callback(invoke_without_command=True)
def _budget(context: typer.Context) -> None:
    """Keep the budgets of data sets in a ledger, and work out what a budget buys.

    Example, to start with: dpfc budget create ledger.db --dataset ward-7 --epsilon 3
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@budget_app.command()
def create(
    ledger: _Ledger,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A name for this data set and no other. It is all that identifies the data: a "
            "second name for the same data would be a second budget, and void the claim.",
        ),
    ],
    epsilon: Annotated[
        float,
        typer.Option(help="ε that all releases together may have, a float > 0; for good."),
    ],
    delta: Annotated[
        float, typer.Option(help="δ of the same, in (0, 1); well below 1 / (number of people).")
    ] = 1e-5,
    neighboring_relation: Relation = "add_or_remove_one",
    unit: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What is protected, all its rows: 'one patient'."),
    ] = "one row",
    rows_per_unit: Annotated[
        str | None,
        typer.Option(
            metavar="K|many",
            help="Rows that one unit has at most, which must be publicly known; a fit without "
            "groups is charged as K rows. 'many': only fits with groups may spend. By default 1 "
            "where the unit is 'one row', 'one image' or the like, else 'many'.",
        ),
    ] = None,
    filter: Annotated[  # noqa: A002
        Literal["gdp", "renyi"],
        typer.Option(
            help="The rule that keeps spends within the budget. gdp: full-batch methods only, "
            "exact. renyi: also Poisson sampling and private search, at some loss."
        ),
    ] = "gdp",
    another_budget: Annotated[
        bool,
        typer.Option("--another-budget", help="The name is near another's, and other rows'."),
    ] = False,
    json: Json = False,
) -> None:
    """Fix the budget of a data set, before its first release. It cannot be changed later.

    Makes the ledger if there is none. Then every `dpfc fit` with --ledger and --dataset spends
    from it, and is refused when it would exceed it.

    Example: dpfc budget create ledger.db --dataset ward-7 --epsilon 3 --unit "one patient"
    --rows-per-unit 1
    """
    from dpfc.accounting.ledger.ledger import PrivacyLedger

    budget = PrivacyLedger(ledger).create_budget(
        dataset,
        epsilon=epsilon,
        delta=delta,
        neighboring_relation=neighboring_relation,
        unit_of_privacy=unit,
        rows_per_unit=_rows_per_unit(rows_per_unit),
        filter=filter,
        another_budget=another_budget,
    )
    if json:
        print_json({"command": "budget create", "ledger": str(ledger), **_budget_report(budget)})
        return
    print(f"{_sentence(budget)}\nKept in {ledger}. Spend from it with:")
    print(f"  {_fit_command(ledger, budget, '…')}")
    if budget.rows_per_unit is None:
        print(f"\n{_MANY.format(unit=budget.unit_of_privacy)}")
    elif budget.rows_per_unit > 1:
        print(f"\n{_SEVERAL.format(rows=budget.rows_per_unit)}")
    if budget.filter.kind == "gdp":
        print(f"\n{_GDP_ONLY}\n  {_create_command(ledger, budget)}")


@budget_app.command()
def show(
    ledger: _Ledger,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this data set; all by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the budgets of a ledger, and the share of each that is spent.

    Example: dpfc budget show ledger.db
    """
    from dpfc.accounting.ledger.ledger import PrivacyLedger

    book = PrivacyLedger(ledger)
    budgets = book.budgets() if dataset is None else [book.budget(dataset)]
    pairs = [(budget, book.remaining(budget.dataset)) for budget in budgets]
    if json:
        reports = [{**_budget_report(budget), **_left_report(left)} for budget, left in pairs]
        report = {"command": "budget show", "ledger": str(ledger), "budgets": reports}
        print_json({**report, "head": book.head(), "note": _NOTE})
        return
    print_table(
        ("data set", "ε", "δ", "protects", "filter", "spent"),
        [
            (
                budget.dataset,
                f"{budget.epsilon:g}",
                f"{budget.delta:g}",
                f"{_protected(budget)}, {budget.neighboring_relation.replace('_', ' ')}",
                budget.filter.kind,
                f"{left.spent_share:.1%}",
            )
            for budget, left in pairs
        ],
        words=5,
    )
    for budget, left in pairs:
        _print_void(budget, left.reasons_not_private)
    print(f"\nHead: {book.head() or _NO_HEAD}\n\n{_NOTE}")


@budget_app.command()
def history(ledger: _Ledger, dataset: _Dataset, json: Json = False) -> None:
    """List every spend of a data set, oldest first, and what is known to have run.

    A spend is written before its release is made. One without a statement was made by a run that
    did not finish, and counts all the same. --json prints the statements too.

    Example: dpfc budget history ledger.db --dataset ward-7
    """
    from dpfc.accounting.ledger.ledger import PrivacyLedger, reasons_not_private

    book = PrivacyLedger(ledger)
    budget, spends = book.budget(dataset), book.history(dataset)
    reasons = reasons_not_private(spends)
    if json:
        reports = [_spend_report(spend) for spend in spends]
        report = {"command": "budget history", "ledger": str(ledger), "dataset": dataset}
        void = {"private": not reasons, "reasons_not_private": reasons}
        print_json({**report, "spends": reports, **void, "note": _NOTE})
        return
    if not spends:
        print(f"Nothing is spent from the budget of {dataset}.")
        return
    print_table(
        ("spend", "when (UTC)", "purpose", "by", "statement", "share"),
        [
            (
                str(spend.id),
                spend.made_at.removesuffix("+00:00"),
                _what_for(spend),
                spend.made_by or "",
                _kept(spend),
                f"{spend.share_of_budget:.2%}",
            )
            for spend in spends
        ],
        words=5,
    )
    _print_void(budget, reasons)
    print(f"\n{_NOTE}")


@budget_app.command()
def remaining(ledger: _Ledger, dataset: _Dataset, json: Json = False) -> None:
    """Work out the largest ε that one more full-batch fit may have.

    A fit with exactly the printed ε and δ is accepted, unless another spend comes first. Exit code
    1 says that the budget is exhausted.

    Example: dpfc budget remaining ledger.db --dataset ward-7
    """
    from dpfc.accounting.ledger.ledger import BudgetExceeded, PrivacyLedger

    book = PrivacyLedger(ledger)
    budget, left = book.budget(dataset), book.remaining(dataset)
    if json:
        report = {"command": "budget remaining", "ledger": str(ledger), **_budget_report(budget)}
        print_json({**report, "remaining": _left_report(left), "note": _NOTE})
        raise typer.Exit(0 if left.epsilon > 0 else 1)
    if left.epsilon == 0:
        raise BudgetExceeded(
            f"the budget of {budget.dataset} is exhausted: ε = {budget.epsilon:g} at δ = "
            f"{budget.delta:g}, {left.spent_share:.1%} spent."
            + "".join(f" NOT PRIVATE: {reason}." for reason in left.reasons_not_private)
        )
    print(f"{_sentence(budget)} Spent: {left.spent_share:.1%}.")
    _print_void(budget, left.reasons_not_private)
    by_row = budget.rows_per_unit is not None and budget.rows_per_unit > 1
    groups = "" if budget.rows_per_unit == 1 else " with groups"
    print(f"One more full-batch fit{groups} may have ε = {left.epsilon_text}:")
    print(f"  {_fit_command(ledger, budget, left.epsilon_text)}")
    if by_row:
        row = book.remaining(dataset, unit="row").epsilon_text
        print(f"One without groups, charged as {budget.rows_per_unit} rows, may have ε = {row}.")
    print(f"\n{_NOTE}")


@budget_app.command()
def head(ledger: _Ledger, json: Json = False) -> None:
    """Print the hash of a ledger's last record, for its owner to keep elsewhere.

    `dpfc budget verify --head` with it finds later whether anything was changed or removed since,
    also by somebody who can write the whole file.

    Example: dpfc budget head ledger.db
    """
    from dpfc.accounting.ledger.ledger import PrivacyLedger

    found = PrivacyLedger(ledger).head()
    if json:
        print_json({"command": "budget head", "ledger": str(ledger), "head": found})
    else:
        print(found or _NO_HEAD)


@budget_app.command()
def verify(
    ledger: _Ledger,
    head: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="What `dpfc budget head` printed earlier."),
    ] = None,
    json: Json = False,
) -> None:
    """Read all of a ledger, compute its costs again, and compare it with a head kept elsewhere.

    Any use of a ledger finds a record that was changed. A chain that was made anew by somebody who
    can write the file, or an older copy that was put back, is found with --head only.

    Example: dpfc budget verify ledger.db
    """
    from dpfc.accounting.ledger.ledger import PrivacyLedger

    check = PrivacyLedger(ledger).verify(head)
    if json:
        found = {"budgets": check.n_budgets, "spends": check.n_spends, "head": check.head}
        report = {"command": "budget verify", "ledger": str(ledger), **found}
        print_json({**report, "added_since": check.added_since})
        return
    held = f"{counted(check.n_budgets, 'budget')}, {counted(check.n_spends, 'spend')}"
    print(f"{ledger} is as it was written: {held}.")
    if check.added_since is not None:
        print(f"Records added since the head that you gave: {check.added_since}.")
    print(f"Head: {check.head or _NO_HEAD}")


budget_app.command()(calibrate)
budget_app.command()(group)


def _sentence(budget: Budget) -> str:
    relation = budget.neighboring_relation.replace("_", " ")
    return (
        f"Budget of {budget.dataset}: ε = {budget.epsilon:g}, δ = {budget.delta:g}, "
        f"{relation} ({_protected(budget)}), {budget.filter.kind} filter."
    )


def _rows_per_unit(text: str | None) -> int | str | None:
    """What --rows-per-unit says, as `create_budget` takes it."""
    if text is None or text == "many":
        return "auto" if text is None else None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--rows-per-unit must be a whole number > 0 or 'many', got {text!r}.")
    return int(text)


def _protected(budget: Budget) -> str:
    """The unit of a budget, and how many rows it has where that is not one."""
    rows = budget.rows_per_unit
    if rows == 1:
        return budget.unit_of_privacy
    return f"{budget.unit_of_privacy}, {'many rows' if rows is None else f'up to {rows} rows'}"


def _fit_command(ledger: Path, budget: Budget, epsilon: str) -> str:
    options = [
        f"--ledger {shlex.quote(str(ledger))} --dataset {shlex.quote(budget.dataset)}",
        f"--epsilon {epsilon} --delta {budget.delta!r}",
    ]
    if budget.neighboring_relation != "add_or_remove_one":
        options.append(f"--neighboring-relation {budget.neighboring_relation}")
    return f"dpfc fit {' '.join(options)} --features … --out …"


def _create_command(ledger: Path, budget: Budget) -> str:
    """Write the command for the same budget with a filter that takes more."""
    options = [f"--epsilon {budget.epsilon!r}", f"--delta {budget.delta!r}"]
    if budget.neighboring_relation != "add_or_remove_one":
        options.append(f"--neighboring-relation {budget.neighboring_relation}")
    if budget.unit_of_privacy != "one row":
        options.append(f"--unit {shlex.quote(budget.unit_of_privacy)}")
        options.append(f"--rows-per-unit {budget.rows_per_unit or 'many'}")
    other = ledger.with_name(f"{ledger.stem}-renyi{ledger.suffix}")
    where = f"{shlex.quote(str(other))} --dataset {shlex.quote(budget.dataset)}"
    return f"dpfc budget create {where} {' '.join(options)} --filter renyi"


def _budget_report(budget: Budget) -> dict[str, Any]:
    return {
        "dataset": budget.dataset,
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "neighboring_relation": budget.neighboring_relation,
        "unit_of_privacy": budget.unit_of_privacy,
        "rows_per_unit": budget.rows_per_unit or "many",
        "created_at": budget.created_at,
        "filter": budget.filter.to_json(),
    }


def _left_report(left: Remaining) -> dict[str, Any]:
    return {
        "spent_share": left.spent_share,
        "mu": left.mu,
        "epsilon": left.epsilon,
        "private": not left.reasons_not_private,
        "reasons_not_private": list(left.reasons_not_private),
    }


def _what_for(spend: Spend) -> str:
    return spend.purpose + (f": {spend.stated_purpose}" if spend.stated_purpose else "")


def _kept(spend: Spend) -> str:
    """What is known of a run: whether it is private, and what it left."""
    if spend.reasons_not_private:
        return "NOT PRIVATE"
    kept = "none" if spend.statement is None else "kept"
    return kept + (f", {spend.model.name}" if spend.model else "")


def _print_void(budget: Budget, reasons: Sequence[str]) -> None:
    """Say that a budget's claim is void, in the words of its page; nothing if it is not."""
    if reasons:
        print(f"\nNOT PRIVATE: the claim of {budget.dataset} does not hold.")
        for reason in reasons:
            print(f"- {reason}")


def _spend_report(spend: Spend) -> dict[str, Any]:
    from dpfc.accounting.events import event_to_json

    return {
        "id": spend.id,
        "made_at": spend.made_at,
        "purpose": spend.purpose,
        "stated_purpose": spend.stated_purpose,
        "made_by": spend.made_by,
        "model": None if spend.model is None else asdict(spend.model),
        "reasons_not_private": spend.reasons_not_private,
        "share_of_budget": spend.share_of_budget,
        "event": event_to_json(spend.event),
        "statement": None if spend.statement is None else spend.statement.model_dump(mode="json"),
    }
