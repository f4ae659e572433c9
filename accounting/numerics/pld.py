"""Privacy loss distributions (PLD) of Poisson-sampled and full-batch Gaussian releases.

An upper bound on delta at every epsilon, tight up to a grid that is chosen for the event in
hand: a fixed spacing fails, because each release adds its own rounding, so that the spacing
has to shrink with epsilon / sqrt(number of releases).

What "sampled" means under `replace_one` is what dp_accounting means by
`AdjacencyType.REPLACE`: a drawn row and its substitute move the outcome by C in opposite
directions. Our noise multiplier is always sigma / sensitivity, and there the sensitivity is
2C: dp_accounting's is twice ours. Full-batch releases come out right whatever C is; a sampled
release must have sensitivity 2C, as a clipped sum of rows has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dpfc.accounting.events import (
    GaussianSteps,
    UnsupportedEventError,
    composed_mu,
    probability_drawn,
)
from dpfc.accounting.numerics.pld_curve import LossCurve, Window, compose
from dpfc.accounting.numerics.pld_step import (
    DIRECTIONS,
    LossPair,
    LossSketch,
    discretise,
    loss_range,
)

Floats = NDArray[np.float64]

# Below this, the mass that is cut off would show.
SMALLEST_DELTA = 1e-12
# The grid may raise epsilon by about this, relative, …
_EPSILON_TOLERANCE = 4e-6
# … or delta by this.
_DELTA_TOLERANCE = 3e-5
# A tilt for this delta serves all deltas that a tilt of 0 does not.
_MIDDLE_LOG_DELTA = math.log(1e-9)
# Share of delta that may be spent on cutting off tails of the noise, over all steps.
_TAIL_SHARE = 1e-6
# Share of the tilted mass, and of delta, that may lie outside the window.
_LOG_WINDOW_SHARE = math.log(1e-10)
# Share of delta that rounding errors may add, and about what each release adds to that of the
# largest of the tilted masses.
_LOG_ROUNDING_SHARE = math.log(1e-8)
_ROUNDING = 1e-13
# Share of delta that moving mass up to the lowest loss may add, over all steps.
_LOG_LOW_SHARE = math.log(1e-9)
# Where these are not enough, the grid is coarser, which only raises epsilon.
_MAX_STEP_POINTS = 2**20
_MAX_WINDOW_POINTS = 2**21


def pld_epsilon(
    steps: tuple[GaussianSteps, ...], target_delta: float, neighboring_relation: str
) -> float:
    """Upper bound on the epsilon of composed `steps`, in [0, inf].

    Raises
    ------
    UnsupportedEventError
        When delta is too small to be resolved.
    """
    if target_delta < SMALLEST_DELTA:
        raise UnsupportedEventError(
            f"pld resolves target_delta down to {SMALLEST_DELTA:g}, got {target_delta!r}."
        )
    if probability_drawn(steps) <= target_delta:
        return 0.0
    return max(
        _Problem(steps, direction, target_delta).epsilon(target_delta)
        for direction in DIRECTIONS[neighboring_relation]
    )


def pld_delta(
    steps: tuple[GaussianSteps, ...], target_epsilon: float, neighboring_relation: str
) -> float:
    """Upper bound on the delta of composed `steps`, never below `SMALLEST_DELTA`."""
    deltas = [
        _Problem(steps, direction, SMALLEST_DELTA).delta(target_epsilon)
        for direction in DIRECTIONS[neighboring_relation]
    ]
    return max(SMALLEST_DELTA, *deltas)


def pld_deltas(
    steps: tuple[GaussianSteps, ...], neighboring_relation: str
) -> Callable[[Floats], Floats]:
    """Return the function from epsilons (n,) to upper bounds on delta (n,), composed once.

    No delta is below `SMALLEST_DELTA`.
    """
    directions = [
        _Problem(steps, direction, SMALLEST_DELTA).curves()
        for direction in DIRECTIONS[neighboring_relation]
    ]

    def deltas_at(epsilons: Floats) -> Floats:
        bounds = [
            np.minimum.reduce([curve.deltas(epsilons) for curve in curves]) for curves in directions
        ]
        return np.asarray(np.maximum.reduce([*bounds, np.full(epsilons.shape, SMALLEST_DELTA)]))

    return deltas_at


class _Problem:
    """The composed loss of `steps` in one direction, first sketched and then on a grid."""

    def __init__(self, steps: tuple[GaussianSteps, ...], direction: str, delta: float) -> None:
        steps = _merge_full_batch(steps)
        self._counts = [step.count for step in steps]
        self._log_tail_mass = math.log(_TAIL_SHARE * delta / sum(self._counts))
        self._pairs = [LossPair.of(step, direction) for step in steps]
        self._sketches = [LossSketch(pair, self._log_tail_mass) for pair in self._pairs]
        self._deviation = self._tilted_deviation(0.0)
        # Rare losses are large and call for orders near 1, whatever the deviation is.
        lowest = min(1e-3 / self._deviation, 1e-2)
        self._orders = np.geomspace(lowest, 1e3 / self._deviation, 150)
        self._log_moments = self._composed_log_moments(self._orders)

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon found at `delta`."""
        # The Chernoff bound is a rough guess: a few rare draws may make up all of delta.
        log_delta = math.log(delta)
        tilt, guess = self._chernoff(log_delta)
        window = self._narrowest_window(tilt, log_delta)
        epsilon = self._curve(window, tilt, _EPSILON_TOLERANCE * guess).epsilon(delta)
        if not 0 < epsilon < guess / 2:
            return epsilon
        tilt = self._tilt_at(epsilon)
        window = self._narrowest_window(tilt, log_delta)
        finer = self._curve(window, tilt, _EPSILON_TOLERANCE * epsilon).epsilon(delta)
        return min(epsilon, finer)

    def delta(self, epsilon: float) -> float:
        """Return the smallest delta found at `epsilon`."""
        tilt = self._tilt_at(epsilon)
        bound = float(np.min(self._log_moments - self._orders * epsilon))
        window = self._window(tilt, max(min(bound, 0.0), math.log(SMALLEST_DELTA)))
        curve = self._curve(window, tilt, _DELTA_TOLERANCE / max(tilt, 1 / self._deviation))
        return float(curve.deltas(np.array([epsilon]))[0])

    def curves(self) -> list[LossCurve]:
        """Return curves that together are tight from delta = 1 down to `SMALLEST_DELTA`."""
        tilt, _ = self._chernoff(_MIDDLE_LOG_DELTA)
        excess = _DELTA_TOLERANCE / max(tilt, 1 / self._deviation)
        windows = [self._window(0.0, 0.0), self._window(tilt, math.log(SMALLEST_DELTA))]
        return [self._curve(window, tilt, excess) for window in windows]

    def _chernoff(self, log_delta: float) -> tuple[float, float]:
        """Return the order of the best Chernoff bound at delta, and its epsilon."""
        bounds = (self._log_moments - log_delta) / self._orders
        best = int(np.argmin(bounds))
        return float(self._orders[best]), float(bounds[best])

    def _tilt_at(self, epsilon: float) -> float:
        """Return the order of the best Chernoff bound at `epsilon`, or 0 where none says much."""
        bounds = self._log_moments - self._orders * epsilon
        best = int(np.argmin(bounds))
        return float(self._orders[best]) if bounds[best] < 0 else 0.0

    def _curve(self, window: Window, tilt: float, excess: float) -> LossCurve:
        """Compose on a grid that raises epsilon by about `excess` where `tilt` is best."""
        steps = sum(self._counts)
        ranges = [loss_range(pair, self._log_tail_mass) for pair in self._pairs]
        if tilt > 0:
            # Mass further down has next to no part in delta.
            cut = (_LOG_LOW_SHARE - math.log(steps)) / tilt
            ranges = [(max(low, cut), high) for low, high in ranges]
        # A release gains a variance of up to interval^2 / 6 and half as much in its mean: its
        # log moment of order t gains t (t + 1) interval^2 / 12. Delta falls by a factor of
        # about exp(t) for each unit of epsilon.
        decay = max(tilt, 1 / self._deviation)
        interval = max(
            math.sqrt(12 * excess / ((decay + 1) * steps)),
            max(high - low for low, high in ranges) / _MAX_STEP_POINTS,
            (window.high - window.low) / _MAX_WINDOW_POINTS,
        )
        parts = [
            (discretise(pair, interval, *ends), count)
            for pair, ends, count in zip(self._pairs, ranges, self._counts, strict=True)
        ]
        # The grid's own spread, which is at most interval / 2 for each release. A window that is
        # too narrow for it only raises epsilon; without a limit, 1e15 steps take all memory.
        margin = interval * min(4 * math.sqrt(steps), _MAX_WINDOW_POINTS / 4)
        window = replace(window, low=window.low - margin, high=window.high + margin)
        return compose(parts, interval, window)

    def _narrowest_window(self, tilt: float, log_delta: float) -> Window:
        """Return a window for the best `tilt`, or a smaller one that keeps rounding errors small.

        Rare losses that are large widen the window less where the tilt is smaller.
        """
        if tilt == 0:
            return self._window(0.0, log_delta)
        tilts = tilt / np.array([1.0, 2.0, 4.0, 8.0])
        moments = self._composed_log_moments(tilts)
        # At the best tilt, epsilon is the slope of the log moment.
        ends = self._composed_log_moments(tilt * np.array([0.999, 1.001]))
        epsilon = float(np.diff(ends)[0]) / (0.002 * tilt)
        log_deltas = moments - epsilon * tilts
        allowed = _LOG_ROUNDING_SHARE - math.log(_ROUNDING * sum(self._counts))
        safe = tilts[log_deltas - log_deltas[0] <= max(allowed, 0.0)]
        # Between many small losses and few large ones, the Chernoff bound is far above delta.
        log_delta = min(log_delta, float(log_deltas[0]))
        windows = [self._window(float(t), log_delta) for t in safe]
        return min(windows, key=lambda window: window.high - window.low)

    def _window(self, tilt: float, log_delta: float) -> Window:
        """Return the part of the line in which nearly all of the mass lies, tilted or not."""
        center = self._composed_log_moments(np.array([tilt]))[0]
        deviation = self._tilted_deviation(tilt)
        spread = np.geomspace(min(1e-2 / deviation, 1e-2), 1e2 / deviation, 50)
        above = self._composed_log_moments(tilt + spread) - center - _LOG_WINDOW_SHARE
        below = self._composed_log_moments(tilt - spread) - center - _LOG_WINDOW_SHARE
        _, high = self._chernoff(log_delta + _LOG_WINDOW_SHARE)
        high = max(high, float(np.min(above / spread)))
        order = self._orders[np.argmin(self._log_moments - self._orders * high)]
        low = min(float(np.max(-below / spread)), high * (1 - 1e-6))
        return Window(low, high, tilt, float(order))

    def _tilted_deviation(self, tilt: float) -> float:
        sketches = zip(self._counts, self._sketches, strict=True)
        variance = sum(count * sketch.variance(tilt) for count, sketch in sketches)
        return math.sqrt(variance) or 1.0  # 0 where all losses are as good as infinite

    def _composed_log_moments(self, orders: Floats) -> Floats:
        sketches = zip(self._counts, self._sketches, strict=True)
        return np.asarray(sum(count * sketch.log_moments(orders) for count, sketch in sketches))


def _merge_full_batch(steps: tuple[GaussianSteps, ...]) -> tuple[GaussianSteps, ...]:
    """Replace full-batch releases by the one Gaussian that equals them exactly."""
    full_batch = [step for step in steps if not step.is_sampled]
    sampled = tuple(step for step in steps if step.is_sampled)
    if not full_batch:
        return sampled
    return (GaussianSteps(1 / composed_mu(full_batch), 1.0, 1), *sampled)
