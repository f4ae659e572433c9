"""Charts of a study in Vega-Lite: one specification for the page that shows it and for print.

Colours are left to the configuration: `page_config` names the page's own, which follow its mode,
and `print_config` has those of paper. Names of users are data and titles, never expressions.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpfc.accounting.statements.wording import clean
from dpfc.experiments.pictures.views import (
    Panel,
    budget_shares,
    class_names,
    curves,
    is_wide,
    label_sides,
    setting_words,
    spaced,
)
from dpfc.experiments.studies.table import Group

if TYPE_CHECKING:
    from dpfc.accounting import ReleaseRecord
    from dpfc.linear.forecast import Forecast

__all__ = [
    "COLOURS",
    "DARK_COLOURS",
    "budget_chart",
    "budgets_chart",
    "class_chart",
    "confusion_chart",
    "forecast_chart",
    "legend_names",
    "lines",
    "page_config",
    "parameter_chart",
    "print_config",
    "run_words",
    "seconds_chart",
    "share_legend",
]

Chart = dict[str, Any]

# The first four are of Okabe and Ito (2008) and stay apart for the colour-blind; all have a
# contrast of 3 with white. Shapes and dashes tell lines apart in gray.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#6A3D9A",
    "#9A7B00",
    "#8C564B",
    "#4D4D4D",
)
_GRAY = "#555555"
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
_DASHES = ([1, 0], [6, 4], [6, 3, 2, 3], [2, 3])
_SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down", "cross"),
    *("triangle-right", "triangle-left"),
)
# Letters of a line of a legend, what a phone has room for, and of one of two columns of it.
_LINE, _COLUMN = 26, 14
# More cells would make a page of many megabytes.
_MOST_CLASSES, _MOST_COUNTS = 200, 12
_LINES = {"expr": "split(datum.label, '\\n')"}
_ACCURACY = "test accuracy (%)"


def page_config(font: str) -> dict[str, Any]:
    """Colours and font of a page, by the names that its style gives them."""
    series = [f"var(--c{place})" for place in range(len(COLOURS))]
    return _config(series, "var(--ink)", "var(--rule)", "var(--muted)", font)


def print_config(font: str) -> dict[str, Any]:
    """Colours of pictures on white paper."""
    return _config(COLOURS, "#000000", "#DDDDDD", _GRAY, font) | {"background": "#FFFFFF"}


def _config(series: Sequence[str], ink: str, rule: str, muted: str, font: str) -> dict[str, Any]:
    words = {"labelColor": ink, "titleColor": ink, "labelLimit": 0, "titleLimit": 0}
    sizes = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    lines_of_axes = {"gridColor": rule, "domainColor": muted, "tickColor": muted}
    return {
        "background": "transparent",
        "font": font,
        "range": {"category": list(series)},
        "view": {"stroke": None},
        "axis": {**words, **sizes, **lines_of_axes},
        "axisX": {"grid": False},
        "legend": {**words, **sizes, "orient": "bottom", "title": None, "symbolLimit": 0},
        "title": {"color": ink, "anchor": "start", "fontWeight": "normal"},
        "text": {"color": ink},
        "bar": {"color": series[0]},
        "rect": {"color": series[0]},
        "style": {"aside": {"color": muted, "stroke": muted, "strokeDash": [6, 4]},
                  "note": {"color": muted, "fontSize": 11}},
    }  # fmt: skip


def legend_names(panels: Sequence[Panel]) -> dict[str, str]:
    """Words of a legend by label, in one order for a whole study."""
    labels = dict.fromkeys(group.label for panel in panels for group in panel.groups)
    most = {label: max(panel.settings.get(label, 1) for panel in panels) for label in labels}
    return {
        label: _wrapped(label if n == 1 else f"{label} (best of {n} settings at each ε)")
        for label, n in most.items()
    }


# -- all runs ------------------------------------------------------------------------


def budgets_chart(panel: Panel, names: Mapping[str, str], title: str) -> Chart:
    """Accuracy by ε, a line a method, and what is reached without privacy.

    Parameters
    ----------
    panel : Panel
    names : mapping of str to str
        Of the whole study, by label: a method has the same colour everywhere.
    title : str
        Of the axis of ε.
    """
    epsilons = panel.epsilons()
    points = [_point(names[group.label], group.epsilon, group) for group in _private(panel)]
    return _lines(points, _budget_axis(epsilons, title), names.values(), panel.ceiling)


def _budget_axis(epsilons: Sequence[float], title: str) -> dict[str, Any]:
    axis = {"values": spaced(epsilons), "format": ".4~r"}
    domain = [min(epsilons) / 1.3, max(epsilons) * 1.3]
    scale = {"type": "log", "domain": domain, "nice": False}
    return {"field": "x", "type": "quantitative", "title": title, "axis": axis, "scale": scale}


def forecast_chart(found: Forecast) -> Chart:
    """Forecast accuracy by ε, a line and the band of its interval for each number of rows."""
    names = {n: f"{n:,} rows" for n in dict.fromkeys(cell.n_samples for cell in found.cells)}
    points = [
        {
            "name": names[cell.n_samples],
            "x": cell.epsilon,
            "y": 100 * cell.accuracy,
            "low": 100 * cell.low,
            "high": 100 * cell.high,
            "joined": True,
            "epsilon": f"{cell.epsilon:g}",
            "accuracy": f"{100 * cell.accuracy:.1f}%",
            "seconds": "",
            "settings": "",
        }
        for cell in found.cells
    ]
    epsilons = sorted({cell.epsilon for cell in found.cells})
    title = f"privacy budget ε  (δ = {found.delta:g}; left is more private)"
    chart = _lines(points, _budget_axis(epsilons, title), names.values())
    chart["layer"][0]["mark"] = {"type": "area", "opacity": 0.15}
    return chart | {"width": 400, "height": 220, "title": "Forecast, with 80% intervals"}


def seconds_chart(panel: Panel, names: Mapping[str, str]) -> Chart | None:
    """Accuracy by time: a point an ε, named where there is room."""
    timed = [(group.seconds, group) for group in _private(panel) if group.seconds]
    if not timed:
        return None
    sides = label_sides([(seconds, group.accuracy) for seconds, group in timed])
    points = [
        _point(names[group.label], seconds, group) | {"side": side, "note": f"ε {group.epsilon:g}"}
        for side, (seconds, group) in zip(sides, timed, strict=True)
    ]
    x = _value_axis("seconds to fit, mean over runs", [seconds for seconds, _ in timed])
    chart = _lines(points, x, names.values(), panel.ceiling)
    chart["layer"] += [
        {
            "mark": {"type": "text", "style": "note", "align": align, "dx": dx},
            "transform": [{"filter": {"field": "side", "equal": side}}],
            "encoding": {"text": {"field": "note"}, "y": {"field": "y", "type": "quantitative"}},
        }
        for side, align, dx in (("right", "left", 8), ("left", "right", -8))
    ]
    return chart


def parameter_chart(
    panel: Panel, name: str, epsilon: float, names: Mapping[str, str], title: str
) -> Chart:
    """Accuracy by a parameter at one ε; points alone where a line would say nothing."""
    points = [
        _point(names[curve.label], value, group) | {"joined": curve.joined}
        for curve in curves(panel, name)
        if curve.epsilon == epsilon
        for value, group in curve.points
    ]
    return _lines(points, _value_axis(title, [point["x"] for point in points]), names.values())


def _private(panel: Panel) -> list[Group]:
    """Best settings at finite ε, a method after the other, by ε."""
    order = list(panel.settings)
    found = [group for group in panel.best if math.isfinite(group.epsilon)]
    return sorted(found, key=lambda group: (order.index(group.label), group.epsilon))


def _point(name: str, x: float, group: Group) -> dict[str, Any]:
    """Mean in percent with its standard error, and what is said of it under a mouse."""
    mean, error = 100 * group.accuracy, 100 * (group.standard_error or 0.0)
    spread = "" if group.standard_error is None else f" ± {error:.2f}"
    runs = "1 run" if group.runs == 1 else f"{group.runs} runs"
    return {
        "name": name,
        "x": x,
        "y": round(mean, 4),
        "low": round(mean - error, 4),
        "high": round(mean + error, 4),
        "joined": True,
        "epsilon": f"{group.epsilon:g}",
        "accuracy": f"{mean:.2f}{spread}% ({runs})",
        "seconds": "" if group.seconds is None else f"{group.seconds:.3g} s",
        "settings": clean(setting_words(group.parameters)),
    }


def _lines(
    points: list[dict[str, Any]],
    x: dict[str, Any],
    names: Iterable[str],
    ceiling: Group | None = None,
) -> Chart:
    domain = list(names)
    shown = list(dict.fromkeys(point["name"] for point in points))
    is_seconds = "side" in points[0]
    legend = _legend(shown)
    dashes = [_DASHES[(i + i // len(COLOURS)) % len(_DASHES)] for i in range(len(domain))]
    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(len(domain))]
    name = {"field": "name", "type": "nominal", "legend": legend}
    encoding = {
        "color": name | {"scale": {"domain": domain}},
        "x": x,
    }
    y: Chart = {"field": "y", "type": "quantitative", "title": _ACCURACY}
    heights = [point[end] for point in points for end in ("low", "high")]
    heights += [] if ceiling is None else [100 * ceiling.accuracy]
    low, high = _room(heights)
    y["scale"] = {"domain": [max(low, 0.0), min(high, 100.0)], "nice": True, "zero": False}
    dashed = {"strokeDash": name | {"scale": {"domain": domain, "range": dashes}}}
    shaped = {"shape": name | {"scale": {"domain": domain, "range": shapes}}}
    said = ("name", "epsilon", "accuracy", "seconds", "settings")
    titles = {"name": "method", "epsilon": "ε"}
    tooltip = [
        {"field": field, "type": "nominal", "title": titles.get(field, field)}
        for field in said
        if any(point[field] for point in points)
    ]
    bars = {"mark": "rule", "encoding": {"y": y | {"field": "low"}, "y2": {"field": "high"}}}
    drawn = {
        "mark": {"type": "line", "strokeWidth": 2},
        "transform": [{"filter": {"field": "joined", "equal": True}}],
        "encoding": {"y": y, **dashed},
    }
    marks = {"type": "point", "filled": True, "size": 60, "opacity": 1}
    dots = {"mark": marks, "encoding": {"y": y, **shaped, "tooltip": tooltip}}
    layer = [bars, *([] if is_seconds else [drawn]), dots]
    if ceiling is not None:
        layer += _ceiling(ceiling)
    return {"data": {"values": points}, "encoding": encoding, "layer": layer}


def _ceiling(group: Group) -> list[dict[str, Any]]:
    value = round(100 * group.accuracy, 4)
    words = f"{group.label}: {value:.2f}%"
    y = {"datum": value, "type": "quantitative"}
    left = {"value": 0}
    text = {"type": "text", "style": "note", "align": "left", "baseline": "bottom", "dx": 4}
    nothing = {"color": None, "x": None}
    return [
        {
            "mark": {"type": "rule", "style": "aside"},
            "data": {"values": [{}]},
            "encoding": nothing | {"y": y},
        },
        {
            "mark": text | {"text": lines(words, 40), "dy": -3},
            "data": {"values": [{}]},
            "encoding": nothing | {"y": y, "x": left},
        },
    ]


# -- single runs ---------------------------------------------------------------------


def confusion_chart(run: Mapping[str, Any]) -> Chart | None:
    """Counts of true and predicted classes; a cell is as dark as its share of the true class."""
    counts = run["confusion"]
    if not counts or len(counts) > _MOST_CLASSES:
        return None
    names = [clean(name) for name in class_names(run, len(counts))]
    cells = [
        {
            "true": i,
            "predicted": j,
            "rows": n,
            "share": round(100 * n / max(sum(row), 1), 2),
            "words": f"true {names[i]}, predicted {names[j]}",
            "counts": f"{n} rows, {100 * n / max(sum(row), 1):.1f}% of the class",
        }
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
    ]
    said = [{"field": name, "type": "nominal"} for name in ("words", "counts")]
    said = [said[0] | {"title": "class"}, said[1] | {"title": "test"}]
    share = {"field": "share", "type": "quantitative", "legend": None}
    layer = [
        {
            "mark": {"type": "rect", "strokeWidth": 0},
            "encoding": {"opacity": share | {"scale": {"domain": [0, 100], "range": [0.02, 0.85]}}},
        }
    ]
    if len(counts) <= _MOST_COUNTS:
        ink = {"condition": {"test": "datum.share > 60", "value": "#000000"}}
        text = {"text": {"field": "rows", "type": "quantitative"}, "color": ink}
        layer.append({"mark": "text", "encoding": text})
    encoding = {
        "x": {"field": "predicted", "title": "predicted class"} | _class_axis(),
        "y": {"field": "true", "title": "true class"} | _class_axis(),
        "tooltip": said,
    }
    return {"data": {"values": cells}, "params": _named(names), "encoding": encoding,
            "layer": layer}  # fmt: skip


def class_chart(run: Mapping[str, Any]) -> Chart | None:
    """Accuracy of one run on every class, lowest first; dashed: on all rows."""
    values = run["per_class_accuracy"]
    if not values:
        return None
    names = [clean(name) for name in class_names(run, len(values))]
    order = sorted(range(len(values)), key=lambda code: values[code])
    bars = [
        {"code": code, "y": round(100 * values[code], 4), "words": f"{100 * values[code]:.2f}%",
         "name": names[code]}
        for code in order
    ]  # fmt: skip
    said = [{"field": "name", "title": "class"}, {"field": "words", "title": "test accuracy"}]
    y = {"type": "quantitative", "title": _ACCURACY, "scale": {"domain": [0, 100]}}
    title = "class, lowest accuracy first; dashed: on all rows"
    x = {"field": "code", "title": title} | _class_axis() | {"sort": order}
    layer = [{"mark": "bar", "encoding": {"x": x, "y": y | {"field": "y"}, "tooltip": said}}]
    if run["accuracy"] is not None:
        datum = {"datum": 100 * run["accuracy"]}
        layer.append({"mark": {"type": "rule", "style": "aside"}, "encoding": {"y": y | datum}})
    return {"data": {"values": bars}, "params": _named(names), "layer": layer}


def _class_axis() -> dict[str, Any]:
    label = "fits ? names[datum.value] : datum.label"
    return {"type": "ordinal", "axis": {"labelExpr": label, "labelOverlap": "greedy"}}


def _named(names: list[str]) -> list[dict[str, Any]]:
    """Names of classes by code, and whether there is room for them; else they are numbers."""
    return [{"name": "names", "value": names}, {"name": "fits", "value": True}]


def budget_chart(runs: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> Chart | None:
    """What each release of some runs costs, a bar a run; None where no run has any.

    Parameters
    ----------
    runs : iterable of mapping
        Rows of the table.
    names : sequence of str
        Of the runs; no axis without.
    """
    shown = zip(runs, names or itertools.repeat(""), strict=False)
    bars = [_share(release, name) for run, name in shown for release in budget_shares(run)]
    if not bars:
        return None
    releases = list(dict.fromkeys(bar["name"] for bar in bars))
    title = "share of the privacy budget (%), in μ²"
    x = {"field": "share", "type": "quantitative", "title": title, "stack": "zero",
         "scale": {"domain": [0, 100]}}  # fmt: skip
    said = [("name", "release"), ("words", "share"), ("drawn", "drawn"),
            ("multiplier", "noise multiplier")]  # fmt: skip
    y = {"field": "run", "type": "nominal", "sort": None, "title": None}
    axis = {"labelExpr": _LINES["expr"], "ticks": False} if names else None
    colour = {"field": "name", "type": "nominal", "legend": _legend(releases)}
    encoding = {
        "x": x,
        "y": y | {"axis": axis},
        "color": colour | {"scale": {"domain": releases}},
        "order": {"field": "place", "type": "quantitative"},
        "tooltip": [{"field": field, "title": title} for field, title in said],
    }
    places = {name: place for place, name in enumerate(releases)}
    values = [bar | {"place": places[bar["name"]]} for bar in bars]
    return {"data": {"values": values}, "mark": "bar", "encoding": encoding}


def _share(release: ReleaseRecord, run: str) -> dict[str, Any]:
    share = 100 * (release.share_of_budget or 0.0)
    return {
        "run": run,
        "name": _wrapped(release.name),
        "share": round(share, 4),
        "words": f"{share:.3g}%",
        "drawn": "once" if release.count == 1 else f"{release.count} times",
        "multiplier": f"{release.noise_multiplier:.4g}",
    }


# -- axes and words ------------------------------------------------------------------


def _legend(names: Sequence[str]) -> dict[str, Any]:
    columns = 1 if any(len(name) > _COLUMN for name in names) else 2
    return {"values": list(names), "labelExpr": _LINES["expr"], "columns": columns}


def share_legend(charts: Sequence[Chart]) -> None:
    """Name in one legend what any of several charts beside each other shows."""
    legends = [chart["encoding"]["color"]["legend"] for chart in charts]
    shown = {name for legend in legends for name in legend["values"]}
    domain = charts[0]["encoding"]["color"]["scale"]["domain"]
    for legend in legends:  # the same of colours, shapes and dashes
        legend.update(_legend([name for name in domain if name in shown]))


def _value_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    scale: dict[str, Any] = {"zero": False, "domain": _room(values)}
    if is_wide(values):
        scale = {"type": "log", "domain": [min(values) / 1.6, max(values) * 1.6]}
    axis = {"format": ".4~g", "labelOverlap": "greedy", "tickCount": 5}
    return {"field": "x", "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _room(values: Sequence[float]) -> list[float]:
    """Ends of an axis with a little room beside what it shows; of one value too."""
    margin = 0.1 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 1.0
    return [min(values) - margin, max(values) + margin]


def _wrapped(name: str) -> str:
    return "\n".join(lines(name, _LINE))


def lines(text: str, width: int) -> list[str]:
    """Bring a name into lines of so many letters, none of them left out."""
    return textwrap.wrap(clean(text), width) or [""]


def run_words(run: Mapping[str, Any]) -> str:
    """Name a run: data set, method, ε and seed."""
    place = run["dataset"] if run["backbone"] is None else f"{run['dataset']} ({run['backbone']})"
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    return f"{place}: {run['label']}, ε = {run['epsilon']:g}{seed}"
