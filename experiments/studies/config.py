"""A study as a YAML file describes it; what is wrong with one is said with its line."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from dpfc._support.limits import LimitError, check_limit, shown_count
from dpfc._support.suggestions import did_you_mean
from dpfc._support.yaml_reading import parse_yaml, read_yaml
from dpfc.experiments.estimators import STUDY_ESTIMATORS

__all__ = ["DataSet", "Method", "Range", "Search", "StudyConfig", "read_study"]

Scalar = bool | int | float | str | None
# Characters of a value that a message repeats.
_SHOWN = 80
# Of a folder that a name becomes: 4 bytes a character fit what file systems allow.
_LONGEST_NAME = 60


def _named(name: str) -> str:
    """A name that can be a folder's, in the letters of any language."""
    name = unicodedata.normalize("NFC", name)
    plain = all(c.isalnum() or c in " ._-" or unicodedata.category(c)[0] == "M" for c in name)
    if not (name[:1].isalnum() and plain and name[-1] != " " and len(name) <= _LONGEST_NAME):
        raise ValueError(
            "a name starts with a letter or digit, has only letters, digits, blanks, dots, hyphens "
            f"and underscores, and at most {_LONGEST_NAME} of them"
        )
    return name


Name = Annotated[str, AfterValidator(_named)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Range(_Strict):
    """Values between two numbers, to be sampled."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("low must be below high, and both finite")
        if self.log and self.low <= 0.0:
            raise ValueError("a range on a log scale starts above 0")
        return self


Values = Scalar | list[Scalar] | Range


def _as_list(value: Any) -> Any:
    return _no_flag(value if isinstance(value, list) else [value])


def _no_flag(value: Any) -> Any:
    """No number is meant by yes, which YAML takes for true and Python for 1."""
    if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value])):
        raise ValueError("a number is needed, not yes, no, true or false")
    return value


def _no_text(value: Any) -> Any:
    """Numbers come as numbers: "012" is neither twelve seeds nor three."""
    if isinstance(value, str) or (
        isinstance(value, list) and any(isinstance(item, str) for item in value)
    ):
        raise ValueError("seeds are a number, a list of numbers or null, without quotes")
    return _no_flag(value)


Seeds = Annotated[PositiveInt | list[int] | None, BeforeValidator(_no_text)]


class DataSet(_Strict):
    """Where rows come from: a pair of feature caches or of data sets to embed, or a packaged one.

    Attributes
    ----------
    name : str
    train, test : str or None
        Folders of feature caches, or data sets as `dpfc extract --data` takes them.
    builtin : str or None
        A data set of the accuracy benchmark, such as "digits", in their place.
    rows_per_class : int or None
        Train on the first so many rows of each class only.
    """

    name: Name
    train: str | None = None
    test: str | None = None
    builtin: str | None = None
    rows_per_class: PositiveInt | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        pair = (self.train is None) + (self.test is None)
        if pair == 1 or (pair == 0) == (self.builtin is not None):
            raise ValueError("give train and test, or builtin")
        if self.builtin is not None:
            from dpfc.experiments.studies.named_data import DATA_SETS

            if self.builtin not in DATA_SETS:
                raise ValueError(_unknown("builtin", self.builtin, DATA_SETS))
        return self


class Method(_Strict):
    """A method, and parameters of its own.

    Attributes
    ----------
    name : {"fc", "ls", "gd", "newton", "dpsgd"}
    label : str or None
        In tables and plots; needed where a method stands twice.
    parameters : dict
        A value; a list, which is a grid; or a range, which is sampled.
    epsilons, seeds
        In place of the study's.
    """

    name: str
    label: str | None = None
    parameters: dict[str, Values] = Field(default_factory=dict)
    epsilons: Annotated[list[PositiveFloat], BeforeValidator(_as_list)] | None = None
    seeds: Seeds = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in STUDY_ESTIMATORS:
            raise ValueError(_unknown("method", self.name, STUDY_ESTIMATORS))
        known = estimator_parameters(self.name)
        for parameter in self.parameters:
            if parameter not in known:
                raise ValueError(_unknown(f"{self.name}: parameter", parameter, known))
        return self


class Search(_Strict):
    """How ranges are sampled: Optuna's samplers, `trials` settings at every ε of every method."""

    trials: PositiveInt = 20
    sampler: Literal["random", "tpe"] = "random"
    seed: int = 0


class StudyConfig(_Strict):
    """One study: every data set × backbone × method × ε × parameters × seed.

    Attributes
    ----------
    seeds : int, list of int or None
        A number of seeds from 0, or the seeds; runs are then repeatable and not private. None
        draws real noise, once.
    parameters : dict
        For every method that has them.
    ceiling : bool
        Fit logistic regression without privacy as well.
    """

    name: Name
    description: str = ""
    datasets: list[DataSet] = Field(min_length=1)
    backbones: Annotated[list[str], BeforeValidator(_as_list)] = Field(default_factory=list)
    methods: list[Method] = Field(min_length=1)
    epsilons: Annotated[list[PositiveFloat], BeforeValidator(_as_list)] = Field(min_length=1)
    delta: float = Field(default=1e-5, gt=0.0, lt=1.0)
    seeds: Seeds = 5
    parameters: dict[str, Values] = Field(default_factory=dict)
    search: Search = Search()
    ceiling: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _unique("datasets", [data.name for data in self.datasets])
        _unique("methods", [method.label or method.name for method in self.methods])
        _unique("epsilons", self.epsilons)
        known = set().union(*(estimator_parameters(method.name) for method in self.methods))
        for parameter in self.parameters:
            if parameter not in known:
                raise ValueError(_unknown("parameter", parameter, known))
        runs = self._count_runs()
        check_limit("study_runs", runs, f"the study has {shown_count(runs)} runs")
        return self

    def _count_runs(self) -> int:
        """Runs that the study spells out, counted before one is made."""
        places = sum(1 if data.builtin else max(len(self.backbones), 1) for data in self.datasets)
        return places * sum(self._runs_of(method) for method in self.methods)

    def _runs_of(self, method: Method) -> int:
        known = estimator_parameters(method.name)
        values = {name: value for name, value in self.parameters.items() if name in known}
        spread = [*(values | method.parameters).values()]
        settings = math.prod(len(value) for value in spread if isinstance(value, list))
        trials = self.search.trials if any(isinstance(value, Range) for value in spread) else 1
        seeds = self.seeds if method.seeds is None else method.seeds
        n_seeds = seeds if isinstance(seeds, int) else len(seeds or [None])
        return settings * trials * n_seeds * len(method.epsilons or self.epsilons)


def estimator_parameters(method: str) -> list[str]:
    """Names of the parameters that a study may set; what a run sets by itself is left out."""
    import dpfc

    own = {
        "epsilon", "delta", "classes", "random_state", "ledger", "dataset", "verbose",
        "public_features", "checkpoint", "checkpoint_every", "device", "schedule_norms",
        "vocabulary_size",
    }  # fmt: skip
    return sorted(set(getattr(dpfc, STUDY_ESTIMATORS[method])().get_params()) - own)


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read and check a study.

    Parameters
    ----------
    path : Path
        YAML.
    overrides : sequence of str
        ``key=value``, the value in YAML; dots go into what is nested (``search.trials=5``).

    Raises
    ------
    ValueError
        If something is wrong; with file, line, and the nearest right word where there is one.
    """
    root, content = read_yaml(path)
    if root is None or not isinstance(content, dict):
        raise ValueError(f"{path}: a study is a mapping of names to values, such as name: first.")
    _refuse_repeated(root, path)
    _refuse_controls(root, path)
    overridden = {_override(content, override) for override in overrides}
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        lines = [_explain(path, root, fault, overridden) for fault in error.errors()]
        raise ValueError("; ".join(dict.fromkeys(lines)) + ".") from None


def _override(content: dict[str, Any], override: str) -> str:
    """Set one value of the study; returns its first key."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"an override is key=value, such as epsilons=[0.5,1]; got {override!r}.")
    try:
        _, value = parse_yaml(text, "it")
    except LimitError:
        raise
    except ValueError:
        raise ValueError(f"the value of {_shown(override)} is not YAML.") from None
    *outer, last = key.split(".")
    place = content
    for part in outer:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ValueError(f"{key!r}: {part} holds no names; override it as a whole.")
    place[last] = value
    return key.split(".")[0]


def _explain(path: Path, root: yaml.Node, fault: Mapping[str, Any], overridden: set[str]) -> str:
    """Words for one fault of pydantic's."""
    # Of the alternatives that a value may be, pydantic names the branch too; it is no key.
    place = [part for part in fault["loc"] if not _is_branch(part)]
    where = f"{path}, line {_line(root, place)}"
    if place and place[0] in overridden:
        where = "override"
    shown = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        return f"{where}: {_unknown('key', shown.rpartition('.')[2], _keys(place))}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_type":
        message = "must be a text: put it in quotes"
    if fault["type"] == "missing":
        return f"{where}: {shown} is missing"
    got = "" if isinstance(fault["input"], dict | list) else f", got {_shown(fault['input'])}"
    return f"{where}: {shown + ': ' if shown else ''}{message}{got}"


def _is_branch(part: object) -> bool:
    branches = {"int", "float", "str", "bool", "Range"}
    return isinstance(part, str) and (part in branches or part.startswith(("list[", "constrained")))


def _keys(place: Sequence[Any]) -> list[str]:
    """What could stand beside the last key of a place."""
    models: dict[str, type[BaseModel]] = {
        "datasets": DataSet, "methods": Method, "search": Search, "parameters": Range,
    }  # fmt: skip
    inner = [part for part in place[:-1] if isinstance(part, str) and part in models]
    return list((models[inner[-1]] if inner else StudyConfig).model_fields)


def _unknown(what: str, word: str, known: Any) -> str:
    hint = did_you_mean(word, list(known), otherwise=f" It is one of {', '.join(sorted(known))}")
    return f"there is no {what} {word!r}.{hint}"


def _line(node: yaml.Node, place: Sequence[Any]) -> int:
    """Line of the innermost thing on the way that is in the file, from 1."""
    line = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return int(line)


def _refuse_repeated(node: yaml.Node, path: Path) -> None:
    """YAML takes the last of two equal keys in silence."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise ValueError(
                    f"{path}, line {key.start_mark.line + 1}: {key.value!r} is there twice."
                )
            seen.add(key.value)
            _refuse_repeated(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated(item, path)


def _refuse_controls(node: yaml.Node, path: Path) -> None:
    """Keep texts that steer a terminal, or that no file can hold, out of labels and names."""
    if isinstance(node, yaml.ScalarNode):
        for mark in node.value:
            if unicodedata.category(mark) in ("Cc", "Cs") and mark not in "\n\t":
                raise ValueError(
                    f"{path}, line {node.start_mark.line + 1}: a text holds the control character "
                    f"U+{ord(mark):04X}: leave it out."
                )
        return
    children = node.value if isinstance(node, yaml.SequenceNode) else itertools.chain(*node.value)
    for child in children:
        _refuse_controls(child, path)


def _unique(what: str, values: Sequence[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            hint = "; give each a label of its own" if what == "methods" else ""
            raise ValueError(f"{what} holds {value!r} twice{hint}")
        seen.add(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
