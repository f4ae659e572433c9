"""Figures and confidence intervals from noisy counts of test rows.

Two things are uncertain: which rows came to the test, and the noise. Every interval covers
both. It is the set of values θ that a test does not reject:

    D(θ)² <= z² (V(θ) + W(θ)),

where D is linear in θ and has mean 0 at the true value, V(θ) is the variance that sampling
gives it *if θ is true*, W(θ) the one that noise gives it, and z the normal quantile. Without
noise these are Wilson's and Newcombe's intervals; numbers of rows, which are noisy
themselves, are handled as in Fieller's, inside W. Where the noise may be all that a number of
rows is made of, the interval is [0, 1] and the figure NaN.

All of this works on what was released, and is public with it.

References
----------
Wilson (1927), Probable Inference, the Law of Succession, and Statistical Inference.
Fieller (1954), Some Problems in Interval Estimation.
Hanley, McNeil (1982), The Meaning and Use of the Area under a ROC Curve.
Newcombe (2006), Confidence Intervals for an Effect Size Measure Based on the Mann-Whitney
Statistic, Part 2 (method 5).
Zou, Donner (2008), Construction of Confidence Limits about Effect Measures: a General Approach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

__all__ = ["Estimate", "auc", "macro_average", "normal_quantile", "number_of_rows", "proportion"]


class Estimate(NamedTuple):
    """A figure and its confidence interval; the figure is NaN where noise hides it."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


_UNKNOWN = Estimate(math.nan, 0.0, 1.0)
# Noisy counts that sum to less than half a row tell of no row at all.
_FEWEST_ROWS = 0.5


def normal_quantile(confidence: float) -> float:
    """How many standard deviations a two-sided interval reaches."""
    return float(norm.isf((1.0 - confidence) / 2.0))


def number_of_rows(counts: NDArray[np.float64], noise: float, z: float) -> Estimate:
    """Sum of noisy counts, each with noise of standard deviation `noise`."""
    total = max(float(counts.sum()), 0.0)
    margin = z * noise * math.sqrt(counts.size)
    return Estimate(total, max(total - margin, 0.0), total + margin)


def proportion(
    hits: float,
    misses: float,
    z: float,
    *,
    hits_variance: float,
    misses_variance: float,
    covariance: float = 0.0,
) -> Estimate:
    """Share of hits among hits and misses: accuracy, or recall.

    D(p) = (1 - p) hits - p misses, V(p) = n p (1 - p).

    Parameters
    ----------
    hits, misses : float
        Noisy; negative counts stand for 0.
    z : float
        From `normal_quantile`.
    hits_variance, misses_variance, covariance : float
        Of their noise.
    """
    hits, misses = max(hits, 0.0), max(misses, 0.0)
    n = hits + misses
    n_variance = hits_variance + misses_variance + 2.0 * covariance
    if n <= max(z * math.sqrt(max(n_variance, 0.0)), _FEWEST_ROWS):
        return _UNKNOWN

    def excess(p: float) -> float:
        noise = (1.0 - p) ** 2 * hits_variance + p**2 * misses_variance
        noise -= 2.0 * p * (1.0 - p) * covariance
        return (hits - p * n) ** 2 - z**2 * (n * p * (1.0 - p) + noise)

    return _not_rejected(hits / n, excess)


