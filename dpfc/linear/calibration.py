"""Slope, intercept and threshold of two classes' scores, from noisy counts; post-processing only.

Damping flattens the scores of a private model, noise widens them, and clipped residuals hide how
rare a class is: scores that order rows well still say "the frequent class" of every row. Noisy
counts of rows by class and score (`dpfc.mechanism.class_scores`) show by how much.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.linear.probabilities import Link
from dpfc.mechanism.class_scores import ClassScores
from dpfc.mechanism.gaussian import GaussianMechanism

__all__ = ["calibrated", "calibrated_weights", "is_worth_its_share", "score_edges"]

# Logits of two classes are so many times their scores (`dpfc.linear.probabilities`).
_LOGITS: dict[Link, float] = {"softmax": 1.0, "sigmoid": 1.0, "squared": 2.0}
# Bins are split at powers of two: the largest score a row may have, and so many halves of it.
_HALVES = 8
_PARTS = 20  # of a bin: places where its rows may lie
# What is expected of logarithm of slope and of intercept before counts are seen: that the fit
# was right, give or take (standard deviations).
_TRUST = np.array([1.0, 1.5])
# Noise of a count, for it to weigh anything in the fit; and of the sum of all, for a fit.
_SURE = 2.0
_SURE_OF_ALL = 6.0
_STEPS = 60
_SHORTEST = 1e-150  # of weights: shorter ones say nothing
_LONGEST_STEP = 0.5
# Share of the rarer class up to which scores are touched. Measured: nearer to halves, a fit is
# right as it is, and what counts add is their noise.
_RARE = 0.3
# Expected share of rows that may be lost to the threshold, of a class that hardly occurs; the less,
# the nearer to `_RARE`. Measured: where scores follow no logistic curve, what is lost is more.
_MOST_LOST = 0.001
_HALVINGS = 30


def score_edges(largest: float) -> NDArray[np.float64]:
    """Edges of bins for scores in ± largest, ascending, shape (2 * 8,)."""
    edges = largest * 0.5 ** np.arange(_HALVES)
    return np.concatenate([-edges, edges[::-1]])


def is_worth_its_share(mechanism: GaussianMechanism) -> bool:
    """Whether two classes' scores can be told from noise; where not, nothing is spent on them."""
    run, n_samples, worth = mechanism.run, mechanism.known_n_samples, mechanism.n_classes == 2
    if worth and n_samples is not None:
        query = ClassScores(torch.zeros(1, mechanism.n_columns), score_edges(1.0))
        noise = mechanism.noise_standard_deviation(ClassScores.name, query)
        worth = _stand_out(n_samples, noise)
    if not worth and run.plan.mu is not None:
        run.reallocate(ClassScores.name, 0.0)
    return worth


def calibrated_weights(
    mechanism: GaussianMechanism, weights: NDArray[np.float64], link: Link
) -> NDArray[np.float64]:
    """Release counts of rows by class and score, and scale the scores by what they show.

    Parameters
    ----------
    mechanism : GaussianMechanism
        Of two classes, and rows with a constant column.
    weights : ndarray of shape (1, n_columns)
        The constant column's is the last.
    link : {"softmax", "sigmoid", "squared"}

    Returns
    -------
    ndarray of shape (1, n_columns)
    """
    constant, factor = mechanism.row_map.constant, _LOGITS[link]
    linear = torch.from_numpy(factor * weights)
    linear[0, -1] = 0.0
    length = max(float(torch.linalg.vector_norm(linear)), _SHORTEST)
    edges = score_edges(length * mechanism.row_map.l2_bound)
    drawn = mechanism.release(ClassScores.name, ClassScores(linear, edges))
    intercept = factor * float(weights[0, -1]) * constant
    slope, intercept = calibrated(
        drawn.value.cpu().numpy(), drawn.noise_standard_deviation, edges, intercept
    )
    scaled = slope * weights
    scaled[0, -1] = intercept / (factor * constant)
    return scaled


