"""The report of a study: what it says, and that no text of a user gets out of its place."""

import base64
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser

import pytest
import vl_convert
from study_tables import ceiling, failed, row, study, table

from dpfc.experiments.pictures.charts import COLOURS, DARK_COLOURS
from dpfc.experiments.pictures.page import report_html
from dpfc.features import MissingDependencyError

WORDS = {
    "title": "Four solvers",
    "description": "Which one?",
    "command": "dpfc sweep first.yaml 'seeds=3'",
    "config_text": "\nname: first\n# a < b & c\nmethods: [fc, ls]\n",
}
HOSTILE = "</script><script>alert(1)</script><b>%{x}</b> {{ 7 * 7 }} \"'><img src=x> <!-- "


class Page(HTMLParser):
    """Elements with their attributes, scripts by their text, and the text of the rest."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.scripts, self.text = [], [], ""
        self._in_script = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag == "script":
            self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data
        else:
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[0])

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def report(*rows, **changes):
    return report_html(table(*rows), **WORDS | changes)


def cells(source, row_number=0):
    """Texts of a run's cells, by heading."""
    body = source[source.index('<table id="runs"') :]
    line = re.findall(r'<tr role="row" data-dataset.*?</tr>', body, flags=re.DOTALL)[row_number]
    found = re.findall(r'<td role="cell" data-label="(.*?)".*?>(.*?)</td>', line, flags=re.DOTALL)
    return {name: html.unescape(re.sub("<.*?>", "|", text)).strip("|") for name, text in found}


def charts(source):
    """Every chart in the page, with its place."""
    for panel in Page(source).data["panels"]:
        for name in ("budgets", "seconds"):
            if panel[name] is not None:
                yield name, panel[name]
        yield from (("parameter", parameter["chart"]) for parameter in panel["parameters"])
        for run in panel["runs"]:
            yield from ((name, run[name]) for name in ("confusion", "classes", "budget"))


@pytest.fixture(scope="module")
def source():
    return report(*study())


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_the_page_has_everything_that_repeats_the_study(source, page):
    assert "Four solvers" in page.text and "Which one?" in page.text
    assert WORDS["command"] in page.text
    # The first line break after <pre> is HTML's own; what is copied starts with the second.
    assert '<pre id="config" tabindex="0">\n\nname: first\n# a &lt; b &amp; c' in source
    assert {attrs["data-copy"] for _, attrs in page.elements if "data-copy" in attrs} == {
        "command",
        "config",
    }
    for fact in ("75, 1 of them failed", "digits, wards (timm/vit)", "numpy 2.4.6, python 3.11.7"):
        assert fact in page.text


def test_means_are_there_by_method_and_budget(page):
    text = " ".join(page.text.split())
    assert "digits · not private: 95.00% Methodε = 0.1ε = 1ε = 8 DP-FC61.00 ± 0.583 runs" in text
    # The best of three settings, which is named.
    assert "DP-LS58.00 ± 0.583 runsl2_regularization = 0.1" in text
    assert "wards (timm/vit) · not private: 95.00%" in text


def test_only_the_highest_mean_of_a_budget_is_bold(source):
    assert re.findall(r'<span class="best">(.*?)</span>', source) == [
        *("61.00", "71.00", "81.00"),
        *("41.00", "51.00", "61.00"),
    ]


def test_every_run_is_a_row(source, page):
    assert sum("data-dataset" in attrs for _, attrs in page.elements) == 75
    assert cells(source, 1) == {
        "Data set": "digits",
        "Backbone": "",
        "Method": "DP-LS",
        "ε": "0.1",
        "Settings": "l2_regularization = 0.01",
        "Seed": "0",
        "Accuracy": "55.00%",
        "Seconds": "0.1",
        "Privacy": "not private||Statement",
        "Run": cells(source, 1)["Run"],
    }


def test_failed_runs_stand_with_their_errors(source, page):
    assert "Failed runs: 1" in page.text
    assert "noise is larger than &lt;all&gt; of it" in source
    assert cells(source, -1)["Accuracy"] == "failed"
    assert "Statement" not in cells(source, -1)["Privacy"]
    assert "no reason is recorded" in report(failed(error=None))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"seed": 3}, "not private"),
        ({"seed": 3, "private": None}, "not private"),
        ({"seed": None}, "private"),
        ({"seed": None, "private": False, "epsilon": math.inf}, "not private"),
        ({"seed": None, "private": None}, ""),
    ],
)
def test_a_run_says_whether_it_is_private(changes, shown):
    assert cells(report(row(statement=None, **changes)))["Privacy"] == shown


