"""A privacy statement as plain text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpfc.accounting.statements import PrivacyStatement, ReleaseRecord

_COLUMNS = ("release", "shape", "sensitivity", "noise multiplier", "draws", "sampling", "share")


def render_text(statement: PrivacyStatement) -> str:
    """Render headline, epsilons, releases, assumptions, random source and versions."""
    lines = [_headline(statement), f"Estimator: {statement.estimator}", ""]
    lines += ["What the releases add up to"]
    for name, epsilon in statement.epsilon_by_accountant.items():
        tightest = "  (tightest)" if name == statement.accountant else ""
        value = epsilon if isinstance(epsilon, str) else f"ε = {_number(epsilon)}{tightest}"
        lines.append(f"  {name:<6} {value}")
    if statement.mu is not None:
        lines.append(f"  μ = {_number(statement.mu)} (Gaussian differential privacy)")
    lines += ["", "Releases", *_table(statement.releases)]
    lines += ["", "Rests on", *(f"  - {sentence}" for sentence in statement.rests_on)]
    versions = ", ".join(f"{name} {number}" for name, number in statement.versions.items())
    lines += ["", f"Random source: {statement.random_source}", f"Versions: {versions}"]
    return "\n".join(lines)


def _headline(statement: PrivacyStatement) -> str:
    verb = "replace" if statement.neighboring_relation == "replace_one" else "add or remove"
    epsilon, delta = _number(statement.target_epsilon), _number(statement.target_delta)
    guarantee = f"(ε = {epsilon}, δ = {delta})-DP, {verb} {statement.unit_of_privacy}"
    if statement.private:
        return guarantee
    reasons = "; ".join(statement.reasons_not_private)
    return f"NOT PRIVATE: {reasons}. Target: {guarantee}"


def _table(releases: list[ReleaseRecord]) -> list[str]:
    rows = [_COLUMNS, *(_row(release) for release in releases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(release: ReleaseRecord) -> tuple[str, ...]:
    share = release.share_of_budget
    sampled = release.sampling_probability < 1
    return (
        release.name,
        "×".join(str(size) for size in release.shape) or "1",
        _number(release.l2_sensitivity),
        _number(release.noise_multiplier),
        str(release.count),
        f"Poisson {_number(release.sampling_probability)}" if sampled else "full batch",
        "-" if share is None else f"{100 * share:.4g}%",
    )


def _number(value: float) -> str:
    return "∞" if value == math.inf else f"{value:.6g}"
