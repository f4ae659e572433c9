"""The two pictures of a statement, as SVG that lives inside a page.

Colours are the page's CSS variables, so that the pictures follow light and dark mode, and
labels are text, so that they can be read, searched and selected. Matplotlib draws with
colours of our choice that nothing else uses; they are replaced afterwards.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal
from xml.etree import ElementTree

from dpfc.accounting.profiles import PrivacyProfile
from dpfc.accounting.statements.records import FALSE_POSITIVE_RATES
from dpfc.accounting.statements.wording import percent, upper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["epsilon_picture", "trade_off_picture"]

# Colours that stand for CSS variables of the page.
_INK: Final = "#010101"
_MUTED: Final = "#020202"
_RULE: Final = "#030303"
_CURVE: Final = "#040404"
_MARK: Final = "#050505"
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _CURVE: "var(--curve)",
    _MARK: "var(--mark)",
}
# In inches of 72 units: one unit is one CSS pixel on a phone of 360 pixels.
_SIZE: Final = (4.3, 3.5)
_STYLE: Final = {
    "svg.fonttype": "none",
    "font.size": 11.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
_POINTS: Final = 120
# Attacks are drawn from one false alarm in 10,000 on.
_LOWEST_RATE: Final = 1e-4
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def epsilon_picture(profile: PrivacyProfile, epsilon: float, delta: float, *, name: str) -> str:
    """Draw ε(δ) of a guarantee, with its target marked.

    Parameters
    ----------
    profile : PrivacyProfile
    epsilon, delta : float
        The target.
    name : str
        Start of every id in the picture; unique in the page.

    Returns
    -------
    str
        One <svg> element.
    """
    lowest = min(1e-10, delta / 10) if delta > 0 else 1e-10
    deltas = _geometric(max(lowest, 1e-300), 0.5)
    pairs = [(d, profile.epsilon(d)) for d in deltas]
    curve = [(d, e) for d, e in pairs if math.isfinite(e)]

    def draw(axes: Axes) -> None:
        axes.set_xlabel("δ (logarithmic)")
        axes.set_ylabel("ε")
        axes.set_xscale("log")
        axes.set_xlim(deltas[0], deltas[-1])
        _ticks(axes.xaxis, *_decades(deltas[0], deltas[-1], most=6))
        if curve:
            axes.plot(*zip(*curve, strict=True), color=_CURVE, linewidth=2, gid="curve")
        if math.isfinite(epsilon) and delta > 0:
            guide = [deltas[0], delta, delta], [epsilon, epsilon, 0]
            axes.plot(*guide, "--", color=_MUTED, linewidth=1)
            axes.plot([delta], [epsilon], "o", color=_MARK, markersize=7)
            _label(axes, f"ε = {upper(epsilon)}\nδ = {upper(delta)}", (delta, epsilon), "left")
        if not curve:
            axes.text(0.5, 0.5, "ε is infinite at every δ", ha="center", transform=axes.transAxes)
        axes.set_ylim(bottom=0)

    target = f"The target is ε = {upper(epsilon)} at δ = {upper(delta)}."
    points = "; ".join(f"ε = {upper(e, 4)} at δ = {upper(d, 3)}" for d, e in curve[:: _POINTS // 6])
    text = f"The smaller δ, the larger ε. {target} On the curve: {points or 'no finite ε'}."
    return _picture(draw, name, "ε as a function of δ", text)


def trade_off_picture(profile: PrivacyProfile, *, name: str) -> str:
    """Draw the highest true-positive rate of any attack against its false-positive rate.

    Parameters
    ----------
    profile : PrivacyProfile
    name : str
        Start of every id in the picture; unique in the page.

    Returns
    -------
    str
        One <svg> element.
    """
    rates = _geometric(_LOWEST_RATE, 1.0)
    curve = [min(1.0, profile.true_positive_rate(rate)) for rate in rates]
    marks = [min(1.0, profile.true_positive_rate(rate)) for rate in FALSE_POSITIVE_RATES]

    def draw(axes: Axes) -> None:
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(_LOWEST_RATE, 1)
        axes.set_ylim(_LOWEST_RATE, 1.6)
        ticks = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
        for axis in (axes.xaxis, axes.yaxis):
            _ticks(axis, ticks, [f"{100 * tick:g}%" for tick in ticks])
        diagonal = [_LOWEST_RATE, 1]
        axes.plot(diagonal, diagonal, "--", color=_MUTED, linewidth=1.2, gid="blind")
        axes.plot(rates, curve, color=_CURVE, linewidth=2, gid="curve")
        axes.plot(FALSE_POSITIVE_RATES, marks, "o", color=_MARK, markersize=6)
        for rate, mark in zip(FALSE_POSITIVE_RATES, marks, strict=True):
            _label(axes, percent(mark), (rate, mark), "right")

    points = "; ".join(
        f"at most {percent(mark)} at {100 * rate:g}%"
        for rate, mark in zip(FALSE_POSITIVE_RATES, marks, strict=True)
    )
    text = (
        "The highest true-positive rate of any attack, by false-positive rate, both axes "
        f"logarithmic: {points}. The dashed diagonal is blind guessing."
    )
    return _picture(draw, name, "The best attack's trade-off", text)


# -- drawing -------------------------------------------------------------------------


def _picture(draw: Callable[[Axes], None], name: str, title: str, description: str) -> str:
    """Draw with matplotlib's own defaults, whatever the user's are, and make it an element."""
    import matplotlib.style
    from matplotlib.figure import Figure

    sink = io.BytesIO()
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        draw(axes)
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(sink, format="svg", transparent=True, metadata=metadata)
    return _element(sink.getvalue(), name, title, description)


def _label(
    axes: Axes, text: str, at: tuple[float, float], anchor: Literal["left", "right"]
) -> None:
    """Write above a point, on the side where the curve is not; `anchor` is the text's end."""
    shift = (6 if anchor == "left" else -6, 4)
    axes.annotate(text, at, xytext=shift, textcoords="offset points", ha=anchor, va="bottom")


