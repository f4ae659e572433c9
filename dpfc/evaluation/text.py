"""A private evaluation in words, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpfc.evaluation.evaluate import PrivateEvaluation

__all__ = ["render_evaluation"]


def render_evaluation(evaluation: PrivateEvaluation) -> str:
    """Figures with their intervals, then the privacy statement."""
    return "\n".join([*_lines(evaluation), "", evaluation.privacy_.to_text()])


def _lines(evaluation: PrivateEvaluation) -> Iterator[str]:
    if evaluation.accuracy is not None and evaluation.accuracy_interval is not None:
        yield f"accuracy {_figure(evaluation.accuracy, *evaluation.accuracy_interval)}"
    if evaluation.auc is not None and evaluation.auc_interval is not None:
        yield f"AUC {_figure(evaluation.auc, *evaluation.auc_interval)}"
    low, high = evaluation.n_samples_interval
    if low == high:
        yield f"test rows {evaluation.n_samples:,.0f}"
    else:
        yield f"test rows about {evaluation.n_samples:,.0f} ({low:,.0f} to {high:,.0f})"
    if evaluation.recall is not None and evaluation.recall_intervals is not None:
        yield ""
        yield "recall of each class"
        names = [str(name) for name in evaluation.classes_]
        width = max(len(name) for name in names)
        for name, value, (low, high) in zip(
            names, evaluation.recall, evaluation.recall_intervals, strict=True
        ):
            yield f"  {name:<{width}}  {_figure(value, low, high)}"
    yield ""
    yield (
        f"Intervals: {100 * evaluation.confidence:g}%, each by itself, for both the noise and the "
        "choice of test rows."
    )


def _figure(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "unknown: hidden by the noise"
    return f"{value:.2%} ({low:.2%} to {high:.2%})"
