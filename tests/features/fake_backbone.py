"""A backbone of one matrix product, and a process that extracts with it and dies on command."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from dpfc.features.exceptions import OutOfDeviceMemoryError


class FakeBackbone:
    spec = "fake"
    modality = "image"
    device = "cpu"
    decode_size = 8
    best_batch_size = 16
    weights_sha256 = "0" * 64

    def __init__(self, n_features=12, delay=0.0, room=None):
        self.n_features = n_features
        self.delay = delay
        self.room = room  # most rows that fit into the pretended device
        self.calls = 0
        self.passes = []
        generator = np.random.default_rng(0)
        self.weights = generator.integers(-3, 4, (192, n_features)).astype(np.float32) / 256

    @property
    def preprocessing(self):
        return {"image_size": 8, "resize": "fake"}

    @property
    def preparer(self):
        return pixels_of

    def embed(self, batch):
        self.calls += 1
        if self.room is not None and len(batch) > self.room:
            raise OutOfDeviceMemoryError(f"{len(batch)} rows do not fit")
        self.passes.append(len(batch))
        time.sleep(self.delay)
        return batch.reshape(len(batch), -1).astype(np.float32) @ self.weights


class FakeTextBackbone(FakeBackbone):
    """Counts of letters; takes token ids of any length, a list of rows."""

    spec = "fake-text"
    modality = "text"
    decode_size = None

    @property
    def preparer(self):
        return letters_of

    def embed(self, batch):
        assert isinstance(batch, list)
        self.calls += 1
        self.passes.append(len(batch))
        return np.stack([np.bincount(row, minlength=26)[:12] for row in batch]).astype(np.float32)


def letters_of(text):
    return np.array([ord(c) - 97 for c in text.lower() if "a" <= c <= "z"], np.int32)


def pixels_of(image):
    return np.asarray(image.resize((8, 8)))


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
