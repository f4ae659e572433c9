"""Plots that read well in print: accuracy versus ε."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal

from dpfc.experiments.pictures.fonts import dressed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "GRAY",
    "accuracy_figure",
    "add_legend",
    "dress_budgets",
    "line_style",
    "open_frame",
    "render",
    "standard_error",
]

# The first four are of Okabe and Ito (2008) and stay apart for the colour-blind; all have a
# contrast of 3 with white. Markers and dashes tell lines apart in gray.
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
GRAY = "#555555"
_MARKERS = "os^DvPX*"
_DASHES = ("-", "--", "-.", ":")


def line_style(index: int) -> tuple[str, str, str]:
    """Colour, marker and dashes of a line by its place in the legend; 32 differ."""
    turn, place = divmod(index, len(COLOURS))
    return COLOURS[place], _MARKERS[place], _DASHES[(place + turn) % len(_DASHES)]


def accuracy_figure(
    curves: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    delta: float,
    title: str,
    ceiling: tuple[str, float] | None = None,
) -> Figure:
    """Draw test accuracy versus ε, one line a method: means, with standard errors of several runs.

    Parameters
    ----------
    curves : mapping of str to mapping of float to sequence of float
        For each method's name, accuracies in [0, 1] of its runs by ε.
    delta : float
        δ of all runs; named on the axis.
    title : str
    ceiling : (str, float), optional
        Name and accuracy of what is reached without privacy, drawn as a dashed line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, curve) in enumerate(curves.items()):
        colour, marker, dashes = line_style(index)
        epsilons = sorted(curve)
        axes.errorbar(
            epsilons,
            [100 * fmean(curve[epsilon]) for epsilon in epsilons],
            yerr=[100 * standard_error(curve[epsilon]) for epsilon in epsilons],
            linestyle=dashes,
            color=colour,
            marker=marker,
            markersize=5,
            capsize=3,
            label=name,
        )
    if ceiling is not None:
        axes.axhline(100 * ceiling[1], color=GRAY, linewidth=1, linestyle=(0, (6, 4)))
        axes.annotate(
            f"{ceiling[0]}: {ceiling[1]:.1%}",
            (0.01, 100 * ceiling[1]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            color=GRAY,
            fontsize=9,
        )
    dress_budgets(axes, sorted({epsilon for curve in curves.values() for epsilon in curve}))
    axes.legend(frameon=False, loc="lower right")
    axes.set_xlabel(f"privacy budget ε  (δ = {delta:g}; left is more private)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title, fontsize=11, loc="left")
    return figure


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of some runs; 0 for one, which says nothing of it."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def dress_budgets(axes: Axes, epsilons: Sequence[float], *, fontsize: float | None = None) -> None:
    """Give axes a logarithmic ε with the budgets themselves as ticks, room above, and no frame."""
    axes.set_xscale("log")
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons], fontsize=fontsize)
    axes.minorticks_off()
    axes.margins(y=0.1)
    open_frame(axes)


def open_frame(axes: Axes) -> None:
    """Light horizontal lines behind what is drawn, and no frame above and on the right."""
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def add_legend(figure: Figure, *, columns: int = 3, order: Iterable[str] | None = None) -> None:
    """Name every line once, below all panels; in the order of `order`, or as they were drawn."""
    pairs = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {word: h for found, words in pairs for h, word in zip(found, words, strict=True)}
    named = [word for word in (handles if order is None else order) if word in handles]
    if named:
        figure.legend(
            handles=[handles[word] for word in named],
            labels=named,
            loc="outside lower center",
            ncols=min(columns, len(named)),
            frameon=False,
            fontsize=8,
        )


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Give a figure as the bytes of a file; the same bytes for the same figure."""
    import matplotlib

    sink = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with dressed(figure), matplotlib.rc_context({"svg.hashsalt": "dpfc"}):
        figure.savefig(sink, format=kind, dpi=200, metadata=metadata)
    return sink.getvalue()
