"""The report of a study: one HTML page with charts that opens offline.

The page holds its style, its scripts and its data. Its Content-Security-Policy loads nothing and
runs only the page's own two scripts, by their digests. Every text of a user is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from dpfc._support.packages import require
from dpfc.accounting.statements.wording import clean, moment
from dpfc.experiments.pictures.charts import (
    COLOURS,
    DARK_COLOURS,
    budget_chart,
    budgets_chart,
    class_chart,
    confusion_chart,
    legend_names,
    page_config,
    parameter_chart,
    seconds_chart,
)
from dpfc.experiments.pictures.views import (
    Panel,
    curves,
    light_rows,
    setting_words,
    study_panels,
    swept_parameters,
)
from dpfc.experiments.studies.runs import CEILING
from dpfc.experiments.studies.table import Group

if TYPE_CHECKING:
    import pyarrow as pa
    from markupsafe import Markup

__all__ = ["report_html"]


class MeanTable(NamedTuple):
    """Means of one data set and backbone: a row a method, a cell an ε."""

    name: str
    epsilons: list[str]
    rows: list[tuple[str, list[MeanCell | None]]]
    ceiling: str | None


class MeanCell(NamedTuple):
    """Mean accuracy of the best setting of a method at one ε."""

    accuracy: str
    error: str
    runs: int
    setting: str
    is_best: bool


class Cell(NamedTuple):
    """A cell of the table of runs, and what it is sorted by; nothing sorts last."""

    text: str
    value: float | str | None = None


class RunRow(NamedTuple):
    """A run as the page lists it; `statement` is a place in the list of texts."""

    dataset: str
    label: str
    name: str
    cells: list[Cell]
    privacy: str
    statement: int | None
    error: str | None


def report_html(
    table: pa.Table, *, title: str, description: str, command: str, config_text: str
) -> str:
    """Write a study's report as one page that needs no network.

    Parameters
    ----------
    table : pyarrow.Table
        Of `results.load_results`.
    title, description : str
    command : str
        What repeats the study, as typed in a shell.
    config_text : str
        The study's file.

    Returns
    -------
    str
        HTML; about one megabyte, most of it Vega.

    Raises
    ------
    MissingDependencyError
        If vl-convert is not installed.
    """
    require("vl_convert", "the report of a sweep", "sweep")
    rows, panels = light_rows(table), study_panels(table)
    names = legend_names(panels)
    texts: dict[str, int] = {}
    runs = [_run_row(row, _shown_columns(rows), texts) for row in rows]
    data = {
        "config": page_config("inherit"),
        "panels": [_charts(panel, names) for panel in panels if panel.epsilons()],
        "statements": list(texts),
    }
    return _render(
        title=clean(title),
        description=description,
        facts=_facts(rows),
        notices=_notices(rows, panels),
        means=[_mean_table(panel) for panel in panels],
        columns=[*_shown_columns(rows), ("privacy", "Privacy", "text"), ("key", "Run", "text")],
        runs=runs,
        datasets=list(dict.fromkeys(run.dataset for run in runs)),
        labels=list(dict.fromkeys(run.label for run in runs)),
        failed=[run for run in runs if run.error is not None],
        has_charts=bool(data["panels"]),
        data=_json_for_script(data),
        command=command,
        config_text=config_text,
        palettes=[*zip(COLOURS, DARK_COLOURS, strict=True)],
        vega=_vega(),
    )


@lru_cache(maxsize=1)
def _vega() -> str:
    """Vega, Vega-Lite, and Vega's interpreter, which needs no leave to make code of texts."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


def _charts(panel: Panel, names: Mapping[str, str]) -> dict[str, Any]:
    """Charts of one data set and backbone: of all runs, of parameters, and of single runs."""
    labels = {label: label for label in names}
    return {
        "name": clean(panel.name),
        "budgets": budgets_chart(panel, names, "privacy budget ε"),
        "seconds": seconds_chart(panel, names),
        "parameters": [
            {
                "name": clean(f"{name} at ε = {epsilon:g}"),
                "chart": parameter_chart(panel, name, epsilon, labels, clean(name)),
            }
            for name in swept_parameters(panel)
            for epsilon in sorted({curve.epsilon for curve in curves(panel, name)}, reverse=True)
        ],
        "runs": [_run_charts(run) for run in panel.examples.values()],
    }


