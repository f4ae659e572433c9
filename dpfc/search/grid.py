"""The candidates of a search, from scikit-learn's grids, and their scores as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import ParameterGrid

__all__ = ["list_candidates", "score_table"]

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
