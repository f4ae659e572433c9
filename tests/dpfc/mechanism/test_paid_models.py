"""What is paid for is not lost, and not paid for twice, whatever the disk or a kill does."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from functools import partial

import numpy as np
import pytest
import torch

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
    DPSGDClassifier,
    load_model,
)
from dpfc._support.files import ReservedFile, remove_stale
from dpfc.accounting import LedgerError, PrivacyLedger
from dpfc.exceptions import ModelFileError
from dpfc.full_models import CheckpointError
from dpfc.full_models.checkpoints import read_checkpoint
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism
from dpfc.full_models.saving import network_bytes
from dpfc.full_models.training import CheckpointPlan
from dpfc.linear.saving import model_bytes
from dpfc.mechanism import paid_models
from dpfc.mechanism.paid_models import PaidModel

N_STEPS = 6
LINEAR = [DPFCClassifier, DPLeastSquaresClassifier, DPGradientClassifier, DPNewtonClassifier]


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    return generator.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process waits for ever for OpenMP threads that only its parent has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ledger(tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("rows", epsilon=20.0, delta=1e-4, filter="renyi")
    return ledger


def network(ledger=None, **options):
    parameters = {"epsilon": 1.0, "classes": range(3), "n_steps": N_STEPS, "checkpoint_every": 4}
    if ledger is not None:
        parameters |= {"ledger": ledger.path, "dataset": "rows"}
    return DPSGDClassifier("linear", sampling_probability=0.5, **parameters, **options)


def estimators(**options):
    linear = [kind(epsilon=1.0, classes=range(3), **options) for kind in LINEAR]
    grid = {"logit_noise": [0.3, 0.7]}
    search = DPSearchCV(DPFCClassifier(classes=range(3)), grid, epsilon=1.0, verbose=False)
    network = DPSGDClassifier("linear", classes=range(3), n_steps=3, **options)
    return [*linear, search.set_params(**options), network]


def to_bytes(model):
    model = getattr(model, "best_estimator_", model)
    return network_bytes(model) if isinstance(model, DPSGDClassifier) else model_bytes(model)


def fitted_names(model):
    return [n for n in vars(model) if n.endswith("_") and not n.startswith("_")]


@pytest.fixture
def full_disk(monkeypatch):
    """Room that was taken is there; nothing more can be written under the given name."""

    def fill(name):
        write = ReservedFile.write

        def fail(self, content):
            if self.path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, content)

        monkeypatch.setattr(ReservedFile, "write", fail)

    return fill


# -- room ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", estimators(), ids=lambda model: type(model).__name__)
def test_the_room_that_is_taken_before_a_spend_is_enough_for_the_model(data, tmp_path, model):
    with PaidModel(tmp_path / "model", replace=False) as target:
        rooms = []
        target.reserve = rooms.append
        model.fit(*data)
        assert len(rooms) == 1 and len(to_bytes(model)) <= rooms[0] < 5_000_000


@pytest.mark.parametrize("index", range(6))
def test_without_room_for_the_model_nothing_is_spent(data, ledger, tmp_path, monkeypatch, index):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    model = estimators(ledger=ledger.path, dataset="rows")[index]
    with (
        PaidModel(tmp_path / "model", replace=False),
        pytest.raises(ModelFileError, match=r"no room .* Nothing was spent"),
    ):
        model.fit(*data)
    assert ledger.history("rows") == [] and fitted_names(model) == []
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


def test_the_room_is_held_until_the_model_is_in_it(tmp_path):
    with PaidModel(tmp_path / "model", replace=False) as target:
        target.reserve(100_000)
        (held,) = tmp_path.iterdir()
        assert held.stat().st_size == 100_000 and held.stat().st_blocks * 512 >= 100_000
        target.save(b"weights")
        assert (tmp_path / "model").read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# -- saving ----------------------------------------------------------------------------------


def test_a_model_that_cannot_get_its_name_is_saved_elsewhere_and_its_spend_completed(
    data, ledger, tmp_path, full_disk
):
    full_disk("model.safetensors")
    out = tmp_path / "model.safetensors"
    with PaidModel(out, replace=False) as target:
        model = network(ledger, checkpoint=tmp_path / "checkpoint").fit(*data)
        with pytest.raises(ModelFileError, match="It is not lost: it was saved as") as caught:
            target.save(network_bytes(model))
    (saved,) = tmp_path.glob("model-*.safetensors")
    assert str(saved) in str(caught.value)
    np.testing.assert_array_equal(load_model(saved).predict(data[0]), model.predict(data[0]))
    assert ledger.history("rows")[0].statement is not None and not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["ledger.db", saved.name])


def test_a_name_that_was_taken_meanwhile_is_not_replaced(tmp_path):
    with PaidModel(tmp_path / "model", replace=False) as target:
        target.reserve(10)
        (tmp_path / "model").write_bytes(b"another's")
        with pytest.raises(ModelFileError, match=r"File exists.*saved as"):
            target.save(b"mine")
    assert (tmp_path / "model").read_bytes() == b"another's"
    assert [path.read_bytes() for path in tmp_path.glob("model-*")] == [b"mine"]


def test_with_replace_the_name_is_taken_over(tmp_path):
    (tmp_path / "model").write_bytes(b"old")
    with PaidModel(tmp_path / "model", replace=True) as target:
        target.save(b"new")
    assert (tmp_path / "model").read_bytes() == b"new"


def test_the_charge_is_completed_only_once_the_model_is_on_disk(data, ledger, tmp_path):
    with PaidModel(tmp_path / "model", replace=False) as target:
        model = network(ledger, checkpoint=tmp_path / "checkpoint").fit(*data)
        assert ledger.history("rows")[0].statement is None
        assert (tmp_path / "checkpoint").exists()
        target.save(network_bytes(model))
    assert ledger.history("rows")[0].statement == model.privacy_
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("index", range(6))
def test_a_statement_that_cannot_be_filed_does_not_cost_the_model(data, ledger, monkeypatch, index):
    def full(*_):
        raise LedgerError("ledger cannot grow: the disk is full.")

    monkeypatch.setattr(PrivacyLedger, "attach_statement", full)
    model = estimators(ledger=ledger.path, dataset="rows")[index]
    with pytest.warns(UserWarning, match=r"could not be filed there: .* the disk is full"):
        model.fit(*data)
    assert len(model.predict(data[0])) == 60 and model.privacy_.target_epsilon == 1.0
    monkeypatch.undo()
    (spend,) = ledger.history("rows")
    ledger.attach_statement(spend.id, model.privacy_)  # as the warning says


def test_a_models_bytes_depend_on_the_model_alone(data):
    for model in estimators():
        model.fit(*data)
        assert len({to_bytes(model) for _ in range(5)}) == 1


# -- failures leave nothing --------------------------------------------------------------------


@pytest.mark.parametrize("error", [LedgerError("late"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("index", range(6))
def test_a_failed_fit_leaves_nothing_fitted(data, monkeypatch, index, error):
    model = estimators()[index].fit(*data)
    assert fitted_names(model)
    late = "dpfc.mechanism.private_run.PrivateRun.finish"
    monkeypatch.setattr(late, lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        model.fit(*data)
    assert fitted_names(model) == []


def test_a_second_resume_of_one_spend_is_refused_and_leaves_nothing(data, ledger, tmp_path):
    kept = stopped(data, ledger, tmp_path)
    copy = tmp_path / "copy"
    copy.write_bytes(kept.read_bytes())
    network(ledger, checkpoint=kept).fit(*data)
    model = network(ledger, checkpoint=copy)
    with pytest.raises(LedgerError, match="complete"):
        model.fit(*data)
    assert fitted_names(model) == []


def test_of_two_that_go_on_at_once_the_later_is_refused_and_leaves_nothing(
    data, ledger, tmp_path, monkeypatch
):
    kept = stopped(data, ledger, tmp_path)
    copy = tmp_path / "copy"
    copy.write_bytes(kept.read_bytes())
    add = CheckpointPlan.add_statement

    def meanwhile(self, statement):
        monkeypatch.setattr(CheckpointPlan, "add_statement", add)
        network(ledger, checkpoint=copy).fit(*data)
        add(self, statement)

    monkeypatch.setattr(CheckpointPlan, "add_statement", meanwhile)
    model = network(ledger, checkpoint=kept)
    with pytest.raises(LedgerError, match="another process went on"):
        model.fit(*data)
    assert fitted_names(model) == []


# -- checkpoints and kills -----------------------------------------------------------------------


def killed_at(point, call, number=signal.SIGKILL):
    """Run `call` in a forked process that kills itself when it comes to `point`."""
    child = os.fork()
    if child == 0:
        try:
            point(lambda: os.kill(os.getpid(), number))
            call()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(seconds, call):
    """Run `call` in a forked process; returns whether it was at work when it was killed."""
    child = os.fork()
    if child == 0:
        try:
            call()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def after(owner, name, times=1):
    """A point of `killed_at`: when a method has been called so often."""

    def arm(kill):
        method, calls = getattr(owner, name), []

        def wrapped(*args, **options):
            result = method(*args, **options)
            calls.append(1)
            if len(calls) == times:
                kill()
            return result

        setattr(owner, name, wrapped)

    return arm


def stopped(data, ledger, folder):
    """A checkpoint of a run that was killed after its first one with a step in it."""
    path = folder / "checkpoint"
    fit = network(ledger, checkpoint=path).fit
    assert killed_at(after(CheckpointPlan, "write"), lambda: fit(*data)) == -signal.SIGKILL
    return path


def save_in(folder, data, ledger):
    """What `dpfc train` does."""
    with PaidModel(folder / "model", replace=True) as target:
        model = network(ledger, checkpoint=folder / "checkpoint").fit(*data)
        target.save(network_bytes(model))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (CheckpointPlan, "begin"),
        (PrivacyLedger, "spend"),
        (CheckpointPlan, "write"),
        (CheckpointPlan, "add_statement"),
        (PaidModel, "_write"),
        (PrivacyLedger, "attach_statement"),
        (CheckpointPlan, "forget"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_kill_at_any_stage_is_paid_for_once_and_ends_with_a_model(
    data, ledger, tmp_path, owner, name
):
    assert killed_at(after(owner, name), lambda: save_in(tmp_path, data, ledger)) == -9
    assert len(ledger.history("rows")) == (name != "begin")
    if name == "forget":  # all was done
        return
    before = (tmp_path / "model").read_bytes() if (tmp_path / "model").exists() else None
    save_in(tmp_path, data, ledger)
    (spend,) = ledger.history("rows")
    assert spend.statement == load_model(tmp_path / "model").privacy_
    assert before in (None, (tmp_path / "model").read_bytes())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger.db", "model"]


@pytest.mark.slow
def test_thirty_kills_at_random_times_never_pay_twice(data, tmp_path):
    draw = np.random.default_rng(0)
    for _ in range(2):  # the first time loads what is loaded late
        begun = time.monotonic()
        save_in(tmp_path, data, None)
    whole, kills, runs = time.monotonic() - begun, 0, 0
    while kills < 30:
        runs += 1
        folder = tmp_path / f"run-{runs}"
        folder.mkdir()
        ledger = PrivacyLedger(folder / "ledger.db")
        ledger.create_budget("rows", epsilon=20.0, delta=1e-4, filter="renyi")
        for _ in range(3):
            kills += killed_after(draw.uniform(0, whole), partial(save_in, folder, data, ledger))
            if (folder / "model").exists():
                break
        save_in(folder, data, ledger)
        finished = [spend for spend in ledger.history("rows") if spend.statement is not None]
        # The last call went on, or was one more fit after one that had been completed.
        assert len(ledger.history("rows")) == len(finished) <= 2
        assert sorted(p.name for p in folder.iterdir()) == ["ledger.db", "model"]


def test_sigterm_keeps_the_step_in_hand_and_then_ends_the_process(data, ledger, tmp_path):
    path = tmp_path / "checkpoint"

    def call():
        network(ledger, checkpoint=path).fit(*data)

    ended = killed_at(after(GradientMechanism, "release_gradient", 2), call, signal.SIGTERM)
    assert ended == -signal.SIGTERM
    (spend,) = ledger.history("rows")
    model = network(ledger, checkpoint=path).fit(*data)
    assert [s.id for s in ledger.history("rows")] == [spend.id] and len(model.gradient_norms_) == 6


@pytest.mark.parametrize("changed", ["row", "label", "order"])
def test_a_checkpoint_is_refused_for_other_rows(data, ledger, tmp_path, changed):
    path = stopped(data, ledger, tmp_path)
    X, y = data[0].copy(), data[1].copy()
    if changed == "row":
        X[7, 3] = np.nextafter(X[7, 3], np.float32(9))
    elif changed == "label":
        y[5] = (y[5] + 1) % 3
    else:
        X = X[::-1].copy()
    with pytest.raises(CheckpointError, match="another module, parameters or data"):
        network(ledger, checkpoint=path).fit(X, y)
    assert len(ledger.history("rows")) == 1


def test_a_checkpoint_is_for_its_owner_only_and_its_fingerprint_goes_nowhere(
    data, ledger, tmp_path
):
    path = stopped(data, ledger, tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    rows, token = read_checkpoint(path)["rows"], read_checkpoint(path)["token"]
    model = network(ledger, checkpoint=path).fit(*data)
    published = network_bytes(model) + model.privacy_.to_json().encode() + pickle.dumps(model)
    for secret in (rows["digest"].encode(), rows["salt"], token.encode()):
        assert secret not in published
    assert rows["digest"].encode() not in ledger.path.read_bytes()


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_spend(
    data, ledger, tmp_path, full_disk
):
    full_disk("checkpoint")
    model = network(ledger, checkpoint=tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        model.fit(*data)
    assert ledger.history("rows") == [] and fitted_names(model) == []


def test_a_run_that_has_begun_does_not_pay_from_another_ledger(data, ledger, tmp_path):
    path = stopped(data, ledger, tmp_path)
    other = PrivacyLedger(tmp_path / "other.db")
    other.create_budget("rows", epsilon=20.0, delta=1e-4, filter="renyi")
    with pytest.raises(LedgerError, match="no spend of 'rows' that paid"):
        network(other, checkpoint=path).fit(*data)
    assert other.history("rows") == []


# -- temporary files -----------------------------------------------------------------------------


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path):
    path = tmp_path / "model"
    assert killed_at(after(ReservedFile, "__init__"), lambda: ReservedFile(path, 100)) == -9
    (left,) = tmp_path.iterdir()
    live = ReservedFile(path, 100)
    link = tmp_path / ".model.x.part"
    (tmp_path / "precious").write_bytes(b"mine")
    link.symlink_to(tmp_path / "precious")
    remove_stale(path)
    assert not left.exists() and (tmp_path / "precious").read_bytes() == b"mine"
    live.write(b"whole")
    live.publish(replace=False)
    assert path.read_bytes() == b"whole"


def test_without_a_paid_model_what_waits_is_done_at_once():
    done = []
    paid_models.once_saved(lambda: done.append(1))
    paid_models.reserve_room(10**18)
    assert done == [1]