def test_seeds_and_chosen_settings_are_warned_of_only_where_there_are_any(page):
    assert "Not private: 73 of 73 runs of private methods are seeded." in page.text
    assert "That choice looks at the test rows" in page.text
    calm = Page(report(row(seed=None), ceiling())).text
    assert "seeded" not in calm and "test rows" not in calm


def test_equal_statements_are_stored_once(page):
    texts = page.data["statements"]
    assert len(texts) == 3  # one an ε, for 72 runs
    assert texts[0].startswith("NOT PRIVATE: random_state was given")
    numbers = [attrs["data-statement"] for _, attrs in page.elements if "data-statement" in attrs]
    assert len(numbers) == 72 and set(numbers) == {"0", "1", "2"}


def test_a_statement_of_another_version_does_not_lose_the_report():
    (text,) = Page(report(row(statement='{"schema_version": "3"}'))).data["statements"]
    assert "This version of dpfc cannot read the statement." in text


def marks(source):
    """Everything that Vega draws of a page's charts, by chart."""
    config = Page(source).data["config"]
    for name, chart in charts(source):
        if chart is not None:
            yield name, chart, vl_convert.vegalite_to_svg(chart, config=config)


def test_vega_draws_every_point_bar_and_cell(source):
    found = list(marks(source))
    assert {name for name, _, _ in found} == {
        *("budgets", "seconds", "parameter", "confusion", "classes", "budget"),
    }
    for _, chart, drawn in found:
        symbols = drawn.count('aria-roledescription="point"')
        symbols += drawn.count('aria-roledescription="bar"')
        symbols += drawn.count('aria-roledescription="rect mark"')
        assert symbols == len(chart["data"]["values"])


def test_the_charts_show_means_and_errors(page):
    digits = page.data["panels"][0]
    points = digits["budgets"]["data"]["values"]
    fc, ls = (
        [point for point in points if point["name"].startswith(name)] for name in ("DP-FC", "DP-LS")
    )
    assert [(p["x"], p["y"]) for p in fc] == [(0.1, 61), (1, 71), (8, 81)]
    assert [p["high"] - p["y"] for p in fc] == pytest.approx([0.5774] * 3, abs=1e-4)
    assert [p["y"] - p["low"] for p in fc] == pytest.approx([0.5774] * 3, abs=1e-4)
    said = {"accuracy": "71.00 ± 0.58% (3 runs)", "epsilon": "1", "seconds": "0.5 s"}
    assert said.items() <= fc[1].items()
    assert ls[0]["name"] == "DP-LS (best of 3 settings\nat each ε)"
    assert [p["y"] for p in ls] == [58, 68, 78] and ls[0]["settings"] == "l2_regularization = 0.1"
    line, words = digits["budgets"]["layer"][-2:]
    assert line["encoding"]["y"]["datum"] == 95
    assert words["mark"]["text"] == ["not private: 95.00%"]
    assert [chart["name"] for chart in digits["parameters"]] == [
        f"l2_regularization at ε = {epsilon}" for epsilon in (8, 1, 0.1)
    ]
    points = digits["parameters"][0]["chart"]["data"]["values"]
    assert [p["y"] for p in points] == [76, 78, 76]


def test_a_run_in_detail_has_shares_counts_and_costs(page):
    run = page.data["panels"][0]["runs"][0]
    assert run["name"] == "DP-FC, ε = 8, seed 1: 81.00%"
    first = run["confusion"]["data"]["values"][:3]
    assert [(cell["share"], cell["rows"]) for cell in first] == [(81, 81), (19, 19), (0, 0)]
    assert first[1]["words"] == "true ant, predicted bee"
    assert [bar["y"] for bar in run["classes"]["data"]["values"]] == [81, 81, 81]
    gram, gradient = run["budget"]["data"]["values"]
    assert (gram["name"], gram["share"]) == ("gram", 50)
    assert (gradient["name"], gradient["words"]) == ("gradient", "50%")
    assert gradient["drawn"] == "20 times" and float(gradient["multiplier"]) > 0


