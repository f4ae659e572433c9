"""Privacy filters: budgets that hold when every spend is chosen after seeing earlier releases.

Composition theorems fix all noise before the first release. An analyst who looks at a model
and then decides what to buy next needs a *filter*: a rule, fixed at the start, that accepts
or refuses each spend from the events alone, so that whatever was accepted is private at the
budget, however the spends were chosen. Two are known to lose little:

- Gaussian differential privacy, `GaussianFilter`: accept while Σ count / z² <= μ². Full-batch
  Gaussian releases only. It loses nothing against fixing all noise before.
- Renyi divergence of one fixed order, summed; `RenyiFilter` joins a few such orders. It also
  takes Poisson-sampled releases and private selection, and loses some of the budget.

Composing privacy loss distributions (PLD), or taking the best Renyi order afterwards, is no
filter: the accountants "pld" and "rdp" must not decide what an adaptive analyst may still do.
Processes that spend at the same time are covered: a filter for one mechanism after the other
holds for interleaved interactive ones (Haney et al. 2023).

References
----------
Smith and Thakurta (2022), "Fully Adaptive Composition for Gaussian Differential Privacy".
Koskela, Tobaben and Honkela (2023), "Individual Privacy Accounting with Gaussian
Differential Privacy". Feldman and Zrnic (2021), "Individual Privacy Accounting via a Renyi
Filter". Haney et al. (2023), "Concurrent Composition for Interactive Differential Privacy
with Adaptive Privacy-Loss Parameters".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Final

import dp_accounting
import numpy as np

from dpfc._support.validation import RELATION, Choice, check, check_epsilon, check_float
from dpfc.accounting.events import GaussianSteps, UnsupportedEventError, gaussian_steps
from dpfc.accounting.gaussian import gaussian_delta, gaussian_mu

if TYPE_CHECKING:
    from dpfc.accounting.profiles import PrivacyProfile

__all__ = [
    "FILTERS",
    "Cost",
    "GaussianFilter",
    "PrivacyFilter",
    "RenyiFilter",
    "filter_from_json",
    "make_filter",
]

FILTERS: Final = ("gdp", "renyi")

# What one spend adds: one number for each limit of the filter, infinite where there is none.
Cost = tuple[float, ...]

# The orders of a Renyi filter: the smallest ones that pay for these shares of the Gaussian
# releases that the best order pays for. Low orders serve Poisson sampling with little noise.
# Measured on eight sampled workloads, ε from 0.1 to 8: three orders keep 82% on average of
# what the best order, known in advance, would have allowed; one order may keep nothing.
_SHARES_OF_BEST_ORDER: Final = (0.2, 0.5, 1.0)
_ORDERS: Final = (
    1.25,
    1.5,
    1.75,
    *(float(order) for order in np.unique(np.geomspace(2, 1e6, 500).round())),
)
# Smaller ones have no square.
_SMALLEST_MU: Final = 1e-150
# Taken off every Renyi budget: far above the rounding of a conversion and of a divergence.
_ROUNDING: Final = 1e-12


@dataclass(frozen=True)
class PrivacyFilter(ABC):
    """What spends may add up to, fixed before the first of them.

    Attributes
    ----------
    kind : {"gdp", "renyi"}
    neighboring_relation : {"add_or_remove_one", "replace_one"}
        Noise multipliers of all spends are for this relation.
    """

    kind: ClassVar[str]

    neighboring_relation: str

    def __post_init__(self) -> None:
        check("neighboring_relation", self.neighboring_relation, RELATION)

    @property
    @abstractmethod
    def limits(self) -> tuple[float, ...]:
        """What the costs of all spends may sum to; one of them has to hold."""

    @abstractmethod
    def cost(self, event: dp_accounting.DpEvent) -> Cost:
        """Return what `event` adds towards each limit, rounded up; infinite without noise.

        Raises
        ------
        UnsupportedEventError
            When the filter has no bound for `event`; the message says why.
        """

    @abstractmethod
    def delta(self, epsilon: float) -> float:
        """Return the delta at `epsilon` in [0, inf) that holds whatever is spent under it."""

    @abstractmethod
    def profile(self) -> PrivacyProfile:
        """Return what the filter guarantees, whatever is spent under it."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Write the filter, without its relation, as plain JSON values."""

    def accepts(self, events: Iterable[dp_accounting.DpEvent]) -> bool:
        """Whether all `events` together stay within the budget."""
        return self.accepts_costs([self.cost(event) for event in events])

    def accepts_costs(self, costs: Sequence[Cost]) -> bool:
        """Whether spends of these costs stay within at least one limit; exact, no tolerance."""
        return any(_fits([cost[i] for cost in costs], limit) for i, limit in enumerate(self.limits))

    def shares(self, costs: Sequence[Cost]) -> list[float]:
        """Share of the budget that each spend takes, at the limit with the most left."""
        return min(
            ([cost[i] / limit for cost in costs] for i, limit in enumerate(self.limits)), key=sum
        )

    def remaining_mu(self, costs: Sequence[Cost]) -> float:
        """Largest 1/z of one more full-batch Gaussian release, after `costs`; rounded down."""
        unit = self.cost(dp_accounting.GaussianDpEvent(1.0))
        rests = [limit - sum(cost[i] for cost in costs) for i, limit in enumerate(self.limits)]
        # A release with noise multiplier z costs 1/z² times the cost at z = 1.
        mu = math.sqrt(max(0.0, *(rest / one for rest, one in zip(rests, unit, strict=True))))
        step = _ROUNDING
        while mu > 0 and not self.accepts_mu(mu, costs):
            mu = mu * (1 - step) if step < 1 else 0.0
            step *= 2
        return mu

    def accepts_mu(self, mu: float, costs: Sequence[Cost]) -> bool:
        """Whether one more full-batch release with 1/z = `mu` fits after `costs`."""
        return self.accepts_costs([*costs, self.cost(dp_accounting.GaussianDpEvent(1 / mu))])


