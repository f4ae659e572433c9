"""What a search will cost, in words, before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpfc._support.words import plural
from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
from dpfc.accounting.search_budget import SearchPlan

__all__ = ["SearchCost"]


@dataclass(frozen=True)
class SearchCost:
    """Budget of a search and of its parts; all of it is public.

    Attributes
    ----------
    strategy : {"composition", "random_stopping"}
    n_candidates : int
    expected_runs : float
        Fits on the training part, on average under random stopping.
    epsilon, delta : float
        Of the whole search.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    single_mu : float
        What one fit without a search would have had, at `epsilon`.
    run_epsilon, run_mu : float
        What each run's fit and score get; `run_epsilon` is at `delta`.
    refit_epsilon, refit_mu : float or None
        What the refit on all rows gets; None where there is none.
    """

    strategy: str
    n_candidates: int
    expected_runs: float
    epsilon: float
    delta: float
    neighboring_relation: str
    single_mu: float
    run_epsilon: float
    run_mu: float
    refit_epsilon: float | None
    refit_mu: float | None

    @classmethod
    def of(cls, plan: SearchPlan) -> SearchCost:
        """Read the figures off a plan."""
        epsilon, delta = plan.promise.target_epsilon, plan.promise.target_delta
        return cls(
            strategy="composition" if plan.law is None else "random_stopping",
            n_candidates=plan.n_candidates,
            expected_runs=float(plan.n_candidates if plan.law is None else plan.law.mean),
            epsilon=epsilon,
            delta=delta,
            neighboring_relation=plan.promise.neighboring_relation,
            single_mu=math.inf if epsilon == math.inf else gaussian_mu(epsilon, delta),
            run_epsilon=gaussian_epsilon(plan.run_mu, delta),
            run_mu=plan.run_mu,
            refit_epsilon=gaussian_epsilon(plan.refit_mu, delta) if plan.has_refit else None,
            refit_mu=plan.refit_mu if plan.has_refit else None,
        )

    def __str__(self) -> str:
        runs = (
            "each runs once"
            if self.strategy == "composition"
            else f"{self.expected_runs:g} {plural(self.expected_runs, 'run')} on average, "
            "the number stays secret"
        )
        lines = [
            f"Search by {self.strategy.replace('_', ' ')} among {self.n_candidates} "
            f"{plural(self.n_candidates, 'candidate')}, {runs}.",
            f"The whole search is (ε = {self.epsilon:g}, δ = {self.delta:g})-DP, "
            f"{self.neighboring_relation}.",
            _line("a single fit without a search would have", self.epsilon, self.single_mu),
            _line("each run's fit and score have", self.run_epsilon, self.run_mu),
        ]
        if self.refit_epsilon is None or self.refit_mu is None:
            lines.append("  no refit: the best run's model, from the training part, is the result")
        else:
            lines.append(_line("the refit on all rows has", self.refit_epsilon, self.refit_mu))
        return "\n".join(lines)


def _line(what: str, epsilon: float, mu: float) -> str:
    return f"  {what:<41} ε = {epsilon:<8.4g} μ = {mu:.4g}"
