"""The parts of a privacy statement, and how their numbers are written as strict JSON."""

from __future__ import annotations

import math
import re
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import dp_accounting
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from dpfc._support.notebook_tables import fields_table
from dpfc.accounting.plans import release_event
from dpfc.accounting.profiles import PrivacyProfile

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # it has no public name

__all__ = [
    "FALSE_POSITIVE_RATES",
    "ROUNDING",
    "AttackPoint",
    "AttackRecord",
    "EpsilonOrReason",
    "EventJson",
    "FilterRecord",
    "GaussianFilterRecord",
    "NonNegative",
    "NonNegativeOrInf",
    "Probability",
    "Record",
    "ReleaseRecord",
    "RenyiFilterRecord",
]

# Where statements say what an attack can reach.
FALSE_POSITIVE_RATES: Final = (0.001, 0.01, 0.1)
# Relative: a noise multiplier recomputed from a standard deviation is off by a few ulps.
ROUNDING: Final = 1e-12
# Relative; the slack is a difference of two numbers that are nearly equal.
_NOISE_TOLERANCE: Final = 1e-9
# Floats count exactly up to here.
_MAX_COUNT: Final = 2**53
# Of a Rényi filter. A sampled event costs a sum of as many terms as the order, and a file
# that was edited must not keep its reader busy for ever.
_MAX_ORDER: Final = 1e6


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
Probability = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
_Unavailable = Annotated[str, Field(pattern="^unavailable: ")]
EpsilonOrReason = Annotated[NonNegativeOrInf | _Unavailable, _FROM_JSON]
EventJson = Annotated[
    dict[str, Any],
    Field(
        description="As dpfc.accounting.event_to_json writes dp_accounting's DpEvent: the name "
        "of its class as `type`, its numbers, and the events inside it."
    ),
    WithJsonSchema(
        {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
    ),
]


def _without_sections(schema: dict[str, Any]) -> None:
    """Keep of a docstring what describes the data: not the headings that numpydoc underlines."""
    text = schema.get("description", "")
    schema["description"] = re.split(r"\n\n[^\n]+\n-{3,}\n", text)[0]


def _with_a_unit_or_without(schema: dict[str, Any]) -> None:
    _without_sections(schema)
    schema["required"].remove("sum_unit")


def _fields(kind: type) -> list[str]:
    return list(kind.model_fields) if issubclass(kind, BaseModel) else []


class _RecordType(ModelMetaclass):
    """Shows of a class of records what this package says of it, as `Record` does of its objects.

    So `help`, tab completion and signatures are free of what validates records inside.
    """

    def __dir__(self) -> list[str]:
        ours = [kind for kind in self.__mro__ if kind not in BaseModel.__mro__]
        names = {name for kind in ours for name in vars(kind) if not name.startswith("_")}
        return sorted((names | (set(dir(object)) - vars(BaseModel).keys())) - {"model_config"})

    @property
    def __signature__(self) -> Signature:
        fields = [Parameter(name, Parameter.KEYWORD_ONLY) for name in _fields(self)]
        return Signature(fields)

    @__signature__.setter
    def __signature__(self, _: object) -> None:
        """Pydantic's own spells out how each field is validated."""


class Record(BaseModel, metaclass=_RecordType):
    """A frozen part of a statement; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_without_sections,
    )

    def __dir__(self) -> list[str]:
        """Show what this package says of a record, not what its base class could do."""
        ours = [kind for kind in type(self).__mro__ if kind not in BaseModel.__mro__]
        names = {name for kind in ours for name in vars(kind) if not name.startswith("_")}
        names |= type(self).model_fields.keys() | set(dir(object))
        return sorted(names - {"model_config"})

    def _repr_html_(self) -> str:
        rows = [(name, getattr(self, name)) for name in type(self).model_fields]
        return fields_table(type(self).__name__, rows)


class ReleaseRecord(Record):
    """One release that ran, as the mechanism that ran it describes it.

    Raises
    ------
    pydantic.ValidationError
        Also when the noise is not `noise_multiplier` * (`l2_sensitivity` +
        `numerical_slack`). It is a ValueError.
    """

    model_config = ConfigDict(json_schema_extra=_with_a_unit_or_without)

    name: str = Field(min_length=1)
    description: str = Field(description="What is summed, in words or as a formula.")
    shape: list[Annotated[int, Field(ge=0, le=_MAX_COUNT)]]
    l2_sensitivity: NonNegativeOrInf = Field(
        description="For the statement's neighboring relation, in exact arithmetic."
    )
    numerical_slack: NonNegative = Field(
        description="Added to the sensitivity for rounding errors, in the same unit; 0 where "
        "every sum is of integers from the start."
    )
    noise_multiplier: NonNegative = Field(
        description="Standard deviation of the noise / (l2_sensitivity + numerical_slack)."
    )
    noise_standard_deviation: NonNegative
    sum_unit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="The sum, and the noise on it, are whole multiples of this. Left out where "
        "they are not: in statements of version 1, and where epsilon is infinite.",
    )
    count: _Count = Field(description="How often the mechanism was invoked.")
    sampling_probability: float = Field(gt=0, le=1, description="1 is full batch.")
    share_of_budget: Annotated[float, Field(gt=0, le=1)] | None = Field(
        description="Of mu^2, for all invocations together, as planned."
    )

    @model_validator(mode="after")
    def _noise_is_what_it_multiplies(self) -> Self:
        if self.noise_multiplier == 0:
            return self
        needed = self.noise_multiplier * (self.l2_sensitivity + self.numerical_slack)
        if not math.isclose(self.noise_standard_deviation, needed, rel_tol=_NOISE_TOLERANCE):
            raise ValueError(
                "noise_standard_deviation must be noise_multiplier * (l2_sensitivity + "
                f"numerical_slack) = {needed!r}, got {self.noise_standard_deviation!r}."
            )
        return self

    @model_serializer(mode="wrap")  # a return type would take the place of the record's schema
    def _as_its_version_has_it(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        written = handler(self)
        if self.sum_unit is None:  # version 1 has no such field
            del written["sum_unit"]
        return written

    @property
    def event(self) -> dp_accounting.DpEvent:
        """All invocations, as dp_accounting describes them."""
        return release_event(self.noise_multiplier, self.count, self.sampling_probability)


class AttackPoint(Record):
    """The most that any attack reaches at one false-positive rate."""

    false_positive_rate: Probability
    true_positive_rate: Probability = Field(description="An upper bound for every attack.")


class AttackRecord(Record):
    """What the guarantee leaves to an attacker who tells two neighboring data sets apart.

    The attacker sees everything that was released, knows both data sets, and is not
    limited in computing power. Not knowing the seed of the noise is all that is assumed.

    References
    ----------
    Dong, Roth and Su (2022), Gaussian Differential Privacy, Section 2.1.
    """

    points: list[AttackPoint] = Field(
        min_length=len(FALSE_POSITIVE_RATES),
        max_length=len(FALSE_POSITIVE_RATES),
        description="At the false-positive rates 0.001, 0.01 and 0.1, in this order.",
    )
    advantage: Probability = Field(
        description="Largest true-positive rate less false-positive rate, of any attack."
    )

    @classmethod
    def of(cls, profile: PrivacyProfile) -> Self:
        """Read the figures off a privacy profile."""
        points = [
            AttackPoint(
                false_positive_rate=rate,
                true_positive_rate=min(1.0, profile.true_positive_rate(rate)),
            )
            for rate in FALSE_POSITIVE_RATES
        ]
        return cls(points=points, advantage=min(1.0, profile.advantage))


class GaussianFilterRecord(Record):
    """The filter that accepts full-batch Gaussian releases while sum count / z^2 <= mu^2."""

    kind: Literal["gdp"]
    mu: float = Field(gt=0, allow_inf_nan=False)


class RenyiFilterRecord(Record):
    """The filter that accepts spends while, at one order, Renyi divergences fit the budget."""

    kind: Literal["renyi"]
    orders: list[Annotated[float, Field(gt=1, le=_MAX_ORDER)]] = Field(min_length=1)
    budgets: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        description="Largest sum of Renyi divergences, in nats, by order."
    )


FilterRecord = Annotated[GaussianFilterRecord | RenyiFilterRecord, Field(discriminator="kind")]
