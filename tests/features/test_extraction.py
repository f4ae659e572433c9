import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dpfc.features import (
    DatasetError,
    FeatureCache,
    FeatureCacheError,
    UnreadableImageError,
    extract,
    load_backbone,
    open_dataset,
)

SCRIPT = Path(__file__).with_name("fake_backbone.py")
ROWS, SHARD_ROWS = 230, 50


@pytest.fixture(scope="module")
def images(write_parquet, tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("images") / "images.parquet", ROWS, group=60)


@pytest.fixture(scope="module")
def finished(images, fake_backbone_class, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "cache"
    return extract(open_dataset(images), fake_backbone_class(), out, shard_rows=SHARD_ROWS)


def run(images, backbone, out, **options):
    return extract(open_dataset(images), backbone, out, **{"shard_rows": SHARD_ROWS, **options})


def test_features_are_the_backbones_in_the_data_sets_order(finished, images, fake_backbone):
    items = list(open_dataset(images))
    prepared = np.stack([fake_backbone.preparer(item.decode()) for item in items])
    X, y = finished.load()
    assert np.array_equal(X, fake_backbone.embed(prepared).astype(np.float16))
    assert np.array_equal(y, [item.label for item in items])
    assert finished.class_names == ["cat", "dog", "owl"]


def test_the_manifest_says_where_the_features_come_from(finished, images):
    manifest = finished.manifest
    assert manifest["backbone"] == {"spec": "fake", "weights_sha256": "0" * 64}
    assert manifest["preprocessing"] == {"image_size": 8, "resize": "fake"}
    assert manifest["dataset"]["fingerprint"] == open_dataset(images).fingerprint
    assert manifest["dataset"]["n_samples"] == ROWS


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 5}, {"batch_size": 7}])
def test_workers_and_batches_change_no_byte(
    finished, images, fake_backbone, tmp_path, folder_hashes, options
):
    run(images, fake_backbone, tmp_path / "out", **options)
    assert folder_hashes(tmp_path / "out") == folder_hashes(finished.path)


def test_a_second_extraction_of_the_same_inputs_does_nothing(images, fake_backbone_class, tmp_path):
    run(images, fake_backbone_class(), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = fake_backbone_class()
    assert len(run(images, again, tmp_path / "out")) == ROWS
    assert again.calls == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_finished_cache_does_not_load_the_network(tmp_path, encode):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8)))
    for expected in (True, False):
        backbone = load_backbone(image_size=32, device="cpu")
        extract(open_dataset(tmp_path / "data"), backbone, tmp_path / "out")
        assert (backbone._forward is not None) is expected


def test_damaged_shards_are_redone(finished, images, fake_backbone, tmp_path, folder_hashes):
    out = tmp_path / "out"
    run(images, fake_backbone, out)
    for name, content in (("part-00002.parquet", b"x"), ("part-00001.parquet", None)):
        if content is None:
            (out / name).unlink()
        else:
            (out / name).write_bytes(content)
        fake_backbone.calls = 0
        run(images, fake_backbone, out)
        assert 0 < fake_backbone.calls <= 16
        assert folder_hashes(out) == folder_hashes(finished.path)


