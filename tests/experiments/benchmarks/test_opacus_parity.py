"""`DPSGDClassifier` takes Opacus' steps: the same weights from the same batches and noise."""

from __future__ import annotations

import pytest
import torch

from dpfc.experiments.benchmarks.opacus_parity import compare, main, make_setup
from dpfc.full_models import CLIPPINGS

EMPTY = (3, 20, 21, 49)

# Rows need no gradient of their own, and Opacus' hooks know what to do then.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return torch.from_numpy(X[:500] / 16.0).float(), torch.from_numpy(y[:500])


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_fifty_steps_of_an_mlp_are_opacus_steps(clipping):
    setup = make_setup("mlp", *digits(), steps=50, sampling_probability=0.05, empty=EMPTY)
    assert sum(not draw.any() for draw in setup.draws) == len(EMPTY)
    assert compare(setup, clipping).difference <= 1e-6
    assert moved(setup, clipping) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_fifty_steps_of_a_convolutional_network_are_opacus_steps(clipping):
    generator = torch.Generator().manual_seed(0)
    X = torch.rand((200, 1, 28, 28), generator=generator)
    y = torch.randint(10, (200,), generator=generator)
    setup = make_setup("cnn", X, y, steps=50, sampling_probability=0.05, empty=EMPTY)
    assert compare(setup, clipping).difference <= 1e-6
    assert moved(setup, clipping) > 1e-3


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_stated_number_of_rows_sets_the_expected_batch_size_of_both(clipping):
    setup = make_setup(
        "mlp", *digits(), steps=50, sampling_probability=0.05, n_samples=700, empty=EMPTY
    )
    assert setup.expected_batch_size == pytest.approx(35.0)  # and not 25, of the true number
    assert compare(setup, clipping).difference <= 1e-6


def test_another_rate_would_be_noticed():
    from dataclasses import replace

    from dpfc.experiments.benchmarks import opacus_parity

    setup = make_setup("mlp", *digits(), steps=10, sampling_probability=0.05)
    ours = opacus_parity._Ours(setup, "hooks")
    other = replace(setup, n_samples=setup.n_samples + 5)
    theirs = opacus_parity._Opacus(other, "hooks", ours.noise_scale)
    ours.run(range(10))
    theirs.run(range(10))
    pairs = zip(ours.network.parameters(), theirs.network.parameters(), strict=True)
    assert max(float((a - b).detach().abs().max()) for a, b in pairs) > 1e-5


def test_the_command_prints_a_table(capsys):
    assert main(["--networks", "mlp", "--steps", "2", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "| mlp | ghost / fast gradient clipping |" in out
    assert main(["--networks", "vit-tiny"]) != 0


def moved(setup, clipping):
    """How far training took a weight, so that equal weights are not untrained ones."""
    from dpfc.experiments.benchmarks import opacus_parity

    ours = opacus_parity._Ours(setup, clipping)
    start = [p.detach().clone() for p in ours.network.parameters()]
    ours.run(range(len(setup.draws)))
    pairs = zip(ours.network.parameters(), start, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)
