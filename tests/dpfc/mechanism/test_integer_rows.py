"""Rows on the grid: bounded in integers, near what they were, and each a function of itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpfc.mechanism.integer_rows import (
    BASE,
    RowGrid,
    bounded_integers,
    digits_of,
    largest_of,
    products_of_digits,
)
from dpfc.mechanism.row_map import RowMap

MAPS = {
    "normalized": RowMap(),
    "default": RowMap(intercept_scaling=0.1, nonnegative_root=True, length_scaling=0.2),
    "centred": RowMap(center=np.full(9, 0.1), intercept_scaling=0.1),
    "clipped": RowMap(2.5, False, intercept_scaling=0.5),
    "clipped, tiny unit": RowMap(1e-30, False),
    "clipped, huge unit": RowMap(1e30, False, np.full(9, 1e29)),
}
WIDTHS = [1, 2, 9, 36, 37, 100, 387]


def numbers(rows):
    """Digits as whole numbers, a row a line."""
    return sum(digit.astype(np.int64) * BASE**i for i, digit in enumerate(rows)).T


def lengths(whole):
    return (whole.astype(object) ** 2).sum(axis=1) if whole.size else np.zeros(len(whole), object)


@st.composite
def blocks(draw, dtype):
    shape = (draw(st.integers(1, 5)), 9)
    width = np.finfo(dtype).bits
    values = st.floats(width=width, allow_nan=False, allow_infinity=False)
    X = draw(hnp.arrays(dtype, shape, elements=values))
    if draw(st.booleans()):
        X = np.ldexp(np.clip(X, -1, 1), draw(st.integers(-1000, 0))).astype(dtype)
    return X


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("n_digits", [0, 1, 2])
@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_any_finite_row_is_within_the_bound_in_integers(row_map, n_digits, dtype):
    grid = RowGrid(row_map, 9, n_digits)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(blocks(dtype))
    @example(np.zeros((2, 9), dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).max, dtype=dtype))
    @example(np.full((1, 9), -np.finfo(dtype).max, dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).tiny, dtype=dtype))
    @example(np.full((1, 9), np.finfo(dtype).smallest_subnormal, dtype=dtype))
    def check(X):
        rows = grid.rows(X)
        whole = numbers(rows) if n_digits else rows[0].T
        assert np.array_equal(whole, np.rint(whole))
        assert max(lengths(whole.astype(np.int64))) <= grid.squared_limit
        assert grid.squared_limit <= grid.l2_bound**2
        if n_digits:
            assert abs(whole).max() <= largest_of(n_digits)

    check()


@pytest.mark.parametrize("n_features", WIDTHS)
@pytest.mark.parametrize("n_digits", [0, 1, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_rows_are_within_half_a_step_of_the_bounded_rows(normalize, n_digits, n_features):
    """Once turned back, and but for the precision of float32."""
    rng = np.random.default_rng(n_features)
    row_map = RowMap(1.5, normalize, intercept_scaling=0.1)
    grid = RowGrid(row_map, n_features, n_digits)
    X = rng.normal(size=(300, n_features)) * rng.uniform(0.1, 3.0, (300, 1)) / n_features**0.5
    rows = grid.rows(X)
    whole = numbers(rows) if n_digits else rows[0].T
    exact = row_map(X).T / grid.unit
    grid.rotation.turn(exact, np.empty_like(exact))
    inside = abs(exact) < (largest_of(n_digits) if n_digits else np.inf)
    off = abs(whole.T - exact)
    # Of a row that rounding made too long, entries are cut towards zero.
    cut = lengths(np.rint(exact.T).astype(np.int64)) > grid.squared_limit
    assert off[:, ~cut][inside[:, ~cut]].max() <= 0.5 + 2e-5 * grid.length**0.5 + 1e-6 * grid.length
    assert cut.mean() < 0.02
    assert off.max() < 1.001 + 1e-6 * grid.length or not inside.all()


def test_a_row_that_rounding_makes_too_long_is_cut_towards_zero_and_one_that_stays_so_is_zero():
    values = np.array([[0.6, 0.6, 0.6, 0.0], [3.4, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0],
                       [np.nan, 1.0, 0.0, 0.0]], dtype=np.float32).T.copy()  # fmt: skip
    found = bounded_integers(values, np.empty_like(values), np.empty_like(values), 127, 2)
    assert found.T.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    values = np.array([[1.5, 1.2], [0.6, 0.6]], dtype=np.float32).T.copy()
    found = bounded_integers(values, np.empty_like(values), np.empty_like(values), 127, 2)
    assert found.T.tolist() == [[1, 1], [1, 1]]  # (2, 1) is too long, (1, 1) is not


@pytest.mark.parametrize("squared_limit", [20, 2**22, 2**34])
def test_lengths_are_exact_whatever_their_size(squared_limit):
    rng = np.random.default_rng(0)
    typical = (squared_limit / 60) ** 0.5 * rng.uniform(0.5, 1.5, 4000)
    whole = np.rint(rng.normal(size=(60, 4000)) * typical).astype(np.float32)
    exact = (whole.astype(np.int64) ** 2).sum(axis=0)
    kept = bounded_integers(
        whole.copy(), np.empty_like(whole), np.empty_like(whole), 2**20, squared_limit
    )
    fits = exact <= squared_limit
    assert fits.any()
    assert not fits.all()
    assert np.array_equal(kept[:, fits], whole[:, fits])
    assert not kept[:, ~fits].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row_map", list(MAPS.values())[:2], ids=list(MAPS)[:2])
def test_a_rows_integers_depend_on_it_alone(row_map, dtype):
    """Not on its place, its neighbours, the size of blocks, or the memory that it lies in."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 387)).astype(dtype)
    X[::3] = abs(X[::3])
    grid = RowGrid.of(row_map, 387)
    (whole,) = grid.rows(X)
    order = rng.permutation(len(X))
    assert np.array_equal(grid.rows(X[order])[0], whole[:, order])
    for i in (0, 1, 127, 128, 333, 699):
        assert np.array_equal(grid.rows(X[i : i + 1])[0][:, 0], whole[:, i])
    turned = np.asfortranarray(X)
    assert np.array_equal(grid.rows(turned[5:300])[0], whole[:, 5:300])
    wide = np.zeros((700, 500), dtype=dtype)
    wide[:, 50:437] = X
    assert np.array_equal(grid.rows(wide[:, 50:437])[0], whole)
    if dtype is np.float32:
        assert np.array_equal(grid.rows(X.astype(np.float64))[0], whole)


