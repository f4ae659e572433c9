"""Whether a budget is too small for its rows; from public quantities and paid releases."""

from __future__ import annotations

import math

from dpfc._support.callers import warn_caller
from dpfc.accounting import PrivacyPlan
from dpfc.accounting.gaussian import gaussian_epsilon
from dpfc.exceptions import BudgetWarning
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.queries import ClassSums

__all__ = ["fit_notes", "training_notes"]

_TOO_SMALL = "the budget is too small for better than a constant prediction to be expected: "


def fit_notes(mechanism: GaussianMechanism) -> list[str]:
    """Say whether the budget is too small for these rows and classes.

    The clearest classes that there can be have rows that are all alike within a class and
    at right angles between classes. The sum of a class's n/K rows then gives a row of that
    class a score of n/K, and noise of standard deviation Δ/μ moves each class's score. Below
    a ratio of 1, noise decides even there.

    Parameters
    ----------
    mechanism : GaussianMechanism
        After the fit.

    Returns
    -------
    list of str
        Sentences. Empty where there is nothing to say, or the number of rows was never released.

    Warns
    -----
    BudgetWarning
        With the sentence.
    """
    mu, n_samples = mechanism.run.plan.mu, mechanism.known_n_samples
    if mu is None or n_samples is None or mechanism.run.exact:
        return []
    # A count that is lost in its noise says no more than that rows are about as few.
    n_samples = max(n_samples, mechanism.n_samples_noise())
    sensitivity = ClassSums.relation_factor(mechanism.run.plan.neighboring_relation)
    needed = mechanism.n_classes * sensitivity / mu
    if n_samples >= needed:
        return []
    epsilon = gaussian_epsilon(needed * mu / n_samples, mechanism.run.plan.target_delta)
    return _warned(
        f"{_TOO_SMALL}there are about {n_samples:.0f} {mechanism.counted} in "
        f"{mechanism.n_classes} classes, and "
        f"{needed:.0f} are the least with which classes that could not be clearer would stand out "
        f"from the noise; with so many, epsilon would have to be {epsilon:.2g} at least"
    )


def training_notes(
    plan: PrivacyPlan, gradient: str, n_samples: float, n_classes: int, sensitivity: float
) -> list[str]:
    """Say the same of noisy gradients.

    Over T steps that draw a share q of the rows, the gradients of a class's n/K rows add up to
    q T n/K of their bound at most, and the noise to σ √T of it.

    Parameters
    ----------
    plan : PrivacyPlan
    gradient : str
        Name of the release.
    n_samples : float
        Public, or noisy and paid for.
    n_classes : int
    sensitivity : float
        Of a sum, in units of the bound.

    Returns
    -------
    list of str

    Warns
    -----
    BudgetWarning
        With the sentence.
    """
    steps = plan[gradient]
    noise = steps.noise_multiplier * sensitivity
    needed = n_classes * noise / (steps.sampling_probability * math.sqrt(steps.count))
    if not n_samples < needed:
        return []
    return _warned(
        f"{_TOO_SMALL}there are about {n_samples:.0f} rows in {n_classes} classes, and "
        f"{needed:.0f} are the least with which gradients that all agree within a class would "
        "stand out from the noise; a larger epsilon needs fewer"
    )


def _warned(text: str) -> list[str]:
    warn_caller(f"{text}.", BudgetWarning)
    return [f"(not about privacy) {text}"]
