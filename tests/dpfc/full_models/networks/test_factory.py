"""Networks by name: shapes, weights from seeds, and gradients of single rows by Opacus."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch.nn import functional

from dpfc.full_models.networks.convolutional import StandardizedConv2d
from dpfc.full_models.networks.factory import NETWORKS, make_network
from dpfc.full_models.networks.vision_transformer import _patch_size

N_ROWS, N_CLASSES, VOCABULARY = 3, 10, 16
CASES = {
    **{name: (name, (64,), None) for name in NETWORKS},
    "cnn-28": ("cnn", (1, 28, 28), None),
    "dlr-channels": ("dlr", (12, 3), None),
    "dlr-tokens": ("dlr", (12,), VOCABULARY),
}


def _network(name, shape=(64,), vocabulary_size=None, seed=0):
    return make_network(
        name,
        input_shape=shape,
        n_classes=N_CLASSES,
        seed=seed,
        vocabulary_size=vocabulary_size,
    )


def _moved(network):
    """Move all weights: a last layer of zeros would hide gradients before it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def _rows(shape, vocabulary_size, n=N_ROWS):
    generator = torch.Generator().manual_seed(2)
    if vocabulary_size is not None:
        return torch.randint(vocabulary_size, (n, *shape), generator=generator)
    return torch.rand((n, *shape), generator=generator)


