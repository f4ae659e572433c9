"""What a statement says, in words and tables; text, Markdown and HTML only set it in type.

One source for all renderings: no fact is in one and missing in another. Texts of users
(names, purposes) come out in one line and without invisible characters; each rendering
escapes them in its own way.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Final

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc.accounting.events import event_from_json

if TYPE_CHECKING:
    from dpfc.accounting.statements.statement import (
        BudgetRecord,
        PrivacyStatement,
        ReleaseRecord,
        SpendRecord,
    )

__all__ = [
    "Content",
    "Section",
    "Table",
    "clean",
    "content",
    "guarantee",
    "in_words",
    "lower",
    "moment",
    "percent",
    "upper",
]

_SUBJECTS: Final = {
    "fit": "Estimator",
    "search": "Search",
    "evaluation": "Evaluation",
    "summary": "Summary",
    "ledger": "Kept by",
}
_RUNS: Final = {
    "fit": "this fit",
    "search": "this search",
    "evaluation": "this evaluation",
    "summary": "this summary",
}
_FILTERS: Final = {
    "gdp": "Gaussian differential privacy filter: a spend is refused unless the sum of "
    "count / z² over all full-batch Gaussian releases stays at most μ² = {limit} "
    "(Smith and Thakurta 2022, Fully Adaptive Composition for Gaussian Differential Privacy; "
    "Koskela, Tobaben and Honkela 2023, Individual Privacy Accounting with Gaussian "
    "Differential Privacy).",
    "renyi": "Rényi filter: a spend is refused unless, for one of the orders fixed at the "
    "start, the sum of Rényi divergences of all spends stays within its budget: {limit} "
    "(Feldman and Zrnic 2021, Individual Privacy Accounting via a Renyi Filter).",
}
# Of what stands in a list of contents; the rest is said below it.
_LONGEST_HEADING: Final = 80
_LOSERS: Final = (
    "The charge covers everything that the search ran: the fits and scores of settings that lost "
    "are inside it, whether they were published or not."
)


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One heading and what stands under it, in this order."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    items: tuple[str, ...] = ()
    picture: str | None = None
    """Name of the picture that HTML adds: "trade-off" or "epsilon"."""
    folded: bool = False
    """Whether HTML shows the heading alone until a reader opens it."""


@dataclass(frozen=True)
class Content:
    """A statement in words.

    Attributes
    ----------
    guarantee : str
        The claim in one line.
    not_private : tuple of str
        Reasons; when there are any, they come before everything else.
    not_covered : tuple of str
        Gaps that a reader has to judge; they come next.
    facts : tuple of (str, str)
        What the statement is about.
    """

    title: str
    guarantee: str
    not_private: tuple[str, ...]
    not_covered: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def content(statement: PrivacyStatement) -> Content:
    """Put a statement into words."""
    if statement.budget is None:
        body = [_composition(statement), *_releases(statement)]
    else:
        body = [
            _budget(statement, statement.budget),
            _spends(statement.budget),
            *(
                replace(section, folded=True)
                for spend in statement.budget.spends
                for section in _spend(spend)
            ),
            _composition(statement),
        ]
    return Content(
        title="Privacy statement",
        guarantee=guarantee(statement),
        not_private=tuple(clean(reason) for reason in statement.reasons_not_private),
        not_covered=tuple(clean(sentence) for sentence in statement.not_covered),
        facts=_facts(statement),
        sections=(_attack(statement), *body, _rests_on(statement), _origin(statement)),
    )


def guarantee(statement: PrivacyStatement) -> str:
    """Write (epsilon, delta), relation and unit in one line."""
    verb = "replace" if statement.neighboring_relation == "replace_one" else "add or remove"
    epsilon, delta = upper(statement.target_epsilon), upper(statement.target_delta)
    return f"(ε = {epsilon}, δ = {delta})-DP, {verb} {clean(statement.unit_of_privacy)}"


# -- sections ------------------------------------------------------------------------


def _facts(statement: PrivacyStatement) -> tuple[tuple[str, str], ...]:
    facts = [(_SUBJECTS[statement.kind], clean(statement.estimator))]
    if statement.dataset is not None:
        facts.append(("Data set", clean(statement.dataset)))
    facts += [
        ("What is hidden", _secret(statement)),
        ("Neighboring relation", statement.neighboring_relation),
        ("Unit of privacy", clean(statement.unit_of_privacy)),
    ]
    return tuple(facts)


def _secret(statement: PrivacyStatement) -> str:
    """Name what two neighboring data sets differ in."""
    unit = clean(statement.unit_of_privacy)
    if statement.neighboring_relation == "replace_one":
        return f"which of two possible contents {unit} has"
    return f"whether {unit} is in the data"


def _attack(statement: PrivacyStatement) -> Section:
    everything = (
        "all that is ever released from the data set under this budget"
        if statement.kind == "ledger"
        else f"everything that {_RUNS[statement.kind]} released"
    )
    who = (
        f"Think of an attacker who wants to find out {_secret(statement)}. The attacker sees "
        f"{everything}, knows the method and all other rows, and has unlimited computing power."
    )
    advantage = statement.attack.advantage
    odds = (
        f"The advantage is at most {upper(advantage, 3)}: the largest difference between the "
        "true-positive and the false-positive rate. Where a fair coin has decided which case is "
        f"real, no attack is right with more than {percent((1 + advantage) / 2)} probability; "
        "guessing blindly is right with 50%."
    )
    if statement.target_epsilon == math.inf:
        limit = (
            "This statement is NOT PRIVATE: nothing limits an attacker, who may be right every "
            "time."
        )
    elif statement.private:
        limit = (
            "For each rate of false alarms that an attack may raise, the table gives the highest "
            "rate of hits that any attack can have."
        )
    else:
        limit = (
            "This statement is NOT PRIVATE, for the reasons given at its start: nothing limits an "
            "attacker who can use them. The figures are for those who cannot."
        )
    rows = tuple(
        (
            f"{100 * point.false_positive_rate:g}%",
            percent(point.true_positive_rate),
            f"{100 * point.false_positive_rate:g}%",
        )
        for point in statement.attack.points
    )
    columns = ("false-positive rate", "highest true-positive rate", "blind guessing")
    table = Table("The most that any attack reaches", columns, rows)
    return Section(
        "What this means for an attacker", (who, limit, odds), (table,), picture="trade-off"
    )


def _composition(statement: PrivacyStatement) -> Section:
    rows = []
    for name, epsilon in statement.epsilon_by_accountant.items():
        ours = statement.budget is None and name == statement.accountant
        value = clean(epsilon) if isinstance(epsilon, str) else upper(epsilon)
        rows.append((name, f"{value} (used for the guarantee)" if ours else value))
    table = Table(
        f"ε at δ = {upper(statement.target_delta)}, by accountant",
        ("accountant", "ε at most"),
        tuple(rows),
    )
    lines = []
    if statement.mu is not None:
        lines.append(f"μ = {upper(statement.mu)} (Gaussian differential privacy)")
    if statement.budget is not None:
        lines.insert(
            0,
            "Bookkeeping, not a claim: these figures compose the spends so far as if all of them "
            "had been fixed before the first. Later choices may depend on earlier releases, and "
            "the guarantee is the budget.",
        )
        return Section("Spent so far", tuple(lines), (table,))
    lines += [*_inside(statement), _alone(statement)]
    return Section("What the releases add up to", tuple(lines), (table,), picture="epsilon")


def _alone(statement: PrivacyStatement) -> str:
    """Say that one run's guarantee is not all that a data set's owner has to count."""
    counted = f"{_RUNS[statement.kind].capitalize()} alone is counted here. "
    if statement.dataset is None:
        return f"{counted}Whatever else is released from the same data adds to it."
    return (
        f"{counted}Whatever else is released from the same data adds to it; the statement of the "
        f"ledger that keeps {clean(statement.dataset)} counts all of it."
    )


def _inside(statement: PrivacyStatement) -> Iterator[str]:
    """Say what the figures are of, where the table of releases does not."""
    if statement.kind == "search" or not statement.releases:
        yield f"Charged: {in_words(event_from_json(statement.event))}."
    if statement.kind == "search":
        yield _LOSERS


def _releases(statement: PrivacyStatement) -> Iterator[Section]:
    if statement.releases:
        heading = "What was published" if statement.kind == "search" else "Releases"
        yield _release_section(heading, [], statement.releases)


def _release_section(heading: str, paragraphs: list[str], releases: list[ReleaseRecord]) -> Section:
    if not releases:
        return Section(heading, tuple(paragraphs))
    columns = (
        "release",
        "shape",
        "sensitivity",
        "noise multiplier",
        "draws",
        "sampling",
        "share",
    )
    shares = (
        "the charge as a whole pays for them, so that none has a share of its own"
        if all(release.share_of_budget is None for release in releases)
        else "shares of what these releases spend, in μ², as planned"
    )
    caption = f"ℓ2 sensitivities; {shares}"
    table = Table(caption, columns, tuple(_release_row(release) for release in releases))
    items = tuple(_release_item(release) for release in releases)
    return Section(heading, tuple(paragraphs), (table,), items)


def _release_row(release: ReleaseRecord) -> tuple[str, ...]:
    share = release.share_of_budget
    sampled = release.sampling_probability < 1
    return (
        clean(release.name),
        "×".join(str(size) for size in release.shape) or "1",
        upper(release.l2_sensitivity),
        lower(release.noise_multiplier),
        str(release.count),
        f"Poisson {upper(release.sampling_probability)}" if sampled else "full batch",
        "-" if share is None else f"{100 * share:.4g}%",
    )


def _release_item(release: ReleaseRecord) -> str:
    unit, slack = release.sum_unit, release.numerical_slack
    rounding = f" + {upper(slack)} for rounding" if slack > 0 or unit is None else ""
    whole = "" if unit is None else f"; sum and noise are whole multiples of {unit:.6g}"
    return (
        f"{clean(release.name)}: {clean(release.description)}; noise of standard deviation "
        f"{lower(release.noise_standard_deviation)} for a sensitivity of "
        f"{upper(release.l2_sensitivity)}{rounding}{whole}"
    )


def _budget(statement: PrivacyStatement, budget: BudgetRecord) -> Section:
    kept = budget.filter
    if kept.kind == "gdp":
        limit = upper(kept.mu**2)
    else:
        pairs = zip(kept.orders, kept.budgets, strict=True)
        limit = ", ".join(f"{upper(most)} at order {order:g}" for order, most in pairs)
    return Section(
        "The budget",
        (
            f"Everything that is ever released from this data set is {guarantee(statement)}, "
            "also when later choices depend on earlier releases.",
            _FILTERS[kept.kind].format(limit=limit),
            f"Created {moment(budget.created_at)} UTC. Spent so far: "
            f"{100 * budget.spent_share:.4g}%. One more full-batch Gaussian spend may have an ε "
            f"of {lower(budget.remaining_epsilon)} at most.",
        ),
        picture="epsilon",
    )


def _spends(budget: BudgetRecord) -> Section:
    if not budget.spends:
        return Section("Spends", ("Nothing was spent.",))
    rows = tuple(
        (
            str(spend.id),
            moment(spend.made_at),
            clean(spend.purpose),
            f"{100 * spend.share_of_budget:.4g}%",
            "recorded" if spend.statement is not None else "not recorded",
        )
        for spend in budget.spends
    )
    columns = ("spend", "time (UTC)", "purpose", "share of the budget", "what ran")
    numbering = (
        "Spends are numbered through the ledger's file, whichever data set they are from: a "
        "number that is missing here has to be in the statement of another data set of that file."
    )
    consecutive = all(spend.id == i for i, spend in enumerate(budget.spends, start=1))
    table = Table("In the order in which they were made", columns, rows)
    return Section("Spends", () if consecutive else (numbering,), (table,))


def _spend(spend: SpendRecord) -> Iterator[Section]:
    """What one spend released: its own statement, or what was charged."""
    purpose = clean(spend.purpose)
    whole = len(purpose) <= _LONGEST_HEADING
    heading = f"Spend {spend.id}: {purpose if whole else purpose[: _LONGEST_HEADING - 1] + '…'}"
    said = () if whole else (f"Purpose: {purpose}.",)
    statement = spend.statement
    charged = f"Charged: {in_words(event_from_json(spend.event))}."
    if statement is None:
        missing = "Not recorded: the run did not finish, or keeps no record. The charge stands."
        yield Section(heading, (*said, missing, charged))
        return
    lines = [
        *said,
        *(f"NOT PRIVATE: {clean(reason)}." for reason in statement.reasons_not_private),
        f"{_SUBJECTS[statement.kind]}: {clean(statement.estimator)}. On its own it would be "
        f"{guarantee(statement)}.",
        charged,
        *([_LOSERS] if statement.kind == "search" else []),
        f"Random source: {clean(statement.random_source)}",
    ]
    yield _release_section(heading, lines, statement.releases)
    rests = tuple(clean(sentence) for sentence in statement.rests_on)
    yield Section(f"Spend {spend.id} rests on", items=rests)


def _rests_on(statement: PrivacyStatement) -> Section:
    return Section("Rests on", items=tuple(clean(sentence) for sentence in statement.rests_on))


def _origin(statement: PrivacyStatement) -> Section:
    versions = ", ".join(f"{clean(k)} {clean(v)}" for k, v in statement.versions.items())
    lines = (
        f"Random source: {clean(statement.random_source)}",
        f"Versions: {versions}",
        f"Statement schema: {statement.schema_version}",
    )
    return Section("Origin", lines)


def upper(value: float, digits: int = 6) -> str:
    """Write an upper bound; it is rounded up, so that what is printed holds as well."""
    return _rounded(value, digits, ROUND_CEILING)


def lower(value: float, digits: int = 6) -> str:
    """Write what must be reached, such as noise; rounded down: no more than there is."""
    return _rounded(value, digits, ROUND_FLOOR)


def percent(value: float) -> str:
    """Write a probability that is an upper bound, rounded up to three digits."""
    return f"{_rounded(Decimal(repr(value)).scaleb(2), 3, ROUND_CEILING)}%"


def _rounded(value: float | Decimal, digits: int, rounding: str) -> str:
    if value == math.inf:
        return "∞"
    # From the shortest text that stands for a float: 0.1 is 0.1 in either direction.
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    return f"{float(Context(prec=digits, rounding=rounding).plus(exact)):.{digits}g}"


def clean(text: str) -> str:
    """Bring text into one line and make control and formatting characters visible."""
    line = " ".join(text.split())
    return "".join(
        f"\\u{ord(character):04x}" if unicodedata.category(character)[0] == "C" else character
        for character in line
    )


def moment(text: str) -> str:
    """Write a time of ISO 8601 in UTC; what is none, or names no zone, stays as it is."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            return clean(text)
        return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return clean(text)


def in_words(event: dp_accounting.DpEvent) -> str:
    """Name what an event stands for, as an analyst would."""
    match event:
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            return f"a Gaussian release with noise multiplier {lower(z)}"
        case dp_accounting.PoissonSampledDpEvent(sampling_probability=q, event=inner):
            return f"{in_words(inner)} on a Poisson sample of rate {upper(q)}"
        case dp_accounting.SelfComposedDpEvent(event=inner, count=count):
            return f"{count} times ({in_words(inner)})"
        case RepeatAndSelectDpEvent(event=inner, mean=mean, shape=shape):
            law = "Poisson" if shape == math.inf else f"negative binomial of shape {shape:.6g}"
            return f"the best of {upper(mean)} runs on average ({law}), each: {in_words(inner)}"
        case dp_accounting.ComposedDpEvent(events=parts):
            return "; ".join(in_words(part) for part in parts) or "nothing"
        case dp_accounting.NonPrivateDpEvent():
            return "a release without noise"
        case _:
            return "nothing"
