"""The one way to private rows: a Gaussian mechanism that keeps to a plan.

A solver holds a `GaussianMechanism` and never the data. It names a planned release
and a query; the mechanism states the sensitivity, records the spend, sums, adds
noise, and returns what may be published. It refuses what the plan does not hold.

How noise is added. With Δ the query's sensitivity for the stated relation:

1. Rounding. The computed sum is within e of the exact one (`Query.rounding_bound`),
   so the computed sums of neighbours are within Δ + 2e.
2. Grid. The sum is rounded to multiples of g, a power of two, which moves m entries
   by at most g √m / 2 in norm. Neighbours are then within Δ' = Δ + 2e + g √m.
3. Noise. N has standard deviation z Δ' in every direction and is rounded to the same
   grid. Sum and noise are then integers times g below 2⁵³ g, so they add exactly,
   and round(sum + N) = sum + round(N): the release is the exact Gaussian mechanism
   with noise multiplier z, rounded. No low-order bit carries the sum.

All of Δ, e, g, m and z are public. For a symmetric sum, the noise has standard
deviation zΔ' on the diagonal and zΔ'/√2 off it, mirrored: that is N(0, z²Δ'²) in
every direction of the space of symmetric matrices under the Frobenius norm, the
projection (N + Nᵀ)/2 of independent noise.

References
----------
Dwork, Roth (2014), The Algorithmic Foundations of Differential Privacy, appendix A.
Balle, Wang (2018), Improving the Gaussian Mechanism for Differential Privacy.
Mironov (2012), On Significance of the Least Significant Bits for Differential Privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from dpfc._support.late import torch
from dpfc.accounting import PrivacyPlan, ReleaseRecord
from dpfc.accounting.ledger.charges import Charge
from dpfc.mechanism.bounded_sums import BoundedRows, LabeledRows
from dpfc.mechanism.grid import gridded_noise, on_grid
from dpfc.mechanism.noise import NoiseSource
from dpfc.mechanism.queries import Count, FeatureSum, Query
from dpfc.mechanism.releases import next_record
from dpfc.mechanism.row_map import RowMap

__all__ = ["GaussianMechanism", "Release"]


@dataclass(frozen=True)
class Release:
    """What a mechanism returns: a value that may be published, and its noise.

    Attributes
    ----------
    value : torch.Tensor, float64
    noise_standard_deviation : float
        Of every entry (of the diagonal, for a symmetric release).
    """

    value: torch.Tensor
    noise_standard_deviation: float


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
    plan : PrivacyPlan
        Noise multipliers by name; nothing else can be drawn.
    noise : NoiseSource
    n_samples : int or None
        A public number of rows. Under "replace_one" the true number is public.
    on_release : callable or None
        Called with the name of each release once it is drawn, for progress bars.
    charge : Charge or None
        The whole plan's spend in a ledger. It is committed before the first draw, and
        nothing is drawn if that fails.
    """

    def __init__(
        self,
        source: LabeledRows,
        row_map: RowMap,
        n_classes: int,
        plan: PrivacyPlan,
        noise: NoiseSource,
        n_samples: int | None = None,
        on_release: Callable[[str], None] | None = None,
        charge: Charge | None = None,
    ):
        self._source = source
        self._rows: BoundedRows | None = None
        self._noise = noise
        self._on_release = on_release
        self._charge = charge
        self._records: dict[str, ReleaseRecord] = {}
        self.plan = plan
        self.row_map = row_map
        self.n_classes = n_classes
        self.device = source.device
        if n_samples is None and plan.neighboring_relation == "replace_one":
            n_samples = source.n_samples
        self._public_n_samples = n_samples

    @property
    def n_features(self) -> int:
        """Width of a row as it came."""
        return self._source.n_features

    @property
    def n_columns(self) -> int:
        """Width of a mapped row."""
        return self.row_map.n_columns(self._source.n_features)

    @property
    def records(self) -> list[ReleaseRecord]:
        """What was drawn so far, one entry a name."""
        return list(self._records.values())

    @property
    def exact(self) -> bool:
        """Whether the plan asks for no noise (an infinite budget)."""
        return math.isinf(self.plan.target_epsilon)

    def n_samples(self) -> float:
        """Number of rows: as stated, or released with noise as "count"; at least 1."""
        if self._public_n_samples is None:
            unmapped = BoundedRows(self._source, self.row_map, self.n_classes, keep=False)
            count = self._draw("count", Count(), unmapped).value
            self._public_n_samples = round(max(1.0, float(count[0])))
        return self._public_n_samples

    @property
    def known_n_samples(self) -> float | None:
        """Number of rows as far as it is public or was released; draws nothing."""
        return self._public_n_samples

    def n_samples_noise(self) -> float:
        """Standard deviation of `n_samples`; 0 where the number is public."""
        drawn = self._records.get("count")
        return 0.0 if drawn is None else drawn.noise_standard_deviation

    def reallocate(self, name: str, share: float) -> None:
        """Give a release that was not drawn another share; the others not drawn pay for it.

        The share may depend on what was released already, and on nothing else that is private.

        Raises
        ------
        RuntimeError
            If the release was drawn already, or the new plan costs more than the old one.
        """
        if name in self._records:
            raise RuntimeError(f"{name} was drawn already; its share cannot change any more.")
        plan = self.plan.reallocated(name, share, keep=self._records)
        if plan.mu is None or self.plan.mu is None or not plan.mu <= self.plan.mu:
            raise RuntimeError(f"reallocation would raise mu from {self.plan.mu!r} to {plan.mu!r}.")
        self.plan = plan

    def map_rows(
        self, *, center: torch.Tensor | None = None, linear: torch.Tensor | None = None
    ) -> None:
        """Centre the rows of all further releases, or multiply them by an `exact_linear_map`.

        Both must be public, or come from releases.
        """
        if center is not None:
            self.row_map = replace(self.row_map, center=center.to(self.device))
        if linear is not None:
            self.row_map = replace(self.row_map, linear=linear.to(self.device))
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
        rows = BoundedRows(self._source, row_map, self.n_classes, keep=False)
        release = self._draw("feature_sum", FeatureSum(), rows)
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
        if self._rows is None:
            self._rows = BoundedRows(self._source, self.row_map, self.n_classes)
        return self._draw(name, query, self._rows)

    def noise_standard_deviation(self, name: str, query: Query) -> float:
        """Noise that a release will carry; public, and nothing is drawn."""
        return self._noise_scale(name, query)[0]

    def _draw(self, name: str, query: Query, rows: BoundedRows) -> Release:
        """State the sensitivity, record the spend, then look at the data and add noise."""
        if rows.row_map is not self.row_map:
            raise RuntimeError("rows were bounded by another map than the stated sensitivity's.")
        planned = self.plan[name]
        if planned.sampling_probability < 1.0:
            self._check_samplable(name, query)
        scale, grid = self._noise_scale(name, query)
        self._spend(name, query, scale)
        if planned.sampling_probability < 1.0:
            coins = self._noise.bernoulli(planned.sampling_probability, self._source.n_samples)
            total = rows.sum_subset(query, torch.from_numpy(coins).to(self.device))
        else:
            total = rows.sum(query)
        if query.symmetric:  # a product may differ from its transpose in the last bits
            total = torch.triu(total) + torch.triu(total, 1).mT
        if scale > 0.0:
            total = on_grid(total, grid) + self._grid_noise(query, total, scale, grid)
        if self._on_release is not None:
            self._on_release(name)
        return Release(total, scale)

    def _noise_scale(self, name: str, query: Query) -> tuple[float, float]:
        """Standard deviation z Δ' and grid step g; both 0 where nothing needs noise."""
        noise_multiplier = self.plan[name].noise_multiplier
        bound = self.row_map.l2_bound
        relation = self.plan.neighboring_relation
        sensitivity = query.l2_sensitivity(bound, relation)
        if noise_multiplier == 0.0 or sensitivity == 0.0:
            return 0.0, 0.0
        return gridded_noise(
            name,
            l2_sensitivity=sensitivity,
            noise_multiplier=noise_multiplier,
            rounding=query.rounding_bound(bound, self.n_columns),
            row_norm=query.row_norm(bound),
            entries=math.prod(query.shape(self.n_columns, self.n_classes)),
        )

    def _spend(self, name: str, query: Query, scale: float) -> None:
        """Record a draw before it happens, or refuse it."""
        record = next_record(
            self.plan[name],
            self._records.get(name),
            description=f"sum over rows of {query.formula}",
            shape=query.shape(self.n_columns, self.n_classes),
            l2_sensitivity=query.l2_sensitivity(
                self.row_map.l2_bound, self.plan.neighboring_relation
            ),
            scale=scale,
        )
        if self._charge is not None:
            self._charge.commit()
        self._records[name] = record

    def _check_samplable(self, name: str, query: Query) -> None:
        """Sampled events under "replace_one" are accounted for a sensitivity of twice ||v||."""
        if self.plan.neighboring_relation == "replace_one" and query.replace_factor < 2.0:
            raise ValueError(f'{name} cannot be sampled under neighboring_relation="replace_one".')

    def _grid_noise(
        self, query: Query, total: torch.Tensor, scale: float, grid: float
    ) -> torch.Tensor:
        """Fresh Gaussian noise for every entry, in multiples of the grid."""
        if query.symmetric:
            rows, columns = torch.triu_indices(total.shape[-2], total.shape[-1])
            leading = total.reshape(-1, *total.shape[-2:])
            draws = self._normal(len(leading) * len(rows)).reshape(len(leading), -1)
            # In float64 from the start: torch.where of two Python numbers would be float32, in
            # which a small scale is zero.
            scales = torch.full(rows.shape, scale / math.sqrt(2.0), dtype=torch.float64)
            scales[rows == columns] = scale
            draws = on_grid(draws * scales, grid)
            noise = torch.empty(leading.shape, dtype=torch.float64)
            noise[:, rows, columns] = draws
            noise[:, columns, rows] = draws
            return noise.reshape(total.shape).to(self.device)
        draws = self._normal(total.numel()).reshape(total.shape)
        return on_grid(draws * scale, grid).to(self.device)

    def _normal(self, size: int) -> torch.Tensor:
        return torch.from_numpy(self._noise.standard_normal(size))
