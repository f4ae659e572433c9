"""Residuals and curvatures in float32, against automatic differentiation in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpfc.mechanism.losses import LOSSES, SigmoidLoss, exponential

LOSS_VALUES = {
    "softmax": lambda f, y: torch.logsumexp(f, 0) - f[y],
    "sigmoid": lambda f, y: (
        torch.nn.functional.softplus(f).sum()
        - (f[0] * y if len(f) == 1 else f[y])
    ),
}  # fmt: skip
CASES = [("softmax", 2), ("softmax", 5), ("sigmoid", 2), ("sigmoid", 5)]
EPS = 2.0**-24  # what one operation of float32 rounds by, of its result
EXPONENTIAL = 2.0**-17  # what `exponential` is off by, of its result


def random_rows(name, n_classes, scale=3.0, n=40, seed=0):
    """Logits (n_outputs, n_rows) float32 and codes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(LOSSES[name].n_outputs(n_classes), n))
    with np.errstate(over="ignore"):
        logits = logits.astype(np.float32).clip(-3e38, 3e38)  # the largest that float32 has
    return logits, rng.integers(n_classes, size=n)


def exact_gradients(name, logits, codes):
    leaf = torch.from_numpy(logits.astype(np.float64)).requires_grad_(True)
    sum(LOSS_VALUES[name](f, int(y)) for f, y in zip(leaf.T, codes, strict=True)).backward()
    return leaf.grad.numpy()


# -- the exponential -----------------------------------------------------------------


def test_the_exponential_is_within_its_bound_of_the_exact_one():
    exponents = np.linspace(-30.0, 0.0, 1_000_001, dtype=np.float32)
    exact = np.exp(exponents.astype(np.float64))
    computed = exponential(exponents.copy()).astype(np.float64)
    assert np.abs(computed / exact - 1.0).max() <= EXPONENTIAL
    assert computed[-1] == 1.0


def test_exponents_far_below_zero_are_as_minus_thirty():
    least = exponential(np.float32([-30.0]))
    for exponent in (-30.5, -1e3, -3e38, -math.inf):
        assert exponential(np.float32([exponent])) == least


# -- residuals and curvatures --------------------------------------------------------


@pytest.mark.parametrize("name, n_classes", CASES)
def test_residuals_are_gradients_of_the_loss(name, n_classes):
    logits, codes = random_rows(name, n_classes)
    exact = exact_gradients(name, logits, codes)
    residual = LOSSES[name].residual(logits, codes)
    assert residual.dtype == np.float32
    assert residual.shape == exact.shape
    # p is a quotient of exponentials, each off by EXPONENTIAL, of exponents rounded by EPS of
    # at most 30 where they matter, and their sum of n_classes; then one subtraction.
    bound = 2 * (EXPONENTIAL + 30 * EPS) + (n_classes + 3) * EPS
    np.testing.assert_allclose(residual, exact, rtol=0, atol=bound)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_curvatures_are_second_derivatives(n_classes):
    logits, codes = random_rows("sigmoid", n_classes)
    curvature = SigmoidLoss.curvature(logits.copy())
    assert curvature.shape == logits.shape
    for f, y, h in zip(logits.T, codes, curvature.T, strict=True):
        exact = torch.autograd.functional.hessian(
            lambda g, y=y: LOSS_VALUES["sigmoid"](g, int(y)), torch.from_numpy(f).double()
        )
        # e / (1 + e)²: an exponential three times, and three more operations.
        bound = 3 * EXPONENTIAL + 5 * EPS
        np.testing.assert_allclose(np.diag(h), exact, rtol=bound, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 1e4, 1e38])
@pytest.mark.parametrize("name, n_classes", CASES)
def test_residuals_stay_within_their_bound_and_finite(name, n_classes, scale):
    logits, codes = random_rows(name, n_classes, scale, n=500)
    with np.errstate(over="ignore"):  # the difference of two such logits
        residual = LOSSES[name].residual(logits, codes)
    norms = np.linalg.norm(residual.astype(np.float64), axis=0)
    bound = LOSSES[name].residual_bound(len(residual))
    assert np.isfinite(norms).all()
    # Probabilities may add up to more than 1 by a few roundings; clipping comes after.
    assert norms.max() <= bound * (1 + (n_classes + 2) * EPS)
    if scale >= 1e4 and name == "softmax":
        assert norms.max() > 0.99 * bound


