"""From a `DpEvent` to the Gaussian releases that it is made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import dp_accounting

from dpfc.accounting._checks import check_float, check_int


class UnsupportedEventError(ValueError):
    """An accountant cannot evaluate an event; the message says which and why."""


@dataclass(frozen=True)
class GaussianSteps:
    """`count` Gaussian releases with one noise multiplier and one Poisson sampling probability.

    A noise multiplier of 0 stands for a release without noise.
    """

    noise_multiplier: float
    sampling_probability: float
    count: int

    @property
    def is_sampled(self) -> bool:
        """Whether rows are Poisson sampled, rather than all used."""
        return self.sampling_probability < 1


def gaussian_steps(event: dp_accounting.DpEvent) -> tuple[GaussianSteps, ...]:
    """Flatten `event`; equal releases are counted together, in order of appearance.

    The one place that multiplies counts, so that no accountant can forget them.

    Raises
    ------
    UnsupportedEventError
        When a leaf is not a Gaussian, Poisson-sampled Gaussian, NoOp or NonPrivate event.
    """
    counts: Counter[tuple[float, float]] = Counter()
    _count_steps(event, 1, counts)
    return tuple(GaussianSteps(z, q, count) for (z, q), count in counts.items())


def composed_mu(steps: Iterable[GaussianSteps]) -> float:
    """Return mu = sqrt(sum count / z^2) of full-batch releases; infinity without noise.

    References
    ----------
    Dong, Roth and Su (2022), Corollary 2.
    """
    terms = []
    for step in steps:
        if step.noise_multiplier == 0:
            return math.inf
        inverse = 1 / step.noise_multiplier
        terms.append(step.count * inverse * inverse)
    return math.sqrt(math.fsum(terms))


def _count_steps(
    event: dp_accounting.DpEvent, count: int, counts: Counter[tuple[float, float]]
) -> None:
    match event:
        case dp_accounting.NoOpDpEvent():
            pass
        case dp_accounting.NonPrivateDpEvent():
            counts[0.0, 1.0] += count
        case dp_accounting.GaussianDpEvent(noise_multiplier=z):
            counts[_check_noise_multiplier(z), 1.0] += count
        case dp_accounting.PoissonSampledDpEvent(
            sampling_probability=q, event=dp_accounting.GaussianDpEvent(noise_multiplier=z)
        ):
            q = check_float("sampling_probability", q, 0, 1, closed="both")
            if q > 0:
                counts[_check_noise_multiplier(z), q] += count
        case dp_accounting.SelfComposedDpEvent(event=repeated, count=times):
            _count_steps(repeated, count * check_int("count", times, 1), counts)
        case dp_accounting.ComposedDpEvent(events=parts):
            for part in parts:
                _count_steps(part, count, counts)
        case _:
            raise UnsupportedEventError(
                f"No accountant here evaluates {event!r}; events must be composed of "
                "GaussianDpEvent, PoissonSampledDpEvent of GaussianDpEvent, NoOpDpEvent and "
                "NonPrivateDpEvent."
            )


def _check_noise_multiplier(value: object) -> float:
    return check_float("noise_multiplier", value, 0, math.inf, closed="left")
