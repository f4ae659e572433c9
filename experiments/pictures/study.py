"""Pictures of a study for print: accuracy versus ε, seconds and parameters."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpfc.experiments.pictures.fonts import warn_of_letters
from dpfc.experiments.pictures.runs import (
    budget_figure,
    class_figure,
    confusion_figure,
    plain,
    wrapped,
)
from dpfc.experiments.pictures.style import GRAY, add_legend, dress_budgets, line_style, open_frame
from dpfc.experiments.pictures.views import (
    Panel,
    budget_shares,
    curves,
    is_wide,
    label_sides,
    spaced,
    study_panels,
    swept_parameters,
)
from dpfc.experiments.studies.table import Group

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["study_figures"]

_COLUMNS = 3
# Letters of a panel's title in one line.
_TITLE = 36

Draw = Callable[["Axes"], None]


def study_figures(table: pa.Table) -> dict[str, Figure]:
    """Draw all pictures that a study has something for.

    Failed runs are left out, and so are runs at ε = ∞ but for the ceiling.

    Parameters
    ----------
    table : pyarrow.Table
        Of `results.load_results`.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        By file name without its ending: ``accuracy-vs-epsilon``, ``accuracy-vs-seconds``,
        ``accuracy-vs-PARAMETER``, and a data set: ``confusion-…``, ``class-accuracy-…`` (one run
        of the best method at the largest ε) and ``budget-…`` (one run a method).
    """
    panels = [panel for panel in study_panels(table) if panel.epsilons()]
    labels = list(dict.fromkeys(group.label for panel in panels for group in panel.groups))
    classes = [run["class_names"] or () for panel in panels for run in panel.examples.values()]
    warn_of_letters([*(panel.name for panel in panels), *labels, *itertools.chain(*classes)])
    delta = _delta_words(table)
    figures: dict[str, Figure | None] = {}
    if panels:
        figures["accuracy-vs-epsilon"] = _epsilon_figure(panels, labels, delta)
        figures["accuracy-vs-seconds"] = _seconds_figure(panels, labels)
    for name in sorted({name for panel in panels for name in swept_parameters(panel)}):
        figure = _parameter_figure(panels, name, labels)
        if figure is not None:
            figures[_stem(figures, f"accuracy-vs-{name}")] = figure
    for panel in panels:
        figures |= _run_figures(panel, figures)
    return {stem: figure for stem, figure in figures.items() if figure is not None}


def _run_figures(panel: Panel, taken: Mapping[str, Any]) -> dict[str, Figure]:
    """Single runs of a panel."""
    figures = {}
    best = max(
        panel.examples.values(),
        key=lambda run: (math.isfinite(run["epsilon"]), run["epsilon"], run["accuracy"]),
    )
    if best["confusion"]:
        figures[_stem(taken, f"confusion-{panel.name}")] = confusion_figure(best)
    if best["per_class_accuracy"]:
        figures[_stem(taken, f"class-accuracy-{panel.name}")] = class_figure(best)
    paid = [run for run in panel.examples.values() if budget_shares(run)]
    if paid:
        figures[_stem(taken, f"budget-{panel.name}")] = budget_figure(paid)
    return figures


# -- all runs ------------------------------------------------------------------------


def _epsilon_figure(panels: Sequence[Panel], labels: Sequence[str], delta: str) -> Figure:
    def draw(panel: Panel) -> Draw:
        return lambda axes: _draw_budgets(axes, panel, labels, delta)

    return _grid([(panel.name, draw(panel)) for panel in panels])


def _draw_budgets(axes: Axes, panel: Panel, labels: Sequence[str], delta: str) -> None:
    for index, label in enumerate(labels):
        cells = sorted(_finite(panel.best, label), key=lambda group: group.epsilon)
        if not cells:
            continue
        chosen = panel.settings[label]
        words = label if chosen == 1 else f"{label} (best of {chosen} settings at each ε)"
        _line(axes, index, words, [(group.epsilon, group) for group in cells])
    _draw_ceiling(axes, panel)
    dress_budgets(axes, spaced(panel.epsilons()))
    axes.set_xlabel(f"privacy budget ε  ({delta}; left is more private)", fontsize=9)


def _seconds_figure(panels: Sequence[Panel], labels: Sequence[str]) -> Figure | None:
    """Where a fit's time was kept: the runs of `_epsilon_figure`, by what they took."""

    def draw(panel: Panel) -> Draw:
        return lambda axes: _draw_seconds(axes, panel, labels)

    timed = [
        (panel.name, draw(panel))
        for panel in panels
        if any(group.seconds for label in labels for group in _finite(panel.best, label))
    ]
    return _grid(timed) if timed else None


