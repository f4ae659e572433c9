"""What is public about a table's columns: kinds, bounds, values; a YAML file or Python."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import date
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from dpfc._support.files import write_whole
from dpfc._support.suggestions import did_you_mean
from dpfc._support.yaml_reading import read_yaml
from dpfc.features.tables.values import MISSING_WORDS, comparable

__all__ = [
    "BooleanColumn",
    "CategoryColumn",
    "DateColumn",
    "FeatureColumn",
    "LabelColumn",
    "NumberColumn",
    "OtherColumn",
    "TableSchema",
    "read_schema",
]

_HAND = "written by hand"
_MOST_VALUES = 10_000
_MOST_KNOTS = 1000
_KNOTS = Field(ge=2, le=_MOST_KNOTS)

Missing = Literal["refuse", "indicator"]


class _Part(BaseModel):
    """Nothing but known keys, and no conversion of one kind into another."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NumberColumn(_Part):
    """A number between public bounds; what is beyond them counts as the bound.

    Attributes
    ----------
    min, max : float
        The bounds, `min` below `max`.
    scale : {"linear", "log"}
        "log" for what spreads over powers of ten: equal ratios are then equal steps. With
        ``min: 0`` it is log(1 + x), else log(x).
    knots : int or None
        Points between which the number's effect is linear, the bounds among them; 2 is the number
        as it is. None takes the schema's.
    missing : {"refuse", "indicator"} or float
        What to do where it is missing: refuse the row, mark it in a feature of its own, or take
        this number.
    unit : str or None
        Of the numbers, for people.
    """

    type: Literal["number"] = "number"
    min: float
    max: float
    scale: Literal["linear", "log"] = "linear"
    knots: Annotated[int, _KNOTS] | None = None
    missing: Missing | float = "refuse"
    unit: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min < self.max:
            raise ValueError("min must be below max")
        if not math.isfinite(self.max - self.min):
            raise ValueError("max - min is larger than numbers can be")
        if self.scale == "log" and self.min < 0:
            raise ValueError("scale: log needs a min of 0 or more")
        return self


