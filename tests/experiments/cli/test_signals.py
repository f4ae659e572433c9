"""Ctrl-C, SIGTERM and SIGHUP end a command with its code, and leave nothing lying about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# Command lines that would run for long, and what tells that they are at work.
COMMANDS = {
    "fit": ("fit --features {cache} --method gd --set n_steps=1000000 --epsilon 1", ".m.*.part"),
    "train": ("train --features {cache} --network linear --steps 1000000 --epsilon 1", ".m.*.part"),
    "search": (
        "search --features {cache} --method gd --try n_steps=900000,1000000 --epsilon 1",
        ".m.*.part",
    ),
    "extract": ("extract --data {table} --backbone pixels --image-size 256", "m"),
}
FAST = [("fit", signal.SIGHUP), ("extract", signal.SIGINT)]
ALL = [(name, number) for name in COMMANDS for number in CODES]


@pytest.fixture(scope="module")
def cache(write_cache, tmp_path_factory):
    path = tmp_path_factory.mktemp("signals") / "cache"
    write_cache(path)
    return path


def end_by(number, name, cache, folder):
    """Start a command, wait until it is at work, and send it a signal."""
    words, sign = COMMANDS[name]
    line = words.format(cache=cache, table="mnist5k:train")
    command = [Path(sys.executable).with_name("dpfc"), *line.split(), "--out", folder / "m"]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=folder
    )
    deadline = time.monotonic() + 120
    while not list(folder.glob(sign)) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    running.send_signal(number)
    _, errors = running.communicate(timeout=120)
    return running, errors


def check_ended(number, name, cache, folder):
    running, errors = end_by(number, name, cache, folder)
    assert running.returncode == CODES[number], errors
    word = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert f"Error: {word}." in errors and "Traceback" not in errors
    assert list(folder.rglob(".*")) == []
    with pytest.raises(ProcessLookupError):  # no worker either
        os.killpg(running.pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), FAST)
def test_a_signal_ends_a_command_with_its_code_and_leaves_nothing(name, number, cache, tmp_path):
    check_ended(number, name, cache, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [pair for pair in ALL if pair not in FAST])
def test_every_signal_ends_every_command_with_its_code(name, number, cache, tmp_path):
    check_ended(number, name, cache, tmp_path)


def test_what_is_ignored_stays_ignored(cache, tmp_path):
    """As under nohup."""
    line = f"fit --features {cache} --epsilon inf --out {tmp_path / 'm'}"
    program = (
        "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "from dpfc.experiments.cli.app import main; import dpfc.linear.base as base;"
        "reserve = base.reserve_room;"
        "base.reserve_room = lambda n: (reserve(n), os.kill(os.getpid(), signal.SIGHUP));"
        f"sys.exit(main({line.split()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0 and (tmp_path / "m").exists(), done.stderr
