"""The report of a study in a real browser: charts, table, statements, phone, dark, no network."""

import json
from dataclasses import dataclass, field

import pytest
from playwright import sync_api
from study_tables import ceiling, failed, row, study, table

from dpfc.experiments.pictures.charts import COLOURS, DARK_COLOURS
from dpfc.experiments.pictures.page import report_html

pytestmark = pytest.mark.slow

PHONE, DESKTOP = (360, 740), (1280, 900)
INTRUDER = "<script>document.title = 'run'</script><img src=x onerror=alert(1)>"
WORDS = {
    "title": "Two solvers",
    "description": "Which one is better?",
    "command": "dpfc sweep first.yaml seeds=3",
    "config_text": "name: first\nmethods: [fc, ls]  # both\n",
}
LABEL = "DP-GD, a label that somebody wrote in full"
# Drawn lines of a chart by the colour that is seen.
STROKES = """figure => [...figure.querySelectorAll(".mark-line path")].map(
  line => getComputedStyle(line).stroke)"""
LEGEND = ".role-legend-label text"
X_TEXTS, Y_TEXTS = (f'[aria-label^="{axis}-axis"] .role-axis-label text' for axis in "XY")


@dataclass
class Opened:
    """A page, and what happened while it was open."""

    page: sync_api.Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def column(self, heading):
        """Texts of a column in the rows that are shown."""
        return self.page.locator(
            f'#runs tbody td[data-label="{heading}"]:visible'
        ).all_inner_texts()

    def head(self, name):
        return self.page.locator("#runs thead th", has_text=name)

    def chart(self, name):
        """A chart that is drawn, or about to be."""
        return self.page.locator(f'[data-chart="{name}"]')

    def drawn(self, name):
        """A chart, once it is drawn."""
        self.chart(name).locator("svg .role-frame").first.wait_for()
        return self.chart(name)

    def hover(self):
        """What stands beside the mouse, in one line."""
        tooltip = self.page.locator("#vg-tooltip-element.visible")
        tooltip.wait_for()
        return " ".join(tooltip.inner_text().split())

    def overflow(self):
        return self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")


def hostile_rows():
    fields = ("dataset", "backbone", "label", "study", "key", "code")
    hostile = dict.fromkeys(fields, INTRUDER) | {"class_names": [INTRUDER, "<b>b</b>", "c"]}
    runs = [row(n / 10, **hostile, parameters=json.dumps({INTRUDER: n})) for n in (1, 2)]
    return [*runs, failed(INTRUDER, **hostile), ceiling(dataset=INTRUDER, label=INTRUDER)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    many = [row(0.5, seed=seed, label="late" if seed == 119 else "DP-FC") for seed in range(120)]
    at = {
        "class_names": LONG,
        "dataset": "Unsere Stationen",
        "backbone": "timm/vit_base_patch16_224",
    }
    long = [
        row(0.6 + e / 100, epsilon=e, seed=0, label=label, seconds=time, **at)
        for label, time in ((LABEL, 0.5), ("DP-LS", 0.55))
        for e in (0.5, 1.0, 8.0)
    ]
    studies = {
        "long": (long, WORDS),
        "study": (study(), WORDS),
        "hostile": (hostile_rows(), dict.fromkeys(WORDS, INTRUDER)),
        "many": (many, WORDS),
        "ceiling": ([ceiling()], WORDS),
        "one": ([row(0.8, seed=None)], WORDS),
        "failed": ([failed("long " * 100 + "x" * 300)], WORDS),
    }
    paths = {}
    for name, (rows, words) in studies.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(report_html(table(*rows), **words), encoding="utf-8")
    return paths


@pytest.fixture
def open_page(browser, pages):
    """Open a report offline; at the end, nothing may have gone wrong or been asked for."""
    contexts, all_shown = [], []

    def opened(name="study", size=DESKTOP, scheme="light", **options):
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, offline=True, **options
        )
        contexts.append(context)
        shown = Opened(context.new_page())
        all_shown.append((name, shown))
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.on("console", lambda message: shown.problems.append(message.text))
        shown.page.on("pageerror", lambda error: shown.problems.append(str(error)))
        shown.page.on("dialog", lambda dialog: shown.problems.append(dialog.message))
        shown.page.goto(pages[name].as_uri())
        return shown

    yield opened
    for name, shown in all_shown:
        assert shown.problems == []
        assert shown.requests == [pages[name].as_uri()]
    for context in contexts:
        context.close()


