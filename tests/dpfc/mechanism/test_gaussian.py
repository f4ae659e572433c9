"""The mechanism: noise of the stated size in every direction, and never more than planned."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from noise_checks import FALSE_ALARM, assert_noise
from scipy import stats

from dpfc.accounting import PlannedRelease, PrivacyPlan
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.losses import SoftmaxLoss
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.queries import (
    ClassCounts,
    ClassGrams,
    ClassSums,
    Count,
    FeatureSum,
    GradientSum,
    Gram,
    HessianSum,
)
from dpfc.mechanism.row_map import RowMap, exact_linear_map
from dpfc.mechanism.rows import ArrayRows

N_CLASSES, N_FEATURES = 3, 30
RELATIONS = ["add_or_remove_one", "replace_one"]


def weights(scale=1.0, n_columns=N_FEATURES):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(scale=scale, size=(N_CLASSES, n_columns)))


QUERIES = {
    "count": Count(),
    "class_counts": ClassCounts(),
    "feature_sum": FeatureSum(),
    "class_sums": ClassSums(),
    "gram": Gram(),
    "class_grams": ClassGrams(),
    "gradient": GradientSum(weights(), SoftmaxLoss(), 0.5),
    "hessian": HessianSum(weights()),
}


class ConstantNoise:
    """Noise and coins that are no noise: the same value in every entry."""

    description, reproducible = "constant", True

    def __init__(self, value=0.0, coins=True):
        self.value, self.coins, self.sizes = value, coins, []

    def standard_normal(self, size):
        self.sizes.append(size)
        return np.full(size, self.value)

    def bernoulli(self, probability, size):
        return np.full(size, self.coins)


class BrokenNoise(ConstantNoise):
    def standard_normal(self, size):
        raise OSError("no entropy")

    def bernoulli(self, probability, size):
        raise OSError("no entropy")


def private_rows(n=40, n_features=N_FEATURES, seed=0):
    rng = np.random.default_rng(seed)
    return ArrayRows(rng.normal(size=(n, n_features)), rng.integers(N_CLASSES, size=n))


def plan_of(noise_multiplier, counts, relation="add_or_remove_one", probability=1.0):
    releases = tuple(
        PlannedRelease(name, noise_multiplier, count, probability, 0.5)
        for name, count in counts.items()
    )
    return PrivacyPlan(1.0 if noise_multiplier else math.inf, 1e-5, relation, releases)


def mechanism_of(
    noise_multiplier=2.0,
    counts=None,
    relation="add_or_remove_one",
    *,
    noise=None,
    rows=None,
    row_map=None,
    probability=1.0,
    n_samples=None,
    on_release=None,
):
    if counts is None:
        counts = dict.fromkeys(QUERIES, 1)
    run = PrivateRun(
        noise or SystemNoise(), plan_of(noise_multiplier, counts, relation, probability)
    )
    run.on_release = on_release
    source = rows if rows is not None else private_rows()
    return GaussianMechanism(source, row_map or RowMap(), N_CLASSES, run, n_samples)


def exact_sum(name, **options):
    return mechanism_of(0.0, {name: 1}, **options).release(name, QUERIES[name]).value


def noise_of(name, count, noise_multiplier=2.0, relation="add_or_remove_one"):
    """The noise of `count` draws, shape (count, *shape)."""
    mechanism = mechanism_of(noise_multiplier, {name: count}, relation)
    draws = [mechanism.release(name, QUERIES[name]) for _ in range(count)]
    scales = {draw.noise_standard_deviation for draw in draws}
    assert len(scales) == 1
    return torch.stack([draw.value for draw in draws]) - exact_sum(name), scales.pop()


def correlation_is_zero(a, b):
    a, b = np.asarray(a).ravel(), np.asarray(b).ravel()
    return abs(np.corrcoef(a, b)[0, 1]) < stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(a.size)


# -- the size and shape of the noise -------------------------------------------------


NOISY = [(name, relation) for name in QUERIES for relation in RELATIONS]
NOISY.remove(("count", "replace_one"))


@pytest.mark.parametrize("name, relation", NOISY)
def test_noise_has_the_multiplier_times_the_sensitivity(name, relation):
    query, noise_multiplier = QUERIES[name], 2.0
    count = -(-2000 // math.prod(query.shape(N_FEATURES, N_CLASSES)))
    if query.symmetric:
        count = 60
    noise, stated = noise_of(name, count, noise_multiplier, relation)
    sensitivity = query.l2_sensitivity(1.0, relation)
    assert noise_multiplier * sensitivity <= stated <= noise_multiplier * sensitivity * 1.001
    if not query.symmetric:
        assert_noise(noise, stated)
        return
    assert torch.equal(noise, noise.mT)
    above = torch.ones(N_FEATURES, N_FEATURES).triu(1).bool()
    assert_noise(noise.diagonal(dim1=-2, dim2=-1), stated)
    assert_noise(noise[..., above], stated / math.sqrt(2))


def test_symmetric_noise_has_the_stated_size_in_every_direction():
    noise, stated = noise_of("gram", 1500)
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = rng.normal(size=(N_FEATURES, N_FEATURES))
        direction = torch.from_numpy(direction + direction.T)
        direction /= torch.linalg.matrix_norm(direction)
        assert_noise((noise * direction).sum(dim=(1, 2)), stated)


@pytest.mark.parametrize("name", ["class_sums", "gradient", "gram", "class_grams", "hessian"])
def test_noise_is_independent_across_entries_classes_and_draws(name):
    noise, _ = noise_of(name, 60)
    assert correlation_is_zero(noise[1:], noise[:-1])
    assert not correlation_is_zero(noise[1:], noise[1:] + 9 * noise[:-1])
    if QUERIES[name].symmetric:
        above = torch.ones(N_FEATURES, N_FEATURES).triu().bool()
        flat = noise[..., above]
    else:
        flat = noise
    for lag in (1, 2, flat.shape[-1] // 2):
        assert correlation_is_zero(flat[..., lag:], flat[..., :-lag])
    if name != "gram":
        for lag in (1, 2):
            assert correlation_is_zero(flat[:, lag:], flat[:, :-lag])
    # Without the diagonal's larger variance there are as many different values as entries.
    assert len(torch.unique(flat)) > 0.99 * flat.numel()


def test_different_releases_get_different_noise():
    mechanism = mechanism_of(counts={"class_grams": 1, "hessian": 1})
    noise = [mechanism.release(name, QUERIES[name]).value - exact_sum(name)
             for name in ("class_grams", "hessian")]  # fmt: skip
    assert correlation_is_zero(*noise)


def test_every_entry_asks_for_its_own_noise():
    for name, size in {"class_sums": 3 * 30, "gram": 465, "class_grams": 3 * 465}.items():
        noise = ConstantNoise()
        mechanism_of(noise=noise).release(name, QUERIES[name])
        assert sum(noise.sizes) == size


def test_an_infinite_budget_gets_the_exact_sum():
    rows = private_rows()
    mapped = RowMap()(torch.from_numpy(rows._X))
    mechanism = mechanism_of(0.0, rows=rows, noise=BrokenNoise())
    release = mechanism.release("gram", Gram())
    torch.testing.assert_close(release.value, mapped.T @ mapped, rtol=1e-13, atol=1e-13)
    assert release.noise_standard_deviation == 0.0
    assert mechanism.run.exact
    assert mechanism.run.records[0].noise_standard_deviation == 0.0


@pytest.mark.parametrize("row_map", [RowMap(3.0), RowMap(2.0, False, intercept_scaling=0.5)])
def test_noise_scales_with_the_bound_of_the_mapped_rows(row_map):
    mechanism = mechanism_of(row_map=row_map)
    sums = mechanism.release("class_sums", ClassSums())
    gram = mechanism.release("gram", Gram())
    assert sums.noise_standard_deviation == pytest.approx(2 * row_map.l2_bound, rel=1e-3)
    assert gram.noise_standard_deviation == pytest.approx(2 * row_map.l2_bound**2, rel=1e-3)


# -- the public grid -----------------------------------------------------------------


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", [name for name in QUERIES if name != "count"])
def test_releases_lie_on_a_grid_that_no_data_decides(name, relation):
    query = QUERIES[name]
    entries = math.prod(query.shape(N_FEATURES, N_CLASSES))
    finest = query.l2_sensitivity(1.0, relation) * 2.0**-16 / math.sqrt(entries)
    grid = 2.0 ** math.ceil(math.log2(finest))
    for seed in range(3):
        rows = private_rows(seed=seed)
        multiples = mechanism_of(relation=relation, rows=rows).release(name, query).value / grid
        assert torch.equal(multiples, multiples.round())
        assert float(multiples.abs().max()) < 2.0**53


def test_neighbours_differ_by_multiples_of_the_grid_under_equal_noise():
    values = [
        mechanism_of(noise=SeededNoise(0), rows=private_rows(n)).release("gram", Gram()).value
        for n in (39, 40)
    ]
    grid = 2.0 ** math.ceil(math.log2(2.0**-16 / N_FEATURES))
    multiples = (values[0] - values[1]) / grid
    assert torch.equal(multiples, multiples.round())
    assert multiples.any()


def test_noise_scale_and_grid_are_the_same_for_any_data():
    small, large = (
        mechanism_of(rows=private_rows(n)).release("gram", Gram()).noise_standard_deviation
        for n in (1, 5000)
    )
    assert small == large


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e30])
def test_sum_and_noise_add_exactly_or_the_release_is_refused(scale):
    """Step 3 of the proof; at huge weights the slack exceeds the sensitivity by far."""
    query = GradientSum(weights(scale), SoftmaxLoss(), 0.5)

    def value(noise, n):
        mechanism = mechanism_of(noise=ConstantNoise(noise), rows=private_rows(n))
        entries = mechanism.release("gradient", query).value.flatten().tolist()
        return np.array([Fraction(entry) for entry in entries])

    try:
        noise = [value(8.5, n) - value(0.0, n) for n in (7, 40)]
    except ValueError:
        assert scale > 1e20
        return
    assert (noise[0] == noise[1]).all()


def test_noise_pays_for_the_rounding_of_large_weights():
    scales = [
        mechanism_of().release("gradient", GradientSum(weights(w), SoftmaxLoss(), 0.5))
        for w in (1.0, 1e9)
    ]
    assert scales[1].noise_standard_deviation > 1.1 * scales[0].noise_standard_deviation


# -- the plan and the records --------------------------------------------------------


def test_a_plan_cannot_be_exceeded():
    mechanism = mechanism_of(counts={"gram": 2})
    for _ in range(2):
        mechanism.release("gram", Gram())
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"2 draw\(s\) of gram; all are spent"):
            mechanism.release("gram", Gram())
    assert mechanism.run.records[0].count == 2


def test_an_unplanned_release_is_refused():
    mechanism = mechanism_of(counts={"gram": 1}, noise=BrokenNoise())
    with pytest.raises(KeyError, match="class_sums"):
        mechanism.release("class_sums", ClassSums())
    assert mechanism.run.records == []


@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_a_draw_is_recorded_before_it_happens(probability):
    mechanism = mechanism_of(counts={"gradient": 2}, noise=BrokenNoise(), probability=probability)
    for count in (1, 2):
        with pytest.raises(OSError, match="no entropy"):
            mechanism.release("gradient", QUERIES["gradient"])
        assert mechanism.run.records[0].count == count
    with pytest.raises(RuntimeError, match="spent"):
        mechanism.release("gradient", QUERIES["gradient"])


def test_the_sum_is_computed_after_the_record(monkeypatch):
    from dpfc.mechanism.bounded_sums import BoundedRows

    mechanism, seen = mechanism_of(counts={"gram": 1}), []
    monkeypatch.setattr(
        BoundedRows,
        "sum",
        lambda self, query: seen.append(len(mechanism.run.records)) or torch.zeros(30, 30).double(),
    )
    mechanism.release("gram", Gram())
    assert seen == [1]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_a_record_describes_what_ran(name, relation):
    query = QUERIES[name]
    mechanism = mechanism_of(3.0, {name: 2}, relation)
    releases = [mechanism.release(name, query) for _ in range(2)]
    (record,) = mechanism.run.records
    assert record.name == name
    assert record.count == 2
    assert record.shape == list(releases[0].value.shape)
    assert record.l2_sensitivity == query.l2_sensitivity(1.0, relation)
    assert record.noise_multiplier == 3.0
    assert record.noise_standard_deviation == releases[0].noise_standard_deviation
    covered = record.noise_multiplier * (record.l2_sensitivity + record.numerical_slack)
    assert record.noise_standard_deviation == pytest.approx(covered, rel=1e-12)


@pytest.mark.parametrize(
    "query",
    [
        GradientSum(weights(), SoftmaxLoss(), 0.5),
        GradientSum(weights() * math.inf, SoftmaxLoss(), 0.5),
        GradientSum(weights() * math.nan, SoftmaxLoss(), 0.5),
    ],
    ids=["infinite rows", "infinite weights", "nan weights"],
)
def test_what_has_no_finite_sensitivity_is_refused_and_not_recorded(query):
    row_map = RowMap(math.inf, normalize=False) if torch.isfinite(query.coef).all() else RowMap()
    mechanism = mechanism_of(row_map=row_map, noise=BrokenNoise())
    with pytest.raises(ValueError, match="sensitivity of gradient is not finite"):
        mechanism.release("gradient", query)
    assert mechanism.run.records == []


def test_noise_beyond_float64_is_refused_and_not_recorded():
    mechanism = mechanism_of(row_map=RowMap(1e305), noise=BrokenNoise())
    with pytest.raises(ValueError, match="sensitivity of class_sums is not finite"):
        mechanism.release("class_sums", ClassSums())
    assert mechanism.run.records == []


def test_release_names_are_reported_as_they_are_drawn():
    names = []
    mechanism = mechanism_of(on_release=names.append)
    mechanism.release("gram", Gram())
    mechanism.release("class_sums", ClassSums())
    assert names == ["gram", "class_sums"]


# -- randomness ----------------------------------------------------------------------


def test_a_seed_reproduces_and_the_system_does_not():
    def draw(noise):
        return mechanism_of(noise=noise).release("class_sums", ClassSums()).value

    assert torch.equal(draw(SeededNoise(1)), draw(SeededNoise(1)))
    assert not torch.equal(draw(SeededNoise(1)), draw(SeededNoise(2)))
    assert not torch.equal(draw(SystemNoise()), draw(SystemNoise()))


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
    mechanism = mechanism_of(0.0, {"gradient": 1}, rows=rows, noise=noise, probability=0.3)
    query = QUERIES["gradient"]
    value = mechanism.release("gradient", query).value
    mapped = RowMap()(torch.from_numpy(rows._X[coins]))
    expected = query.block_sum(mapped, rows.codes[coins], N_CLASSES)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-11)
    assert noise.probability == 0.3


def test_samples_are_fresh_in_every_draw_and_may_be_empty():
    mechanism = mechanism_of(0.0, {"gradient": 20}, probability=0.5)
    values = [mechanism.release("gradient", QUERIES["gradient"]).value for _ in range(20)]
    assert len({float(value[0, 0]) for value in values}) == 20
    nobody = mechanism_of(0.0, {"gradient": 1}, noise=ConstantNoise(coins=False), probability=0.5)
    assert not nobody.release("gradient", QUERIES["gradient"]).value.any()


def test_a_sampled_release_has_the_noise_of_the_full_sensitivity():
    for relation in RELATIONS:
        release = mechanism_of(relation=relation, probability=0.1).release(
            "gradient", QUERIES["gradient"]
        )
        expected = 2.0 * (0.5 if relation == "add_or_remove_one" else 1.0)
        assert release.noise_standard_deviation == pytest.approx(expected, rel=1e-3)


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
    assert mechanism.run.records[1].l2_sensitivity == 2.0


def test_centring_after_a_release_applies_to_the_next_one():
    rows = private_rows(50)
    mechanism = mechanism_of(0.0, {"gram": 1, "feature_sum": 1, "count": 1, "class_sums": 1},
                             rows=rows)  # fmt: skip
    mechanism.release("gram", Gram())
    mechanism.center_rows()
    value = mechanism.release("class_sums", ClassSums()).value
    mapped = mechanism.row_map(torch.from_numpy(rows._X))
    expected = ClassSums().block_sum(mapped, rows.codes, N_CLASSES)
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
    assert scales["feature_sum"] == pytest.approx(2.0 * math.sqrt(0.5 / 0.1), rel=1e-3)
    assert scales["class_sums"] == pytest.approx(2.0 * math.sqrt(0.5 / 0.9), rel=1e-3)
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


@pytest.mark.parametrize("bound", [1e-30, 1e-24, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("name", ["gram", "class_grams", "hessian", "class_sums"])
def test_noise_has_the_stated_size_at_any_length_of_rows(name, bound):
    row_map = RowMap(bound)
    query = QUERIES[name] if name != "hessian" else HessianSum(weights(1.0 / bound))
    mechanism = mechanism_of(2.0, {name: 1}, noise=ConstantNoise(1.0), row_map=row_map)
    silent = mechanism_of(0.0, {name: 1}, row_map=row_map)
    drawn = mechanism.release(name, query)
    noise = (drawn.value - silent.release(name, query).value) / drawn.noise_standard_deviation
    expected = torch.ones_like(noise)
    if query.symmetric:
        expected = torch.full_like(noise, math.sqrt(0.5))
        expected.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    torch.testing.assert_close(noise, expected, rtol=0, atol=1e-4)
