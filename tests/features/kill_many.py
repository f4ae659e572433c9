"""Extractions forked from one warm process, killed at random moments and resumed.

Prints how many were killed, how many of those had begun but not ended, and the distinct hashes
of all resumed caches beside an undisturbed one.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from fake_backbone import FakeBackbone

from dpfc.features import FeatureCache, extract, open_dataset


def forked(data, out, delay):
    """Extract in a child process; gives its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            extract(open_dataset(data), FakeBackbone(delay=delay), out, shard_rows=50, workers=2)
            status = 0
        finally:
            os._exit(status)
    return child


def finish(data, out, delay=0.0):
    _, status = os.waitpid(forked(data, out, delay), 0)
    assert status == 0, f"a child ended with status {status}"


def killed_after(data, out, delay, seconds):
    """Whether the child was still at work when the signal came."""
    child = forked(data, out, delay)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def digest(folder):
    """SHA-256 of names and contents of all files."""
    parts = [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(folder.iterdir())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def main(data, folder, kills):
    folder, delay = Path(folder), 0.005
    began = time.monotonic()
    finish(data, folder / "whole", delay)
    seconds = time.monotonic() - began
    generator = random.Random(0)
    hashes, interrupted, shards = {digest(folder / "whole")}, 0, set()
    for attempt in range(20 * kills):
        out = folder / f"cache-{attempt}"
        if not killed_after(data, out, delay, generator.uniform(0, seconds)):
            continue
        interrupted += 1
        shards.add(len(list(out.glob("part-*"))) if out.exists() else -1)
        finish(data, out)
        FeatureCache.open(out)
        hashes.add(digest(out))
        if interrupted == kills:
            break
    print(json.dumps({"killed": interrupted, "shards": sorted(shards), "hashes": sorted(hashes)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
