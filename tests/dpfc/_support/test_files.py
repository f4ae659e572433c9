"""Only regular files are read and replaced; what a file declares is compared with a limit."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dpfc._support.files import (
    IrregularFileError,
    check_replaceable,
    open_regular,
    open_text,
    open_whole,
    read_regular,
)
from dpfc._support.limits import LIMITS, LimitError, check_limit, limit_of, variable_of


@pytest.fixture(params=["pipe", "device", "socket", "link to a pipe", "link to a device"])
def irregular(request, tmp_path, monkeypatch):
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path = Path("/dev/zero")
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        socket.socket(socket.AF_UNIX).bind("x")
    elif request.param == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("reading", [open_regular, open_text, read_regular, check_replaceable])
def test_what_is_no_regular_file_is_refused_at_once(irregular, reading):
    with pytest.raises(IrregularFileError, match=r"it is a (named pipe|device|socket), and only"):
        reading(irregular)


def test_what_is_no_regular_file_is_not_replaced(irregular):
    before = irregular.lstat()
    with pytest.raises(IrregularFileError), open_whole(irregular) as file:
        file.write(b"new")
    assert irregular.lstat().st_ino == before.st_ino
    assert irregular.lstat().st_mode == before.st_mode


def test_a_pipe_put_in_place_of_a_checked_file_is_seen_on_the_descriptor(tmp_path, monkeypatch):
    path = tmp_path / "x"
    os.mkfifo(path)
    # The check by name saw a file that was there a moment ago.
    monkeypatch.setattr("dpfc._support.files.check_regular", lambda path: None)
    with pytest.raises(IrregularFileError, match="named pipe"):
        open_regular(path)


def test_a_folder_is_said_to_be_one(tmp_path):
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(IsADirectoryError), open_whole(tmp_path):
        pass


def test_a_link_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    with open_whole(link) as file:
        file.write(b"new")
    assert target.read_bytes() == b"precious"
    assert stat.S_ISREG(link.lstat().st_mode)


def test_temporary_names_are_random_and_new(tmp_path):
    names = set()
    for _ in range(20):
        with open_whole(tmp_path / "x"):
            names |= {path.name for path in tmp_path.iterdir()} - {"x"}
    assert len(names) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_above_its_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_bytes(b"12345")
    monkeypatch.setenv("DPFC_LIMIT_JSON_BYTES", "4")
    with pytest.raises(LimitError, match=r"x.json has 5 bytes; the limit json_bytes is 4 .*"):
        read_regular(path, limit="json_bytes")
    monkeypatch.setenv("DPFC_LIMIT_JSON_BYTES", "5")
    assert read_regular(path, limit="json_bytes") == b"12345"


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_raised_by_its_own_variable(name, monkeypatch):
    limit = limit_of(name)
    check_limit(name, limit, "it is at it")
    with pytest.raises(LimitError, match=variable_of(name)):
        check_limit(name, limit + 1, "it is above it")
    monkeypatch.setenv(variable_of(name), f"{limit + 1}")
    check_limit(name, limit + 1, "it is above what it was")


@pytest.mark.parametrize("text", ["-1", "1e9", "many", "9" * 5000])
def test_a_limit_that_is_no_number_is_refused(text, monkeypatch):
    monkeypatch.setenv("DPFC_LIMIT_SHARDS", text)
    with pytest.raises(LimitError, match="DPFC_LIMIT_SHARDS must be a whole number"):
        check_limit("shards", 1, "one")


def test_a_number_too_long_to_print_is_still_refused_in_words():
    with pytest.raises(LimitError, match="limit shards"):
        check_limit("shards", 10**5000, "too many")


# Every way in which a command gets the name of a file, with links to a pipe and a device there.
_COMMANDS = """
import json, os, sys
from pathlib import Path
from dpfc.experiments.cli.app import main
root, features = Path(sys.argv[1]), sys.argv[2]
kinds = {"to_pipe": "pipe.x", "device": "/dev/zero"}
def planted(name, kind):
    path = root / name
    if path.is_symlink() or path.exists():
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "to_pipe":
        if not (root / "pipe.x").exists():
            os.mkfifo(root / "pipe.x")
        path.symlink_to(root / "pipe.x")
    else:
        path.symlink_to(kinds[kind])
    return str(path)
