"""The pictures of a study show its figures, and leave out what there is none of."""

import json
import math

import pytest
from study_tables import ceiling, failed, row, study, table

from dpfc.experiments.pictures.runs import budget_figure, class_figure, confusion_figure
from dpfc.experiments.pictures.study import study_figures
from dpfc.experiments.pictures.style import line_style, render
from dpfc.experiments.pictures.views import curves, label_sides, spaced, study_panels


@pytest.fixture(scope="module")
def figures():
    return study_figures(table(*study()))


def settings(**parameters):
    return json.dumps(parameters, sort_keys=True)


def curve(axes, label):
    """Points and errors, in percent, of what the legend calls `label`."""
    (found,) = [each for each in axes.containers if each.get_label() == label]
    line, _, (bars,) = found.lines
    errors = [(top - bottom) / 2 for (_, bottom), (_, top) in bars.get_segments()]
    return list(line.get_xdata()), list(line.get_ydata()), errors


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_study_has_a_file_for_everything_that_it_varies(figures):
    assert list(figures) == [
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
        assert render(figures[name], "png").startswith(b"\x89PNG")


def test_curves_are_means_with_standard_errors_of_the_best_setting(figures):
    digits, wards = figures["accuracy-vs-epsilon"].axes
    assert [axes.get_title(loc="left") for axes in (digits, wards)] == [
        "digits",
        "wards (timm/vit)",
    ]
    error = 1 / math.sqrt(3)  # of 60, 61 and 62 percent
    x, y, errors = curve(digits, "DP-FC")
    assert x == [0.1, 1, 8] and y == pytest.approx([61, 71, 81])
    assert errors == pytest.approx([error] * 3)
    # Of three settings, the middle one; the others are two points lower.
    assert curve(digits, "DP-LS (best of 3 settings at each ε)")[1] == pytest.approx([58, 68, 78])
    assert curve(wards, "DP-FC")[1] == pytest.approx([41, 51, 61])
    assert digits.get_xscale() == "log"
    assert "δ = 1e-05" in digits.get_xlabel()


def test_the_ceiling_is_a_dashed_line_in_every_panel(figures):
    figure = figures["accuracy-vs-epsilon"]
    for axes in figure.axes:
        (line,) = [line for line in axes.lines if line.get_label() == "not private"]
        assert line.get_ydata()[0] == pytest.approx(95) and line.get_linestyle() == "--"
    assert "not private" in legend(figure)


def test_a_method_has_one_colour_in_all_panels(figures):
    found = {}
    for name in ("accuracy-vs-epsilon", "accuracy-vs-seconds"):
        for each in (each for axes in figures[name].axes for each in axes.containers):
            found.setdefault(each.get_label()[:5], set()).add(each.lines[0].get_color())
    assert found == {"DP-FC": {line_style(0)[0]}, "DP-LS": {line_style(1)[0]}}


def test_seconds_are_means_and_points_name_their_budget(figures):
    axes, _ = figures["accuracy-vs-seconds"].axes
    x, y, _ = curve(axes, "DP-LS")
    assert x == pytest.approx([0.1] * 3) and y == pytest.approx([58, 68, 78])
    assert [text.get_text() for text in axes.texts].count("ε = 0.1") == 2


def test_labels_beside_points_cover_neither_points_nor_each_other():
    assert label_sides([(0.1, 0.5), (10.0, 0.5)]) == ["right", "left"]
    # Three points in a heap: one label on either side of it, and none for the third.
    heap = label_sides([(0.10, 0.1), (0.5, 0.5), (0.5, 0.501), (0.5, 0.502), (1.0, 0.9)])
    assert sorted(heap[1:4]) == ["", "left", "right"]
    assert label_sides([(1.0, 0.5)]) == ["right"] and label_sides([]) == []


def test_a_long_name_is_wrapped_and_not_cut():
    name = "Kardiologie Nord, Station A und B, erster Stock, mit Ambulanz"
    title = study_figures(table(row(dataset=name)))["accuracy-vs-epsilon"].axes[0].get_title("left")
    assert title.count("\n") >= 1 and title.replace("\n", " ") == name


def test_a_parameter_has_a_panel_a_data_set_and_budget(figures):
    axes = figures["accuracy-vs-l2_regularization"].axes
    titles = [each.get_title(loc="left") for each in axes]
    assert titles == [
        f"{d}, ε = {e}" for d in ("digits", "wards (timm/vit)") for e in ("0.1", 1, 8)
    ]
    x, y, _ = curve(axes[1], "DP-LS")
    assert x == [0.01, 0.1, 1] and y == pytest.approx([66, 68, 66])
    assert axes[1].get_xscale() == "log"


def test_only_numbers_that_vary_are_parameters():
    rows = [
        row(0.7, parameters=settings(steps=5, same=1, flag=True, words="a", sometimes=None)),
        row(0.8, parameters=settings(steps=10, same=1, flag=False, words="b", sometimes=3)),
        row(0.6, parameters=settings(same=2), label="other"),
    ]
    names = [name for name in study_figures(table(*rows)) if name.startswith("accuracy-vs-")]
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
    figure = study_figures(table(*sampled))["accuracy-vs-a"]
    assert not curves(study_panels(table(*sampled))[0], "a")[0].joined
    assert figure.axes[0].containers[0].lines[0].get_linestyle() == "None"
    assert "best of up to 2" in study_figures(table(*grid))["accuracy-vs-a"].axes[0].get_xlabel()


def test_one_run_of_median_accuracy_stands_for_the_best_method(figures):
    # Seed 1 of 0, 1 and 2, at the largest ε.
    title = figures["confusion-digits"].axes[0].get_title(loc="left")
    assert title == "digits: DP-FC, ε = 8, seed 1"
    assert figures["class-accuracy-digits"].axes[0].get_title(loc="left") == title


def test_a_confusion_matrix_shows_counts_and_shares_of_the_true_class():
    counts = [[8, 2, 0], [0, 0, 0], [10, 0, 30]]
    axes = confusion_figure(row(confusion=counts)).axes[0]
    expected = [[80, 20, 0], [0, 0, 0], [25, 0, 75]]
    assert axes.images[0].get_array().tolist() == expected
    assert [text.get_text() for text in axes.texts] == [str(n) for line in counts for n in line]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["ant", "bee", "cow"]


def test_many_classes_have_neither_names_nor_counts():
    counts = [[int(i == j) for j in range(60)] for i in range(60)]
    axes = confusion_figure(row(confusion=counts, class_names=None)).axes[0]
    assert not axes.texts
    assert "59" not in [tick.get_text() for tick in axes.get_yticklabels()]


def test_classes_are_sorted_from_the_lowest_accuracy():
    axes = class_figure(row(0.5, per_class_accuracy=[0.9, 0.1, 0.5])).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 50, 90])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["bee", "cow", "ant"]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(50)


