"""Centre and spread of columns from noisy logarithmic histograms; public quantities only.

At usual budgets the noise of a bin is as large as many rows, so quantiles of a noisy histogram
are those of its noise. What all bins say together is seen much earlier: the noisy histogram is
held against what columns of many kinds, centres and spreads would give, and the likeliest is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dpfc.mechanism.column_histograms import EXPONENTS, N_BINS, bin_edges

__all__ = ["column_scales", "scale_share"]

# Measured on `wine`, `breast-cancer` and `iris` as they come (docs/accuracy.md): what the
# histograms need of the budget, and beyond which ratio they say too little to be bought.
_NEEDED = 100.0
_MOST_SHARE, _LEAST_SHARE = 0.25, 0.01
_HOPELESS = 0.015
# Log-odds against a spread, for each power of two that it is away from 1: where a histogram says
# nothing, columns stay about as they are.
_DOUBT = 0.2
_RELATIVE_SPREADS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
_LOG_SPREADS = (0.7, 1.3, 2.2)
_ZERO_SHARES = (0.2, 0.5, 0.8)
_WIDEST = 2.0  # spread of a skewed column, in units of its median

_Numbers = NDArray[np.float64]


class _Shapes(NamedTuple):
    """What columns may look like: shares of bins (n, N_BINS), centres (n,), spreads (n,)."""

    shares: _Numbers
    centers: _Numbers
    spreads: _Numbers


def scale_share(signal_to_noise: float, n_features: int) -> float:
    """Share of μ² for the histograms of d columns.

    A column of n rows stands out of noise of deviation √d/(μ√s) by the square of nμ√(s/d), up to
    what is known of its shape.

    Parameters
    ----------
    signal_to_noise : float
        nμ over the sensitivity of a sum of unit rows.
    n_features : int
        d.

    Returns
    -------
    float in [0, 0.25]
        0 where the histograms would be lost in their noise.
    """
    ratio = n_features / signal_to_noise / signal_to_noise
    return 0.0 if ratio > _HOPELESS else min(_MOST_SHARE, max(_LEAST_SHARE, _NEEDED * ratio))


def column_scales(histograms: _Numbers, n_samples: float, noise: float) -> _Numbers:
    """What to subtract from each column, and what to multiply it with then.

    Parameters
    ----------
    histograms : ndarray of shape (n_features, N_BINS)
        Noisy.
    n_samples : float
        Public, or noisy.
    noise : float
        Standard deviation of a bin's noise.

    Returns
    -------
    ndarray of shape (2, n_features)
        Finite; the second row is positive.
    """
    shares, centers, spreads = _shapes()
    matches = n_samples * (histograms @ shares.T)
    matches -= n_samples**2 / 2.0 * (shares**2).sum(axis=1)
    # A histogram without noise is still one of a sample.
    likelihoods = matches / max(noise, 1.0) ** 2 - _DOUBT * abs(np.log2(spreads))
    likeliest = likelihoods.argmax(axis=1)
    return np.stack([centers[likeliest], 1.0 / spreads[likeliest]])


@cache
def _shapes() -> _Shapes:
    shares, centers, spreads = zip(*_all_shapes(), strict=True)
    return _Shapes(np.array(shares), np.array(centers), np.array(spreads))


def _all_shapes() -> Iterator[tuple[_Numbers, float, float]]:
    """Share of each bin, centre and spread: two of them to each power of two, of either sign."""
    for scale in 2.0 ** (np.arange(*EXPONENTS, 0.5) + 0.25):
        yield _shares_of(partial(_normal, 0.0, scale)), 0.0, scale
        for shares, center, spread in _positive_shapes(scale):
            yield shares, center, spread
            yield _mirrored(shares), -center, spread


def _positive_shapes(scale: float) -> Iterator[tuple[_Numbers, float, float]]:
    for width in _RELATIVE_SPREADS:
        spread = scale * width
        yield _shares_of(partial(_normal, scale, spread)), scale, spread
    for width in _LOG_SPREADS:
        skewed = _shares_of(partial(_log_normal, scale, width))
        spread = scale * min(_WIDEST, float(np.sinh(width)))
        yield skewed, scale, spread
        for share in _ZERO_SHARES:
            yield _with_zeros(skewed, share), (1.0 - share) * scale, spread
    for share in _ZERO_SHARES:  # two values
        mixed = _with_zeros(_shares_of(partial(_normal, scale, 0.1 * scale)), share)
        yield mixed, (1.0 - share) * scale, scale * float(np.sqrt(share * (1.0 - share)))


def _normal(center: float, spread: float, x: _Numbers) -> _Numbers:
    """Distribution function of a normal law."""
    return np.asarray(ndtr((x - center) / spread))


def _log_normal(median: float, width: float, x: _Numbers) -> _Numbers:
    """Distribution function of a log-normal law; the logarithm has this width."""
    positive = np.maximum(x / median, np.finfo(np.float64).tiny)
    return np.where(x > 0.0, ndtr(np.log(positive) / width), 0.0)


def _shares_of(distribution: Callable[[_Numbers], _Numbers]) -> _Numbers:
    """Share of every bin under a distribution function."""
    lower, upper = bin_edges()
    positive = distribution(upper) - distribution(lower)
    negative = distribution(-lower) - distribution(-upper)
    return np.concatenate([[0.0], positive, negative])


def _with_zeros(shares: _Numbers, share: float) -> _Numbers:
    mixed = (1.0 - share) * shares
    mixed[0] += share
    return mixed


def _mirrored(shares: _Numbers) -> _Numbers:
    half = N_BINS // 2
    return np.concatenate([shares[:1], shares[half + 1 :], shares[1 : half + 1]])