cache = root / "cache"
for kind in kinds:
    cache.mkdir(exist_ok=True)
    runs = [
        ["extract", "--data", planted("d.csv", kind), "--out", str(root / "o")],
        ["extract", "--data", planted("d.parquet", kind), "--out", str(root / "o")],
        ["extract", "--data", planted("d.tar", kind), "--out", str(root / "o")],
        ["features", "import", planted("d.npy", kind), "--out", str(root / "o")],
        ["features", "import", planted("d.npz", kind), "--out", str(root / "o")],
        ["features", "import", planted("d.jsonl", kind), "--out", str(root / "o")],
        ["sweep", planted("s.yaml", kind)],
        ["results", planted("s.yaml", kind)],
        ["report", "sweep", planted("s.yaml", kind)],
        ["report", "privacy", planted("m.safetensors", kind)],
        ["budget", "show", planted("l.db", kind)],
        ["budget", "create", planted("l.db", kind), "--dataset", "d", "--epsilon", "1",
         "--delta", "1e-6"],
        ["predict", "--features", features, "--model", planted("m.safetensors", kind),
         "--out", str(root / "p.csv")],
    ]
    planted("cache/manifest.json", kind)
    runs += [["features", "info", str(cache)], ["features", "verify", str(cache)]]
    out = planted("out.safetensors", kind)
    runs += [
        ["fit", "--features", features, "--epsilon", "1", "--classes", "0,1,2", "--out", out,
         "--force"],
        ["train", "--features", features, "--epsilon", "1", "--classes", "0,1,2", "--out", out,
         "--force"],
        ["search", "--features", features, "--epsilon", "1", "--classes", "0,1,2", "--out", out,
         "--try", "t=1", "--force"],
        ["report", "privacy", features + "/manifest.json", "--out", out, "--force"],
        ["features", "export", features, "--out", planted("out.npz", kind), "--force"],
        ["predict", "--features", features, "--model", "m", "--out", planted("out.csv", kind),
         "--force"],
    ]
    for arguments in runs:
        print(json.dumps([kind, arguments[:2], main(arguments)]), flush=True)
    assert os.readlink(root / "out.csv") if kind != "pipe" else True
"""


@pytest.mark.slow
def test_no_command_hangs_on_or_replaces_what_is_no_file(tmp_path, small_cache):
    run = subprocess.run(
        [sys.executable, "-c", _COMMANDS, str(tmp_path), str(small_cache)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    print(run.stdout, run.stderr)
    assert run.returncode == 0
    results = run.stdout.splitlines()
    codes = [line.rpartition(",")[2].strip(" ]") for line in results if line.startswith('["')]
    assert len(codes) == 2 * 21
    assert set(codes) == {"1"}
    assert "internal error" not in run.stderr
    assert "does not exist" not in run.stderr
    # `features verify` prints its findings as results.
    found = run.stderr.splitlines() + [line for line in results if not line.startswith('["')]
    assert len(found) == 2 * 21
    assert all("and only regular files are read or replaced" in line for line in found)


@pytest.fixture
def small_cache(tmp_path):
    import numpy as np

    from dpfc.features import CacheDescription, FeatureCacheWriter

    about = CacheDescription(4, dtype="float32", class_names=("0", "1", "2"))
    with FeatureCacheWriter(tmp_path / "features", about) as writer:
        writer.write(np.eye(3, 4, dtype=np.float32), [0, 1, 2])
        writer.finish()
    return tmp_path / "features"


def test_planted_links_under_temporary_names_are_not_followed(tmp_path, small_cache):
    import numpy as np

    from dpfc.features import CacheDescription, FeatureCacheWriter

    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    for name in (".manifest.json.tmp", ".part-00000.parquet.tmp", "part-00001.parquet"):
        (small_cache / name).symlink_to(target)
    about = CacheDescription(4, dtype="float32", class_names=("0", "1", "2"), shard_rows=2)
    with FeatureCacheWriter(small_cache, about, overwrite=True) as writer:
        writer.write(np.eye(3, 4, dtype=np.float32), [0, 1, 2])
        writer.finish()
    assert target.read_bytes() == b"precious"
    left = sorted(p.name for p in small_cache.iterdir())
    assert left == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]


def test_a_full_disk_is_told_with_the_name_of_the_file_that_was_not_written(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as error, open_whole(tmp_path / "table.csv"):
        raise full
    assert error.value.filename == str(tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_as_a_file_comes_to_be_leaves_nothing(tmp_path, monkeypatch):
    create = os.open

    def interrupted(*arguments):
        os.close(create(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr("dpfc._support.files.os.open", interrupted)
    with pytest.raises(KeyboardInterrupt), open_whole(tmp_path / "model"):
        pytest.fail("there is no file to write to")
    assert list(tmp_path.iterdir()) == []
