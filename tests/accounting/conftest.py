"""A ledger with one budget, and events to spend."""

import contextlib
import sqlite3
from pathlib import Path

import dp_accounting
import pytest
from hypothesis import settings

from dpfc.accounting.gaussian import gaussian_epsilon
from dpfc.accounting.ledger.ledger import PrivacyLedger
from dpfc.accounting.plans import PlannedRelease, PrivacyPlan
from dpfc.accounting.statements.statement import ReleaseRecord, make_statement

# How long an example takes says nothing about the code: cores are shared.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def ledger(tmp_path):
    """Its budget "ward" is eps = 1 at delta = 1e-5, for add_or_remove_one."""
    ledger = PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget(
        "ward", epsilon=1.0, delta=1e-5, unit_of_privacy="one patient", rows_per_unit=1
    )
    return ledger


@pytest.fixture
def from_before(tmp_path):
    """A ledger as the version wrote it that knew no chain: "ward" with spends 1 and 2.

    Spend 2 has the statement of a seeded run. "Station 7" has a renyi filter, and spend 3.
    """
    path = tmp_path / "before.db"
    script = Path(__file__).parent / "files" / "ledger-format-1.sql"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script.read_text())
    return PrivacyLedger(path)


@pytest.fixture
def spend():
    """Spend on "ward" with one Gaussian release."""

    def spend(ledger, noise_multiplier=20.0, dataset="ward", purpose="count"):
        return ledger.spend(
            dataset,
            dp_accounting.GaussianDpEvent(noise_multiplier),
            neighboring_relation="add_or_remove_one",
            purpose=purpose,
        )

    return spend


@pytest.fixture
def statement_of():
    """State one full-batch Gaussian event, as a fit that made only this release would."""

    def statement_of(event):
        z = event.noise_multiplier
        mu = 1 / z
        plan = PrivacyPlan(
            gaussian_epsilon(mu * (1 + 1e-9), 1e-5),
            1e-5,
            "add_or_remove_one",
            (PlannedRelease("count", z, 1, 1.0, 1.0),),
        )
        record = ReleaseRecord(
            name="count",
            description="sum over rows of 1",
            shape=[1],
            l2_sensitivity=1.0,
            numerical_slack=0.0,
            noise_multiplier=z,
            noise_standard_deviation=z,
            sum_unit=1.0,
            count=1,
            sampling_probability=1.0,
            share_of_budget=1.0,
        )
        return make_statement(
            plan,
            [record],
            estimator="count",
            seeded=False,
            rests_on=["nothing"],
            random_source="a test",
            dataset="ward",
        )

    return statement_of
