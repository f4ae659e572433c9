"""The mechanism: noise of the stated size in every direction, and never more than planned."""

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
    grid_of,
    mechanism_of,
    private_rows,
    sensitivity_of,
    unit_of,
    weights,
    whole,
)
from noise_checks import FALSE_ALARM, assert_noise
from scipy import stats

from dpfc.mechanism.bounded_sums import BoundedRows
from dpfc.mechanism.losses import SoftmaxLoss
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.queries import ClassSums, GradientSum, Gram, HessianSum
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import ArrayRows


def noise_of(name, count, noise_multiplier=2.0, relation="add_or_remove_one", rows=None):
    """The noise of `count` draws, shape (count, *shape)."""
    mechanism = mechanism_of(noise_multiplier, {name: count}, relation, rows=rows)
    draws = [mechanism.release(name, QUERIES[name]) for _ in range(count)]
    scales = {draw.noise_standard_deviation for draw in draws}
    assert len(scales) == 1
    return torch.stack([draw.value for draw in draws]) - exact_sum(name, rows=rows), scales.pop()


def with_rounding(deviation, unit):
    """Standard deviation of noise that is rounded to multiples of a unit.

    Its variance is σ² + 1/12 but for terms of the order of exp(-2π²σ²), in units.
    """
    return math.hypot(deviation, unit / math.sqrt(12.0))


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
    sensitivity = sensitivity_of(query, relation)
    assert noise_multiplier * sensitivity <= stated <= noise_multiplier * sensitivity * (1 + 1e-12)
    assert_size(noise, stated, query)


@pytest.mark.parametrize("name, count", [("class_sums", 20), ("feature_sum", 40), ("gram", 60)])
def test_noise_of_turned_rows_has_the_multiplier_times_the_sensitivity(name, count):
    rows, query = private_rows(n_features=50), QUERIES[name]
    noise, stated = noise_of(name, count, rows=rows)
    expected = 2.0 * sensitivity_of(query, n_features=50)
    assert expected <= stated <= expected * (1 + 1e-12)
    assert_size(noise, stated, query, n_features=50)


def assert_size(noise, stated, query, n_features=N_FEATURES):
    unit = unit_of(query, n_features=n_features)
    if not query.symmetric:
        assert_noise(noise, with_rounding(stated, unit))
        return
    # Exactly, but for the rounding of what is turned back.
    torch.testing.assert_close(noise, noise.mT, rtol=0, atol=1e-13 * float(noise.abs().max()))
    above = torch.ones(n_features, n_features).triu(1).bool()
    assert_noise(noise.diagonal(dim1=-2, dim2=-1), with_rounding(stated, unit))
    assert_noise(noise[..., above], with_rounding(stated / math.sqrt(2), unit))


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
    noise, stated = noise_of(name, 60)
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
    assert_values_repeat_by_chance_only(noise, stated, QUERIES[name])


def assert_values_repeat_by_chance_only(noise, stated, query):
    """As many different values come up as independent draws have.

    Of D different values among n draws, E D = Σ_k 1 - (1 - p_k)^n; one draw changes D by at most
    1, so D is further than √(n log(2/α)/2) from that with probability at most α (McDiarmid).
    """
    deviation = stated / unit_of(query)
    if query.symmetric:  # of the entries above the diagonal, which have one law
        noise = noise[..., torch.ones(N_FEATURES, N_FEATURES).triu(1).bool()]
        deviation *= math.sqrt(0.5)
    width = math.ceil(deviation / 1e5)  # so many are taken for one value, where they are many
    reach = math.ceil(10 * deviation / width)
    p = np.diff(stats.norm.cdf((np.arange(-reach, reach + 1) * width - 0.5) / deviation))
    n = noise.numel()
    expected = float((-np.expm1(n * np.log1p(-p))).sum())
    different = len(torch.unique((noise / unit_of(query)).round() // width))
    assert abs(different - expected) < math.sqrt(n * math.log(2.0 / FALSE_ALARM) / 2.0)


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
    for query, power in ((ClassSums(), 1), (Gram(), 2)):
        stated = mechanism.release(query.name, query).noise_standard_deviation
        expected = 2 * sensitivity_of(query, row_map=row_map)
        assert stated == pytest.approx(expected, rel=1e-12)
        # Rounding a row of l >= 127 steps lengthens it by at most
        # (n/12 + 4 l/√3) / 2 l² < 1% (`RowGrid.squared_limit`), and its square by twice that.
        assert 1.0 <= stated / (2 * row_map.l2_bound**power) < 1.01**power


# -- the public grid -----------------------------------------------------------------


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_releases_are_whole_numbers_of_a_unit_that_no_data_decides(name, relation):
    for seed in range(3):
        mechanism = mechanism_of(relation=relation, rows=private_rows(seed=seed))
        assert as_drawn(mechanism, name, QUERIES[name]).abs().max() < 2**50


@pytest.mark.parametrize("name", ["feature_sum", "class_sums", "gram", "class_grams"])
def test_releases_of_turned_rows_are_whole_before_they_are_turned_back(name):
    mechanism = mechanism_of(rows=private_rows(n_features=50))
    assert as_drawn(mechanism, name, QUERIES[name]).any()


@pytest.mark.parametrize("n_features", [N_FEATURES, 50])
def test_neighbours_differ_by_what_one_row_adds_under_equal_noise(n_features):
    row = private_rows(40, n_features)._X[39:]
    values = [
        as_drawn(
            mechanism_of(noise=SeededNoise(0), rows=ArrayRows(
                private_rows(40, n_features)._X[:n], np.zeros(n, dtype=np.int64)
            )),
            "gram", Gram(),
        )
        for n in (39, 40)
    ]  # fmt: skip
    (q,) = grid_of(Gram(), n_features=n_features).rows(row)
    q = torch.from_numpy(q.astype(np.int64))
    assert torch.equal(values[1] - values[0], q @ q.T)


def test_noise_scale_is_the_same_for_any_data():
    small, large = (
        mechanism_of(rows=private_rows(n)).release("gram", Gram()).noise_standard_deviation
        for n in (1, 5000)
    )
    assert small == large


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e30])
def test_sum_and_noise_add_exactly_at_any_weights(scale):
    query = GradientSum(weights(scale), SoftmaxLoss(), 0.5)

    def value(noise, n):
        mechanism = mechanism_of(noise=ConstantNoise(noise), rows=private_rows(n))
        return as_drawn(mechanism, "gradient", query)

    sigma = 2.0 * query.l2_sensitivity(grid_of(query), "add_or_remove_one")
    for n in (7, 40):
        assert (value(8.5, n) - value(0.0, n) == round(8.5 * sigma)).all()


