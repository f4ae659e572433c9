"""The privacy statement: what was released, what it adds up to, and what that rests on."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, Literal, Self

import dp_accounting
from pydantic import Field, ValidationError, ValidationInfo, model_validator

from dpfc._support.notebook_tables import fields_table
from dpfc._support.validation import check_int
from dpfc.accounting.accountants import (
    ACCOUNTANTS,
    default_accountant,
    epsilon_by_accountant,
    resolve_accountant,
)
from dpfc.accounting.events import event_from_json, event_mu, event_to_json
from dpfc.accounting.filters import PrivacyFilter, filter_from_json
from dpfc.accounting.plans import SEEDED, PrivacyPlan
from dpfc.accounting.profiles import PrivacyProfile, privacy_profile
from dpfc.accounting.statements.checks import (
    MAX_SAMPLED_RELEASES,
    check_statement,
    check_work,
    verify_statement,
)
from dpfc.accounting.statements.records import (
    ROUNDING,
    AttackRecord,
    EpsilonOrReason,
    EventJson,
    FilterRecord,
    NonNegativeOrInf,
    Record,
    ReleaseRecord,
)
from dpfc.accounting.statements.wording import clean

__all__ = [
    "NOT_COVERED",
    "BudgetRecord",
    "PrivacyStatement",
    "ReleaseRecord",
    "SpendRecord",
    "StatementError",
    "make_statement",
    "package_versions",
]

# How an assumption starts that a reader has to judge; it is shown before the others.
NOT_COVERED: Final = "NOT COVERED"
# Says which statements can be read; a published schema never changes.
_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
_VERSIONS: Final = ("1", "2")  # the last one is written; in a ledger's, spends may hold others
_SCHEMA_ID: Final = f"urn:dpfc:privacy-statement:{_VERSIONS[-1]}"

Kind = Literal["fit", "search", "evaluation", "summary", "ledger"]
Accountant = Literal["exact", "pld", "rdp"]


class StatementError(ValueError):
    """A text is no valid privacy statement; says where and why, in one line."""


class SpendRecord(Record):
    """One spend from a budget, and the statement of what it paid for, if that finished."""

    id: int = Field(ge=1)
    purpose: str
    made_at: str = Field(description="UTC, ISO 8601.")
    share_of_budget: float = Field(ge=0, le=1)
    event: EventJson = Field(description="What was charged, before any noise was drawn.")
    statement: PrivacyStatement | None


class BudgetRecord(Record):
    """The budget of a data set as its ledger keeps it, with every spend."""

    created_at: str = Field(description="UTC, ISO 8601.")
    filter: FilterRecord
    spent_share: float = Field(ge=0, le=1, description="Bookkeeping, not a claim.")
    remaining_epsilon: NonNegativeOrInf = Field(
        description="Largest epsilon, at target_delta, of one more full-batch fit."
    )
    spends: list[SpendRecord]


class PrivacyStatement(Record):
    """Everything that a reader needs to judge a privacy guarantee.

    Immutable by assignment; `make_statement` builds one from what ran, and
    `make_ledger_statement` from a ledger. Texts and pages are renderings of it. Infinite
    numbers appear in JSON as the string "inf". A statement that contradicts itself cannot
    be made or read.
    """

    schema_version: Literal["1", "2"] = "2"
    kind: Kind = Field(description="What was run; ledger: all spends from one budget.")
    estimator: str
    dataset: str | None = Field(description="Name of the budget in a ledger; null without one.")
    private: bool
    reasons_not_private: list[str]
    target_epsilon: NonNegativeOrInf
    target_delta: float = Field(ge=0, lt=1)
    neighboring_relation: Literal["add_or_remove_one", "replace_one"]
    unit_of_privacy: str
    accountant: Accountant = Field(
        description="What the guarantee was calibrated and checked with."
    )
    epsilon_by_accountant: dict[Accountant, EpsilonOrReason] = Field(
        min_length=len(ACCOUNTANTS),
        description="Epsilon of event at target_delta, by each of them; or why there is none.",
    )
    mu: NonNegativeOrInf | None = Field(
        description="Composed Gaussian-DP parameter; null unless all is full-batch Gaussian."
    )
    event: EventJson = Field(description="Everything that ran, composed.")
    attack: AttackRecord
    releases: list[ReleaseRecord] = Field(
        description="Those that were published; of a search, event holds the others as well."
    )
    budget: BudgetRecord | None = Field(description="Of a ledger; null otherwise.")
    rests_on: list[str] = Field(description="Assumptions, in plain sentences.")
    random_source: str
    versions: dict[str, str]

    @model_validator(mode="before")
    @classmethod
    def _is_of_this_version(cls, data: Any, info: ValidationInfo) -> Any:
        # Alone, and before anything else that another version would have in another way.
        if info.mode != "json" or not isinstance(data, dict):
            return data
        if "schema_version" not in data:
            raise ValueError("there is no schema_version, which every privacy statement has.")
        version = data["schema_version"]
        if version not in _VERSIONS:
            raise ValueError(
                f"schema_version must be {' or '.join(map(repr, _VERSIONS))}, got {version!r}: "
                "read it with the release of dpfc that wrote it."
            )
        return data

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        check_statement(self)
        return self

    @property
    def not_covered(self) -> list[str]:
        """Assumptions that may not hold: a reader has to judge them."""
        return [sentence for sentence in self.rests_on if sentence.startswith(NOT_COVERED)]

    def profile(self) -> PrivacyProfile:
        """Every (epsilon, delta) and every attack that the guarantee bounds.

        A ledger's is that of its budget, whatever was spent; otherwise that of what ran.
        """
        kept = self.privacy_filter()
        if kept is not None:
            return kept.profile()
        return privacy_profile(
            event_from_json(self.event),
            neighboring_relation=self.neighboring_relation,
            accountant=self.accountant,
        )

    def privacy_filter(self) -> PrivacyFilter | None:
        """Return the filter of a ledger's budget; None otherwise."""
        if self.budget is None:
            return None
        return filter_from_json(self.budget.filter.model_dump(), self.neighboring_relation)

    def verify(self, *, max_sampled_releases: int = MAX_SAMPLED_RELEASES) -> None:
        """Compute again, from the events, what reading a statement takes as given.

        That is epsilon by every accountant, and what an attacker can reach; of a ledger, for
        each of its spends too. Takes up to seconds for sampled releases.

        Parameters
        ----------
        max_sampled_releases : int, default=64
            Most different sampled releases that are computed, each of which takes about 0.2 s:
            a file that somebody made must not keep its reader busy for ever.

        Raises
        ------
        ValueError
            When the statement claims less than its events give away; says where. Also when
            there are more sampled releases; nothing was computed then.
        """
        check_work(self, check_int("max_sampled_releases", max_sampled_releases, 0))
        verify_statement(self)

    def to_json(self, indent: int | None = 2) -> str:
        """Write strict JSON (no Infinity or NaN)."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Finds what contradicts itself in milliseconds; `verify` computes everything again.

        Raises
        ------
        StatementError
            When `text` does not follow the schema, or contradicts itself; says where, in one
            line. It is a ValueError.
        """
        try:
            # Strict: "1" is no number and 1 is not true, as the schema says.
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise StatementError(_one_line(error)) from error
        except (ArithmeticError, LookupError, TypeError, RecursionError) as error:
            raise StatementError(f"no valid privacy statement: {error}") from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema (2020-12) of what `to_json` writes."""
        schema = cls.model_json_schema(mode="serialization")
        return {"$schema": _SCHEMA, "$id": _SCHEMA_ID, **schema}

    def to_text(self) -> str:
        """Render the statement as plain text for people."""
        from dpfc.accounting.statements.text import render_text

        return render_text(self)

    def to_markdown(self) -> str:
        """Render the statement as GitHub-flavoured Markdown."""
        from dpfc.accounting.statements.markdown import render_markdown

        return render_markdown(self)

    def to_html(self) -> str:
        """Render the statement as one HTML page, with pictures, that opens offline."""
        from dpfc.accounting.statements.html import render_html

        return render_html(self)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<PrivacyStatement: {self.short}>"

    @property
    def short(self) -> str:
        """The guarantee in one line, after a warning where it does not hold."""
        from dpfc.accounting.statements.wording import guarantee

        return guarantee(self) if self.private else f"NOT PRIVATE. Target: {guarantee(self)}"

    def _repr_html_(self) -> str:
        from dpfc.accounting.statements.wording import content

        said = content(self)
        rows = [("Guarantee", self.short), *said.facts]
        rows += [("Not private", reason) for reason in said.not_private]
        rows += [("Not covered", sentence) for sentence in said.not_covered]
        if self.budget is not None:
            rows.append(("Spent", f"{self.budget.spent_share:.1%} in {len(self.budget.spends)}"))
        else:
            rows.append(("Releases", ", ".join(clean(release.name) for release in self.releases)))
        return fields_table(said.title, rows)


def make_statement(
    plan: PrivacyPlan,
    records: Sequence[ReleaseRecord],
    *,
    estimator: str,
    seeded: bool,
    rests_on: Sequence[str],
    random_source: str,
    unit_of_privacy: str = "one row",
    kind: Literal["fit", "search", "evaluation", "summary"] = "fit",
    dataset: str | None = None,
    event: dp_accounting.DpEvent | None = None,
) -> PrivacyStatement:
    """State what the releases that ran add up to, at the plan's delta.

    Parameters
    ----------
    plan : PrivacyPlan
        The promise: targets, neighboring relation and accountant.
    records : sequence of ReleaseRecord
        What ran; epsilon is composed from these, not from the plan.
    estimator : str
        Name of what was fitted.
    seeded : bool
        Whether noise came from a seed that somebody may know.
    rests_on : sequence of str
        Assumptions, in plain sentences.
    random_source : str
        Where random bits came from.
    unit_of_privacy : str, default="one row"
    kind : {"fit", "search", "evaluation", "summary"}, default="fit"
    dataset : str, optional
        Name of the budget that paid.
    event : DpEvent, optional
        Of a search: all that ran, published or not; `records` are then what was published.

    Raises
    ------
    RuntimeError
        When what ran exceeds the plan. Nothing of it may be published.
    """
    if isinstance(rests_on, str):
        raise ValueError("rests_on must be a list of sentences, got one text.")
    if event is None:
        event = dp_accounting.ComposedDpEvent([record.event for record in records])
    accountant = _accountant(plan, event)
    epsilons = epsilon_by_accountant(
        event,
        plan.target_delta,
        neighboring_relation=plan.neighboring_relation,
        accountants=ACCOUNTANTS,
    )
    mu = event_mu(event)
    _refuse_excess(plan, epsilons[accountant], mu)
    profile = privacy_profile(
        event, neighboring_relation=plan.neighboring_relation, accountant=accountant
    )
    reasons = _reasons_not_private(plan, seeded)
    return PrivacyStatement.model_validate(
        {
            "kind": kind,
            "estimator": estimator,
            "dataset": dataset,
            "private": not reasons,
            "reasons_not_private": reasons,
            "target_epsilon": plan.target_epsilon,
            "target_delta": plan.target_delta,
            "neighboring_relation": plan.neighboring_relation,
            "unit_of_privacy": unit_of_privacy,
            "accountant": accountant,
            "epsilon_by_accountant": epsilons,
            "mu": mu,
            "event": event_to_json(event),
            "attack": AttackRecord.of(profile),
            "releases": list(records),
            "budget": None,
            "rests_on": list(rests_on),
            "random_source": random_source,
            "versions": package_versions(),
        }
    )


def _one_line(error: ValidationError) -> str:
    """Say the first problem, and how many more there are."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    message = " ".join(first["msg"].removeprefix("Value error, ").rstrip(".").split())
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    return f"no valid privacy statement: {f'{where}: ' if where else ''}{message}.{more}"