def calibrated(
    counts: NDArray[np.float64], noise: float, edges: NDArray[np.float64], intercept: float
) -> tuple[float, float]:
    """Factor and new intercept for logits, after which a row's class is told by their sign.

    Logits z become a z + b by Platt's fit to the counts, each bin as heavy as its binomial
    variance has it beside the noise: n p (1 - p) over n p (1 - p) + σ² (p² + (1 - p)²). The less
    they say, the more stays as it was. Then the threshold for the rarer class is lowered, down to
    that class's share of the rows at most, as long as rows of the other class that it costs are
    expected to be one in 1000.

    Parameters
    ----------
    counts : ndarray of shape (2, n_bins)
        Noisy, of rows by class and logit without intercept.
    noise : float
        Their standard deviation.
    edges : ndarray of shape (n_bins - 1,)
        From `score_edges`.
    intercept : float

    Returns
    -------
    tuple of float
        (a, new intercept); (1, intercept) where rows cannot be told from noise, or the rarer class
        is not below 30% of them.

    References
    ----------
    Platt (1999), Probabilistic Outputs for Support Vector Machines.
    McCullagh (1983), Quasi-Likelihood Functions.
    """
    by_class = counts.sum(axis=1).clip(min=max(noise, 1.0))
    share = float(by_class.min() / by_class.sum())
    if not _stand_out(float(counts.sum()), noise) or share > _RARE:
        return 1.0, intercept
    lower = np.concatenate([2.0 * edges[:1], edges])
    upper = np.concatenate([edges, 2.0 * edges[-1:]])
    near = np.where(abs(lower) < abs(upper), lower, upper)[:, np.newaxis]
    far = (lower + upper)[:, np.newaxis] - near
    within = ((np.arange(_PARTS) + 0.5) / _PARTS) ** 2  # scores thin out, away from zero
    logits = near + within * (far - near) + intercept
    slope, shift = _platt(counts, noise, logits)
    sign = 1.0 if by_class[1] < by_class[0] else -1.0  # towards the rarer class
    rows = counts.sum(axis=0).clip(min=0.0) / by_class.sum()
    threshold = _threshold(rows, share, _sigmoid(sign * (slope * logits + shift)))
    lowered = sign * math.log((1.0 - threshold) / threshold)
    return slope, slope * intercept + shift + lowered


def _stand_out(n_samples: float, noise: float) -> bool:
    """Whether so many rows stand out from the noise of all bins' counts together."""
    return n_samples >= _SURE_OF_ALL * noise * math.sqrt(2 * (2 * _HALVES + 1))


def _platt(
    counts: NDArray[np.float64], noise: float, logits: NDArray[np.float64]
) -> tuple[float, float]:
    """Slope and shift of logits (n_bins, n_parts) that solve the quasi-score equations."""
    total = counts.sum(axis=0)
    rows = (total - _SURE * noise).clip(min=0.0)
    theta = np.zeros(2)  # logarithm of the slope, shift
    for _ in range(_STEPS):
        slope = math.exp(theta[0])
        p = _sigmoid(slope * logits + theta[1])
        steep = p * (1.0 - p)
        p = p.mean(axis=1)
        binomial = rows * (p * (1.0 - p)).clip(min=1e-9)
        variance = binomial + noise**2 * (p**2 + (1.0 - p) ** 2) + 1e-12
        moved = np.column_stack([(steep * slope * logits).mean(axis=1), steep.mean(axis=1)])
        moved *= rows[:, np.newaxis]
        weighed = moved / variance[:, np.newaxis]
        step = np.linalg.solve(
            moved.T @ weighed + np.diag(_TRUST**-2),
            weighed.T @ (counts[1] - p * total) - theta / _TRUST**2,
        )
        theta = theta + step * min(1.0, _LONGEST_STEP / max(float(abs(step).max()), 1e-12))
    return math.exp(theta[0]), float(theta[1])


def _threshold(rows: NDArray[np.float64], share: float, p: NDArray[np.float64]) -> float:
    """The least probability of the rarer class, of which `share` are, to tell it by.

    Rows (n_bins,) are shares of all, p (n_bins, n_parts) are their probabilities.
    """
    low, high, most = share, 0.5, _MOST_LOST * (1.0 - share / _RARE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        lost = rows @ np.where((p > middle) & (p < 0.5), 1.0 - 2.0 * p, 0.0).mean(axis=1)
        low, high = (middle, high) if lost > most else (low, middle)
    return high


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-logits.clip(-40.0, 40.0))))
