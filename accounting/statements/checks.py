"""What a statement says about itself has to agree: its events decide.

A statement is read by people who were not there, from a file that may have been edited. What
can be recomputed in milliseconds is, whenever a statement is read: the composition, the
closed form of Gaussian releases, and a ledger's filter. Sampled releases and searches are
bounded by a numerical accountant, which takes up to seconds: `verify_statement` asks it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import dp_accounting

from dpfc.accounting.accountants import ACCOUNTANTS, epsilon_by_accountant
from dpfc.accounting.events import (
    SelectionSteps,
    Steps,
    event_from_json,
    event_mu,
    event_to_json,
    gaussian_steps,
    has_no_noise,
)
from dpfc.accounting.filters import RenyiFilter
from dpfc.accounting.gaussian import gaussian_epsilon
from dpfc.accounting.profiles import PrivacyProfile, mu_profile
from dpfc.accounting.statements.records import FALSE_POSITIVE_RATES, AttackRecord

if TYPE_CHECKING:
    from dpfc.accounting.filters import Cost, PrivacyFilter
    from dpfc.accounting.statements.statement import BudgetRecord, PrivacyStatement

__all__ = ["MAX_SAMPLED_RELEASES", "check_statement", "check_work", "verify_statement"]

MAX_SAMPLED_RELEASES: Final = 64
# Terms of sums that reading may take: a Renyi filter bounds a sampled release by as many terms
# as its orders, at a tenth of a millionth of a second for each.
_MOST_TERMS: Final = 10**7

# Relative; versions of SciPy differ in the last digits of a normal quantile.
_TOLERANCE: Final = 1e-6
# Relative; so do versions of an accountant, in their grids and orders.
_ACCOUNTANTS_TOLERANCE: Final = 1e-3


def check_statement(statement: PrivacyStatement) -> None:
    """Raise ValueError when a statement contradicts itself; says where."""
    if statement.private == bool(statement.reasons_not_private):
        raise ValueError("private must be false exactly when reasons_not_private has entries.")
    if statement.target_epsilon == math.inf and statement.private:
        raise ValueError("private must be false when target_epsilon is infinite.")
    if (statement.kind == "ledger") != (statement.budget is not None):
        raise ValueError('budget must be given for kind "ledger", and for no other.')
    if statement.schema_version == "1" and any(r.sum_unit is not None for r in statement.releases):
        raise ValueError("releases must have no sum_unit, which came with schema_version 2.")
    if statement.schema_version == "2" and statement.kind != "ledger":
        _check_units(statement)
    try:
        _check_noise(statement)
        _check_figures(statement)
        if statement.budget is None:
            _check_target(statement)
        else:
            _check_ledger(statement, statement.budget)
    except OverflowError:
        raise ValueError("event is composed more often than a float can count.") from None


def _check_units(statement: PrivacyStatement) -> None:
    """Noisy sums are of integers, which one row moves by 1 at least."""
    for release in statement.releases:
        if release.noise_standard_deviation == 0.0:
            continue
        if release.sum_unit is None:
            raise ValueError(f"{release.name} must have a sum_unit: its noise is of integers.")
        if release.sum_unit > release.l2_sensitivity * (1.0 + _TOLERANCE):
            raise ValueError(f"sum_unit of {release.name} must not exceed its l2_sensitivity.")


def verify_statement(statement: PrivacyStatement) -> None:
    """Raise ValueError when an accountant finds more than a statement claims; says where."""
    found = epsilon_by_accountant(
        event_from_json(statement.event),
        statement.target_delta,
        neighboring_relation=statement.neighboring_relation,
        accountants=ACCOUNTANTS,
    )
    for name, stated in statement.epsilon_by_accountant.items():
        if isinstance(stated, float):
            _check_least(f"{name} epsilon", stated, found[name])
    attack = AttackRecord.of(statement.profile())
    _check_least("advantage", statement.attack.advantage, attack.advantage)
    for stated_point, point in zip(statement.attack.points, attack.points, strict=True):
        stated = stated_point.true_positive_rate
        _check_least("true_positive_rate", stated, point.true_positive_rate)
    for spend in statement.budget.spends if statement.budget is not None else ():
        if spend.statement is not None:
            verify_statement(spend.statement)


def check_work(statement: PrivacyStatement, most: int) -> None:
    """Raise ValueError when verifying would compute more than `most` sampled releases."""
    count = _sampled_releases(statement)
    if count > most:
        raise ValueError(
            f"the statement holds {count} different sampled releases, and at most {most} are "
            "computed again: set max_sampled_releases where its source is trusted."
        )


def _sampled_releases(statement: PrivacyStatement) -> int:
    spends = () if statement.budget is None else statement.budget.spends
    inner = [spend.statement for spend in spends if spend.statement is not None]
    own = _count_sampled(gaussian_steps(event_from_json(statement.event)))
    return own + sum(map(_sampled_releases, inner))


def _count_sampled(steps: tuple[Steps, ...]) -> int:
    return sum(
        _count_sampled(step.inner) if isinstance(step, SelectionSteps) else step.is_sampled
        for step in steps
    )


def _check_terms(statement: PrivacyStatement, kept: PrivacyFilter) -> None:
    """Refuse a file that would keep its reader busy; of ours, none comes near it."""
    if isinstance(kept, RenyiFilter):
        terms = _sampled_releases(statement) * math.fsum(kept.orders)
        if terms > _MOST_TERMS:
            raise ValueError("budget holds more sampled releases and higher orders than are read.")


def _check_noise(statement: PrivacyStatement) -> None:
    """Check that all that is called private carries noise."""
    bare = has_no_noise(gaussian_steps(event_from_json(statement.event)))
    if statement.private and (bare or any(r.noise_multiplier == 0 for r in statement.releases)):
        raise ValueError("private must be false: something was released without noise.")


def _check_figures(statement: PrivacyStatement) -> None:
    """Compare mu and epsilon with the event, and the event with the releases."""
    mu = event_mu(event_from_json(statement.event))
    _check_close("mu", statement.mu, mu)
    exact = statement.epsilon_by_accountant.get("exact")
    if mu is not None:
        _check_epsilons(statement, mu_profile(mu).epsilon(statement.target_delta))
    elif isinstance(exact, float) and exact < math.inf:
        raise ValueError("exact epsilon must be unavailable: event is not Gaussian throughout.")
    if statement.kind in ("fit", "evaluation", "summary"):
        composed = dp_accounting.ComposedDpEvent([r.event for r in statement.releases])
        _check_same("event", statement.event, event_to_json(composed), "its releases")
    rates = tuple(point.false_positive_rate for point in statement.attack.points)
    if rates != FALSE_POSITIVE_RATES:
        raise ValueError(
            f"points of attack must be at the false-positive rates {FALSE_POSITIVE_RATES}."
        )
    if statement.budget is None and mu is not None and statement.accountant == "exact":
        _check_attack(statement, mu_profile(mu))


def _check_epsilons(statement: PrivacyStatement, exact: float) -> None:
    """Compare with the closed form, which no accountant can beat."""
    for name, epsilon in statement.epsilon_by_accountant.items():
        if name == "exact":
            _check_close("exact epsilon", epsilon, exact)
        elif isinstance(epsilon, float) and epsilon < exact * (1 - _TOLERANCE):
            raise ValueError(
                f"{name} epsilon must be at least the exact one, {exact!r}, got {epsilon!r}."
            )


def _check_target(statement: PrivacyStatement) -> None:
    epsilon = statement.epsilon_by_accountant.get(statement.accountant)
    if not isinstance(epsilon, float):
        raise ValueError("epsilon_by_accountant must hold a number for the statement's accountant.")
    if epsilon > statement.target_epsilon * (1 + _TOLERANCE):
        raise ValueError(
            f"epsilon of what ran, {epsilon!r}, must be at most target_epsilon, "
            f"{statement.target_epsilon!r}."
        )


def _check_ledger(statement: PrivacyStatement, budget: BudgetRecord) -> None:
    """Check that the filter keeps the target and accepts the spends, and what those say."""
    if statement.releases or statement.dataset is None:
        raise ValueError("a ledger's statement must name its dataset and have no releases.")
    events = [event_from_json(spend.event) for spend in budget.spends]
    composed = event_to_json(dp_accounting.ComposedDpEvent(events))
    _check_same("event", statement.event, composed, "the ledger's spends")
    kept = statement.privacy_filter()
    if kept is not None:
        _check_terms(statement, kept)
    if kept is None or not kept.accepts(events):
        raise ValueError("the budget's filter must accept the spends; it does not.")
    profile = kept.profile()
    if profile.delta(statement.target_epsilon) > statement.target_delta * (1 + _TOLERANCE):
        raise ValueError("the budget's filter must keep target_epsilon at target_delta.")
    _check_attack(statement, profile)
    _check_bookkeeping(statement, budget, kept, [kept.cost(event) for event in events])
    for spend, event in zip(budget.spends, events, strict=True):
        inner = spend.statement
        if inner is None:
            continue
        where = f"the statement of spend {spend.id}"
        if inner.kind == "ledger" or inner.neighboring_relation != statement.neighboring_relation:
            raise ValueError(f"{where} must be no ledger's and have the ledger's relation.")
        if statement.private and not inner.private:
            raise ValueError(f"private must be false: {where} is not.")
        if inner.event != spend.event:
            ran, paid = kept.cost(event_from_json(inner.event)), kept.cost(event)
            if any(most * (1 + _TOLERANCE) < cost for cost, most in zip(ran, paid, strict=True)):
                raise ValueError(f"{where} holds more than was charged.")


def _check_bookkeeping(
    statement: PrivacyStatement, budget: BudgetRecord, kept: PrivacyFilter, costs: list[Cost]
) -> None:
    """Check that spends are not made small, nor what is left large."""
    shares = kept.shares(costs)
    stated = [spend.share_of_budget for spend in budget.spends]
    pairs = [(budget.spent_share, min(1.0, math.fsum(shares))), *zip(stated, shares, strict=True)]
    if any(abs(share - expected) > _TOLERANCE for share, expected in pairs):
        raise ValueError("the shares of the budget must be those that its filter counts.")
    left = gaussian_epsilon(kept.remaining_mu(costs), statement.target_delta)
    # In parts of the whole: next to nothing is left of a difference that rounding changes.
    if budget.remaining_epsilon > left + _ACCOUNTANTS_TOLERANCE * statement.target_epsilon:
        raise ValueError(
            f"remaining_epsilon must be at most {left!r}, got {budget.remaining_epsilon!r}."
        )


def _check_attack(statement: PrivacyStatement, profile: PrivacyProfile) -> None:
    attack = statement.attack
    _check_close("advantage", attack.advantage, profile.advantage)
    for point in attack.points:
        expected = profile.true_positive_rate(point.false_positive_rate)
        _check_close("true_positive_rate", point.true_positive_rate, expected)


def _check_close(name: str, stated: object, expected: float | None) -> None:
    same = stated == expected or (
        isinstance(stated, float)
        and expected is not None
        and math.isclose(stated, expected, rel_tol=_TOLERANCE)
    )
    if not same:
        raise ValueError(f"{name} must be {expected!r}, as event says, got {stated!r}.")


def _check_least(name: str, stated: float, found: float | str) -> None:
    """Refuse a claim below what is computed, or of what cannot be."""
    if isinstance(found, str) or stated < found * (1 - _ACCOUNTANTS_TOLERANCE):
        raise ValueError(f"{name} must be at least {found!r}, as event says, got {stated!r}.")


def _check_same(name: str, stated: dict[str, Any], expected: dict[str, Any], source: str) -> None:
    if stated != expected:
        raise ValueError(f"{name} must be the composition of {source}, which it is not.")
