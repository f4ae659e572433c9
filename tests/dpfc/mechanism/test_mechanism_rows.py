"""Which rows a mechanism sums, under which map, and what it knows of their number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mechanisms import (
    N_CLASSES,
    N_FEATURES,
    QUERIES,
    RELATIONS,
    BrokenNoise,
    ConstantNoise,
    as_drawn,
    exact_sum,
    mechanism_of,
    plan_of,
    private_rows,
    sensitivity_of,
)

from dpfc.accounting import PrivacyPlan
from dpfc.mechanism.bounded_sums import BoundedRows
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.queries import ClassSums, Count, FeatureSum, Gram
from dpfc.mechanism.row_map import RowMap, exact_linear_map
from dpfc.mechanism.rows import ArrayRows

# -- sampling ------------------------------------------------------------------------


class GivenCoins(ConstantNoise):
    def bernoulli(self, probability, size):
        self.probability = probability
        return self.coins[:size]


@pytest.mark.parametrize("kept", [True, False])
def test_a_sampled_release_sums_the_rows_whose_coins_came_up(kept, monkeypatch):
    if not kept:
        monkeypatch.setattr("dpfc.mechanism.bounded_sums.available_memory", lambda device: 0)
    rows = private_rows(1100)
    coins = np.random.default_rng(0).random(1100) < 0.3
    noise = GivenCoins(coins=coins)
    mechanism = mechanism_of(counts={"gradient": 1}, rows=rows, noise=noise, probability=0.3)
    value = mechanism.release("gradient", QUERIES["gradient"]).value
    expected = exact_sum("gradient", rows=ArrayRows(rows._X[coins], rows.codes[coins]))
    assert torch.equal(value, expected)
    assert value.any()
    assert noise.probability == 0.3


class FairCoins(ConstantNoise):
    def bernoulli(self, probability, size):
        return SystemNoise().bernoulli(probability, size)


@pytest.mark.parametrize("noise_multiplier", [0.0, 2.0])
def test_samples_are_fresh_in_every_draw_and_may_be_empty(noise_multiplier):
    mechanism = mechanism_of(noise_multiplier, {"gradient": 20}, noise=FairCoins(), probability=0.5)
    values = [mechanism.release("gradient", QUERIES["gradient"]).value for _ in range(20)]
    assert len(torch.unique(torch.stack(values), dim=0)) == 20
    nobody = mechanism_of(noise_multiplier, {"gradient": 1}, noise=FairCoins(), probability=1e-9)
    assert not nobody.release("gradient", QUERIES["gradient"]).value.any()


def test_a_sampled_release_has_the_noise_of_the_full_sensitivity():
    for relation in RELATIONS:
        release = mechanism_of(relation=relation, probability=0.1).release(
            "gradient", QUERIES["gradient"]
        )
        expected = 2.0 * sensitivity_of(QUERIES["gradient"], relation)
        assert release.noise_standard_deviation == pytest.approx(expected, rel=1e-12)


# -- the number of rows and the centre -----------------------------------------------


def test_a_private_number_of_rows_is_released_once_with_noise():
    mechanism = mechanism_of(counts={"count": 1}, rows=private_rows(1000))
    first, second = mechanism.n_samples(), mechanism.n_samples()
    assert first == second
    assert mechanism.run.records[0].count == 1
    assert mechanism.run.records[0].noise_standard_deviation >= 2.0


def test_a_noisy_number_of_rows_is_at_least_one():
    assert mechanism_of(rows=private_rows(3), noise=ConstantNoise(-8.0)).n_samples() == 1


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_stated_number_of_rows_is_used_and_nothing_is_released(relation):
    mechanism = mechanism_of(relation=relation, n_samples=123, noise=BrokenNoise())
    assert mechanism.n_samples() == 123
    assert mechanism.run.records == []


def test_the_number_of_rows_is_public_when_a_row_is_replaced():
    mechanism = mechanism_of(relation="replace_one", rows=private_rows(77), noise=BrokenNoise())
    assert mechanism.n_samples() == 77
    assert mechanism.run.records == []


def test_the_centre_is_the_mean_of_bounded_rows_without_noise():
    rows = private_rows(50)
    mechanism = mechanism_of(0.0, rows=rows)
    mechanism.center_rows()
    expected = RowMap()(torch.from_numpy(rows._X)).mean(dim=0)
    torch.testing.assert_close(mechanism.row_map.center, expected, rtol=1e-12, atol=1e-14)


def test_a_centre_that_is_all_noise_is_zero_and_none_is_longer_than_the_bound():
    for seed in range(200):
        for noise_multiplier, bound in ((1e6, 1.0), (0.5, 0.1)):
            mechanism = mechanism_of(
                noise_multiplier,
                rows=private_rows(2),
                noise=SeededNoise(seed),
                row_map=RowMap(bound),
            )
            mechanism.center_rows()
            assert float(mechanism.row_map.center.norm()) <= bound
    # Noise of exactly its expected energy, and no signal.
    silent = ArrayRows(np.zeros((5, N_FEATURES)), np.zeros(5, dtype=np.int64))
    mechanism = mechanism_of(noise=ConstantNoise(1.0), rows=silent)
    mechanism.center_rows()
    assert float(mechanism.row_map.center.norm()) < 1e-6


def test_centring_keeps_bound_and_constant_column_and_records_what_it_took():
    mechanism = mechanism_of(row_map=RowMap(2.0, intercept_scaling=0.1))
    mechanism.center_rows()
    assert mechanism.row_map.l2_bound == 2.0
    assert mechanism.n_columns == N_FEATURES + 1
    assert [record.name for record in mechanism.run.records] == ["count", "feature_sum"]
    assert mechanism.run.records[1].shape == [N_FEATURES + 1]  # and the count, once more
    # The squared length of rounded rows may exceed that of rows by 4·2⁻¹⁴ of it (`RowGrid`).
    assert 2.0 <= mechanism.run.records[1].l2_sensitivity <= 2.0 * (1 + 2.0**-13)


def test_centring_after_a_release_applies_to_the_next_one():
    rows = private_rows(50)
    mechanism = mechanism_of(0.0, {"gram": 1, "feature_sum": 1, "count": 1, "class_sums": 1},
                             rows=rows)  # fmt: skip
    mechanism.release("gram", Gram())
    mechanism.center_rows()
    value = mechanism.release("class_sums", ClassSums()).value
    mapped = mechanism.row_map(torch.from_numpy(rows._X))
    expected = torch.eye(N_CLASSES, dtype=torch.float64)[rows.codes].T @ mapped
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)


def test_a_count_that_is_public_carries_no_noise():
    mechanism = mechanism_of(relation="replace_one", rows=private_rows(77), noise=BrokenNoise())
    release = mechanism.release("count", Count())
    assert release.value.tolist() == [77.0]
    assert release.noise_standard_deviation == 0.0


@pytest.mark.parametrize("name", ["gram", "class_counts", "hessian"])
def test_what_the_accountant_cannot_sample_under_replace_one_is_refused(name):
    """Sampled events are accounted for a sensitivity of twice a row's norm."""
    mechanism = mechanism_of(relation="replace_one", probability=0.5, noise=BrokenNoise())
    with pytest.raises(ValueError, match="cannot be sampled"):
        mechanism.release(name, QUERIES[name])
    assert mechanism.run.records == []


