"""Every flipped byte is found."""

import json
import os
import shutil

import numpy as np
import pytest

from dpfc.features import FeatureCache, FeatureCacheError
from dpfc.features.cache.manifest import _checksum


@pytest.fixture(scope="module")
def whole(write, tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "cache").path


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_whole_cache_has_no_damage(whole):
    assert FeatureCache.verify(whole) == []


def test_every_flipped_byte_of_the_manifest_is_found(copy):
    path = copy / "manifest.json"
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= generator.integers(1, 256)
        path.write_bytes(changed)
        found = FeatureCache.verify(copy)
        assert len(found) == 1, position
        assert found[0].startswith(str(path))


@pytest.mark.parametrize("change", [b" ", b"\n", b"\t"])
def test_a_changed_space_of_the_manifest_is_found(copy, change):
    path = copy / "manifest.json"
    content = path.read_bytes()
    path.write_bytes(content + change)
    assert "a byte was changed" in FeatureCache.verify(copy)[0]
    path.write_bytes(content.replace(b'": ', b'":' + change + b" ", 1))
    assert "a byte was changed" in FeatureCache.verify(copy)[0]


def test_flipped_bytes_of_shards_are_found_and_never_read(copy):
    generator = np.random.default_rng(1)
    shards = sorted(copy.glob("part-*.parquet"))
    for index in generator.integers(0, len(shards), 200):
        path = shards[index]
        content = path.read_bytes()
        changed = bytearray(content)
        changed[generator.integers(len(content))] ^= generator.integers(1, 256)
        path.write_bytes(changed)
        found = FeatureCache.verify(copy)
        assert len(found) == 1
        assert found[0].startswith(str(path))
        with pytest.raises(FeatureCacheError, match=path.name):
            FeatureCache.open(copy).load()
        path.write_bytes(content)
    assert FeatureCache.verify(copy) == []


def test_each_damaged_shard_is_named(copy):
    (copy / "part-00000.parquet").unlink()
    os.truncate(copy / "part-00002.parquet", 100)
    found = FeatureCache.verify(copy)
    assert len(found) == 2
    assert "part-00000.parquet is missing" in found[0]
    assert "part-00002.parquet is not a readable Parquet file" in found[1]


def test_swapped_shards_are_found(copy):
    first, second = copy / "part-00000.parquet", copy / "part-00001.parquet"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert ["does not match its checksum" in line for line in FeatureCache.verify(copy)] == [
        True
    ] * 2


def test_a_cache_from_before_rows_could_be_skipped_is_read_and_verified(copy):
    path = copy / "manifest.json"
    body = json.loads(path.read_text())
    del body["skipped"], body["sha256"]
    body["sha256"] = _checksum(body)
    path.write_text(json.dumps(body, indent=2) + "\n")
    assert FeatureCache.verify(copy) == []
    assert FeatureCache.open(copy).manifest["skipped"] == []


@pytest.mark.parametrize(
    "skipped",
    [
        [{"id": "a", "reason": "b", "shard": 3}],
        [{"id": "a", "reason": "b", "shard": -1}],
        [{"id": 1, "reason": "b", "shard": 0}],
        [{"id": "a", "shard": 0}],
        [{"id": "a", "reason": "b", "shard": 0, "path": "x"}],
        ["a"],
        7,
    ],
)
def test_a_wrong_list_of_skipped_rows_is_refused(copy, skipped):
    path = copy / "manifest.json"
    body = json.loads(path.read_text())
    del body["sha256"]
    body["skipped"] = skipped
    path.write_text(json.dumps(body | {"sha256": _checksum(body)}, indent=2) + "\n")
    assert "lacks a field or has one of the wrong type" in FeatureCache.verify(copy)[0]


def test_an_incomplete_cache_is_no_whole_one(copy):
    path = copy / "manifest.json"
    body = json.loads(path.read_text())
    body["complete"] = False
    del body["sha256"]
    path.write_text(json.dumps(body | {"sha256": _checksum(body)}, indent=2) + "\n")
    assert "is incomplete" in FeatureCache.verify(copy)[0]


def test_a_folder_that_is_no_cache_is_named(tmp_path):
    assert "is not a feature cache" in FeatureCache.verify(tmp_path)[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[
            (key, value)
            for key in ("backbone", "preprocessing", "dataset")
            for value in ("x", 1, [])
        ],
        *[(key, 10**400) for key in ("n_features", "shard_rows")],
        ("class_names", {"a": 1}),
        ("shards", None),
        ("shards", [{}]),
        ("skipped", [1]),
    ],
)
def test_a_manifest_that_parses_and_means_nothing_is_one_sentence(copy, key, value):
    path = copy / "manifest.json"
    body = json.loads(path.read_text()) | {key: value}
    del body["sha256"]
    path.write_text(json.dumps(body | {"sha256": _checksum(body)}))
    (found,) = FeatureCache.verify(copy)
    assert found.startswith(str(path)) and "\n" not in found
    with pytest.raises(FeatureCacheError):
        FeatureCache.open(copy)
