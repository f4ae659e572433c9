import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from dpfc.features import CacheDescription, FeatureCache, FeatureCacheError, FeatureCacheWriter

ROWS = 25


def test_writing_in_pieces_gives_the_same_files(describe, rows, tmp_path, cache, folder_hashes):
    X, y, ids = rows()
    with FeatureCacheWriter(tmp_path / "pieces", describe()) as writer:
        for i in range(0, ROWS, 3):
            writer.write(X[i : i + 3], y[i : i + 3], ids[i : i + 3])
        writer.finish()
    assert folder_hashes(tmp_path / "pieces") == folder_hashes(cache.path)


@pytest.mark.parametrize("n", [0, 4, 10, 17, 25])
def test_a_writer_goes_on_after_an_error(write, describe, rows, tmp_path, cache, folder_hashes, n):
    X, y, ids = rows()
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt), FeatureCacheWriter(out, describe()) as writer:
        writer.write(X[:n], y[:n], ids[:n])
        raise KeyboardInterrupt
    with pytest.raises(FeatureCacheError, match=r"is incomplete: run the same command again"):
        FeatureCache.open(out)
    with FeatureCacheWriter(out, describe()) as writer:
        assert writer.n_written == n // 10 * 10
    write(out)
    assert folder_hashes(out) == folder_hashes(cache.path)


# -- what a writer refuses ---------------------------------------------------------------------


def test_a_cache_of_something_else_is_refused_with_what_differs(write, cache):
    with pytest.raises(FeatureCacheError, match=r"dtype \('float16', 'float32'\)") as error:
        write(cache.path, dtype="float32", backbone={"spec": "x"})
    assert "backbone.spec (None, 'x')" in str(error.value)
    assert "with overwrite=True" in str(error.value)


def test_overwriting_starts_afresh(write, cache, tmp_path, folder_hashes):
    fresh = write(tmp_path / "fresh", 8, dtype="float32")
    (cache.path / "manifest.json").write_text("{")
    write(cache.path, 8, dtype="float32", overwrite=True)
    assert folder_hashes(cache.path) == folder_hashes(fresh.path)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["thesis.docx", ".hidden", "part-1.parquet", "part-00000.parquet.bak"]
)
def test_a_foreign_folder_is_refused_and_left_alone(names_in, write, tmp_path, name, overwrite):
    (tmp_path / name).write_text("precious")
    with pytest.raises(FeatureCacheError, match="choose a new or empty folder"):
        write(tmp_path, overwrite=overwrite)
    assert names_in(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_shards_without_a_manifest_are_refused(write, cache):
    (cache.path / "manifest.json").unlink()
    with pytest.raises(FeatureCacheError, match="not a feature cache's"):
        write(cache.path)
    assert len(write(cache.path, overwrite=True)) == ROWS


def test_a_file_in_the_folders_place_is_refused(write, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FeatureCacheError, match="is a file: choose a folder"):
        write(tmp_path / "file")
    with pytest.raises(FeatureCacheError, match="cannot write the feature cache"):
        write(tmp_path / "file" / "below")


def test_a_second_writer_is_refused_while_the_first_works(write, describe, tmp_path):
    with pytest.raises(KeyboardInterrupt), FeatureCacheWriter(tmp_path, describe()):
        with pytest.raises(FeatureCacheError, match="another process is writing"):
            write(tmp_path)
        raise KeyboardInterrupt
    assert len(write(tmp_path)) == ROWS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 5)), [0, 0, 0], ["a"] * 3), r"X must have shape \(n, 6\), got \(3, 5\)"),
        ((np.zeros(6), [0], ["a"]), r"X must have shape \(n, 6\)"),
        ((np.zeros((3, 6)), None, ["a"] * 3), "y must be given"),
        ((np.zeros((3, 6)), [0, 0], ["a"] * 3), r"y must have shape \(3,\), got \(2,\)"),
        ((np.zeros((3, 6)), [0, 0, 0], ["a"]), r"ids must have shape \(3,\)"),
        ((np.zeros((3, 6)), [0, 0, 0], None), "ids must be given"),
        ((np.zeros((3, 6)), [0, 0.5, 1], ["a"] * 3), "y must hold integers"),
        ((np.zeros((3, 6)), [0, 2**31, 1], ["a"] * 3), "y must hold integers"),
    ],
)
def test_rows_of_another_shape_are_refused(describe, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message), FeatureCacheWriter(tmp_path, describe()) as w:
        w.write(*arguments)


def test_columns_that_were_not_announced_are_refused(describe, tmp_path):
    description = describe(has_labels=False, has_ids=False)
    with (
        FeatureCacheWriter(tmp_path, description) as writer,
        pytest.raises(ValueError, match="y must not be given"),
    ):
        writer.write(np.zeros((3, 6)), [0, 0, 0])


@pytest.mark.parametrize(
    ("value", "remedy"), [(70_000.0, "store the cache as float32"), (np.nan, "backbone's output")]
)
def test_features_that_are_not_finite_are_refused_by_their_id(
    describe, rows, tmp_path, value, remedy
):
    X, y, ids = rows()
    X[13, 2] = value
    message = f"row 'row-13' are not finite .*{remedy}"
    with (
        FeatureCacheWriter(tmp_path, describe()) as writer,
        pytest.raises(FeatureCacheError, match=message) as error,
    ):
        writer.write(X, y, ids)
    assert "70" not in str(error.value)


def test_a_cache_of_no_rows_is_refused(write, tmp_path):
    with pytest.raises(FeatureCacheError, match="no rows were written"):
        write(tmp_path, 0)


def test_nothing_is_appended_to_a_complete_cache(describe, rows, cache):
    with FeatureCacheWriter(cache.path, describe()) as writer:
        writer.finish()
        with pytest.raises(ValueError, match="complete"):
            writer.write(*rows())


@pytest.mark.parametrize(
    "options", [{"n_features": 0}, {"n_features": 2.0}, {"dtype": "int8"}, {"shard_rows": 0}]
)
def test_a_description_checks_its_fields(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CacheDescription(**{"n_features": 3, **options})


# -- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space and run the same command again"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.EIO, "check the path and the disk"),
    ],
)
@pytest.mark.parametrize("call", [1, 2, 3, 4, 7])
def test_a_failing_disk_gives_one_clear_error_and_leaves_no_temporary(
    names_in, write, tmp_path, cache, folder_hashes, monkeypatch, code, advice, call
):
    original, count = os.fsync, 0

    def failing(descriptor):
        nonlocal count
        count += 1
        if count == call:
            raise OSError(code, os.strerror(code))
        return original(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    out = tmp_path / "full"
    with pytest.raises(FeatureCacheError, match=advice):
        write(out)
    monkeypatch.undo()
    assert not [name for name in names_in(out) if name.endswith(".tmp")]
    write(out)
    assert folder_hashes(out) == folder_hashes(cache.path)


def test_a_real_limit_on_file_size_gives_the_same_error(names_in, tmp_path):
    script = f"""
        import numpy as np, resource, sys
        from dpfc.features import CacheDescription, FeatureCacheError, FeatureCacheWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with FeatureCacheWriter({str(tmp_path)!r}, CacheDescription(64, has_labels=False)) as w:
                w.write(np.zeros((1000, 64)))
                w.finish()
        except FeatureCacheError as error:
            sys.exit(str(error))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert "File too large): free some space" in run.stderr
    assert "Traceback" not in run.stderr
    assert names_in(tmp_path) == ["manifest.json"]
