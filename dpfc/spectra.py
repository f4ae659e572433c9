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


def shrunk_inverse(noisy: torch.Tensor, damping: float) -> torch.Tensor:
    """Inverse of A₊ + damping I, A₊ the nearest positive semi-definite matrix to A.

    Parameters
    ----------
    noisy : torch.Tensor of shape (d, d)
        A, symmetric; noise may have made eigenvalues negative.
    damping : float
        In the units of A's eigenvalues. With 0, directions in which A is singular get
        0 (the pseudo-inverse).

    Returns
    -------
    torch.Tensor of shape (d, d)
    """
    values, vectors = torch.linalg.eigh(noisy)
    kept = values.clamp(min=0.0)
    if damping == 0.0:
        regular = kept > _SINGULAR * kept[-1]
        inverse = torch.where(regular, 1.0 / torch.where(regular, kept, 1.0), 0.0)
    else:
        inverse = 1.0 / (kept + damping)
    return (vectors * inverse) @ vectors.T
