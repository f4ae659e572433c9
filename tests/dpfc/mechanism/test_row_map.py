from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpfc.mechanism.row_map import RowMap, exact_linear_map, is_exact_linear_map

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
MAPS = {
    "normalized": RowMap(),
    "normalized to 3": RowMap(l2_clip_norm=3.0),
    "normalized with a column": RowMap(intercept_scaling=0.1),
    "clipped": RowMap(normalize=False),
    "clipped at 0.01": RowMap(l2_clip_norm=0.01, normalize=False),
    "clipped with a column": RowMap(normalize=False, intercept_scaling=0.5),
}


@st.composite
def blocks(draw, dtype):
    """Blocks of a few rows of any finite values, of very different magnitudes."""
    width = np.finfo(dtype).bits
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
    values = st.floats(width=width, allow_nan=False, allow_infinity=False)
    X = draw(hnp.arrays(dtype, shape, elements=values))
    if draw(st.booleans()):
        exponent = draw(st.integers(-1000, 0))
        X = np.ldexp(np.clip(X, -1, 1), exponent).astype(dtype)
    return X


def exact_square_norm(row):
    return sum(Fraction(float(v)) ** 2 for v in row)


def assert_bounded(mapped, l2_bound):
    """Every row's exact norm is at most the bound, up to the last bits of the constant column."""
    assert torch.isfinite(mapped).all()
    limit = Fraction(l2_bound) ** 2 * (1 + Fraction(2) ** -50)
    for row in mapped.numpy():
        assert exact_square_norm(row) <= limit


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_any_finite_row_lands_within_the_bound(row_map, dtype):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(blocks(dtype))
    @example(np.zeros((2, 3), dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).max, dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).tiny, dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).smallest_subnormal, dtype=dtype))
    def check(X):
        assert_bounded(row_map(torch.from_numpy(X)), row_map.l2_bound)

    check()


@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_rows_whose_squares_underflow_land_within_the_bound(row_map):
    rows = [np.full(1280, 1.5e-162), np.full(1280, 1e-161), np.full(1280, 3e-155)]
    rows[0][0] = 2.3e-162
    rows.append(np.r_[2.7e-162, np.zeros(1279)])
    mapped = row_map(torch.from_numpy(np.array(rows)))
    assert_bounded(mapped, row_map.l2_bound)


@pytest.mark.parametrize("center_of_type", ["random", "row itself"])
@pytest.mark.parametrize("normalize", [True, False])
def test_centred_rows_land_within_the_bound(normalize, center_of_type):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 6)) * 10.0 ** rng.integers(-200, 200, size=(20, 1))
    plain = RowMap(2.0, normalize)
    bounded = plain(torch.from_numpy(X))
    center = bounded[3] if center_of_type == "row itself" else bounded.mean(dim=0)
    row_map = RowMap(2.0, normalize, center, 0.3)
    assert_bounded(row_map(torch.from_numpy(X)), row_map.l2_bound)


def test_the_bound_is_reached():
    rng = np.random.default_rng(1)
    X = torch.from_numpy(rng.normal(size=(50, 7)) * 100)
    for row_map in MAPS.values():
        norms = torch.linalg.vector_norm(row_map(X), dim=1)
        torch.testing.assert_close(
            norms, torch.full((50,), row_map.l2_bound, dtype=torch.float64), rtol=1e-11, atol=0
        )


# -- edge cases of the docstring's table ---------------------------------------------


def test_a_zero_row_stays_zero():
    zero = torch.zeros(2, 4)
    for normalize in (True, False):
        assert not RowMap(normalize=normalize)(zero).any()


def test_a_zero_row_is_centred_like_any_other():
    center = torch.tensor([0.3, 0.4], dtype=torch.float64)
    mapped = RowMap(center=center)(torch.zeros(1, 2))
    torch.testing.assert_close(mapped, -2 * center[None], rtol=1e-11, atol=0)


def test_a_row_equal_to_the_centre_maps_to_zero_and_the_constant_column():
    row = torch.tensor([[3.0, -4.0, 12.0]], dtype=torch.float64)
    center = RowMap()(row)[0]
    assert not RowMap(center=center)(row).any()
    with_column = RowMap(center=center, intercept_scaling=0.1)(row)
    assert with_column.tolist() == [[0.0, 0.0, 0.0, 0.1]]


def test_huge_and_tiny_rows_keep_their_direction():
    direction = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    for factor in (1e300, 1e160, 1e10, 1.0, 1e-100, 1e-145):
        torch.testing.assert_close(RowMap()(direction * factor), direction, rtol=1e-11, atol=0)


def test_the_largest_floats_do_not_overflow():
    largest = torch.full((1, 1000), torch.finfo(torch.float64).max, dtype=torch.float64)
    for normalize in (True, False):
        mapped = RowMap(normalize=normalize)(largest)
        torch.testing.assert_close(mapped, torch.full_like(mapped, 1000**-0.5), rtol=1e-11, atol=0)


