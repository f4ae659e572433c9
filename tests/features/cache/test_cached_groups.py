"""Whose each row is, in a feature cache."""

import json

import numpy as np
import pytest

from dpfc.features import FeatureCache, FeatureCacheError, FeatureCacheWriter
from dpfc.features.cache.manifest import _checksum
from dpfc.mechanism.rows import cache_groups

ROWS = 25
PERSONS = [f"p{(7 * i) % 9}" for i in range(ROWS)]


def with_groups(path, describe, rows, persons=PERSONS):
    X, y, ids = rows()
    with FeatureCacheWriter(path, describe(has_groups=True)) as writer:
        start = writer.n_written
        for i in range(start, ROWS, 4):
            writer.write(X[i : i + 4], y[i : i + 4], ids[i : i + 4], persons[i : i + 4])
        writer.finish()
    return FeatureCache.open(path)


@pytest.fixture
def grouped(describe, rows, tmp_path):
    return with_groups(tmp_path / "grouped", describe, rows)


def test_codes_are_equal_exactly_where_the_persons_are(grouped):
    codes = grouped.groups()
    assert codes.dtype == np.int64
    assert codes.shape == (ROWS,)
    same = np.equal.outer(codes, codes)
    assert np.array_equal(same, np.equal.outer(PERSONS, PERSONS))
    # In the order in which they appear.
    first = [codes.tolist().index(code) for code in range(codes.max() + 1)]
    assert first == sorted(first)
    assert cache_groups(grouped).tolist() == codes.tolist()
    assert FeatureCache.verify(grouped.path) == []


def test_a_cache_without_groups_says_so_and_is_what_it_was(cache):
    assert not cache.has_groups
    assert "has_groups" not in cache.manifest
    assert cache.manifest["format_version"] == 1
    assert cache_groups(cache) is None
    with pytest.raises(FeatureCacheError, match=r"does not say whose rows .*--group-column"):
        cache.groups()


def test_a_version_that_knows_no_groups_refuses_such_a_cache(grouped):
    assert grouped.manifest["format_version"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"has_groups": False},
        {"has_groups": 1},
        {"has_groups": None},
        {"format_version": 1},
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused(grouped, change):
    path = grouped.path / "manifest.json"
    body = json.loads(path.read_text()) | change
    del body["sha256"]
    body["sha256"] = _checksum(body)
    path.write_text(json.dumps(body, indent=2) + "\n")
    with pytest.raises(FeatureCacheError, match="has_groups must be true in version 2"):
        FeatureCache.open(grouped.path)


@pytest.mark.parametrize("n", [0, 8, 12, 24])
def test_a_writer_goes_on_with_the_same_groups(grouped, describe, rows, tmp_path, folder_hashes, n):
    X, y, ids = rows()
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt), FeatureCacheWriter(out, describe(has_groups=True)) as w:
        w.write(X[:n], y[:n], ids[:n], PERSONS[:n])
        raise KeyboardInterrupt
    with_groups(out, describe, rows)
    assert folder_hashes(out) == folder_hashes(grouped.path)


def test_groups_are_given_if_and_only_if_they_were_announced(describe, rows, tmp_path):
    X, y, ids = rows()
    with FeatureCacheWriter(tmp_path / "a", describe(has_groups=True)) as writer:
        with pytest.raises(ValueError, match="groups must be given for this cache"):
            writer.write(X, y, ids)
        with pytest.raises(ValueError, match=r"groups must have shape \(25,\), got \(2,\)"):
            writer.write(X, y, ids, PERSONS[:2])
        for wrong in (["", *PERSONS[1:]], [None, *PERSONS[1:]], list(range(ROWS))):
            with pytest.raises(ValueError, match="groups must be strings, none of them empty"):
                writer.write(X, y, ids, wrong)
    with (
        FeatureCacheWriter(tmp_path / "b", describe()) as writer,
        pytest.raises(ValueError, match="groups must not be given for this cache"),
    ):
        writer.write(X, y, ids, PERSONS)


def test_a_cache_of_rows_is_not_gone_on_with_as_one_of_persons(write, describe, rows, tmp_path):
    write(tmp_path / "c")
    with pytest.raises(FeatureCacheError, match=r"has_groups \(False, True\)"):
        with_groups(tmp_path / "c", describe, rows)


def test_a_damaged_shard_gives_no_groups(grouped):
    path = grouped.path / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[content.index(b"p3")] ^= 1
    path.write_bytes(content)
    with pytest.raises(FeatureCacheError, match="does not match its checksum"):
        grouped.groups()


def test_a_source_of_blocks_that_gives_wrong_groups_is_refused(cache):
    class Wrong:
        has_groups = True

        def __init__(self, codes):
            self._codes = codes

        def __len__(self):
            return 3

        def groups(self):
            return self._codes

    assert cache_groups(Wrong([4, 4, 9])).tolist() == [4, 4, 9]
    for codes in ([0, 1], [0.0, 1.0, 2.0], [[0, 1, 2]], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="one integer for each row"):
            cache_groups(Wrong(codes))