# -- reallocation and public maps ----------------------------------------------------


def test_a_reallocated_release_has_the_noise_of_its_new_share():
    mechanism = mechanism_of(2.0, {"feature_sum": 1, "class_sums": 1}, noise=ConstantNoise(1.0))
    mechanism.run.reallocate("feature_sum", 0.1)
    scales = {
        name: mechanism.release(name, QUERIES[name]).noise_standard_deviation
        for name in ("feature_sum", "class_sums")
    }
    for name, share in (("feature_sum", 0.1), ("class_sums", 0.9)):
        expected = 2.0 * math.sqrt(0.5 / share) * sensitivity_of(QUERIES[name])
        assert scales[name] == pytest.approx(expected, rel=1e-9)
    spent = math.fsum(r.count / r.noise_multiplier**2 for r in mechanism.run.records)
    assert spent == pytest.approx(2 / 2.0**2)
    assert spent <= 2 / 2.0**2


def test_what_was_drawn_is_not_reallocated():
    mechanism = mechanism_of(2.0, {"count": 1, "feature_sum": 1, "gram": 1})
    mechanism.n_samples()
    before = mechanism.run.plan["count"]
    with pytest.raises(RuntimeError, match="drawn already"):
        mechanism.run.reallocate("count", 0.1)
    mechanism.run.reallocate("feature_sum", 0.0)
    assert mechanism.run.plan["count"] == before
    with pytest.raises(KeyError):
        mechanism.center_rows()
    assert [record.name for record in mechanism.run.records] == ["count"]


def test_a_plan_that_costs_more_is_never_taken(monkeypatch):
    mechanism = mechanism_of(2.0, {"feature_sum": 1, "gram": 1})
    cheaper = plan_of(1.9, {"feature_sum": 1, "gram": 1})
    monkeypatch.setattr(PrivacyPlan, "reallocated", lambda *_, **__: cheaper)
    with pytest.raises(RuntimeError, match="would raise mu"):
        mechanism.run.reallocate("feature_sum", 0.1)
    assert mechanism.run.plan.mu == pytest.approx(math.sqrt(2 / 4))


