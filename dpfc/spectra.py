"""Cleaning noisy symmetric matrices by what is known of their noise; post-processing only."""

from __future__ import annotations

import math

import torch

__all__ = ["noise_spectral_radius", "shrunk_inverse"]

# Relative to the largest eigenvalue: where a matrix without noise counts as singular.
_SINGULAR = 1e-12


def noise_spectral_radius(noise_standard_deviation: float, n_columns: int) -> float:
    """Edge of the noise's spectrum, σ√(2d).

    Entries off the diagonal have variance σ²/2, so the eigenvalues of the noise fill
    a semicircle of radius 2 √(d σ²/2).

    References
    ----------
    Wigner (1958), On the Distribution of the Roots of Certain Symmetric Matrices.
    """
    return noise_standard_deviation * math.sqrt(2.0 * n_columns)


def shrunk_inverse(noisy: torch.Tensor, radius: float, damping: float) -> torch.Tensor:
    """Inverse of Â + damping I, with Â the estimate of A from A + noise.

    An eigenvalue y above the edge R of the noise's spectrum is the image of a larger
    or equal one of A, seen along a vector that has turned: the estimate of A along it
    that is best in Frobenius norm is √(y² - R²). What lies inside the noise's spectrum
    says nothing but its trace; the trace that is left is spread evenly over the part
    of the space that no such vector explains (1 - 2√/(y + √) of each).

    Parameters
    ----------
    noisy : torch.Tensor of shape (d, d)
        Symmetric; A is positive semi-definite.
    radius : float
        R; 0 means that there is no noise.
    damping : float
        In the units of A's eigenvalues. With 0, directions in which Â is singular get
        0 (the pseudo-inverse).

    Returns
    -------
    torch.Tensor of shape (d, d)

    References
    ----------
    Benaych-Georges, Nadakuditi (2011), The eigenvalues and eigenvectors of finite, low
    rank perturbations of large random matrices, section 3.1.
    Gavish, Donoho (2017), Optimal Shrinkage of Singular Values, section IV (Frobenius).
    """
    values, vectors = torch.linalg.eigh(noisy)
    signal = (values.clamp(min=radius) ** 2 - radius**2).sqrt()
    unexplained = 1.0 - 2.0 * signal / (values.clamp(min=radius) + signal).clamp(min=1e-300)
    left = (values.sum() - signal.sum()).clamp(min=0.0) / unexplained.sum().clamp(min=1.0)
    cleaned = signal + left * unexplained if radius > 0.0 else values.clamp(min=0.0)
    if damping == 0.0:
        regular = cleaned > _SINGULAR * cleaned[-1]
        inverse = torch.where(regular, 1.0 / torch.where(regular, cleaned, 1.0), 0.0)
    else:
        inverse = 1.0 / (cleaned + damping)
    result: torch.Tensor = (vectors * inverse) @ vectors.T
    return result
