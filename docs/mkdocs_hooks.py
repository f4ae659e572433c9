"""What MkDocs needs to know of this repository: its packages, its notebook, its links."""

from __future__ import annotations

import base64
import configparser
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "tutorial.py"
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```(\w+) exit=\d+$", flags=re.MULTILINE)
_DOWNLOAD = "\n\nThis page as [a notebook](tutorial.ipynb), with its outputs.\n"
_copies: list[tempfile.TemporaryDirectory[str]] = []


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> None:
    """Lay the package out as it is installed, for a reader of sources that imports nothing."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    _copies.append(tempfile.TemporaryDirectory(prefix="dpfc-docs-"))
    tree = Path(_copies[-1].name)
    for line in setup["options"]["package_dir"].strip().splitlines():
        package, folder = (word.strip() for word in line.split("="))
        if package == "dpfc.experiments":  # commands, and no page
            continue
        shutil.copytree(
            ROOT / folder,
            tree.joinpath(*package.split(".")),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    handlers = config.plugins["mkdocstrings"].config["handlers"]
    handlers["python"]["paths"] = [str(tree)]


@event_priority(-100)  # after search has written its index
def on_post_build(config: MkDocsConfig) -> None:
    """Remove the copy of the package; write the index also as pages opened from a file read it."""
    while _copies:
        _copies.pop().cleanup()
    index = Path(config.site_dir) / "search" / "search_index.json"
    script = f"var __index = {index.read_text(encoding='utf-8')};\n"
    index.with_suffix(".js").write_text(script, encoding="utf-8")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Run the notebook; its page, its pictures and itself become files of the site."""
    notebook = run_notebook(ROOT / "docs" / NOTEBOOK)
    page, pictures = to_markdown(notebook)
    made = {"tutorial.md": page, "tutorial.ipynb": nbformat.writes(notebook), **pictures}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make what GitHub shows show on the site as well."""

    def link(match: re.Match[str]) -> str:
        return f"]({site_target(match[1], page.file, config, files)}{match[2] or ''})"

    return _LINK.sub(link, _FENCE.sub(r"```\1", markdown))


def site_target(target: str, source: File, config: MkDocsConfig, files: Files) -> str:
    """Where a link leads on the site; a file of the repository outside docs/ comes along."""
    if target == NOTEBOOK:
        return "tutorial.md"
    if target == "../README.md":
        return "index.md"
    if source.src_uri.count("/") or not target.startswith("../"):
        return target
    path = target.removeprefix("../")
    copied = f"repository/{path}"
    if (ROOT / path).is_file() and files.get_file_from_path(copied) is None:
        files.append(File.generated(config, copied, abs_src_path=str(ROOT / path)))
    return copied


def run_notebook(script: Path) -> Any:
    """Execute a percent script in a folder of its own; an error in a cell is raised."""
    notebook = jupytext.read(script)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets are files, not ports.
        sockets = {"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}}
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, resources=resources, config=Config(sockets)).execute()
    return notebook


def to_markdown(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """Return an executed notebook as a page, and the PNG files that it shows by their paths."""
    parts, pictures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                path = f"tutorial-{len(pictures) + 1}.png"
                pictures[path] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws]({path})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + _DOWNLOAD, pictures