def test_sigmoid_residuals_reach_their_bound():
    logits = np.float32([[-1e3], [1e3], [1e3]])
    residual = SigmoidLoss().residual(logits, np.array([0]))
    assert float(np.linalg.norm(residual)) == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 1e38])
def test_curvatures_stay_between_zero_and_a_quarter(scale):
    curvature = SigmoidLoss.curvature(random_rows("sigmoid", 4, scale, n=500)[0])
    assert curvature.min() >= 0.0
    assert curvature.max() <= 0.25
    if scale == 0.0:
        assert curvature.min() == 0.25


# -- the same bits anywhere ----------------------------------------------------------


def bits(array):
    return np.asarray(array).view(np.int32).tolist()


@pytest.mark.parametrize("scale", [0.3, 3.0, 50.0, 1e4])
@pytest.mark.parametrize("name, n_classes", CASES)
def test_residuals_have_the_same_bits_in_numpy_and_pytorch(name, n_classes, scale):
    logits, codes = random_rows(name, n_classes, scale, n=1000)
    tensors = torch.from_numpy(logits.copy()), torch.from_numpy(codes)
    found = LOSSES[name].residual(logits, codes)
    assert bits(LOSSES[name].residual(*tensors).numpy()) == bits(found)


def test_curvatures_have_the_same_bits_in_numpy_and_pytorch():
    logits = random_rows("sigmoid", 5, n=1000)[0]
    tensor = torch.from_numpy(logits.copy())
    assert bits(SigmoidLoss.curvature(tensor).numpy()) == bits(SigmoidLoss.curvature(logits))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "pytorch"])
@pytest.mark.parametrize("name, n_classes", CASES)
def test_a_residual_does_not_depend_on_its_block(name, n_classes, kind):
    logits, codes = random_rows(name, n_classes, n=333)
    whole = LOSSES[name].residual(kind(logits.copy()), kind(codes))
    for size in (1, 2, 7, 8, 100):
        for start in range(0, 333, size):
            part = slice(start, start + size)
            alone = LOSSES[name].residual(kind(logits[:, part].copy()), kind(codes[part]))
            assert bits(alone) == bits(whole[:, part])


def test_residuals_leave_codes_alone():
    for name, n_classes in CASES:
        logits, codes = random_rows(name, n_classes)
        before = codes.copy()
        LOSSES[name].residual(logits, codes)
        assert np.array_equal(codes, before)


# -- what solvers are told -----------------------------------------------------------


@pytest.mark.parametrize("name, n_classes", CASES)
def test_initial_curvature_is_the_largest_eigenvalue_at_zero(name, n_classes):
    zero = torch.zeros(LOSSES[name].n_outputs(n_classes), dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda f: LOSS_VALUES[name](f, 0), zero)
    largest = float(torch.linalg.eigvalsh(hessian).max())
    assert LOSSES[name].initial_curvature(n_classes) == pytest.approx(largest)


@pytest.mark.parametrize("name, n_classes", CASES)
def test_projection_keeps_exact_gradients_and_is_idempotent(name, n_classes):
    logits, codes = random_rows(name, n_classes)
    rows = np.random.default_rng(1).normal(size=(len(codes), 3))
    loss = LOSSES[name]
    gradient = torch.from_numpy(exact_gradients(name, logits, codes) @ rows)
    torch.testing.assert_close(loss.project(gradient), gradient, rtol=1e-10, atol=1e-12)
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=gradient.shape))
    once = loss.project(noise)
    torch.testing.assert_close(loss.project(once), once, rtol=1e-12, atol=1e-14)
    assert float(once.norm()) <= float(noise.norm())
    removed = len(noise) - loss.degrees_of_freedom(len(noise))
    assert torch.linalg.matrix_rank(noise - once) == removed
