"""Progress bars over private releases, for long fits on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import dp_accounting

from dpfc._support.progress import progress_bar
from dpfc.accounting import PrivacyPlan
from dpfc.accounting.accountants import epsilon_by_accountant

__all__ = ["release_progress", "step_progress"]

_LOOKS = 50  # how often ε is worked out in a run


@contextmanager
def release_progress(n_releases: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error; yields what to call with each release's name."""
    with progress_bar("private releases", n_releases) as update:
        yield lambda name: update(advance=1, description=f"released {name}")


@contextmanager
def step_progress(plan: PrivacyPlan, name: str) -> Iterator[Callable[[str], None]]:
    """Show a bar over the draws of one release, with the ε of all draws so far.

    ε is Rényi's, an upper bound that is quick to work out where there is one; the statement has
    the tight one.
    """
    drawn: Counter[str] = Counter()
    total = plan[name].count
    with progress_bar("private steps", total) as update:

        def advance(released: str) -> None:
            drawn[released] += 1
            if released == name:
                update(advance=1)
            if drawn[name] % max(1, total // _LOOKS) == 0:
                update(description=_spent(plan, drawn))

        yield advance


def _spent(plan: PrivacyPlan, drawn: Counter[str]) -> str:
    events = [replace(plan[name], count=count).event for name, count in drawn.items() if count]
    (epsilon,) = epsilon_by_accountant(
        dp_accounting.ComposedDpEvent(events),
        plan.target_delta,
        neighboring_relation=plan.neighboring_relation,
        accountants=["rdp"],
    ).values()
    return f"ε ≤ {epsilon:.3g} so far" if isinstance(epsilon, float) else "private steps"
