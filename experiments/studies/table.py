"""The table of a study: filtered, averaged over seeds, turned, and written for others."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpfc._support.csv_text import write_csv
from dpfc._support.files import check_regular
from dpfc._support.words import shown
from dpfc.experiments.studies.run_checks import check_run
from dpfc.experiments.studies.store import RESULTS, results_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Group",
    "best_settings",
    "filter_rows",
    "group_rows",
    "load_results",
    "pivot",
    "to_csv",
    "to_latex",
    "to_text",
]

_WORDS = ("study", "dataset", "backbone", "method", "label", "status", "key", "code")
_ACROSS = ("dataset", "epsilon", "label")
_NUMBERS = ("epsilon", "delta", "seed", "accuracy", "seconds")


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    dataset: str
    backbone: str | None
    label: str
    epsilon: float
    parameters: str
    accuracy: float
    standard_error: float | None
    seconds: float | None
    runs: int


def load_results(folder: Path) -> pa.Table:
    """Read the table that a sweep wrote.

    Raises
    ------
    ValueError
        If there is none, or it is not of a sweep.
    """
    import pyarrow as pa

    from dpfc.features.cache.parquet_reading import read_columns

    path = folder / RESULTS
    if not path.exists():
        raise ValueError(f"{path} does not exist: run dpfc sweep first.")
    try:
        check_regular(path)
        table = read_columns(path)
        table = table.select(results_schema().names).cast(results_schema())
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{path} is not the table of a sweep: run dpfc sweep again.") from error
    for place, row in enumerate(table.drop_columns(["statement"]).to_pylist()):
        try:
            check_run(row)
        except ValueError as error:
            raise ValueError(
                f"{path} is not the table of a sweep: in row {place}, counted from 0, {error}. "
                "Run dpfc sweep again."
            ) from None
    return table


def filter_rows(rows: Iterable[Mapping[str, Any]], conditions: Sequence[str]) -> list[Any]:
    """Keep rows that meet every condition, ``column=value`` or ``column=value|value``.

    A name that is no column is a parameter of the run's.

    Raises
    ------
    ValueError
        If a condition cannot be read.
    """
    kept = list(rows)
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or not name:
            raise ValueError(f"--where takes column=value, such as label=DP-FC; got {condition!r}.")
        wanted = [_typed(name, value) for value in text.split("|")]
        kept = [row for row in kept if _value(row, name) in wanted]
    return kept


def _typed(name: str, text: str) -> Any:
    if name in _WORDS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = math.inf if text == "inf" else text
    if name in _NUMBERS and not isinstance(value, int | float):
        raise ValueError(f"--where {name} takes a number, got {text!r}.")
    return value


def _value(row: Mapping[str, Any], name: str) -> Any:
    if name in (*_WORDS, *_NUMBERS):
        return row[name]
    return json.loads(row["parameters"]).get(name)


def group_rows(rows: Iterable[Mapping[str, Any]]) -> list[Group]:
    """Average runs over seeds, in the order in which they come; failed ones are left out."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == "ok":
            place = (row["dataset"], row["backbone"], row["label"], row["epsilon"])
            found.setdefault((*place, row["parameters"]), []).append(row)
    return [_group(place, runs) for place, runs in found.items()]


def _group(place: tuple[Any, ...], runs: list[Mapping[str, Any]]) -> Group:
    import numpy as np

    dataset, backbone, label, epsilon, parameters = place
    values = [run["accuracy"] for run in runs]
    seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
    return Group(
        dataset=dataset,
        backbone=backbone,
        label=label,
        epsilon=epsilon,
        parameters=parameters,
        accuracy=float(np.mean(values)),
        standard_error=(
            float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        ),
        seconds=float(np.mean(seconds)) if seconds else None,
        runs=len(values),
    )


def best_settings(groups: Sequence[Group]) -> list[Group]:
    """Keep the setting with the best mean of every method at every ε."""
    best: dict[tuple[Any, ...], Group] = {}
    for group in groups:
        place = group[:4]
        if place not in best or group.accuracy > best[place].accuracy:
            best[place] = group
    return list(best.values())


def pivot(groups: Sequence[Group], across: str = "epsilon") -> tuple[list[str], list[list[str]]]:
    """Give a header and lines of accuracies in percent, one column a value of `across`.

    Parameters
    ----------
    groups : sequence of Group
    across : str
        "epsilon", "dataset", "label" or the name of a parameter; what is left names the lines.

    Raises
    ------
    ValueError
        If no run has such a parameter.
    """
    places = [_place(group) for group in groups]
    if groups and not any(across in place for place in places):
        known = ", ".join(dict.fromkeys(name for place in places for name in place))
        raise ValueError(f"there is no {across!r} to put across; there are {known}.")
    values: list[Any] = list(dict.fromkeys(place.get(across) for place in places))
    if across == "epsilon":
        values.sort()
    names = [name for name in _ACROSS if name != across]
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for group, place in zip(groups, places, strict=True):
        rest = {name: value for name, value in place.items() if name not in (*_ACROSS, across)}
        key = [_shown(name, place[name]) for name in names]
        key[-1] = ", ".join([key[-1], *(f"{n} {_short(v)}" for n, v in rest.items())])
        lines.setdefault(tuple(key), {})[place.get(across)] = _percent(group)
    titles = {"dataset": "data set", "label": "method", "epsilon": "budget"}
    head = [*(titles[name] for name in names), *(_shown(across, value) for value in values)]
    body = [[*key, *(cells.get(v, "–") for v in values)] for key, cells in lines.items()]
    return head, body


def to_text(groups: Sequence[Group], across: str = "epsilon") -> str:
    """A table in Markdown, which reads well as plain text too."""
    first, rest = pivot(groups, across)
    # A bar would end its cell.
    head, *body = ([cell.replace("|", r"\|") for cell in line] for line in (first, *rest))
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([row(head), rule, *map(row, body)])


def to_csv(groups: Sequence[Group]) -> str:
    """One line a group, accuracies in [0, 1]."""
    text = io.StringIO(newline="")
    write_csv(text, [Group._fields, *groups])
    return text.getvalue()


def to_latex(groups: Sequence[Group], across: str = "epsilon") -> str:
    """A tabular of booktabs, accuracies in percent."""
    head, body = pivot(groups, across)
    words = sum(name != across for name in _ACROSS)
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * words}{'r' * (len(head) - words)}}}",
        r"\toprule",
        _latex_row(head),
        r"\midrule",
        *(_latex_row(line) for line in body),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    special |= {mark: "\\" + mark for mark in "&%$#_{}"}
    words = "".join(special.get(mark, mark) for mark in text)
    return words.replace("ε", r"$\varepsilon$").replace(" ± ", r" $\pm$ ").replace("–", "--")


def _place(group: Group) -> dict[str, Any]:
    """What a group is, by name: data set, method, budget and parameters."""
    data = group.dataset if group.backbone is None else f"{group.dataset} ({group.backbone})"
    known = {"dataset": data, "label": group.label, "epsilon": group.epsilon}
    parameters: dict[str, Any] = json.loads(group.parameters)
    return known | parameters


def _shown(name: str, value: Any) -> str:
    if name == "epsilon":
        return "no privacy" if math.isinf(value) else f"ε = {value:g}"
    if name in _ACROSS:
        return shown(str(value))
    return "–" if value is None else f"{name} {_short(value)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(str(value))


def _percent(group: Group) -> str:
    error = "" if group.standard_error is None else f" ± {100 * group.standard_error:.2f}"
    return f"{100 * group.accuracy:.2f}{error}"
