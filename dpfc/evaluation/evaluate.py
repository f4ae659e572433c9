"""Private evaluation: how good a public model is on private test rows, under a budget."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from dpfc._support.fitted import undisturbed
from dpfc._support.late import torch
from dpfc._support.memory import check_memory
from dpfc._support.validation import Interval, check_parameters, check_words
from dpfc.accounting import (
    PrivacyPlan,
    PrivacyStatement,
    ReleaseRequest,
    calibrate,
)
from dpfc.evaluation.counts import ConfusionCounts, HitCounts, ScoreHistogram
from dpfc.evaluation.result import PrivateEvaluation, evaluation_of
from dpfc.evaluation.scored_rows import IDENTITY, ScoredRows, open_test_rows
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.assumptions import evaluation_assumptions
from dpfc.mechanism.delta import delta_notes
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.groups import shares_of, unit_of
from dpfc.mechanism.noise import noise_source
from dpfc.mechanism.noisy_sum import Release
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.rows import label_gaps, warn_of_numbered_labels

if TYPE_CHECKING:
    from dpfc.full_models.classifier import DPSGDClassifier
    from dpfc.full_models.scored_rows import ScoredNetworkRows

__all__ = ["METRICS", "PrivateEvaluation", "evaluate_privately"]

METRICS = ("accuracy", "confusion_matrix", "auc")
_RELEASES = dict(zip(METRICS, ("hit_counts", "confusion_counts", "score_histogram"), strict=True))
_CONSTRAINTS = {
    name: PrivateLinearClassifier._constraints[name]
    for name in (
        "epsilon",
        "delta",
        "neighboring_relation",
        "n_samples",
        "accountant",
        "ledger",
        "dataset",
    )
} | {"confidence": Interval(0, 1)}


def evaluate_privately(
    model: PrivateLinearClassifier | DPSGDClassifier,
    X: Any,
    y: ArrayLike | None = None,
    *,
    epsilon: float,
    delta: float = 1e-5,
    metrics: Sequence[str] = ("accuracy", "confusion_matrix"),
    n_samples: int | None = None,
    neighboring_relation: str = "add_or_remove_one",
    confidence: float = 0.95,
    accountant: str = "auto",
    ledger: str | os.PathLike[str] | None = None,
    dataset: str | None = None,
    groups: ArrayLike | None = None,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
) -> PrivateEvaluation:
    """Measure a fitted model on private test rows, spending (ε, δ) once.

    What is released are noisy counts: of right and wrong predictions, of true by predicted
    classes, of rows by bins of the model's probabilities. Each metric that is asked for has
    its own counts and an equal share of the budget (of μ²).

    Parameters
    ----------
    model : fitted classifier of dpfc
        It must be public: what it may tell about the test rows is not counted here.
    X : array-like, torch.Tensor of shape (n_samples, n_features), or FeatureCache
        Private test rows; for a `DPSGDClassifier` as its `fit` takes them.
    y : array-like of shape (n_samples,), optional
        Labels, all of them among the model's classes; left out for a feature cache.
    epsilon : float in (0, inf]
        inf switches noise off; the result is then not private.
    delta : float in (0, 1), default=1e-5
    metrics : sequence of {"accuracy", "confusion_matrix", "auc"}
    n_samples : int or None, default=None
        A number of test rows that is public knowledge; it makes accuracy less noisy. Under
        "replace_one" the true number is public.
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    confidence : float in (0, 1), default=0.95
        Of each interval by itself.
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
    ledger : path-like or None, default=None
        `PrivacyLedger` file; the spend is written there before anything is released.
    dataset : str or None, default=None
        Name of the budget in `ledger`: that of the test rows.
    groups : array-like of shape (n_samples,), optional
        Whose rows are: what is protected is then a person with all of his rows, and each counts
        once, in equal parts for each of them. A feature cache with a group column has its own.
    random_state : int, Generator, RandomState or None, default=None
        None draws from the operating system's secure source. A seed makes the result not
        private.

    Returns
    -------
    PrivateEvaluation

    Raises
    ------
    ValueError
        If a parameter, the model or the data is not allowed; nothing was spent then.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
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
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = dpfc.DPFCClassifier(epsilon=2.0, classes=range(10)).fit(X[:1200], y[:1200])
    >>> result = dpfc.evaluate_privately(model, X[1200:], y[1200:], epsilon=1.0)
    >>> low, high = result.accuracy_interval
    """
    parameters = dict(locals())
    _check_model(model)
    check_parameters(parameters, _CONSTRAINTS)
    run = PrivateRun(noise_source(random_state), ledger=ledger, dataset=dataset)
    asked = check_words("metrics", metrics, METRICS)
    plan = _plan(asked, len(model.classes_), parameters)
    run.open(plan, f"evaluate {type(model).__name__}", unit_of_spend=unit_of(X, groups))
    warn_of_numbered_labels(X)
    rows = _score(model, X, y)
    rows.shares = shares_of(X, groups, rows.n_samples)
    run.warn_if_seeded()
    check_memory(
        16 * 8 * len(model.classes_) ** 2,
        "noisy counts by true and predicted class",
        "Evaluate a model of fewer classes.",
        rows.device,
    )
    with undisturbed():
        mechanism = GaussianMechanism(rows, IDENTITY, len(model.classes_), run, n_samples)
        releases = {name: _draw(mechanism, name, rows) for name in asked}
        public = n_samples is not None or neighboring_relation == "replace_one"
        n_rows = mechanism.known_n_samples if public else _noisy_size(releases)
        privacy = _state(
            run, model, parameters, n_rows, label_gaps(X), grouped=rows.shares is not None
        )
        return evaluation_of(
            releases,
            classes=model.classes_,
            n_public=round(mechanism.n_samples()) if public else None,
            confidence=confidence,
            privacy=privacy,
        )


def _check_model(model: PrivateLinearClassifier | DPSGDClassifier) -> None:
    if isinstance(model, PrivateLinearClassifier):
        check_is_fitted(model, "coef_")
        if not (np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()):
            raise ValueError("the model's weights are not all finite: its fit has diverged.")
        return
    from dpfc.full_models.classifier import DPSGDClassifier  # slow, and seldom needed

    if not isinstance(model, DPSGDClassifier):
        raise ValueError(
            f"model must be a fitted classifier of dpfc, got {type(model).__name__}; of a search, "
            "pass best_estimator_."
        )
    check_is_fitted(model, "module_")  # whose fit refuses weights that have diverged


def _score(
    model: PrivateLinearClassifier | DPSGDClassifier, X: Any, y: ArrayLike | None
) -> ScoredRows | ScoredNetworkRows:
    if isinstance(model, PrivateLinearClassifier):
        return ScoredRows(open_test_rows(model, X, y), model)
    from dpfc.full_models.scored_rows import ScoredNetworkRows

    return ScoredNetworkRows(model, X, y)


def _plan(asked: Sequence[str], n_classes: int, parameters: dict[str, Any]) -> PrivacyPlan:
    """Share the budget equally among metrics; area under the curve draws once a class."""
    requests = [
        ReleaseRequest(
            _RELEASES[name],
            1.0 / len(asked),
            len(_scored_classes(n_classes)) if name == "auc" else 1,
        )
        for name in asked
    ]
    return calibrate(
        requests,
        target_epsilon=parameters["epsilon"],
        target_delta=parameters["delta"],
        neighboring_relation=parameters["neighboring_relation"],
        accountant=parameters["accountant"],
    )


def _scored_classes(n_classes: int) -> range:
    """Classes with a curve of their own: all, or the second of two."""
    return range(1, 2) if n_classes == 2 else range(n_classes)


def _draw(
    mechanism: GaussianMechanism, metric: str, rows: ScoredRows | ScoredNetworkRows
) -> Release:
    """The noisy counts behind a metric; those of several classes stacked."""
    name = _RELEASES[metric]
    if metric == "accuracy":
        return mechanism.release(name, HitCounts())
    if metric == "confusion_matrix":
        return mechanism.release(name, ConfusionCounts())
    centers = rows.central_logits.tolist()
    drawn = [
        mechanism.release(name, ScoreHistogram(k, centers[k]))
        for k in _scored_classes(mechanism.n_classes)
    ]
    counts = torch.stack([release.value for release in drawn])
    return Release(counts, drawn[0].noise_standard_deviation)


def _noisy_size(releases: Mapping[str, Release]) -> float | None:
    """Number of test rows as counts of them tell it, which were paid for."""
    counted = [releases[name] for name in ("accuracy", "confusion_matrix") if name in releases]
    return float(counted[0].value.sum()) if counted else None


def _state(
    run: PrivateRun,
    model: PrivateLinearClassifier | DPSGDClassifier,
    parameters: dict[str, Any],
    n_samples: float | None,
    gaps: list[str],
    *,
    grouped: bool,
) -> PrivacyStatement:
    """Put together what ran; with a ledger, file it there beside the spend."""
    statement = run.statement(
        f"evaluate_privately({type(model).__name__})",
        [
            *evaluation_assumptions(
                unit_of_privacy=run.unit_of_privacy,
                neighboring_relation=parameters["neighboring_relation"],
                n_samples_stated=parameters["n_samples"] is not None,
                network=not isinstance(model, PrivateLinearClassifier),
                origin=getattr(model, "features_from_", None),
                grouped=grouped,
            ),
            *gaps,
            *delta_notes(run.plan, n_samples),
        ],
        kind="evaluation",
    )
    run.finish(statement)
    return statement
