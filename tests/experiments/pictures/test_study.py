"""The pictures of a study show its figures, and leave out what there is none of."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from study_tables import ceiling, failed, row, study, table

from dpfc.experiments.pictures.charts import COLOURS, budget_chart, class_chart, confusion_chart
from dpfc.experiments.pictures.study import render_chart, study_charts
from dpfc.experiments.pictures.views import curves, label_sides, spaced, study_panels


@pytest.fixture(scope="module")
def charts():
    return study_charts(table(*study()))


def settings(**parameters):
    return json.dumps(parameters, sort_keys=True)


def panels(chart):
    """Small charts of one picture, by title."""
    return {" ".join(panel["title"]): panel for panel in chart["concat"]}


def curve(chart, label):
    """Points and errors, in percent, of what the legend calls `label`."""
    points = [p for p in chart["data"]["values"] if p["name"].replace("\n", " ") == label]
    errors = [(point["high"] - point["low"]) / 2 for point in points]
    return [point["x"] for point in points], [point["y"] for point in points], errors


def texts(chart):
    """Texts that a picture shows, lines of one text together."""
    root = ElementTree.fromstring(render_chart(chart, "svg"))
    found = root.iter("{http://www.w3.org/2000/svg}text")
    return [" ".join(text.itertext()) for text in found if text.get("opacity") != "0"]


def test_a_study_has_a_file_for_everything_that_it_varies(charts):
    assert list(charts) == [
        "accuracy-vs-epsilon",
        "accuracy-vs-seconds",
        "accuracy-vs-l2_regularization",
        "confusion-digits",
        "class-accuracy-digits",
        "budget-digits",
        "confusion-wards-timm-vit",
        "class-accuracy-wards-timm-vit",
        "budget-wards-timm-vit",
    ]
    for name in ("accuracy-vs-epsilon", "budget-digits"):
        assert render_chart(charts[name], "png").startswith(b"\x89PNG")


def test_curves_are_means_with_standard_errors_of_the_best_setting(charts):
    found = panels(charts["accuracy-vs-epsilon"])
    assert list(found) == ["digits", "wards (timm/vit)"]
    digits, wards = found.values()
    error = 1 / math.sqrt(3)  # of 60, 61 and 62 percent
    x, y, errors = curve(digits, "DP-FC")
    assert x == [0.1, 1, 8] and y == pytest.approx([61, 71, 81])
    assert errors == pytest.approx([error] * 3, abs=1e-4)
    # Of three settings, the middle one; the others are two points lower.
    assert curve(digits, "DP-LS (best of 3 settings at each ε)")[1] == pytest.approx([58, 68, 78])
    assert curve(wards, "DP-FC")[1] == pytest.approx([41, 51, 61])
    scale = digits["encoding"]["x"]["scale"]
    assert scale["type"] == "log" and "δ = 1e-05" in digits["encoding"]["x"]["title"]


def test_the_ceiling_is_a_dashed_line_with_its_name_in_every_panel(charts):
    chart = charts["accuracy-vs-epsilon"]
    for panel in panels(chart).values():
        line, words = panel["layer"][-2:]
        assert line["encoding"]["y"]["datum"] == 95
        assert words["mark"]["text"] == ["not private: 95.00%"]
    assert texts(chart).count("not private: 95.00%") == 2
    drawn = render_chart(chart, "svg").decode()
    assert len(re.findall('<line[^>]* stroke-dasharray="6,4"', drawn)) == 2


def test_a_method_has_one_colour_in_all_panels(charts):
    found = {}
    for name in ("accuracy-vs-epsilon", "accuracy-vs-seconds"):
        drawn = render_chart(charts[name], "svg").decode()
        colours = re.findall(r'aria-roledescription="point"[^>]*fill="(.*?)"', drawn)
        points = [p for each in panels(charts[name]).values() for p in each["data"]["values"]]
        for point, colour in zip(points, colours, strict=True):
            found.setdefault(point["name"][:5], set()).add(colour)
    assert found == {"DP-FC": {COLOURS[0]}, "DP-LS": {COLOURS[1]}}


def test_seconds_are_means_and_points_name_their_budget(charts):
    chart = charts["accuracy-vs-seconds"]
    x, y, _ = curve(panels(chart)["digits"], "DP-LS (best of 3 settings at each ε)")
    assert x == pytest.approx([0.1] * 3) and y == pytest.approx([58, 68, 78])
    assert texts(chart).count("ε 0.1") == 4


def test_labels_beside_points_cover_neither_points_nor_each_other():
    assert label_sides([(0.1, 0.5), (10.0, 0.5)]) == ["right", "left"]
    # Three points in a heap: one label on either side of it, and none for the third.
    heap = label_sides([(0.10, 0.1), (0.5, 0.5), (0.5, 0.501), (0.5, 0.502), (1.0, 0.9)])
    assert sorted(heap[1:4]) == ["", "left", "right"]
    assert label_sides([(1.0, 0.5)]) == ["right"] and label_sides([]) == []


def test_a_long_name_is_wrapped_and_not_cut():
    name = "Kardiologie Nord, Station A und B, erster Stock, mit Ambulanz"
    chart = study_charts(table(row(dataset=name)))["accuracy-vs-epsilon"]
    assert len(chart["concat"][0]["title"]) > 1 and name in texts(chart)


def test_a_parameter_has_a_panel_a_data_set_and_budget(charts):
    found = panels(charts["accuracy-vs-l2_regularization"])
    assert list(found) == [
        f"{d}, ε = {e}" for d in ("digits", "wards (timm/vit)") for e in ("0.1", 1, 8)
    ]
    chart = found["digits, ε = 1"]
    x, y, _ = curve(chart, "DP-LS")
    assert x == [0.01, 0.1, 1] and y == pytest.approx([66, 68, 66])
    assert chart["encoding"]["x"]["scale"]["type"] == "log"


def test_only_numbers_that_vary_are_parameters():
    rows = [
        row(0.7, parameters=settings(steps=5, same=1, flag=True, words="a", sometimes=None)),
        row(0.8, parameters=settings(steps=10, same=1, flag=False, words="b", sometimes=3)),
        row(0.6, parameters=settings(same=2), label="other"),
    ]
    names = [name for name in study_charts(table(*rows)) if name.startswith("accuracy-vs-")]
    assert names == ["accuracy-vs-epsilon", "accuracy-vs-seconds", "accuracy-vs-steps"]


def test_a_grid_is_joined_at_its_best_and_sampled_settings_are_points():
    grid = [
        row(0.5 + 0.01 * a + 0.1 * b, parameters=settings(a=a, b=b)) for a in (1, 2) for b in (1, 2)
    ]
    (panel,) = study_panels(table(*grid))
    (found,) = curves(panel, "a")
    assert found.joined and found.chosen_from == 2
    assert [(x, g.accuracy) for x, g in found.points] == [(1, 0.71), (2, 0.72)]
    sampled = [row(0.5 + a / 10, parameters=settings(a=a, b=3 - a)) for a in (1, 2)]
    assert not curves(study_panels(table(*sampled))[0], "a")[0].joined
    drawn = [study_charts(table(*rows))["accuracy-vs-a"] for rows in (grid, sampled)]
    lines = [render_chart(chart, "svg").count(b'"line mark"') for chart in drawn]
    assert lines == [1, 0]
    assert "best of up to 2" in drawn[0]["concat"][0]["encoding"]["x"]["title"]


def test_one_run_of_median_accuracy_stands_for_the_best_method(charts):
    # Seed 1 of 0, 1 and 2, at the largest ε.
    title = ["digits: DP-FC, ε = 8, seed 1"]
    assert charts["confusion-digits"]["title"] == title
    assert charts["class-accuracy-digits"]["title"] == title


def test_a_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    counts = [[8, 2, 0], [0, 0, 0], [10, 0, 30]]
    chart = study_charts(table(row(confusion=counts)))["confusion-digits"]
    cells = chart["data"]["values"]
    assert [cell["share"] for cell in cells] == [80, 20, 0, 0, 0, 0, 25, 0, 75]
    found = texts(chart)
    assert [text for text in found if text.isdigit()] == [str(n) for line in counts for n in line]
    assert all(found.count(name) == 2 for name in ("ant", "bee", "cow"))


def test_many_classes_have_neither_names_nor_counts():
    counts = [[int(i == j) for j in range(60)] for i in range(60)]
    names = [f"class {i}" for i in range(60)]
    many = row(confusion=counts, class_names=names, n_classes=60, per_class_accuracy=None)
    found = texts(study_charts(table(many))["confusion-digits"])
    assert not any(text.startswith("class ") for text in found)
    # Fewer numbers than classes: they do not run into each other.
    assert 10 < sum(text.isdigit() for text in found) < 100


def test_classes_are_sorted_from_the_lowest_accuracy():
    run = row(0.5, per_class_accuracy=[0.9, 0.1, 0.5])
    chart = class_chart(run)
    assert [bar["y"] for bar in chart["data"]["values"]] == pytest.approx([10, 50, 90])
    assert chart["layer"][1]["encoding"]["y"]["datum"] == 50
    found = texts(study_charts(table(run))["class-accuracy-digits"])
    assert [text for text in found if text in ("ant", "bee", "cow")] == ["bee", "cow", "ant"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [(None, ["0", "1", "2"]), ([], ["0", "1", "2"]), (["a", "b", "a"], ["0: a", "1: b", "2: a"])],
)
def test_classes_without_names_of_their_own_are_numbered(names, shown):
    assert confusion_chart(row(class_names=names))["params"][0]["value"] == shown


def test_the_budget_is_that_of_the_statements_releases():
    chart = budget_chart([row()], ["a run"])
    bars = chart["data"]["values"]
    assert [(bar["name"], bar["share"]) for bar in bars] == [("gram", 50), ("gradient", 50)]
    assert {"a run", "gram", "gradient"} <= set(texts(chart))


def test_nothing_is_drawn_of_what_runs_do_not_have():
    fields = ("confusion", "per_class_accuracy", "class_names", "seconds", "statement", "seed")
    bare = row(**dict.fromkeys(fields))
    assert list(study_charts(table(bare))) == ["accuracy-vs-epsilon"]
    unreadable = row(statement="{}", confusion=None)
    assert list(study_charts(table(unreadable))) == [
        "accuracy-vs-epsilon",
        "accuracy-vs-seconds",
        "class-accuracy-digits",
    ]


def test_one_run_has_a_point_without_an_error_bar():
    charts = study_charts(table(row(0.8)))
    x, y, errors = curve(panels(charts["accuracy-vs-epsilon"])["digits"], "DP-FC")
    assert (x, y, errors) == ([1], [80], [0])
    for chart in charts.values():
        assert render_chart(chart, "svg")


def test_failed_runs_and_runs_without_a_budget_are_left_out():
    rows = [row(0.8), failed(epsilon=8.0), row(0.9, epsilon=math.inf, seed=1), failed(dataset="x")]
    found = panels(study_charts(table(*rows))["accuracy-vs-epsilon"])
    assert list(found) == ["digits"] and curve(found["digits"], "DP-FC")[0] == [1]


@pytest.mark.parametrize("rows", [[], [ceiling()], [failed()], [row(epsilon=math.inf)]])
def test_there_is_no_picture_without_a_finished_private_run(rows):
    assert study_charts(table(*rows)) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_they_are_and_make_safe_file_names():
    names = ("../$a_{b$/c", "_hidden", "$x^$", "a/b", "a b")
    label = "$x^$"
    rows = [row(dataset=name, label=label) for name in names]
    rows += [row(dataset="a b", label="_line", parameters=settings(**{"$l$/": n})) for n in (1, 2)]
    charts = study_charts(table(*rows))
    assert all(set(stem) <= set("abcdefghijklmnopqrstuvwxyz._-0123456789") for stem in charts)
    assert len([stem for stem in charts if stem.startswith("confusion-a-b")]) == 2
    drawn = texts(charts["accuracy-vs-epsilon"])
    for text in (*names, label, "_line (best of 2 settings at each ε)"):
        assert text in drawn
    for chart in charts.values():
        assert render_chart(chart, "png")


def test_budgets_that_are_close_share_a_tick():
    assert spaced([0.1, 1, 8]) == [0.1, 1, 8]
    assert spaced([1.0]) == [1.0]
    many = [0.1 * 1.1**n for n in range(40)]
    kept = spaced(many)
    assert 5 <= len(kept) <= 10 and set(kept) <= set(many)