@pytest.mark.parametrize(
    ("names", "shown"),
    [(None, ["0", "1", "2"]), ([], ["0", "1", "2"]), (["a", "b", "a"], ["0: a", "1: b", "2: a"])],
)
def test_classes_without_names_of_their_own_are_numbered(names, shown):
    axes = confusion_figure(row(class_names=names)).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == shown


def test_the_budget_is_that_of_the_statements_releases():
    figure = budget_figure([row()])
    assert legend(figure) == ["gram", "gradient"]
    bars = figure.axes[0].patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, 50), (50, 50)]


def test_nothing_is_drawn_of_what_runs_do_not_have():
    fields = ("confusion", "per_class_accuracy", "class_names", "seconds", "statement", "seed")
    bare = row(**dict.fromkeys(fields))
    assert list(study_figures(table(bare))) == ["accuracy-vs-epsilon"]
    unreadable = row(statement="{}", confusion=None)
    assert list(study_figures(table(unreadable))) == [
        "accuracy-vs-epsilon",
        "accuracy-vs-seconds",
        "class-accuracy-digits",
    ]


def test_one_run_has_a_point_without_an_error_bar():
    figures = study_figures(table(row(0.8)))
    x, y, errors = curve(figures["accuracy-vs-epsilon"].axes[0], "DP-FC")
    assert (x, y, errors) == ([1], [80], [0])
    for figure in figures.values():
        assert render(figure, "svg")


def test_failed_runs_and_runs_without_a_budget_are_left_out():
    rows = [row(0.8), failed(epsilon=8.0), row(0.9, epsilon=math.inf, seed=1), failed(dataset="x")]
    axes = study_figures(table(*rows))["accuracy-vs-epsilon"].axes
    assert len(axes) == 1
    assert curve(axes[0], "DP-FC")[0] == [1]


@pytest.mark.parametrize("rows", [[], [ceiling()], [failed()], [row(epsilon=math.inf)]])
def test_there_is_no_picture_without_a_finished_private_run(rows):
    assert study_figures(table(*rows)) == {}


@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_they_are_and_make_safe_file_names():
    names = ("../$a_{b$/c", "_hidden", "$x^$", "a/b", "a b")
    label = "$x^$"
    rows = [row(dataset=name, label=label) for name in names]
    rows += [row(dataset="a b", label="_line", parameters=settings(**{"$l$/": n})) for n in (1, 2)]
    figures = study_figures(table(*rows))
    assert all(set(stem) <= set("abcdefghijklmnopqrstuvwxyz._-0123456789") for stem in figures)
    assert len([stem for stem in figures if stem.startswith("confusion-a-b")]) == 2
    drawn = render(figures["accuracy-vs-epsilon"], "svg").decode()
    for text in (*names, label, "_line (best of 2 settings at each ε)"):
        assert f"<!-- {text} -->" in drawn.replace("\u200b", "").replace(r"\$", "$")
    for figure in figures.values():
        assert render(figure, "png")


def test_budgets_that_are_close_share_a_tick():
    assert spaced([0.1, 1, 8]) == [0.1, 1, 8]
    assert spaced([1.0]) == [1.0]
    many = [0.1 * 1.1**n for n in range(40)]
    kept = spaced(many)
    assert 5 <= len(kept) <= 10 and set(kept) <= set(many)
