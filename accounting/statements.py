"""The privacy statement: what was released, what it adds up to, and what that rests on."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

import dp_accounting
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from dpfc.accounting._events import composed_mu, gaussian_steps
from dpfc.accounting._statement_text import render_text
from dpfc.accounting.accountants import default_accountant, epsilon_by_accountant
from dpfc.accounting.plans import PrivacyPlan, release_event

# Relative: a noise multiplier recomputed from a standard deviation is off by a few ulps.
_ROUNDING = 1e-12


def _infinity_to_text(value: float) -> float | str:
    return "inf" if value == math.inf else value


def _text_to_infinity(value: Any) -> Any:
    return math.inf if isinstance(value, str) and value == "inf" else value


# Strict JSON has no infinity: it is written, and read back, as the string "inf".
_TO_JSON = PlainSerializer(_infinity_to_text, when_used="json")
_FROM_JSON = BeforeValidator(_text_to_infinity)
_OR_INF_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "number", "minimum": 0}, {"const": "inf"}]}

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NonNegativeOrInf = Annotated[
    float, Field(ge=0), _FROM_JSON, _TO_JSON, WithJsonSchema(_OR_INF_SCHEMA)
]
Unavailable = Annotated[str, Field(pattern="^unavailable: ")]
EpsilonOrReason = Annotated[NonNegativeOrInf | Unavailable, _FROM_JSON]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_serialization_defaults_required=True
    )


class ReleaseRecord(_Model):
    """One release that ran, as the mechanism that ran it describes it.

    Raises
    ------
    pydantic.ValidationError
        Also when the noise falls short of `noise_multiplier` * `l2_sensitivity`. It is a
        ValueError.
    """

    name: str = Field(min_length=1)
    description: str = Field(description="What is summed, in words or as a formula.")
    shape: list[Annotated[int, Field(ge=0)]]
    l2_sensitivity: NonNegativeOrInf = Field(
        description="For the statement's neighboring relation, in exact arithmetic."
    )
    numerical_slack: NonNegative = Field(
        description="Added to the sensitivity for rounding errors, in the same unit."
    )
    noise_multiplier: NonNegative = Field(
        description="Standard deviation of the noise / (l2_sensitivity + numerical_slack)."
    )
    noise_standard_deviation: NonNegative
    count: int = Field(ge=1, description="How often the mechanism was invoked.")
    sampling_probability: float = Field(gt=0, le=1, description="1 is full batch.")
    share_of_budget: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="Of mu^2, for all invocations together, as planned."
    )

    @model_validator(mode="after")
    def _noise_is_sufficient(self) -> Self:
        if self.noise_multiplier == 0:
            return self
        needed = self.noise_multiplier * self.l2_sensitivity
        if self.noise_standard_deviation < needed * (1 - _ROUNDING):
            raise ValueError(
                f"noise_standard_deviation must be at least noise_multiplier * l2_sensitivity = "
                f"{needed!r}, got {self.noise_standard_deviation!r}."
            )
        return self

    @property
    def event(self) -> dp_accounting.DpEvent:
        """All invocations, as dp_accounting describes them."""
        return release_event(self.noise_multiplier, self.count, self.sampling_probability)


class PrivacyStatement(_Model):
    """Everything that a reader needs to judge a privacy guarantee.

    Immutable by assignment; `make_statement` builds one from what ran. Texts and pages are
    renderings of it. Infinite numbers appear in JSON as the string "inf".
    """

    schema_version: Literal["0"] = "0"
    estimator: str
    private: bool
    reasons_not_private: list[str]
    target_epsilon: NonNegativeOrInf
    target_delta: float = Field(ge=0, lt=1)
    neighboring_relation: Literal["add_or_remove_one", "replace_one"]
    unit_of_privacy: str = "one row"
    accountant: Literal["exact", "pld", "rdp"] = Field(
        description="The tightest accountant for these releases."
    )
    epsilon_by_accountant: dict[str, EpsilonOrReason] = Field(
        description="Epsilon at target_delta; pld only where it is the tightest."
    )
    mu: NonNegativeOrInf | None = Field(
        description="Composed Gaussian-DP parameter; null when a release is sampled."
    )
    releases: list[ReleaseRecord]
    rests_on: list[str] = Field(description="Assumptions, in plain sentences.")
    random_source: str
    versions: dict[str, str]

    def to_json(self, indent: int | None = 2) -> str:
        """Write strict JSON (no Infinity or NaN)."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        pydantic.ValidationError
            When `text` does not follow the schema. It is a ValueError.
        """
        return cls.model_validate_json(text)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema (2020-12) of what `to_json` writes."""
        schema = cls.model_json_schema(mode="serialization")
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    def to_text(self) -> str:
        """Render the statement as plain text for people."""
        return render_text(self)

    def __str__(self) -> str:
        return self.to_text()


