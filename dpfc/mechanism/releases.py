"""What is recorded of a release before it is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from dpfc.accounting import ReleaseRecord
from dpfc.accounting.plans import PlannedRelease

__all__ = ["next_record"]


def next_record(
    planned: PlannedRelease,
    before: ReleaseRecord | None,
    *,
    description: str,
    shape: Sequence[int],
    l2_sensitivity: float,
    scale: float,
) -> ReleaseRecord:
    """Count one more draw of a planned release, or refuse it.

    Parameters
    ----------
    planned : PlannedRelease
    before : ReleaseRecord or None
        Of the draws so far.
    description : str
        What is summed.
    shape : sequence of int
    l2_sensitivity : float
        In exact arithmetic, for the plan's neighbouring relation.
    scale : float
        Standard deviation of the noise; what it exceeds z times the sensitivity by is for
        rounding. Slack and scale are the largest of all draws.

    Raises
    ------
    RuntimeError
        If all of the plan's draws are spent.
    """
    drawn = before.count if before else 0
    if drawn >= planned.count:
        raise RuntimeError(
            f"the plan holds {planned.count} draw(s) of {planned.name}; all are spent."
        )
    slack = scale / planned.noise_multiplier - l2_sensitivity if scale > 0.0 else 0.0
    return ReleaseRecord(
        name=planned.name,
        description=description,
        shape=list(shape),
        l2_sensitivity=l2_sensitivity,
        numerical_slack=max(slack, before.numerical_slack if before else 0.0),
        noise_multiplier=planned.noise_multiplier,
        noise_standard_deviation=max(scale, before.noise_standard_deviation if before else 0.0),
        count=drawn + 1,
        sampling_probability=planned.sampling_probability,
        share_of_budget=planned.share,
    )