def _ticks(axis: Axis, values: Sequence[float], labels: Sequence[str]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_ticks(values, labels)


def _decades(low: float, high: float, *, most: int) -> tuple[list[float], list[str]]:
    """At most `most` powers of ten in an interval, and how they are written."""
    exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    step = math.ceil(len(exponents) / most)
    chosen = exponents[::step]
    labels = [f"10{str(exponent).translate(_SUPERSCRIPTS)}" for exponent in chosen]
    return [10.0**exponent for exponent in chosen], labels


def _geometric(low: float, high: float) -> list[float]:
    ratio = math.log(high / low) / (_POINTS - 1)
    return [*(low * math.exp(ratio * step) for step in range(_POINTS - 1)), high]


# -- from matplotlib's file to an element of a page ----------------------------------


def _element(svg: bytes, name: str, title: str, description: str) -> str:
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        _localise(element, name)
    for stale in [child for child in root if child.tag == "metadata"]:
        root.remove(stale)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        label = ElementTree.Element(tag, id=f"{name}-{tag}")
        label.text = text
        root.insert(position, label)
    return ElementTree.tostring(root, encoding="unicode")


def _localise(element: ElementTree.Element, name: str) -> None:
    """Drop namespaces, which HTML implies, make ids unique in the page, and set colours."""
    element.tag = element.tag.rpartition("}")[2]
    if element.tag == "style":
        # Matplotlib's rule is for every element of a document: here, of the whole page.
        element.text = ""
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        key = key.rpartition("}")[2]
        if key == "id":
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        value = value.replace("url(#", f"url(#{name}-")
        if key == "style":
            value = re.sub(r"font-family:[^;]*;? ?", "", value)
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, variable)
        element.set(key, value)
