import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.features import FeatureCache, FeatureCacheError
from dpfc.features.cache.manifest import _checksum

ROWS, WIDTH = 25, 6


@pytest.fixture(scope="module")
def shared_cache(write, tmp_path_factory):
    return write(tmp_path_factory.mktemp("shared") / "cache")


def edit_manifest(path, change, *, sign=True):
    body = json.loads((path / "manifest.json").read_text())
    change(body)
    if sign:
        del body["sha256"]
        body["sha256"] = _checksum(body)
    (path / "manifest.json").write_text(json.dumps(body))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_written_is_read(names_in, write, rows, tmp_path, dtype):
    cache = write(tmp_path / "cache", dtype=dtype)
    X, y = cache.load()
    expected, labels, ids = rows()
    assert X.dtype == dtype
    assert np.array_equal(X, expected.astype(dtype))
    assert y.dtype == np.int32
    assert np.array_equal(y, labels)
    assert np.array_equal(cache.read_labels(), labels)
    assert (len(cache), cache.n_features, cache.class_names) == (ROWS, WIDTH, ["a", "b", "c"])
    shards = [f"part-0000{i}.parquet" for i in range(3)]
    assert names_in(cache.path) == ["manifest.json", *shards]
    table = pq.read_table(cache.path / "part-00001.parquet")
    assert table.column("id").to_pylist() == ids[10:20]


def test_any_parquet_reader_reads_a_shard(rows, cache):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(cache.path / "part-00000.parquet")
    assert np.array_equal(np.stack(frame["features"]), rows()[0][:10].astype(np.float16))


@pytest.mark.parametrize("block_rows", [1, 4, 10, 4096])
def test_blocks_come_in_order_are_bounded_and_may_be_written_to(rows, cache, block_rows):
    for _ in range(2):  # the second time without checksums
        blocks = list(cache.blocks(block_rows))
        assert max(len(X) for X, _ in blocks) == min(block_rows, 10)
        assert all(X.flags.writeable and y.flags.writeable for X, y in blocks)
        assert np.array_equal(np.concatenate([X for X, _ in blocks]), cache.load()[0])
        assert np.array_equal(np.concatenate([y for _, y in blocks]), rows()[1])


@pytest.mark.parametrize("block_rows", [0, -1, 2.5, None, True])
def test_block_rows_must_be_a_positive_int(cache, block_rows):
    with pytest.raises(ValueError, match=r"block_rows must be an int in \[1, inf\)"):
        cache.blocks(block_rows)


def test_a_folders_name_is_not_taken_for_a_column(write, rows, tmp_path):
    cache = write(tmp_path / "label=3" / "cache")
    for _ in range(2):
        assert np.array_equal(cache.load()[1], rows()[1])


def test_a_cache_without_labels_has_no_such_column(write, tmp_path):
    cache = write(tmp_path / "cache", has_labels=False, has_ids=False, class_names=None)
    assert pq.read_schema(cache.path / "part-00000.parquet").names == ["features"]
    assert cache.load()[1] is None
    assert {y for _, y in cache.blocks()} == {None}
    with pytest.raises(FeatureCacheError, match="has no labels"):
        cache.read_labels()


def test_the_manifest_says_what_is_there(cache):
    manifest = cache.manifest
    assert manifest == json.loads((cache.path / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert manifest["complete"] is True
    assert manifest["n_samples"] == ROWS
    assert [shard["rows"] for shard in manifest["shards"]] == [10, 10, 5]


# -- damaged and foreign folders ---------------------------------------------------------------


def test_a_path_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(FeatureCacheError, match="does not exist"):
        FeatureCache.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FeatureCacheError, match="is a file"):
        FeatureCache.open(tmp_path / "file")
    with pytest.raises(FeatureCacheError, match=r"is not a feature cache: it holds no manifest"):
        FeatureCache.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"{}"])
def test_a_manifest_that_is_none_is_refused(cache, content):
    (cache.path / "manifest.json").write_bytes(content)
    with pytest.raises(FeatureCacheError, match="extract --overwrite"):
        FeatureCache.open(cache.path)