def colour(text):
    """Turn "#0072B2" into what a browser computes."""
    return f"rgb({', '.join(str(int(text[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("size", [PHONE, (768, 1024), DESKTOP])
@pytest.mark.parametrize("name", ["study", "hostile", "many", "ceiling", "one", "failed"])
def test_no_page_is_wider_than_its_window_or_complains(open_page, name, size):
    shown = open_page(name, size)
    shown.page.wait_for_load_state("networkidle")
    assert shown.overflow() <= 0
    for chart in shown.page.locator(".chart:visible").all():
        box, drawn = chart.bounding_box(), chart.locator("svg").first.bounding_box()
        assert drawn["width"] == pytest.approx(box["width"], abs=2) and drawn["height"] > 100
        assert drawn["height"] == pytest.approx(box["height"], abs=2)
        assert drawn["x"] >= 0 and drawn["x"] + drawn["width"] <= size[0]


def test_texts_of_users_are_shown_and_do_not_run(open_page):
    page = open_page("hostile").page
    assert page.title() == INTRUDER
    assert page.locator("img, b").count() == 0
    assert INTRUDER in page.locator("#failed").inner_text()
    assert page.locator("#command").inner_text() == INTRUDER
    # A legend and the key of an axis show the tags as text as well.
    shown = open_page("hostile")
    assert INTRUDER in shown.drawn("confusion").locator(".codes").text_content()
    legend = "".join(shown.drawn("budgets").locator(LEGEND).all_text_contents())
    assert "".join(INTRUDER.split()) in "".join(legend.split())


def test_a_script_that_got_into_the_page_would_not_run(browser, pages, tmp_path):
    """The second wall behind escaping: the page's own Content-Security-Policy."""
    source = pages["study"].read_text(encoding="utf-8")
    intruder = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x.png">'
    path = tmp_path / "edited.html"
    path.write_text(source.replace("<main>", f"{intruder}<main>"), encoding="utf-8")
    page = browser.new_page()
    failures = {}
    page.on("requestfailed", lambda request: failures.update({request.url: request.failure}))
    page.goto(path.as_uri())
    assert page.title() == "Two solvers"
    assert failures == {"http://127.0.0.1:9/x.png": "csp"}
    page.close()


# -- charts --------------------------------------------------------------------------


def test_a_point_shows_its_figures_when_the_mouse_is_on_it(open_page):
    shown = open_page()
    chart = shown.drawn("budgets")
    assert shown.page.locator("#vg-tooltip-element.visible").count() == 0
    chart.locator(".mark-symbol.role-mark path").nth(1).hover(force=True)
    assert "71.00 ± 0.58% (3 runs)" in shown.hover()


def test_a_cell_of_the_confusion_matrix_shows_its_counts(open_page):
    shown = open_page()
    chart = shown.drawn("confusion")
    chart.scroll_into_view_if_needed()
    # On the number in the cell, which must not hide the cell from the mouse.
    chart.locator(".mark-text.role-mark text").nth(1).hover(force=True)
    found = shown.hover()
    assert "true ant, predicted bee" in found and "19 rows, 19.0% of the class" in found


def test_charts_follow_the_colours_of_the_page(open_page):
    shown = open_page(scheme="light")
    budgets = shown.drawn("budgets")
    assert budgets.evaluate(STROKES)[:2] == [colour(COLOURS[0]), colour(COLOURS[1])]
    ink = "e => getComputedStyle(e.querySelector('.role-axis-label text')).fill"
    light = budgets.evaluate(ink)
    shown.page.emulate_media(color_scheme="dark")
    assert budgets.evaluate(STROKES)[:2] == [colour(DARK_COLOURS[0]), colour(DARK_COLOURS[1])]
    assert budgets.evaluate(ink) != light
    assert open_page(scheme="dark").drawn("budgets").evaluate(STROKES)[0] == colour(DARK_COLOURS[0])


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_is_light_or_dark(open_page, scheme, dark):
    page = open_page(scheme=scheme).page
    levels = [
        sum(
            int(c)
            for c in page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")
        )
        for name in ("backgroundColor", "color")
    ]
    assert (levels[0] < 100 and levels[1] > 600) == dark
    assert (levels[0] > 600 and levels[1] < 100) == (not dark)