def test_clipping_leaves_short_rows_untouched():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(30, 5))
    X *= rng.random((30, 1)) / np.linalg.norm(X, axis=1, keepdims=True) * 0.999
    X[0] *= 1e-200
    X = torch.from_numpy(X)
    assert torch.equal(RowMap(normalize=False)(X), X)


def test_an_infinite_clip_leaves_every_row_untouched():
    X = torch.from_numpy(np.random.default_rng(3).normal(size=(9, 5)) * 1e180)
    assert torch.equal(RowMap(math.inf, normalize=False)(X), X)


def test_mapping_twice_changes_the_last_bits_at_most():
    X = torch.from_numpy(np.random.default_rng(4).normal(size=(30, 5)) * 3)
    for normalize in (True, False):
        once = RowMap(normalize=normalize)(X)
        torch.testing.assert_close(RowMap(normalize=normalize)(once), once, rtol=1e-11, atol=0)


def test_normalizing_ignores_a_power_of_two_bit_for_bit():
    X = torch.from_numpy(np.random.default_rng(5).normal(size=(30, 11)))
    for exponent in (-300, -1, 1, 300):
        assert torch.equal(RowMap()(X * 2.0**exponent), RowMap()(X))


def test_the_constant_column_has_the_stated_value():
    X = torch.from_numpy(np.random.default_rng(6).normal(size=(4, 3)) * 9)
    shared = RowMap(2.0, intercept_scaling=0.25)
    plain = RowMap(2.0, normalize=False, intercept_scaling=0.25)
    assert shared(X)[:, -1].tolist() == [0.5] * 4
    assert plain(X)[:, -1].tolist() == [0.25] * 4
    assert shared.l2_bound == 2.0
    assert plain.l2_bound == math.hypot(2.0, 0.25)
    assert shared.n_columns(3) == plain.n_columns(3) == 4
    assert RowMap().n_columns(3) == 3


def test_the_input_is_not_changed():
    X = torch.from_numpy(np.random.default_rng(7).normal(size=(5, 3)) * 1e200)
    before = X.clone()
    RowMap(center=torch.ones(3, dtype=torch.float64), intercept_scaling=0.1)(X)
    assert torch.equal(X, before)


# -- a row's image is a function of that row alone -----------------------------------


@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 8, 64, 129, 1280])
@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_a_row_has_the_same_bits_alone_and_in_any_block(row_map, n_features):
    rng = np.random.default_rng(n_features)
    X = rng.normal(size=(70, n_features)) * 10.0 ** rng.integers(-3, 4, size=(70, 1))
    X[10], X[20], X[30], X[40], X[50] = 0.0, 1e300, 1e-300, 1e-160, 1e149
    center = None if n_features == 3 else torch.from_numpy(X[:10].mean(axis=0) / 10)
    row_map = RowMap(row_map.l2_clip_norm, row_map.normalize, center, row_map.intercept_scaling)
    X = torch.from_numpy(X)
    whole = row_map(X)
    alone = torch.cat([row_map(X[i : i + 1]) for i in range(len(X))])
    assert torch.equal(whole, alone)
    order = torch.from_numpy(rng.permutation(len(X)))
    assert torch.equal(row_map(X[order]), whole[order])
    for start, stop in ((0, 3), (7, 24), (19, 22), (1, 70)):
        assert torch.equal(row_map(X[start:stop]), whole[start:stop])


def test_memory_layout_does_not_change_a_rows_bits():
    X = torch.from_numpy(np.random.default_rng(8).normal(size=(33, 17)))
    by_columns = X.T.contiguous().T
    assert torch.equal(RowMap()(by_columns), RowMap()(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int32])
def test_narrow_types_are_widened_before_anything_is_computed(dtype):
    X = (torch.from_numpy(np.random.default_rng(9).normal(size=(20, 6))) * 50).to(dtype)
    mapped = RowMap()(X)
    assert mapped.dtype == torch.float64
    assert torch.equal(mapped, RowMap()(X.to(torch.float64)))


# -- roots and linear maps -----------------------------------------------------------


