"""The sums over private rows that dpfc releases, each with its own sensitivity.

A query is a sum over rows of whole numbers v(q, y). It states the largest norm that one row's v
can have, and the sensitivity that follows for each neighbouring relation; `PrivateRun.release`
adds noise to a query's sum and to nothing else. Rows q are whole numbers with ||q|| <= L, checked
one by one (`dpfc.mechanism.integer_rows`), and so are residuals ρ with ||ρ|| <= c.

| query | v(q, y) | ||v|| at most | replaced row, times that |
|---|---|---|---|
| Count | 1 | 1 | 0 |
| ClassCounts | e_y | 1 | √2 |
| FeatureSum | q | L | 2 |
| ClassSums | e_y qᵀ | L | 2 |
| Gram | q qᵀ | L² | √2 |
| ClassGrams | e_y ⊗ q qᵀ | L² | √2 |
| GradientSum | ρ qᵀ | cL | 2 |
| HessianSum | h ⊗ q qᵀ, 0 <= h_k <= H | √K H L² | √2 |
| ClassScores | e_y ⊗ e_(bin of a linear score of q) | 1 | √2 |

One added or removed row moves the sum by its v, exactly: integers add without rounding, in any
order, so ||v|| is the sensitivity. One replaced row moves it by ||v - v'|| <= 2 ||v||; where
<v, v'> >= 0 always (outer products q qᵀ, one-hot labels, non-negative weights), by at most
√2 ||v||; where v is constant, not at all. Where rows are weighed, or belong to persons who have
several, all of it holds for the part of a person, W = `WHOLE` times as large
(`dpfc.mechanism.people`); a Hessian's weights are rounded down into h instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.integer_products import product
from dpfc.mechanism.integer_rows import (
    BASE,
    RowGrid,
    as_int64,
    bounded_integers,
    digits_of,
    largest_of,
    products_of_digits,
)
from dpfc.mechanism.losses import Loss, SigmoidLoss
from dpfc.mechanism.people import WHOLE, Alike, Members
from dpfc.mechanism.row_map import RowMap, library, ordered_sum, roots

__all__ = [
    "MAX_SAMPLES",
    "ClassCounts",
    "ClassGrams",
    "ClassSums",
    "Count",
    "FeatureSum",
    "GradientSum",
    "Gram",
    "HessianSum",
    "LinearQuery",
    "Query",
    "Summand",
]

# The data domain: data sets of at most this many rows, of which no sum leaves int64.
MAX_SAMPLES = 2**24
_DIGITS = 2  # of weights, residuals and curvatures
_NO_WEIGHT = 1e-200  # weights that are all smaller are zero
_CACHE_ENTRIES = 2**17  # of residuals that are worked on at once, in a core's cache
_CACHE_ROWS = 4096  # at most
_HESSIAN_ROWS = 4096  # at once
_PANEL = 512  # columns of a matrix that are multiplied at once


class Summand(Protocol):
    """Whole numbers of a block of rows, added up, as int64."""

    def __call__(self, rows: Any, codes: Any, members: Members | None = None) -> Any:
        """Add rows, which are what `Query.reads` says, up.

        Members are those of a block whose rows are weighed.
        """
        ...


@dataclass(frozen=True)
class Query:
    """A sum over rows; see the module's table.

    Attributes
    ----------
    name : str
        What the privacy statement calls the release.
    formula : str
        v, for people.
    replace_factor : float
        Sensitivity for one replaced row over that for one added or removed row.
    symmetric : bool
        The last two axes of the sum are a symmetric matrix.
    reads : {"codes", "rows", "digits"}
        What a summand takes beside codes: nothing, rows as they came, or the kept digits of
        rows on their grid.
    whole : int
        What W times a row's own part is, where rows are weighed, in parts.
    turned : bool
        The last axis of a sum of digits is that of rows, which are turned on their grid.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    replace_factor: ClassVar[float]
    symmetric: ClassVar[bool] = False
    reads: ClassVar[Literal["codes", "rows", "digits"]] = "digits"
    whole: ClassVar[int] = WHOLE
    turned: ClassVar[bool] = True

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """Shape of the sum."""
        raise NotImplementedError

    def grid(self, row_map: RowMap, n_features: int) -> RowGrid:
        """What rows are rounded to for it."""
        return RowGrid.of(row_map, n_features)

    def row_norm(self, grid: RowGrid) -> float:
        """Largest norm of one row's v."""
        raise NotImplementedError

    def unit(self, grid: RowGrid) -> float:
        """What 1 in the sum is worth."""
        return 1.0

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """How a block of rows is summed."""
        raise NotImplementedError

    @classmethod
    def relation_factor(cls, neighboring_relation: str) -> float:
        """Sensitivity over the largest norm of one row's v."""
        return cls.replace_factor if neighboring_relation == "replace_one" else 1.0

    def l2_sensitivity(
        self, grid: RowGrid, neighboring_relation: str, *, weighed: bool = False
    ) -> float:
        """Largest change of the sum between neighbouring data sets, rounded up."""
        sensitivity = self.relation_factor(neighboring_relation) * self.row_norm(grid)
        if sensitivity > 1.0:
            sensitivity = math.nextafter(sensitivity, math.inf)
        if not weighed or sensitivity <= 1.0:  # 0 or 1, exactly
            return sensitivity * (self.whole if weighed else 1)
        return math.nextafter(sensitivity * self.whole, math.inf)