def test_noise_does_not_depend_on_weights():
    scales = {
        mechanism_of()
        .release("gradient", GradientSum(weights(scale), SoftmaxLoss(), 0.5))
        .noise_standard_deviation
        for scale in (0.0, 1.0, 1e9)
    }
    assert len(scales) == 1


@pytest.mark.parametrize("bound", [1e-30, 1e-24, 1e-20, 1.0, 1e20, 1e30])
@pytest.mark.parametrize("name", ["gram", "class_grams", "hessian", "class_sums"])
def test_noise_has_the_stated_size_at_any_length_of_rows(name, bound):
    row_map = RowMap(bound)
    query = QUERIES[name] if name != "hessian" else HessianSum(weights(1.0 / bound))
    unit = unit_of(query, row_map=row_map)

    def draw(value):
        mechanism = mechanism_of(counts={name: 1}, noise=ConstantNoise(value), row_map=row_map)
        release = mechanism.release(name, query)
        return whole(release.value, unit), release.noise_standard_deviation / unit

    noise, sigma = draw(1.0)
    noise -= draw(0.0)[0]
    above = round(sigma * math.sqrt(0.5)) if query.symmetric else round(sigma)
    expected = torch.full_like(noise, above)
    if query.symmetric:
        expected.diagonal(dim1=-2, dim2=-1).fill_(round(sigma))
    assert torch.equal(noise, expected)
    assert sigma > 100.0


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
    mechanism, seen = mechanism_of(counts={"gram": 1}), []
    monkeypatch.setattr(
        BoundedRows,
        "sum",
        lambda self, query: seen.append(len(mechanism.run.records)) or torch.zeros(30, 30).long(),
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
    assert record.l2_sensitivity == sensitivity_of(query, relation)
    assert record.numerical_slack == 0.0
    assert record.sum_unit == unit_of(query)
    assert record.noise_multiplier == 3.0
    assert record.noise_standard_deviation == releases[0].noise_standard_deviation
    covered = record.noise_multiplier * record.l2_sensitivity
    assert covered <= record.noise_standard_deviation <= covered * (1 + 1e-12)


def test_what_has_no_finite_sensitivity_is_refused_and_not_recorded():
    mechanism = mechanism_of(row_map=RowMap(math.inf, normalize=False), noise=BrokenNoise())
    with pytest.raises(ValueError, match="sensitivity of gradient is not finite"):
        mechanism.release("gradient", QUERIES["gradient"])
    assert mechanism.run.records == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_there_is_no_sum_at_weights_that_have_diverged(value):
    diverged = weights()
    diverged[1, 7] = value
    with pytest.raises(ValueError, match="weights are not finite"):
        GradientSum(diverged, SoftmaxLoss(), 0.5)
    with pytest.raises(ValueError, match="weights are not finite"):
        HessianSum(diverged)


def test_noise_beyond_float64_is_refused_and_not_recorded():
    mechanism = mechanism_of(row_map=RowMap(1e308), noise=BrokenNoise())
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