def test_rows_without_a_negative_entry_become_their_roots_and_others_stay():
    X = torch.tensor([[4.0, 9.0, 0.0], [4.0, -9.0, 0.0], [0.0, 0.0, 0.0], [-0.0, 1.0, 4.0]])
    # Three quarters of the mean root, which is 5/3 in the first row and 1 in the last, go off.
    expected = torch.tensor(
        [[2 - 1.25, 3 - 1.25, -1.25], [4, -9, 0], [0, 0, 0], [-0.75, 0.25, 1.25]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(RowMap(nonnegative_root=True)(X), RowMap()(expected))
    clipped = RowMap(normalize=False, nonnegative_root=True)
    torch.testing.assert_close(clipped(X), RowMap(normalize=False)(X))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_any_finite_row_lands_within_the_bound_after_root_and_linear_map(dtype):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(blocks(dtype), st.integers(0, 2**32 - 1))
    @example(np.full((1, 9), np.finfo(dtype).max, dtype=dtype), 0)
    @example(np.full((1, 9), np.finfo(dtype).smallest_subnormal, dtype=dtype), 0)
    def check(X, seed):
        rng = np.random.default_rng(seed)
        linear = exact_linear_map(torch.from_numpy(rng.normal(size=(X.shape[1],) * 2)))
        row_map = RowMap(3.0, nonnegative_root=True, intercept_scaling=0.1, linear=linear)
        assert_bounded(row_map(torch.from_numpy(X)), row_map.l2_bound)

    check()


def linear_of(width, seed=0):
    rng = np.random.default_rng(seed)
    return exact_linear_map(torch.from_numpy(rng.normal(size=(width, width))))


@pytest.mark.parametrize("width", [1, 7, 64, 1280])
def test_a_linear_map_has_short_columns_on_the_grid(width):
    linear = linear_of(width)
    assert float(torch.linalg.vector_norm(linear, dim=0).max()) <= 1.0
    assert torch.equal(torch.round(linear * 2.0**26), linear * 2.0**26)


@pytest.mark.parametrize("width", [7, 64, 1280])
def test_products_with_a_linear_map_are_exact_in_any_order(width):
    rng = np.random.default_rng(1)
    rows = RowMap()(torch.from_numpy(rng.normal(size=(5, width))))
    unit, linear = torch.round(rows * 2.0**26), linear_of(width) * 2.0**26
    exact = [
        [sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in linear.T[:9]]
        for row in unit
    ]
    order = torch.from_numpy(rng.permutation(width))
    for product in (unit @ linear, unit[:, order] @ linear[order]):
        assert [[int(v) for v in row] for row in product[:, :9]] == exact


def test_a_row_has_the_same_image_in_any_block_after_a_linear_map():
    rng = np.random.default_rng(2)
    X = torch.from_numpy(rng.gamma(0.3, size=(530, 97)))
    row_map = RowMap(nonnegative_root=True, center=RowMap()(X).mean(dim=0), linear=linear_of(97))
    whole = row_map(X)
    for size in (1, 3, 17, 512):
        parts = torch.cat([row_map(X[i : i + size]) for i in range(0, len(X), size)])
        assert torch.equal(parts, whole)
    assert torch.equal(row_map(X[torch.arange(529, -1, -1)]).flip(0), whole)


def test_only_short_columns_on_the_grid_are_an_exact_map():
    linear = linear_of(9).numpy()
    assert is_exact_linear_map(linear)
    assert not is_exact_linear_map(linear + 2.0**-30)
    assert not is_exact_linear_map(2.0 * linear)
    assert not is_exact_linear_map(linear.astype(np.float32))
    assert not is_exact_linear_map(np.full((9, 9), 1e308))


# -- columns for the length ----------------------------------------------------------


def waves_of(X):
    return RowMap(length_scaling=0.5)(torch.as_tensor(X))[:, -2:]


def test_columns_for_the_length_say_how_long_a_row_was():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1, 6)) * np.geomspace(1, 16, 200)[:, None]
    waves = waves_of(X).numpy()
    steps = np.linalg.norm(np.diff(waves, axis=0), axis=1)
    assert steps.min() > 0.5 * 3 / 200  # all the way round in one period, never standing still
    np.testing.assert_allclose(waves[0], waves[-1], atol=1e-9)  # a period is a factor of 16
    np.testing.assert_allclose(np.abs(waves).sum(axis=1), 0.5)
    np.testing.assert_allclose(waves_of(-16.0 * X), waves, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-160, 1.0, 1e160, 1e300])
def test_columns_for_the_length_have_a_place_for_any_row(scale):
    X = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]]) * scale
    row_map = RowMap(2.0, length_scaling=0.5, intercept_scaling=0.1)
    rows = row_map(torch.from_numpy(X))
    assert_bounded(rows, 2.0)
    assert rows.shape == (3, 5) and row_map.n_columns(2) == 5
    assert rows[1].tolist() == [0.0, 0.0, 0.0, 0.0, 0.2]
    assert row_map.feature_share == pytest.approx(0.74)


def test_rows_that_are_not_normalised_need_no_columns_for_the_length():
    X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row_map = RowMap(normalize=False, length_scaling=0.5)
    assert row_map.n_columns(3) == 3 and row_map.l2_bound == 1.0
    assert torch.equal(row_map(X), RowMap(normalize=False)(X))


def test_a_row_has_the_same_columns_for_its_length_in_any_block():
    rng = np.random.default_rng(3)
    X = torch.from_numpy(rng.normal(size=(530, 97)) * np.exp(rng.normal(size=(530, 1)) * 200))
    row_map = RowMap(length_scaling=0.2, intercept_scaling=0.1)
    whole = row_map(X)
    assert_bounded(whole, 1.0)
    for size in (1, 3, 17, 512):
        parts = torch.cat([row_map(X[i : i + size]) for i in range(0, len(X), size)])
        assert torch.equal(parts, whole)
