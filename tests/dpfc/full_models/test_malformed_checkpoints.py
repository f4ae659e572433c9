"""A checkpoint whose parts are not what a fit leaves is refused, by the part's name."""

from __future__ import annotations

import copy
import hashlib
import io
import json

import pytest
import torch

from dpfc import DPSGDClassifier
from dpfc.full_models import CheckpointError
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism

OPTIMIZERS = [
    {"optimizer": "sgd"},
    {"optimizer": "adam", "mechanic": True, "ema_decay": 0.9},
    {"optimizer": "schedule-free-adamw"},
    {"optimizer": "schedule-free-sgd"},
    {"optimizer": "o2nc"},
]


class Stop(Exception):
    """In place of a kill."""


def classifier(folder, **options):
    defaults = {"epsilon": 4.0, "classes": range(3), "n_steps": 4, "sampling_probability": 0.5}
    checkpoint = {"checkpoint": folder / "checkpoint", "checkpoint_every": 1}
    return DPSGDClassifier("linear", **defaults | checkpoint | options)


def stopped(folder, rows, monkeypatch, **options):
    """The content of a checkpoint after two steps."""
    step = GradientMechanism.release_gradient

    def stopping(self):
        if self.steps >= 2:
            raise Stop
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GradientMechanism, "release_gradient", stopping)
        with pytest.raises(Stop):
            classifier(folder, **options).fit(*rows)
    data = (folder / "checkpoint").read_bytes().partition(b"\n")[2]
    return torch.load(io.BytesIO(data), weights_only=True)


def write(folder, content):
    """With the checksum that belongs to it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    path = folder / "checkpoint"
    path.write_bytes(b"dpfc-checkpoint-3 " + digest + b"\n" + buffer.getvalue())


def replaced(content, place, value):
    content = copy.deepcopy(content)
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return content


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda options: options["optimizer"])
def test_strange_states_are_refused_and_the_one_that_was_left_goes_on(
    rows, tmp_path, monkeypatch, options
):
    content = stopped(tmp_path, rows, monkeypatch, **options)
    # Strange tensors in the place of what an optimizer keeps of the first weights.
    for part in content["rule"]["optimizer"]["state"][0]:
        place = ("rule", "optimizer", "state", 0, part)
        write(tmp_path, replaced(content, place, torch.zeros(2, 2, dtype=torch.int64)))
        with pytest.raises(CheckpointError, match=rf"state\.0\.{part} must be"):
            classifier(tmp_path, **options).fit(*rows)
    write(tmp_path, content)
    model = classifier(tmp_path, **options).fit(*rows)
    assert [release.count for release in model.privacy_.releases] == [1, 4]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("rows", "salt"), False, "rows.salt must be 16 bytes"),
        (("rows",), True, "rows.salt must be"),
        (("token",), {}, "token must be 32 digits"),
        (("statement",), "{}", "statement is none of dpfc"),
        (("statement",), 3, "statement is none of dpfc"),
        (("mechanism", "n_samples"), {}, "n_samples"),
        (("mechanism", "n_samples"), -5, "n_samples"),
        (("mechanism", "records"), {}, "records"),
        (("mechanism", "records", 0, "count"), 10**400, "one of its records"),
        (("mechanism", "records", 0, "name"), "gradient", "names a release twice"),
        (("module", "1.bias"), -1, r"module\.1\.bias must be a torch.float32 tensor of \(3,\)"),
        (("rule",), torch.tensor(float("nan")), "."),
        (("rule", "gradient_norms"), [1.0], "one number a step"),
        (("rule", "optimizer", "param_groups", 0, "dampening"), [], "dampening must be"),
        (("rule", "optimizer", "param_groups", 0, "nesterov"), 1, "nesterov must be of the type"),
    ],
)
def test_a_strange_part_is_named(rows, tmp_path, monkeypatch, place, value, said):
    content = stopped(tmp_path, rows, monkeypatch, optimizer="sgd")
    write(tmp_path, replaced(content, place, value))
    with pytest.raises(CheckpointError, match=said):
        classifier(tmp_path, optimizer="sgd").fit(*rows)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_checkpoint_that_is_cut_is_refused(rows, tmp_path, monkeypatch, share):
    stopped(tmp_path, rows, monkeypatch)
    data = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"no checkpoint of dpfc|changed or cut short"):
        classifier(tmp_path).fit(*rows)


def test_a_state_of_the_noise_that_is_none_is_refused(rows, tmp_path, monkeypatch, recwarn):
    content = stopped(tmp_path, rows, monkeypatch, random_state=1)
    for state in ("", "{}", json.dumps({**json.loads(content["noise"]), "state": -1}), "[" * 9999):
        write(tmp_path, {**content, "noise": state})
        with pytest.raises(CheckpointError):
            classifier(tmp_path, random_state=1).fit(*rows)
