"""Persons and weights as users bring them, checked before anything is spent.

`dpfc.mechanism.people` has what sums make of them. Messages name a row's position at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.callers import warn_caller
from dpfc._support.memory import check_memory
from dpfc._support.validation import Interval, check
from dpfc.exceptions import PrivacyWarning
from dpfc.mechanism.bounded_sums import LabeledRows
from dpfc.mechanism.labels import as_labels, encode_labels, row_weights
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.people import WHOLE, Shares, drawn_rows, ranks_within
from dpfc.mechanism.rows import ArrayRows, BlockSource, CacheRows, SelectedRows, cache_groups

__all__ = [
    "balanced_factors",
    "bounded_weights",
    "class_factors",
    "group_codes",
    "has_groups",
    "rows_of_people",
    "shares_of",
    "unit_of",
    "weight_assumptions",
]

_BLOCK_ROWS = 4096
_PAIR_BYTES = 5 * 8  # two places and a product, and what is worked out of them
_WEIGHT = Interval(0, 1e9, closed="both")
_LARGEST_RATIO = 40  # of "balanced" weights: the least is three parts of `WHOLE`


def has_groups(X: Any, groups: Any) -> bool:
    """Whether rows belong to persons: as passed, or as a feature cache says."""
    return groups is not None or (isinstance(X, BlockSource) and getattr(X, "has_groups", False))


def unit_of(X: Any, groups: Any) -> str:
    """What a run protects: "row", or "group" where rows belong to persons."""
    return "group" if has_groups(X, groups) else "row"


def group_codes(X: Any, groups: Any, n_rows: int) -> NDArray[np.int64] | None:
    """Persons of rows as codes 0 …, shape (n_rows,); None where each row is somebody's only one.

    Parameters
    ----------
    X : array-like or FeatureCache
        A cache with a group column brings its own.
    groups : array-like of shape (n_rows,) or None
        Numbers or strings, equal where rows are of one person.
    n_rows : int

    Raises
    ------
    TypeError, ValueError
        If there is not one for each row, or one is missing; names a row's position at most.
    """
    if not has_groups(X, groups):
        return None
    if groups is None:
        return cache_groups(X)
    if getattr(X, "has_groups", False):
        raise ValueError("groups must be left out when X is a feature cache that has its own.")
    if isinstance(groups, list | tuple) or getattr(groups, "dtype", None) == "O":
        for row, name in enumerate(groups):
            if isinstance(name, str) and name.endswith("\0"):  # NumPy's strings lose it
                raise ValueError(f"groups: row {row}'s ends with a NUL character. Take it off.")
    try:
        known = as_labels(groups, n_rows, "a call")
    except (TypeError, ValueError) as error:
        said = str(error)
        if (missing := re.search("missing label.* in row ([0-9]+)", said)) is not None:
            raise ValueError(
                f"groups: row {missing[1]} has none (None, NaN, masked). Say whose it is, or leave "
                "the row out."
            ) from None
        said = re.sub(r"\by\b", "groups", said).replace("label", "group")
        raise type(error)(f"{said} A group says whose a row is.") from None
    return np.unique(known, return_inverse=True)[1].astype(np.int64)


def shares_of(X: Any, groups: Any, n_rows: int) -> Shares | None:
    """Whose rows are, where they are only counted; None where each is somebody's only one."""
    units = group_codes(X, groups, n_rows)
    return None if units is None else Shares(units, int(units.max(initial=-1)) + 1)


