"""Plots that read well in print: accuracy versus ε."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_figure", "render"]

# Colours of Okabe and Ito (2008) stay apart for the colour-blind; markers and dashes, in gray.
_STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
)
_GRAY = "#555555"


def accuracy_figure(
    curves: Mapping[str, Mapping[float, float]],
    *,
    delta: float,
    title: str,
    ceiling: tuple[str, float] | None = None,
) -> Figure:
    """Draw test accuracy versus ε, one line a method.

    Parameters
    ----------
    curves : mapping of str to mapping of float to float
        For each method's name, accuracy in [0, 1] by ε.
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
        colour, marker, dashes = _STYLES[index % len(_STYLES)]
        epsilons = sorted(curve)
        percent = [100 * curve[epsilon] for epsilon in epsilons]
        axes.plot(epsilons, percent, dashes, color=colour, marker=marker, markersize=5, label=name)
    if ceiling is not None:
        axes.axhline(100 * ceiling[1], color=_GRAY, linewidth=1, linestyle=(0, (6, 4)))
        axes.annotate(
            f"{ceiling[0]}: {ceiling[1]:.1%}",
            (0.01, 100 * ceiling[1]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            color=_GRAY,
            fontsize=9,
        )
    _dress(axes, sorted({epsilon for curve in curves.values() for epsilon in curve}))
    axes.set_xlabel(f"privacy budget ε  (δ = {delta:g}; left is more private)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title, fontsize=11, loc="left")
    return figure


def _dress(axes: Axes, epsilons: Sequence[float]) -> None:
    """Log axis with the budgets themselves as ticks, room above, and no frame."""
    axes.set_xscale("log")
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes.minorticks_off()
    axes.margins(y=0.1)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """Give a figure as the bytes of a file; the same bytes for the same figure."""
    import matplotlib

    sink = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "dpfc"}):
        figure.savefig(sink, format=kind, dpi=200, metadata=metadata)
    return sink.getvalue()
