"""Charts of a study for plotly.js: data and layout as it reads them, colours left to the page.

A trace's ``meta`` says which colour of the page's palette it has. Names are escaped: plotly reads
a few HTML tags in texts.
"""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpfc.accounting.statements.wording import clean
from dpfc.experiments.pictures.style import COLOURS
from dpfc.experiments.pictures.views import (
    Curve,
    Panel,
    budget_shares,
    class_names,
    curves,
    is_wide,
    label_sides,
    setting_words,
    spaced,
    swept_parameters,
)
from dpfc.experiments.studies.table import Group

if TYPE_CHECKING:
    from dpfc.accounting import ReleaseRecord

__all__ = ["DARK_COLOURS", "panel_charts"]

Chart = dict[str, Any]

# As COLOURS, for dark pages.
DARK_COLOURS = (
    "#5BB5F0",
    "#FF8A4C",
    "#34C79A",
    "#E79BC8",
    "#B79CF0",
    "#D6C24A",
    "#CF9C8E",
    "#BDBDBD",
)
_DASHES = ("solid", "dash", "dashdot", "dot")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
# Not the text itself: plotly would fill in what a name has in %{…}.
_HOVER = "%{hovertext}<extra></extra>"
# Room on the right for text that stands beside the last point, or below it.
_MARGIN = {"l": 12, "r": 48, "t": 28, "b": 12}
# Letters of a line of a legend, what a phone has room for, and lines of a name in it.
_LINE, _MOST_LINES = 26, 4
_MUTED, _SCALE = "muted", "scale"
# More cells would make a page of many megabytes.
_MOST_CLASSES, _MOST_COUNTS = 200, 12


def panel_charts(panel: Panel, labels: Sequence[str]) -> dict[str, Any]:
    """Make the charts of one data set and backbone.

    Parameters
    ----------
    panel : Panel
    labels : sequence of str
        Of the whole study: a method has the same colour everywhere.

    Returns
    -------
    dict
        ``name``; ``budgets`` and ``seconds``, a chart or None; ``parameters``, a list of charts
        with names; ``runs``, a list of runs with ``confusion``, ``classes`` and ``budget``.
    """
    return {
        "name": clean(panel.name),
        "budgets": _budgets(panel, labels),
        "seconds": _seconds(panel, labels),
        "parameters": [
            _parameter(panel, name, epsilon, labels)
            for name in swept_parameters(panel)
            for epsilon in sorted({curve.epsilon for curve in curves(panel, name)}, reverse=True)
        ],
        "runs": [_run(run) for run in panel.examples.values()],
    }


# -- all runs ------------------------------------------------------------------------


def _budgets(panel: Panel, labels: Sequence[str]) -> Chart | None:
    epsilons = panel.epsilons()
    if not epsilons:
        return None
    traces = []
    for label, cells in _by_label(panel).items():
        chosen = panel.settings[label]
        words = _wrapped(label if chosen == 1 else f"{label} (best of {chosen})")
        points = [(group.epsilon, group) for group in cells]
        traces.append(_trace(words, labels.index(label), points))
    if panel.ceiling is not None:
        traces.append(_ceiling(panel.ceiling, epsilons))
    ticks = spaced(epsilons)
    axis = {
        "title": {"text": "privacy budget ε"},
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{epsilon:g}" for epsilon in ticks],
    }
    return {"data": traces, "layout": {"xaxis": axis, "yaxis": _accuracy_axis()}}


def _seconds(panel: Panel, labels: Sequence[str]) -> Chart | None:
    timed = {
        label: [(group.seconds, group) for group in cells if group.seconds]
        for label, cells in _by_label(panel).items()
    }
    points = [point for cells in timed.values() for point in cells]
    if not points:
        return None
    beside = iter(label_sides([(seconds, group.accuracy) for seconds, group in points]))
    traces = []
    for label, cells in timed.items():
        sides = list(itertools.islice(beside, len(cells)))
        trace = _trace(_wrapped(label), labels.index(label), cells) | {"mode": "markers+text"}
        trace["text"] = [
            f"\u2002ε {group.epsilon:g}\u2002" if side else ""
            for side, (_, group) in zip(sides, cells, strict=True)
        ]
        trace["textposition"] = [f"middle {side or 'right'}" for side in sides]
        traces.append(trace | {"cliponaxis": False})
    axis = _value_axis("seconds to fit, mean over runs", [seconds for seconds, _ in points])
    return {"data": traces, "layout": {"xaxis": axis, "yaxis": _accuracy_axis(), "margin": _MARGIN}}


