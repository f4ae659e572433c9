import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpfc._support.words import counted
from dpfc.experiments.cli.console import sized
from dpfc.features import FeatureCache


def rows_of(path):
    X, y = FeatureCache.open(path).load()
    return X, y, [f"r{i}" for i in range(len(X))]


def test_info_says_what_a_cache_is_and_that_it_is_the_owners(dpfc, cache_path):
    run = dpfc("features", "info", cache_path)
    assert run.code == 0
    for words in ("90", "6 features, float16", "ant, bee, cow", "2 shards", "publish none"):
        assert words in run.out
    assert FeatureCache.open(cache_path).manifest["sha256"] in run.out
    assert "class counts" not in run.out


def test_info_counts_classes_only_when_asked(dpfc, cache_path, strict_json):
    report = strict_json(dpfc("features", "info", cache_path, "--json").out)
    assert (report["rows"], report["n_features"], report["skipped"]) == (90, 6, 0)
    assert report["class_counts"] is None
    report = strict_json(dpfc("features", "info", cache_path, "--class-counts", "--json").out)
    assert report["class_counts"] == {"ant": 30, "bee": 30, "cow": 30}


def test_class_counts_need_labels(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "bare", labels=False, class_names=None)
    run = dpfc("features", "info", tmp_path / "bare", "--class-counts")
    assert run.code == 1
    assert "has no labels" in run.err


def test_verify_passes_a_whole_cache_and_names_damaged_files(dpfc, cache_path, strict_json):
    run = dpfc("features", "verify", cache_path)
    assert (run.code, run.out.strip()) == (0, f"{cache_path} is whole.")
    path = cache_path / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    run = dpfc("features", "verify", cache_path)
    assert run.code == 1
    assert "part-00001.parquet does not match its checksum" in run.out
    assert "part-00000" not in run.out
    run = dpfc("features", "verify", cache_path, "--json")
    assert run.code == 1
    assert len(strict_json(run.out)["damages"]) == 1


def test_npy_holds_the_features(dpfc, cache_path, tmp_path):
    assert dpfc("features", "export", cache_path, "--out", tmp_path / "x.npy").code == 0
    exported = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert exported.dtype == np.float16
    assert np.array_equal(exported, rows_of(cache_path)[0])


def test_npz_holds_all_arrays_and_is_the_same_each_time(dpfc, cache_path, tmp_path):
    for name in ("x.npz", "y.npz"):
        assert dpfc("features", "export", cache_path, "--out", tmp_path / name).code == 0
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()
    X, y, ids = rows_of(cache_path)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["X"], X)
        assert np.array_equal(arrays["y"], y)
        assert arrays["ids"].tolist() == ids
        assert arrays["class_names"].tolist() == ["ant", "bee", "cow"]


def test_npz_has_no_array_that_the_cache_has_not(dpfc, write_cache, tmp_path):
    write_cache(tmp_path / "bare", labels=False, ids=False, class_names=None)
    assert dpfc("features", "export", tmp_path / "bare", "--out", tmp_path / "x.npz").code == 0
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["X"]


def test_parquet_holds_all_columns_and_class_names(dpfc, cache_path, tmp_path):
    assert dpfc("features", "export", cache_path, "--out", tmp_path / "x.parquet").code == 0
    table = pq.read_table(tmp_path / "x.parquet")
    X, y, ids = rows_of(cache_path)
    assert np.array_equal(np.stack(table.column("features").to_numpy()), X)
    assert table.column("label").to_pylist() == y.tolist()
    assert table.column("id").to_pylist() == ids
    assert b"bee" in table.schema.metadata[b"huggingface"]


def test_csv_gives_every_number_back_exactly(dpfc, cache_path, tmp_path):
    assert dpfc("features", "export", cache_path, "--out", tmp_path / "x.csv").code == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    X, y, ids = rows_of(cache_path)
    assert header == ["id", "label", *(f"f{i}" for i in range(6))]
    assert [row[0] for row in rows] == ids
    assert [int(row[1]) for row in rows] == y.tolist()
    assert np.array_equal(np.array([row[2:] for row in rows], dtype=np.float16), X)


@pytest.mark.parametrize("suffix", ["npy", "npz", "parquet", "csv"])
def test_an_export_of_a_damaged_cache_leaves_nothing(dpfc, cache_path, tmp_path, suffix):
    path = cache_path / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    target = tmp_path / "exported"
    target.mkdir()
    run = dpfc("features", "export", cache_path, "--out", target / f"x.{suffix}")
    assert run.code == 1
    assert "does not match its checksum" in run.err
    assert list(target.iterdir()) == []


def test_an_export_overwrites_only_with_force_and_knows_its_formats(dpfc, cache_path, tmp_path):
    out = tmp_path / "x.npy"
    out.write_bytes(b"mine")
    assert "exists" in dpfc("features", "export", cache_path, "--out", out).err
    assert out.read_bytes() == b"mine"
    assert dpfc("features", "export", cache_path, "--out", out, "--force").code == 0
    assert "must end in .npy" in dpfc("features", "export", cache_path, "--out", "x.mat").err
    assert np.load(out).shape == (90, 6)


def test_the_command_alone_shows_its_help(dpfc):
    run = dpfc("features")
    assert all(name in run.out for name in ("info", "verify", "export"))


def test_one_of_a_thing_is_said_in_the_singular_and_small_sizes_are_not_nothing(
    dpfc, write_cache, tmp_path
):
    write_cache(tmp_path / "cache", n=1, width=3)
    info = " ".join(dpfc("features", "info", tmp_path / "cache").out.split())
    assert " in 1 shard checksum" in info and "size 0.0 MB" not in info
    export = dpfc("features", "export", tmp_path / "cache", "--out", tmp_path / "rows.npy")
    assert export.out.startswith("1 row × 3 features: ")
    assert [counted(n, "failed run") for n in (0, 1, 2000)] == [
        "0 failed runs", "1 failed run", "2,000 failed runs",
    ]  # fmt: skip
    sizes = [sized(n) for n in (0, 1, 999, 1000, 2_345_678, 5_000_000_000)]
    assert sizes == ["0 bytes", "1 byte", "999 bytes", "1.0 kB", "2.3 MB", "5.0 GB"]