@dataclass(frozen=True)
class Count(Query):
    """Number of rows, shape (1,)."""

    name = "count"
    formula = "1"
    replace_factor = 0.0
    reads = "codes"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number."""
        return (1,)

    def row_norm(self, grid: RowGrid) -> float:
        """Exactly 1."""
        return 1.0

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Count the rows."""
        return lambda rows, codes, members=None: np.array(
            [len(codes) if members is None else int(members.weights.sum(dtype=np.float64))]
        )


@dataclass(frozen=True)
class ClassCounts(Query):
    """Rows in each class, shape (n_classes,)."""

    name = "class_counts"
    formula = "e_y"
    replace_factor = math.sqrt(2.0)
    reads = "codes"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number a class."""
        return (n_classes,)

    def row_norm(self, grid: RowGrid) -> float:
        """A one-hot vector has length 1."""
        return 1.0

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Count the labels."""

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            weights = None
            if members is not None:
                weights = _like(members.weights.astype(np.float64), codes)
            counts = library(codes).bincount(codes, weights, minlength=n_classes)
            return as_int64(counts)

        return add


@dataclass(frozen=True)
class FeatureSum(Query):
    """Sum of the rows, shape (n_columns,); a mean after division by a count."""

    name = "feature_sum"
    formula = "x"
    replace_factor = 2.0
    reads = "rows"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One number a column."""
        return (n_columns,)

    def grid(self, row_map: RowMap, n_features: int) -> RowGrid:
        """Fine steps: nothing but a sum is made of them."""
        return RowGrid(row_map, n_features, 0)

    def row_norm(self, grid: RowGrid) -> float:
        """A row's own norm."""
        return grid.l2_bound

    def unit(self, grid: RowGrid) -> float:
        """One step."""
        return grid.unit

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Add the rows."""
        return lambda rows, codes, members=None: as_int64(
            grid.total(rows, None if members is None else _like(members.weights, codes))
        )


@dataclass(frozen=True)
class ClassSums(Query):
    """Sum of the rows of each class, shape (n_classes, n_columns)."""

    name = "class_sums"
    formula = "e_y x^T"
    replace_factor = 2.0

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """One row a class."""
        return (n_classes, n_columns)

    def row_norm(self, grid: RowGrid) -> float:
        """||e_y|| ||q||."""
        return grid.l2_bound

    def unit(self, grid: RowGrid) -> float:
        """One step."""
        return grid.unit

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """One-hot labels times rows, in one product."""

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            xp = library(codes)
            kind = {} if xp is np else {"device": codes.device}
            classes = xp.arange(n_classes, **kind)[:, None]
            one_hot = classes == codes
            one_hot = one_hot.view(np.int8) if xp is np else one_hot.to(torch.int8)
            if members is not None:
                weights = members.bounded(_same(codes), self.row_norm(grid))
                one_hot = one_hot * _like(weights.astype(np.int8), codes)
            return products_of_digits([one_hot], [row.T for row in rows])

        return add


@dataclass(frozen=True)
class Gram(Query):
    """Second moments of the rows, shape (n_columns, n_columns)."""

    name = "gram"
    formula = "x x^T"
    replace_factor = math.sqrt(2.0)
    symmetric = True

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix."""
        return (n_columns, n_columns)

    def row_norm(self, grid: RowGrid) -> float:
        """||q qᵀ||_F = ||q||²."""
        return float(grid.squared_limit)

    def unit(self, grid: RowGrid) -> float:
        """One step, squared."""
        return grid.unit**2

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """QᵀQ."""

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            if members is None:
                return _gram(rows, rows)
            return _gram(self._weighed(grid, rows, members, lambda i, j: 1.0), rows)

        return add

    def _weighed(self, grid: RowGrid, rows: Any, members: Members, alike: Alike) -> list[Any]:
        """Rows times their whole weights, a digit longer."""
        entries = sum(_float32(row) * BASE**i for i, row in enumerate(rows))
        weights = _like(members.bounded(alike, self.row_norm(grid), power=2), entries)
        return digits_of(entries * weights, len(rows) + 1)  # below 2²⁴: exact in float32


