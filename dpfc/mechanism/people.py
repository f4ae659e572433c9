"""Rows that belong together, and rows that count for less: what one person may add to a sum.

The unit of privacy is a person with all of his rows. What he adds to a sum of v over rows is

    Σ_i w_i v_i,   w_i whole numbers in 0 … W (`WHOLE`), for W times a row that counts fully,

and of norm at most W B, B the bound on ||v|| of one row (`Query.row_norm`). Two ways lead there:

- **even** weights, for counts and sums of rows as they came: a person's n rows get W/n each, in
  whole numbers that add up to W, so that the triangle inequality is the proof;
- **clipped** sums, for sums of products of rows: with v_i = a_i ⊗ b_i, the squared length of a
  person's part is Σ_ij w_i w_j <a_i, a_j> <b_i, b_j>, which takes his pairs of rows and no outer
  product. Rows that point elsewhere are kept almost whole: n rows at right angles keep 1/√n of
  their weight each, where even weights leave 1/n. Whoever is above W B has all his weights
  multiplied by one number below 1 and rounded down, until the length of what will be added, worked
  out again from the weights as rounded, is below.

Inner products are exact. What is rounded is the sum over a person's at most `MOST_ROWS`² pairs, to
2⁻²² of (W B)², in an order that his own rows decide; clipping leaves 2⁻²⁰ of it free. So weights
are a function of a person's own rows, and whoever else is in the data changes none.

One added or removed person moves a sum by his part; one replaced person by what `Query` says of
two rows, as <Σ w v, Σ w' v'> >= 0 where all <v, v'> are, and as even weights add up to W exactly.

A person has at most `max_group_rows` rows: of more, that many are drawn by secret coins of his own.
For any fixed coins the bound holds, and so it does for their mixture (joint quasi-convexity, as in
`dpfc.search.holdout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.noise import NoiseSource

__all__ = ["MOST_ROWS", "WHOLE", "Alike", "Members", "Shares", "drawn_rows", "ranks_within"]

WHOLE = 120  # the weight of a row that counts fully: halves, thirds, quarters, … tenths are exact
MOST_ROWS = 256  # of a person
_ROOM = 2.0**-20  # of the squared bound, for rounding in sums over pairs
_PAIRS_AT_ONCE = 2048
_TRIES = 8
# Inner products of left factors of pairs of rows (i, j).
Alike = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Shares:
    """Whose rows are, and how much they count; as private as rows.

    Attributes
    ----------
    units : ndarray of shape (n_samples,), int64, or None
        Persons as codes 0 … n_units - 1; None where each row is a person's only one.
    n_units : int
    weights : ndarray of shape (n_samples,), int64, or None
        Of rows in sums of products, 0 … `WHOLE`; None where all count fully.
    scale : float
        What `WHOLE` is worth.
    """

    units: NDArray[np.int64] | None
    n_units: int
    weights: NDArray[np.int64] | None = None
    scale: float = 1.0

    @property
    def even(self) -> NDArray[np.int64] | None:
        """Weights (n_samples,) that add up to `WHOLE` for every person; None where all are that."""
        if self.units is None:
            return None
        order = np.argsort(self.units, kind="stable")
        ranks, of_row = ranks_within(self.units[order])
        # Wholes of W r/n, of which each row gets what comes on top of the one before.
        weights = np.empty(len(order), dtype=np.int64)
        weights[order] = WHOLE * (ranks + 1) // of_row - WHOLE * ranks // of_row
        return weights

    def of(self, selected: NDArray[np.bool_]) -> Shares:
        """Those of the rows that a mask selects."""
        weights = None if self.weights is None else self.weights[selected]
        if self.units is None:
            return replace(self, n_units=int(selected.sum()), weights=weights)
        present, units = np.unique(self.units[selected], return_inverse=True)
        return replace(self, units=units, n_units=len(present), weights=weights)

    def times(self, factors: NDArray[np.float64], largest: float) -> Shares:
        """Rows count so much less: factors (n_samples,) in 0 … largest."""
        with np.errstate(all="ignore"):
            kept = np.clip(factors / largest, 0.0, 1.0)
        own = WHOLE if self.weights is None else self.weights
        # A weight that is a fraction of `WHOLE` but for rounding is taken for it.
        weights = np.floor(own * kept + 1e-9).astype(np.int64)
        return replace(self, weights=weights, scale=self.scale * largest)

    def order(self) -> NDArray[np.int64] | None:
        """Rows' places with each person's next to each other; None where they lie so already."""
        return None if self.units is None else np.argsort(self.units, kind="stable")


@dataclass(frozen=True)
class Members:
    """The rows of a block, each person's next to each other and complete.

    Attributes
    ----------
    weights : ndarray of shape (n_rows,), float32
        Whole numbers in 0 … `WHOLE`.
    units : ndarray of shape (n_rows,), int64, or None
        Ascending; None where sums are not clipped.
    pairs : tuple of ndarrays (i, j, products), or None
        Places of two rows of one person, i <= j, each pair once; <b_i, b_j>.
    """

    weights: NDArray[np.float32]
    units: NDArray[np.int64] | None = None
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]] | None = None

    @classmethod
    def of(
        cls,
        weights: NDArray[Any],
        units: NDArray[np.int64] | None = None,
        rows: Sequence[Any] = (),
        base: int = 1,
    ) -> Members:
        """Find a block's pairs, and multiply their rows.

        Parameters
        ----------
        weights : ndarray of shape (n_rows,)
        units : ndarray of shape (n_rows,) or None
        rows : list of int8 arrays of shape (n_columns, n_rows)
            Digits, the last one first.
        base : int
        """
        if units is None:
            return cls(weights.astype(np.float32))
        i, j = _pairs(units)
        products = np.empty(len(i))
        for start in range(0, len(i), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            left, right = (_whole(rows, places[part], base) for places in (i, j))
            products[part] = (left * right).sum(0)  # below 2⁵³: exact in any order
        return cls(weights.astype(np.float32), units, (i, j, products))

    def select(self, keep: NDArray[np.bool_]) -> Members:
        """Those of the rows that a mask keeps; of a person all or none."""
        if self.units is None or self.pairs is None:
            return Members(self.weights[keep])
        places = np.cumsum(keep) - 1
        i, j, products = self.pairs
        kept = keep[i]
        pairs = (places[i[kept]], places[j[kept]], products[kept])
        return Members(self.weights[keep], self.units[keep], pairs)

    def places(self, size: int) -> Iterator[slice]:
        """Parts of about so many rows, none of which divides a person."""
        n_rows, start = len(self.weights), 0
        while start < n_rows:
            stop = min(start + size, n_rows)
            if self.units is not None and stop < n_rows:
                first, last = (
                    int(np.searchsorted(self.units, self.units[stop], side=side))
                    for side in ("left", "right")
                )
                stop = first if first > start else last
            yield slice(start, stop)
            start = stop

    def parts(self, size: int) -> Iterator[tuple[slice, Members]]:
        """Such parts, with their members."""
        return ((place, self._part(place)) for place in self.places(size))

    def _part(self, place: slice) -> Members:
        if self.units is None or self.pairs is None:
            return Members(self.weights[place])
        i, j, products = self.pairs
        some = slice(*np.searchsorted(i, [place.start, place.stop]))
        pairs = (i[some] - place.start, j[some] - place.start, products[some])
        return Members(self.weights[place], self.units[place], pairs)

    def bounded(self, alike: Alike, row_norm: float, power: int = 1) -> NDArray[np.float32]:
        """Weights with which no person's part is longer than `WHOLE` rows' bounds.

        Parameters
        ----------
        alike : callable
            (i, j) to <a_i, a_j>, exact in float64.
        row_norm : float
            B, of a row that counts fully.
        power : int, default=1
            Of <b_i, b_j>.

        Returns
        -------
        ndarray of shape (n_rows,), float32
            Whole numbers in 0 … `WHOLE`.
        """
        if self.units is None or self.pairs is None:
            return self.weights
        i, j, products = self.pairs
        terms = np.where(i < j, 2.0, 1.0) * np.asarray(alike(i, j)) * products**power
        units = self.units - self.units[0] if len(self.units) else self.units
        alone = np.bincount(units) == 1
        limit = (WHOLE * row_norm) ** 2 * (1.0 - _ROOM)

        def squares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(units[i], terms * weights[i] * weights[j]).astype(np.float64)

        weights = self.weights.astype(np.float64)
        for _ in range(_TRIES):
            squared = squares(weights)
            above = (squared > limit) & ~alone
            if not above.any():
                return weights.astype(np.float32)
            with np.errstate(all="ignore"):
                factors = np.sqrt(limit / squared)
            # Rounding down may undo what cancels out: then once more, from what is left.
            weights = np.where(above[units], np.floor(weights * factors[units]), weights)
        above = (squares(weights) > limit) & ~alone
        return np.where(above[units], 0.0, weights).astype(np.float32)


def drawn_rows(
    units: NDArray[np.int64], max_group_rows: int, noise: NoiseSource
) -> NDArray[np.bool_]:
    """Keep at most so many rows of each person, drawn by secret coins; a mask (n_samples,)."""
    keys = np.frombuffer(noise.random_bytes(8 * len(units)), dtype=np.uint64)
    order = np.lexsort((keys, units))
    ranks, _ = ranks_within(units[order])
    keep = np.zeros(len(order), dtype=bool)
    keep[order[ranks < max_group_rows]] = True
    return keep


def ranks_within(units: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of ascending units, each place's number among its unit's, from 0; and how many those are."""
    sizes = np.unique(units, return_counts=True)[1]
    ranks = np.arange(len(units)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks, np.repeat(sizes, sizes)


def _pairs(units: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs i <= j of places with one unit, ascending in i; units ascend."""
    ends = np.searchsorted(units, units, side="right")
    after = ends - np.arange(len(units))  # rows of the person from here on
    i = np.repeat(np.arange(len(units)), after)
    j = i + np.arange(len(i)) - np.repeat(np.cumsum(after) - after, after)
    return i, j


def _whole(rows: Sequence[Any], places: NDArray[np.int64], base: int) -> NDArray[np.float64]:
    """Rows at places as whole numbers, (n_columns, n_places)."""
    total: Any = 0.0
    for power, digits in enumerate(rows):
        if isinstance(digits, np.ndarray):
            picked = digits[:, places]
        else:
            picked = digits[:, torch.from_numpy(places).to(digits.device)].cpu().numpy()
        total = total + picked.astype(np.float64) * float(base**power)
    return np.asarray(total)
