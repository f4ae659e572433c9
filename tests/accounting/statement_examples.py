"""Statements of every kind, for the tests of what is made from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import dp_accounting as dpa
from dp_accounting.dp_event import RepeatAndSelectDpEvent

from dpfc.accounting import (
    PrivacyLedger,
    PrivacyPlan,
    PrivacyStatement,
    ReleaseRecord,
    ReleaseRequest,
    calibrate,
    make_ledger_statement,
    make_statement,
)

GAP = "NOT COVERED unless public: the list of classes was read from the data"
SEARCH_EVENT = RepeatAndSelectDpEvent(dpa.GaussianDpEvent(4.0), 10.0, 1.0)
HOSTILE = (
    "<script>alert(1)</script>",
    "| x | y |",
    "[a](http://evil.test) ![b](//evil.test/c.png) <http://evil.test>",
    "first\n# second\r\n\n- third\u2028fourth",
    "abc\u202edcb\u200b\x07",
    '"><img src=x onerror=alert(1)>&lt;b&gt; {{ 7 * 7 }} {% raw %}',
    "1. `code` **bold** __init__ _a_ ~~b~~ $x$ \\",
    "http://evil.test www.evil.test a@evil.test #1 &amp;",
)


def planned(epsilon=1.0, relation="add_or_remove_one", q=1.0, delta=1e-5) -> PrivacyPlan:
    return calibrate(
        [ReleaseRequest("gram", 0.2), ReleaseRequest("gradient", 0.8, 20, q)],
        target_epsilon=epsilon,
        target_delta=delta,
        neighboring_relation=relation,
    )


def record(name: str, z: float, count: int, q: float = 1.0, /, **changes) -> ReleaseRecord:
    return ReleaseRecord(
        **{
            "name": name,
            "description": "sum over rows of x x'",
            "shape": [10, 3],
            "l2_sensitivity": 0.5,
            "numerical_slack": 1e-6,
            "noise_multiplier": z,
            "noise_standard_deviation": z * (0.5 + 1e-6),
            "sum_unit": 0.25,
            "count": count,
            "sampling_probability": q,
            "share_of_budget": 0.5,
            **changes,
        }
    )


def ran(plan: PrivacyPlan, scale: float = 1.0) -> list[ReleaseRecord]:
    """Record what `plan` asks for, with `scale` times its noise."""
    return [
        record(r.name, scale * r.noise_multiplier, r.count, r.sampling_probability)
        for r in plan.releases
    ]


def state(plan: PrivacyPlan, records: list[ReleaseRecord] | None = None, **changes):
    arguments = {
        "estimator": "FeatureCovarianceClassifier(steps=20)",
        "seeded": False,
        "rests_on": ["Rows are bounded one by one."],
        "random_source": "operating system",
        **changes,
    }
    return make_statement(plan, ran(plan) if records is None else records, **arguments)


def searched(**changes) -> PrivacyStatement:
    """State a search by random stopping of which the winner's release was published."""
    promise = PrivacyPlan(2.2, 1e-5, "add_or_remove_one", (), "rdp")
    winner = [record("gram", 4.0, 1, share_of_budget=None)]
    return state(promise, winner, **{"kind": "search", "event": SEARCH_EVENT, **changes})


def hostile_statement() -> PrivacyStatement:
    """Put every hostile text wherever a user's text may stand."""
    plan = planned()
    texts = list(HOSTILE)
    whole = " ".join(texts)
    records = [record(r.name, r.noise_multiplier, r.count) for r in plan.releases]
    records[0] = records[0].model_copy(update={"name": whole, "description": whole})
    return state(
        plan,
        records,
        estimator=whole,
        dataset=whole,
        unit_of_privacy=whole,
        random_source=whole,
        rests_on=[*texts, *(f"NOT COVERED: {text}" for text in texts)],
    )


def ledger_statement(path: Path, *, seeded: bool = True, filter: str = "gdp") -> PrivacyStatement:  # noqa: A002
    """State a ledger with three spends: finished, unfinished, and finished, perhaps seeded."""
    ledger = PrivacyLedger(path)
    ledger.create_budget(
        "stays-2026",
        epsilon=3,
        delta=1e-6,
        unit_of_privacy="one patient",
        rows_per_unit=1,
        filter=filter,
    )
    for epsilon, finished, seed in ((1.0, True, False), (0.5, False, False), (0.5, True, seeded)):
        plan = planned(epsilon, delta=1e-6)
        spend = ledger.spend(
            "stays-2026",
            plan.event,
            neighboring_relation=plan.neighboring_relation,
            purpose="fit DPFCClassifier",
        )
        if finished:
            statement = state(
                plan,
                seeded=seed,
                dataset="stays-2026",
                unit_of_privacy="one patient",
                rests_on=["each patient contributes one row", *([GAP] if seed else [])],
            )
            ledger.attach_statement(spend.id, statement)
    return make_ledger_statement(ledger, "stays-2026")


STATEMENTS: dict[str, Callable[[], PrivacyStatement]] = {
    "full batch": lambda: state(planned(), unit_of_privacy="one patient"),
    "sampled": lambda: state(planned(q=0.1)),
    "sampled, replaced": lambda: state(planned(q=0.1, relation="replace_one")),
    "without noise": lambda: state(planned(math.inf, delta=0.0)),
    "seeded": lambda: state(planned(), seeded=True, rests_on=[GAP, "Rows are bounded."]),
    "no record of a share": lambda: state(
        planned(), [record("gram", 100.0, 1, share_of_budget=None)]
    ),
    "search": searched,
    "evaluation": lambda: state(planned(0.5), kind="evaluation", dataset="stays-test"),
}
