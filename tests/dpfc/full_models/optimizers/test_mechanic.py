"""Mechanic follows its authors' package, and makes the learning rate matter little."""

from __future__ import annotations

import mechanic_pytorch
import pytest
import torch

from dpfc.full_models.optimizers.factory import OptimizerSettings, make_optimizer
from dpfc.full_models.optimizers.mechanic import Mechanic

BASES = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
}


@pytest.fixture
def float64():
    # The package keeps its tuner in the default format.
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def quadratic_path(make, n_steps, centre=0.0):
    """Weights after every step on an ill-conditioned quadratic with noisy gradients."""
    generator = torch.Generator().manual_seed(3)
    curvature = torch.tensor([[1.0, 10.0, 0.1], [3.0, 0.3, 1.0]])
    parameters = [torch.nn.Parameter(torch.full((3,), centre + value)) for value in (1.0, -2.0)]
    optimizer = make(parameters)
    path = []
    for _ in range(n_steps):
        for parameter, curve in zip(parameters, curvature, strict=True):
            noise = 0.3 * torch.randn(3, generator=generator)
            parameter.grad = curve * (parameter.detach() - centre) + noise
        optimizer.step()
        path.append(torch.cat([p.detach() - centre for p in parameters]))
    return torch.stack(path)


def ours(base, rate, decay):
    kind, arguments = BASES[base]
    return lambda p: Mechanic(kind(p, lr=rate, **arguments), p, decay=decay)


def theirs(base, rate, decay):
    kind, arguments = BASES[base]
    tuned = mechanic_pytorch.mechanize(kind, s_decay=decay, store_delta=True)

    def make(parameters):
        optimizer = tuned(parameters, lr=rate, **arguments)
        step = optimizer.step

        def step_and_restore():
            with torch.no_grad():
                step()

        optimizer.step = step_and_restore
        return optimizer

    return make


@pytest.mark.parametrize("base", BASES)
def test_steps_equal_those_of_the_authors_package(float64, base):
    ours_path = quadratic_path(ours(base, 0.1, 0.0), 300)
    theirs_path = quadratic_path(theirs(base, 0.1, 0.0), 300)
    assert (ours_path[-1] - ours_path[0]).norm() > 0.5
    torch.testing.assert_close(ours_path, theirs_path, rtol=1e-9, atol=1e-12)


def test_decay_equals_the_package_where_updates_are_small(float64):
    """The package pulls towards x + u, the paper's Algorithm 1 towards x: here x is long."""
    path = quadratic_path(ours("sgd", 0.1, 0.01), 100, centre=1e6)
    package = quadratic_path(theirs("sgd", 0.1, 0.01), 100, centre=1e6)
    without = quadratic_path(ours("sgd", 0.1, 0.0), 100, centre=1e6)
    assert (path - package).abs().max() < 1e-3 * (path - without).abs().max()


def test_the_scale_begins_far_too_small_and_grows():
    parameter = torch.nn.Parameter(torch.ones(3))
    mechanic = Mechanic(torch.optim.SGD([parameter], lr=1.0), [parameter])
    scales = []
    for _ in range(100):
        parameter.grad = parameter.detach().sign()
        mechanic.step()
        scales.append(mechanic.scale)
    assert 0.0 < scales[2] < 1e-5
    assert max(scales) > 1e-3


def logistic_gap(settings, n_steps=2000):
    """Excess logistic loss at the last weights, with noise as a private gradient has it."""
    generator = torch.Generator().manual_seed(1)
    normal = {"generator": generator, "dtype": torch.float64}
    X, truth = torch.randn(200, 10, **normal), torch.randn(10, **normal)
    y = torch.where(torch.rand(200, **normal) < torch.sigmoid(2 * X @ truth), 1.0, -1.0)

    def gradient(weights):
        return -(X.T @ (y * torch.sigmoid(-y * (X @ weights)))) / 200

    def loss(weights):
        return float(torch.nn.functional.softplus(-y * (X @ weights)).mean())

    best = torch.zeros(10, dtype=torch.float64)
    for _ in range(1000):
        best -= 2.0 * gradient(best)
    parameter = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
    rule = make_optimizer(settings, [parameter], n_steps=n_steps, uniform=lambda: 0.0)
    for _ in range(n_steps):
        parameter.grad = gradient(parameter.detach()) + 0.05 * torch.randn(10, **normal)
        rule.step()
    return loss(parameter.detach()) - loss(best)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_six_decades_of_learning_rates_end_within_a_constant_of_the_best(base):
    """Cutkosky, Defazio, Mehta (2023): convex logistic regression, s_init = 1e-8.

    Alone, the base optimizer is as good over two decades at most.
    """
    unit = {"sgd": 0.5, "adam": 0.1}[base]

    def gap(rate, mechanic):
        return logistic_gap(
            OptimizerSettings(name=base, learning_rate=rate, schedule="linear", mechanic=mechanic)
        )

    best = min(gap(unit * 2.0**power, False) for power in range(-3, 4))
    tuned = {rate: gap(rate, True) for rate in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3)}
    assert max(tuned.values()) < 4 * best
    assert gap(unit * 1e-3, False) > 10 * best
    assert gap(unit * 1e3, False) > 10 * best
