"""What several rows cost: from a guarantee for one row to one for a group of rows, and back.

All here holds for both neighbouring relations: a group of k rows is k rows added, removed or
replaced one after the other.

References
----------
Dong, Roth and Su (2022), "Gaussian Differential Privacy", the theorem on group privacy (2.14 in
arXiv:1905.02383). Vadhan (2017), "The
Complexity of Differential Privacy", Lemma 2.2. Ganesh (2024), "Tight Group-Level DP Guarantees for
DP-SGD with Sampling via Mixture of Gaussians Mechanisms".
"""

from __future__ import annotations

import dp_accounting
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc._support.validation import check_int
from dpfc.accounting.events import UnsupportedEventError

__all__ = ["event_of_group"]


def event_of_group(event: dp_accounting.DpEvent, rows: int) -> dp_accounting.DpEvent:
    """What an event, whose noise multipliers are for one row, is for a group of rows.

    Exact for full-batch Gaussian releases: k rows move a sum at most k times as far as one, so
    that each noise multiplier is divided by k, and μ is multiplied by it. What is composed of
    them, however adaptively, and searches with random stopping over them, are the same of the
    divided parts: their theorems are about two data sets, whatever lies between these.

    Parameters
    ----------
    event : DpEvent
    rows : int >= 1

    Raises
    ------
    UnsupportedEventError
        If a release is of samples of the rows: how many of a group's rows a sample holds is
        random, and no Gaussian release says what that costs.

    References
    ----------
    Dong, Roth and Su (2022), Theorem 2.14: a μ-GDP mechanism is kμ-GDP for groups of k.
    """
    rows = check_int("rows", rows, 1)
    return event if rows == 1 else _divided(event, rows)


def _divided(event: dp_accounting.DpEvent, rows: int) -> dp_accounting.DpEvent:
    match event:
        case dp_accounting.NoOpDpEvent() | dp_accounting.NonPrivateDpEvent():
            return event
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            return dp_accounting.GaussianDpEvent(z / rows)
        case dp_accounting.SelfComposedDpEvent(event=part, count=count):
            return dp_accounting.SelfComposedDpEvent(_divided(part, rows), count)
        case dp_accounting.ComposedDpEvent(events=parts):
            return dp_accounting.ComposedDpEvent([_divided(part, rows) for part in parts])
        case RepeatAndSelectDpEvent(event=part, mean=mean, shape=shape):
            return RepeatAndSelectDpEvent(_divided(part, rows), mean, shape)
        case _:
            raise UnsupportedEventError(
                f"a release of samples of the rows has no Gaussian event for {rows} rows together."
            )