@pytest.mark.parametrize("n_digits", [0, 1, 2])
@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_tensors_give_the_same_integers(row_map, n_digits):
    """What a GPU would be given; here PyTorch's own operations on the CPU."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(50, 9)) * 10.0 ** rng.integers(-3, 3, size=(50, 1))
    X[::4] = abs(X[::4])
    grid = RowGrid(row_map, 9, n_digits)
    for digits, tensors in zip(grid.rows(X), grid.rows(torch.from_numpy(X)), strict=True):
        assert np.array_equal(digits, tensors.numpy())


# -- digits --------------------------------------------------------------------------


@pytest.mark.parametrize("n_digits", [1, 2, 3])
def test_digits_add_up_and_fit_eight_bits(n_digits):
    most = largest_of(n_digits)
    whole = np.unique(np.r_[np.arange(-300, 301), np.linspace(-most, most, 5001).round()])
    whole = whole[abs(whole) <= most]
    digits = digits_of(whole.astype(np.float32), n_digits)
    assert len(digits) == n_digits
    assert all(d.dtype == np.int8 and abs(d.astype(int)).max() <= 127 for d in digits)
    assert np.array_equal(sum(d.astype(np.int64) * BASE**i for i, d in enumerate(digits)), whole)


def test_products_of_digits_are_products():
    rng = np.random.default_rng(2)
    a = rng.integers(-16256, 16257, size=(5, 300))
    b = rng.integers(-16256, 16257, size=(300, 7))
    found = products_of_digits(
        digits_of(a.astype(np.float64), 2), digits_of(b.astype(np.float64), 2)
    )
    assert found.dtype == np.int64
    assert np.array_equal(found, a @ b)


def test_lengths_are_checked_in_float32_whatever_pytorchs_default():
    """Rows on a GPU were checked in bfloat16 where that was PyTorch's default."""
    X = torch.from_numpy(np.random.default_rng(3).normal(size=(200, 20)))
    grid = RowGrid.of(RowMap(0.5, False), 20)
    expected = grid.rows(X)
    for default in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(default)
        try:
            found = grid.rows(X)
        finally:
            torch.set_default_dtype(torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(TypeError, match="float32 alone"):
        values = torch.zeros((3, 2), dtype=torch.bfloat16)
        bounded_integers(values, values.clone(), values.clone(), 127, 9)


def test_quotients_are_the_same_in_numpy_and_pytorch():
    """A number over a tensor is reciprocal times number in PyTorch: two roundings."""
    rng = np.random.default_rng(4)
    norms = rng.uniform(0.5, 2.0, 100_000).astype(np.float32)
    tensor = torch.from_numpy(norms)
    assert np.array_equal(16256 * (1.0 / norms), (16256 * (1.0 / tensor)).numpy())
    assert not np.array_equal(16256 / norms, (16256 / tensor).numpy())  # why it is written so
