"""What a search settles before it sees a row: the estimator, the candidates, their budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from dpfc.accounting import PrivacyPlan
from dpfc.accounting.search_budget import SearchPlan, gaussian_target
from dpfc.linear.base import PrivateLinearClassifier
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.noise import NoiseSource

__all__ = [
    "PUBLIC",
    "at_mu",
    "check_candidates",
    "check_searchable",
    "full_batch_plan",
    "list_candidates",
    "open_rows",
    "score_table",
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
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    noise: NoiseSource,
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
    rows = reader._open_rows(X, y, sample_weight, groups, noise)
    for params in candidates:
        model = clone(estimator).set_params(**params)
        width = model._row_map().n_columns(rows.n_features)
        model._check_size(width, len(reader.classes_))
    return rows, {name: getattr(reader, name) for name in PUBLIC if hasattr(reader, name)}


# What the search decides, or what has one value for all candidates.
_NOT_SEARCHED = (
    "epsilon",
    "delta",
    "classes",
    "neighboring_relation",
    "n_samples",
    "accountant",
    "ledger",
    "dataset",
    "group_method",
    "max_group_rows",
    "max_sample_weight",
    "random_state",
    "verbose",
)


def list_candidates(
    param_grid: Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Iterable[Any]]],
) -> list[dict[str, Any]]:
    """List every setting of a grid, in scikit-learn's order.

    Raises
    ------
    ValueError
        If it is no grid, is empty, or holds what is no candidate's own.
    """
    try:
        candidates: list[dict[str, Any]] = list(ParameterGrid(param_grid))
    except TypeError as error:
        raise ValueError(
            f"param_grid must be a dict of lists, or a list of such: {error}"
        ) from None
    if not candidates:
        raise ValueError("param_grid must hold at least one candidate, got an empty list.")
    for name in (name for params in candidates for name in params):
        if name in _NOT_SEARCHED:
            raise ValueError(f"param_grid must not hold {name!r}: it is the same for the search.")
    return candidates


def score_table(
    candidates: Sequence[Mapping[str, Any]], scores: NDArray[np.float64]
) -> dict[str, Any]:
    """Tabulate candidates and scores as scikit-learn's `cv_results_` does."""
    names = sorted({name for params in candidates for name in params})
    ranks = 1 + (scores[:, None] < scores).sum(axis=1)
    return {
        "params": [dict(params) for params in candidates],
        **{f"param_{name}": _column(candidates, name) for name in names},
        "mean_test_score": scores,
        "rank_test_score": ranks.astype(np.int32),
    }


def _column(candidates: Sequence[Mapping[str, Any]], name: str) -> Any:
    """One parameter of all candidates, masked where a candidate has none of that name."""
    column = np.ma.MaskedArray(np.empty(len(candidates), dtype=object), mask=True)
    for position, params in enumerate(candidates):
        if name in params:
            column[position] = params[name]
    return column
