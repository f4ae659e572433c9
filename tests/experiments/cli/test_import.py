import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dpfc.features import FeatureCache

N = 90
Y = np.arange(N) % 3
X = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32) * 0.1
X[np.arange(N), Y] += 3
NAMES = np.array(["ant", "bee", "cow"])


@pytest.fixture
def batch(tmp_path):
    """A service's answers, one of them an error, and a table of labels."""
    lines = [
        json.dumps({"key": f"k{i}", "response": {"embedding": {"values": row.tolist()}}})
        for i, row in enumerate(X)
    ]
    lines.insert(3, json.dumps({"key": "bad", "error": {"message": "SECRET"}}))
    (tmp_path / "e.jsonl").write_text("\n".join(lines))
    labels = "".join(f"k{i},{NAMES[Y[i]]}\n" for i in reversed(range(N)))
    (tmp_path / "y.csv").write_text("key,mood\n" + labels)
    return [tmp_path / "e.jsonl", "--labels", tmp_path / "y.csv", "--label-column", "mood"]


def test_an_imported_cache_is_fitted_and_evaluated(dpfc, strict_json, tmp_path, batch):
    cache, model = tmp_path / "cache", tmp_path / "model.safetensors"
    options = ["--class-names", "ant,bee,cow", "--on-error", "skip", "--out", cache, "--json"]
    run = dpfc("features", "import", *batch, *options)
    assert run.code == 0, run.err
    report = strict_json(run.out)
    assert (report["rows"], report["skipped"], report["n_features"]) == (N, 1, 6)
    assert report["class_names"] == NAMES.tolist()
    assert np.array_equal(FeatureCache.open(cache).read_labels(), Y)
    assert "imported" in dpfc("features", "info", cache).out
    assert "is whole" in dpfc("features", "verify", cache).out
    run = dpfc("fit", "--features", cache, "--epsilon", "50", "--out", model)
    assert run.code == 0, run.err
    run = dpfc("evaluate", "--model", model, "--features", cache, "--json")
    assert strict_json(run.out)["accuracy"] > 0.9


def test_what_is_printed_names_skipped_requests_and_the_stop_names_the_line(dpfc, tmp_path, batch):
    run = dpfc("features", "import", *batch, "--out", tmp_path / "c")
    assert run.code == 1
    assert "line 4 of" in run.err
    assert "SECRET" not in run.err
    run = dpfc("features", "import", *batch, "--out", tmp_path / "c", "--on-error", "skip")
    assert "90 rows × 6 features, with labels" in run.out
    assert "requests that had failed, or rows without a label: 1; their ids" in run.out


def test_fit_on_an_array_file_points_to_import(dpfc, tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=Y)
    run = dpfc(
        *("fit", "--features", tmp_path / "x.npz", "--epsilon", "1"),
        *("--out", tmp_path / "m.safetensors"),
    )
    assert run.code == 1
    assert "`dpfc features import`" in run.err


@pytest.mark.slow
def test_a_killed_import_goes_on_and_ends_the_same(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "y.npy", np.arange(len(rows)) % 3)
    code = (
        "import sys; from dpfc.features import import_features; "
        "import_features('x.npy', sys.argv[1], labels='y.npy', shard_rows=500)"
    )

    def start(out):
        return subprocess.Popen([sys.executable, "-c", code, out], cwd=tmp_path)

    assert start("whole").wait() == 0
    process = start("killed")
    while not (tmp_path / "killed" / "part-00003.parquet").exists():
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    manifest = json.loads((tmp_path / "killed" / "manifest.json").read_text())
    assert not manifest["complete"]
    assert start("killed").wait() == 0
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


def test_the_commands_of_the_page_on_importing_run(dpfc, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs/importing-features.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})
    for command in commands.splitlines():
        run = dpfc(*shlex.split(command)[1:])
        assert run.code == 0, f"{command}: {run.err}"
    assert (tmp_path / "texts.safetensors").exists()
