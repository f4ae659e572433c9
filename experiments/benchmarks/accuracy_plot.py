"""Accuracy versus ε of every method, a panel a data set, in the style of `experiments.plots`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from dpfc.experiments.benchmarks.accuracy_table import CEILING, Results
from dpfc.experiments.pictures.style import GRAY, add_legend, dress_budgets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_panels"]

# Colours of Okabe and Ito (2008), and black; markers tell them apart in gray.
_COLOURS = (
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#000000",
    "#D55E00",
    "#E69F00",
    "#CC79A7",
    "#B8A600",
    "#8C564B",
    "#7F7F7F",
    "#6A3D9A",
)
_MARKERS = "osD^vPX<>*d"
_COLUMNS = 3


def accuracy_panels(
    results: Results, labels: Mapping[str, str], peers: Collection[str], *, delta: float
) -> Figure:
    """Draw mean test accuracy with standard errors; the ceiling is a dashed line.

    Parameters
    ----------
    results : mapping
        Of `accuracy_table.make_results`.
    labels : mapping of str to str
        Words for every method, in the order of the legend.
    peers : collection of str
        Methods that are drawn dashed.
    delta : float
        Named on the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(data for data, _, _ in results))
    columns = min(_COLUMNS, max(len(names), 1))
    n_rows = max(math.ceil(len(names) / columns), 1)
    figure = Figure(figsize=(4.2 * columns, 3.4 * n_rows + 0.8), layout="constrained")
    panels = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _draw(axes, results, name, labels, peers)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    add_legend(figure, columns=columns + 1, order=labels.values())
    for axes in panels[max(len(names) - columns, 0) : len(names)]:
        axes.set_xlabel(f"privacy budget ε  (δ = {delta:g}; left is more private)", fontsize=9)
    for axes in panels[: len(names) : columns]:
        axes.set_ylabel("test accuracy (%)", fontsize=9)
    return figure


def _draw(
    axes: Axes, results: Results, name: str, labels: Mapping[str, str], peers: Collection[str]
) -> None:
    budgets: set[float] = set()
    for index, (method, label) in enumerate(labels.items()):
        epsilons = sorted(e for data, m, e in results if (data, m) == (name, method))
        if not epsilons or method == CEILING:
            continue
        budgets.update(epsilons)
        cells = [results[name, method, epsilon] for epsilon in epsilons]
        axes.errorbar(
            epsilons,
            [100 * cell.mean for cell in cells],
            yerr=[100 * (cell.standard_error or 0.0) for cell in cells],
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            linestyle="--" if method in peers else "-",
            linewidth=1.0 if method in peers else 1.6,
            markersize=4,
            capsize=2,
            label=label,
        )
    top = results.get((name, CEILING, math.inf))
    if top is not None:
        axes.axhline(
            100 * top.mean, color=GRAY, linewidth=1, linestyle=(0, (6, 4)), label=labels[CEILING]
        )
    dress_budgets(axes, sorted(budgets), fontsize=8)
    axes.set_title(name, fontsize=11, loc="left")
