"""How large noise is, and the public grid that sums and noise are rounded to.

See `dpfc.mechanism.private_run` for why: on the grid a sum and its noise add exactly, so that no
low-order bit of a release carries the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpfc._support.late import torch
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.queries import MAX_SAMPLES

__all__ = ["grid_noise", "gridded_noise", "on_grid"]

_GRID_SLACK = 2.0**-16  # of the sensitivity: what rounding to the grid may add
_LARGEST_NORMAL = 12.5  # no source of noise returns more


def gridded_noise(
    name: str,
    *,
    l2_sensitivity: float,
    noise_multiplier: float,
    rounding: float,
    row_norm: float,
    entries: int,
) -> tuple[float, float]:
    """Work out the noise of a sum over rows; all of it is public.

    Parameters
    ----------
    name : str
        Of the release, for errors.
    l2_sensitivity : float
        Δ, for the stated neighbouring relation.
    noise_multiplier : float
        z > 0.
    rounding : float
        e, how far the computed sum may be from the exact one.
    row_norm : float
        What one row adds at most.
    entries : int
        m, of the sum.

    Returns
    -------
    (float, float)
        Standard deviation z Δ' with Δ' = Δ + 2e + g √m, and the grid's step g, a power of two.

    Raises
    ------
    ValueError
        If the bounds are not finite.
    """
    most_noise = _LARGEST_NORMAL * noise_multiplier * (l2_sensitivity + 2.0 * rounding)
    largest = MAX_SAMPLES * row_norm + most_noise
    if not math.isfinite(largest):
        raise ValueError(
            f"the sensitivity of {name} is not finite: weights have diverged or a bound is "
            "missing. Lower the step size, or set a finite l2_clip_norm and residual clip."
        )
    step = max(l2_sensitivity * _GRID_SLACK / math.sqrt(entries), largest * 2.0**-52)
    grid = 2.0 ** math.ceil(math.log2(step))
    slack = 2.0 * rounding + grid * math.sqrt(entries)
    return noise_multiplier * (l2_sensitivity + slack), grid


def on_grid(values: torch.Tensor, grid: float) -> torch.Tensor:
    """Round float64 values to multiples of the grid's step."""
    return (values / grid).round_().mul_(grid)


def grid_noise(
    source: NoiseSource, shape: Sequence[int], scale: float, grid: float, *, symmetric: bool = False
) -> torch.Tensor:
    """Fresh Gaussian noise for every entry, in multiples of the grid.

    For symmetric matrices, noise has standard deviation `scale` on the diagonal and scale/√2 off
    it, mirrored: that is N(0, scale²) in every direction of the space of symmetric matrices under
    the Frobenius norm, the projection (N + Nᵀ)/2 of independent noise.
    """
    if not symmetric:
        draws = torch.from_numpy(source.standard_normal(math.prod(shape))).reshape(tuple(shape))
        return on_grid(draws * scale, grid)
    side, n_matrices = shape[-1], math.prod(shape[:-2])
    rows, columns = torch.triu_indices(side, side)
    draws = torch.from_numpy(source.standard_normal(n_matrices * len(rows)))
    # In float64 from the start: torch.where of two Python numbers would be float32, in
    # which a small scale is zero.
    scales = torch.full(rows.shape, scale / math.sqrt(2.0), dtype=torch.float64)
    scales[rows == columns] = scale
    draws = on_grid(draws.reshape(n_matrices, -1) * scales, grid)
    noise = torch.empty((n_matrices, side, side), dtype=torch.float64)
    noise[:, rows, columns] = draws
    noise[:, columns, rows] = draws
    return noise.reshape(tuple(shape))
