"""Cleaning noisy symmetric matrices by what is known of their noise; post-processing only."""

from __future__ import annotations

import math
import sys

from dpfc._support.late import torch

__all__ = ["noise_spectral_radius", "shrunk_inverse"]

# Relative to the largest eigenvalue: where a matrix without noise counts as singular.
_SINGULAR = 1e-12
# Of the largest eigenvalue: what is added to it and changes nothing.
_LOST = sys.float_info.epsilon / 2.0
# Of the radius: wide enough to hold many eigenvalues, narrow beside the spectrum.
_SMOOTHING = 0.2
# Of a matrix's norm: float32 loses about 10⁻⁶ of it, a thousandth of such noise.
_FLOAT32_NOISE = 1e-3


def noise_spectral_radius(noise_standard_deviation: float, n_columns: int) -> float:
    """Edge of the noise's spectrum, σ√(2d).

    Entries off the diagonal have variance σ²/2, so the eigenvalues of the noise fill
    a semicircle of radius 2 √(d σ²/2).

    References
    ----------
    Wigner (1958), On the Distribution of the Roots of Certain Symmetric Matrices.
    """
    return noise_standard_deviation * math.sqrt(2.0 * n_columns)


def shrunk_inverse(
    noisy: torch.Tensor,
    radius: float,
    damping: float | torch.Tensor,
    guess: torch.Tensor | None = None,
) -> torch.Tensor:
    """Inverse of Â + diag(damping), with Â the estimate of A from A + noise.

    Â keeps the eigenvectors of the noisy matrix and gives each the eigenvalue that is
    best in expected squared error given all of them, whatever A's spectrum is:

        ξ(y) = y - (R²/2) Re g(y),   g(y) = mean_j 1 / (y - y_j).

    An eigenvalue far outside the noise's spectrum becomes √(y² - R²), pure noise
    becomes 0 but for what the smoothing of g leaves at the spectrum's edge, and the
    trace is kept until negative values are cut off.

    Parameters
    ----------
    noisy : torch.Tensor of shape (d, d)
        Symmetric; A is positive semi-definite.
    radius : float
        R, the edge of the noise's spectrum; 0 means that there is no noise.
    damping : float or torch.Tensor of shape (d,)
        In the units of A's eigenvalues. With 0, or with so little that it is lost in rounding,
        directions in which Â is singular get 0 (the pseudo-inverse).
    guess : torch.Tensor of shape (d, d) or None
        What A is without looking at the data. What it leaves of the noisy matrix is
        cleaned instead, and where noise explains all of that, Â is the guess.

    Returns
    -------
    torch.Tensor of shape (d, d)

    References
    ----------
    Bun, Allez, Bouchaud, Potters (2016), Rotational Invariant Estimator for General
    Noisy Matrices, section III (additive noise).
    """
    values, vectors = _estimate(noisy, radius, guess)
    if isinstance(damping, torch.Tensor):
        if bool((damping != damping[0]).any()):
            damped = (vectors * values) @ vectors.T + damping.diag()
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not bool(failed):
                return torch.cholesky_inverse(factor)
            # So little damping that the matrix is singular all the same.
            values, vectors = torch.linalg.eigh(damped)
            damping = torch.zeros(1)
        damping = float(damping[0])
    if damping <= max(_LOST * float(values.max()), sys.float_info.min):
        regular = values > _SINGULAR * values.max()
        inverse = torch.where(regular, 1.0 / torch.where(regular, values, 1.0), 0.0)
    else:
        inverse = 1.0 / (values + damping)
    result: torch.Tensor = (vectors * inverse) @ vectors.T
    return result


def _estimate(
    noisy: torch.Tensor, radius: float, guess: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors of Â, the former non-negative."""
    values, vectors = _eigh(noisy if guess is None else noisy - guess, radius)
    values = values - radius**2 / 2.0 * _resolvent(values, radius)
    if guess is not None:
        values, vectors = torch.linalg.eigh(guess + (vectors * values) @ vectors.T)
    return values.clamp(min=0.0), vectors


def _eigh(noisy: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors; in float32, twice as fast, where noise hides its rounding."""
    norm = float(torch.linalg.matrix_norm(noisy))
    if not 0.0 < _FLOAT32_NOISE * norm <= radius:
        values, vectors = torch.linalg.eigh(noisy)
        return values.double(), vectors.double()
    values, vectors = torch.linalg.eigh((noisy / norm).float())  # whatever a row's unit is
    return norm * values.double(), vectors.double()


def _resolvent(values: torch.Tensor, radius: float) -> torch.Tensor:
    """Re g at each eigenvalue, smoothed over a width that holds many of them."""
    if radius == 0.0:
        return torch.zeros_like(values)
    gaps = values.unsqueeze(1) - values
    return (gaps / (gaps**2 + (_SMOOTHING * radius) ** 2)).mean(dim=1)
