"""What accuracy to expect at an ε and a number of rows, before anything is spent.

A forecast never sees a private row. It fits the same estimator, with its own mechanism and
noise, on rows of `dpfc.linear.forecast_rows`, which are public or made up, and scores each fit on
other rows of them. No ledger takes part.

Where more rows are asked for than there are, fits have the noise of the wanted number. A sum
over rows grows with n and its noise with 1/μ, so that what a solver makes of it hangs on nμ:
m rows at μ n/m have the same ratio of signal to noise. What is left is that a model of m rows
fits other rows less well than one of n would; how accuracy grows from a quarter of the rows to
all of them, at that same ratio, is carried on as a power of their number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from sklearn.base import clone

from dpfc._support.notebook_tables import NotebookTable
from dpfc._support.progress import progress_bar
from dpfc._support.validation import EPSILON, Constraint, Interval, check
from dpfc.accounting import gaussian_epsilon
from dpfc.exceptions import PrivacyWarning
from dpfc.linear.forecast_rows import RowSource, Split

if TYPE_CHECKING:
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = [
    "CONFIDENCE",
    "EPSILONS",
    "Forecast",
    "ForecastCell",
    "Outcomes",
    "forecast_of",
    "interval",
    "outcomes_of",
]

CONFIDENCE = 0.8
EPSILONS = (0.1, 0.5, 1.0, 2.0, 8.0)
# The gap to very many rows shrinks with this power of their number; and how far that is
# doubted, as a share of what it adds.
_GROWTH = 0.75
_GROWTH_DOUBT = 0.5
_LARGEST = 1e15  # an epsilon that accounting takes
_ROWS = Interval(2, 10**12, closed="both", integer=True)


@dataclass(frozen=True)
class ForecastCell:
    """What one fit is expected to reach.

    Attributes
    ----------
    epsilon : float
    n_samples : int
    accuracy : float
        Mean over fits.
    low, high : float
        One fit's accuracy lies between them with probability 0.8.
    """

    epsilon: float
    n_samples: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Forecast(NotebookTable):
    """Expected accuracy by ε and number of rows, from public quantities alone.

    Attributes
    ----------
    cells : tuple of ForecastCell
        By number of rows, then by ε.
    estimator : str
    delta : float
    n_features, n_classes : int
    constant : float
        Accuracy of always saying the most frequent class.
    source : str
        What rows it was made from.
    repeats : int
        Fits a cell.
    confidence : float
        Of the intervals, 0.8.
    """

    cells: tuple[ForecastCell, ...]
    estimator: str
    delta: float
    n_features: int
    n_classes: int
    constant: float
    source: str
    repeats: int
    confidence: float = CONFIDENCE

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self) | {"cells": [asdict(cell) for cell in self.cells]}

    def __str__(self) -> str:
        lines = [f"{'rows':>12}  {'ε':>6}  {'accuracy':>8}  80% interval"]
        lines += [
            f"{c.n_samples:>12,}  {c.epsilon:>6g}  {c.accuracy:>8.3f}  {c.low:.3f} to {c.high:.3f}"
            for c in self.cells
        ]
        lines += ["", f"always the most frequent class: {self.constant:.3f}", f"from {self.source}"]
        return "\n".join(lines)


class Outcomes(NamedTuple):
    """Fits for one cell, as they were scored.

    Attributes
    ----------
    accuracies : ndarray of shape (repeats,)
    gained : float
        What rows at hand have over a quarter of them, at the same signal to noise.
    share : float
        Of the rows that are wanted, those at hand; 1 where there are enough.
    n_test : int
        Rows that each fit was scored on.
    n_scored : float
        Different rows that all fits were scored on.
    """

    accuracies: NDArray[np.float64]
    gained: float
    share: float
    n_test: int
    n_scored: float

    @property
    def growth(self) -> float:
        """What the missing rows add: a - b m^-c through a quarter and all of those at hand."""
        grown = (1.0 - self.share**_GROWTH) / (4.0**_GROWTH - 1.0)
        return float(self.gained * grown)

    @property
    def mean(self) -> float:
        """Expected accuracy."""
        return _clipped(float(self.accuracies.mean()) + self.growth)


def forecast_of(
    estimator: PrivateLinearClassifier,
    source: RowSource,
    n_samples: int | Sequence[int],
    epsilons: float | Sequence[float],
    *,
    repeats: int,
    n_test: int | None,
    random_state: int,
) -> Forecast:
    """Fit on public rows only, and sum up; see `PrivateLinearClassifier.forecast`."""
    rows = _checked("n_samples", n_samples, _ROWS)
    epsilons = _checked("epsilons", epsilons, EPSILON)
    check("repeats", repeats, Interval(2, 10_000, closed="both", integer=True))
    check("n_test", n_test, Interval(1, closed="left", integer=True, words=(None,)))
    cells, total = [], repeats * len(rows) * len(epsilons)
    with progress_bar("forecasting", total) if estimator.verbose else nullcontext() as update:
        found = outcomes_of(
            estimator, source, rows, epsilons, repeats, random_state, update or _silent
        )
    for (n, epsilon), outcomes in found.items():
        low, high = interval(outcomes, source.allowance, n_test)
        cells.append(ForecastCell(epsilon, n, outcomes.mean, low, high))
    return Forecast(
        tuple(cells),
        type(estimator).__name__,
        float(estimator.delta),
        source.n_features,
        len(source.class_shares),
        float(source.class_shares.max()),
        source.description,
        int(repeats),
    )


def _checked(name: str, values: Any, constraint: Constraint) -> list[Any]:
    """One value or several, each allowed, without what is there already."""
    listed = [values] if isinstance(values, str) or np.ndim(values) == 0 else list(values)
    if not listed:
        raise ValueError(f"{name} must hold one number or more.")
    return list(dict.fromkeys(check(name, value, constraint) for value in listed))


def _silent(**_: object) -> None:
    pass


def outcomes_of(
    estimator: PrivateLinearClassifier,
    source: RowSource,
    n_samples: Sequence[int],
    epsilons: Sequence[float],
    repeats: int,
    random_state: int,
    update: Callable[..., object] = _silent,
) -> dict[tuple[int, float], Outcomes]:
    """Fit every cell on rows of the source, as often as there are repeats.

    `update` is called with ``advance=1`` when a cell's fits of one repeat are done.
    """
    multipliers = {epsilon: _mu(estimator, epsilon) for epsilon in epsilons}
    cells = [(n, epsilon) for n in n_samples for epsilon in epsilons]
    scores: dict[tuple[int, float], list[tuple[float, float]]] = {cell: [] for cell in cells}
    sizes: dict[int, tuple[int, int]] = {}
    for repeat in range(repeats):
        for place, n in enumerate(n_samples):
            split = source.split(repeat, n)
            sizes[n] = len(split.y), len(split.y_test)
            for number, epsilon in enumerate(epsilons):
                seed = np.random.SeedSequence([random_state, repeat, place, number])
                fit = _Fit(estimator, split, source.classes, multipliers[epsilon] * n)
                scores[n, epsilon].append(fit.scores(int(seed.generate_state(1)[0]), n))
                update(advance=1)
    found = {}
    for n, epsilon in cells:
        whole, quarter = np.array(scores[n, epsilon]).T
        m, n_test = sizes[n]
        gained = max(float((whole - quarter).mean()), 0.0)
        found[n, epsilon] = Outcomes(whole, gained, m / n, n_test, source.n_scored)
    return found


def _mu(estimator: PrivateLinearClassifier, epsilon: float) -> float:
    """Gaussian parameter that the estimator's plan buys with ε.

    Raises
    ------
    ValueError
        If the plan is not of full-batch releases alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)
        plan = clone(estimator).set_params(epsilon=epsilon).privacy_plan()
    if plan.mu is None:
        raise ValueError("a forecast needs full-batch releases: set sampling_probability to 1.")
    return float(plan.mu)


