"""Plots show what they are given, and are the same file for the same figures."""

import xml.etree.ElementTree as ElementTree

import pytest

from dpfc.experiments.pictures.style import accuracy_figure, render

CURVES = {
    "DP-FC": {8.0: [0.8, 1.0], 0.1: [0.5], 1.0: [0.8]},
    "DP-LS": {0.1: [0.4], 1.0: [0.7], 8.0: [0.85]},
}


@pytest.fixture
def figure():
    return accuracy_figure(CURVES, delta=1e-5, title="digits", ceiling=("not private", 0.95))


def test_each_method_is_a_line_in_percent_over_sorted_budgets(figure):
    (axes,) = figure.axes
    lines = {bars.get_label(): bars.lines[0] for bars in axes.containers}
    assert list(lines["DP-FC"].get_xdata()) == [0.1, 1, 8]
    assert list(lines["DP-FC"].get_ydata()) == pytest.approx([50, 80, 90])
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.1", "1", "8"]


def test_lines_differ_without_colour(figure):
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 2


def test_the_ceiling_is_drawn_and_named(figure):
    (axes,) = figure.axes
    assert any(line.get_ydata()[0] == pytest.approx(95) for line in axes.lines)
    assert [text.get_text() for text in axes.texts] == ["not private: 95.0%"]


def test_files_are_whole_and_repeatable(figure):
    assert render(figure, "png").startswith(b"\x89PNG")
    svg = render(figure, "svg")
    assert svg == render(figure, "svg") and ElementTree.fromstring(svg).tag.endswith("svg")


def test_one_budget_and_no_ceiling_can_be_drawn():
    assert render(accuracy_figure({"DP-FC": {1.0: [0.5]}}, delta=1e-6, title=""), "png")