def _run_charts(run: Mapping[str, Any]) -> dict[str, Any]:
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    found = f"{100 * run['accuracy']:.2f}%"
    return {
        "name": clean(f"{run['label']}, ε = {run['epsilon']:g}{seed}: {found}"),
        "confusion": confusion_chart(run),
        "classes": class_chart(run),
        "budget": budget_chart([run]),
    }


def _render(*, vega: str, data: str, **content: Any) -> str:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = _digest
    template = environment.get_template("sweep.html")
    # Scripts that are ours, and JSON without a "<" in it: nothing in them needs escaping.
    return template.render(vega=Markup(vega), data=Markup(data), **content)


def _template(name: str) -> str:
    return files("dpfc.experiments").joinpath("templates", name).read_text(encoding="utf-8")


def _digest(script: Markup) -> str:
    """Name a script in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json_for_script(data: Any) -> str:
    """Write JSON that cannot end the element it stands in, nor start a comment in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# -- head of the page ----------------------------------------------------------------


def _facts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    private = [row for row in rows if row["method"] != CEILING]
    times = sorted(row["finished"] for row in rows if row["finished"])
    epsilons = sorted({row["epsilon"] for row in private})
    seeds = sorted({row["seed"] for row in private if row["seed"] is not None})
    facts = [
        ("Study", ", ".join(dict.fromkeys(row["study"] for row in rows))),
        ("Runs", _counts(rows)),
        ("Data sets", ", ".join(dict.fromkeys(_place(row) for row in rows))),
        ("Methods", ", ".join(dict.fromkeys(row["label"] for row in private))),
        ("ε", ", ".join(map(_number, epsilons))),
        ("δ", ", ".join(_number(delta) for delta in sorted({row["delta"] for row in rows}))),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Finished", " to ".join(dict.fromkeys(map(moment, times[:1] + times[-1:]))) + " UTC"),
        ("Code", ", ".join(dict.fromkeys(row["code"] for row in rows if row["code"]))),
        ("Versions", _versions(rows)),
    ]
    return [(name, clean(value)) for name, value in facts if value not in ("", " UTC")]


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    failed = sum(row["status"] == "failed" for row in rows)
    return f"{len(rows)}, {failed} of them failed" if failed else f"{len(rows)}"


def _versions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name each package once, with all versions that runs had."""
    found: dict[str, dict[str, None]] = {}
    for text in {row["versions"] for row in rows if row["versions"]}:
        for package, version in json.loads(text).items():
            found.setdefault(package, {})[str(version)] = None
    return ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in sorted(found))


def _notices(rows: Sequence[Mapping[str, Any]], panels: Sequence[Panel]) -> list[str]:
    """Say what a reader has to know before any figure."""
    private = [row for row in rows if row["method"] != CEILING]
    seeded = sum(row["seed"] is not None for row in private)
    notices = []
    if seeded:
        notices.append(
            f"Not private: {seeded} of {len(private)} runs of private methods are seeded. Anyone "
            "who knows the seed can remove the noise, so do not publish their models. Their "
            "figures show what the same runs reach without a seed."
        )
    if any(most > 1 for panel in panels for most in panel.settings.values()):
        notices.append(
            "Where a method has several settings, means and curves show the one with the best "
            "test accuracy at each ε. That choice looks at the test rows and flatters the "
            "method; made on private rows, it costs privacy of its own."
        )
    if any(math.isinf(group.epsilon) for panel in panels for group in panel.groups):
        notices.append("Runs without noise (ε = ∞) are in the tables and not in the charts.")
    return notices


# -- means ---------------------------------------------------------------------------


def _mean_table(panel: Panel) -> MeanTable:
    found = {(group.label, group.epsilon): group for group in panel.best}
    epsilons = sorted({group.epsilon for group in panel.best})
    highest = {
        epsilon: max(group.accuracy for group in panel.best if group.epsilon == epsilon)
        for epsilon in epsilons
    }
    rows = [
        (clean(label), [_mean_cell(found.get((label, epsilon)), highest) for epsilon in epsilons])
        for label in panel.examples
    ]
    ceiling = panel.ceiling and f"{clean(panel.ceiling.label)}: {100 * panel.ceiling.accuracy:.2f}%"
    return MeanTable(clean(panel.name), list(map(_number, epsilons)), rows, ceiling)


def _mean_cell(group: Group | None, highest: Mapping[float, float]) -> MeanCell | None:
    if group is None:
        return None
    return MeanCell(
        accuracy=f"{100 * group.accuracy:.2f}",
        error="" if group.standard_error is None else f"± {100 * group.standard_error:.2f}",
        runs=group.runs,
        setting=clean(setting_words(group.parameters)),
        is_best=group.accuracy == highest[group.epsilon],
    )


# -- runs ----------------------------------------------------------------------------


def _shown_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, heading and kind of columns; those in which no run has anything are left out."""
    columns = [("dataset", "Data set", "text")]
    if any(row["backbone"] is not None for row in rows):
        columns.append(("backbone", "Backbone", "text"))
    columns += [("label", "Method", "text"), ("epsilon", "ε", "number")]
    if any(json.loads(row["parameters"]) for row in rows):
        columns.append(("parameters", "Settings", "text"))
    return [
        *columns,
        ("seed", "Seed", "number"),
        ("accuracy", "Accuracy", "number"),
        ("seconds", "Seconds", "number"),
    ]


