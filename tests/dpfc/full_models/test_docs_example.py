"""What docs/full-models.md shows really runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs/full-models.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_pages_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^accuracy 0\.[89]", done.stdout, flags=re.MULTILINE)
    assert "epsilon 8.0, private: True" in done.stdout
    assert (tmp_path / "digits.safetensors").exists()
    assert not (tmp_path / "digits.ckpt").exists()


def test_the_page_names_every_optimizer_schedule_and_way_to_clip():
    from dpfc.full_models import CLIPPINGS, OPTIMIZERS, SCHEDULES, TRAINABLE

    for name in (*CLIPPINGS, *OPTIMIZERS, *SCHEDULES, *TRAINABLE):
        assert f'"{name}"' in PAGE, name
