from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpfc.linear.spectra import noise_spectral_radius, shrunk_inverse


def spd(rank, n, seed=0):
    factor = np.random.default_rng(seed).normal(size=(n, rank))
    return torch.from_numpy(factor @ factor.T)


def test_without_noise_the_inverse_is_exact():
    matrix = spd(8, 8)
    expected = torch.linalg.inv(matrix)
    result = shrunk_inverse(matrix, radius=0.0, damping=0.0)
    torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-8 * float(expected.norm()))


@pytest.mark.parametrize("damping", [1e-3, 1.0, 50.0])
def test_without_noise_damping_is_a_ridge(damping):
    matrix = spd(3, 8)
    expected = torch.linalg.inv(matrix + damping * torch.eye(8, dtype=torch.float64))
    result = shrunk_inverse(matrix, radius=0.0, damping=damping)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9 / damping)


def test_without_noise_or_damping_a_singular_matrix_gets_its_pseudo_inverse():
    matrix = spd(3, 8)
    result = shrunk_inverse(matrix, radius=0.0, damping=0.0)
    torch.testing.assert_close(result, torch.linalg.pinv(matrix, hermitian=True))


@pytest.mark.parametrize("tiny", [5e-324, 1e-320, 1e-30])
@pytest.mark.parametrize("alike", [True, False])
def test_damping_that_rounding_loses_is_none(tiny, alike):
    matrix = spd(3, 8)
    damping = torch.full((8,), tiny, dtype=torch.float64)
    if not alike:
        damping[-1] = 0.0
    expected = shrunk_inverse(matrix, radius=0.0, damping=0.0)
    result = shrunk_inverse(matrix, radius=0.0, damping=damping)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


def test_the_inverse_is_symmetric_positive_and_finite_under_noise():
    rng = np.random.default_rng(3)
    for scale in (0.1, 10.0, 1e4):
        noise = rng.normal(scale=scale, size=(40, 40))
        matrix = spd(5, 40) + torch.from_numpy((noise + noise.T) / 2)
        radius = noise_spectral_radius(scale, 40)
        result = shrunk_inverse(matrix, radius=radius, damping=radius)
        assert torch.isfinite(result).all()
        torch.testing.assert_close(result, result.T, rtol=1e-9, atol=1e-12)
        assert float(torch.linalg.eigvalsh(result).min()) >= 0.0
        # No eigenvalue of the inverse exceeds what damping alone allows, but for the eigenvectors'
        # rounding: where noise is large they are of float32.
        assert float(torch.linalg.eigvalsh(result).max()) <= (1 + 2e-6) / radius


def test_the_spectral_radius_is_the_edge_of_sampled_noise():
    d, sigma = 400, 2.5
    noise = np.random.default_rng(4).normal(scale=sigma, size=(d, d))
    sampled = np.abs(np.linalg.eigvalsh((noise + noise.T) / 2)).max()
    stated = noise_spectral_radius(sigma, d)
    assert 0.95 * sampled < stated < 1.05 * sampled
    assert noise_spectral_radius(0.0, d) == 0.0


def _noisy_spiked_matrix(n_columns, noise_standard_deviation, seed=0):
    """A matrix of decaying spectrum, and the same with symmetric noise."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(
        torch.randn(n_columns, n_columns, generator=generator, dtype=torch.float64)
    )[0]
    values = 200.0 / torch.arange(1, n_columns + 1, dtype=torch.float64)
    matrix = (basis * values) @ basis.T
    noise = torch.randn(n_columns, n_columns, generator=generator, dtype=torch.float64)
    return matrix, matrix + noise_standard_deviation * (noise + noise.T) / 2


def test_the_cleaned_matrix_is_nearer_to_the_exact_one_than_the_noisy_one_or_its_positive_part():
    exact, noisy = _noisy_spiked_matrix(200, 1.0)
    radius, damping = noise_spectral_radius(1.0, 200), 1.0
    identity = torch.eye(200, dtype=torch.float64)
    cleaned = torch.linalg.inv(shrunk_inverse(noisy, radius, damping)) - damping * identity
    values, vectors = torch.linalg.eigh(noisy)
    positive = (vectors * values.clamp(min=0.0)) @ vectors.T
    error = torch.linalg.norm(cleaned - exact)
    assert error < 0.5 * torch.linalg.norm(noisy - exact)
    assert error < 0.8 * torch.linalg.norm(positive - exact)


def test_pure_noise_is_cleaned_away():
    _, noisy = _noisy_spiked_matrix(200, 1.0)
    noise = noisy - _noisy_spiked_matrix(200, 0.0)[1]
    radius, damping = noise_spectral_radius(1.0, 200), 1.0
    inverse = shrunk_inverse(noise, radius, damping)
    left = 1.0 / torch.linalg.eigvalsh(inverse) - damping
    assert left.mean() < 0.1 * radius  # its positive part has a mean of 0.21 radii
    assert left.max() < 0.5 * radius  # at the edge, as far as the smoothing reaches


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.1, 10.0])
def test_float32_is_taken_only_where_noise_hides_its_rounding(scale, monkeypatch):
    """The inverse differs by less than a thousandth of what one more draw of noise changes."""
    rng = np.random.default_rng(6)

    def noisy():
        noise = rng.normal(scale=scale, size=(60, 60))
        return spd(7, 60) + torch.from_numpy((noise + noise.T) / 2)

    first, second = noisy(), noisy()
    radius = noise_spectral_radius(scale, 60)
    result, other = (shrunk_inverse(m, radius, radius + 0.1) for m in (first, second))
    monkeypatch.setattr("dpfc.linear.spectra._FLOAT32_NOISE", math.inf)
    exact = shrunk_inverse(first, radius, radius + 0.1)
    apart, noise = (float(torch.linalg.matrix_norm(m - exact)) for m in (result, other))
    assert apart <= 1e-3 * noise
    assert torch.equal(result, exact) == (scale < 1e-3)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_float32_is_enough_in_any_unit(unit):
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(30, 30))
    matrix = spd(9, 30) + torch.from_numpy((noise + noise.T) / 2)
    radius = noise_spectral_radius(1.0, 30)
    plain = shrunk_inverse(matrix, radius, radius)
    scaled = shrunk_inverse(matrix * unit**2, radius * unit**2, radius * unit**2)
    torch.testing.assert_close(scaled * unit**2, plain, rtol=1e-4, atol=1e-5)
