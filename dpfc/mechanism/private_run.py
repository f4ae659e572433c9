"""The one way from private rows to what is published: a run that pays, draws, records and states.

Everything that spends a budget makes a `PrivateRun`, and every release of it is drawn by
`PrivateRun.release`. A mechanism tells it what is public of a sum, as a `BoundedSum`, and how to
compute the sum; the run states the noise, records the draw, pays for the whole plan, and only
then has the rows looked at. It refuses what the plan does not hold.

How noise is added. With Δ the sum's sensitivity for the stated relation:

1. Rounding. The computed sum is within e of the exact one (`BoundedSum.rounding`),
   so the computed sums of neighbours are within Δ + 2e.
2. Grid. The sum is rounded to multiples of g, a power of two, which moves m entries
   by at most g √m / 2 in norm. Neighbours are then within Δ' = Δ + 2e + g √m.
3. Noise. N has standard deviation z Δ' in every direction and is rounded to the same
   grid. Sum and noise are then integers times g below 2⁵³ g, so they add exactly,
   and round(sum + N) = sum + round(N): the release is the exact Gaussian mechanism
   with noise multiplier z, rounded. No low-order bit carries the sum.

All of Δ, e, g, m and z are public.

References
----------
Dwork, Roth (2014), The Algorithmic Foundations of Differential Privacy, appendix A.
Balle, Wang (2018), Improving the Gaussian Mechanism for Differential Privacy.
Mironov (2012), On Significance of the Least Significant Bits for Differential Privacy.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
from dpfc.mechanism.grid import grid_noise, gridded_noise, on_grid
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.paid_models import once_saved

__all__ = ["BoundedSum", "PrivateRun", "Release"]


@dataclass(frozen=True)
class BoundedSum:
    """What is public of a sum over private rows.

    Attributes
    ----------
    formula : str
        Of a row's part.
    shape : sequence of int
    l2_sensitivity : float
        In exact arithmetic, for the plan's neighbouring relation.
    row_norm : float
        Longest part of a row.
    rounding : float
        Most that the computed sum is away from the exact one, in norm.
    symmetric : bool
        Whether the sum is of symmetric matrices, and its noise is to be.
    """

    formula: str
    shape: Sequence[int]
    l2_sensitivity: float
    row_norm: float
    rounding: float
    symmetric: bool = False


@dataclass(frozen=True)
class Release:
    """What a run returns: a value that may be published, and its noise.

    Attributes
    ----------
    value : torch.Tensor, float64
    noise_standard_deviation : float
        Of every entry (of the diagonal, for a symmetric release).
    """

    value: torch.Tensor
    noise_standard_deviation: float


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

    # -- before anything is drawn ----------------------------------------------------

    def open(
        self,
        plan: PrivacyPlan | SearchPlan,
        purpose: str,
        *,
        token: str | None = None,
        begun: bool = False,
        drawn: bool = False,
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

    def noise_scale(self, name: str, of: BoundedSum) -> tuple[float, float]:
        """Standard deviation z Δ' and grid step g; both 0 where nothing needs noise.

        Raises
        ------
        KeyError
            If the plan holds no such release.
        ValueError
            If the sum's bound is not finite although noise has to be scaled by it.
        """
        noise_multiplier = self.plan[name].noise_multiplier
        if noise_multiplier == 0.0 or of.l2_sensitivity == 0.0:
            return 0.0, 0.0
        return gridded_noise(
            name,
            l2_sensitivity=of.l2_sensitivity,
            noise_multiplier=noise_multiplier,
            rounding=of.rounding,
            row_norm=of.row_norm,
            entries=math.prod(of.shape),
        )

    @np.errstate(all="ignore")
    def release(self, name: str, of: BoundedSum, total: Callable[[], torch.Tensor]) -> Release:
        """Draw once: state the noise, record the draw, pay, then look at the rows and add noise.

        Parameters
        ----------
        name : str
            Of a planned release.
        of : BoundedSum
        total : callable
            Computes the sum, a float64 tensor of the stated shape; called when it is paid for.
            NumPy's warnings of overflow and the like, which single rows decide, are off meanwhile.

        Raises
        ------
        KeyError
            If the plan holds no such release.
        RuntimeError
            If all of its draws are spent, or the sum is not of the stated shape.
        ValueError
            If the sum's bound is not finite although noise has to be scaled by it.
        LedgerError, BudgetExceeded
            If it cannot be paid; nothing was drawn.
        """
        scale, grid = self.noise_scale(name, of)
        record = self._next_record(name, of, scale)
        self.pay()
        self._records[name] = record
        value = total()
        if value.dtype != torch.float64 or tuple(value.shape) != tuple(of.shape):
            raise RuntimeError(f"the sum of {name} is not of the shape and type that it stated.")
        if scale > 0.0:
            noise = grid_noise(self.noise, value.shape, scale, grid, symmetric=of.symmetric)
            value = on_grid(value, grid).add_(noise.to(value.device))
        if self.on_release is not None:
            self.on_release(name)
        return Release(value, scale)

    def _next_record(self, name: str, of: BoundedSum, scale: float) -> ReleaseRecord:
        """Count one more draw of a planned release, or refuse it.

        What the scale exceeds z times the sensitivity by is for rounding. Slack and scale are the
        largest of all draws.
        """
        planned, before = self.plan[name], self._records.get(name)
        drawn = before.count if before else 0
        if drawn >= planned.count:
            raise RuntimeError(
                f"the plan holds {planned.count} draw(s) of {planned.name}; all are spent."
            )
        slack = scale / planned.noise_multiplier - of.l2_sensitivity if scale > 0.0 else 0.0
        return ReleaseRecord(
            name=planned.name,
            description=f"sum over rows of {of.formula}",
            shape=list(of.shape),
            l2_sensitivity=of.l2_sensitivity,
            numerical_slack=max(slack, before.numerical_slack if before else 0.0),
            noise_multiplier=planned.noise_multiplier,
            noise_standard_deviation=max(scale, before.noise_standard_deviation if before else 0.0),
            count=drawn + 1,
            sampling_probability=planned.sampling_probability,
            share_of_budget=planned.share,
        )

    # -- when all is drawn -----------------------------------------------------------

    @property
    def unit_of_privacy(self) -> str:
        """What the ledger's owner protects; a row where there is no ledger."""
        return "one row" if self._charge is None else self._charge.budget.unit_of_privacy

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
