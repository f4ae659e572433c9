"""Renyi differential privacy (RDP), through dp_accounting.

dp_accounting's RDP accountant reads a noise multiplier as sigma / sensitivity for the
stated relation, which is our meaning: nothing is translated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from absl import logging as absl_logging
from dp_accounting.rdp import rdp_privacy_accountant
from numpy.typing import NDArray

from dpfc.accounting._events import GaussianSteps, UnsupportedEventError
from dpfc.accounting.plans import release_event

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
# Below this, dp_accounting's conversion to delta takes the logarithm of 0.
_SMALLEST_DIVERGENCE = 1e-15


def rdp_epsilon(
    steps: tuple[GaussianSteps, ...], target_delta: float, neighboring_relation: str
) -> float:
    """Upper bound on the epsilon of composed `steps`.

    Raises
    ------
    UnsupportedEventError
        When a release is sampled under `replace_one`, or no order gives a bound.

    References
    ----------
    Canonne, Kamath and Steinke (2020), Proposition 12.
    """
    orders, divergences = _divergences(steps, neighboring_relation)
    return float(rdp_privacy_accountant.compute_epsilon(orders, divergences, target_delta)[0])


def rdp_delta(
    steps: tuple[GaussianSteps, ...], target_epsilon: float, neighboring_relation: str
) -> float:
    """Upper bound on the delta of composed `steps`; raises as `rdp_epsilon` does."""
    orders, divergences = _divergences(steps, neighboring_relation)
    return float(rdp_privacy_accountant.compute_delta(orders, divergences, target_epsilon)[0])


def _divergences(
    steps: tuple[GaussianSteps, ...], neighboring_relation: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return orders and the composed Renyi divergence at each, in nats."""
    sampled = any(step.is_sampled for step in steps)
    if sampled and neighboring_relation == "replace_one":
        raise UnsupportedEventError("rdp has no bound for Poisson sampling under 'replace_one'.")
    orders = _SAMPLED_ORDERS if sampled else _FULL_BATCH_ORDERS
    usable = np.full(orders.shape, True)
    total = np.zeros(orders.shape)
    for step in steps:
        event = release_event(step.noise_multiplier, 1, step.sampling_probability)
        with _without_absl_warnings():  # orders whose series does not converge are left out
            divergences = rdp_privacy_accountant.RdpAccountant(orders).compose(event).rdp
        if step.is_sampled:
            rounding = _SMALLEST_LOG_MOMENT * orders * step.sampling_probability
            usable &= divergences * (orders - 1) > rounding
        total += step.count * divergences
    usable &= np.isfinite(total) & (total > _SMALLEST_DIVERGENCE)
    if not usable.any():
        raise UnsupportedEventError(f"rdp finds no order with a reliable bound for {steps!r}.")
    return orders[usable], total[usable]


@contextmanager
def _without_absl_warnings() -> Iterator[None]:
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)
