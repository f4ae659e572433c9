"""The result of a private evaluation: figures and intervals from released counts alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.notebook_tables import NotebookTable
from dpfc.accounting import PrivacyStatement
from dpfc.evaluation.intervals import (
    Estimate,
    auc,
    macro_average,
    normal_quantile,
    number_of_rows,
    proportion,
)
from dpfc.mechanism.noisy_sum import Release

__all__ = ["PrivateEvaluation", "evaluation_of"]


@dataclass(frozen=True, eq=False)
class PrivateEvaluation(NotebookTable):
    """How good a model is, as far as noisy counts tell; all of it may be published.

    What was not asked for is None. A figure is NaN, and its interval [0, 1], where noise may
    be all that it is made of. Intervals cover both the noise and the chance of which rows
    came to the test; each holds by itself, not all of them at once.

    Attributes
    ----------
    accuracy : float or None
    accuracy_interval : tuple of (float, float) or None
    auc : float or None
        Area under the ROC curve; for more than two classes the mean over classes, each
        against the others. Scores in one of `dpfc.evaluation.counts.N_BINS` bins are ties.
    auc_interval : tuple of (float, float) or None
        For more than two classes wide rather than exact.
    auc_per_class : ndarray of shape (n_classes,) or (1,), or None
        For two classes that of the second.
    confusion_matrix : ndarray of shape (n_classes, n_classes) or None
        Noisy counts, true classes down; they may be negative, and are no whole numbers.
    confusion_noise : float or None
        Standard deviation of the noise of each of them.
    recall : ndarray of shape (n_classes,) or None
        Share of each class's rows that is predicted right; comes with the matrix.
    recall_intervals : ndarray of shape (n_classes, 2) or None
    n_samples : float
        Number of test rows: as is public, or a noisy estimate.
    n_samples_interval : tuple of (float, float)
    confidence : float
        Of every interval.
    classes_ : ndarray of shape (n_classes,)
    privacy_ : PrivacyStatement
    """

    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    auc: float | None
    auc_interval: tuple[float, float] | None
    auc_per_class: NDArray[np.float64] | None
    confusion_matrix: NDArray[np.float64] | None
    confusion_noise: float | None
    recall: NDArray[np.float64] | None
    recall_intervals: NDArray[np.float64] | None
    n_samples: float
    n_samples_interval: tuple[float, float]
    confidence: float
    classes_: NDArray[Any]
    privacy_: PrivacyStatement

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; NaN becomes None."""
        names = [name for name in self.__dataclass_fields__ if name != "privacy_"]
        report = {name.rstrip("_"): _plain(getattr(self, name)) for name in names}
        return report | {"privacy": self.privacy_.model_dump(mode="json")}

    def __str__(self) -> str:
        return "\n".join([*_lines(self), "", self.privacy_.to_text()])


def evaluation_of(
    releases: Mapping[str, Release],
    *,
    classes: NDArray[Any],
    n_public: int | None,
    confidence: float,
    privacy: PrivacyStatement,
) -> PrivateEvaluation:
    """Read the figures off noisy counts.

    Parameters
    ----------
    releases : mapping of str to Release
        By metric: shape (2,) for "accuracy", (n_classes, n_classes) for "confusion_matrix",
        (n_curves, 2, n_bins) for "auc".
    classes : ndarray of shape (n_classes,)
    n_public : int or None
        Number of rows, where it is public.
    confidence : float
    privacy : PrivacyStatement
    """
    z = normal_quantile(confidence)
    rows = _rows(releases, n_public, z)
    accuracy = area = matrix = areas = recall = None
    if "accuracy" in releases:
        accuracy = _accuracy(releases["accuracy"], n_public, z)
    if "confusion_matrix" in releases:
        matrix = releases["confusion_matrix"]
        recall = np.array(_recall(matrix, z))
    if "auc" in releases:
        areas, area = _areas(releases["auc"], z)
    return PrivateEvaluation(
        accuracy=None if accuracy is None else accuracy.value,
        accuracy_interval=None if accuracy is None else accuracy.interval,
        auc=None if area is None else area.value,
        auc_interval=None if area is None else area.interval,
        auc_per_class=None if areas is None else np.array([each.value for each in areas]),
        confusion_matrix=None if matrix is None else matrix.value.numpy(),
        confusion_noise=None if matrix is None else matrix.noise_standard_deviation,
        recall=None if recall is None else recall[:, 0],
        recall_intervals=None if recall is None else recall[:, 1:],
        n_samples=rows.value,
        n_samples_interval=rows.interval,
        confidence=confidence,
        classes_=classes,
        privacy_=privacy,
    )


def _rows(releases: Mapping[str, Release], n_public: int | None, z: float) -> Estimate:
    """Number of rows, from the release that tells it with least noise."""
    if n_public is not None:
        return Estimate(float(n_public), float(n_public), float(n_public))
    sums = []
    for metric, release in releases.items():
        # Every row is once in each of the stacked histograms.
        counts = release.value[0] if metric == "auc" else release.value
        sums.append(number_of_rows(counts.numpy(), release.noise_standard_deviation, z))
    return min(sums, key=lambda estimate: estimate.high - estimate.value)


def _accuracy(release: Release, n_public: int | None, z: float) -> Estimate:
    right, wrong = release.value.tolist()
    variance = release.noise_standard_deviation**2
    if n_public is None:
        return proportion(right, wrong, z, hits_variance=variance, misses_variance=variance)
    # Both counts tell the same number; their mean has half the variance.
    right = min(max((right + n_public - wrong) / 2.0, 0.0), float(n_public))
    return proportion(
        right,
        n_public - right,
        z,
        hits_variance=variance / 2.0,
        misses_variance=variance / 2.0,
        covariance=-variance / 2.0,
    )


def _recall(release: Release, z: float) -> list[Estimate]:
    """Share of each class's rows on the diagonal of the confusion matrix."""
    variance = release.noise_standard_deviation**2
    others = len(release.value) - 1
    right = release.value.diagonal()
    wrong = release.value.sum(dim=1) - right
    return [
        proportion(hits, misses, z, hits_variance=variance, misses_variance=others * variance)
        for hits, misses in zip(right.tolist(), wrong.tolist(), strict=True)
    ]


def _areas(release: Release, z: float) -> tuple[list[Estimate], Estimate]:
    """Areas of each curve, and what stands for all."""
    histograms, noise = release.value.numpy(), release.noise_standard_deviation
    areas = [auc(histogram, noise, z) for histogram in histograms]
    if len(areas) == 1:
        return areas, areas[0]
    return areas, macro_average(areas, [auc(histogram, 0.0, z) for histogram in histograms])


def _plain(value: Any) -> Any:
    """Values as JSON has them."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _lines(evaluation: PrivateEvaluation) -> Iterator[str]:
    if evaluation.accuracy is not None and evaluation.accuracy_interval is not None:
        yield f"accuracy {_figure(evaluation.accuracy, *evaluation.accuracy_interval)}"
    if evaluation.auc is not None and evaluation.auc_interval is not None:
        yield f"AUC {_figure(evaluation.auc, *evaluation.auc_interval)}"
    low, high = evaluation.n_samples_interval
    figure = f"{evaluation.n_samples:,.0f}"
    if low != high:
        figure = f"about {figure} ({low:,.0f} to {high:,.0f})"
    unit = evaluation.privacy_.unit_of_privacy
    # Of people, who may have several rows, each is counted once.
    yield f"test rows {figure}" if unit == "one row" else f"test size {figure}, {unit} counts as 1"
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
