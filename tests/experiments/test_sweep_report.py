"""The report of a study: what it says, and that no text of a user gets out of its place."""

import base64
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from study_tables import ceiling, failed, row, study, table

from dpfc.experiments.pictures.page import report_html
from dpfc.experiments.pictures.plotly_charts import DARK_COLOURS
from dpfc.experiments.pictures.style import COLOURS
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
        yield from (("parameter", chart) for chart in panel["parameters"])
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
    (text,) = Page(report(row(statement='{"schema_version": "2"}'))).data["statements"]
    assert "This version of dpfc cannot read the statement." in text


def test_charts_are_what_plotly_knows(source):
    found = list(charts(source))
    assert {name for name, _ in found} == {
        *("budgets", "seconds", "parameter", "confusion", "classes", "budget"),
    }
    for _, chart in found:
        go.Figure(data=chart["data"], layout=chart["layout"])  # refuses unknown properties


def test_the_charts_show_means_and_errors(page):
    digits = page.data["panels"][0]
    fc, ls, top = digits["budgets"]["data"]
    assert (fc["x"], fc["y"]) == ([0.1, 1, 8], pytest.approx([61, 71, 81]))
    assert fc["error_y"]["array"] == pytest.approx([0.5774] * 3, abs=1e-4)
    assert fc["hovertext"][1] == "<b>DP-FC</b>, ε = 1<br>71.00 ± 0.58% (3 runs)<br>0.5 s"
    assert ls["name"] == "DP-LS (best of 3)" and ls["y"] == pytest.approx([58, 68, 78])
    assert top["name"] == "not private" and top["y"] == [95, 95]
    assert [chart["name"] for chart in digits["parameters"]] == [
        f"l2_regularization at ε = {epsilon}" for epsilon in (8, 1, 0.1)
    ]
    assert digits["parameters"][0]["data"][0]["y"] == pytest.approx([76, 78, 76])


def test_a_run_in_detail_has_shares_counts_and_costs(page):
    run = page.data["panels"][0]["runs"][0]
    assert run["name"] == "DP-FC, ε = 8, seed 1: 81.00%"
    (confusion,) = run["confusion"]["data"]
    assert confusion["z"][0] == [81, 19, 0] and confusion["text"][0] == [81, 19, 0]
    assert run["classes"]["data"][0]["y"] == [81, 81, 81]
    assert [(t["name"], t["x"]) for t in run["budget"]["data"]] == [
        ("gram", [50]),
        ("gradient", [50]),
    ]
    assert (
        "gradient</b>: 50%<br>drawn 20 times, noise multiplier"
        in (run["budget"]["data"][1]["hovertext"][0])
    )


def test_a_method_has_one_colour_in_every_data_set():
    rows = [row(dataset="a", label="one"), row(dataset="b", label="two"), row(dataset="b")]
    found = {}
    for _, chart in charts(report(*rows)):
        for trace in chart["data"]:
            if trace["type"] == "scatter":
                found.setdefault(trace["name"], set()).add(trace["meta"])
    assert found == {"one": {0}, "two": {1}, "DP-FC": {2}}
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
    assert page.scripts[1].startswith("/**\n* plotly.js") and len(page.scripts) == 3
    assert source.count("* plotly.js v") == 1


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
        # Plotly reads tags in texts, and fills in %{…} in templates.
        texts = json.dumps([chart["data"], chart["layout"]], ensure_ascii=False)
        assert not re.search("<(?!b>|/b>|br>|extra>|/extra>)", texts)
        assert not any("alert" in trace["hovertemplate"] for trace in chart["data"])


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
    for _, chart in (pair for pair in charts(source) if pair[1] is not None):
        go.Figure(data=chart["data"], layout=chart["layout"])


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


def test_a_missing_plotly_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'plotly: run pip install "dpfc\[sweep\]"'):
        report(row())