@dataclass(frozen=True)
class ClassGrams(Gram):
    """Second moments of each class's rows, shape (n_classes, n_columns, n_columns)."""

    name = "class_grams"
    formula = "e_y (x) x x^T"

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix a class."""
        return (n_classes, n_columns, n_columns)

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """One product a class, over that class's rows."""

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            left = rows
            if members is not None:
                left = self._weighed(grid, rows, members, _same(codes))
            of_class = [codes == k for k in range(n_classes)]
            parts = [
                _gram(*([d[:, k] for d in digits] for digits in (left, rows))) for k in of_class
            ]
            return library(codes).stack(parts)

        return add


@dataclass(frozen=True)
class LinearQuery(Query):
    """A sum of what a linear model says of rows; its weights are public.

    Parameters
    ----------
    coef : torch.Tensor of shape (n_outputs, n_columns), float64
    """

    coef: torch.Tensor

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.coef).all()):
            raise ValueError("weights are not finite: they have diverged. Lower the step size.")

    def _logits(self, grid: RowGrid) -> Callable[[list[Any]], Any]:
        """Logits of a block, float32 (n_outputs, n_rows): whole numbers, then one rounding each.

        Weights are turned like rows and rounded to two digits, each output's in steps of its own.
        """
        columns = self.coef.T.cpu().numpy().copy()
        grid.rotation.turn(columns, np.empty_like(columns))
        peaks = abs(columns).max(axis=0, initial=0.0)
        steps = np.where(peaks > _NO_WEIGHT, peaks / largest_of(_DIGITS), 1.0)
        weights = np.stack(digits_of(np.rint(columns / steps).T, _DIGITS))
        with np.errstate(over="ignore"):
            units = (steps * grid.unit).astype(np.float32)[:, np.newaxis]

        def logits(rows: list[Any]) -> Any:
            total: Any = 0.0
            xp = library(rows[0])
            on = _on_device_of(rows[0])
            for i, row in enumerate(rows):
                parts = product(on(weights.reshape(-1, grid.n_columns)), row)
                for j in range(_DIGITS):
                    part = parts[j * len(units) : (j + 1) * len(units)]
                    part = part.astype(np.float32) if xp is np else part.float()
                    part *= on(units * np.float32(BASE ** (i + j)))
                    total = part + total
            return total

        return logits