class _Fit(NamedTuple):
    """Private fits on public rows, with the noise that `total` = nμ asks for."""

    estimator: PrivateLinearClassifier
    split: Split
    classes: NDArray[Any]
    total: float

    def scores(self, seed: int, n_wanted: int) -> tuple[float, float]:
        """Accuracy with all rows at hand, and with a quarter where more are wanted."""
        m = len(self.split.y)
        whole = self._score(m, seed)
        return whole, self._score(max(m // 4, 1), seed) if n_wanted > m else whole

    def _score(self, n_fit: int, seed: int) -> float:
        delta, mu = self.estimator.delta, self.total / n_fit
        epsilon = min(gaussian_epsilon(mu, delta), _LARGEST) if math.isfinite(mu) else math.inf
        model = clone(self.estimator).set_params(
            epsilon=epsilon,
            accountant="auto",
            classes=self.classes,
            n_samples=None if self.estimator.n_samples is None else n_fit,
            ledger=None,
            dataset=None,
            random_state=seed,
            verbose=False,
        )
        with warnings.catch_warnings():
            # Rows are public: that a seed is given, or δ is large, endangers nobody.
            warnings.simplefilter("ignore")
            model.fit(self.split.X[:n_fit], self.classes[self.split.y[:n_fit]])
            return float(model.score(self.split.X_test, self.classes[self.split.y_test]))


def interval(
    outcomes: Outcomes, allowance: float, n_test: int | None = None
) -> tuple[float, float]:
    """Bounds between which one more fit on other rows like these lies with probability 0.8.

    Fits scatter, not always normally (where noise decides, two classes give a mixture of two
    accuracies), so that their own values are kept, each with a normal error: of the rows that
    scored them, of growth by rows that were not there, of private rows that are not these, and
    of the private test rows. The scatter that the scoring rows alone make is taken off first.
    """
    values = outcomes.accuracies
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    spread = max(mean * (1.0 - mean), 1e-4)  # a perfect score on a few rows is no certainty
    kept = max(variance - spread / outcomes.n_test, 0.0) / max(variance, 1e-12)
    centres = mean + outcomes.growth + (values - mean) * math.sqrt(kept)
    error = math.sqrt(
        spread / outcomes.n_scored
        + (0.0 if n_test is None else spread / n_test)
        + kept * variance / len(values)
        + (_GROWTH_DOUBT * outcomes.growth) ** 2
        + spread * allowance**2
    )
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = (_quantile(centres, error, level) for level in (tail, 1.0 - tail))
    return _clipped(low), _clipped(high)


def _quantile(centres: NDArray[np.float64], error: float, level: float) -> float:
    """Of the mixture of normal laws around the centres."""

    def excess(x: float) -> float:
        return float(ndtr((x - centres) / error).mean()) - level

    reach = 10.0 * error
    return float(brentq(excess, centres.min() - reach, centres.max() + reach, xtol=1e-6))


def _clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)
