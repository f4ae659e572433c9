"""Renyi differential privacy (RDP), through dp_accounting.

dp_accounting's RDP accountant reads a noise multiplier as sigma / sensitivity for the
stated relation, which is our meaning: nothing is translated. Random searches are added
here, from the same theorems, because dp_accounting's loops over pairs of orders in Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import dp_accounting
import numpy as np
from absl import logging as absl_logging
from dp_accounting.rdp import rdp_privacy_accountant
from numpy.typing import NDArray

from dpfc.accounting.events import (
    GaussianSteps,
    SelectionSteps,
    Steps,
    UnsupportedEventError,
    gaussian_steps,
    has_no_noise,
)
from dpfc.accounting.numerics.rdp_selection import renyi_deltas, selection_divergences
from dpfc.accounting.plans import release_event

Floats = NDArray[np.float64]

# The best order of a Gaussian is near 1 + sqrt(2 log(1/delta)) / mu, so this reaches from
# mu = 1e-6 to mu = 100. A full-batch release has a closed form at every order.
_FULL_BATCH_ORDERS = 1 + np.geomspace(0.05, 1e7, 400)
# A sampled release costs a sum of as many terms as the order: few, mostly whole orders.
_SAMPLED_ORDERS = np.array(
    [1.1, 1.25, 1.5, 1.75, 2.25, 2.5, 2.75, 3.5, 4.5]
    + [float(order) for order in range(2, 33)]
    + [40.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1024.0]
)
# dp_accounting sums log E[ratio^order] of one sampled step from terms of the size of
# order * q, each with a relative error of up to 1e-12. An order where the sum is not well
# above that is left out: many steps multiply the error, and a sum below 0 would be read as
# epsilon = 0.
_SMALLEST_LOG_MOMENT = 1e-10
# Measured against sums in 50 digits, orders 1.1 to 100,000: never above a tenth of the bound.
_ULPS = 4
_ROUNDING = 1e-15
_SMALLEST_FLOAT = math.ulp(0.0)
# Smaller ones are raised to this: the conversion to delta would take the logarithm of 0.
_SMALLEST_DIVERGENCE = 1e-15


def rdp_epsilon(steps: tuple[Steps, ...], target_delta: float, neighboring_relation: str) -> float:
    """Upper bound on the epsilon of composed `steps`.

    Raises
    ------
    UnsupportedEventError
        When a release is sampled under `replace_one`, or no order gives a bound.

    References
    ----------
    Canonne, Kamath and Steinke (2020), Proposition 12.
    """
    orders, divergences = _reliable_divergences(steps, neighboring_relation)
    return float(rdp_privacy_accountant.compute_epsilon(orders, divergences, target_delta)[0])


def rdp_delta(steps: tuple[Steps, ...], target_epsilon: float, neighboring_relation: str) -> float:
    """Upper bound on the delta of composed `steps`; raises as `rdp_epsilon` does."""
    return float(rdp_deltas(steps, neighboring_relation)(np.array([target_epsilon]))[0])


def rdp_deltas(steps: tuple[Steps, ...], neighboring_relation: str) -> Callable[[Floats], Floats]:
    """Return the function from epsilons (n,) to upper bounds on delta (n,)."""
    return partial(renyi_deltas, *_reliable_divergences(steps, neighboring_relation))


def renyi_divergences(
    event: dp_accounting.DpEvent, orders: Sequence[float], neighboring_relation: str
) -> tuple[float, ...]:
    """Upper bounds on the Renyi divergence of `event` at each of `orders`, in nats.

    Parameters
    ----------
    event : DpEvent
    orders : sequence of float, each > 1
        The bound of a random search at one order draws on all of them.
    neighboring_relation : {"add_or_remove_one", "replace_one"}

    Returns
    -------
    tuple of float
        Infinite where there is no noise, or no reliable figure.

    Raises
    ------
    UnsupportedEventError
        When a release is sampled under `replace_one`, or `event` is of another kind.
    """
    steps = gaussian_steps(event)
    return tuple(_divergences(steps, np.array(orders, dtype=float), neighboring_relation).tolist())


def _reliable_divergences(
    steps: tuple[Steps, ...], neighboring_relation: str
) -> tuple[Floats, Floats]:
    """Return orders and the composed Renyi divergence at each, in nats."""
    sampled = any(step.is_sampled for step in steps)
    orders = _SAMPLED_ORDERS if sampled else _FULL_BATCH_ORDERS
    divergences = _divergences(steps, orders, neighboring_relation)
    usable = np.isfinite(divergences)
    if not usable.any():
        raise UnsupportedEventError(f"rdp finds no order with a reliable bound for {steps!r}.")
    return orders[usable], np.maximum(divergences[usable], _SMALLEST_DIVERGENCE)


def _divergences(steps: tuple[Steps, ...], orders: Floats, neighboring_relation: str) -> Floats:
    if neighboring_relation == "replace_one" and any(step.is_sampled for step in steps):
        raise UnsupportedEventError("rdp has no bound for Poisson sampling under 'replace_one'.")
    total = np.zeros(orders.shape)
    if has_no_noise(steps):
        return np.full(orders.shape, math.inf)
    for step in steps:
        if isinstance(step, SelectionSteps):
            inner = _divergences(step.inner, orders, neighboring_relation)
            total += step.count * selection_divergences(orders, inner, step.mean, step.shape)
        else:
            total += step.count * _one_release(step, orders)
    return total


def _one_release(step: GaussianSteps, orders: Floats) -> Floats:
    """Divergences of one Gaussian release, rounded up; infinite where there is no figure."""
    z, q = step.noise_multiplier, step.sampling_probability
    if not step.is_sampled:
        with np.errstate(divide="ignore", over="ignore"):  # to infinity, which is an upper bound
            return np.asarray(orders / (2 * z * z) * (1 + _ROUNDING) + _SMALLEST_FLOAT)
    # A divergence falls as noise rises: where it is too small to be told from rounding, the one
    # at less noise is a bound, and epsilon never rises with noise.
    least = np.minimum(z, np.sqrt((orders - 1) * q / (4 * _SMALLEST_LOG_MOMENT)))
    divergences = np.empty(orders.shape)
    for noise in np.unique(least):
        divergences[least == noise] = _sampled_release(noise, q, orders[least == noise])
    with np.errstate(over="ignore"):
        # Renyi divergence's moments are convex in either argument: the sampled release is a
        # mixture, of share q, of the full one and of nothing.
        moments = np.expm1(orders * (orders - 1) / (2 * z * z) * (1 + _ROUNDING))
        mixed = np.log1p(q * moments) / (orders - 1) * (1 + _ROUNDING) + _SMALLEST_FLOAT
    return np.minimum(divergences, np.where(np.isfinite(mixed), mixed, math.inf))


def _sampled_release(z: float, q: float, orders: Floats) -> Floats:
    """Divergences as dp_accounting sums them, rounded up; infinite where that says nothing."""
    event = release_event(z, 1, q)
    with _without_absl_warnings():  # a series that does not converge counts as infinite
        divergences = rdp_privacy_accountant.RdpAccountant(orders).compose(event).rdp
    log_moments = divergences * (orders - 1)
    errors = _log_moment_error(q, orders, log_moments)
    reliable = log_moments > _SMALLEST_LOG_MOMENT * orders * q
    return np.asarray(np.where(reliable, divergences + errors / (orders - 1), math.inf))


def _log_moment_error(q: float, orders: Floats, log_moments: Floats) -> Floats:
    """Bound the rounding of dp_accounting's sum of a sampled release.

    Each term but the first is off by the rounding of logarithms of factorials, of the size of
    order * log(order), and of order * log(q). Those terms make up at most the share
    1 - (1 - q)^order / moment of the sum. Adding them up is off by an ulp for each.
    """
    size = orders * (np.log(orders + 1) - math.log(q) + 1)
    share = np.minimum(1.0, log_moments - orders * math.log1p(-q))
    return np.asarray(_ULPS * 2.0**-52 * (size * share + orders * log_moments))


@contextmanager
def _without_absl_warnings() -> Iterator[None]:
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)
