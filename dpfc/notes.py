"""What a statement says of a fit's usefulness; from public quantities only."""

from __future__ import annotations

from dpfc.mechanisms import GaussianMechanism
from dpfc.queries import ClassSums

__all__ = ["fit_notes"]


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
    """
    mu, n_samples = mechanism.plan.mu, mechanism.known_n_samples
    if mu is None or n_samples is None or mechanism.exact:
        return []
    # A count that is lost in its noise says no more than that rows are about as few.
    n_samples = max(n_samples, mechanism.n_samples_noise())
    sensitivity = ClassSums().l2_sensitivity(1.0, mechanism.plan.neighboring_relation)
    needed = mechanism.n_classes * sensitivity / mu
    if n_samples >= needed:
        return []
    return [
        "(not about privacy) the budget is too small for better than a constant prediction to be "
        f"expected: there are about {n_samples:.0f} rows in {mechanism.n_classes} classes, and "
        f"{needed:.0f} are the least with which classes that could not be clearer would stand out "
        "from the noise; a larger epsilon needs fewer"
    ]
