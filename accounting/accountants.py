"""Epsilon and delta of an event, under the accountant of one's choice.

Every accountant returns an upper bound; "exact" and, up to its grid, "pld" are tight. In
every event, `noise_multiplier` is the standard deviation of the noise / l2 sensitivity for
the stated neighboring relation. dp_accounting's PLD means something else under
REPLACE_ONE; see `_pld.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import dp_accounting

from dpfc._support.validation import ACCOUNTANT, RELATION, check, check_float
from dpfc.accounting.events import (
    SelectionSteps,
    Steps,
    TooLittleNoiseError,
    UnsupportedEventError,
    composed_mu,
    gaussian_steps,
    has_no_noise,
    only_gaussian,
)
from dpfc.accounting.gaussian import gaussian_delta, gaussian_epsilon
from dpfc.accounting.numerics.pld import SMALLEST_DELTA, pld_delta, pld_epsilon
from dpfc.accounting.numerics.pld_step import LARGEST_LOSS
from dpfc.accounting.numerics.rdp import rdp_delta, rdp_epsilon

__all__ = [
    "ACCOUNTANTS",
    "checked_steps",
    "compute_delta",
    "compute_epsilon",
    "default_accountant",
    "epsilon_by_accountant",
    "exact_mu",
    "resolve_accountant",
    "trial_epsilon",
]

ACCOUNTANTS = ACCOUNTANT.options[1:]  # "auto" is one of them
_Bound = Callable[[tuple[Steps, ...], float, str], float]


def default_accountant(event: dp_accounting.DpEvent) -> str:
    """Name the tightest accountant for `event`.

    Returns
    -------
    {"exact", "pld", "rdp"}
        "exact" when every release is full batch, "pld" when one is Poisson sampled, "rdp"
        when there is a random search (`RepeatAndSelectDpEvent`), which no other covers.

    Raises
    ------
    UnsupportedEventError
        When no accountant evaluates `event`.
    """
    steps = gaussian_steps(event)
    if any(isinstance(step, SelectionSteps) for step in steps):
        return "rdp"
    return "pld" if any(step.is_sampled for step in steps) else "exact"


def resolve_accountant(
    accountant: str,
    event: dp_accounting.DpEvent,
    *,
    target_delta: float | None = None,
    neighboring_relation: str | None = None,
) -> str:
    """Return `accountant`, or for "auto" the tightest that covers what is asked.

    That is the default of `event`; "rdp" in place of "pld" at a `target_delta` that PLD does
    not resolve, unless `neighboring_relation` is "replace_one", under which RDP knows no bound.

    Raises
    ------
    UnsupportedEventError
        When no accountant evaluates `event`.
    ValueError
        When `accountant` is not one of "auto", "exact", "pld", "rdp".
    """
    check("accountant", accountant, ACCOUNTANT)
    if accountant != "auto":
        return accountant
    default = default_accountant(event)
    unresolved = target_delta is not None and 0 < target_delta < SMALLEST_DELTA
    if default == "pld" and unresolved and neighboring_relation != "replace_one":
        return "rdp"
    return default


def compute_epsilon(
    event: dp_accounting.DpEvent,
    target_delta: float,
    *,
    neighboring_relation: str,
    accountant: str = "auto",
) -> float:
    """Epsilon that `event` satisfies at `target_delta`.

    Parameters
    ----------
    event : DpEvent
        Compositions of full-batch and Poisson-sampled Gaussian releases, and of random
        searches over such (`RepeatAndSelectDpEvent`). A sampled release under
        `replace_one` must have l2 sensitivity 2C, where C bounds what one row adds.
    target_delta : float in [0, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        "auto": the tightest. "exact": closed form, full batch only. "pld": privacy loss
        distributions, delta of at least 1e-12; below that, "auto" is "rdp" for sampled
        releases. "rdp": Renyi divergences, looser; not for sampling under `replace_one`; the
        only one for random searches.

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
    accountant = resolve_accountant(
        accountant, event, target_delta=target_delta, neighboring_relation=neighboring_relation
    )
    steps = checked_steps(event, neighboring_relation)
    if not steps:
        return 0.0
    if target_delta == 0 or has_no_noise(steps):
        return math.inf
    bounds: dict[str, _Bound] = {"exact": _exact_epsilon, "pld": _pld_epsilon, "rdp": rdp_epsilon}
    return bounds[accountant](steps, target_delta, neighboring_relation)


def compute_delta(
    event: dp_accounting.DpEvent,
    target_epsilon: float,
    *,
    neighboring_relation: str,
    accountant: str = "auto",
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
    accountant = resolve_accountant(accountant, event)
    steps = checked_steps(event, neighboring_relation)
    if not steps:
        return 0.0
    if has_no_noise(steps):
        return 1.0
    bounds: dict[str, _Bound] = {"exact": _exact_delta, "pld": _pld_delta, "rdp": rdp_delta}
    return bounds[accountant](steps, target_epsilon, neighboring_relation)


def trial_epsilon(
    event: dp_accounting.DpEvent, target_delta: float, neighboring_relation: str, accountant: str
) -> float:
    """Return `compute_epsilon` for a search: infinity where epsilon is too large to tell."""
    try:
        return compute_epsilon(
            event, target_delta, neighboring_relation=neighboring_relation, accountant=accountant
        )
    except TooLittleNoiseError:
        return math.inf


def checked_steps(event: dp_accounting.DpEvent, neighboring_relation: str) -> tuple[Steps, ...]:
    """Flatten `event`, or raise for it or for a relation that is not one of ours."""
    check("neighboring_relation", neighboring_relation, RELATION)
    return gaussian_steps(event)


def _exact_epsilon(steps: tuple[Steps, ...], target_delta: float, _: str) -> float:
    return gaussian_epsilon(exact_mu(steps), target_delta)


def _exact_delta(steps: tuple[Steps, ...], target_epsilon: float, _: str) -> float:
    return gaussian_delta(exact_mu(steps), target_epsilon)


def exact_mu(steps: tuple[Steps, ...]) -> float:
    """Composed mu; raises UnsupportedEventError when a release is not full-batch Gaussian."""
    gaussian = only_gaussian(steps, "exact")
    if any(step.is_sampled for step in gaussian):
        raise UnsupportedEventError("exact has no closed form for Poisson sampling.")
    return composed_mu(gaussian)


def _pld_epsilon(steps: tuple[Steps, ...], target_delta: float, relation: str) -> float:
    epsilon = pld_epsilon(only_gaussian(steps, "pld"), target_delta, relation)
    if epsilon == math.inf:
        raise TooLittleNoiseError(
            f"pld counts privacy losses above {LARGEST_LOSS:g} in one release as infinite, and "
            f"they have more probability than target_delta={target_delta!r} in {steps!r}; the "
            "noise multiplier is too small."
        )
    return epsilon


def _pld_delta(steps: tuple[Steps, ...], target_epsilon: float, relation: str) -> float:
    return pld_delta(only_gaussian(steps, "pld"), target_epsilon, relation)


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
    accountants : sequence of {"auto", "exact", "pld", "rdp"}

    Returns
    -------
    dict
        An epsilon, or a text that starts with "unavailable", by accountant.
    """
    if isinstance(accountants, str):
        raise ValueError(f"accountants must be a list of names, got the text {accountants!r}.")
    epsilons: dict[str, float | str] = {}
    for name in accountants:
        try:
            epsilons[name] = compute_epsilon(
                event, target_delta, neighboring_relation=neighboring_relation, accountant=name
            )
        except UnsupportedEventError as error:
            epsilons[name] = f"unavailable: {error}"
    return epsilons