@dataclass(frozen=True)
class GradientSum(LinearQuery):
    """Clipped gradient of a loss with respect to linear weights, shape (n_outputs, n_columns).

    A row's gradient is r xᵀ with ||r xᵀ||_F = ||r|| ||x||, so bounding the residual r
    by c bounds the gradient, and no gradient of a single row is ever formed.

    Parameters
    ----------
    coef : torch.Tensor of shape (n_outputs, n_columns), float64
        Weights to take the gradient at.
    loss : Loss
    residual_clip_norm : float
        c; a longer residual is scaled down to it. The loss's own bound applies too.
    """

    name = "gradient"
    formula = "clip_c(r) x^T"
    replace_factor = 2.0

    loss: Loss
    residual_clip_norm: float

    @property
    def residual_bound(self) -> float:
        """Largest norm of a clipped residual."""
        return min(self.residual_clip_norm, self.loss.residual_bound(len(self.coef)))

    @property
    def _squared_limit(self) -> int:
        """c², in steps: rounding lengthens a residual by √K/2 at most."""
        return math.ceil((largest_of(_DIGITS) + math.sqrt(len(self.coef)) / 2.0 + 1.0) ** 2)

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """The weights' shape."""
        return (len(self.coef), n_columns)

    def row_norm(self, grid: RowGrid) -> float:
        """||ρ|| ||q|| <= cL."""
        return math.nextafter(math.sqrt(self._squared_limit) * grid.l2_bound, math.inf)

    def unit(self, grid: RowGrid) -> float:
        """A residual's step times a row's."""
        return self.residual_bound / largest_of(_DIGITS) * grid.unit

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """Residuals of the block, clipped and rounded, times its rows."""
        logits = self._logits(grid)

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            n_outputs = len(self.coef)
            size = max(64, min(_CACHE_ROWS, _CACHE_ENTRIES // n_outputs))
            totals: list[Any] = [0] * len(rows)
            n_digits = _DIGITS if members is None else _DIGITS + 1
            for part, part_codes, of_part in _blocks(rows, codes, size, members):
                whole = self._rounded(self.loss.residual(logits(part), part_codes))
                if of_part is not None:
                    weights = of_part.bounded(_products(whole), self.row_norm(grid))
                    whole *= _like(weights, whole)  # below 2²⁴: exact in float32
                residuals = digits_of(whole, n_digits)
                stacked = library(residuals[0]).concatenate(residuals)
                totals = [t + product(stacked, row.T) for t, row in zip(totals, part, strict=True)]
            return sum(
                as_int64(total[j * n_outputs : (j + 1) * n_outputs]) * BASE ** (i + j)
                for i, total in enumerate(totals)
                for j in range(n_digits)
            )

        return add

    def _rounded(self, residual: Any) -> Any:
        """Residuals in whole steps of `residual_bound` over the largest number of two digits."""
        xp = library(residual)
        spare = residual * residual
        norms = roots(ordered_sum(spare, axis=0)[0] * 1.0)
        # A number over a tensor is that number times its reciprocal, in PyTorch: so in NumPy.
        residual *= largest_of(_DIGITS) * (1.0 / xp.clip(norms, self.residual_bound, None))
        whole = xp.empty_like(residual)
        return bounded_integers(residual, whole, spare, largest_of(_DIGITS), self._squared_limit)


@dataclass(frozen=True)
class HessianSum(LinearQuery):
    """Hessians of one-versus-rest logistic losses, shape (n_outputs, n_columns, n_columns).

    Parameters
    ----------
    coef : torch.Tensor of shape (n_outputs, n_columns), float64
    """

    name = "hessian"
    formula = "h (x) x x^T"
    replace_factor = math.sqrt(2.0)
    symmetric = True
    whole = 1

    def shape(self, n_columns: int, n_classes: int) -> tuple[int, ...]:
        """A square matrix an output."""
        return (len(self.coef), n_columns, n_columns)

    def row_norm(self, grid: RowGrid) -> float:
        """||h|| ||q||² with 0 <= h_k <= H."""
        squared = len(self.coef) * (self._largest(grid) * grid.squared_limit) ** 2
        return math.nextafter(math.sqrt(squared), math.inf)

    def unit(self, grid: RowGrid) -> float:
        """H is worth 1/4."""
        return 0.25 / self._largest(grid) * grid.unit**2

    def _largest(self, grid: RowGrid) -> int:
        """H: products of a weight and an entry have three digits, and sums of them fit int64."""
        return largest_of(3 - grid.n_digits)

    def summand(self, grid: RowGrid, n_classes: int) -> Summand:
        """One product an output, of rows times their whole weights."""
        logits, largest = self._logits(grid), self._largest(grid)

        def add(rows: Any, codes: Any, members: Members | None = None) -> Any:
            xp, totals = library(codes), [0] * len(self.coef)
            for part, _, of_part in _blocks(rows, codes, _HESSIAN_ROWS, members):
                curvature = SigmoidLoss.curvature(logits(part))
                curvature *= 4.0 * largest
                whole = xp.clip(xp.round(curvature), None, float(largest))
                whole = xp.where(whole >= 0.0, whole, 0.0)  # what is no number, too
                if of_part is not None:
                    # Outer products q qᵀ have no negative inner product: rounding h down, to no
                    # more than its weight leaves, shortens a person's part.
                    weights = of_part.bounded(_products(whole), self.row_norm(grid), power=2)
                    whole = xp.floor(whole * _like(weights, whole) / WHOLE)
                entries = sum(_float32(row) * BASE**i for i, row in enumerate(part))
                for k, weights in enumerate(whole):
                    digits = digits_of(entries * weights, 3)  # below 2²⁴: exact in float32
                    totals[k] = totals[k] + products_of_digits(digits, [row.T for row in part])
            return xp.stack(totals)

        return add


def _gram(weighed: list[Any], rows: list[Any]) -> Any:
    """QᵀWQ by panels of columns; those below the diagonal are those above it, turned."""
    n_columns = len(rows[0])
    panels = [slice(s, s + _PANEL) for s in range(0, n_columns, _PANEL)]
    shape = (n_columns, n_columns)
    if isinstance(rows[0], np.ndarray):
        total: Any = np.empty(shape, dtype=np.int64)
    else:
        total = torch.empty(shape, dtype=torch.int64, device=rows[0].device)
    for i, left in enumerate(panels):
        for right in panels[i:]:
            part = products_of_digits([r[left] for r in weighed], [r[right].T for r in rows])
            total[left, right] = part
            total[right, left] = part.T
    return total


def _on_device_of(like: Any) -> Callable[[Any], Any]:
    """Public arrays as private rows are: NumPy's, or tensors on their device."""
    if isinstance(like, np.ndarray):
        return lambda array: array
    return lambda array: torch.from_numpy(array).to(like.device)


def _blocks(
    rows: list[Any], codes: Any, size: int, members: Members | None
) -> Iterator[tuple[list[Any], Any, Members | None]]:
    """Parts of a block: on a CPU so small that what is worked out stays in a core's cache."""
    size = size if isinstance(codes, np.ndarray) else max(1, len(codes))
    places: Any = [(slice(0, 0), members)]  # one that is empty, where all are
    if len(codes):
        starts = range(0, len(codes), size)
        whole = ((slice(start, start + size), None) for start in starts)
        places = whole if members is None else members.parts(size)
    for part, of_part in places:
        yield [row[:, part] for row in rows], codes[part], of_part


def _float32(digits: Any) -> Any:
    return digits.astype(np.float32) if isinstance(digits, np.ndarray) else digits.float()


def _like(values: NDArray[Any], like: Any) -> Any:
    """A NumPy array of the kind of another, on its device."""
    return _on_device_of(like)(values)


def _same(codes: Any) -> Alike:
    """<e_y, e_y'> of pairs of rows."""
    known = codes if isinstance(codes, np.ndarray) else codes.cpu().numpy()
    return lambda i, j: known[i] == known[j]


def _products(whole: Any) -> Alike:
    """Inner products of columns, of whole numbers so small that float64 adds them exactly."""
    columns = whole if isinstance(whole, np.ndarray) else whole.cpu().numpy()
    double = columns.astype(np.float64)

    def alike(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        products = np.empty(len(i))
        for start in range(0, len(i), _CACHE_ROWS):
            some = slice(start, start + _CACHE_ROWS)
            products[some] = (double[:, i[some]] * double[:, j[some]]).sum(0)
        return products

    return alike