def package_versions() -> dict[str, str]:
    """Versions of Python, of dpfc and of what computes its figures."""
    packages = ("dpfc", "dp-accounting", "numpy", "scipy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _accountant(plan: PrivacyPlan, event: dp_accounting.DpEvent) -> str:
    """Return the plan's accountant; the default one where nothing is promised."""
    if plan.target_epsilon == math.inf:
        return default_accountant(event)
    return resolve_accountant(
        plan.accountant,
        event,
        target_delta=plan.target_delta,
        neighboring_relation=plan.neighboring_relation,
    )


def _refuse_excess(plan: PrivacyPlan, epsilon: float | str, mu: float | None) -> None:
    planned_mu = plan.mu
    if mu is not None and planned_mu is not None and mu > planned_mu * (1 + ROUNDING):
        raise RuntimeError(
            f"What ran exceeds the plan: composed mu = {mu!r}, planned {planned_mu!r}. "
            "Do not publish any of its releases."
        )
    if plan.target_epsilon == math.inf:
        return
    if isinstance(epsilon, str):
        raise RuntimeError(
            "What ran cannot be bounded by its accountant; "
            f"{epsilon.removeprefix('unavailable: ')} Do not publish any of its releases."
        )
    if epsilon > plan.target_epsilon:
        raise RuntimeError(
            f"What ran exceeds the plan: epsilon = {epsilon} at delta = {plan.target_delta!r}, "
            f"planned {plan.target_epsilon!r}. Do not publish any of its releases."
        )


def _reasons_not_private(plan: PrivacyPlan, seeded: bool) -> list[str]:
    reasons = []
    if plan.target_epsilon == math.inf:
        reasons.append("epsilon is infinite: no noise was asked for and nothing is protected")
    if seeded:
        reasons.append(SEEDED)
    return reasons


# A spend holds the statement of what it paid for, and a statement may hold spends.
SpendRecord.model_rebuild()
BudgetRecord.model_rebuild()
PrivacyStatement.model_rebuild()
