"""`dpfc train`: whole networks from a cache, gone on with after a stop, refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from dpfc import DPSGDClassifier, full_models, load_model
from dpfc.accounting import PrivacyLedger
from dpfc.experiments.cli import train as cli_train
from dpfc.experiments.cli.app import main
from dpfc.experiments.estimators import _TRAIN_OPTIONS, _UNSETTABLE
from dpfc.features import CacheDescription, FeatureCache, FeatureCacheWriter

FAST = ("--steps", 3, "--sampling-probability", 0.2, "--network", "linear")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Threads that wait for each other make tiny networks slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(write_cache, tmp_path_factory):
    """A cache of square images in three colours."""
    path = tmp_path_factory.mktemp("images") / "cache"
    write_cache(path, width=3 * 8 * 8)
    return path


@pytest.fixture(scope="module")
def trained(write_cache, tmp_path_factory):
    """A network that was trained without noise."""
    folder = tmp_path_factory.mktemp("trained")
    write_cache(folder / "cache")
    command = ["train", "--features", folder / "cache", "--out", folder / "model"]
    options = ["--epsilon", "inf", "--steps", 30, "--sampling-probability", 1]
    assert main([str(word) for word in [*command, *options]]) == 0
    return folder / "model"


def states(path):
    return load_model(path).module_.state_dict()


def assert_same_weights(first, second):
    first, second = states(first), states(second)
    assert first.keys() == second.keys()
    assert all(bool((first[name] == second[name]).all()) for name in first)


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (cli_train.NetworkName, full_models.NETWORKS),
        (cli_train.OptimizerName, full_models.OPTIMIZERS),
        (cli_train.ScheduleName, full_models.SCHEDULES),
        (cli_train.ClippingName, full_models.CLIPPINGS),
        (cli_train.AugmentationName, tuple(full_models.AUGMENTATIONS)),
    ],
)
def test_help_lists_the_librarys_names(dpfc, names, listed):
    assert get_args(names) == tuple(listed)
    words = " ".join(dpfc("train", "--help").out.split()).replace("- ", "-")
    assert all(name in words for name in listed)


def test_every_parameter_has_an_option_or_goes_through_set(dpfc):
    own = set(DPSGDClassifier().get_params()) - set(_TRAIN_OPTIONS) - _UNSETTABLE
    assert own == {
        "momentum", "weight_decay", "warmup_steps", "trainable", "checkpoint_every", "input_bound",
    }  # fmt: skip
    words = " ".join(dpfc("train", "--help").out.split())
    assert all(name in words for name in own)
    options = set(_TRAIN_OPTIONS.values()) - {"--public-features"}
    assert all(f"  {option} " in dpfc("train", "--help").out for option in options)


# -- what it makes -------------------------------------------------------------------


def test_a_model_is_written_with_its_statement(dpfc, cache_path, tmp_path, strict_json):
    train = ("train", "--features", cache_path, "--epsilon", 4, *FAST, "--out", tmp_path / "model")
    done = dpfc(*train)
    assert done.code == 0 and done.err == ""
    model = load_model(tmp_path / "model")
    assert model.privacy_.to_text() in done.out and "DPSGDClassifier, linear" in done.out
    assert model.privacy_.private and model.privacy_.releases[-1].count == 3
    report = strict_json(dpfc(*train, "--force", "--json").out)
    assert report["network"] == "linear" and report["n_features"] == 6
    assert report["classes"] == ["ant", "bee", "cow"] and report["privacy"]["private"] is True
    assert "seconds" not in report and "rows" not in report  # both tell of the rows


def test_options_reach_the_classifier(dpfc, images, tmp_path):
    given = {
        "model": "cnn", "delta": 1e-6, "steps": 2, "sampling-probability": 0.3,
        "l2-clip-norm": 0.5, "clipping": "functorch", "optimizer": "adam", "learning-rate": 0.01,
        "schedule": "linear", "augmentation": "crop-flip", "augmentation-multiplicity": 2,
        "ema-decay": 0.9, "physical-batch-size": 16, "n-samples": 90, "accountant": "rdp",
        "neighboring-relation": "add_or_remove_one",
    }  # fmt: skip
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    rest = {"momentum": 0.5, "weight_decay": 0.1, "warmup_steps": 1, "trainable": "head"}
    for name, value in rest.items():
        flags += ["--set", f"{name}={value}"]
    train = ("train", "--features", images, "--epsilon", 8, "--out", tmp_path / "model")
    done = dpfc(*train, *flags, "--mechanic")
    assert done.code == 0, done.err
    parameters = load_model(tmp_path / "model").get_params()
    names = {"model": "module", "steps": "n_steps"}
    for name, value in given.items():
        assert parameters[names.get(name, name.replace("-", "_"))] == value
    assert all(parameters[name] == value for name, value in rest.items())
    assert parameters["mechanic"] is True and parameters["verbose"] is False


def test_schedule_free_optimizers_work_by_name(dpfc, cache_path, tmp_path):
    train = ("train", "--features", cache_path, "--epsilon", 8, *FAST, "--out", tmp_path / "model")
    assert dpfc(*train, "--optimizer", "schedule-free-adamw").code == 0


def test_other_commands_take_the_model(dpfc, trained, cache_path, tmp_path, strict_json):
    use = ("--model", trained, "--features", cache_path)
    report = strict_json(dpfc("evaluate", *use, "--json").out)
    assert report["accuracy"] == 1.0 and report["rows"] == 90
    private = strict_json(dpfc("evaluate", *use, "--epsilon", 20, "--json").out)
    assert private["accuracy"] > 0.8 and private["privacy"]["private"] is True
    assert private["privacy"]["estimator"] == "evaluate_privately(DPSGDClassifier)"
    lines = dpfc("predict", *use, "--proba", "--out", "-").out.splitlines()
    assert lines[0] == "id,predicted_class,probability_ant,probability_bee,probability_cow"
    expected = load_model(trained).predict(FeatureCache.open(cache_path))
    assert [line.split(",")[1] for line in lines[1:]] == expected.tolist()
    assert "Estimator: DPSGDClassifier" in dpfc("report", "privacy", trained).out


def test_a_schedule_is_refined_after_an_earlier_model(dpfc, trained, cache_path, tmp_path):
    train = ("train", "--features", cache_path, "--epsilon", 8, *FAST, "--out", tmp_path / "model")
    done = dpfc(*train, "--schedule", "refined", "--schedule-norms", trained)
    assert done.code == 0, done.err
    model = load_model(tmp_path / "model")
    assert model.schedule_norms == load_model(trained).gradient_norms_


# -- stopped, and gone on with -------------------------------------------------------

LONG = (*FAST[2:], "--steps", 200, "--set", "checkpoint_every=2")


def stopped(command, checkpoint, how):
    """Start a command and send it a signal once its first checkpoint is there."""
    running = subprocess.Popen(
        [str(word) for word in (Path(sys.executable).with_name("dpfc"), *command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    running.send_signal(how)
    _, errors = running.communicate(timeout=60)
    return running.returncode, errors


@pytest.mark.slow
def test_a_killed_run_goes_on_to_what_it_would_have_been(dpfc, cache_path, tmp_path):
    train = ("train", "--features", cache_path, "--epsilon", 8, *LONG, "--seed", 5)
    command = (*train, "--out", tmp_path / "model", "--checkpoint", tmp_path / "kept")
    code, _ = stopped(command, tmp_path / "kept", signal.SIGKILL)
    assert code == -signal.SIGKILL and not (tmp_path / "model").exists()
    assert dpfc(*command).code == 0 and not (tmp_path / "kept").exists()
    assert dpfc(*train, "--out", tmp_path / "whole").code == 0
    assert_same_weights(tmp_path / "model", tmp_path / "whole")
    cache = FeatureCache.open(cache_path)
    first, second = (load_model(tmp_path / name).predict(cache) for name in ("model", "whole"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_budget_is_spent_once(dpfc, cache_path, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("rows", epsilon=9.0, delta=1e-4, filter="renyi")
    train = ("train", "--features", cache_path, "--epsilon", 4, *LONG, "--out", tmp_path / "model")
    spend = ("--ledger", tmp_path / "ledger.db", "--dataset", "rows")
    command = (*train, *spend, "--checkpoint", tmp_path / "kept")
    code, errors = stopped(command, tmp_path / "kept", signal.SIGINT)
    assert code == 130
    assert errors.splitlines() == [
        f"The same command goes on from {tmp_path / 'kept'}.",
        "Error: interrupted.",
    ]
    # A checkpoint is another command's; it is refused, and kept.
    refused = dpfc(*command, "--l2-clip-norm", 2)
    assert refused.code == 1 and "another module, parameters or data" in refused.err
    assert dpfc(*command).code == 0 and load_model(tmp_path / "model").privacy_.private
    (spent,) = ledger.history("rows")
    assert spent.statement is not None


def test_a_ledger_pays_and_refuses(dpfc, cache_path, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("rows", epsilon=3.0, delta=1e-5, filter="renyi")
    ledger.create_budget("gaussian", epsilon=3.0, delta=1e-5)
    train = ("train", "--features", cache_path, *FAST, "--ledger", tmp_path / "ledger.db")
    pay = (*train, "--dataset", "rows", "--epsilon")
    assert dpfc(*pay, 1, "--out", tmp_path / "model").code == 0
    assert load_model(tmp_path / "model").privacy_.dataset == "rows"
    assert 0.1 < ledger.remaining("rows").spent_share < 1.0
    refused = dpfc(*pay, 3, "--out", tmp_path / "more")
    assert refused.code == 1 and len(refused.err.splitlines()) == 1
    other = ("--dataset", "gaussian", "--another-budget")
    wrong = dpfc(*train, *other, "--epsilon", 1, "--out", tmp_path / "more")
    assert wrong.code == 1 and "renyi" in wrong.err and len(wrong.err.splitlines()) == 1
    assert not (tmp_path / "more").exists() and len(ledger.history("rows")) == 1


def test_a_cache_with_groups_is_trained_on_by_group(dpfc, tmp_path):
    description = CacheDescription(6, class_names=("a", "b", "c"), has_groups=True)
    y = np.arange(60) % 3
    with FeatureCacheWriter(tmp_path / "cache", description) as writer:
        writer.write(np.eye(6, dtype=np.float32)[y], y, groups=[f"p{n // 4}" for n in range(60)])
        writer.finish()
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "ward", epsilon=3.0, delta=1e-5, filter="renyi", unit_of_privacy="one patient"
    )
    train = ("train", "--features", tmp_path / "cache", *FAST, "--epsilon", 2)
    pay = ("--ledger", ledger.path, "--dataset", "ward", "--out", tmp_path / "model")
    done = dpfc(*train, *pay)
    assert done.code == 0, done.err
    assert "all rows of a patient are in one group" in " ".join(done.out.split())
    assert len(ledger.history("ward")) == 1


# -- refused -------------------------------------------------------------------------

TRAIN = "train --features {cache} --out {out} --steps 3 --network linear "
BAD = [
    (TRAIN, "Missing option '--epsilon'", 2),
    (TRAIN + "--epsilon 0", "epsilon must be", 1),
    (TRAIN + "--epsilon 1 --network resnet", "'resnet' is not one of 'linear'", 2),
    (TRAIN + "--epsilon 1 --optimizer adm", "'adm' is not one of 'sgd'", 2),
    (TRAIN + "--epsilon 1 --steps 0", "n_steps must be", 1),
    (TRAIN + "--epsilon 1 --sampling-probability 2", "--sampling-probability must be", 1),
    (TRAIN + "--epsilon 1 --l2-clip-norm 0", "--l2-clip-norm must be", 1),
    (TRAIN + "--epsilon 1 --l2-clip-norm inf", "--l2-clip-norm must be finite", 1),
    (TRAIN + "--epsilon 1 --learning-rate 0", "--learning-rate must be", 1),
    (TRAIN + "--epsilon 1 --ema-decay 1", "--ema-decay must be", 1),
    (TRAIN + "--epsilon 1 --augmentation flip", "rows of 6 features are none", 1),
    (TRAIN + "--epsilon 1 --augmentation-multiplicity 2", "needs an augmentation", 1),
    (TRAIN + "--epsilon 1 --network cnn", "6 is no square", 1),
    (
        TRAIN + "--epsilon 1 --optimizer schedule-free-adamw --mechanic",
        "mechanic tunes 'sgd', 'adam', 'adamw', not 'schedule-free-adamw'",
        1,
    ),
    (TRAIN + "--epsilon 1 --schedule refined", "needs --schedule-norms", 1),
    (TRAIN + "--epsilon 1 --schedule-norms {linear}", "takes a model of dpfc train", 1),
    (TRAIN + "--epsilon 1 --schedule-norms {none}", "cannot read a model", 1),
    (TRAIN + "--epsilon 1 --set n_steps=3", "use --steps", 1),
    (TRAIN + "--epsilon 1 --set module=cnn", "use --network", 1),
    (TRAIN + "--epsilon 1 --set momentun=0", "Did you mean 'momentum'?", 1),
    (TRAIN + "--epsilon 1 --set trainable=tail", "trainable", 1),
    (TRAIN + "--epsilon 1 --set trainable=7", "trainable must be", 1),
    (TRAIN + "--epsilon 1 --checkpoint {out}", "--checkpoint and --out are the same file", 1),
    (TRAIN + "--epsilon 1 --checkpoint {none}/c", "folder of --checkpoint", 1),
    (TRAIN + "--epsilon 1 --checkpoint {cache}", "is a folder: name a file in it", 1),
    (TRAIN + "--epsilon 1 --checkpoint {linear}", "is no checkpoint of dpfc", 1),
    (TRAIN + "--epsilon 1 --device cuda", "no CUDA GPU", 1),
    (TRAIN + "--epsilon 1 --accountant exact", "exact", 1),
    (TRAIN + "--epsilon 1 --dataset d", "ledger and dataset go together", 1),
    (TRAIN + "--epsilon 1 --classes ant,bee", "labels that are not in classes", 1),
    (TRAIN + "--epsilon 1 --seed -1", "random_state", 1),
    ("train --features {none} --out {out} --epsilon 1", "no feature cache at", 1),
    ("train --features {unlabelled} --out {out} --epsilon 1", "holds no labels", 1),
    ("train --features {cache} --out {linear} --epsilon 1", "exists: choose another name", 1),
    ("predict --model {network} --features {wide} --out {out}.csv", "expecting (6,)", 1),
    ("evaluate --model {network} --features {wide} --epsilon 1", "expecting (6,)", 1),
]


@pytest.fixture(scope="module")
def places(write_cache, fitted, trained, tmp_path_factory):
    """Paths that the bad command lines name."""
    root = tmp_path_factory.mktemp("places")
    write_cache(root / "cache")
    write_cache(root / "wide", width=9)
    write_cache(root / "unlabelled", labels=False)
    shutil.copy(fitted, root / "linear")
    shutil.copy(trained, root / "network")
    return {name: root / name for name in (*(path.name for path in root.iterdir()), "none")}


@pytest.mark.parametrize(("line", "words", "code"), BAD, ids=[line for line, _, _ in BAD])
def test_bad_input_is_one_clear_line_and_leaves_nothing(dpfc, places, tmp_path, line, words, code):
    root = places["cache"].parent
    before = {path: path.stat().st_size for path in root.rglob("*")}
    result = dpfc(*line.format(**places, out=tmp_path / "out").split())
    assert result.code == code
    assert result.err.startswith("Error: ") and len(result.err.splitlines()) == 1, result.err
    assert words in result.err and result.out == ""
    assert {path: path.stat().st_size for path in root.rglob("*")} == before
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_never_a_ledger(dpfc, cache_path, tmp_path):
    PrivacyLedger(tmp_path / "ledger.db").create_budget("rows", epsilon=1.0, delta=1e-5)
    train = ("train", "--features", cache_path, "--epsilon", 1, *FAST, "--out", tmp_path / "model")
    refused = dpfc(*train, "--checkpoint", tmp_path / "ledger.db")
    assert refused.code == 1 and "is a ledger or another database" in refused.err


def test_the_network_by_its_old_option_is_taken_with_a_warning(dpfc, cache_path, tmp_path):
    train = ("train", "--features", cache_path, "--steps", 2, "--epsilon", 8)
    old = dpfc(*train, "--out", tmp_path / "old", "--model", "linear")
    assert old.code == 0 and "Warning: --model is called --network now" in old.err
    assert load_model(tmp_path / "old").module == "linear"
    both = dpfc(*train, "--out", tmp_path / "b", "--model", "linear", "--network", "mlp")
    assert both.code == 1 and "give --network alone" in both.err


def test_weights_that_diverge_are_told_in_words(dpfc, cache_path, tmp_path):
    train = ("train", "--features", cache_path, "--out", tmp_path / "m", "--epsilon", "inf")
    result = dpfc(
        *train, "--optimizer", "sgd", "--learning-rate", "1e30", "--set", "weight_decay=1e8", *FAST
    )
    assert result.code == 1 and "the weights diverged" in result.err
    assert "internal error" not in result.err and not (tmp_path / "m").exists()


@pytest.mark.parametrize("steps", [10**7 + 1, 10**18])
def test_more_steps_than_the_limit_are_refused_at_once(dpfc, cache_path, tmp_path, steps):
    train = ("train", "--features", cache_path, "--epsilon", 8, "--out", tmp_path / "m")
    refused = dpfc(*train, "--steps", steps)
    assert refused.code == 1 and "must be an int in [1, 10000000]" in refused.err
