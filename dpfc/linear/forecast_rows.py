"""Rows that a forecast is made from: a public data set, or made up from public numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from dpfc._support.memory import check_memory
from dpfc._support.validation import Flag, Interval, check
from dpfc.mechanism.labels import as_labels, encode_labels, public_classes
from dpfc.mechanism.rows import BlockSource, cache_labels
from dpfc.mechanism.user_rows import as_matrix

__all__ = [
    "ANOTHER_SOURCE",
    "SAME_SOURCE",
    "SIMULATED",
    "SPECTRUM_DECAY",
    "PublicRows",
    "RowSource",
    "SimulatedRows",
    "Split",
    "row_source",
]

# What is allowed for the difference between these rows and private ones, in units of √(p (1 - p));
# chosen by experiments/benchmarks/forecast.py.
SAME_SOURCE, ANOTHER_SOURCE, SIMULATED = 0.02, 0.25, 0.1
# Measured on the principal axes of pixels, measurements and embeddings: 1.0 to 1.9.
SPECTRUM_DECAY = 1.3

# Of public rows, what fits may have at most; the rest scores them.
_FIT_SHARE = 0.75
_MOST_TEST_ROWS = 10_000
_FEWEST_ROWS = 20
# More would make a forecast slower, and hardly better.
_MOST_ROWS = 10_000
_SIMULATED_TEST_ROWS = 4_000
# Of a simulation: the largest b, the mean's part of the rows' energy, and steps between repeats
# that leave no part of [0, 1] out.
_MOST_CONCENTRATED = 4.0
_MEAN_ENERGY = 0.3
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Split(NamedTuple):
    """Rows to fit on and rows to score on; classes are positions."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]


class RowSource(Protocol):
    """Where the rows of a forecast come from.

    Attributes
    ----------
    description : str
    classes : ndarray of shape (n_classes,)
        Labels, sorted.
    class_shares : ndarray of shape (n_classes,)
    n_features : int
    n_scored : float
        How many different rows all repeats together are scored on; inf where they never end.
    allowance : float
        How far private rows may differ from these: standard deviation of the accuracy's
        difference, in units of √(p (1 - p)) at accuracy p.
    """

    description: str
    classes: NDArray[Any]
    class_shares: NDArray[np.float64]
    n_features: int
    n_scored: float
    allowance: float

    def split(self, repeat: int, n_fit: int) -> Split:
        """Give the rows of one repeat: up to `n_fit` for a fit, in random order, and others."""
        ...


