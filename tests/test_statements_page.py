"""The page about statements: its code runs, and checks what it says that it checks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpfc.accounting import PrivacyStatement

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs/statements.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(python|sh)\n(.*?)```", flags=re.DOTALL)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The reader's folder after the last block, and what that printed."""
    folder = tmp_path_factory.mktemp("reader")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, code in BLOCK.findall(PAGE):
        command = [sys.executable, "-c", code] if language == "python" else ["sh", "-ec", code]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path}
        )
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        printed = done.stdout
    return folder, printed


def test_dp_accounting_alone_finds_the_stated_epsilon(reader):
    folder, printed = reader
    value = json.loads((folder / "statement.json").read_text())
    stated = value["epsilon_by_accountant"]["exact"]
    found = float(printed.removeprefix("epsilon = "))
    assert stated == pytest.approx(1, rel=1e-6)
    assert stated - 1e-4 <= found <= stated * 1.001


def test_the_reports_are_there(reader):
    folder, _ = reader
    statement = PrivacyStatement.from_json((folder / "statement.json").read_text())
    assert (folder / "statement.md").read_text(encoding="utf-8") == statement.to_markdown()
    assert (folder / "statement.html").read_text(encoding="utf-8") == statement.to_html().rstrip(
        "\n"
    ) + "\n"


def test_the_recipe_stays_short_and_uses_nothing_of_dpfc():
    *_, recipe = (code for language, code in BLOCK.findall(PAGE) if language == "python")
    lines = [line for line in recipe.splitlines() if line and not line.startswith("import")]
    assert len(lines) <= 10
    assert "dpfc" not in recipe


def test_the_page_names_the_schema_that_is_there():
    links = re.findall(r"\]\((\S+\.json)\)", PAGE)
    docs = Path(__file__).parents[1] / "docs"
    schemas = [json.loads((docs / link).read_text(encoding="utf-8")) for link in links]
    assert [Path(link).stem[-2:] for link in links] == ["-2", "-1"]
    assert schemas[0] == PrivacyStatement.json_schema()