def auc(histogram: NDArray[np.float64], noise: float, z: float) -> Estimate:
    """Area under the ROC curve of scores that are known up to their bin.

    With h₁ and h₀ the counts of the class and of the others, from low to high scores, the
    area is h₁ᵀM h₀ / (n₁ n₀), where M is 1 for a lower bin and ½ for the same one: rows in
    one bin count as ties. D(θ) = h₁ᵀ(M - θ)h₀. V(θ) is Newcombe's method 5, Hanley's and
    McNeil's variance under θ with the mean of both numbers of rows.

    Parameters
    ----------
    histogram : ndarray of shape (2, n_bins)
        Noisy counts of the others, and of the class.
    noise : float
        Standard deviation of the noise of each count.
    z : float
        From `normal_quantile`.
    """
    others, own = histogram
    n_bins = len(own)
    n_own, n_others = float(own.sum()), float(others.sum())
    if min(n_own, n_others) <= max(z * noise * math.sqrt(n_bins), _FEWEST_ROWS):
        return _UNKNOWN
    wins = np.tri(n_bins) - 0.5 * np.eye(n_bins)
    beaten, lost_to = wins @ others, own @ wins
    pairs = n_own * n_others
    value = min(max(float(own @ beaten) / pairs, 0.0), 1.0)

    def excess(theta: float) -> float:
        # Plugging noisy counts into the first two terms adds twice the third on average.
        squares = ((beaten - theta * n_others) ** 2).sum() + ((lost_to - theta * n_own) ** 2).sum()
        product = noise**4 * float(((wins - theta) ** 2).sum())
        of_noise = max(noise**2 * float(squares) - product, product)
        sampling = pairs**2 * _auc_variance(theta, n_own, n_others)
        return (value - theta) ** 2 * pairs**2 - z**2 * (sampling + of_noise)

    return _not_rejected(value, excess)


def macro_average(estimates: Sequence[Estimate], sampling: Sequence[Estimate]) -> Estimate:
    """Mean of the classes' figures, with an interval that errs on the wide side.

    Noise is independent from class to class, so its margins add up in squares. The same rows
    are behind every class, in a way that was not released, so margins of sampling are added
    as if all erred together. A class that noise hides counts as ½ ± ½.

    Parameters
    ----------
    estimates : sequence of Estimate
        With both kinds of uncertainty.
    sampling : sequence of Estimate
        Of the same figures, with sampling alone.
    """
    hidden = Estimate(0.5, 0.0, 1.0)
    pairs = [
        (hidden, hidden) if math.isnan(whole.value) else (whole, own)
        for whole, own in zip(estimates, sampling, strict=True)
    ]
    center = float(np.mean([whole.value for whole, _ in pairs]))
    low = _mean_margin([(whole.value - whole.low, own.value - own.low) for whole, own in pairs])
    high = _mean_margin([(whole.high - whole.value, own.high - own.value) for whole, own in pairs])
    value = float(np.mean([whole.value for whole in estimates]))
    return Estimate(value, max(center - low, 0.0), min(center + high, 1.0))


def _mean_margin(margins: Sequence[tuple[float, float]]) -> float:
    """Combine (whole, sampling) margins of each class into that of their mean."""
    sampling = sum(own for _, own in margins)
    noise = sum(max(whole**2 - own**2, 0.0) for whole, own in margins)
    return math.hypot(sampling, math.sqrt(noise)) / len(margins)


def _auc_variance(theta: float, n_own: float, n_others: float) -> float:
    """Variance of an area θ between exponential scores, both numbers set to their mean."""
    rows = max((n_own + n_others) / 2.0 - 1.0, 0.0)
    spread = 1.0 + rows * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
    return theta * (1.0 - theta) * spread / (n_own * n_others)


def _not_rejected(value: float, excess: Callable[[float], float]) -> Estimate:
    """Values in [0, 1] around `value` whose excess is not positive.

    An end of [0, 1] that is not rejected is in the interval, so that gaps are filled.
    """
    low, high = 0.0, 1.0
    # Without noise, a value of 0 or 1 is a root itself, and not the one that ends the interval.
    start = min(max(value, 1e-200), 1.0 - 2.0**-53)
    if excess(start) <= 0.0:
        if value > 0.0 and excess(0.0) > 0.0:
            low = float(brentq(excess, 0.0, start, xtol=1e-12))
        if value < 1.0 and excess(1.0) > 0.0:
            high = float(brentq(excess, start, 1.0, xtol=1e-12))
    return Estimate(value, min(low, value), max(high, value))
