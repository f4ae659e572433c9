from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpfc.mechanism.losses import LOSSES, SigmoidLoss

LOSS_VALUES = {
    "softmax": lambda f, y: torch.logsumexp(f, 0) - f[y],
    "sigmoid": lambda f, y: (
        torch.nn.functional.softplus(f).sum()
        - (f[0] * y if len(f) == 1 else f[y])
    ),
    "squared": lambda f, y: ((f - torch.eye(len(f), dtype=f.dtype)[y]) ** 2).sum() / 2,
}  # fmt: skip
CASES = [("softmax", 2), ("softmax", 5), ("sigmoid", 2), ("sigmoid", 5), ("squared", 4)]


def random_rows(name, n_classes, scale=3.0, n=40, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(n, LOSSES[name].n_outputs(n_classes)))
    return torch.from_numpy(logits), torch.from_numpy(rng.integers(n_classes, size=n))


@pytest.mark.parametrize("name, n_classes", CASES)
def test_residuals_are_gradients_of_the_loss(name, n_classes):
    logits, codes = random_rows(name, n_classes)
    leaf = logits.clone().requires_grad_(True)
    sum(LOSS_VALUES[name](f, int(y)) for f, y in zip(leaf, codes, strict=True)).backward()
    residual = LOSSES[name].residual(logits, codes)
    torch.testing.assert_close(residual, leaf.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_hessian_weights_are_second_derivatives(n_classes):
    logits, codes = random_rows("sigmoid", n_classes)
    weights = SigmoidLoss.hessian_weights(logits)
    for f, y, h in zip(logits, codes, weights, strict=True):
        exact = torch.autograd.functional.hessian(
            lambda g, y=y: LOSS_VALUES["sigmoid"](g, int(y)), f
        )
        torch.testing.assert_close(torch.diag(h), exact, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 1e4, 1e300])
@pytest.mark.parametrize("name, n_classes", CASES[:4])
def test_residuals_stay_within_their_bound_and_finite(name, n_classes, scale):
    logits, codes = random_rows(name, n_classes, scale, n=500)
    norms = torch.linalg.vector_norm(LOSSES[name].residual(logits, codes), dim=1)
    bound = LOSSES[name].residual_bound(logits.shape[1])
    assert torch.isfinite(norms).all()
    assert float(norms.max()) <= bound * (1 + 1e-14)
    if scale >= 1e4 and name == "softmax":
        assert float(norms.max()) > 0.99 * bound


def test_sigmoid_residuals_reach_their_bound():
    logits = torch.tensor([[-1e3, 1e3, 1e3]], dtype=torch.float64)
    residual = SigmoidLoss().residual(logits, torch.tensor([0]))
    assert float(torch.linalg.vector_norm(residual)) == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 1e300])
def test_hessian_weights_stay_between_zero_and_a_quarter(scale):
    weights = SigmoidLoss.hessian_weights(random_rows("sigmoid", 4, scale, n=500)[0])
    assert float(weights.min()) >= 0.0
    assert float(weights.max()) <= 0.25
    if scale == 0.0:
        assert float(weights.min()) == 0.25


def test_squared_residuals_have_no_bound():
    assert LOSSES["squared"].residual_bound(3) == math.inf


@pytest.mark.parametrize("name, n_classes", CASES)
def test_initial_curvature_is_the_largest_eigenvalue_at_zero(name, n_classes):
    zero = torch.zeros(LOSSES[name].n_outputs(n_classes), dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda f: LOSS_VALUES[name](f, 0), zero)
    largest = float(torch.linalg.eigvalsh(hessian).max())
    assert LOSSES[name].initial_curvature(n_classes) == pytest.approx(largest)


@pytest.mark.parametrize("name, n_classes", CASES)
def test_projection_keeps_exact_gradients_and_is_idempotent(name, n_classes):
    logits, codes = random_rows(name, n_classes)
    rows = torch.from_numpy(np.random.default_rng(1).normal(size=(len(codes), 3)))
    loss = LOSSES[name]
    gradient = loss.residual(logits, codes).T @ rows
    torch.testing.assert_close(loss.project(gradient), gradient, rtol=1e-10, atol=1e-12)
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=gradient.shape))
    once = loss.project(noise)
    torch.testing.assert_close(loss.project(once), once, rtol=1e-12, atol=1e-14)
    assert float(once.norm()) <= float(noise.norm())


def test_residuals_leave_logits_and_codes_alone():
    for name, n_classes in CASES:
        logits, codes = random_rows(name, n_classes)
        before = logits.clone(), codes.clone()
        LOSSES[name].residual(logits, codes)
        assert torch.equal(logits, before[0])
        assert torch.equal(codes, before[1])
