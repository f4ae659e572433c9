"""What a search settles before it sees a row: the estimator, the candidates, their budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import clone

from dpfc.accounting import PrivacyPlan
from dpfc.accounting.search_budget import SearchPlan, gaussian_target
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.bounded_sums import LabeledRows

__all__ = [
    "PUBLIC",
    "at_mu",
    "check_candidates",
    "check_searchable",
    "full_batch_plan",
    "open_rows",
]

# Attributes of a fitted estimator that no release pays for.
PUBLIC = ("classes_", "n_features_in_", "feature_names_in_", "_columns_in", "features_from_")


def check_searchable(estimator: object, ledger: object, dataset: object) -> None:
    """Refuse an estimator that is none of dpfc's, or has noise or a budget of its own.

    Raises
    ------
    ValueError
    """
    if not isinstance(estimator, PrivateLinearClassifier):
        raise ValueError(f"estimator must be a classifier of dpfc, got {type(estimator).__name__}.")
    if estimator.random_state is not None:
        raise ValueError(
            "the estimator's random_state must be None: all noise is the search's own. Pass "
            "random_state to DPSearchCV for a run that can be repeated."
        )
    for name, own in (("ledger", ledger), ("dataset", dataset)):
        if getattr(estimator, name) not in (None, own):
            raise ValueError(
                f"the estimator's {name} must be None or the search's: the search pays once."
            )


def check_candidates(
    estimator: PrivateLinearClassifier, candidates: Sequence[Mapping[str, Any]], plan: SearchPlan
) -> None:
    """Plan every candidate's fits under its share of the budget.

    Raises
    ------
    ValueError
        If a candidate's parameter is unknown or not allowed, or rows are sampled.
    """
    shares = [plan.run_mu, *([plan.refit_mu] if plan.has_refit else [])]
    for params in candidates:
        for mu in shares:
            full_batch_plan(at_mu(estimator, params, mu, plan.promise.target_delta), mu)


def at_mu(
    estimator: PrivateLinearClassifier, params: Mapping[str, Any], mu: float, delta: float
) -> PrivateLinearClassifier:
    """Clone an estimator with a candidate's settings, for fits that are μ-GDP.

    It knows no ledger: the search pays.

    Raises
    ------
    ValueError
        If the estimator has no such parameter.
    """
    epsilon, delta = gaussian_target(mu, delta)
    model: PrivateLinearClassifier = clone(estimator)
    model.set_params(**params)
    model.set_params(
        epsilon=epsilon, delta=delta, accountant="auto", ledger=None, dataset=None, verbose=False
    )
    return model


def full_batch_plan(model: PrivateLinearClassifier, mu: float) -> PrivacyPlan:
    """Return the plan of a model that `at_mu` made; checks its parameters and its cost.

    Raises
    ------
    ValueError
        If a parameter is not allowed, or rows are sampled.
    RuntimeError
        If the plan costs more than `mu`.
    """
    plan = model.privacy_plan()
    if plan.mu is None:
        raise ValueError(
            "a search is for full-batch fits only: set sampling_probability to 1, or use another "
            "estimator."
        )
    if plan.mu > mu:
        raise RuntimeError(f"a fit's plan has mu = {plan.mu!r}, above its share {mu!r}.")
    return plan


def open_rows(
    estimator: PrivateLinearClassifier,
    candidates: Sequence[Mapping[str, Any]],
    X: Any,
    y: ArrayLike | None,
) -> tuple[LabeledRows, dict[str, Any]]:
    """Check the data, and that every candidate fits into memory.

    Returns
    -------
    rows : LabeledRows
    public : dict
        What every model knows without any release, such as `classes_`.

    Raises
    ------
    ValueError
    """
    reader = clone(estimator)
    rows = reader._open_rows(X, y)
    for params in candidates:
        model = clone(estimator).set_params(**params)
        width = model._row_map().n_columns(rows.n_features)
        model._check_size(width, len(reader.classes_), rows.device)
    return rows, {name: getattr(reader, name) for name in PUBLIC if hasattr(reader, name)}
