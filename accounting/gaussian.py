"""Exact differential privacy of the Gaussian mechanism.

A mechanism is mu-GDP when telling its outputs on two neighbours apart is as hard as
telling N(0, 1) from N(mu, 1). One Gaussian release with noise multiplier z is
(1/z)-GDP, and releases compose to mu^2 = sum 1/z^2 without loss.

References
----------
Balle and Wang (2018), "Improving the Gaussian Mechanism for Differential Privacy",
Theorem 8. Dong, Roth and Su (2022), "Gaussian Differential Privacy", Corollary 1 and
Corollary 2.
"""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtri

# The finest relative tolerance that brentq accepts.
from dpfc._support.validation import check_epsilon, check_float

_RTOL = 4 * 2.0**-52
# Rounding to the safe side starts with this relative step and doubles it.
_FIRST_STEP = 1e-14
_SMALLEST_FLOAT = math.ulp(0.0)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Smallest delta for which a mu-GDP mechanism is (epsilon, delta)-private.

    Parameters
    ----------
    mu : float in [0, inf]
        Composed privacy parameter; 0 releases nothing, infinity adds no noise.
    epsilon : float in [0, inf)

    Returns
    -------
    float
        delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu), in [0, 1].

    Raises
    ------
    ValueError
        When a parameter is outside its interval.

    References
    ----------
    Balle and Wang (2018), Theorem 8; Dong, Roth and Su (2022), Corollary 1.
    """
    mu = check_float("mu", mu, 0, math.inf, closed="both")
    epsilon = check_float("epsilon", epsilon, 0, math.inf, closed="left")
    return math.exp(_log_delta(mu, epsilon))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Smallest epsilon for which a mu-GDP mechanism is (epsilon, delta)-private.

    Rounded up: `gaussian_delta(mu, result) <= delta` holds as evaluated.

    Parameters
    ----------
    mu : float in [0, inf]
    delta : float in (0, 1)

    Returns
    -------
    float
        In [0, inf]; 0 when delta covers the total variation distance, infinity when mu
        is infinite.

    Raises
    ------
    ValueError
        When a parameter is outside its interval.
    """
    mu = check_float("mu", mu, 0, math.inf, closed="both")
    delta = check_float("delta", delta, 0, 1)
    if mu == math.inf:
        return math.inf
    if gaussian_delta(mu, 0) <= delta:
        return 0.0
    # delta <= Phi(mu/2 - epsilon/mu) <= exp(-(epsilon/mu - mu/2)^2 / 2) bounds epsilon.
    high = (mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta))) * (1 + 1e-9)
    if high == math.inf:  # no float is as large
        return math.inf
    target = math.log(delta)
    root = brentq(lambda e: _log_delta(mu, e) - target, 0.0, high, xtol=1e-300, rtol=_RTOL)
    epsilon, step = float(root), _FIRST_STEP
    while gaussian_delta(mu, epsilon) > delta:
        # A step from 0, or from next to nothing, still is one.
        epsilon = max(epsilon * (1 + step), _SMALLEST_FLOAT)
        step *= 2
        if epsilon == math.inf:
            break
    return epsilon


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Largest mu for which every mu-GDP mechanism is (epsilon, delta)-private.

    Rounded down: `gaussian_delta(result, epsilon) <= delta` and
    `gaussian_epsilon(result, delta) <= epsilon` hold as evaluated. The result is within
    1e-9, relative, of the optimum.

    Parameters
    ----------
    epsilon : float in (0, 1e15]
    delta : float in (0, 1)

    Returns
    -------
    float
        mu; one release needs the noise multiplier 1 / mu.

    Raises
    ------
    ValueError
        When a parameter is outside its interval.

    References
    ----------
    Balle and Wang (2018), Section 3.1 (the analytic Gaussian mechanism).
    """
    epsilon = check_epsilon("epsilon", epsilon)
    delta = check_float("delta", delta, 0, 1)
    low = _mu_below(epsilon, delta)
    target = math.log(delta)
    high = 2 * low
    while _log_delta(high, epsilon) <= target:
        high *= 2
    root = brentq(lambda m: _log_delta(m, epsilon) - target, low, high, xtol=1e-300, rtol=_RTOL)
    mu, step = float(root), _FIRST_STEP
    while gaussian_delta(mu, epsilon) > delta or gaussian_epsilon(mu, delta) > epsilon:
        mu = mu * (1 - step) if step < 1 else low
        step *= 2
        if mu <= low:  # which is private enough by a bound, whatever rounding makes of it
            return low
    return mu


def _mu_below(epsilon: float, delta: float) -> float:
    """Return a mu that is surely private enough: the root of Phi(mu/2 - epsilon/mu) = delta."""
    quantile = float(ndtri(delta))
    root = math.sqrt(quantile * quantile + 2 * epsilon)
    # Two forms of quantile + root; each adds numbers of one sign. The factor keeps
    # rounding from lifting the bracket's lower end above the optimum.
    by_tail = quantile + root if quantile > 0 else 2 * epsilon / (root - quantile)
    # Where epsilon is next to nothing: delta <= Phi(mu/2) - Phi(-mu/2) <= mu / sqrt(2 pi).
    return max(by_tail * (1 - 1e-9), 2 * delta)


def _log_delta(mu: float, epsilon: float) -> float:
    """Logarithm of the delta of a mu-GDP mechanism; -inf where it underflows."""
    if mu == 0:
        return -math.inf
    if mu == math.inf:
        return 0.0
    t = epsilon / mu - mu / 2
    if t >= 0:
        # e^epsilon phi(t + mu) = phi(t), so delta = phi(t) (M(t) - M(t + mu)) with Mills'
        # ratio M(x) = sqrt(pi/2) erfcx(x / sqrt(2)): nothing over- or underflows, and
        # little cancels.
        difference = float(erfcx(t / math.sqrt(2)) - erfcx((t + mu) / math.sqrt(2)))
        return math.log(difference / 2) - t * t / 2 if difference > 0 else -math.inf
    log_upper = float(log_ndtr(-t))
    gap = epsilon + float(log_ndtr(-t - mu)) - log_upper
    return log_upper + math.log(-math.expm1(gap)) if gap < 0 else -math.inf
