"""Reads of Parquet leave no thread behind that could need Python while the process ends."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dpfc
import dpfc.features

# What reads a row group or a whole file, and is threaded unless it is told otherwise.
READERS = {"read_table", "iter_batches", "read_row_group", "read_row_groups", "read_pandas"}
SOURCES = [
    path
    for package in (dpfc, dpfc.features)
    for path in Path(str(package.__file__)).parent.rglob("*.py")
]
READ_ALL = """
import os, sys
import numpy as np
from dpfc.features import FeatureCache
from dpfc.features.cache.manifest import CacheDescription
from dpfc.features.cache.writer import FeatureCacheWriter

with FeatureCacheWriter(sys.argv[1], CacheDescription(64, class_names=("a", "b"), shard_rows=2000,
                        has_labels=True, has_ids=True)) as writer:
    writer.write(np.ones((4000, 64), np.float32), np.zeros(4000, np.int32),
                 [str(i) for i in range(4000)])
    writer.finish()
before = len(os.listdir("/proc/self/task"))
for read in (
    lambda cache: next(iter(cache.blocks(10))),
    lambda cache: cache.load(),
    lambda cache: cache.read_labels(),
    lambda cache: list(cache.tables()),
):
    read(FeatureCache.open(sys.argv[1]))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads by /proc")
def test_reading_a_cache_starts_no_thread(tmp_path):
    command = [sys.executable, "-c", READ_ALL, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_every_read_of_parquet_says_that_it_takes_no_threads():
    calls = [
        (path.name, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in READERS
    ]
    assert calls
    for name, call in calls:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        threads = given.get("use_threads")
        assert isinstance(threads, ast.Constant) and threads.value is False, (name, call.lineno)
