"""A sum with noise: all that a reader has to check to believe that a release is private.

Every sum S is of integers, and so exact: in any order, on any device. Sums of
neighbours are at most Δ apart (`BoundedSum.l2_sensitivity` and `slack`), which is public, and with
N ~ N(0, σ²) for every entry, σ ≥ z Δ, S + N is the Gaussian mechanism with noise multiplier z.
Released is S + round(N), with round(N) drawn exactly (`NoiseSource.rounded_gaussian`). As S is an
integer, that is round(S + N), which follows from what the Gaussian mechanism gives and from
nothing else: its accounting holds exactly, and no low-order bit of a release tells more.

A sum of symmetric matrices is released from its upper triangle, with σ on the diagonal, σ/√2 off
it, and mirrored: in every direction of the space of symmetric matrices under the Frobenius norm,
that is N(0, σ²), the projection (N + Nᵀ)/2 of independent noise.

References
----------
Dwork, Roth (2014), The Algorithmic Foundations of Differential Privacy, appendix A.
Balle, Wang (2018), Improving the Gaussian Mechanism for Differential Privacy.
Mironov (2012), On Significance of the Least Significant Bits for Differential Privacy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpfc._support.late import torch
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.rounded_gaussian import LARGEST_SIGMA

__all__ = ["BoundedSum", "Release", "sigma_of", "with_noise"]


@dataclass(frozen=True)
class BoundedSum:
    """What is public of a sum over private rows.

    Attributes
    ----------
    formula : str
        Of a row's part.
    shape : sequence of int
    l2_sensitivity : float
        In integers, for the plan's neighbouring relation; not below the exact one.
    unit : float
        What 1 stands for.
    slack : float
        What rounding may add to the distance of neighbours, in integers; 0 where all that is summed
        follows from a row alone, to the last bit.
    symmetric : bool
        Whether the sum is of symmetric matrices, and its noise is to be.
    """

    formula: str
    shape: Sequence[int]
    l2_sensitivity: float
    unit: float = 1.0
    slack: float = 0.0
    symmetric: bool = False


@dataclass(frozen=True)
class Release:
    """What a run returns: a value that may be published, and its noise.

    Attributes
    ----------
    value : torch.Tensor, float64
    noise_standard_deviation : float
        Of every entry (of the diagonal, for a symmetric release).
    """

    value: torch.Tensor
    noise_standard_deviation: float


def sigma_of(name: str, of: BoundedSum, noise_multiplier: float) -> float:
    """σ ≥ z Δ in integers; 0 where nothing needs noise.

    Raises
    ------
    ValueError
        If it is not finite, or more than integers hold.
    """
    if noise_multiplier == 0.0 or of.l2_sensitivity == of.slack == 0.0:
        return 0.0
    sigma = _round_up(noise_multiplier * _round_up(of.l2_sensitivity + of.slack))
    if not 0.0 < sigma * of.unit < math.inf:
        raise ValueError(
            f"the sensitivity of {name} is not finite: weights have diverged or a bound is "
            "missing. Lower the step size, or set a finite l2_clip_norm and residual clip."
        )
    if sigma > LARGEST_SIGMA:  # sums and noise stay far below what int64 holds
        raise ValueError(f"the noise of {name} is more than integers hold: raise epsilon.")
    return sigma


def with_noise(
    total: torch.Tensor, sigma: float, noise: NoiseSource, *, symmetric: bool
) -> torch.Tensor:
    """S + round(N), as the module explains; int64."""

    def drawn(scale: float, like: torch.Tensor) -> torch.Tensor:
        draws = torch.from_numpy(noise.rounded_gaussian(scale, like.numel()))
        return draws.view(like.shape).to(like.device)

    if not symmetric:
        return total + drawn(sigma, total)
    diagonal = torch.diagonal(total, dim1=-2, dim2=-1)
    rows, columns = torch.triu_indices(
        row=total.shape[-2], col=total.shape[-1], offset=1, device=total.device
    )
    above = total[..., rows, columns]
    above = above + drawn(_round_up(sigma * math.sqrt(0.5)), above)  # its float is above √0.5
    noisy = torch.diag_embed(diagonal + drawn(sigma, diagonal))
    noisy[..., rows, columns] = above
    noisy[..., columns, rows] = above
    return noisy


def _round_up(value: float) -> float:
    """Above what a correctly rounded operation would give exactly."""
    return math.nextafter(value, math.inf)