class PublicRows:
    """A similar data set that is public, with labels.

    Parameters
    ----------
    features : array-like of shape (n_public, n_features), or FeatureCache
    labels : array-like of shape (n_public,) or None
        Left out for a cache, which has its own.
    classes : array-like or None
        As the estimator's; None reads them from the public labels.
    random_state : int
    same_source : bool
        Whether public and private rows are random parts of one whole.

    Raises
    ------
    TypeError, ValueError
        If they are no rows with labels, or too few to say anything.
    """

    def __init__(
        self,
        features: Any,
        labels: ArrayLike | None,
        classes: Any,
        random_state: int,
        *,
        same_source: bool = False,
    ):
        self.allowance = SAME_SOURCE if same_source else ANOTHER_SOURCE
        if isinstance(features, BlockSource):
            if labels is not None:
                raise ValueError("public_labels must be left out where public_features is a cache.")
            self._X, y = _of_cache(features)
            classes = features.class_names if classes is None else classes
        else:
            matrix = as_matrix(features)
            self._X = matrix if isinstance(matrix, np.ndarray) else matrix.detach().cpu().numpy()
            y = as_labels(labels, len(self._X), "forecast")
        if len(y) < _FEWEST_ROWS:
            raise ValueError(
                f"public_features must have {_FEWEST_ROWS} rows or more, got {len(y)}: fewer tell "
                "nothing of accuracy."
            )
        self.classes = public_classes(np.unique(y) if classes is None else classes, [y])
        self._y, self._random_state = encode_labels(y, self.classes), random_state
        self.class_shares = np.bincount(self._y, minlength=len(self.classes)) / len(y)
        self.n_features, self.n_scored = int(self._X.shape[1]), float(len(y))
        self.description = f"{len(y):,} public rows"

    def split(self, repeat: int, n_fit: int) -> Split:
        """Take the first rows of a random order; those after them score.

        Four repeats share an order and begin a quarter of it later each time, so that all rows
        score equally often.
        """
        turn, quarter = divmod(repeat, 4)
        n_rows = len(self._y)
        order = np.random.default_rng([self._random_state, turn]).permutation(n_rows)
        order = np.roll(order, quarter * n_rows // 4)
        n_fit = min(n_fit, int(_FIT_SHARE * n_rows), _MOST_ROWS)
        fit, test = order[:n_fit], order[n_fit : n_fit + _MOST_TEST_ROWS]
        return Split(self._X[fit], self._y[fit], self._X[test], self._y[test])


def _of_cache(cache: BlockSource) -> tuple[NDArray[Any], NDArray[Any]]:
    pairs = [(np.asarray(X), cache_labels(cache, y)) for X, y in cache.blocks()]
    if not pairs:
        raise ValueError("public_features hold no rows.")
    X, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return X, y


class SimulatedRows:
    """Normal mixtures with the spectrum, class shares and separation that are stated.

    Features in their principal axes (no solver minds a rotation) have the covariance
    Λ = diag(i^-a) in every class, and class k the mean s Λ^½ B^½ g_k with g_k standard normal and
    B = diag(i^-b). s is where the best possible classifier has the stated accuracy. How far the
    classes differ along the leading axes, b, decides how well noise hides them, and no public
    number tells it: each repeat has another b between 0 (differences look like the spread of
    rows) and 4 (they lie in few axes), and a mixture of its own.

    Parameters
    ----------
    n_features : int
    n_classes : int
    accuracy : float
        What a classifier without privacy reaches on many rows.
    class_shares : sequence of float or None
        Of all rows; None for equal ones.
    spectrum_decay : float
        a: the i-th largest variance of the features is i^-a of the largest.
    random_state : int

    Raises
    ------
    ValueError
        If a number is not allowed, or the accuracy is below the share of the largest class.
    """

    allowance = SIMULATED
    n_scored = math.inf

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        accuracy: float,
        class_shares: Sequence[float] | None,
        spectrum_decay: float,
        random_state: int,
    ):
        check("n_features", n_features, Interval(1, 10**6, closed="both", integer=True))
        check("n_classes", n_classes, Interval(2, 10**4, closed="both", integer=True))
        self.n_features = int(n_features)
        self.classes = np.arange(n_classes)
        self.class_shares = _shares(int(n_classes), class_shares)
        check("accuracy", accuracy, Interval(float(self.class_shares.max()), 1))
        check("spectrum_decay", spectrum_decay, Interval(0, 10, closed="both"))
        self._accuracy, self._decay = float(accuracy), float(spectrum_decay)
        self._random_state = random_state
        self.description = (
            f"simulated rows: {n_features:,} features, {n_classes:,} classes, accuracy "
            f"{accuracy:g} without privacy, variances falling as i^-{spectrum_decay:g}"
        )
        needed = 8 * (_MOST_ROWS + _SIMULATED_TEST_ROWS) * 3 * self.n_features
        check_memory(needed, "simulated rows", "State fewer features.")

    def split(self, repeat: int, n_fit: int) -> Split:
        """Draw a mixture, the same for every `n_fit`, and rows of it."""
        n_fit = min(n_fit, _MOST_ROWS)
        generator = np.random.default_rng([self._random_state, repeat])
        axes = np.arange(1, self.n_features + 1)
        spread = axes ** (-self._decay / 2.0)
        concentration = _MOST_CONCENTRATED * ((repeat * _GOLDEN + 0.5) % 1.0)
        means = generator.normal(size=(len(self.class_shares), self.n_features))
        means *= axes ** (-concentration / 2.0)
        means -= self.class_shares @ means
        means *= _separation(means, self.class_shares, self._accuracy, generator)
        # A common mean, which private rows have too, and which a fit has to take off.
        energy = float(((1.0 + self.class_shares @ means**2) * spread**2).sum())
        offset = generator.normal(size=self.n_features)
        offset *= math.sqrt(_MEAN_ENERGY / (1.0 - _MEAN_ENERGY) * energy / float(offset @ offset))
        n_rows = n_fit + _SIMULATED_TEST_ROWS
        y = generator.choice(len(self.class_shares), size=n_rows, p=self.class_shares)
        X = generator.normal(size=(n_rows, self.n_features))
        X = ((X + means[y]) * spread + offset).astype(np.float32)
        return Split(X[:n_fit], y[:n_fit], X[n_fit:], y[n_fit:])


