"""What everything that spends a budget does before its first draw."""

from __future__ import annotations

import os
import warnings

from dpfc.accounting import PrivacyPlan
from dpfc.accounting.ledger import Charge
from dpfc.accounting.search_plan import SearchPlan
from dpfc.exceptions import PrivacyWarning
from dpfc.noise import NoiseSource

__all__ = ["check_ledger_pair", "open_charge", "warn_if_seeded"]


def check_ledger_pair(ledger: object, dataset: object) -> None:
    """Refuse a ledger without the name of a budget in it, and the reverse.

    Raises
    ------
    ValueError
    """
    if (ledger is None) != (dataset is None):
        raise ValueError(
            "ledger and dataset go together: the file, and the name of the budget in it."
        )


def open_charge(
    ledger: str | os.PathLike[str] | None,
    dataset: str | None,
    plan: PrivacyPlan | SearchPlan,
    purpose: str,
    *,
    seeded: bool,
    paid: int | None = None,
) -> Charge | None:
    """Open the ledger, if there is one, and check that the plan fits what remains.

    A `seeded` run spends only where the ledger allows it; see `PrivacyLedger`. `paid` names the
    spend of a stopped process that this one goes on for.

    Raises
    ------
    LedgerError, BudgetExceeded
        As in `PrivacyLedger.spend`; nothing was spent.
    """
    if ledger is None or dataset is None:
        return None
    return Charge(
        ledger,
        dataset,
        plan.event,
        neighboring_relation=plan.neighboring_relation,
        purpose=purpose,
        seeded=seeded,
        paid=paid,
    )


def warn_if_seeded(noise: NoiseSource) -> None:
    """Warn the caller of the function that calls this.

    Warns
    -----
    PrivacyWarning
    """
    if noise.reproducible:
        warnings.warn(
            "random_state was given: anyone who knows the seed can remove the noise. "
            "The result must not be published.",
            PrivacyWarning,
            stacklevel=3,
        )