def _draw_seconds(axes: Axes, panel: Panel, labels: Sequence[str]) -> None:
    points: list[tuple[float, Group]] = []
    for index, label in enumerate(labels):
        cells = [(group.seconds, group) for group in _finite(panel.best, label) if group.seconds]
        _line(axes, index, label, cells, joined=False)
        points += [(seconds, group) for seconds, group in cells]
    places = [(seconds, group.accuracy) for seconds, group in points]
    for side, (seconds, group) in zip(label_sides(places), points, strict=True):
        if side:
            axes.annotate(
                f"ε = {group.epsilon:g}",
                (seconds, 100 * group.accuracy),
                xytext=(6 if side == "right" else -6, 0),
                textcoords="offset points",
                ha="left" if side == "right" else "right",
                va="center",
                color=GRAY,
                fontsize=7,
            )
    _draw_ceiling(axes, panel)
    _dress(axes, [seconds for seconds, _ in points])
    axes.margins(x=0.15)
    axes.set_xlabel("seconds to fit, mean over runs", fontsize=9)


def _parameter_figure(panels: Sequence[Panel], name: str, labels: Sequence[str]) -> Figure | None:
    """One panel a data set and ε; the best of other parameters at each value."""

    def draw(panel: Panel, epsilon: float) -> Draw:
        return lambda axes: _draw_parameter(axes, panel, epsilon, name, labels)

    drawn = [
        (f"{panel.name}, ε = {epsilon:g}", draw(panel, epsilon))
        for panel in panels
        for epsilon in sorted({curve.epsilon for curve in curves(panel, name)})
    ]
    return _grid(drawn) if drawn else None


def _draw_parameter(
    axes: Axes, panel: Panel, epsilon: float, name: str, labels: Sequence[str]
) -> None:
    found = [curve for curve in curves(panel, name) if curve.epsilon == epsilon]
    for curve in found:
        _line(axes, labels.index(curve.label), curve.label, curve.points, joined=curve.joined)
    _dress(axes, [value for curve in found for value, _ in curve.points])
    chosen = max(curve.chosen_from for curve in found)
    others = f"  (best of up to {chosen} settings of the others)" if chosen > 1 else ""
    axes.set_xlabel(plain(f"{name}{others}"), fontsize=9)


def _line(
    axes: Axes,
    index: int,
    label: str,
    points: Sequence[tuple[float, Group]],
    *,
    joined: bool = True,
) -> None:
    """Means in percent with standard errors; one run has none."""
    colour, marker, dashes = line_style(index)
    axes.errorbar(
        [x for x, _ in points],
        [100 * group.accuracy for _, group in points],
        yerr=[100 * (group.standard_error or 0.0) for _, group in points],
        color=colour,
        marker=marker,
        linestyle=dashes if joined else "none",
        markersize=4,
        linewidth=1.5,
        capsize=2,
        label=plain(label),
    )


def _draw_ceiling(axes: Axes, panel: Panel) -> None:
    if panel.ceiling is not None:
        axes.axhline(
            100 * panel.ceiling.accuracy,
            color=GRAY,
            linewidth=1,
            linestyle=(0, (6, 4)),
            label=plain(panel.ceiling.label),
        )


# -- drawing -------------------------------------------------------------------------


def _grid(drawings: Sequence[tuple[str, Draw]]) -> Figure:
    """Small panels with one legend for all."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(drawings))
    n_rows = math.ceil(len(drawings) / columns)
    width = 6.4 if columns == 1 else 4.2 * columns
    figure = Figure(figsize=(width, 3.4 * n_rows + 0.8), layout="constrained")
    places = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, (title, draw) in zip(places, drawings, strict=False):
        draw(axes)
        axes.set_title(wrapped(title, _TITLE), fontsize=11, loc="left")
    for axes in places[len(drawings) :]:
        axes.remove()
    for axes in places[: len(drawings) : columns]:
        axes.set_ylabel("test accuracy (%)", fontsize=9)
    add_legend(figure)
    return figure


def _dress(axes: Axes, values: Sequence[float]) -> None:
    """Choose the scale of the x axis by its values; no frame."""
    if is_wide(values):
        axes.set_xscale("log")
    axes.margins(y=0.12)
    open_frame(axes)


def _finite(groups: Iterable[Group], label: str) -> list[Group]:
    return [group for group in groups if group.label == label and math.isfinite(group.epsilon)]


def _delta_words(table: pa.Table) -> str:
    return "δ = " + ", ".join(f"{delta:g}" for delta in sorted(set(table["delta"].to_pylist())))


def _stem(taken: Mapping[str, Any], name: str) -> str:
    """Make a file name of a name, other than those that are taken."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    numbers = (f"{stem}-{n}" for n in range(2, len(taken) + 3))
    return next(each for each in (stem, *numbers) if each not in taken)