def _run_row(
    row: Mapping[str, Any], columns: Sequence[tuple[str, str, str]], texts: dict[str, int]
) -> RunRow:
    cells = _cells(row)
    number = None
    if row["statement"] is not None:
        number = texts.setdefault(_statement_text(row["statement"]), len(texts))
    settings = setting_words(row["parameters"])
    seed = None if row["seed"] is None else f"seed {row['seed']}"
    parts = (_place(row), row["label"], f"ε = {_number(row['epsilon'])}", settings, seed)
    return RunRow(
        dataset=clean(row["dataset"]),
        label=clean(row["label"]),
        name=clean(", ".join(part for part in parts if part)),
        cells=[*(cells[name] for name, _, _ in columns), cells["key"]],
        privacy=_privacy(row),
        statement=number,
        error=clean(row["error"] or "no reason is recorded") if row["status"] == "failed" else None,
    )


def _cells(row: Mapping[str, Any]) -> dict[str, Cell]:
    """A run's cells by column; text is sorted as it stands."""
    texts = {name: clean(row[name] or "") for name in ("dataset", "backbone", "label", "key")}
    texts["parameters"] = clean(setting_words(row["parameters"]))
    cells = {name: Cell(text, text or None) for name, text in texts.items()}
    accuracy, seconds = row["accuracy"], row["seconds"]
    shown = "" if accuracy is None else f"{100 * accuracy:.2f}%"
    cells["accuracy"] = Cell("failed" if row["status"] == "failed" else shown, accuracy)
    cells["seconds"] = Cell("" if seconds is None else f"{seconds:.3g}", seconds)
    cells["seed"] = Cell("" if row["seed"] is None else f"{row['seed']}", row["seed"])
    # JavaScript reads this word as the number.
    value = "Infinity" if math.isinf(row["epsilon"]) else row["epsilon"]
    return cells | {"epsilon": Cell(_number(row["epsilon"]), value)}


def _privacy(row: Mapping[str, Any]) -> str:
    """Say whether a run is private; a seeded one is not, whatever became of it."""
    if row["private"] is False or row["seed"] is not None:
        return "not private"
    return "private" if row["private"] else ""


@lru_cache(maxsize=1024)
def _statement_text(statement: str) -> str:
    from dpfc.accounting import PrivacyStatement

    try:
        return PrivacyStatement.model_validate_json(statement).to_text()
    except ValueError as error:
        return f"This version of dpfc cannot read the statement.\n\n{error}"


# -- words ---------------------------------------------------------------------------


def _place(row: Mapping[str, Any]) -> str:
    name: str = row["dataset"]
    return name if row["backbone"] is None else f"{name} ({row['backbone']})"


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:g}"
