"""Pictures of single runs for print: confusion matrix, classes, and where the budget went."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dpfc.experiments.pictures.fonts import drawable
from dpfc.experiments.pictures.style import COLOURS, GRAY, add_legend, line_style
from dpfc.experiments.pictures.views import budget_shares, class_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["budget_figure", "class_figure", "confusion_figure", "plain", "wrapped"]

# With more classes their names, or their counts, would run into each other.
_MOST_NAMES, _MOST_COUNTS = 40, 12
_BAR_STEP = 0.55
# Letters of a line that the width of a picture, or a name beside a bar, leaves room for.
_TITLE, _BAR_NAME = 42, 40


def confusion_figure(run: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix of one run, colours by share of the true class.

    Parameters
    ----------
    run : mapping
        A row of the table that has a ``confusion``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    counts = run["confusion"]
    names = [plain(name) for name in class_names(run, len(counts))]
    shares = [[100 * n / max(sum(row), 1) for n in row] for row in counts]
    side = min(4.0 + 0.16 * len(counts), 9.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(counts) <= _MOST_COUNTS:
        for i, row in enumerate(counts):
            for j, n in enumerate(row):
                ink = "white" if shares[i][j] > 60 else "black"
                axes.text(j, i, f"{n}", ha="center", va="center", color=ink, fontsize=8)
    if len(counts) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    axes.set_title(wrapped(_run_words(run), _TITLE), fontsize=10, loc="left")
    return figure


def class_figure(run: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of one run on every class, lowest first.

    Parameters
    ----------
    run : mapping
        A row of the table that has a ``per_class_accuracy``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    values = run["per_class_accuracy"]
    names = class_names(run, len(values))
    order = sorted(range(len(values)), key=lambda code: values[code])
    figure = Figure(figsize=(6.4, min(1.4 + 0.24 * len(values), 9.0)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(order)), [100 * values[code] for code in order], color=COLOURS[0])
    few = order if len(order) <= _MOST_NAMES else []
    axes.set_yticks(range(len(few)), [plain(names[code]) for code in few], fontsize=8)
    if run["accuracy"] is not None:
        axes.axvline(100 * run["accuracy"], color=GRAY, linewidth=1, linestyle=(0, (6, 4)))
    axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("test accuracy on the class (%); dashed: on all rows", fontsize=9)
    axes.set_title(wrapped(_run_words(run), _TITLE), fontsize=10, loc="left")
    return figure


def budget_figure(runs: Iterable[Mapping[str, Any]]) -> Figure:
    """Draw what each release of some runs costs, a bar a run.

    Parameters
    ----------
    runs : iterable of mapping
        Rows of the table, with statements whose releases have shares of μ².

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    paid = [(run, budget_shares(run)) for run in runs]
    figure = Figure(figsize=(7.2, 1.3 + _BAR_STEP * len(paid)), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(release.name for _, shares in paid for release in shares))
    left = [0.0] * len(paid)
    for index, name in enumerate(names):
        widths = [_share(shares, name) for _, shares in paid]
        colour = line_style(index)[0]
        axes.barh(range(len(paid)), widths, left=left, color=colour, label=plain(name))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(
        range(len(paid)), [wrapped(_run_words(run), _BAR_NAME) for run, _ in paid], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share of the privacy budget (%), in μ²", fontsize=9)
    add_legend(figure)
    return figure


def _share(shares: Iterable[Any], name: str) -> float:
    return sum(100 * (release.share_of_budget or 0.0) for release in shares if release.name == name)


def _run_words(run: Mapping[str, Any]) -> str:
    place = run["dataset"] if run["backbone"] is None else f"{run['dataset']} ({run['backbone']})"
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    return f"{place}: {run['label']}, ε = {run['epsilon']:g}{seed}"


def plain(text: str) -> str:
    """Keep matplotlib from reading mathematics, or a line to leave out, into a name.

    Letters that no font here has become numbers, not boxes.
    """
    escaped = drawable(text).replace("$", r"\$")
    return f"\u200b{escaped}" if escaped.startswith("_") else escaped


def wrapped(text: str, width: int) -> str:
    """Bring a name into lines of so many letters, none of them left out."""
    return plain("\n".join(textwrap.wrap(text, width)))