def _parameter(panel: Panel, name: str, epsilon: float, labels: Sequence[str]) -> Chart:
    found = [curve for curve in curves(panel, name) if curve.epsilon == epsilon]
    axis = _value_axis(name, [value for curve in found for value, _ in curve.points])
    return {
        "name": clean(f"{name} at ε = {epsilon:g}"),
        "data": [_parameter_trace(curve, labels.index(curve.label)) for curve in found],
        "layout": {"xaxis": axis, "yaxis": _accuracy_axis()},
    }


def _parameter_trace(curve: Curve, index: int) -> dict[str, Any]:
    trace = _trace(_wrapped(curve.label), index, curve.points)
    return trace if curve.joined else trace | {"mode": "markers"}


def _by_label(panel: Panel) -> dict[str, list[Group]]:
    """Best settings at finite ε, in order of ε."""
    found: dict[str, list[Group]] = {}
    for group in sorted(panel.best, key=lambda group: group.epsilon):
        if math.isfinite(group.epsilon):
            found.setdefault(group.label, []).append(group)
    order = list(panel.examples)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def _trace(name: str, index: int, points: Sequence[tuple[float, Group]]) -> dict[str, Any]:
    """Means in percent with standard errors."""
    turn, place = divmod(index, len(COLOURS))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "meta": place,
        "x": [x for x, _ in points],
        "y": [_percent(group.accuracy) for _, group in points],
        "error_y": {
            "type": "data",
            "array": [_percent(group.standard_error or 0.0) for _, group in points],
            "thickness": 1.2,
            "width": 4,
        },
        "line": {"dash": _DASHES[(place + turn) % len(_DASHES)], "width": 2},
        "marker": {"symbol": _SYMBOLS[place], "size": 8},
        "hovertext": [_group_words(group) for _, group in points],
        "hovertemplate": _HOVER,
    }


def _ceiling(group: Group, epsilons: Sequence[float]) -> dict[str, Any]:
    value = _percent(group.accuracy)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _wrapped(group.label),
        "meta": _MUTED,
        # A little wider than the curves, and a line where there is one budget only.
        "x": [min(epsilons) / 1.3, max(epsilons) * 1.3],
        "y": [value, value],
        "line": {"dash": "dash", "width": 1.5},
        "hovertext": [f"{_text(group.label)}: {value:.2f}%"] * 2,
        "hovertemplate": _HOVER,
    }


def _group_words(group: Group) -> str:
    error = "" if group.standard_error is None else f" ± {100 * group.standard_error:.2f}"
    runs = "1 run" if group.runs == 1 else f"{group.runs} runs"
    lines = [
        f"<b>{_text(group.label)}</b>, ε = {group.epsilon:g}",
        f"{100 * group.accuracy:.2f}{error}% ({runs})",
        *([] if group.seconds is None else [f"{group.seconds:.3g} s"]),
        _text(setting_words(group.parameters)),
    ]
    return "<br>".join(line for line in lines if line)


# -- single runs ---------------------------------------------------------------------


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    found = f"{100 * run['accuracy']:.2f}%"
    return {
        "name": clean(f"{run['label']}, ε = {run['epsilon']:g}{seed}: {found}"),
        "confusion": _confusion(run),
        "classes": _classes(run),
        "budget": _budget(run),
    }


