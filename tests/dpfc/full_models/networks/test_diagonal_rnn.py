"""Diagonal linear RNN: the convolution is the recurrence, and sees no later place."""

from __future__ import annotations

import pytest
import torch

from dpfc.full_models.networks.diagonal_rnn import DiagonalLinearRNN, DiagonalRNNClassifier

WIDTH, N_STATES = 5, 16


def _layer(dtype=torch.float64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiagonalLinearRNN(WIDTH, N_STATES).to(dtype)


def _sequences(length, dtype=torch.float64, n=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn((n, length, WIDTH), generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("length", [1, 2, 17, 64])
def test_the_convolution_equals_the_recurrence_in_float32(length):
    layer, X = _layer(torch.float32), _sequences(length, torch.float32)
    torch.testing.assert_close(layer(X), layer.recurrence(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 17, 64, 784])
def test_the_convolution_equals_the_recurrence_in_float64(length):
    layer, X = _layer(), _sequences(length)
    torch.testing.assert_close(layer(X), layer.recurrence(X), rtol=1e-9, atol=1e-9)


def test_long_sequences_in_float32_are_off_by_what_angles_round_off():
    X = _sequences(784)
    with torch.no_grad():
        expected = _layer()(X)
        error = (_layer(torch.float32)(X.float()) - expected).abs().max()
    assert float(error) < 1e-4 * float(expected.abs().max())


def test_the_recurrence_is_the_one_of_the_docstring():
    layer, X = _layer().requires_grad_(False), _sequences(6)
    expected = torch.zeros_like(X)
    for row in range(len(X)):
        for channel in range(WIDTH):
            states = [0j] * N_STATES
            for k in range(6):
                u = float(X[row, k, channel])
                total = float(layer.direct[channel]) * u
                for n in range(N_STATES):
                    exponent = complex(-layer.log_decay[n].exp(), layer.angle[n])
                    states[n] = complex(torch.tensor(exponent).exp()) * states[n] + u
                    weight = complex(layer.output_real[channel, n], layer.output_imag[channel, n])
                    total += (weight * states[n]).real
                expected[row, k, channel] = total
    torch.testing.assert_close(layer.recurrence(X), expected, rtol=1e-6, atol=1e-6)


def test_an_output_depends_on_no_later_input():
    layer, X = _layer(), _sequences(20)
    changed = X.clone()
    changed[:, 12:] += 100.0
    with torch.no_grad():
        moved = (layer(changed) - layer(X)).abs().amax(dim=(0, 2))
    assert float(moved[:12].max()) < 1e-11
    assert float(moved[12:].min()) > 1.0


def test_channels_do_not_mix_within_the_recurrence():
    layer, X = _layer(), _sequences(20)
    changed = X.clone()
    changed[:, :, 0] += 1.0
    with torch.no_grad():
        moved = (layer(changed) - layer(X)).abs().amax(dim=(0, 1))
    assert float(moved[0]) > 0.1 and float(moved[1:].max()) < 1e-12


def test_a_recurrence_never_grows_whatever_its_parameters():
    layer = _layer()
    with torch.no_grad():
        layer.log_decay.copy_(torch.linspace(-30.0, 30.0, N_STATES))
        layer.angle.copy_(torch.linspace(-50.0, 50.0, N_STATES))
        kernel = layer.kernel(500)
        bound = torch.complex(layer.output_real, layer.output_imag).abs().sum(dim=1)
    assert bool((kernel.abs() <= bound[:, None] + 1e-12).all())


def test_parameters_are_real_and_each_gets_the_right_gradient():
    layer, X = _layer(), _sequences(7, n=1)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    names = [name for name, _ in layer.named_parameters()]

    def run(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (X,))

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, values)


def test_places_and_channels_of_a_sequence_are_told_apart():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DiagonalRNNClassifier(1, 4)
        tokens = DiagonalRNNClassifier(1, 4, vocabulary_size=9)
    X = torch.rand(2, 12)
    assert torch.equal(network(X), network(X[:, :, None]))
    assert not torch.allclose(network(X), network(X.flip(1)), atol=1e-4)
    assert tokens(torch.arange(8).view(2, 4)).shape == (2, 4)
