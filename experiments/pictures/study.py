"""Pictures of a study for print: accuracy versus ε, seconds and parameters, and single runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpfc._support.packages import require
from dpfc.experiments.pictures.charts import (
    budget_chart,
    budgets_chart,
    class_chart,
    confusion_chart,
    legend_names,
    lines,
    parameter_chart,
    print_config,
    run_words,
    seconds_chart,
    share_legend,
)
from dpfc.experiments.pictures.fonts import drawable, families, warn_of_letters
from dpfc.experiments.pictures.views import (
    Panel,
    budget_shares,
    curves,
    study_panels,
    swept_parameters,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["budgets_grid", "render_chart", "study_charts"]

_COLUMNS = 3
# Letters of a title that the width of a picture, or a name beside a bar, leaves room for.
_TITLE, _BAR_NAME = 42, 40
# With more classes their names would run into each other.
_MOST_NAMES = 40

Chart = dict[str, Any]


def study_charts(table: pa.Table) -> dict[str, Chart]:
    """Draw all pictures that a study has something for.

    Failed runs are left out, and so are runs at ε = ∞ but for the ceiling.

    Parameters
    ----------
    table : pyarrow.Table
        Of `results.load_results`.

    Returns
    -------
    dict of str to dict
        Specifications for `render_chart`, by file name without its ending:
        ``accuracy-vs-epsilon``, ``accuracy-vs-seconds``, ``accuracy-vs-PARAMETER``, and a data
        set: ``confusion-…``, ``class-accuracy-…`` (one run of the best method at the largest ε)
        and ``budget-…`` (one run a method).
    """
    panels = [panel for panel in study_panels(table) if panel.epsilons()]
    names = legend_names(panels)
    classes = [run["class_names"] or () for panel in panels for run in panel.examples.values()]
    warn_of_letters([*(panel.name for panel in panels), *names, *itertools.chain(*classes)])
    charts: dict[str, Chart] = {}
    if panels:
        deltas = sorted(set(table["delta"].to_pylist()))
        charts["accuracy-vs-epsilon"] = budgets_grid(panels, names, deltas)
        timed = [(panel.name, seconds_chart(panel, names)) for panel in panels]
        if found := [(name, chart) for name, chart in timed if chart is not None]:
            charts["accuracy-vs-seconds"] = _grid(found)
    for name in sorted({name for panel in panels for name in swept_parameters(panel)}):
        if found := _parameter_charts(panels, name):
            charts[_stem(charts, f"accuracy-vs-{name}")] = _grid(found)
    for panel in panels:
        charts |= _run_charts(panel, charts)
    return charts


def budgets_grid(
    panels: Sequence[Panel], names: Mapping[str, str], deltas: Sequence[float]
) -> Chart:
    """Accuracy versus ε, a panel a data set; `names` is the order of the legend."""
    words = ", ".join(f"{delta:g}" for delta in deltas)
    title = f"privacy budget ε  (δ = {words}; left is more private)"
    return _grid([(panel.name, budgets_chart(panel, names, title)) for panel in panels])


def _parameter_charts(panels: Sequence[Panel], name: str) -> list[tuple[str, Chart]]:
    """One a data set and ε; the best of other parameters at each value."""
    labels = {label: label for label in legend_names(panels)}
    found = []
    for panel in panels:
        for epsilon in sorted({curve.epsilon for curve in curves(panel, name)}):
            most = max(c.chosen_from for c in curves(panel, name) if c.epsilon == epsilon)
            others = f"  (best of up to {most} settings of the others)" if most > 1 else ""
            chart = parameter_chart(panel, name, epsilon, labels, f"{name}{others}")
            found.append((f"{panel.name}, ε = {epsilon:g}", chart))
    return found


def _run_charts(panel: Panel, taken: Mapping[str, Any]) -> dict[str, Chart]:
    """Single runs of a panel."""
    best = max(
        panel.examples.values(),
        key=lambda run: (math.isfinite(run["epsilon"]), run["epsilon"], run["accuracy"]),
    )
    paid = [run for run in panel.examples.values() if budget_shares(run)]
    names = ["\n".join(lines(run_words(run), _BAR_NAME)) for run in paid]
    found = {
        "confusion": confusion_chart(best),
        "class-accuracy": class_chart(best),
        "budget": budget_chart(paid, names),
    }
    charts = {}
    for kind, chart in found.items():
        if chart is None:
            continue
        title = {} if kind == "budget" else {"title": lines(run_words(best), _TITLE)}
        side = min(160 + 8 * len(best["confusion"] or ()), 500)
        size = {"confusion": (side, side), "class-accuracy": (400, 220), "budget": (400, None)}
        charts[_stem(taken, f"{kind}-{panel.name}")] = _sized(chart, *size[kind]) | title
    return charts


# -- drawing -------------------------------------------------------------------------


def _sized(chart: Chart, width: int, height: int | None) -> Chart:
    params = [
        param | {"value": len(chart["params"][0]["value"]) <= _MOST_NAMES}
        if param["name"] == "fits"
        else param
        for param in chart.get("params", [])
    ]
    size = {"width": width, "height": {"step": 40} if height is None else height}
    return chart | size | ({"params": params} if params else {})


def _grid(charts: Sequence[tuple[str, Chart]]) -> Chart:
    """Small panels with one legend for all."""
    share_legend([chart for _, chart in charts])
    width = 400 if len(charts) == 1 else 260
    panels = [
        _sized(chart, width, 220) | {"title": lines(title, _TITLE)} for title, chart in charts
    ]
    return {"concat": panels, "columns": _COLUMNS}


def render_chart(chart: Chart, kind: Literal["png", "svg"]) -> bytes:
    """Give a chart as the bytes of a file; the same bytes for the same chart.

    Raises
    ------
    MissingDependencyError
        If vl-convert is not installed.
    """
    require("vl_convert", "a picture", "sweep")
    import matplotlib
    import vl_convert

    vl_convert.register_font_directory(str(Path(matplotlib.get_data_path(), "fonts", "ttf")))
    drawn = _drawable(chart)
    config = print_config(", ".join(families(str(drawn))))
    if kind == "svg":
        return vl_convert.vegalite_to_svg(drawn, config=config).encode()
    return vl_convert.vegalite_to_png(drawn, config=config, scale=2.5)


def _drawable(value: Any) -> Any:
    """Write letters that no font here has as their numbers, not boxes."""
    if isinstance(value, Mapping):
        return {name: _drawable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_drawable(part) for part in value]
    return drawable(value) if isinstance(value, str) else value


def _stem(taken: Mapping[str, Any], name: str) -> str:
    """Make a file name of a name, other than those that are taken."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    numbers = (f"{stem}-{n}" for n in range(2, len(taken) + 3))
    return next(each for each in (stem, *numbers) if each not in taken)
