"""The picture of the rooms is drawn from the code as it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_picture_of_the_rooms_is_what_the_code_imports(tmp_path):
    # A process of its own: what is imported already would be taken for the whole package.
    drawn, docs = tmp_path / "rooms.svg", ROOT / "docs"
    subprocess.run([sys.executable, docs / "rooms.py", drawn], check=True)
    assert drawn.read_text() == (docs / "rooms.svg").read_text(), (
        "python docs/rooms.py draws docs/rooms.svg anew"
    )
    floors = re.findall(r'class="name">(\w+)', drawn.read_text())
    assert floors[0] == "experiments" and floors[-1] == "_support"


def test_every_file_that_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    known = {str(p.relative_to(ROOT)) for p in ROOT.glob("*/**/*.py") if ".venv" not in p.parts}
    named = {part for part in text.split("`") if part.endswith(".py") and " " not in part}
    lost = {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)}
    assert len(named) > 30 and not lost
