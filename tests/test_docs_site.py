"""The documentation site: it builds without a warning, is complete, and asks no other host."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dpfc import DPNewtonClassifier

ROOT = Path(__file__).parents[1]
API = {
    "dpfc": "dpfc",
    "dpfc.full_models": "full-models",
    "dpfc.accounting": "accounting",
    "dpfc.features": "features",
}
BLOCK = re.compile(r"```(python|sh|text)\n(.*?)```", flags=re.DOTALL)
# What a browser fetches by itself, by element and attribute; of links only those with such a rel.
FETCHED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
}
pytestmark = pytest.mark.slow


@dataclass
class Page(HTMLParser):
    """Anchors of a page, where its links lead, and what it fetches."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name == "style":
                self.styles.append(value)
            elif tag == "a" and name == "href":
                self.links.append(value)
            elif (tag, name) in FETCHED:
                self.fetched.append(value)

    def handle_data(self, data):
        if self.lasttag == "style":
            self.styles.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the site; whatever the build said of a warning or an error fails here."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("warning|error", done.stdout + done.stderr, flags=re.IGNORECASE), (
        done.stderr
    )
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_of_the_docs_and_the_notebook_is_there(site):
    docs = ROOT / "docs"
    expected = {path.relative_to(docs).with_suffix(".html") for path in docs.rglob("*.md")}
    for page in expected | {Path("tutorial.html")}:
        assert (site / page).is_file(), page
    assert (site / "tutorial.ipynb").is_file()
    assert not list(site.rglob("mkdocs_hooks.py")) + list(site.rglob("griffe_extension.py"))


@pytest.mark.parametrize("module", API)
def test_every_public_name_has_its_section(site, module):
    page = Page(site / "api" / f"{API[module]}.html")
    package = importlib.import_module(module)
    for name in package.__all__:
        item = getattr(package, name)
        home = f"{getattr(item, '__module__', module)}.{name}"
        assert {f"{module}.{name}", home} & page.anchors, name


@pytest.mark.parametrize("module", API)
def test_no_other_name_has_a_section(module):
    text = (ROOT / "docs/api" / f"{API[module]}.md").read_text(encoding="utf-8")
    names = [path.split(".")[-1] for path in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)]
    assert sorted(names) == sorted(importlib.import_module(module).__all__)


def test_parameters_have_the_signatures_defaults(site):
    text = (site / "api/accounting.html").read_text(encoding="utf-8")
    section = text.split('id="dpfc.accounting.calibrate"')[1].split("<h3")[0]
    rows = [
        re.sub(r"<[^>]*>|\s+", " ", row) for row in re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    ]
    (relation,) = [row for row in rows if "neighboring_relation" in row]
    (accountant,) = [
        row for row in rows if " accountant " in row and "exact" in row and "rdp" in row
    ]
    assert relation.split()[-1] == "required"
    assert "auto" in accountant.split()[-1]


def test_an_estimators_signature_has_plain_types_in_the_order_of_the_call(site):
    text = (site / "api/dpfc.html").read_text(encoding="utf-8")
    assert "Annotated" not in text
    section = text.split('id="dpfc.DPNewtonClassifier"')[1].split("<table")[0]
    words = re.sub(r"<[^>]*>", "", section)
    names = re.findall(r"^ +(\w+): ", words, re.MULTILINE)
    assert names == list(inspect.signature(DPNewtonClassifier).parameters)


def test_links_lead_to_a_file_and_an_anchor_of_the_site(site, pages):
    for page in pages.values():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.path.name == "404.html":
                continue
            target = page.path
            if parts.path:
                target = (page.path.parent / unquote(parts.path)).resolve()
            assert target.is_relative_to(site.resolve()), f"{page.path}: {link}"
            assert target.exists(), f"{page.path}: {link}"
            anchor = unquote(parts.fragment)
            if anchor and target.suffix == ".html":
                assert anchor in pages[target].anchors, f"{page.path}: {link}"


def test_no_page_asks_another_host_for_anything(site, pages):
    outside = re.compile(r"^\s*(https?:)?//")
    for page in pages.values():
        for link in page.fetched:
            assert not outside.match(link), f"{page.path}: {link}"
    styles = [style for page in pages.values() for style in page.styles]
    styles += [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    for style in styles:
        assert not re.search(r"""(@import|url\()\s*['"]?(https?:)?//""", style)


def test_no_page_has_what_the_themes_script_would_fetch_from_elsewhere(pages):
    for page in pages.values():
        text = page.path.read_text(encoding="utf-8")
        assert "mermaid" not in text  # drawn by a script of another host
        assert 'data-md-component="source"' not in text  # stars of a repository


@pytest.mark.parametrize("width", [360, 1280])
def test_search_works_in_a_page_that_is_opened_from_a_file(site, browser, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((site / "concepts.html").as_uri())
    field = page.locator("input.md-search__input")
    if width < 960:
        page.locator("label.md-header__button[for=__search]").click()
    field.press_sequentially("ledger")
    found = page.locator(".md-search-result__link")
    found.first.wait_for()
    targets = [urlsplit(link.get_attribute("href")).path for link in found.all()]
    assert any(target.endswith("/ledger.html") for target in targets)
    assert all(Path(unquote(target)).is_file() for target in targets)
    assert problems == []
    context.close()


@pytest.mark.parametrize("name", sorted(API.values()))
@pytest.mark.parametrize("width", [360, 1280])
def test_signatures_wrap_and_no_table_has_a_row_of_headings_for_two_columns(
    site, browser, name, width
):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((site / "api" / f"{name}.html").as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 0
    cut = """() => [...document.querySelectorAll(".doc-signature code")]
      .filter(code => code.scrollWidth > code.clientWidth + 1).map(code => code.innerText)"""
    assert page.locator(".doc-signature code").count() > 3 and page.evaluate(cut) == []
    heads = """() => [...document.querySelectorAll(".doc-contents thead")]
      .filter(head => head.offsetParent).map(head => head.querySelectorAll("th").length)"""
    assert {2} & set(page.evaluate(heads)) == set() and page.evaluate(heads)
    page.close()


@pytest.mark.parametrize("page", ["index.md", "concepts.md"])
def test_examples_run_and_print_what_the_page_says(page, tmp_path):
    printed = ""
    for language, code in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        if language == "python":
            printed = run([sys.executable, "-c", code], tmp_path)
        elif language == "sh":
            pytest.importorskip("onnxruntime")
            for command in code.splitlines():
                run(shlex.split(command), tmp_path)
        elif printed:
            assert code == printed
            printed = ""


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout
