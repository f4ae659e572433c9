"""The one way from private rows to what is published: a run that pays, draws, records and states.

Everything that spends a budget makes a `PrivateRun`, and every release of it is drawn by
`PrivateRun.release`. A mechanism tells it what is public of a sum, as a `BoundedSum`, and how to
compute the sum; the run states the noise, records the draw, pays for the whole plan, and only
then has the rows looked at. It refuses what the plan does not hold.
How it is added stands in `dpfc.mechanism.noisy_sum`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from dpfc._support.callers import warn_caller
from dpfc._support.late import torch
from dpfc.accounting import PrivacyPlan, PrivacyStatement, ReleaseRecord, make_statement
from dpfc.accounting.ledger.charges import Charge
from dpfc.accounting.ledger.ledger import LedgerError, PrivacyLedger
from dpfc.accounting.search_budget import SearchPlan
from dpfc.exceptions import PrivacyWarning
from dpfc.mechanism.delta import warn_of_large_delta
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.noisy_sum import BoundedSum, Release, sigma_of, with_noise
from dpfc.mechanism.paid_models import once_saved

__all__ = ["PrivateRun"]


class PrivateRun:
    """One spend of a budget: from the check that it can be paid to the statement of what ran.

    Parameters
    ----------
    noise : NoiseSource
    plan : PrivacyPlan, optional
        Noise multipliers by name; nothing else can be drawn. `open` sets it.
    ledger : path-like or None
    dataset : str or None
        Name of the budget in the ledger; the two go together.
    charge : Charge or None
        Of a run that is part of another, which pays for both.

    Attributes
    ----------
    plan : PrivacyPlan
        Of a search, its promise: what is drawn, parts of the run draw. `reallocate` alone changes
        it.
    on_release : callable or None
        Called with the name of each release once it is drawn, for progress bars.

    Raises
    ------
    ValueError
        If there is a ledger without the name of a budget in it, or the reverse.
    """

    def __init__(
        self,
        noise: NoiseSource,
        plan: PrivacyPlan | None = None,
        *,
        ledger: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        charge: Charge | None = None,
    ):
        if (ledger is None) != (dataset is None):
            raise ValueError(
                "ledger and dataset go together: the file, and the name of the budget in it."
            )
        self.noise = noise
        self.on_release: Callable[[str], None] | None = None
        self._ledger = ledger
        self._dataset = dataset
        self._charge = charge
        self._search: SearchPlan | None = None
        self._records: dict[str, ReleaseRecord] = {}
        self._plan = plan
        self._unit_of_spend = "row"

    # -- before anything is drawn ----------------------------------------------------

    def open(
        self,
        plan: PrivacyPlan | SearchPlan,
        purpose: str,
        *,
        token: str | None = None,
        begun: bool = False,
        drawn: bool = False,
        unit_of_spend: str = "row",
    ) -> None:
        """Take a plan, and check that what remains in the ledger, if there is one, pays for it.

        Parameters
        ----------
        plan : PrivacyPlan or SearchPlan
        purpose : str
            In words, supplied by code, without anything private.
        token : str, optional
            Of a run that processes go on with after one another. Whichever made the spend, it is
            found by this, and pays for all.
        begun, drawn : bool
            Whether an earlier process of the run has drawn something, or everything.
        unit_of_spend : {"row", "group"}
            What the plan's noise covers: one row, or all rows of a group.

        Raises
        ------
        LedgerError, BudgetExceeded
            As in `PrivacyLedger.spend`; nothing was spent. Also where a run that has begun has no
            spend, or one that is complete.

        Warns
        -----
        PrivacyWarning
            If delta is large.
        """
        self._search = plan if isinstance(plan, SearchPlan) else None
        self._plan = plan.promise if isinstance(plan, SearchPlan) else plan
        self._unit_of_spend = unit_of_spend
        warn_of_large_delta(self._plan)
        if self._ledger is None or self._dataset is None:
            return
        self._charge = Charge(
            self._ledger,
            self._dataset,
            plan.event,
            neighboring_relation=plan.neighboring_relation,
            purpose=purpose,
            seeded=self.noise.reproducible,  # such a run spends only where the ledger allows it
            paid=None if token is None else self._spend_made(token, begun),
            token=token,
            drawn=drawn,
            unit=unit_of_spend,
        )

    def _spend_made(self, token: str, begun: bool) -> int | None:
        """The spend that an earlier process of this run made."""
        assert self._ledger is not None and self._dataset is not None
        spend = PrivacyLedger.of(self._ledger).find_spend(self._dataset, token)
        if begun and spend is None:
            raise LedgerError(
                f"the ledger holds no spend of {self._dataset!r} that paid for what the checkpoint "
                "goes on from: name the ledger that did, or another checkpoint to start afresh."
            )
        return None if spend is None else spend.id

    def warn_if_seeded(self) -> None:
        """Warn the user whose call this is of noise that can be removed.

        Warns
        -----
        PrivacyWarning
        """
        if self.noise.reproducible:
            warn_caller(
                "random_state was given: anyone who knows the seed can remove the noise. "
                "The result must not be published.",
                PrivacyWarning,
            )

    def part(self, plan: PrivacyPlan) -> PrivateRun:
        """One of a search's fits and scores: of its own plan and records, paid for by the search.

        How many there are, the search's own rule decides, which its event accounts for.

        Raises
        ------
        RuntimeError
            If this is no search, or the plan costs more than any part of it may.
        """
        if self._search is None:
            raise RuntimeError("only a search that was opened has parts.")
        most = max(self._search.run_mu, self._search.refit_mu) * (1.0 + 1e-12)
        if plan.mu is None or not plan.mu <= most:
            raise RuntimeError(f"a part's plan has mu = {plan.mu!r}, above its share {most!r}.")
        return PrivateRun(self.noise, plan, charge=self._charge)

    # -- releases --------------------------------------------------------------------

    @property
    def plan(self) -> PrivacyPlan:
        """What may be drawn."""
        if self._plan is None:
            raise RuntimeError("a run is opened before it draws.")
        return self._plan

    @property
    def exact(self) -> bool:
        """Whether the plan asks for no noise (an infinite budget)."""
        return math.isinf(self.plan.target_epsilon)

    @property
    def records(self) -> list[ReleaseRecord]:
        """What was drawn so far, one entry a name."""
        return list(self._records.values())

    def record_of(self, name: str) -> ReleaseRecord | None:
        """What was drawn so far under a name."""
        return self._records.get(name)

    def go_on_after(self, records: Iterable[ReleaseRecord]) -> None:
        """Take what an earlier process of this run drew.

        Raises
        ------
        ValueError
            If it was not drawn under this plan.
        """
        records = list(records)
        if len({record.name for record in records}) < len(records):
            raise ValueError("it names a release twice")
        for record in records:
            if record.name not in {release.name for release in self.plan.releases}:
                raise ValueError("it names a release that this fit does not draw")
            planned = self.plan[record.name]
            drawn = (record.noise_multiplier, record.sampling_probability)
            if (
                drawn != (planned.noise_multiplier, planned.sampling_probability)
                or record.count > planned.count
            ):
                raise ValueError(f"its {record.name} is not what this fit would draw.")
        self._records = {record.name: record for record in records}

    def reallocate(self, name: str, share: float) -> None:
        """Give a release that was not drawn another share; the others not drawn pay for it.

        The share may depend on what was released already, and on nothing else that is private.

        Raises
        ------
        RuntimeError
            If the release was drawn already, or the new plan costs more than the old one.
        """
        if name in self._records:
            raise RuntimeError(f"{name} was drawn already; its share cannot change any more.")
        plan = self.plan.reallocated(name, share, keep=self._records)
        if plan.mu is None or self.plan.mu is None or not plan.mu <= self.plan.mu:
            raise RuntimeError(f"reallocation would raise mu from {self.plan.mu!r} to {plan.mu!r}.")
        self._plan = plan

    def pay(self) -> None:
        """Commit the whole plan's spend; does nothing when that was done.

        Raises
        ------
        LedgerError, BudgetExceeded
            Draw nothing then.
        RuntimeError
            If a ledger was named and `open` was not called.
        """
        if self._charge is not None:
            self._charge.commit()
        elif self._ledger is not None:
            raise RuntimeError("a run with a ledger is opened before it draws.")

    def noise_scale(self, name: str, of: BoundedSum) -> float:
        """Standard deviation of a release's noise; public, and nothing is drawn.

        Raises
        ------
        KeyError
            If the plan holds no such release.
        ValueError
            If it is not finite, or more than integers hold.
        """
        return sigma_of(name, of, self.plan[name].noise_multiplier) * of.unit

    @np.errstate(all="ignore")
    def release(self, name: str, of: BoundedSum, total: Callable[[], torch.Tensor]) -> Release:
        """Draw once: state the noise, record the draw, pay, then look at the rows and add noise.

        Parameters
        ----------
        name : str
            Of a planned release.
        of : BoundedSum
        total : callable
            Computes the sum, an int64 tensor of the stated shape on any device; called when it is
            paid for. Where the budget is infinite, it may be of float64, in real units.
            NumPy's warnings of overflow and the like, which single rows decide, are off meanwhile.

        Raises
        ------
        KeyError
            If the plan holds no such release.
        RuntimeError
            If all of its draws are spent, or the sum is not of the stated shape and type.
        ValueError
            If the noise's standard deviation is not finite, or more than integers hold.
        LedgerError, BudgetExceeded
            If it cannot be paid; nothing was drawn.
        """
        sigma = sigma_of(name, of, self.plan[name].noise_multiplier)
        record = self._next_record(name, of, sigma)
        self.pay()
        self._records[name] = record
        value = total()
        real = value.dtype == torch.float64 and self.exact and sigma == 0.0
        if not (real or value.dtype == torch.int64) or tuple(value.shape) != tuple(of.shape):
            raise RuntimeError(f"the sum of {name} is not of the shape and type that it stated.")
        if sigma > 0.0:
            value = with_noise(value, sigma, self.noise, symmetric=of.symmetric)
        if self.on_release is not None:
            self.on_release(name)
        return Release(value if real else value.to(torch.float64) * of.unit, sigma * of.unit)

    def _next_record(self, name: str, of: BoundedSum, sigma: float) -> ReleaseRecord:
        """Count one more draw of a planned release, or refuse it.

        Of draws of several sizes, the one with most noise is stated.
        """
        planned, before = self.plan[name], self._records.get(name)
        drawn = before.count if before else 0
        if drawn >= planned.count:
            raise RuntimeError(
                f"the plan holds {planned.count} draw(s) of {planned.name}; all are spent."
            )
        if before and before.noise_standard_deviation > sigma * of.unit:
            return before.model_copy(update={"count": drawn + 1})
        return ReleaseRecord(
            name=planned.name,
            description=f"sum over rows of {of.formula}",
            shape=list(of.shape),
            l2_sensitivity=of.l2_sensitivity * of.unit,
            numerical_slack=of.slack * of.unit if sigma > 0.0 else 0.0,
            noise_multiplier=planned.noise_multiplier,
            noise_standard_deviation=sigma * of.unit,
            sum_unit=None if self.exact else of.unit,
            count=drawn + 1,
            sampling_probability=planned.sampling_probability,
            share_of_budget=planned.share,
        )

    # -- when all is drawn -----------------------------------------------------------

    @property
    def unit_of_privacy(self) -> str:
        """What the noise covers: what the ledger's owner protects, or a row of it."""
        if self._charge is not None:
            return self._charge.unit_of_privacy
        return "one row" if self._unit_of_spend == "row" else "one group of rows"

    @np.errstate(all="ignore")
    def statement(
        self,
        estimator: str,
        rests_on: Sequence[str],
        *,
        kind: Literal["fit", "search", "evaluation", "summary"] = "fit",
        records: Sequence[ReleaseRecord] | None = None,
    ) -> PrivacyStatement:
        """Put together what ran.

        Parameters
        ----------
        estimator : str
        rests_on : sequence of str
        kind : {"fit", "search", "evaluation", "summary"}
        records : sequence of ReleaseRecord, optional
            Of a search, what is published of its parts.

        Raises
        ------
        RuntimeError
            When what ran exceeds the plan. Nothing of it may be published.
        """
        return make_statement(
            self.plan,
            self.records if records is None else records,
            estimator=estimator,
            seeded=self.noise.reproducible,
            rests_on=rests_on,
            random_source=self.noise.description,
            unit_of_privacy=self.unit_of_privacy,
            kind=kind,
            dataset=self._dataset,
            event=None if self._search is None else self._search.event,
        )

    def finish(self, statement: PrivacyStatement, forget: Callable[[], None] | None = None) -> None:
        """File what ran beside its spend, once a model is on disk, then `forget` the checkpoint.

        A ledger that cannot be written any more does not cost the result, which has its statement.

        Raises
        ------
        LedgerError
            If another process went on with the same spend and completed it: a second result of
            what was paid for once must not be used.

        Warns
        -----
        UserWarning
            If the statement could not be filed.
        """
        if self._charge is not None:
            self._charge.check_unfiled()

        def complete() -> None:
            if self._file(statement) and forget is not None:
                forget()  # else it stays: the same fit goes on from it, and files the statement

        once_saved(complete)

    def _file(self, statement: PrivacyStatement) -> bool:
        charge = self._charge
        try:
            if charge is not None:
                charge.complete(statement)
        except LedgerError as error:
            assert charge is not None
            charge.check_unfiled()
            warn_caller(
                f"the result is complete and its spend is in the ledger, but its statement could "
                f"not be filed there: {error} It is the result's privacy_; "
                f"PrivacyLedger.attach_statement({charge.spend_id}, …) files it.",
                UserWarning,
            )
            return False
        return True
