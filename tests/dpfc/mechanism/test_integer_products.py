"""Products of int8 matrices: NumPy's integers, from every kernel, in every shape and layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.mechanism import integer_products
from dpfc.mechanism.integer_products import KERNEL_VARIABLE, MOST_TERMS, kernel_name, product

KERNELS = ["int8", "float32", "float64"]


def matrix(rng, rows, columns, layout, extreme):
    """Digits in the layouts that sums have: blocks, and slices of larger arrays, turned or not."""
    pad = 5 if "slice" in layout else 0
    shape = (columns, rows + pad) if "turned" in layout else (rows, columns + pad)
    digits = rng.choice([-127, 127], shape) if extreme else rng.integers(-127, 128, shape)
    digits = digits.astype(np.int8)[:, pad:]
    return digits.T if "turned" in layout else digits


LAYOUTS = ["plain", "turned", "slice", "turned slice"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_shape_and_layout_gives_numpys_integers(kernel, monkeypatch):
    """PyTorch's int8 product reads past a row or column that comes turned; ours never does."""
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    rng = np.random.default_rng(0)
    sides = (1, 2, 3, 17, 130)
    for rows, depth, columns in itertools.product(sides, (*sides, 2100), sides):
        for left, right in itertools.product(LAYOUTS, repeat=2):
            extreme = bool(rng.integers(2))
            a = matrix(rng, rows, depth, left, extreme)
            b = matrix(rng, depth, columns, right, extreme)
            found = product(a, b)
            assert found.dtype == np.int32
            exact = a.astype(np.float64) @ b.astype(np.float64)  # whole, far below 2⁵³
            assert np.array_equal(found, exact), (rows, depth, columns, left, right)


@pytest.mark.parametrize("kernel", KERNELS)
def test_views_that_repeat_a_row_count_it_as_often(kernel, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    row = torch.arange(-40, 41, dtype=torch.int8)
    rows = row.expand(30, 81)
    assert bool((product(rows, rows.T) == int((row.int() ** 2).sum())).all())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_of_all(kernel, sign, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    a = np.full((2, MOST_TERMS), 127, dtype=np.int8)
    assert (product(a, sign * a.T) == sign * 127**2 * MOST_TERMS).all()
    with pytest.raises(ValueError, match="at most"):
        product(np.zeros((1, MOST_TERMS + 1), np.int8), np.zeros((MOST_TERMS + 1, 1), np.int8))


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_to_add_gives_zeros(kernel, monkeypatch):
    monkeypatch.setenv(KERNEL_VARIABLE, kernel)
    assert not product(np.zeros((3, 0), np.int8), np.zeros((0, 4), np.int8)).any()
    assert product(np.zeros((0, 5), np.int8), np.zeros((5, 4), np.int8)).shape == (0, 4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), *[st.integers(1, 40)] * 3)
def test_all_kernels_agree(seed, rows, depth, columns):
    rng = np.random.default_rng(seed)
    a, b = (torch.from_numpy(rng.integers(-127, 128, s).astype(np.int8))
            for s in ((rows, depth), (depth, columns)))  # fmt: skip
    results = [integer_products._KERNELS[kernel](a, b) for kernel in KERNELS]
    assert all(torch.equal(result, results[0]) for result in results)


# -- the choice ----------------------------------------------------------------------


def saturating(a, b):
    """As processors without VNNI: one side unsigned, and sums of two products stop at 16 bits."""
    total = -128 * b.int().sum(dim=0, dtype=torch.int32).expand(a.shape[0], -1)
    for start in range(0, a.shape[1], 2):
        pair = (a[:, start : start + 2].int() + 128) @ b[start : start + 2].int()
        total = total + pair.clamp(-(2**15), 2**15 - 1)
    return total.to(torch.int32)


def off_by_one(a, b):
    result = integer_products._float64(a, b)
    result[-1, -1] += 1
    return result


def missing(a, b):
    raise NotImplementedError("no such product")


@pytest.fixture
def fresh_checks(monkeypatch):
    """Kernels are checked again, before and after."""
    monkeypatch.delenv(KERNEL_VARIABLE, raising=False)
    integer_products._is_exact.cache_clear()
    yield
    integer_products._is_exact.cache_clear()


@pytest.mark.usefixtures("fresh_checks")
@pytest.mark.parametrize("broken", [saturating, off_by_one, missing])
def test_a_kernel_that_is_wrong_is_not_taken(broken, monkeypatch):
    monkeypatch.setitem(integer_products._KERNELS, "int8", broken)
    assert kernel_name("cpu") == "float32"
    with monkeypatch.context() as named:
        named.setenv(KERNEL_VARIABLE, "int8")
        with pytest.raises(ValueError, match="int8 products are not exact"):
            kernel_name("cpu")
    monkeypatch.setitem(integer_products._KERNELS, "float32", off_by_one)
    integer_products._is_exact.cache_clear()
    assert kernel_name("cpu") == "float64"


@pytest.mark.usefixtures("fresh_checks")
def test_a_wrong_kernel_is_refused_before_anything_is_spent(monkeypatch, tmp_path):
    from dpfc import DPFCClassifier
    from dpfc.accounting import PrivacyLedger

    ledger = PrivacyLedger(tmp_path / "ledger")
    ledger.create_budget("rows", epsilon=3.0, delta=1e-5)
    model = DPFCClassifier(
        classes=[0, 1], n_samples=40, center=False, ledger=ledger, dataset="rows"
    )
    for value in ("int4", "int8"):
        monkeypatch.setenv(KERNEL_VARIABLE, value)
        monkeypatch.setitem(integer_products._KERNELS, "int8", saturating)
        with pytest.raises(ValueError, match=KERNEL_VARIABLE):
            model.fit(np.eye(40), np.arange(40) % 2)
    assert ledger.history("rows") == []


def test_the_saturating_kernel_of_these_tests_is_right_where_numbers_are_small():
    small = torch.randint(-20, 21, (30, 40), dtype=torch.int8)
    assert torch.equal(saturating(small, small.T), integer_products._int8(small, small.T))


def test_the_environment_names_a_kernel(monkeypatch):
    for kernel in KERNELS:
        monkeypatch.setenv(KERNEL_VARIABLE, kernel)
        assert kernel_name("cpu") == kernel
    monkeypatch.setenv(KERNEL_VARIABLE, "int4")
    with pytest.raises(ValueError, match="must be one of int8, float32, float64, got 'int4'"):
        kernel_name("cpu")
