"""Memory of ghost clipping, the table of optimizers, and the wide ResNet's command."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from dpfc.experiments.benchmarks import ghost_memory, optimizers, wide_resnet
from dpfc.experiments.benchmarks.optimizers import METHODS, MULTIPLIERS, Job, Method


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_ghost_clipping_needs_less_than_two_fifths_of_the_memory_of_hooks():
    hooks, ghost = (ghost_memory.peak_memory(c, width=2048, batch=64) for c in ("hooks", "ghost"))
    gradients = 4 * 64 * 2048**2
    assert hooks > gradients  # a gradient a row is held at once
    assert ghost < gradients
    assert ghost <= 0.4 * hooks


def test_memory_is_measured_on_known_devices_only(capsys):
    assert ghost_memory.main(["--device", "tpu"]) != 0
    assert "--device takes cpu and cuda" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("label", ["sgd", "sgd, refined", "mechanic(adam)", "schedule-free-sgd"])
def test_a_job_of_the_table_learns_and_repeats(label):
    (method,) = (m for m in METHODS if m.label == label)
    job = Job("digits", "mlp", 20, 0.1, method, 1000.0, 1.0, 0)
    score = optimizers.run_job(job)
    assert 0.05 < score <= 1.0
    assert optimizers.run_job(job) == score


def test_two_runs_with_half_of_the_budget_are_within_the_whole():
    import dp_accounting

    from dpfc.accounting import calibrate_noise_multiplier, compute_epsilon

    half = optimizers._half(Job("digits", "mlp", 50, 0.1, Method("sgd", "sgd"), 8.0, 1.0, 0))
    noise_multiplier = calibrate_noise_multiplier(
        target_epsilon=half, target_delta=1e-5, steps=50, sampling_probability=0.1
    )
    step = dp_accounting.PoissonSampledDpEvent(0.1, dp_accounting.GaussianDpEvent(noise_multiplier))
    both = dp_accounting.SelfComposedDpEvent(step, 100)
    spent = compute_epsilon(both, 1e-5, neighboring_relation="add_or_remove_one")
    assert 0.99 * 8.0 < spent <= 8.001
    assert half > 4.0  # composition is better than adding up


def table_of(accuracies):
    return {
        (method.label, 1.0, rate): accuracies.get(method.label, 0.5)
        for method in METHODS
        for rate in MULTIPLIERS
    }


def test_what_is_as_good_as_the_best_is_said_to_be():
    lines = optimizers.judgements(table_of({}), 1.0)
    assert len(lines) == 5
    assert not any("NOT within" in line for line in lines)
    assert "at 7 of 7 rates within 1 point" in lines[0]


def test_what_is_behind_is_said_to_be():
    worse = {"mechanic(adam)": 0.45, "schedule-free-adamw": 0.48}
    lines = optimizers.judgements(table_of(worse), 1.0)
    assert ["behind" in line.lower() for line in lines] == [False, True, False, False, True]
    assert "Behind by 5.0: NOT within 1 point" in lines[1]
    assert "Behind by 2.0: NOT within 1 point" in lines[4]


def test_the_table_knows_its_data_sets(capsys):
    assert optimizers.main(["--data", "nothing"]) != 0
    assert "--data takes digits, mnist5k" in capsys.readouterr().err


def write_images(path, count):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    generator = np.random.default_rng(0)
    images = []
    for _ in range(count):
        buffer = io.BytesIO()
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    labels = [place % 10 for place in range(count)]
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return path


def test_pixels_are_read_in_order_and_scaled_to_plus_minus_one(tmp_path):
    X, y = wide_resnet.read_pixels(write_images(tmp_path / "train.parquet", 20), 12)
    assert X.shape == (12, 3, 32, 32)
    assert X.dtype == np.float32
    assert -1.0 <= X.min() < -0.9 and 0.9 < X.max() <= 1.0
    assert y.tolist() == [place % 10 for place in range(12)]


@pytest.mark.slow
def test_the_wide_resnet_trains_as_long_as_it_is_told(tmp_path, capsys):
    train, test = (str(write_images(tmp_path / f"{n}.parquet", 20)) for n in ("train", "test"))
    arguments = ["--train", train, "--test", test, "--device", "cpu", "--minutes", "0.01"]
    arguments += ["--rows", "20", "--batch", "2", "--copies", "2", "--epsilons", "8"]
    assert wide_resnet.main(arguments) == 0
    out = capsys.readouterr().out
    (planned,) = re.findall(r"(\d+) steps in 0.01 minutes", out)
    assert f"| 8 | {planned} |" in out
    assert "| 79.5 | 79.7 |" in out