@dataclass(frozen=True)
class GaussianFilter(PrivacyFilter):
    """Accepts full-batch Gaussian releases while Σ count / z² <= μ².

    Everything accepted is μ-GDP together, the same as if all noise had been fixed before.

    Attributes
    ----------
    mu : float in (0, inf)

    References
    ----------
    Smith and Thakurta (2022); Koskela, Tobaben and Honkela (2023).
    """

    kind: ClassVar[str] = "gdp"

    mu: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_float("mu", self.mu, _SMALLEST_MU, math.inf)

    @property
    def limits(self) -> tuple[float, ...]:
        """The one limit, μ², rounded down."""
        return (-_float_above(-(Fraction(self.mu) ** 2)),)

    def cost(self, event: dp_accounting.DpEvent) -> Cost:
        """Σ count / z² of the releases in `event`, rounded up; refuses what is no Gaussian."""
        total = Fraction(0)
        for step in gaussian_steps(event):
            if not isinstance(step, GaussianSteps) or step.is_sampled:
                raise UnsupportedEventError(
                    "a gdp filter adds up full-batch Gaussian releases only, not sampled ones or "
                    "private selection."
                )
            if step.noise_multiplier == 0:
                return (math.inf,)
            total += step.count / Fraction(step.noise_multiplier) ** 2
        return (_float_above(total),)

    def delta(self, epsilon: float) -> float:
        """Delta of a μ-GDP mechanism, in closed form."""
        return gaussian_delta(self.mu, epsilon)

    def profile(self) -> PrivacyProfile:
        """Everything that μ-GDP says: δ at every ε and the trade-off curve."""
        from dpfc.accounting.profiles import mu_profile

        return mu_profile(self.mu)

    def to_json(self) -> dict[str, Any]:
        """Write kind and mu."""
        return {"kind": self.kind, "mu": self.mu}


@dataclass(frozen=True)
class RenyiFilter(PrivacyFilter):
    """Accepts spends while, for at least one order, the Renyi divergences fit its budget.

    Proof. Let B(α) be the budget of order α, converted so that the filter of order α alone is
    (ε, δ(α))-private (Feldman and Zrnic 2021). Let A(α) be the transcripts at whose end α is
    the first order whose sum is within its budget. Sums only grow, so on A(α) the order α
    fitted at every earlier point as well, and the interaction there coincides with the one
    under the filter of order α alone: that accepts the same spends, and refuses what was
    refused here. So P(E ∩ A(α)) <= e^ε P'(E ∩ A(α)) + δ(α) for neighbouring data sets and any
    set E of transcripts. Sum over α: the whole is (ε, Σ δ(α))-private. It holds at every ε
    with the δ(α) of that ε.

    Attributes
    ----------
    orders : tuple of float, each > 1
    budgets : tuple of float, each > 0
        Largest sum of Renyi divergences, in nats, at each order.

    References
    ----------
    Feldman and Zrnic (2021), "Individual Privacy Accounting via a Renyi Filter", for one
    order. Canonne, Kamath and Steinke (2020), Proposition 12, for the conversion.
    """

    kind: ClassVar[str] = "renyi"

    orders: tuple[float, ...]
    budgets: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.orders or len(self.orders) != len(self.budgets):
            raise ValueError("orders and budgets must be non-empty and equally many.")
        for order, budget in zip(self.orders, self.budgets, strict=True):
            check_float("order", order, 1, math.inf)
            check_float("budget", budget, 0, math.inf)

    @property
    def limits(self) -> tuple[float, ...]:
        """The budgets."""
        return self.budgets

    def cost(self, event: dp_accounting.DpEvent) -> Cost:
        """Renyi divergence of `event` at each order, in nats; infinite where unreliable."""
        from dpfc.accounting.numerics.rdp import renyi_divergences

        return renyi_divergences(event, self.orders, self.neighboring_relation)

    def profile(self) -> PrivacyProfile:
        """Everything that δ(ε) says, and no more."""
        from dpfc.accounting.profiles import delta_profile

        return delta_profile(self.delta)

    def delta(self, epsilon: float) -> float:
        """δ(ε) = Σ over orders of the δ that its budget means at ε."""
        pairs = zip(self.orders, self.budgets, strict=True)
        return min(1.0, math.fsum(_renyi_delta(a, b, epsilon) for a, b in pairs))

    def to_json(self) -> dict[str, Any]:
        """Write kind, orders and budgets."""
        return {"kind": self.kind, "orders": list(self.orders), "budgets": list(self.budgets)}


