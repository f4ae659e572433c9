"""A fit that is stopped goes on: by a kill, by Ctrl-C, with a ledger; and with no other file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch

import dpfc
from dpfc import DPSGDClassifier, PrivacyWarning
from dpfc.full_models import CheckpointError
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism

# A process that fits in small steps, and writes its weights at the end.
FIT = """
import json, sys, warnings, time
import numpy as np, torch
from dpfc import DPSGDClassifier
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism
folder, options = sys.argv[1], json.loads(sys.argv[2])
step = GradientMechanism.release_gradient
def slow(self):
    step(self)
    time.sleep(0.02)
GradientMechanism.release_gradient = slow
generator = np.random.default_rng(0)
X, y = generator.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
warnings.simplefilter("ignore")
model = DPSGDClassifier("mlp", epsilon=4.0, classes=range(3), sampling_probability=0.5,
    n_steps=60, checkpoint=f"{folder}/checkpoint", checkpoint_every=3, **options).fit(X, y)
model.save(f"{folder}/model")
"""


def start(folder, **options):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", FIT, str(folder), json.dumps(options)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(path, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def finish(folder, **options):
    running = start(folder, **options)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert not (folder / "checkpoint").exists()
    return dpfc.load_model(folder / "model")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"random_state": 5},
        {"random_state": 5, "optimizer": "adam", "mechanic": True, "ema_decay": 0.9},
        {"random_state": 5, "optimizer": "schedule-free-adamw"},
        {"random_state": 5, "optimizer": "o2nc"},
    ],
)
def test_killed_and_gone_on_a_seeded_fit_gives_the_same_weights(tmp_path, options):
    whole = finish(tmp_path / "whole", **options)
    folder = tmp_path / "killed"
    generator = np.random.default_rng(0)
    for _ in range(3):
        running = start(folder, **options)
        wait_for(folder / "checkpoint")
        time.sleep(generator.uniform(0.1, 0.5))
        running.kill()
        running.wait()
    gone_on = finish(folder, **options)
    assert torch.equal(weights(gone_on), weights(whole))
    assert gone_on.gradient_norms_ == whole.gradient_norms_
    assert gone_on.privacy_.releases == whole.privacy_.releases


@pytest.mark.slow
def test_ctrl_c_keeps_the_step_in_hand(tmp_path):
    running = start(tmp_path, random_state=1)
    wait_for(tmp_path / "checkpoint")
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert torch.equal(
        weights(finish(tmp_path, random_state=1)),
        weights(finish(tmp_path / "whole", random_state=1)),
    )


# -- in this process -----------------------------------------------------------------


class Stop(Exception):
    """In place of a kill."""


@pytest.fixture
def stopped(rows, tmp_path, monkeypatch):
    """A function that fits until a step at which it is stopped, and returns the file."""

    def stop(at=4, **options):
        step = GradientMechanism.release_gradient

        def stopping(self):
            if self.steps >= at:
                raise Stop
            step(self)

        monkeypatch.setattr(GradientMechanism, "release_gradient", stopping)
        with pytest.raises(Stop):
            classifier(tmp_path, **options).fit(*rows)
        monkeypatch.setattr(GradientMechanism, "release_gradient", step)
        return tmp_path / "checkpoint"

    return stop


def classifier(folder, module="linear", **options):
    defaults = {
        "epsilon": 4.0, "classes": range(3), "n_steps": 6, "sampling_probability": 0.5,
        "checkpoint": folder / "checkpoint", "checkpoint_every": 2,
    }  # fmt: skip
    return DPSGDClassifier(module, **defaults | options)


def content(path):
    return torch.load(io.BytesIO(path.read_bytes().partition(b"\n")[2]), weights_only=True)


def test_without_a_seed_no_state_of_the_noise_is_written_and_fresh_noise_goes_on(
    rows, tmp_path, stopped
):
    path = stopped()
    kept = content(path)
    assert kept["noise"] is None and kept["mechanism"]["records"][1]["count"] == 4
    data = path.read_bytes()
    models = []
    for _ in range(2):
        path.write_bytes(data)
        models.append(classifier(tmp_path).fit(*rows))
    assert not torch.equal(weights(models[0]), weights(models[1]))
    assert models[0].gradient_norms_[:4] == models[1].gradient_norms_[:4]
    for model in models:
        assert model.privacy_.private
        assert [r.count for r in model.privacy_.releases] == [1, 6]
        assert any("one line only" in words for words in model.privacy_.rests_on)


def test_with_a_seed_the_state_of_the_noise_is_kept_and_the_model_says_not_private(
    rows, tmp_path, stopped
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)
        assert content(stopped(random_state=3))["noise"] is not None
        model = classifier(tmp_path, random_state=3).fit(*rows)
    assert not model.privacy_.private


def test_a_ledger_pays_once_however_often_a_fit_goes_on(rows, tmp_path, stopped):
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=5, delta=1e-5, filter="renyi")
    options = {"ledger": ledger.path, "dataset": "d"}
    path = stopped(**options)
    data = path.read_bytes()
    assert len(ledger.history("d")) == 1
    model = classifier(tmp_path, **options).fit(*rows)
    (spend,) = ledger.history("d")
    assert spend.statement == model.privacy_
    # A copy of the file does not train a second model on the same spend.
    path.write_bytes(data)
    with pytest.raises(dpfc.LedgerError, match="is complete"):
        classifier(tmp_path, **options).fit(*rows)
    # A fit that was not paid for there is another fit.
    path.unlink()
    path = stopped()
    with pytest.raises(CheckpointError, match="another module"):
        classifier(tmp_path, **options).fit(*rows)


def test_a_checkpoint_of_something_else_is_refused(rows, tmp_path, stopped):
    path = stopped()
    X, y = rows
    for other in (
        {"module": "mlp"},
        {"module": torch.nn.Linear(5, 3)},
        {"epsilon": 3.0},
        {"learning_rate": 0.1},
        {"optimizer": "sgd"},
        {"random_state": 0},
        {"trainable": ["1.bias"]},
        {"n_steps": 7},
    ):
        with pytest.raises(CheckpointError, match="another module, parameters or data"):
            classifier(tmp_path, **other).fit(X, y)
    with pytest.raises(CheckpointError, match="another module"):
        classifier(tmp_path).fit(X[:, :4], y)
    assert path.exists()


@pytest.mark.slow
def test_a_file_that_was_changed_is_refused_byte_by_byte(rows, tmp_path, stopped):
    path = stopped()
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(data), 40):
        changed = bytearray(data)
        changed[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            classifier(tmp_path).fit(*rows)
    for part in (b"", data[:50], data[:-1], data + b"x", b"other words\n"):
        path.write_bytes(part)
        with pytest.raises(CheckpointError):
            classifier(tmp_path).fit(*rows)


def test_a_file_runs_no_code(rows, tmp_path):
    """Pickle would call what it holds; a right checksum does not help it."""
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    data = pickle.dumps(Evil(), protocol=2)
    path = tmp_path / "checkpoint"
    path.write_bytes(
        b"dpfc-checkpoint-3 " + hashlib.sha256(data).hexdigest().encode() + b"\n" + data
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        classifier(tmp_path).fit(*rows)
    assert not (tmp_path / "evil").exists()


def test_a_file_that_cannot_be_written_is_said_before_the_spend(rows, tmp_path):
    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=5, delta=1e-5, filter="renyi")
    (tmp_path / "file").write_text("")
    model = classifier(tmp_path / "file", ledger=ledger.path, dataset="d")
    with pytest.raises(CheckpointError, match="cannot write"):
        model.fit(*rows)
    assert ledger.history("d") == []
    assert list(tmp_path.glob(".*")) == []
