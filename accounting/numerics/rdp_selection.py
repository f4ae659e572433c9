"""The cost of running a private algorithm a random number of times and keeping the best run.

Everything but the best run stays secret: the number of runs, the losers and their scores.

References
----------
Papernot and Steinke (2022), "Hyperparameter Tuning with Renyi Differential Privacy",
Theorem 2 (truncated negative binomial) and Theorem 6 (Poisson).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]

# The conversion cancels near order 1; dp_accounting leaves the same orders out.
_SMALLEST_ORDER = 1.01
# Relative; gamma is rounded down by as much, which raises the bound.
_TOLERANCE = 1e-12


def selection_divergences(orders: Floats, divergences: Floats, mean: float, shape: float) -> Floats:
    """Renyi divergences of a random search, from those of one of its runs.

    Parameters
    ----------
    orders : array of shape (n_orders,)
        Each > 1.
    divergences : array of shape (n_orders,)
        Upper bounds for one run, in nats; infinite where none is known.
    mean : float in [1, inf)
        Mean number of runs.
    shape : float in [0, inf]
        Infinite: Poisson. 1: geometric. 0: logarithmic. Otherwise truncated negative
        binomial.

    Returns
    -------
    array of shape (n_orders,)
    """
    if math.isinf(shape):
        extra = mean * _delta_of_poisson(orders, divergences)
    else:
        gamma = negative_binomial_gamma(mean, shape)
        constants = (1 - 1 / orders) * divergences - math.log(gamma) / orders
        extra = (1 + shape) * np.full(orders.shape, constants.min())
    bounds = divergences + extra + math.log(mean) / (orders - 1)
    # A Renyi divergence rises with its order: a bound holds at all smaller orders too.
    rising = np.argsort(orders)
    bounds[rising] = np.minimum.accumulate(bounds[rising][::-1])[::-1]
    return bounds


def negative_binomial_gamma(mean: float, shape: float) -> float:
    """Parameter gamma in (0, 1] of a truncated negative binomial law, rounded down.

    Papernot and Steinke (2022), Definition 1: its mean is

        shape (1/gamma - 1) / (1 - gamma^shape), and (1/gamma - 1) / log(1/gamma) at shape 0.
    """
    if mean == 1:
        return 1.0

    def log_miss(log_gamma: float) -> float:
        # log of (1/gamma - 1) / g with g = (1 - gamma^shape) / shape or its limit.
        spread = -log_gamma if shape == 0 else -math.expm1(shape * log_gamma) / shape
        odds = math.log(-math.expm1(log_gamma)) - log_gamma
        return odds - math.log(spread) - math.log(mean)

    # The mean is at most (shape + 1) / gamma and at least (1/gamma - 1) / log(1/gamma).
    low, high = -math.log(mean) - 2 * math.log(mean + 2) - 2, -1e-15
    if log_miss(high) >= 0:
        return math.exp(high)
    root = brentq(log_miss, low, high, xtol=1e-300, rtol=_TOLERANCE)
    return math.exp(root * (1 + 2 * _TOLERANCE))


def _delta_of_poisson(orders: Floats, divergences: Floats) -> Floats:
    """Delta of one run at epsilon = log(1 + 1 / (order - 1)), for each order."""
    epsilons = -np.log1p(-1 / orders)
    return renyi_deltas(orders, divergences, epsilons)


def renyi_deltas(orders: Floats, divergences: Floats, epsilons: Floats) -> Floats:
    """Upper bounds on delta at `epsilons` (n,) from Renyi divergences (n_orders,).

    The smaller of log delta = (a - 1) (R - epsilon + log(1 - 1/a)) - log a at the best order
    a, and of delta = sqrt(1 - exp(-R)), which bounds the total variation.

    References
    ----------
    Canonne, Kamath and Steinke (2020), Proposition 12. Canonne (2022), "A short note on an
    inequality between KL and TV", for the second.
    """
    converted = orders > _SMALLEST_ORDER
    a, r = orders[converted, None], divergences[converted, None]
    log_deltas = (a - 1) * (r - epsilons + np.log1p(-1 / a)) - np.log(a)
    with np.errstate(divide="ignore"):
        by_variation = 0.5 * np.log(-np.expm1(-divergences.min()))
    return np.asarray(np.exp(np.minimum(log_deltas.min(axis=0, initial=0.0), by_variation)))