def test_a_truncated_manifest_is_refused(cache):
    content = (cache.path / "manifest.json").read_bytes()
    (cache.path / "manifest.json").write_bytes(content[: len(content) // 2])
    with pytest.raises(FeatureCacheError, match="is not valid JSON"):
        FeatureCache.open(cache.path)


def test_an_edited_manifest_is_refused(cache):
    edit_manifest(cache.path, lambda m: m["class_names"].reverse(), sign=False)
    with pytest.raises(FeatureCacheError, match="does not match its own checksum"):
        FeatureCache.open(cache.path)


def test_a_manifest_of_a_later_version_is_refused(cache):
    edit_manifest(cache.path, lambda m: m.update(format_version=3))
    with pytest.raises(FeatureCacheError, match="version 3, this dpfc reads versions 1 and 2"):
        FeatureCache.open(cache.path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("n_features"),
        lambda m: m.pop("shards"),
        lambda m: m.update(n_features="6"),
        lambda m: m.update(n_features=-6),
        lambda m: m.update(dtype="float8"),
        lambda m: m.update(class_names=[1]),
        lambda m: m.update(class_names=3),
        lambda m: m.update(complete="yes"),
        lambda m: m.update(shards={"a": 1}),
        lambda m: m["shards"][0].update(rows=0),
        lambda m: m["shards"][0].update(rows=10.0),
        lambda m: m["shards"][0].update(sha256="abc"),
        lambda m: m["shards"][0].update(file="../part-00000.parquet"),
        lambda m: m["shards"][0].update(file="/etc/passwd"),
        lambda m: m["shards"][1].update(file="part-00000.parquet"),
        lambda m: m["shards"].reverse(),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(cache, change):
    edit_manifest(cache.path, change)
    with pytest.raises(FeatureCacheError, match="lacks a field or has one of the wrong type"):
        FeatureCache.open(cache.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["shards"][0].update(rows=9) or m.update(n_samples=m["n_samples"] - 1),
            "holds 10 rows, the manifest says 9",
        ),
        (lambda m: m.update(n_features=5), "other columns, width or dtype"),
        (lambda m: m.update(dtype="float32"), "other columns, width or dtype"),
        (lambda m: m.update(has_labels=False), "other columns, width or dtype"),
    ],
)
def test_shards_that_differ_from_the_manifest_are_refused_on_opening(cache, change, message):
    edit_manifest(cache.path, change)
    with pytest.raises(FeatureCacheError, match=message):
        FeatureCache.open(cache.path)


def test_a_missing_or_truncated_shard_is_refused_on_opening(cache):
    shard = cache.path / "part-00001.parquet"
    content = shard.read_bytes()
    for part in (b"", content[:20], content[:-1]):
        shard.write_bytes(part)
        with pytest.raises(FeatureCacheError, match=r"part-00001.parquet is not a readable"):
            FeatureCache.open(cache.path)
    shard.unlink()
    with pytest.raises(FeatureCacheError, match=r"part-00001.parquet is missing: run the same"):
        FeatureCache.open(cache.path)


def test_a_shard_that_vanishes_after_opening_is_refused(cache):
    (cache.path / "part-00002.parquet").unlink()
    with pytest.raises(FeatureCacheError, match=r"part-00002.parquet cannot be read"):
        cache.load()


def read_everything(path):
    cache = FeatureCache.open(path)
    return cache.load(), cache.manifest


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found_or_harmless(
    names_in, shared_cache, tmp_path_factory, data
):
    (X, y), manifest = read_everything(shared_cache.path)
    copy = tmp_path_factory.mktemp("copy") / "cache"
    shutil.copytree(shared_cache.path, copy)
    name = data.draw(st.sampled_from(names_in(copy)))
    content = bytearray((copy / name).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    (copy / name).write_bytes(content)
    try:
        (X_found, y_found), found = read_everything(copy)
    except FeatureCacheError:
        return
    assert name == "manifest.json"
    assert found == manifest
    assert np.array_equal(X_found, X)
    assert np.array_equal(y_found, y)