def test_a_data_set_without_labels_is_extracted(write_parquet, fake_backbone, tmp_path):
    path = write_parquet(tmp_path / "x.parquet", labels=False)
    cache = run(path, fake_backbone, tmp_path / "out")
    assert cache.load()[1] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights_sha256": "1" * 64}, "backbone.weights_sha256"),
        ({"spec": "other"}, "backbone.spec"),
        ({"preprocessing": {"image_size": 9}}, "preprocessing.image_size"),
        ({"n_features": 11}, "n_features"),
        ({"dtype": "float32"}, "dtype"),
        ({"shard_rows": 60}, "shard_rows"),
        ({"data": "changed"}, "dataset.fingerprint"),
    ],
)
def test_a_cache_of_other_inputs_is_refused_by_name_and_overwritten_on_request(
    images, fake_backbone_class, write_parquet, tmp_path, change, named
):
    run(images, fake_backbone_class(), tmp_path / "out")
    options = {k: change[k] for k in ("dtype", "shard_rows") if k in change}
    if "data" in change:
        images = write_parquet(tmp_path / "images.parquet", ROWS, seed=1)
    other = type("Other", (fake_backbone_class,), {})
    for key in ("weights_sha256", "spec", "preprocessing"):
        if key in change:
            setattr(other, key, change[key])
    backbone = other(change.get("n_features", 12))
    with pytest.raises(FeatureCacheError, match=f"{named} \\(") as error:
        run(images, backbone, tmp_path / "out", **options)
    # Python spells its own parameter; the command line says --overwrite.
    assert "overwrite=True" in str(error.value)
    cache = run(images, backbone, tmp_path / "out", overwrite=True, **options)
    assert np.isfinite(cache.load()[0]).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "big"}, "batch_size"),
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers"),
        ({"dtype": "float64"}, "dtype"),
        ({"shard_rows": -1}, "shard_rows"),
    ],
)
def test_parameters_out_of_range_are_refused(images, fake_backbone, tmp_path, options, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        run(images, fake_backbone, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_unreadable_image_stops_the_run_and_finished_shards_stay(
    encode, write_parquet, fake_backbone, tmp_path, folder_hashes
):
    good = encode(np.zeros((8, 8, 3), np.uint8))
    images = [{"bytes": good, "path": None}] * ROWS
    broken = [*images[:120], {"bytes": good[:30], "path": None}, *images[121:]]
    path = write_parquet(tmp_path / "x.parquet", ROWS, images=broken)
    with pytest.raises(UnreadableImageError, match="'row-000120'"):
        run(path, fake_backbone, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]


def test_a_data_set_that_shrinks_while_it_is_read_is_refused(images, fake_backbone, tmp_path):
    dataset = open_dataset(images)
    whole = dataset.items
    dataset.items = lambda start=0: (item for item in whole(start) if item.id != "row-000200")
    with pytest.raises(DatasetError, match="gave 229 rows instead of 230"):
        extract(dataset, fake_backbone, tmp_path / "out")


def test_an_error_of_the_backbone_is_not_swallowed(images, fake_backbone, tmp_path):
    def fail(batch):
        raise RuntimeError("no memory left on the device")

    fake_backbone.embed = fail
    with pytest.raises(RuntimeError, match="no memory left"):
        run(images, fake_backbone, tmp_path / "out")


# -- progress ------------------------------------------------------------------------------------


def test_a_callback_hears_of_every_batch_and_of_what_was_there(images, fake_backbone, tmp_path):
    heard = []

    def stop(done, total):
        heard.append((done, total))
        if done >= 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, fake_backbone, tmp_path / "out", progress=stop)
    assert heard[0] == (16, ROWS)
    heard.clear()
    run(images, fake_backbone, tmp_path / "out", progress=lambda *rows: heard.append(rows))
    assert heard[0] == (116, ROWS)
    assert heard[-1] == (ROWS, ROWS)


def test_the_bar_is_shown_on_request_and_silent_without_a_terminal(
    images, fake_backbone, tmp_path, capfd
):
    run(images, fake_backbone, tmp_path / "silent")
    assert capfd.readouterr() == ("", "")
    run(images, fake_backbone, tmp_path / "shown", progress=True)
    captured = capfd.readouterr()
    assert "230/230" in captured.err
    assert "rows/s" in captured.err
    assert captured.out == ""


# -- kills ---------------------------------------------------------------------------------------


def start(images, out, delay=0.0, kind="never", call=0):
    command = [sys.executable, str(SCRIPT), str(images), str(out), str(delay), kind, str(call)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(path, process):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check_resumed(images, backbone, out, finished, folder_hashes):
    run(images, backbone, out)
    assert folder_hashes(out) == folder_hashes(finished.path)
    FeatureCache.open(out).load()


def kill_and_resume(images, backbone, out, finished, folder_hashes, kind, call):
    process = start(images, out, 0, kind, call)
    assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(FeatureCacheError):
        FeatureCache.open(out)
    check_resumed(images, backbone, out, finished, folder_hashes)


# A run of 5 shards writes 12 files, each flushed twice (file, folder) and renamed once.
@pytest.mark.parametrize(
    ("kind", "call"), [("flush", 1), ("flush", 4), ("rename", 5), ("rename", 12)]
)
def test_a_kill_at_a_write_loses_nothing(
    images, fake_backbone, tmp_path, finished, folder_hashes, kind, call
):
    kill_and_resume(images, fake_backbone, tmp_path / "out", finished, folder_hashes, kind, call)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "call"),
    [*(("flush", i) for i in range(1, 24)), *(("rename", i) for i in range(1, 13))],
)
def test_a_kill_at_any_write_loses_nothing(
    images, fake_backbone, tmp_path, finished, folder_hashes, kind, call
):
    kill_and_resume(images, fake_backbone, tmp_path / "out", finished, folder_hashes, kind, call)


@pytest.mark.parametrize("shard", [0, 3])
def test_a_kill_from_outside_loses_nothing(
    images, fake_backbone, tmp_path, finished, folder_hashes, shard
):
    out = tmp_path / "out"
    process = start(images, out, 0.1)
    wait_for(out / f"part-{shard:05d}.parquet", process)
    process.kill()
    process.wait()
    check_resumed(images, fake_backbone, out, finished, folder_hashes)


@pytest.mark.slow
def test_many_kills_in_a_row_lose_nothing(images, fake_backbone, tmp_path, finished, folder_hashes):
    out = tmp_path / "out"
    for seed in range(15):
        process = start(images, out, 0.3)
        wait_for(out / "manifest.json", process)
        time.sleep(random.Random(seed).uniform(0, 2))
        process.kill()
        process.wait()
    check_resumed(images, fake_backbone, out, finished, folder_hashes)


def test_ctrl_c_ends_soon_and_the_run_resumes(
    images, fake_backbone, tmp_path, finished, folder_hashes
):
    out = tmp_path / "out"
    process = start(images, out, 0.1)
    wait_for(out / "part-00001.parquet", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in stderr
    assert not list(out.glob(".*"))
    check_resumed(images, fake_backbone, out, finished, folder_hashes)


def test_a_second_process_is_refused_while_the_first_works(images, fake_backbone, tmp_path):
    out = tmp_path / "out"
    process = start(images, out, 0.5)
    try:
        wait_for(out / "manifest.json", process)
        with pytest.raises(FeatureCacheError, match="another process is writing"):
            run(images, fake_backbone, out)
    finally:
        process.kill()
        process.wait()
    assert fake_backbone.calls == 0


def test_no_thread_outlives_a_failed_run(images, fake_backbone, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, fake_backbone, tmp_path / "out", progress=stop)
    assert not [t for t in threading.enumerate() if t.name.startswith("dpfc-extract")]
