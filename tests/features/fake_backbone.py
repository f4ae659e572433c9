"""A backbone of one matrix product, and a process that extracts with it and dies on command."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


class FakeBackbone:
    spec = "fake"
    image_size = 8
    best_batch_size = 16
    weights_sha256 = "0" * 64

    def __init__(self, n_features=12, delay=0.0):
        self.n_features = n_features
        self.delay = delay
        self.calls = 0
        generator = np.random.default_rng(0)
        self.weights = generator.integers(-3, 4, (192, n_features)).astype(np.float32) / 256

    @property
    def preprocessing(self):
        return {"image_size": self.image_size, "resize": "fake"}

    def prepare(self, image):
        return np.asarray(image.resize((8, 8)))

    def embed(self, batch):
        self.calls += 1
        time.sleep(self.delay)
        return batch.reshape(len(batch), -1).astype(np.float32) @ self.weights


def die_at(kind, call):
    """Kill this process with SIGKILL just before its `call`-th flush or rename."""
    owner, name = {"flush": (os, "fsync"), "rename": (Path, "replace")}[kind]
    original, count = getattr(owner, name), 0

    def counted(*args):
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    setattr(owner, name, counted)


def main(data, out, delay, kind, call):
    from dpfc.features import extract, open_dataset

    if kind != "never":
        die_at(kind, int(call))
    extract(open_dataset(data), FakeBackbone(delay=float(delay)), out, shard_rows=50)


if __name__ == "__main__":
    main(*sys.argv[1:])
