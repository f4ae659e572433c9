"""Epsilon and delta of an event, under the accountant of one's choice.

Every accountant returns an upper bound; "exact" and, up to its grid, "pld" are tight. In
every event, `noise_multiplier` is the standard deviation of the noise / l2 sensitivity for
the stated neighboring relation. dp_accounting's PLD means something else under
REPLACE_ONE; `_pld.py` translates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import dp_accounting

from dpfc.accounting._checks import NEIGHBORING_RELATIONS, check_choice, check_float
from dpfc.accounting._events import (
    GaussianSteps,
    UnsupportedEventError,
    composed_mu,
    gaussian_steps,
)
from dpfc.accounting._pld import pld_delta, pld_epsilon
from dpfc.accounting._rdp import rdp_delta, rdp_epsilon
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon

ACCOUNTANTS: Final = ("exact", "pld", "rdp")

_Bound = Callable[[tuple[GaussianSteps, ...], float, str], float]


def default_accountant(event: dp_accounting.DpEvent) -> str:
    """Name the tightest accountant for `event`.

    Returns
    -------
    {"exact", "pld"}
        "exact" when every release is full batch, "pld" when one is Poisson sampled.

    Raises
    ------
    UnsupportedEventError
        When no accountant evaluates `event`.
    """
    return "pld" if any(step.is_sampled for step in gaussian_steps(event)) else "exact"


def compute_epsilon(
    event: dp_accounting.DpEvent,
    target_delta: float,
    *,
    neighboring_relation: str,
    accountant: str,
) -> float:
    """Epsilon that `event` satisfies at `target_delta`.

    Parameters
    ----------
    event : DpEvent
        Compositions of full-batch and Poisson-sampled Gaussian releases. A sampled one
        under `replace_one` must have l2 sensitivity 2C, where C bounds what one row adds.
    target_delta : float in [0, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountant : {"exact", "pld", "rdp"}
        "exact": closed form, full batch only. "pld": privacy loss distributions, delta of
        at least 1e-12. "rdp": Renyi divergences, looser; not for sampling under
        `replace_one`.

    Returns
    -------
    float
        An upper bound in [0, inf]; infinity for a release without noise.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate `event`.
    ValueError
        When a parameter is outside its interval.
    """
    target_delta = check_float("target_delta", target_delta, 0, 1, closed="left")
    steps = _checked_steps(event, neighboring_relation, accountant)
    if not steps:
        return 0.0
    if target_delta == 0 or any(step.noise_multiplier == 0 for step in steps):
        return math.inf
    bounds: dict[str, _Bound] = {"exact": _exact_epsilon, "pld": pld_epsilon, "rdp": rdp_epsilon}
    return bounds[accountant](steps, target_delta, neighboring_relation)


def compute_delta(
    event: dp_accounting.DpEvent,
    target_epsilon: float,
    *,
    neighboring_relation: str,
    accountant: str,
) -> float:
    """Delta that `event` satisfies at `target_epsilon`.

    Parameters
    ----------
    event, neighboring_relation, accountant
        As in `compute_epsilon`.
    target_epsilon : float in [0, inf)

    Returns
    -------
    float
        An upper bound in [0, 1]; 1 for a release without noise. "pld" returns at least
        1e-12.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate `event`.
    ValueError
        When a parameter is outside its interval.
    """
    target_epsilon = check_float("target_epsilon", target_epsilon, 0, math.inf, closed="left")
    steps = _checked_steps(event, neighboring_relation, accountant)
    if not steps:
        return 0.0
    if any(step.noise_multiplier == 0 for step in steps):
        return 1.0
    bounds: dict[str, _Bound] = {"exact": _exact_delta, "pld": pld_delta, "rdp": rdp_delta}
    return bounds[accountant](steps, target_epsilon, neighboring_relation)


def _checked_steps(
    event: dp_accounting.DpEvent, neighboring_relation: str, accountant: str
) -> tuple[GaussianSteps, ...]:
    check_choice("neighboring_relation", neighboring_relation, NEIGHBORING_RELATIONS)
    check_choice("accountant", accountant, ACCOUNTANTS)
    return gaussian_steps(event)


def _exact_epsilon(steps: tuple[GaussianSteps, ...], target_delta: float, _: str) -> float:
    return gaussian_epsilon(_exact_mu(steps), target_delta)


def _exact_delta(steps: tuple[GaussianSteps, ...], target_epsilon: float, _: str) -> float:
    return gaussian_delta(_exact_mu(steps), target_epsilon)


def _exact_mu(steps: tuple[GaussianSteps, ...]) -> float:
    if any(step.is_sampled for step in steps):
        raise UnsupportedEventError("exact has no closed form for Poisson sampling.")
    return composed_mu(steps)


def epsilon_by_accountant(
    event: dp_accounting.DpEvent,
    target_delta: float,
    *,
    neighboring_relation: str,
    accountants: Sequence[str],
) -> dict[str, float | str]:
    """Epsilon at `target_delta` by each accountant in turn, or why it cannot tell.

    Parameters
    ----------
    event : DpEvent
    target_delta : float
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountants : sequence of {"exact", "pld", "rdp"}

    Returns
    -------
    dict
        An epsilon, or a text that starts with "unavailable", by accountant.
    """
    epsilons: dict[str, float | str] = {}
    for name in accountants:
        try:
            epsilons[name] = compute_epsilon(
                event, target_delta, neighboring_relation=neighboring_relation, accountant=name
            )
        except UnsupportedEventError as error:
            epsilons[name] = f"unavailable: {error}"
    return epsilons