def test_another_data_set_parameter_and_run_can_be_chosen(open_page):
    shown = open_page()
    page = shown.page
    ticks = shown.drawn("budgets").locator(Y_TEXTS)
    assert "90" in ticks.all_text_contents() and "40" not in ticks.all_text_contents()
    page.locator("#choose-panel").select_option("wards (timm/vit)")
    sync_api.expect(ticks.get_by_text("40", exact=True)).to_have_count(1)
    assert page.locator("#shown-run").inner_text() == "DP-FC, ε = 8, seed 1: 61.00%"
    page.locator("#choose-run").select_option("DP-LS, ε = 8, seed 1: 58.00%")
    assert page.locator("#shown-run").inner_text() == "DP-LS, ε = 8, seed 1: 58.00%"
    ticks = shown.drawn("parameter").locator(Y_TEXTS)
    before = ticks.all_text_contents()
    page.locator("#choose-parameter").select_option("l2_regularization at ε = 0.1")
    sync_api.expect(ticks).not_to_have_text(before)


def test_there_is_no_choice_of_one_and_no_chart_of_nothing(open_page):
    page = open_page("one").page
    assert page.locator("#charts select:visible").count() == 0
    assert page.locator("#charts figure:visible").count() == 5
    assert not page.locator("#parameters").is_visible()
    assert not open_page("ceiling").page.locator("#charts").is_visible()


LONG = ["Kardiologie Nord, Station A", "Kardiologie Nord, Station B", "病棟 七"]


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_names_and_titles_are_never_cut(open_page, size):
    shown = open_page("long", size)
    page = shown.page
    title = shown.drawn("seconds").locator('[aria-label^="X-axis"] .role-axis-title text')
    assert title.text_content() == "seconds to fit, mean over runs"
    for name in ("budgets", "confusion", "classes", "budget"):
        shown.drawn(name)
    assert "…" not in page.locator("main").inner_text()
    assert "…" not in "".join(page.locator(".chart svg").all_text_contents())
    # By number on the axes, in full below them and under the mouse.
    for name in ("confusion", "classes"):
        chart = shown.chart(name)
        assert chart.locator(".codes li").all_inner_texts() == LONG
        assert set(chart.locator(X_TEXTS).all_text_contents()) == {"0", "1", "2"}
    legend = " ".join(shown.chart("budgets").locator(f"{LEGEND} tspan").all_text_contents())
    assert LABEL in legend
    # An element is cut where it is narrower than what it holds and nothing scrolls it.
    cut = page.evaluate("""() => [...document.querySelectorAll("td, tbody th, button, dd")]
      .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)""")
    assert cut == []


def test_names_that_fit_stand_on_the_axes(open_page):
    shown = open_page()
    chart = shown.drawn("confusion")
    assert chart.locator(X_TEXTS).all_text_contents() == ["ant", "bee", "cow"]
    assert not chart.locator(".codes").is_visible()


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_labels_beside_points_do_not_overlap(open_page, size):
    shown = open_page("long", size)
    boxes = [
        text.bounding_box()
        for text in shown.drawn("seconds").locator(".mark-text.role-mark text").all()
    ]
    assert len(boxes) >= 3
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = max(
                max(one[at], other[at]) - min(one[at] + one[side], other[at] + other[side])
                for at, side in (("x", "width"), ("y", "height"))
            )
            assert apart >= -4  # the line height has room above the letters


def test_a_phone_shows_every_mean_beside_its_budget(open_page):
    shown = open_page("long", PHONE)
    cells = shown.page.locator(".means td[data-label]").all()
    assert len(cells) == 6
    for cell in cells:
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]
        assert cell.evaluate("e => getComputedStyle(e, '::before').content").startswith('"ε = ')


# -- the table of runs ---------------------------------------------------------------


def test_a_click_sorts_and_a_second_click_turns_the_order(open_page):
    shown = open_page()
    head, other = shown.head("Accuracy"), shown.head("Seed")
    shown.page.get_by_role("button", name="Show all").click()
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    found = shown.column("Accuracy")
    figures = [float(text[:-1]) for text in found[:-1]]
    # A failed run has no figure and is last in either order.
    assert found[-1] == "failed" and figures == sorted(figures) and figures[0] == 35
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    turned = shown.column("Accuracy")
    assert turned[-1] == "failed" and turned[0] == "95.00%"
    other.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert other.get_attribute("aria-sort") == "ascending"


def test_columns_are_sorted_by_their_kind(open_page):
    shown = open_page()
    shown.head("ε").get_by_role("button").click()
    shown.head("ε").get_by_role("button").click()
    # By number, and the ceiling's ∞ is one; as text 8 would be last.
    assert list(dict.fromkeys(shown.column("ε")))[:3] == ["∞", "8", "1"]
    shown.head("Settings").get_by_role("button").click()
    assert shown.column("Settings")[0] == "l2_regularization = 0.01"


