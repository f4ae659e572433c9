"""What everything that spends a budget does before its first draw."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

from dpfc.accounting import PrivacyPlan, PrivacyStatement
from dpfc.accounting.ledger.charges import Charge
from dpfc.accounting.ledger.ledger import LedgerError, PrivacyLedger
from dpfc.accounting.search_budget import SearchPlan
from dpfc.exceptions import PrivacyWarning
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.notes import warn_of_large_delta
from dpfc.mechanism.paid_models import once_saved

__all__ = ["check_ledger_pair", "finish", "open_charge", "warn_if_seeded"]


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
    token: str | None = None,
    begun: bool = False,
    drawn: bool = False,
) -> Charge | None:
    """Open the ledger, if there is one, and check that the plan fits what remains.

    Parameters
    ----------
    ledger, dataset, plan, purpose
        As in `dpfc.accounting.ledger.charges.Charge`.
    seeded : bool
        Such a run spends only where the ledger allows it; see `PrivacyLedger`.
    token : str, optional
        Of a run that processes go on with after one another. Whichever made the spend, it is
        found by this, and pays for all.
    begun, drawn : bool
        Whether an earlier process of the run has drawn something, or everything.

    Raises
    ------
    LedgerError, BudgetExceeded
        As in `PrivacyLedger.spend`; nothing was spent. Also where a run that has begun has no
        spend, or one that is complete.
    """
    warn_of_large_delta(plan)
    if ledger is None or dataset is None:
        return None
    paid = None
    if token is not None:
        spend = PrivacyLedger.of(ledger).find_spend(dataset, token)
        paid = None if spend is None else spend.id
        if begun and paid is None:
            raise LedgerError(
                f"the ledger holds no spend of {dataset!r} that paid for what the checkpoint goes "
                "on from: name the ledger that did, or another checkpoint to start afresh."
            )
    return Charge(
        ledger,
        dataset,
        plan.event,
        neighboring_relation=plan.neighboring_relation,
        purpose=purpose,
        seeded=seeded,
        paid=paid,
        token=token,
        drawn=drawn,
    )


def finish(
    charge: Charge | None, statement: PrivacyStatement, forget: Callable[[], None] | None = None
) -> None:
    """File what ran beside its spend, once the model is on disk, then `forget` the checkpoint.

    A ledger that cannot be written any more does not cost the model, which has its statement.

    Raises
    ------
    LedgerError
        If another process went on with the same spend and completed it: a second result of what
        was paid for once must not be used.

    Warns
    -----
    UserWarning
        If the statement could not be filed.
    """
    if charge is not None:
        charge.check_unfiled()

    def complete() -> None:
        try:
            if charge is not None:
                charge.complete(statement)
        except LedgerError as error:
            assert charge is not None
            charge.check_unfiled()
            warnings.warn(
                f"the model is complete and its spend is in the ledger, but its statement could "
                f"not be filed there: {error} It is the model's privacy_; "
                f"PrivacyLedger.attach_statement({charge.spend_id}, …) files it.",
                UserWarning,
                stacklevel=2,
            )
            return  # the checkpoint stays: the same fit goes on from it, and files it
        if forget is not None:
            forget()

    once_saved(complete)


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
