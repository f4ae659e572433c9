"""The page in a real browser: both curves, phone and desktop, dark mode, paper, no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright import sync_api
from statement_examples import (
    STATEMENTS,
    hostile_statement,
    ledger_statement,
    planned,
    record,
    state,
)

pytestmark = pytest.mark.slow

PHONE, DESKTOP = (360, 740), (1280, 900)
PICTURES = ("trade-off", "epsilon")
EXAMPLES = ("full batch", "seeded", "sampled, replaced", "search", "ledger", "hostile")

# Every element that shows text of its own: its box, its colours, and what is behind it.
TEXTS = """
() => {
  const channels = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const background = element => {
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(element).backgroundColor);
      if (a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const owns = element => [...element.childNodes].some(
    node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(element => owns(element) && !element.closest("title, desc, style"))
    // On a phone the heads of wide tables are for screen readers only.
    .filter(element => !element.closest("thead") ||
      getComputedStyle(element.closest("thead")).position !== "absolute")
    .map(element => {
      const style = getComputedStyle(element), box = element.getBoundingClientRect();
      const drawn = element instanceof SVGElement, matrix = drawn && element.getScreenCTM();
      return {
        text: element.textContent.trim(), kind: drawn ? "svg" : element.tagName,
        colour: channels(drawn ? style.fill : style.color), behind: background(element),
        left: box.left, right: box.right, width: box.width, height: box.height,
        size: parseFloat(style.fontSize) * (drawn ? Math.hypot(matrix.a, matrix.b) : 1),
      };
    });
}
"""


@dataclass
class Opened:
    """A page, and what happened while it was open."""

    page: sync_api.Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def texts(self):
        """Every text that is shown, with its box and colours."""
        return self.page.evaluate(TEXTS)

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than the window."""
        return self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    statements = {name: STATEMENTS[name]() for name in EXAMPLES if name in STATEMENTS}
    statements["ledger"] = ledger_statement(folder / "ledger.db")
    statements["hostile"] = hostile_statement()
    plan = planned()
    releases = [
        record(name, release.noise_multiplier, release.count, shape=[10, 10])
        for name, release in zip(("confusion_counts", "hits"), plan.releases, strict=True)
    ]
    statements["long names"] = state(plan, releases)
    paths = {}
    for name, statement in statements.items():
        paths[name] = folder / f"{name.replace(', ', '-').replace(' ', '-')}.html"
        paths[name].write_text(statement.to_html(), encoding="utf-8")
    return paths


@pytest.fixture
def open_page(browser, pages):
    """Open a statement's page offline."""
    contexts = []

    def opened(name: str, size=DESKTOP, scheme="light") -> Opened:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        shown = Opened(context.new_page())
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.on("console", lambda message: shown.problems.append(message.text))
        shown.page.on("pageerror", lambda error: shown.problems.append(str(error)))
        shown.page.on("dialog", lambda dialog: shown.problems.append(dialog.message))
        shown.page.goto(pages[name].as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()


def luminance(colour) -> float:
    """WCAG 2.2, definition of relative luminance; sRGB channels in [0, 255]."""
    channels = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def curve_of(page, picture: str):
    """Box, stroke and length of a drawn curve."""
    return page.evaluate(
        """name => {
          const path = document.querySelector(`#${name}-curve path`);
          const box = path.getBoundingClientRect(), style = getComputedStyle(path);
          return {width: box.width, height: box.height, top: box.top, left: box.left,
                  right: box.right, stroke: style.stroke, visible: style.visibility,
                  length: path.getTotalLength()};
        }""",
        picture,
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_asks_the_network_for_nothing_and_runs_nothing(open_page, pages, name):
    shown = open_page(name)
    shown.page.wait_for_load_state("networkidle")
    assert shown.requests == [pages[name].as_uri()]
    assert shown.problems == []
    # Links of a page's contents lead to places in it.
    active = "script, iframe, img, object, embed, form, a[href]:not([href^='#'])"
    assert shown.page.locator(active).count() == 0
    handlers = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert not [key for key in shown.page.evaluate(handlers) if key.startswith("on")]


def test_a_script_that_got_into_the_page_would_not_run(browser, pages, tmp_path):
    """The second wall behind escaping: the page's own Content-Security-Policy."""
    source = pages["full batch"].read_text(encoding="utf-8")
    intruder = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x.png">'
    path = tmp_path / "edited.html"
    path.write_text(source.replace("<main>", f"{intruder}<main>"), encoding="utf-8")
    page = browser.new_page()
    failures = {}
    page.on("requestfailed", lambda request: failures.update({request.url: request.failure}))
    page.goto(path.as_uri())
    assert page.title().startswith("Privacy statement")
    assert failures == {"http://127.0.0.1:9/x.png": "csp"}
    page.close()


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", EXAMPLES)
def test_both_curves_are_drawn_and_visible(open_page, name, size):
    shown = open_page(name, size)
    for picture in PICTURES:
        drawn = curve_of(shown.page, picture)
        assert shown.page.locator(f"#{picture}-curve").is_visible()
        assert drawn["visible"] == "visible" and drawn["length"] > 100
        assert drawn["width"] > 150 and drawn["height"] > 100
        assert drawn["left"] >= 0 and drawn["right"] <= size[0]


@pytest.mark.parametrize("size", [PHONE, (768, 1024), DESKTOP])
@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_cut_off_at_any_width(open_page, name, size):
    shown = open_page(name, size)
    unfold = "document.querySelectorAll('details').forEach(part => { part.open = true; })"
    shown.page.evaluate(unfold)
    assert shown.overflow() <= 0
    texts = shown.texts()
    assert len(texts) > 40
    for text in texts:
        assert text["width"] > 0 and text["height"] > 0, text
        assert text["left"] >= 0 and text["right"] <= size[0], text
        least = 9 if text["kind"] == "svg" else 12
        assert text["size"] >= least, text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_text_stands_out_from_what_is_behind_it(open_page, name, scheme):
    shown = open_page(name, scheme=scheme)
    for text in shown.texts():
        assert contrast(text["colour"], text["behind"]) >= 4.5, text
    body = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = luminance([float(c) for c in body.removeprefix("rgb(").rstrip(")").split(",")])
    assert level < 0.05 if scheme == "dark" else level > 0.8


def test_the_curves_change_colour_with_the_page(open_page):
    strokes = {}
    for scheme in ("light", "dark"):
        page = open_page("full batch", scheme=scheme).page
        wanted = page.evaluate(
            """() => {
              const probe = document.body.appendChild(document.createElement("i"));
              probe.style.color = "var(--curve)";
              return getComputedStyle(probe).color;
            }"""
        )
        (stroke,) = {curve_of(page, picture)["stroke"] for picture in PICTURES}
        assert stroke == wanted
        strokes[scheme] = [float(c) for c in stroke.removeprefix("rgb(").rstrip(")").split(",")]
        card = page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor")
        behind = [float(c) for c in card.removeprefix("rgb(").rstrip(")").split(",")]
        # WCAG 2.2, 1.4.11: graphical objects.
        assert contrast(strokes[scheme], behind) >= 3
    assert strokes["light"] != strokes["dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["seeded", "ledger"])
def test_not_private_is_seen_first_and_stays_in_sight(open_page, name, size, scheme):
    shown = open_page(name, size, scheme)
    page = shown.page
    assert page.title().startswith("NOT PRIVATE")
    alarm = page.get_by_role("alert")
    box = alarm.bounding_box()
    assert alarm.is_visible() and box["y"] < 100 and box["width"] > 0.6 * min(size[0], 900)
    assert "anyone who knows the seed can remove the noise" in alarm.inner_text()
    assert alarm.locator("h2").inner_text() == "NOT PRIVATE"
    font = "e => parseFloat(getComputedStyle(e).fontSize)"
    assert alarm.locator("h2").evaluate(font) >= 24
    assert page.locator(".void").evaluate("e => getComputedStyle(e).textDecorationLine") == (
        "line-through"
    )
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    strip = page.locator(".strip").bounding_box()
    assert strip["y"] == 0 and strip["width"] >= size[0] - 20


def test_a_private_statement_has_no_alarm(open_page):
    page = open_page("full batch").page
    assert page.get_by_role("alert").count() == 0
    assert "NOT PRIVATE" not in page.content()
    assert page.locator(".guarantee").inner_text() == (
        "(ε = 1, δ = 1e-05)-DP, add or remove one patient"
    )


def test_a_ledgers_page_has_every_spend(open_page):
    page = open_page("ledger").page
    rows = page.locator("section", has_text="In the order in which they were made")
    assert rows.locator("tbody tr").count() == 3
    for i in (1, 2, 3):
        assert page.get_by_role("heading", name=f"Spend {i}: fit DPFCClassifier").is_visible()


@pytest.mark.parametrize("width", [720, 768, 1280])
def test_a_short_word_or_number_is_not_broken_in_a_table(open_page, width):
    """10×10 in two lines reads as 10×1 and 0."""
    body = open_page("long names", (width, 900)).page.locator(".wide tbody")
    for text, cells in (("10×10", 2), ("confusion_counts", 1)):
        lines = body.get_by_text(text, exact=True).evaluate_all(
            """found => found.map(cell => {
              const range = document.createRange();
              range.selectNodeContents(cell);
              return range.getClientRects().length;
            })"""
        )
        assert lines == cells * [1]


def test_a_wide_table_keeps_its_labels_on_a_phone(open_page):
    page = open_page("full batch", PHONE).page
    cell = page.locator(".wide td").nth(2)
    assert cell.get_attribute("data-label") == "noise multiplier"
    assert cell.evaluate("e => getComputedStyle(e, '::before').content") == '"noise multiplier"'
    # Screen readers still get a table.
    assert page.get_by_role("table").count() == 3


@pytest.mark.parametrize("name", ["seeded", "ledger", "full batch"])
def test_on_paper_everything_is_there_dark_on_light(open_page, name):
    shown = open_page(name, (700, 990), "dark")
    before = {text["text"] for text in shown.texts()}
    shown.page.emulate_media(media="print", color_scheme="dark")
    texts = shown.texts()
    assert {text["text"] for text in texts} >= before
    assert shown.overflow() <= 0
    alarm = {"NOT PRIVATE", *(t["text"] for t in texts if "random_state" in t["text"])}
    for text in texts:
        assert contrast(text["colour"], text["behind"]) >= 4.5, text
        assert luminance(text["behind"]) > 0.8 or text["text"] in alarm, text
    for picture in PICTURES:
        assert curve_of(shown.page, picture)["width"] > 150
    assert shown.page.pdf()[:5] == b"%PDF-"


def test_hostile_texts_are_shown_as_they_are(open_page):
    page = open_page("hostile").page
    assert "<script>alert(1)</script>" in page.locator(".not-covered").inner_text()
    assert "{{ 7 * 7 }} {% raw %}" in page.locator("body").inner_text()
    assert page.locator("b").count() == 0
