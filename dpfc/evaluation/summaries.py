"""Private counts and means: what the rows are like, before or beside any model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpfc._support.fitted import undisturbed
from dpfc._support.memory import check_memory
from dpfc._support.notebook_tables import NotebookTable
from dpfc._support.validation import Interval, check_parameters, check_words
from dpfc.accounting import PrivacyStatement, ReleaseRequest, calibrate
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.assumptions import summary_assumptions
from dpfc.mechanism.delta import delta_notes
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.groups import shares_of, unit_of
from dpfc.mechanism.labels import as_labels, encode_labels, public_classes
from dpfc.mechanism.noise import noise_source
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.queries import ClassCounts, Count, FeatureSum, Query
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import (
    ArrayRows,
    BlockSource,
    CacheRows,
    check_size,
    label_gaps,
    open_cache,
    warn_of_numbered_labels,
)
from dpfc.mechanism.user_rows import as_matrix

__all__ = ["STATISTICS", "PrivateSummary", "summarize_privately"]

STATISTICS = ("count", "class_counts", "mean")
# What each is worth of the budget (of μ²), in relation to the others: a number of rows is
# large against its noise, and hardly moves the mean that is divided by it.
_WEIGHTS = {"count": 1.0, "class_counts": 9.0, "feature_sum": 9.0}
_CONSTRAINTS = {
    name: PrivateLinearClassifier._constraints[name]
    for name in ("epsilon", "delta", "neighboring_relation", "accountant", "ledger", "dataset")
} | {"l2_clip_norm": Interval(1e-30, 1e30, closed="both", words=(None,))}


@dataclass(frozen=True, eq=False)
class PrivateSummary(NotebookTable):
    """Noisy counts and means; all of it may be published.

    What was not asked for is None.

    Attributes
    ----------
    count : float or None
        Number of rows; exact under "replace_one", where it is public.
    class_counts : ndarray of shape (n_classes,) or None
        Rows of each class; noisy counts may be negative, and are no whole numbers.
    mean : ndarray of shape (n_features,) or None
        Mean of the clipped rows.
    noise_standard_deviation : dict
        Of every entry, by "count", "class_counts" and "mean"; the mean's is that of its sum
        over the (noisy) number of rows.
    classes_ : ndarray of shape (n_classes,) or None
    privacy_ : PrivacyStatement
    """

    count: float | None
    class_counts: NDArray[np.float64] | None
    mean: NDArray[np.float64] | None
    noise_standard_deviation: dict[str, float]
    classes_: NDArray[Any] | None
    privacy_: PrivacyStatement


def summarize_privately(
    X: Any,
    y: ArrayLike | None = None,
    *,
    epsilon: float,
    delta: float = 1e-5,
    statistics: Sequence[str] = ("count",),
    classes: Iterable[Any] | None = None,
    l2_clip_norm: float | None = None,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
    ledger: str | os.PathLike[str] | None = None,
    dataset: str | None = None,
    groups: ArrayLike | None = None,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
) -> PrivateSummary:
    """Count private rows, by class too, and average them, spending (ε, δ) once.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), or FeatureCache
        Private rows.
    y : array-like of shape (n_samples,), optional
        Labels, for "class_counts"; left out for a feature cache, which has its own.
    epsilon : float in (0, inf]
        inf switches noise off; the result is then not private.
    delta : float in (0, 1), default=1e-5
    statistics : sequence of {"count", "class_counts", "mean"}
        A mean needs a count: that is released with it, unless the number of rows is public.
        Class counts and sums have nine times the share of the budget (of μ²) of a count.
    classes : iterable or None, default=None
        The public list of classes, for "class_counts"; a feature cache may name them.
    l2_clip_norm : float or None, default=None
        Longer rows are scaled down to this length before they are averaged. Choose it
        without looking at the rows; needed for "mean".
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
    ledger : path-like or None, default=None
        `PrivacyLedger` file; the spend is written there before anything is released.
    dataset : str or None, default=None
        Name of the budget in `ledger`.
    groups : array-like of shape (n_samples,), optional
        Whose rows are: what is protected, and counted, is then a person with all of his rows, who
        counts in equal parts for each of them. A feature cache with a group column has its own.
    random_state : int, Generator, RandomState or None, default=None
        None draws from the operating system's secure source. A seed makes the result not
        private.

    Returns
    -------
    PrivateSummary

    Raises
    ------
    ValueError
        If a parameter or the data is not allowed; nothing was spent then.
    LedgerError, BudgetExceeded
        If the ledger has no such budget, or too little is left of it; nothing was spent
        then. They are ValueErrors.

    Warns
    -----
    PrivacyWarning
        If the run is seeded.

    Examples
    --------
    >>> import dpfc
    >>> X, y = [[0.0, 1.0]] * 900, [0, 0, 1] * 300
    >>> summary = dpfc.summarize_privately(
    ...     X, y, epsilon=1.0, statistics=["class_counts"], classes=[0, 1]
    ... )
    >>> summary.class_counts.shape
    (2,)
    """
    check_parameters(locals(), _CONSTRAINTS)
    run = PrivateRun(noise_source(random_state), ledger=ledger, dataset=dataset)
    asked = _check_statistics(statistics, l2_clip_norm)
    plan = calibrate(
        _requests(asked, neighboring_relation),
        target_epsilon=epsilon,
        target_delta=delta,
        neighboring_relation=neighboring_relation,
        accountant=accountant,
    )
    run.open(plan, f"summarize: {', '.join(asked)}", unit_of_spend=unit_of(X, groups))
    labelled = "class_counts" in asked
    gaps = label_gaps(X) if labelled else []
    if labelled:
        warn_of_numbered_labels(X)
    rows, known = _open_rows(X, y, classes, labelled=labelled)
    rows.shares = shares_of(X, groups, rows.n_samples)
    run.warn_if_seeded()
    n_classes = 1 if known is None else len(known)
    check_memory(8 * 8 * (rows.n_features + n_classes), "a sum of rows", "Reduce it.", rows.device)
    row_map = RowMap(math.inf if l2_clip_norm is None else l2_clip_norm, normalize=False)
    with undisturbed():
        mechanism = GaussianMechanism(rows, row_map, n_classes, run)
        values, deviations = _draw(mechanism, asked)
        return PrivateSummary(
            **values,
            noise_standard_deviation=deviations,
            classes_=known,
            privacy_=_state(run, _size(values, mechanism), gaps, grouped=rows.shares is not None),
        )


def _check_statistics(statistics: Sequence[str], l2_clip_norm: float | None) -> tuple[str, ...]:
    """Return what was asked for, each once, in the order of `STATISTICS`."""
    asked = check_words("statistics", statistics, STATISTICS)
    if ("mean" in asked) != (l2_clip_norm is not None):
        raise ValueError(
            'l2_clip_norm goes with "mean": the length that no row may exceed, chosen without '
            "looking at the rows."
        )
    return asked


def _requests(asked: Sequence[str], neighboring_relation: str) -> list[ReleaseRequest]:
    names = {"feature_sum" if name == "mean" else name for name in asked}
    if "feature_sum" in names:
        names.add("count")
    if neighboring_relation == "replace_one":
        names.discard("count")
    if not names:
        raise ValueError(
            'the number of rows is public under neighboring_relation="replace_one": there is '
            "nothing to release."
        )
    total = sum(_WEIGHTS[name] for name in names)
    return [ReleaseRequest(name, _WEIGHTS[name] / total) for name in _WEIGHTS if name in names]


def _open_rows(
    X: Any, y: ArrayLike | None, classes: Iterable[Any] | None, *, labelled: bool
) -> tuple[ArrayRows | CacheRows, NDArray[Any] | None]:
    """Check the rows; with labels, their codes and the public classes as well."""
    if isinstance(X, BlockSource):
        if y is not None:
            raise ValueError("y must be left out when X is a feature cache; it has labels.")
        known = _stated_classes(X.class_names if classes is None else classes) if labelled else None
        return open_cache(X, known), known
    X = as_matrix(X)
    check_size(len(X))
    if not labelled:
        return ArrayRows(X, np.zeros(len(X), dtype=np.int64)), None
    labels = as_labels(y, len(X), '"class_counts"')
    known = _stated_classes(classes)
    return ArrayRows(X, encode_labels(labels, known)), known


def _stated_classes(classes: Iterable[Any] | None) -> NDArray[Any]:
    """Refuse to read the list of classes from private labels."""
    if classes is None:
        raise ValueError(
            "pass classes=…, the public list of labels: which of them occur is private."
        )
    return public_classes(classes, [])


def _draw(
    mechanism: GaussianMechanism, asked: Sequence[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Draw all that is planned; values and noise by what was asked for."""
    queries: dict[str, Query] = {
        "count": Count(),
        "class_counts": ClassCounts(),
        "feature_sum": FeatureSum(),
    }
    drawn = {
        planned.name: mechanism.release(planned.name, queries[planned.name])
        for planned in mechanism.run.plan.releases
    }
    noise = {name: release.noise_standard_deviation for name, release in drawn.items()}
    values: dict[str, Any] = dict.fromkeys(STATISTICS)
    if "class_counts" in drawn:
        values["class_counts"] = drawn["class_counts"].value.cpu().numpy()
    if "count" in drawn:
        values["count"] = float(drawn["count"].value[0])
    elif mechanism.run.plan.neighboring_relation == "replace_one":
        values["count"], noise["count"] = float(mechanism.n_samples()), 0.0
    if "feature_sum" in drawn:
        size = max(1.0, values["count"])
        values["mean"] = _shortened(
            drawn["feature_sum"].value.cpu().numpy() / size, mechanism.row_map.l2_clip_norm
        )
        noise["mean"] = noise["feature_sum"] / size
    return (
        {name: values[name] if name in asked else None for name in STATISTICS},
        {name: noise[name] for name in asked},
    )


def _size(values: Mapping[str, Any], mechanism: GaussianMechanism) -> float | None:
    """Number of rows as far as it is public or was released."""
    if values["count"] is not None:
        return float(values["count"])
    counts = values["class_counts"]
    return mechanism.known_n_samples if counts is None else float(np.sum(counts))


def _shortened(mean: NDArray[np.float64], l2_clip_norm: float) -> NDArray[np.float64]:
    """Take off noise: the mean of clipped rows is no longer than they are."""
    length = float(np.linalg.norm(mean))
    return mean * min(1.0, l2_clip_norm / max(length, 1e-300))


def _state(
    run: PrivateRun, n_samples: float | None, gaps: list[str], *, grouped: bool
) -> PrivacyStatement:
    """Put together what ran; with a ledger, file it there beside the spend."""
    statement = run.statement(
        "summarize_privately",
        [
            *summary_assumptions(
                unit_of_privacy=run.unit_of_privacy,
                neighboring_relation=run.plan.neighboring_relation,
                grouped=grouped,
            ),
            *gaps,
            *delta_notes(run.plan, n_samples),
        ],
        kind="summary",
    )
    run.finish(statement)
    return statement