def test_a_method_has_one_colour_in_every_data_set():
    rows = [row(dataset="a", label="one"), row(dataset="b", label="two"), row(dataset="b")]
    found = {}
    for name, chart, drawn in marks(report(*rows)):
        if name in ("budgets", "seconds"):
            colours = re.findall(r'aria-roledescription="point"[^>]*fill="(.*?)"', drawn)
            for point, colour in zip(chart["data"]["values"], colours, strict=True):
                found.setdefault(point["name"], set()).add(colour)
    assert found == {"one": {"var(--c0)"}, "two": {"var(--c1)"}, "DP-FC": {"var(--c2)"}}
    assert len(DARK_COLOURS) == len(COLOURS)


def test_only_the_pages_own_scripts_may_run(source, page):
    _, policy = next(e for e in page.elements if e[1].get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy["content"].split(";"))
    assert rules["default-src"] == "'none'" and "http" not in policy["content"]
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in page.scripts[1:]
    ]
    assert rules["script-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert "vegaEmbed" in page.scripts[1] and len(page.scripts) == 3
    assert len(source.encode()) < 1_500_000


def test_no_text_of_a_user_leaves_its_place():
    names = ("dataset", "backbone", "label", "study", "key", "code")
    hostile = dict.fromkeys(names, HOSTILE)
    rows = [
        row(n / 10, class_names=[HOSTILE, "b", "c"], **hostile,
            parameters=json.dumps({HOSTILE: n, "word": HOSTILE}),
            versions=json.dumps({HOSTILE: HOSTILE}))
        for n in (1, 2)
    ]  # fmt: skip
    rows += [failed(HOSTILE, **hostile), ceiling(dataset=HOSTILE, label=HOSTILE)]
    source = report(*rows, **dict.fromkeys(WORDS, HOSTILE))
    page, plain = Page(source), Page(report(*study()))
    assert len(page.scripts) == 3 and page.scripts[1:] == plain.scripts[1:]
    assert page.count("img") == page.count("b") == 0
    assert HOSTILE.strip() in page.text
    assert page.scripts[0].count("<") == page.scripts[0].count(">") == 0
    for _, chart in charts(source):
        # What Vega takes for an expression holds nothing of a user's.
        assert expressions(chart) <= {
            "split(datum.label, '\\n')",
            "fits ? names[datum.value] : datum.label",
            "datum.share > 60",
        }


def expressions(part):
    """Texts at the places that Vega-Lite reads as expressions."""
    found = set()
    for name, value in part.items() if isinstance(part, dict) else enumerate(part):
        if name in ("expr", "labelExpr", "test", "signal", "calculate", "update"):
            found.add(value)
        elif name == "filter":
            assert isinstance(value, dict)  # a field and its value, no expression
        elif name != "values" and isinstance(value, dict | list):
            found |= expressions(value)
    return found


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0.8)],
        [ceiling()],
        [failed()],
        [row(0.8, epsilon=math.inf), row(0.8, epsilon=2.0)],
        [row(**dict.fromkeys(("confusion", "per_class_accuracy", "class_names", "n_features",
                              "n_classes", "seconds", "private", "statement", "seed")))],
        [row(None, per_class_accuracy=None, confusion=None)],
    ],
)  # fmt: skip
def test_a_small_or_bare_study_has_a_page(rows):
    source = report(*rows)
    page = Page(source)
    assert sum("data-dataset" in attrs for _, attrs in page.elements) == len(rows)
    assert "None" not in page.text and "nan" not in page.text.split()
    assert all(drawn.startswith("<svg") for _, _, drawn in marks(source))


def test_what_a_small_study_has_none_of_is_said_or_left_out():
    text = Page(report(ceiling())).text
    assert "No run of a private method has finished." in text and "95.00%" in text
    assert "Failed runs" not in text
    assert set(cells(report(row()))) == {
        *("Data set", "Method", "ε", "Seed", "Accuracy", "Seconds", "Privacy", "Run"),
    }
    assert "ε = ∞" in Page(report(row(epsilon=math.inf))).text


def test_a_matrix_of_very_many_classes_is_left_out():
    counts = [[1] * 201] * 201
    (run,) = Page(report(row(confusion=counts))).data["panels"][0]["runs"]
    assert run["confusion"] is None and run["classes"] is not None


def test_a_missing_vl_convert_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'vl_convert: run pip install "dpfc\[sweep'):
        report(row())