def _one_at_a_time(network, X, y):
    parts = list(network.parameters())
    each = [
        torch.autograd.grad(functional.cross_entropy(network(X[i : i + 1]), y[i : i + 1]), parts)
        for i in range(len(X))
    ]
    return [torch.stack(gradients) for gradients in zip(*each, strict=True)]


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A network, rows, labels, and the gradients of a loop over single rows."""
    name, shape, vocabulary_size = CASES[request.param]
    network = _moved(_network(name, shape, vocabulary_size))
    X, y = _rows(shape, vocabulary_size), torch.arange(N_ROWS)
    return network, X, y, _one_at_a_time(network, X, y)


def _backward(wrapped, X, loss):
    with warnings.catch_warnings():
        # The first layer's rows need no gradient; functorch reads tokens as a narrow dtype.
        warnings.simplefilter("ignore", UserWarning)
        loss(wrapped(X)).backward()


def _sum_of_losses(y):
    return lambda scores: functional.cross_entropy(scores, y, reduction="sum")


@pytest.mark.parametrize("functorch", [False, True], ids=["hooks", "functorch"])
def test_gradients_of_rows_are_those_of_a_loop_over_rows(case, functorch):
    network, X, y, expected = case
    wrapped = GradSampleModule(
        copy.deepcopy(network), loss_reduction="sum", force_functorch=functorch
    )
    _backward(wrapped, X, _sum_of_losses(y))
    for parameter, gradients in zip(wrapped.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad_sample, gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ghost", [True, False], ids=["ghost", "fast"])
def test_lengths_of_gradients_are_those_of_a_loop_over_rows(case, ghost):
    network, X, y, expected = case
    wrapped = GradSampleModuleFastGradientClipping(
        copy.deepcopy(network), loss_reduction="sum", use_ghost_clipping=ghost
    )
    _backward(wrapped, X, _sum_of_losses(y))
    lengths = torch.stack([g.flatten(1).norm(dim=1) for g in expected]).norm(dim=0)
    torch.testing.assert_close(wrapped.get_norm_sample(), lengths, rtol=1e-5, atol=0.0)


def test_parameters_are_real_there_are_no_buffers_and_rows_do_not_mix(case):
    network, X, _, expected = case
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert not list(network.buffers())
    assert all(bool(gradients.any()) for gradients in expected)  # each has a part in the scores
    with torch.no_grad():
        scores = network(X)
        assert scores.shape == (N_ROWS, N_CLASSES)
        alone = torch.cat([network(X[i : i + 1]) for i in range(N_ROWS)])
        torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)
        assert network(X[:0]).shape == (0, N_CLASSES)


def test_no_module_of_parameters_runs_twice_in_a_forward_pass(case):
    network, X, _, _ = case
    calls = {}
    handles = [
        module.register_forward_hook(lambda m, *_: calls.update({m: calls.get(m, 0) + 1}))
        for module in network.modules()
        if list(module.parameters(recurse=False))
    ]
    network(X)
    for handle in handles:
        handle.remove()
    assert len(calls) == len(handles) and set(calls.values()) == {1}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_repeats_the_weights_and_leaves_the_global_generator(name):
    state = torch.random.get_rng_state()
    first, again, other, fresh, fresher = (
        torch.cat([p.flatten() for p in _network(name, seed=seed).parameters()])
        for seed in (5, np.int64(5), 6, None, None)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(fresh, fresher)


def test_weights_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = _network("mlp")[1].weight
    torch.manual_seed(2)
    assert torch.equal(first, _network("mlp")[1].weight)


@pytest.mark.parametrize(
    ("name", "shape", "n_classes", "expected"),
    [
        ("cnn", (1, 28, 28), 10, 26_010),  # Papernot et al. 2021
        ("cnn", (784,), 10, 26_010),
        ("wrn-16-4", (3, 32, 32), 10, 2_753_402),  # De et al. 2022: 2.7M
        ("vit-tiny", (3, 224, 224), 1000, 5_717_416),  # Touvron et al. 2021: 5.7M
        ("vit-tiny", (3, 32, 32), 10, 5_362_762),
        ("linear", (3, 32, 32), 10, 30_730),
    ],
)
def test_numbers_of_parameters_are_those_of_the_papers(name, shape, n_classes, expected):
    network = make_network(name, input_shape=shape, n_classes=n_classes, seed=0)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_a_wide_resnet_has_what_a_paper_rounds_to_2_7_million():
    network = make_network("wrn-16-4", input_shape=(3, 32, 32), n_classes=10)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(2.7e6, rel=0.02)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (28, 4), (32, 4), (64, 8), (96, 8), (224, 16)])
def test_patches_grow_with_the_image(side, patch):
    assert _patch_size(side, side) == patch


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8), (1, 9, 13), (3, 19, 20), (2, 21, 90)])
def test_the_small_network_takes_images_of_all_sizes(shape):
    network = _network("cnn", shape)
    assert network(_rows(shape, None)).shape == (N_ROWS, N_CLASSES)
    assert sum(p.numel() for p in network.parameters()) < 100_000


def test_flat_rows_are_images_row_by_row():
    X = _rows((1, 8, 8), None)
    flat, whole = _network("cnn", (64,)), _network("cnn", (1, 8, 8))
    assert torch.equal(flat(X.flatten(1)), whole(X))


def _standardized(weight, gain):
    """Standardise filters as Qiao et al. write it, scaled by the fan-in as Brock et al."""
    mean = weight.mean(dim=(1, 2, 3), keepdim=True)
    variance = weight.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
    return gain.view(-1, 1, 1, 1) * (weight - mean) / (variance * weight[0].numel()).sqrt()


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_a_standardized_convolution_is_one_with_standardized_filters(kernel_size, stride):
    layer = _moved(StandardizedConv2d(4, 6, kernel_size, stride))
    X = torch.randn(2, 4, 7, 9)
    expected = functional.conv2d(
        X, _standardized(layer.weight, layer.gain), layer.bias, stride, kernel_size // 2
    )
    torch.testing.assert_close(layer(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_the_rule_of_a_standardized_convolution_holds_for_constant_and_tiny_filters(
    kernel_size, stride
):
    layer = _moved(StandardizedConv2d(4, 6, kernel_size, stride)).double()
    with torch.no_grad():
        layer.weight[0] = 0.3
        layer.weight[1] *= 1e-4
        layer.gain[2] = 0.0
    X = torch.randn(N_ROWS, 4, 7, 9, dtype=torch.float64)
    weights = torch.randn_like(layer(X))
    wrapped = GradSampleModule(copy.deepcopy(layer), loss_reduction="sum")
    _backward(wrapped, X, lambda outputs: (outputs * weights).sum())
    for i in range(N_ROWS):
        losses = (layer(X[i : i + 1]) * weights[i]).sum()
        expected = torch.autograd.grad(losses, list(layer.parameters()))
        for parameter, gradient in zip(wrapped.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad_sample[i], gradient)


def test_an_empty_batch_has_no_gradients():
    layer = GradSampleModule(StandardizedConv2d(4, 6, 3), loss_reduction="sum")
    _backward(layer, torch.zeros(0, 4, 7, 9), torch.sum)
    assert [len(p.grad_sample) for p in layer.parameters()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "wrn-16"}, "Did you mean 'wrn-16-4'"),
        ({"name": "CNN"}, "Did you mean 'cnn'"),
        ({"name": "zzzzzz"}, r"there is no network 'zzzzzz'\. Networks are 'linear'"),
        ({"name": None}, "there is no network None"),
        ({"name": "cnn", "input_shape": (65,)}, "65 is no square"),
        ({"name": "cnn", "input_shape": (49,)}, "at least 8 x 8 pixels, got 7 x 7"),
        ({"name": "wrn-16-4", "input_shape": (1, 2, 8, 8)}, "channels, height, width"),
        ({"name": "vit-tiny", "input_shape": (1, 29, 29)}, "square patches"),
        ({"name": "dlr", "input_shape": (3, 8, 8)}, r"\(length,\) or \(length, channels\)"),
        ({"name": "dlr", "input_shape": (8, 2), "vocabulary_size": 9}, r"input_shape=\(length,\)"),
        ({"name": "mlp", "vocabulary_size": 9}, "vocabulary_size is for 'dlr' alone"),
        ({"input_shape": ()}, "input_shape must be"),
        ({"input_shape": (0,)}, "input_shape must be"),
        ({"input_shape": 64}, "input_shape must be"),
        ({"n_classes": 1}, "n_classes must be"),
        ({"n_classes": True}, "n_classes must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 0.5}, "seed must be"),
    ],
)
def test_wrong_names_and_shapes_are_refused_with_what_is_right(arguments, message):
    arguments = {"name": "mlp", "input_shape": (64,), "n_classes": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        make_network(arguments.pop("name"), **arguments)