def make_statement(
    plan: PrivacyPlan,
    records: Sequence[ReleaseRecord],
    *,
    estimator: str,
    seeded: bool,
    rests_on: Sequence[str],
    random_source: str,
    unit_of_privacy: str = "one row",
) -> PrivacyStatement:
    """State what the releases that ran add up to, at the plan's delta.

    Parameters
    ----------
    plan : PrivacyPlan
        The promise: targets and neighboring relation.
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

    Raises
    ------
    RuntimeError
        When what ran exceeds the plan. Nothing of it may be published.
    """
    event = dp_accounting.ComposedDpEvent([record.event for record in records])
    accountant = default_accountant(event)
    # PLD costs time and is left out where it is not the tightest.
    others = [name for name in ("exact", "rdp") if name != accountant]
    epsilons = epsilon_by_accountant(
        event,
        plan.target_delta,
        neighboring_relation=plan.neighboring_relation,
        accountants=[accountant, *others],
    )
    steps = gaussian_steps(event)
    mu = None if any(step.is_sampled for step in steps) else composed_mu(steps)
    _refuse_excess(plan, epsilons[accountant], mu)
    reasons = _reasons_not_private(plan, seeded)
    return PrivacyStatement.model_validate(
        {
            "estimator": estimator,
            "private": not reasons,
            "reasons_not_private": reasons,
            "target_epsilon": plan.target_epsilon,
            "target_delta": plan.target_delta,
            "neighboring_relation": plan.neighboring_relation,
            "unit_of_privacy": unit_of_privacy,
            "accountant": accountant,
            "epsilon_by_accountant": epsilons,
            "mu": mu,
            "releases": list(records),
            "rests_on": list(rests_on),
            "random_source": random_source,
            "versions": _versions(),
        }
    )


def _refuse_excess(plan: PrivacyPlan, epsilon: float | str, mu: float | None) -> None:
    planned_mu = plan.mu
    if mu is not None and planned_mu is not None and mu > planned_mu * (1 + _ROUNDING):
        raise RuntimeError(
            f"What ran exceeds the plan: composed mu = {mu!r}, planned {planned_mu!r}. "
            "Do not publish any of its releases."
        )
    # A default accountant that cannot evaluate what ran cannot vouch for it either.
    if plan.target_epsilon < math.inf and (
        isinstance(epsilon, str) or epsilon > plan.target_epsilon
    ):
        raise RuntimeError(
            f"What ran exceeds the plan: epsilon = {epsilon} at delta = {plan.target_delta!r}, "
            f"planned {plan.target_epsilon!r}. Do not publish any of its releases."
        )


def _reasons_not_private(plan: PrivacyPlan, seeded: bool) -> list[str]:
    reasons = []
    if plan.target_epsilon == math.inf:
        reasons.append("epsilon is infinite: no noise was asked for and nothing is protected")
    if seeded:
        reasons.append(
            "random_state was given: anyone who knows the seed can remove the noise; do not publish"
        )
    return reasons


def _versions() -> dict[str, str]:
    packages = ("dpfc", "dp-accounting", "numpy", "scipy", "torch")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
