"""Plots of means show what they are given, and are the same file for the same figures."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from dpfc.experiments.pictures.charts import budgets_chart
from dpfc.experiments.pictures.study import budgets_grid, render_chart
from dpfc.experiments.pictures.views import means_panel

NAMES = {"DP-FC": "DP-FC", "DP-LS": "DP-LS"}


CURVES = {
    "DP-FC": {8.0: [0.8, 1.0], 0.1: [0.5], 1.0: [0.8]},
    "DP-LS": {0.1: [0.4], 1.0: [0.7], 8.0: [0.85]},
}


@pytest.fixture
def panel():
    return means_panel("digits", CURVES, ("not private", 0.95))


def test_each_method_is_a_line_in_percent_over_sorted_budgets(panel):
    chart = budgets_chart(panel, NAMES, "ε")
    points = [point for point in chart["data"]["values"] if point["name"] == "DP-FC"]
    assert [(point["x"], point["y"]) for point in points] == [(0.1, 50), (1, 80), (8, 90)]
    assert chart["encoding"]["x"]["scale"]["type"] == "log"
    drawn = render_chart(budgets_grid([panel], NAMES, [1e-5]), "svg").decode()
    for text in ("0.1", "1", "8", "digits"):
        assert f">{text}<" in drawn
    assert "(δ = 1e-05; left is more private)" in drawn


def test_lines_differ_without_colour(panel):
    drawn = render_chart(budgets_grid([panel], NAMES, [1e-5]), "svg").decode()
    lines = ElementTree.fromstring(drawn).findall(".//*[@aria-roledescription='line mark']")
    assert [line.get("stroke-dasharray") for line in lines] == ["1,0", "6,4"]
    points = ElementTree.fromstring(drawn).findall(".//*[@aria-roledescription='point']")
    assert len({point.get("d") for point in points}) == 2


def test_the_ceiling_is_drawn_and_named(panel):
    drawn = render_chart(budgets_grid([panel], NAMES, [1e-5]), "svg").decode()
    assert len(re.findall('<line[^>]* stroke-dasharray="6,4"', drawn)) == 1
    assert ">not private: 95.00%<" in drawn


def test_files_are_whole_and_repeatable(panel):
    chart = budgets_grid([panel], NAMES, [1e-5])
    assert render_chart(chart, "png").startswith(b"\x89PNG")
    svg = render_chart(chart, "svg")
    assert svg == render_chart(chart, "svg") and ElementTree.fromstring(svg).tag.endswith("svg")


def test_one_budget_and_no_ceiling_can_be_drawn():
    panel = means_panel("", {"DP-FC": {1.0: [0.5]}})
    assert render_chart(budgets_grid([panel], NAMES, [1e-6]), "png")