def test_the_keyboard_sorts(open_page):
    shown = open_page()
    shown.head("Accuracy").get_by_role("button").focus()
    shown.page.keyboard.press("Enter")
    assert shown.head("Accuracy").get_attribute("aria-sort") == "ascending"
    shown.page.keyboard.press(" ")
    assert shown.head("Accuracy").get_attribute("aria-sort") == "descending"


def test_filters_keep_what_matches_all_of_them(open_page):
    shown = open_page()
    filters = shown.page.locator("#filters")
    assert filters.get_by_role("status").inner_text() == "75 of 75 runs"
    filters.get_by_label("Data set").select_option("wards")
    filters.get_by_label("Method").select_option("DP-FC")
    assert filters.get_by_role("status").inner_text() == "10 of 75 runs"
    assert set(shown.column("Method")) == {"DP-FC"} and len(shown.column("Method")) == 10
    filters.get_by_label("Search").fill("failed  WARDS")
    assert shown.column("Accuracy") == ["failed"]
    filters.get_by_label("Search").fill("no such run")
    assert shown.column("Accuracy") == []
    assert filters.get_by_role("status").inner_text() == "0 of 75 runs"


def test_many_runs_are_shown_in_part_and_found_in_whole(open_page):
    shown = open_page("many")
    assert len(shown.column("Seed")) == 50
    shown.page.locator("#filters").get_by_label("Method").select_option("late")
    assert shown.column("Seed") == ["119"]
    shown.page.locator("#filters").get_by_label("Method").select_option("")
    shown.head("Seed").get_by_role("button").click()
    shown.head("Seed").get_by_role("button").click()
    assert shown.column("Seed")[0] == "119" and len(shown.column("Seed")) == 50
    shown.page.get_by_role("button", name="Show all 120").click()
    assert len(shown.column("Seed")) == 120
    assert shown.page.get_by_role("button", name="Show all").count() == 0


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_a_runs_statement_opens_and_closes(open_page, size):
    shown = open_page(size=size)
    page, dialog = shown.page, shown.page.get_by_role("dialog")
    assert not dialog.is_visible()
    button = page.get_by_role("button", name="Statement").first
    button.click()
    assert dialog.get_by_role("heading").inner_text() == "digits, DP-FC, ε = 0.1, seed 0"
    assert dialog.locator("pre").inner_text().startswith("NOT PRIVATE: random_state was given")
    box = dialog.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("e => e === document.activeElement")
    button.press("Enter")
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_a_phone_still_sorts_and_names_its_cells(open_page):
    shown = open_page(size=PHONE, has_touch=True)
    cell = shown.page.locator('#runs tbody td[data-label="Accuracy"]').first
    assert cell.evaluate("e => getComputedStyle(e, '::before').content") == '"Accuracy"'
    shown.head("Accuracy").get_by_role("button").tap()
    assert shown.column("Accuracy")[0] == "35.00%"
    # Screen readers still get tables: two of means, failures, runs.
    assert shown.page.get_by_role("table").count() == 4


# -- copies and paper ----------------------------------------------------------------


@pytest.mark.parametrize("allowed", [True, False])
def test_command_and_configuration_can_be_copied(open_page, allowed):
    shown = open_page()
    page = shown.page
    if allowed:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    else:
        page.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('no')); 0")
        page.context.grant_permissions(["clipboard-read"])
    for name in ("command", "config"):
        button = page.locator(f'[data-copy="{name}"]')
        button.click()
        page.wait_for_function("e => e.textContent === 'Copied'", arg=button.element_handle())
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.rstrip("\n") == WORDS[
            "command" if name == "command" else "config_text"
        ].rstrip("\n")


def test_on_paper_charts_and_texts_are_dark_on_light(open_page):
    shown = open_page(scheme="dark")
    shown.page.emulate_media(media="print", color_scheme="dark")
    assert shown.drawn("budgets").evaluate(STROKES)[0] == colour(COLOURS[0])
    assert shown.page.pdf()[:5] == b"%PDF-"
    shown.page.emulate_media(media="screen", color_scheme="dark")
    assert shown.chart("budgets").evaluate(STROKES)[0] == colour(DARK_COLOURS[0])


def test_without_scripts_the_tables_are_complete(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["study"].as_uri())
    assert "need JavaScript" in page.locator("body").inner_text()
    assert page.locator("#runs tbody tr:visible").count() == 75
    context.close()
