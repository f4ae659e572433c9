"""Small feature caches, a model file, and a way to run `dpfc` in this process."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dpfc.experiments.cli.app import main
from dpfc.features import CacheDescription, FeatureCache, FeatureCacheWriter

WIDTH, N_ROWS, CLASSES = 6, 90, ("ant", "bee", "cow")


def _not_strict(name):
    raise AssertionError(f"{name} is not strict JSON")


@pytest.fixture(scope="session")
def strict_json():
    """Parse JSON, refusing what strict JSON does not have."""
    return lambda text: json.loads(text, parse_constant=_not_strict)


@pytest.fixture(scope="session")
def write_cache():
    """Write a cache of three well separated classes."""

    def write(path, *, n=N_ROWS, width=WIDTH, class_names=CLASSES, labels=True, ids=True):
        generator = np.random.default_rng(0)
        y = np.arange(n) % 3
        X = generator.normal(size=(n, width)).astype(np.float32) * 0.1
        X[np.arange(n), y] += 3
        description = CacheDescription(
            width, class_names=class_names, has_labels=labels, has_ids=ids, shard_rows=50
        )
        with FeatureCacheWriter(path, description) as writer:
            writer.write(X, y if labels else None, [f"r{i}" for i in range(n)] if ids else None)
            writer.finish()
        return FeatureCache.open(path)

    return write


@pytest.fixture
def dpfc(capsys):
    """Run the command line here; gives its exit code, output and error output."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def cache_path(write_cache, tmp_path):
    write_cache(tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def fitted(write_cache, tmp_path_factory):
    """A model file that was fitted without noise, so that it knows its classes."""
    folder = tmp_path_factory.mktemp("model")
    write_cache(folder / "cache")
    path = folder / "model.safetensors"
    arguments = ["fit", "--features", folder / "cache", "--epsilon", "inf", "--method", "gd"]
    assert main([str(a) for a in [*arguments, "--out", path]]) == 0
    return path
