"""Sums over bounded rows as the linear solvers draw them, through a `PrivateRun`.

A solver holds a `GaussianMechanism` and never the data. It names a planned release and a query;
the mechanism states what is public of the query's sum over rows that its row map bounds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.late import torch
from dpfc.mechanism.bounded_sums import BoundedRows, LabeledRows, n_units_of, reserve
from dpfc.mechanism.noisy_sum import BoundedSum, Release
from dpfc.mechanism.people import Shares
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.queries import Count, FeatureSum, Query
from dpfc.mechanism.reference import ReferenceRows
from dpfc.mechanism.row_map import RowMap

__all__ = ["GaussianMechanism"]


class GaussianMechanism:
    """Draws the releases of a plan from private rows.

    Parameters
    ----------
    source : LabeledRows
        The private rows.
    row_map : RowMap
        How each row is bounded.
    n_classes : int
        Public.
    run : PrivateRun
        Pays for, draws and records what its plan holds.
    n_samples : int or None
        A public number of rows, or of persons where they have several. Under "replace_one" the
        true number is public.
    """

    def __init__(
        self,
        source: LabeledRows,
        row_map: RowMap,
        n_classes: int,
        run: PrivateRun,
        n_samples: int | None = None,
    ):
        self._source = source
        self._rows: BoundedRows | ReferenceRows | None = None
        self._store: Any = None
        # As the caller has it; a solver's own algebra takes one.
        self._n_threads = torch.get_num_threads()
        self.run = run
        self.row_map = row_map
        self.n_classes = n_classes
        self._shares, self._n_units = source.shares, n_units_of(source)
        if n_samples is None and run.plan.neighboring_relation == "replace_one":
            n_samples = self._n_units
        self._public_n_samples = n_samples

    def reserve(self) -> None:
        """Take the room that rows need in sums of their products, before the first release.

        Raises
        ------
        InsufficientMemoryError, OSError, ValueError
            As `dpfc.mechanism.bounded_sums.reserve`.
        """
        if not self.run.exact:
            self._store = reserve(self._source, self.row_map)

    @property
    def n_features(self) -> int:
        """Width of a row as it came."""
        return self._source.n_features

    @property
    def n_columns(self) -> int:
        """Width of a mapped row."""
        return self.row_map.n_columns(self._source.n_features)

    @property
    def counted(self) -> str:
        """What `n_samples` is a number of, in a word."""
        several = self._shares is not None and self._shares.units is not None
        return "groups" if several else "rows"

    def n_samples(self) -> float:
        """Number of rows: as stated, or released with noise as "count"; at least 1."""
        if self._public_n_samples is None:
            count = self.release("count", Count()).value
            self._public_n_samples = round(max(1.0, float(count[0])))
        return self._public_n_samples

    @property
    def known_n_samples(self) -> float | None:
        """Number of rows as far as it is public or was released; draws nothing."""
        return self._public_n_samples

    def n_samples_noise(self) -> float:
        """Standard deviation of `n_samples`; 0 where the number is public."""
        drawn = self.run.record_of("count")
        return 0.0 if drawn is None else drawn.noise_standard_deviation

    def map_rows(
        self,
        *,
        center: torch.Tensor | None = None,
        linear: torch.Tensor | None = None,
        scale: NDArray[np.float64] | None = None,
    ) -> None:
        """Centre or scale the rows of all further releases, or multiply them.

        What with (`RowMap` has it) must be public, or come from releases.
        """
        if scale is not None:
            self.row_map = replace(self.row_map, scale=scale)
        if center is not None:
            self.row_map = replace(self.row_map, center=center)
        if linear is not None:
            self.row_map = replace(self.row_map, linear=linear)
        self._rows = None  # whatever was bounded before has another map

    def center_rows(self, guess: torch.Tensor | None = None) -> None:
        """Release the mean of the bounded rows and centre all further releases by it.

        The noisy mean is shrunk towards a public guess, or zero, by the James-Stein factor
        max(0, 1 - σ²d/||s||²), with s the sum of the rows less what the guess makes of it:
        a mean that is all noise moves nothing.

        Where the number of rows is private, the sum of a constant column is a second look
        at it. The column takes a share of 1/(1 + √d) of a row's energy: the mean's error is
        then as small as it gets for a mean of length C (d/(1 - share) + 1/share is least).

        References
        ----------
        James, Stein (1961), Estimation with Quadratic Loss.
        """
        centred, n_samples, doubt = self.row_map, self.n_samples(), self.n_samples_noise()
        share = 1.0 / (1.0 + math.sqrt(self._source.n_features))
        counts = doubt > 0.0 and centred.normalize
        self.row_map = row_map = replace(
            centred, intercept_scaling=math.sqrt(share) if counts else 0.0, length_scaling=0.0
        )
        self._rows = None
        release = self.release("feature_sum", FeatureSum())
        total, noise = release.value, release.noise_standard_deviation
        if counts:
            again, doubt_again = float(total[-1]) / row_map.constant, noise / row_map.constant
            weight = 1.0 / (1.0 + (doubt_again / doubt) ** 2)
            n_samples = round(max(1.0, weight * again + (1.0 - weight) * n_samples))
            self._public_n_samples = n_samples
            total, noise = total[:-1] / math.sqrt(1.0 - share), noise / math.sqrt(1.0 - share)
        guess = torch.zeros_like(total) if guess is None else guess.to(total)
        total = total - n_samples * guess
        expected_noise = noise**2 * len(total) + doubt**2 * float(guess @ guess)
        energy = max(float(total @ total), 1e-300)
        mean = guess + total * max(0.0, 1.0 - expected_noise / energy) / n_samples
        length = float(torch.linalg.vector_norm(mean))
        # As in RowMap, a factor below what rounding can add to a norm.
        mean *= min(1.0, row_map.l2_clip_norm * (1.0 - 2.0**-40) / max(length, 1e-300))
        self.row_map = centred
        self.map_rows(center=mean)

    def release(self, name: str, query: Query) -> Release:
        """Draw one planned release.

        Raises
        ------
        KeyError
            If the plan holds no such release.
        RuntimeError
            If all of its draws are spent.
        ValueError
            If the query's bound is not finite although noise has to be scaled by it.
        """
        probability = self.run.plan[name].sampling_probability
        if probability < 1.0:
            self._check_samplable(name, query)
        rows = self._bounded_rows()

        def total() -> torch.Tensor:
            if rows.row_map is not self.row_map:
                raise RuntimeError("rows were bounded by another map than the stated one.")
            if probability == 1.0:
                return rows.sum(query)
            coins = self.run.noise.bernoulli(probability, self._n_units)
            units = None if self._shares is None else self._shares.units
            return rows.sum(query, coins if units is None else coins[units])

        drawn = self.run.release(name, self._sum(query), total)
        if query.reads != "digits" or not query.turned or self.run.exact:
            return drawn
        # Noise is the same in any direction: that of a turned sum is the sum's own, turned.
        rotation = query.grid(self.row_map, self.n_features).rotation
        back = rotation.turn_back(drawn.value, both_sides=query.symmetric)
        return replace(drawn, value=back)

    def noise_standard_deviation(self, name: str, query: Query) -> float:
        """Noise that a release will carry; public, and nothing is drawn."""
        return self.run.noise_scale(name, self._sum(query))

    def _bounded_rows(self) -> BoundedRows | ReferenceRows:
        """Rows under the present map; without noise, in floating point."""
        if self._rows is None and self.run.exact:
            self._rows = ReferenceRows(self._source, self.row_map, self.n_classes, self._shares)
        elif self._rows is None:
            self._rows = BoundedRows(
                self._source,
                self.row_map,
                self.n_classes,
                shares=self._shares,
                n_threads=self._n_threads,
                store=self._store,
            )
        return self._rows

    def _sum(self, query: Query) -> BoundedSum:
        """What is public of a query's sum over the rows on their grid."""
        shape = query.shape(self.n_columns, self.n_classes)
        relation = self.run.plan.neighboring_relation
        grid = query.grid(self.row_map, self.n_features)
        shares, products = self._shares, query.reads == "digits"
        weighed = shares is not None and (products or shares.units is not None)
        sensitivity = query.l2_sensitivity(grid, relation, weighed=weighed)
        unit = query.unit(grid)
        if shares is not None and weighed:
            unit *= (shares.scale if products else 1.0) / query.whole
        if self.run.exact:  # in floating point
            sensitivity, unit = sensitivity * unit, 1.0
        return BoundedSum(query.formula, shape, sensitivity, unit=unit, symmetric=query.symmetric)

    def weigh_classes(self, factors: NDArray[np.float64]) -> None:
        """Let rows of all further sums of products count as much as their class does.

        Factors (n_classes,), none negative, are public, or come from releases.
        """
        shares = self._shares or Shares(None, self._source.n_samples)
        self._shares = shares.times(factors[self._source.codes], float(factors.max()))
        self._rows = None

    def _check_samplable(self, name: str, query: Query) -> None:
        """Sampled events under "replace_one" are accounted for a sensitivity of twice ||v||."""
        if self.run.plan.neighboring_relation == "replace_one" and query.replace_factor < 2.0:
            raise ValueError(f'{name} cannot be sampled under neighboring_relation="replace_one".')