def rows_of_people(
    rows: ArrayRows | CacheRows,
    units: NDArray[np.int64] | None,
    weights: NDArray[np.float64] | None,
    largest_weight: float,
    *,
    method: str,
    max_group_rows: int,
    noise: NoiseSource,
) -> LabeledRows:
    """Rows with whose they are and how much they count; so many of each person at most.

    Parameters
    ----------
    rows : LabeledRows
    units : ndarray of shape (n_samples,), int64, or None
    weights : ndarray of shape (n_samples,) in 0 … largest_weight, or None
    largest_weight : float
    method : {"clip", "average"}
        What stands for a person: his rows, or the mean of those of each class.
    max_group_rows : int
        Of more, that many are drawn by secret coins.
    noise : NoiseSource
    """
    shares = None if units is None else Shares(units, int(units.max(initial=-1)) + 1)
    if weights is not None:
        shares = (shares or Shares(None, rows.n_samples)).times(weights, largest_weight)
    rows.shares = shares
    if units is None:
        return rows
    drawn = SelectedRows(rows, drawn_rows(units, max_group_rows, noise))
    sizes = np.bincount(units[drawn.selected])
    check_memory(
        _PAIR_BYTES * int((sizes * (sizes + 1) // 2).sum()),
        "products of the rows of each group with one another",
        "Lower max_group_rows.",
    )
    if max_group_rows == 1 and drawn.shares is not None:
        drawn.shares = None if weights is None else replace(drawn.shares, units=None)
        return drawn
    return _averaged(drawn) if method == "average" else drawn


def bounded_weights(
    sample_weight: Any, n_rows: int, largest: float | None
) -> tuple[NDArray[np.float64] | None, float]:
    """Weights of rows, and the largest that one may have.

    Raises
    ------
    ValueError
        If they are not one finite number >= 0 a row, or one is above the largest; names a row's
        position at most.

    Warns
    -----
    PrivacyWarning
        If the largest is read from private weights.
    """
    weights = row_weights(sample_weight, n_rows)
    if weights is None:
        return None, 1.0
    if largest is None:
        warn_caller(
            "the largest sample_weight was read from private weights, and noise is scaled by it: "
            "pass max_sample_weight=… to state it.",
            PrivacyWarning,
        )
        return weights, float(weights.max())
    above = np.flatnonzero(weights > largest)
    if len(above):
        raise ValueError(
            f"sample_weight must not be above max_sample_weight={largest!r}; row {int(above[0])}'s "
            "is. Raise max_sample_weight, or lower the weight."
        )
    return weights, float(largest)


def weight_assumptions(sample_weight: Any, largest: float | None) -> list[str]:
    """What a statement has to say of the largest weight, which noise is scaled by."""
    if sample_weight is None:
        return []
    if largest is None:
        return [
            "NOT COVERED unless public: the largest sample_weight was read from the data, and "
            "noise is scaled by it"
        ]
    return ["the largest sample_weight that a row may have is public knowledge"]


def class_factors(class_weight: Mapping[Any, Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Public weights of the classes, shape (n_classes,); 1 of those that are not named.

    Raises
    ------
    ValueError
        If it names other classes, or a weight is not a finite number >= 0, or all are 0.

    Warns
    -----
    UserWarning
        If one is so small beside another that it is rounded to 0.
    """
    factors = np.ones(len(classes))
    if len(class_weight):
        try:
            places = encode_labels(np.asarray(list(class_weight)), classes)
        except (TypeError, ValueError):
            raise ValueError(
                f"class_weight must name classes of {classes.tolist()}, got {list(class_weight)}."
            ) from None
        for place, (name, weight) in zip(places, class_weight.items(), strict=True):
            check(f"class_weight[{name!r}]", weight, _WEIGHT)
            factors[place] = float(weight)
    if not factors.any():
        raise ValueError("class_weight must leave a class with a weight above 0.")
    if ((factors > 0.0) & (factors < factors.max() / WHOLE)).any():
        warn_caller(
            f"class_weight makes a class count more than {WHOLE} times as much as another, which "
            "then does not count at all: whole weights are rounded down.",
            UserWarning,
        )
    return factors


def balanced_factors(counts: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """N / (K n_k) from noisy counts, scikit-learn's "balanced"; shape (n_classes,).

    A count that is lost in its noise is taken for the noise. Noise grows with the largest factor,
    and weights are whole parts of it (`WHOLE`): no class gets more than 40 times another's.
    """
    known = np.maximum(counts, max(noise, 1.0))
    known = np.maximum(known, known.max() / _LARGEST_RATIO)
    return np.asarray(known.sum() / (len(known) * known))


def _averaged(rows: LabeledRows) -> ArrayRows:
    """One row for each person and class, the mean of such rows, as heavy as they are many.

    Rows are added one by one, in their order, so that a mean is a function of a person's own.
    """
    shares = rows.shares
    assert shares is not None and shares.units is not None
    n_classes = int(rows.codes.max(initial=0)) + 1
    present, cells = np.unique(shares.units * n_classes + rows.codes, return_inverse=True)
    units, codes = np.divmod(present, n_classes)
    sizes = np.bincount(cells, minlength=len(present))
    sums, start = np.zeros((len(present), rows.n_features)), 0
    for block, _ in rows.blocks(_BLOCK_ROWS):
        here = cells[start : start + len(block)]
        start += len(block)
        values = block if isinstance(block, np.ndarray) else block.cpu().numpy()
        for turn in _turns(here):
            sums[here[turn]] += values[turn] / sizes[here[turn], np.newaxis]
    own = np.full(len(cells), WHOLE) if shares.weights is None else shares.weights
    heaviest = np.zeros(shares.n_units, dtype=np.int64)
    np.maximum.at(heaviest, units, sizes)
    total = np.zeros(len(present), dtype=np.int64)
    np.add.at(total, cells, own)
    weights = total // heaviest[units]
    averaged = Shares(units, shares.n_units, weights, shares.scale)
    return ArrayRows(sums, codes, averaged)


def _turns(cells: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    """Places of the first row of every cell, then of the second, and so on."""
    order = np.argsort(cells, kind="stable")
    ranks, sizes = ranks_within(cells[order])
    return (order[ranks == rank] for rank in range(int(sizes.max(initial=0))))