class CategoryColumn(_Part):
    """One of a public list of values.

    Attributes
    ----------
    values : tuple of str
        All of them, each once.
    unlisted : {"other", "missing", "refuse"}
        What any other value counts as: one that is called other, a missing one, or a fault.
    missing : {"refuse", "indicator"} or str
        As for numbers; a text is one of `values`.
    unit : str or None
    """

    type: Literal["category"] = "category"
    values: tuple[str, ...] = Field(min_length=1, max_length=_MOST_VALUES)
    unlisted: Literal["other", "missing", "refuse"] = "other"
    missing: str = "refuse"
    unit: str | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _as_texts(cls, values: object) -> object:
        return _texts(values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_repeated(self.values)
        known = {comparable(value) for value in self.values}
        if self.missing not in ("refuse", "indicator") and comparable(self.missing) not in known:
            raise ValueError("missing must be refuse, indicator or one of values")
        return self


class BooleanColumn(_Part):
    """True or false, yes or no, 1 or 0."""

    type: Literal["boolean"] = "boolean"
    missing: Missing | bool = "refuse"
    unit: str | None = None


class DateColumn(_Part):
    """A day, between public bounds.

    Attributes
    ----------
    min, max : date
    parts : tuple of {"date", "month", "weekday"}
        What becomes features: the day's place between the bounds, its month, its day of the week.
    format : str or None
        As for `datetime.strptime`; None reads ISO 8601, such as 2026-01-31.
    knots, missing, unit
        As for numbers; a public value is a date.
    """

    type: Literal["date"] = "date"
    min: date
    max: date
    parts: tuple[Literal["date", "month", "weekday"], ...] = Field(("date",), min_length=1)
    format: str | None = None
    knots: Annotated[int, _KNOTS] | None = None
    missing: Missing | date = "refuse"
    unit: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min < self.max:
            raise ValueError("min must be before max")
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts names one twice")
        return self


class LabelColumn(_Part):
    """What is to be predicted.

    Attributes
    ----------
    values : tuple of str or None
        The public list of classes; None leaves it to the reader of the table.
    """

    role: Literal["label"] = "label"
    values: tuple[str, ...] | None = None

    @field_validator("values", mode="before")
    @classmethod
    def _as_texts(cls, values: object) -> object:
        return _texts(values)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_repeated(self.values or ())
        return self


class OtherColumn(_Part):
    """No feature: whose rows these are, the row's name, or what is left out."""

    role: Literal["group", "id", "ignore"]


FeatureColumn = NumberColumn | CategoryColumn | BooleanColumn | DateColumn
_FEATURES = {"number", "category", "boolean", "date"}
_ROLES = {"label", "group", "id", "ignore"}


def _kind(column: object) -> str | None:
    """Which of the columns is meant."""
    if isinstance(column, _Part):
        return getattr(column, "role", getattr(column, "type", None))
    role = column.get("role") if isinstance(column, Mapping) else None
    kind = role if role is not None else column.get("type") if isinstance(column, Mapping) else None
    return kind if isinstance(kind, str) and kind in _FEATURES | _ROLES else None


_Column = Annotated[
    Annotated[NumberColumn, Tag("number")]
    | Annotated[CategoryColumn, Tag("category")]
    | Annotated[BooleanColumn, Tag("boolean")]
    | Annotated[DateColumn, Tag("date")]
    | Annotated[LabelColumn, Tag("label")]
    | Annotated[OtherColumn, Tag("group")]
    | Annotated[OtherColumn, Tag("id")]
    | Annotated[OtherColumn, Tag("ignore")],
    Discriminator(_kind),
]


class TableSchema(_Part):
    """All columns of a table, and what is public about them.

    Attributes
    ----------
    columns : dict of str to column
        In the features' order; at least one is a feature, at most one each a label, a group, an
        id.
    source : str
        Where the bounds and values come from: who writes a schema answers for its being public.
    knots : int
        Of numbers and dates that do not say their own. Fewer than 5 lose what bends, more than 9
        cost little: what noise does to a row does not depend on them.
    other_columns : {"refuse", "ignore"}
        What to do with a column of the table that is not here.
    missing_values : tuple of str
        Texts that stand for a missing value, where a column does not list them as values.
    """

    columns: dict[str, _Column]
    source: str = _HAND
    knots: Annotated[int, _KNOTS] = 9
    other_columns: Literal["refuse", "ignore"] = "refuse"
    missing_values: tuple[str, ...] = MISSING_WORDS

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, content: Any) -> Any:
        """``notes: ignore`` is short for ``notes: {role: ignore}``."""
        if not isinstance(content, Mapping) or not isinstance(content.get("columns"), Mapping):
            return content
        columns = {
            name: {"role": column} if isinstance(column, str) else column
            for name, column in content["columns"].items()
        }
        return {**content, "columns": columns}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for role in ("label", "group", "id"):
            named = [name for name in self.columns if self._role(name) == role]
            if len(named) > 1:
                raise ValueError(f"{named[0]!r} and {named[1]!r} both have the role {role}")
        if not self.features:
            raise ValueError("no column is a feature")
        return self

    def _role(self, name: str) -> str:
        return getattr(self.columns[name], "role", "feature")

    @property
    def features(self) -> dict[str, FeatureColumn]:
        """The columns that become features."""
        found: dict[str, FeatureColumn] = {
            name: column for name, column in self.columns.items() if isinstance(column, _Features)
        }
        return found

    def with_role(self, role: str) -> str | None:
        """Name of the column that has a role; None if none has."""
        return next((name for name in self.columns if self._role(name) == role), None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The public list of classes."""
        label = self.columns.get(self.with_role("label") or "")
        return label.values if isinstance(label, LabelColumn) else None

    def for_new_rows(self) -> TableSchema:
        """The same for rows whose label and group are not known, or not to be read."""
        named = [self.with_role(role) for role in ("label", "group")]
        ignored = {name: OtherColumn(role="ignore") for name in named if name is not None}
        return self.model_copy(update={"columns": {**self.columns, **ignored}})

    def to_dict(self) -> dict[str, Any]:
        """As plain values, every default written out; `TableSchema.from_dict` reads them."""
        body: dict[str, Any] = self.model_dump(mode="json")
        return body

    @classmethod
    def from_dict(cls, content: Any, where: str = "the schema") -> TableSchema:
        """Check a schema's plain values.

        Parameters
        ----------
        content : mapping
        where : str
            What holds it, for messages.

        Raises
        ------
        ValueError
            If it is none; the message names the column and the key.
        """
        if not isinstance(content, Mapping):
            raise ValueError(
                f"{where} is no schema: it needs columns: and a line for each of them."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = dict.fromkeys(_explain(fault) for fault in error.errors())
            raise ValueError(f"{where}: {'; '.join(faults)}.") from None

    @property
    def sha256(self) -> str:
        """Of what it says, however it is written."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def save(self, path: str | PathLike[str]) -> None:
        """Write it as YAML that people can change; defaults are left out.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        body = self.model_dump(mode="json", exclude_defaults=True)
        kinds = self.to_dict()["columns"]
        for name, column in body["columns"].items():
            kind = "role" if "role" in kinds[name] else "type"
            body["columns"][name] = {
                kind: kinds[name][kind],
                **{k: _short(column[k]) for k in column},
            }
        ordered = {"source": self.source, **body}
        # A column that fits is one line.
        text = yaml.safe_dump(
            ordered, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
        )
        write_whole(Path(path), text)


_Features = (NumberColumn, CategoryColumn, BooleanColumn, DateColumn)


def read_schema(schema: TableSchema | Mapping[str, Any] | str | PathLike[str]) -> TableSchema:
    """A schema from a YAML file, plain values, or as it is.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is none; the message names the file, the column and the key.
    """
    if isinstance(schema, TableSchema):
        return schema
    if isinstance(schema, Mapping):
        return TableSchema.from_dict(schema)
    if not isinstance(schema, str | PathLike):
        raise ValueError(
            f"schema must be a TableSchema, a dictionary or a path, got {type(schema).__name__}."
        )
    path = Path(schema)
    root, content = read_yaml(path)
    return TableSchema.from_dict(_as_written(root, content, path), str(path))


def _as_written(root: yaml.Node | None, content: Any, path: Path) -> Any:
    """Names of columns and listed values as the texts that stand there.

    YAML takes ``no`` for a bool and ``1.10`` for a number; here they are names.
    """
    columns = _below(root, "columns")
    if not isinstance(content, dict) or not isinstance(columns, yaml.MappingNode):
        return content
    keys = [key for key, _ in columns.value]
    for place, key in enumerate(keys):
        if key.value in (before.value for before in keys[:place]):
            raise ValueError(
                f"{path}, line {key.start_mark.line + 1}: column {key.value!r} stands there twice."
            )
    if len(keys) != len(content["columns"]):
        raise ValueError(f"{path}: two columns have one name to YAML: quote them.")
    named: dict[str, Any] = {}
    for (key, node), column in zip(columns.value, content["columns"].values(), strict=True):
        values = _below(node, "values")
        if isinstance(column, dict) and isinstance(values, yaml.SequenceNode):
            column = column | {"values": [getattr(value, "value", None) for value in values.value]}
        named[key.value] = column
    return content | {"columns": named}


def _below(node: yaml.Node | None, name: str) -> yaml.Node | None:
    """The node that a key names."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), None)


def _short(value: Any) -> Any:
    """A whole number without its point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _texts(values: object) -> object:
    """Numbers among values as their texts; what may have been meant as another text is refused."""
    if not isinstance(values, list | tuple):
        return values
    if any(isinstance(value, bool) or value is None for value in values):
        raise ValueError("values must be texts or numbers: quote 'yes', 'no', 'true' and 'null'")
    return tuple(comparable(value) if isinstance(value, int | float) else value for value in values)


def _refuse_repeated(values: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for value in values:
        if not value.strip():
            raise ValueError("values holds an empty text: missing says what becomes of those")
        if comparable(value) in seen:
            raise ValueError(f"values holds {value!r:.80} twice")
        seen.add(comparable(value))


def _explain(fault: Any) -> str:
    """Words for one fault of pydantic's."""
    place = [part for part in fault["loc"] if part not in _FEATURES | _ROLES]
    column = f"column {place[1]!r}" if len(place) > 1 and place[0] == "columns" else ""
    # Behind the key, pydantic names the branch of a union.
    key = (place[2:3] if column else place[:1]) or [""]
    where = ": ".join(part for part in (column, str(key[0])) if part)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("union_tag_not_found", "union_tag_invalid"):
        message = (
            f"type must be one of {', '.join(sorted(_FEATURES))}, or role one of "
            + ", ".join(sorted(_ROLES))
        )
    if fault["type"] == "extra_forbidden":
        return f"{where} {_not_here(str(key[0]), fault['loc'])}".rstrip(".")
    return f"{where}: {message}" if where else message


def _not_here(key: str, place: tuple[Any, ...]) -> str:
    """Words for a key that is not this column's: another kind's, or nobody's."""
    kind = next((part for part in place if part in _FEATURES | _ROLES), None)
    if kind is None or key not in _KEYS:
        return "is not known." + did_you_mean(key, _KEYS)
    classes = "; values lists its classes" if kind == "label" else ""
    return f"does not go with {'role' if kind in _ROLES else 'type'}: {kind}{classes}"


_KEYS = sorted(
    {
        key
        for model in (*_Features, LabelColumn, OtherColumn, TableSchema)
        for key in model.model_fields
    }
)
