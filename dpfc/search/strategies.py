"""Two ways to spend a search's budget: every candidate once, or a secret number of random runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc.accounting import ReleaseRecord
from dpfc.accounting.search_budget import RunLaw
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.noise import NoiseSource
from dpfc.search.trials import Trial, Trials

__all__ = ["Outcome", "run_all", "stop_at_random"]


@dataclass(frozen=True)
class Outcome:
    """What a strategy publishes, before any refit.

    Attributes
    ----------
    params : dict
        Of the winner.
    model : PrivateLinearClassifier
        The winner's, from the training part.
    score : float
        Its noisy accuracy; NaN where nothing ran.
    fit_records, score_records : list of ReleaseRecord
        Of the winner's fit, and of every score that is published.
    index : int or None
        The winner's place among the candidates, where the others' scores are published too.
    scores : ndarray of shape (n_candidates,) or None
        Noisy accuracies, where all are published.
    """

    params: dict[str, Any]
    model: PrivateLinearClassifier
    score: float
    fit_records: list[ReleaseRecord]
    score_records: list[ReleaseRecord]
    index: int | None = None
    scores: NDArray[np.float64] | None = None


def run_all(
    trials: Trials,
    candidates: Sequence[dict[str, Any]],
    on_run: Callable[[str], None] | None = None,
) -> Outcome:
    """Run every candidate once, in order; the first of the best wins.

    All are scored on the same rows, so all noisy counts together say how many those are.
    """
    best, index = trials.run(candidates[0]), 0
    margins, sizes = [best.margin], [best.size]
    for position, params in enumerate(candidates[1:], start=1):
        if on_run is not None:
            on_run("a score")
        trial = trials.run(params)
        margins.append(trial.margin)
        sizes.append(trial.size)
        if trial.margin > best.margin:
            best, index = trial, position
    scores = _accuracy(np.array(margins), float(np.mean(sizes)))
    return Outcome(
        params=best.params,
        model=best.model,
        score=float(scores[index]),
        fit_records=best.fit_records,
        score_records=[best.score_record.model_copy(update={"count": len(candidates)})],
        index=index,
        scores=scores,
    )


def stop_at_random(
    trials: Trials, candidates: Sequence[dict[str, Any]], law: RunLaw, noise: NoiseSource
) -> Outcome:
    """Run random candidates a random number of times; only the winner leaves this function.

    The theorems need runs that are drawn independently, alike, and compared in an order that
    no data decide. Of runs with equal margins the first one wins: as good as a random one, so
    a secret uniform number beside each margin, which breaks ties, would do the same.

    References
    ----------
    Papernot and Steinke (2022), Theorem 2 and Theorem 6.
    """
    best: Trial | None = None
    for _ in range(law.draw(float(noise.uniform(1)[0]))):
        trial = trials.run(_draw(candidates, noise))
        if best is None or trial.margin > best.margin:
            best = trial
    if best is None:
        params = _draw(candidates, noise)
        return Outcome(dict(params), trials.blank(params), math.nan, [], [])
    return Outcome(
        params=best.params,
        model=best.model,
        score=float(_accuracy(best.margin, best.size)),
        fit_records=best.fit_records,
        score_records=[best.score_record],
    )


def _draw(candidates: Sequence[dict[str, Any]], noise: NoiseSource) -> dict[str, Any]:
    """Draw a candidate uniformly; the data have no part in it."""
    return candidates[int(float(noise.uniform(1)[0]) * len(candidates))]


def _accuracy(margin: Any, size: float) -> Any:
    """Accuracy within [0, 1] from noisy right - wrong, and a noisy number of rows."""
    return np.clip(0.5 + margin / (2.0 * max(size, 1.0)), 0.0, 1.0)