@pytest.mark.parametrize("n", [3, 200])
def test_a_noisy_mean_is_shrunk_to_the_guess(n):
    rows = private_rows(n)
    mean = RowMap()(torch.from_numpy(rows._X)).mean(dim=0)
    exact = mechanism_of(0.0, rows=rows)
    exact.center_rows(mean + 0.1)
    torch.testing.assert_close(exact.row_map.center, mean, rtol=1e-9, atol=1e-12)
    drowned = mechanism_of(noise=ConstantNoise(1e-3), noise_multiplier=1e4, rows=rows)
    drowned.center_rows(mean + 0.1)  # noise is expected, and hardly comes
    torch.testing.assert_close(drowned.row_map.center, mean + 0.1)


def test_a_second_look_at_the_number_of_rows_is_more_precise_than_the_first():
    first, both = [], []
    for seed in range(400):
        mechanism = mechanism_of(4.0, rows=private_rows(100), noise=SeededNoise(seed))
        first.append(mechanism.n_samples())
        mechanism.center_rows()
        both.append(mechanism.n_samples())
    share = 1 / (1 + math.sqrt(N_FEATURES))
    expected = 4.0 / math.sqrt(1.0 + share)
    assert np.std(first) == pytest.approx(4.0, rel=0.15)
    assert np.std(both) == pytest.approx(expected, rel=0.15)
    assert np.mean(both) == pytest.approx(100, abs=4 * expected / 20)


def test_public_maps_apply_to_all_further_releases():
    rows = private_rows(50)
    center = torch.full((N_FEATURES,), 0.05, dtype=torch.float64)
    linear = exact_linear_map(torch.eye(N_FEATURES, dtype=torch.float64) + 0.1)
    mechanism = mechanism_of(0.0, rows=rows)
    mechanism.release("feature_sum", FeatureSum())
    mechanism.map_rows(center=center)
    mechanism.map_rows(linear=linear)
    mapped = RowMap(center=center, linear=linear)(torch.from_numpy(rows._X))
    released = mechanism.release("gram", Gram()).value
    torch.testing.assert_close(released, mapped.T @ mapped)
    noisy = mechanism_of(rows=rows, noise=ConstantNoise())
    noisy.release("class_sums", ClassSums())  # keeps rows under another map
    noisy.map_rows(center=center)
    noisy.map_rows(linear=linear)
    integers = BoundedRows(rows, RowMap(center=center, linear=linear), N_CLASSES).sum(Gram())
    assert torch.equal(as_drawn(noisy, "gram", Gram()), integers)


# -- the same integers however rows are read -------------------------------------------


@pytest.mark.parametrize("name", QUERIES)
def test_sums_are_the_same_for_any_number_of_threads_and_wherever_rows_are_kept(name, monkeypatch):
    rows = private_rows(9000)  # three pieces
    selected = np.random.default_rng(0).random(9000) < 0.5

    def sums(**options):
        bounded = BoundedRows(rows, RowMap(), N_CLASSES, **options)
        return [bounded.sum(QUERIES[name], mask) for mask in (None, selected, ~selected)]

    expected = sums()
    assert torch.equal(expected[0], expected[1] + expected[2])
    assert expected[0].any()
    assert all(map(torch.equal, sums(n_threads=3), expected))
    monkeypatch.setattr("dpfc.mechanism.bounded_sums.available_memory", lambda device: 0)
    assert all(map(torch.equal, sums(n_threads=3), expected))


def test_rows_that_are_fewer_than_stated_are_an_error_and_no_sum():
    class Fewer(ArrayRows):
        def blocks(self, block_rows):
            yield self._X[:-1], self.codes[:-1]

    rows = private_rows(20)
    with pytest.raises(RuntimeError, match="number of rows that it states"):
        BoundedRows(Fewer(rows._X, rows.codes), RowMap(), N_CLASSES).sum(Gram())


def test_no_room_for_rows_is_said_before_anything_is_spent(monkeypatch, tmp_path):
    """Neither memory nor disk: with centring, too, which releases a mean before."""
    from dpfc import DPFCClassifier
    from dpfc.accounting import PrivacyLedger
    from dpfc.mechanism import bounded_sums

    def full(*_):
        raise OSError(28, "No space left on device")

    ledger = PrivacyLedger(tmp_path / "ledger")
    ledger.create_budget("rows", epsilon=3.0, delta=1e-5)
    monkeypatch.setattr(bounded_sums, "available_memory", lambda device: 0)
    monkeypatch.setattr(bounded_sums.os, "posix_fallocate", full)
    model = DPFCClassifier(classes=[0, 1], ledger=ledger, dataset="rows")
    with pytest.raises(OSError, match="No space left"):
        model.fit(np.eye(40), np.arange(40) % 2)
    assert ledger.history("rows") == []