def _confusion(run: Mapping[str, Any]) -> Chart | None:
    counts = run["confusion"]
    if not counts or len(counts) > _MOST_CLASSES:
        return None
    codes = list(range(len(counts)))
    trace = {
        "type": "heatmap",
        "meta": _SCALE,
        "x": codes,
        "y": codes,
        "z": [[round(100 * n / max(sum(row), 1), 2) for n in row] for row in counts],
        "text": counts,
        "zmin": 0,
        "zmax": 100,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"title": {"text": "%"}, "thickness": 10, "outlinewidth": 0},
        # Counts in the cells while there is room for them.
        "texttemplate": "%{text}" if len(counts) <= _MOST_COUNTS else "",
        "hovertemplate": "true %{customdata[0]}, predicted %{customdata[1]}<br>"
        "%{text} rows, %{z:.1f}% of the class<extra></extra>",
    }
    # As a category, a class named 7 is no number.
    x = {"title": {"text": "predicted class"}, "type": "category", "constrain": "domain"}
    y = {"title": {"text": "true class"}, "type": "category", "autorange": "reversed"}
    layout = {"xaxis": x, "yaxis": y | {"constrain": "domain"}}
    return {"data": [trace], "layout": layout, "classes": _class_labels(run, len(counts))}


def _classes(run: Mapping[str, Any]) -> Chart | None:
    values = run["per_class_accuracy"]
    if not values:
        return None
    order = sorted(range(len(values)), key=lambda code: values[code])
    trace = {
        "type": "bar",
        "meta": 0,
        "x": order,
        "y": [_percent(values[code]) for code in order],
        "hovertemplate": "%{customdata}: %{y:.2f}%<extra></extra>",
    }
    axis = {"type": "category", "title": {"text": "class, lowest accuracy first"}}
    layout = {"xaxis": axis, "yaxis": _accuracy_axis() | {"range": [0, 100]}}
    return {"data": [trace], "layout": layout, "classes": _class_labels(run, len(values))}


def _budget(run: Mapping[str, Any]) -> Chart | None:
    shares = budget_shares(run)
    if not shares:
        return None
    traces = [_share(release, index) for index, release in enumerate(shares)]
    title = {"text": "share of the privacy budget (%), in μ²"}
    axis = {"title": title, "range": [0, 100], "dtick": 25, "ticklabeloverflow": "allow"}
    layout = {"xaxis": axis, "yaxis": {"visible": False}, "barmode": "stack", "margin": _MARGIN}
    return {"data": traces, "layout": layout}


def _share(release: ReleaseRecord, index: int) -> dict[str, Any]:
    name, share = _text(release.name), _percent(release.share_of_budget or 0.0)
    times = "once" if release.count == 1 else f"{release.count} times"
    words = f"<b>{name}</b>: {share:.3g}%<br>drawn {times}, noise multiplier "
    return {
        "type": "bar",
        "orientation": "h",
        "name": _wrapped(release.name),
        "meta": index % len(COLOURS),
        "x": [share],
        "y": [""],
        "hovertext": [f"{words}{release.noise_multiplier:.4g}"],
        "hovertemplate": _HOVER,
    }


# -- axes and words ------------------------------------------------------------------


def _accuracy_axis() -> dict[str, Any]:
    return {"title": {"text": "test accuracy (%)"}}


def _value_axis(name: str, values: Sequence[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": _text(name)}}
    if is_wide(values):
        axis |= {"type": "log", "dtick": 1}
    return axis


def _class_labels(run: Mapping[str, Any], n_classes: int) -> list[str]:
    """Names of the classes by code, in full; the page numbers them where they do not fit."""
    return [clean(name) for name in class_names(run, n_classes)]


def _percent(share: float) -> float:
    return round(100 * share, 4)


def _text(name: str) -> str:
    return html.escape(clean(name), quote=False)


def _wrapped(name: str) -> str:
    """Bring a name into lines that leave room for the chart above it."""
    lines = textwrap.wrap(clean(name), _LINE) or [""]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1] = f"{lines[_MOST_LINES - 1][: _LINE - 1]}…"
    return "<br>".join(html.escape(line, quote=False) for line in lines[:_MOST_LINES])