def make_filter(
    kind: str, *, epsilon: float, delta: float, neighboring_relation: str
) -> PrivacyFilter:
    """Fix the filter of an (epsilon, delta) budget.

    Parameters
    ----------
    kind : {"gdp", "renyi"}
    epsilon : float in (0, inf)
    delta : float in (1e-100, 1)
    neighboring_relation : {"add_or_remove_one", "replace_one"}

    Raises
    ------
    ValueError
        When a parameter is outside its interval.
    """
    check("filter", kind, Choice(FILTERS))
    epsilon = check_epsilon("epsilon", epsilon)
    delta = check_float("delta", delta, 1e-100, 1)
    if kind == "gdp":
        return GaussianFilter(neighboring_relation, gaussian_mu(epsilon, delta))
    orders = _choose_orders(epsilon, delta)
    budgets = tuple(_renyi_budget(order, epsilon, delta / len(orders)) for order in orders)
    return RenyiFilter(neighboring_relation, orders, budgets)


def filter_from_json(data: Mapping[str, Any], neighboring_relation: str) -> PrivacyFilter:
    """Read what `PrivacyFilter.to_json` wrote.

    Raises
    ------
    ValueError, KeyError, TypeError
        When it is anything else.
    """
    if data["kind"] == GaussianFilter.kind:
        return GaussianFilter(neighboring_relation, data["mu"])
    check("kind", data["kind"], Choice(FILTERS))
    return RenyiFilter(neighboring_relation, tuple(data["orders"]), tuple(data["budgets"]))


def _choose_orders(epsilon: float, delta: float) -> tuple[float, ...]:
    """Orders to fix, in rising order; fewer where they coincide."""
    part = delta / len(_SHARES_OF_BEST_ORDER)
    # A Gaussian release diverges by order / (2 z²): the budget over the order is what counts.
    worth = [_renyi_budget(order, epsilon, part) / order for order in _ORDERS]
    chosen = {
        next(order for order, value in zip(_ORDERS, worth, strict=True) if value >= share * best)
        for best in [max(worth)]
        for share in _SHARES_OF_BEST_ORDER
    }
    return tuple(sorted(chosen))


def _renyi_budget(order: float, epsilon: float, delta: float) -> float:
    """Largest divergence of `order` that means (epsilon, delta), rounded down; > 0.

    The better of ρ = ε - log(1 - 1/α) + log(δ α) / (α - 1) and, by way of the
    Kullback-Leibler divergence, ρ = -log(1 - δ²).

    References
    ----------
    Canonne, Kamath and Steinke (2020), Proposition 12; Canonne (2022), "A short note on an
    inequality between KL and TV" (the Bretagnolle-Huber inequality).
    """
    direct = epsilon - math.log1p(-1 / order) + (math.log(delta) + math.log(order)) / (order - 1)
    return max(direct, -math.log1p(-delta * delta)) * (1 - _ROUNDING)


def _renyi_delta(order: float, divergence: float, epsilon: float) -> float:
    """Delta at `epsilon` of what diverges by `divergence` at `order`; inverts `_renyi_budget`."""
    direct = (order - 1) * (divergence - epsilon + math.log1p(-1 / order)) - math.log(order)
    by_total_variation = 0.5 * math.log(-math.expm1(-divergence))
    return math.exp(min(direct, by_total_variation))


def _fits(terms: Sequence[float], limit: float) -> bool:
    """Whether the terms sum to at most `limit`, decided without rounding."""
    try:
        # fsum rounds once, at the end: its sign is that of the exact sum.
        return all(term <= limit for term in terms) and math.fsum([*terms, -limit]) <= 0
    except OverflowError:
        return False


def _float_above(value: Fraction) -> float:
    """Smallest float that is not below `value`."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)
