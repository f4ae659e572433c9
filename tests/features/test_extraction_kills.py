"""Kill -9 at random moments: what is resumed ends as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_many.py")


def killed_and_resumed(write_parquet, tmp_path, kills):
    data = write_parquet(tmp_path / "images.parquet", 230, group=60)
    command = [sys.executable, str(SCRIPT), str(data), str(tmp_path), str(kills)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_three_kills_leave_three_caches_that_resume_to_the_same_bytes(write_parquet, tmp_path):
    report = killed_and_resumed(write_parquet, tmp_path, 3)
    assert report["killed"] == 3
    assert len(report["hashes"]) == 1


@pytest.mark.slow
def test_fifty_kills_leave_fifty_caches_that_resume_to_the_same_bytes(write_parquet, tmp_path):
    report = killed_and_resumed(write_parquet, tmp_path, 50)
    assert report["killed"] == 50
    assert len(report["hashes"]) == 1
    # The kills came at different stages: at least three numbers of finished shards.
    assert len(report["shards"]) >= 3