def _shares(n_classes: int, shares: Sequence[float] | None) -> NDArray[np.float64]:
    """Class shares that add up to 1."""
    if shares is None:
        return np.full(n_classes, 1.0 / n_classes)
    found = np.asarray(shares, dtype=np.float64)
    if found.shape != (n_classes,) or not (found > 0.0).all() or abs(found.sum() - 1.0) > 0.01:
        raise ValueError(
            f"class_shares must be {n_classes} positive numbers that add up to 1, got {shares!r}."
        )
    return np.asarray(found / found.sum())


def _separation(
    means: NDArray[np.float64],
    shares: NDArray[np.float64],
    accuracy: float,
    generator: np.random.Generator,
) -> float:
    """Factor on `means` at which the best classifier of N(mean, I) rows has an accuracy.

    It takes the class with the largest log share + ⟨x, m⟩ - ‖m‖²/2; its accuracy is that on
    drawn rows, the same ones at every factor.
    """
    y = generator.choice(len(shares), size=_SIMULATED_TEST_ROWS, p=shares)
    # ⟨noise, m⟩ alone is needed of the noise: drawn in the span of the means.
    factor = np.linalg.qr(means.T, mode="r")
    noise = generator.normal(size=(len(y), len(factor))) @ factor
    products = means @ means.T

    def excess(log_factor: float) -> float:
        s = math.exp(log_factor)
        scores = np.log(shares) + s * noise + s * s * (products[y] - np.diag(products) / 2.0)
        return float((scores.argmax(axis=1) == y).mean()) - accuracy

    low, high = -12.0, 12.0
    if excess(low) >= 0.0:
        return math.exp(low)
    return math.exp(brentq(excess, low, high, xtol=1e-3))


def row_source(
    *,
    public_features: Any,
    public_labels: ArrayLike | None,
    same_source: bool,
    classes: Any,
    n_features: int | None,
    n_classes: int | None,
    accuracy: float | None,
    class_shares: Sequence[float] | None,
    spectrum_decay: float,
    random_state: int,
) -> RowSource:
    """Public rows where there are any, else simulated ones.

    Raises
    ------
    ValueError
        If both are asked for, or neither in full.
    """
    check("same_source", same_source, Flag())
    check("random_state", random_state, Interval(0, 2**32, closed="left", integer=True))
    if public_features is not None:
        extra = {
            "n_features": n_features,
            "n_classes": n_classes,
            "accuracy": accuracy,
            "class_shares": class_shares,
        }
        if given := [name for name, value in extra.items() if value is not None]:
            raise ValueError(f"public_features tell {given[0]}: leave it out, or the public rows.")
        return PublicRows(
            public_features, public_labels, classes, random_state, same_source=same_source
        )
    if same_source:
        raise ValueError("same_source goes with public_features.")
    if public_labels is not None:
        raise ValueError("public_labels go with public_features.")
    listed = None if classes is None else public_classes(classes, [])
    if listed is not None:
        if n_classes not in (None, len(listed)):
            raise ValueError(f"n_classes is {n_classes!r}, and classes lists {len(listed)} labels.")
        n_classes = len(listed)
    if n_classes is None and class_shares is not None:
        n_classes = len(class_shares)
    if n_features is None or n_classes is None or accuracy is None:
        raise ValueError(
            "a forecast is made from public_features (a similar data set that is public), or from "
            "what is publicly known of such data: n_features, n_classes and accuracy."
        )
    source = SimulatedRows(
        n_features, n_classes, accuracy, class_shares, spectrum_decay, random_state
    )
    if listed is not None:
        source.classes = listed
    return source
