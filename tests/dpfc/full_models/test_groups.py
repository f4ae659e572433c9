"""Fits of networks with groups: refused before a spend, gone on with, and what they state."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dpfc import DPSGDClassifier, PrivacyLedger, PrivacyWarning
from dpfc.accounting import BudgetExceeded
from dpfc.full_models import CheckpointError
from dpfc.full_models.dp_sgd.mechanism import GradientMechanism

GROUPS = np.random.default_rng(0).integers(15, size=60)


def classifier(**options):
    defaults = {
        "epsilon": 4.0, "classes": range(3), "n_steps": 6, "sampling_probability": 0.5,
    }  # fmt: skip
    return DPSGDClassifier("linear", **defaults | options)


def seeded(rows, groups, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)
        return classifier(random_state=5, **options).fit(*rows, groups=groups)


def same(one, other):
    pairs = zip(one.module_.parameters(), other.module_.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def ledger(tmp_path):
    """A ledger that protects patients with all of their rows."""
    made = PrivacyLedger(tmp_path / "ledger.db")
    made.create_budget("ward", epsilon=5, delta=1e-5, filter="renyi", unit_of_privacy="one patient")
    return made


class Cache:
    """What a feature cache offers of rows with a group column."""

    class_names, n_features, has_groups = None, 5, True

    def __init__(self, X, y, groups):
        self._rows, self._groups = (X, y), groups

    def __len__(self):
        return len(self._groups)

    def blocks(self, block_rows=4096):
        yield self._rows

    def groups(self):
        return self._groups


def test_persons_of_one_row_each_give_the_plain_fit_to_the_byte(rows):
    names = np.random.default_rng(1).permutation(60).astype(str)
    plain = seeded(rows, None)
    assert same(seeded(rows, names), plain)
    assert not same(seeded(rows, GROUPS), plain)


def test_a_cache_with_a_group_column_brings_its_own(rows):
    cached = seeded((Cache(*rows, 10 * GROUPS), None), None)
    assert same(cached, seeded(rows, GROUPS))


def test_a_budget_of_patients_pays_for_groups_and_the_statement_says_what_was_drawn(rows, ledger):
    options = {"ledger": ledger.path, "dataset": "ward"}
    with pytest.raises((ValueError, BudgetExceeded), match="row"):
        classifier(**options).fit(*rows)
    assert not ledger.history("ward")
    model = classifier(**options).fit(*rows, groups=GROUPS)
    assert len(ledger.history("ward")) == 1
    assert model.privacy_.unit_of_privacy == "one patient"
    said = " ".join(model.privacy_.rests_on)
    assert "all rows of a patient are in one group" in said
    assert "each group independently" in said and "of its rows one" in said
    assert "the number of groups is private" in said
    assert "contributes one row" not in said and "drew each row" not in said
    assert all("of one row a person" in r.description for r in model.privacy_.releases)
    assert "drew each row independently" in " ".join(classifier().fit(*rows).privacy_.rests_on)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (GROUPS[:-1], "60 rows"),
        ([None, *GROUPS[1:].tolist()], "row 0"),
        ([float("nan"), *GROUPS[1:].tolist()], "row 0"),
        (np.column_stack([GROUPS, GROUPS]), "groups"),
        (3, "groups"),
    ],
)
def test_groups_that_are_none_are_refused_before_a_spend(rows, ledger, groups, words):
    model = classifier(ledger=ledger.path, dataset="ward")
    with pytest.raises((TypeError, ValueError), match=words):
        model.fit(*rows, groups=groups)
    assert not hasattr(model, "module_") and not ledger.history("ward")


def test_a_cache_that_has_groups_takes_no_others(rows, ledger):
    cache = Cache(*rows, GROUPS)
    with pytest.raises(ValueError, match="left out"):
        classifier(ledger=ledger.path, dataset="ward").fit(cache, groups=GROUPS)
    assert not ledger.history("ward")


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_stopped_fit_goes_on_to_the_same_bytes_with_the_same_groups_alone(
    rows, tmp_path, monkeypatch, probability
):
    whole = seeded(rows, GROUPS, sampling_probability=probability)
    options = {
        "checkpoint": tmp_path / "kept", "checkpoint_every": 2, "sampling_probability": probability,
    }  # fmt: skip
    step = GradientMechanism.release_gradient

    class Stop(Exception):
        """In place of a kill."""

    def stopping(self):
        if self.steps >= 4:
            raise Stop
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(GradientMechanism, "release_gradient", stopping)
        with pytest.raises(Stop):
            seeded(rows, GROUPS, **options)
    other = GROUPS.copy()
    other[0] = 99
    for groups in (None, other):
        with pytest.raises(CheckpointError, match="another module, parameters or data"):
            seeded(rows, groups, **options)
    gone_on = seeded(rows, GROUPS, **options)
    assert same(gone_on, whole)
    assert gone_on.gradient_norms_ == whole.gradient_norms_
    assert not (tmp_path / "kept").exists()
