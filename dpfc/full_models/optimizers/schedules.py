"""Learning rate schedules: what a step's rate is multiplied with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

__all__ = ["SCHEDULES", "refined_multipliers", "schedule_multipliers"]

SCHEDULES: tuple[str, ...] = ("constant", "linear", "cosine", "refined")

_SMOOTHING = 0.1


def schedule_multipliers(
    schedule: str,
    n_steps: int,
    warmup_steps: int = 0,
    *,
    norms: Sequence[float] | None = None,
    norm_power: float = 2.0,
) -> list[float]:
    """Multiplier of every step, in (0, 1], with a linear warmup before the schedule.

    No multiplier is 0: every step's gradient was paid for. "linear" is 1, (n-1)/n, ..., 1/n,
    where the theory's 1 - t/T, with T = n + 1 for the point after the last step, is the same
    up to a constant factor.

    Parameters
    ----------
    schedule : {"constant", "linear", "cosine", "refined"}
    n_steps : int
        Of the whole run, with the warmup.
    warmup_steps : int, default=0
        Below `n_steps`; the t-th of them has multiplier t / warmup_steps.
    norms, norm_power : optional
        Of "refined", see `refined_multipliers`.

    References
    ----------
    Defazio, Cutkosky, Mehta, Mishchenko (2023), When, Why and How Much? Adaptive Learning Rate
    Scheduling by Refinement, Corollary 2 (linear decay).
    Loshchilov, Hutter (2017), SGDR: Stochastic Gradient Descent with Warm Restarts, eq. 5
    (cosine, without restarts).
    """
    if schedule == "refined":
        if norms is None:
            raise ValueError("The schedule 'refined' needs the gradient norms of an earlier run.")
        return refined_multipliers(norms, n_steps, norm_power)
    n_after = n_steps - warmup_steps
    warmup = [(step + 1) / warmup_steps for step in range(warmup_steps)]
    if schedule == "linear":
        return warmup + [(n_after - step) / n_after for step in range(n_after)]
    if schedule == "cosine":
        return warmup + [0.5 + 0.5 * math.cos(math.pi * step / n_after) for step in range(n_after)]
    return warmup + [1.0] * n_after


def refined_multipliers(norms: Sequence[float], n_steps: int, norm_power: float) -> list[float]:
    """Schedule that would have been best for the gradient norms of an earlier run.

    With G_t the norms after a median filter, w_t = G_t^(-norm_power) and T = n_steps + 1, the
    multiplier is w_t Σ_{p=t+1}^T w_p, divided by the largest. The weight of T, the point after
    the last step, is that of the step before it. Constant norms give linear decay.

    Parameters
    ----------
    norms : sequence of float
        In order; a run of another length is stretched to `n_steps`.
    n_steps : int
    norm_power : float
        2 for SGD, where w_t minimises the bound of Theorem 3 (Algorithm 1 of the paper). For
        Adam the paper's weights are one over the l1 norm (Algorithm 2). We record l2 norms,
        which are proportional to l1 norms as long as the shape of the distribution of
        entries stays, and nearly so wherever noise dominates: use 1.

    Raises
    ------
    ValueError
        If the norms are zero for so long that the filter leaves a zero.

    References
    ----------
    Defazio, Cutkosky, Mehta, Mishchenko (2023), When, Why and How Much? Adaptive Learning Rate
    Scheduling by Refinement, Theorem 3, Algorithms 1 and 2.
    """
    smooth = _smoothed(_stretched(np.asarray(norms, dtype=np.float64), n_steps))
    if smooth.min() <= 0.0:
        raise ValueError(
            "schedule_norms are zero over a tenth of the run or more: no schedule follows "
            "from them."
        )
    # Relative to the smallest norm all weights are at most 1, whatever the unit.
    weights = (smooth.min() / smooth) ** norm_power
    later = np.cumsum(np.append(weights, weights[-1])[::-1])[::-1][1:]
    rates = weights * later
    return [float(rate) for rate in rates / rates.max()]


def _stretched(norms: NDArray[np.float64], n_steps: int) -> NDArray[np.float64]:
    if norms.size == n_steps:
        return norms
    return np.interp(np.linspace(0, 1, n_steps), np.linspace(0, 1, norms.size), norms)


def _smoothed(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median filter over a tenth of the run: the nearest value before it, a mirror after it."""
    half = int(_SMOOTHING * norms.size) // 2
    padded = np.pad(np.pad(norms, (0, half), mode="reflect"), (half, 0), mode="edge")
    filtered = median_filter(padded, size=2 * half + 1)
    return np.asarray(filtered[half : half + norms.size])
