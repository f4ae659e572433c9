"""What a delta that is too large for its promise is told of, before a spend and in a statement."""

from __future__ import annotations

import math

from dpfc._support.callers import warn_caller
from dpfc.accounting import PrivacyPlan
from dpfc.exceptions import PrivacyWarning

__all__ = ["delta_notes", "warn_of_large_delta"]

LARGE_DELTA = 1e-3


def warn_of_large_delta(plan: PrivacyPlan) -> None:
    """Warn, before the spend, of a delta that promises little.

    Warns
    -----
    PrivacyWarning
    """
    if plan.target_delta > LARGE_DELTA and not math.isinf(plan.target_epsilon):
        warn_caller(
            f"delta={plan.target_delta:g} is above {LARGE_DELTA:g}: delta is the share of cases "
            "in which epsilon may not hold at all. Take one far below 1 over the number of rows, "
            "such as 1e-6.",
            PrivacyWarning,
        )


def delta_notes(plan: PrivacyPlan, n_samples: float | None) -> list[str]:
    """Say that delta is no less than 1 over the number of rows, where that is public or paid for.

    Returns
    -------
    list of str

    Warns
    -----
    PrivacyWarning
        With the sentence.
    """
    if n_samples is None or math.isinf(plan.target_epsilon):
        return []
    if not plan.target_delta * n_samples >= 1.0:
        return []
    text = (
        f"delta={plan.target_delta:g} is not below 1 over the number of rows (about "
        f"{n_samples:.0f}): publishing one row in the clear would keep such a promise"
    )
    warn_caller(f"{text}. Take a smaller delta.", PrivacyWarning)
    return [f"NOT COVERED: {text}"]
