"""Sensitivity, on neighbours: one row moves a sum by its own part, to the bit, and by no more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mechanisms import length, random_rows, weights_of

from dpfc.mechanism.column_histograms import ColumnHistograms
from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.losses import LOSSES
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
from dpfc.mechanism.row_map import RowMap

RELATIONS = ["add_or_remove_one", "replace_one"]
N_CLASSES, N_FEATURES = 4, 41  # rows of 44 columns are turned
PLAIN = [Count(), ClassCounts(), FeatureSum(), ClassSums(), Gram(), ClassGrams()]
PLAIN.append(ColumnHistograms(N_FEATURES))
MAPS = {
    "normalized": RowMap(intercept_scaling=0.1, nonnegative_root=True, length_scaling=0.2),
    "clipped, in two digits": RowMap(2.5, False, intercept_scaling=0.5),
}
HUGE = 2**62  # of sums, which never come near it


def queries(n_columns):
    yield from PLAIN
    for loss in ("softmax", "sigmoid"):
        for clip in (1e-3, 0.5, math.inf):
            for scale in (0.0, 3.0, 1e3):
                yield GradientSum(weights_of(n_columns, scale), LOSSES[loss], clip)
    for scale in (0.0, 1.0, 100.0):
        yield HessianSum(weights_of(n_columns, scale))


def label_of(query):
    parts = [query.name]
    if isinstance(query, GradientSum):
        parts += [query.loss.name, f"c={query.residual_clip_norm:g}"]
    if isinstance(query, GradientSum | HessianSum):
        parts.append(f"w={float(query.coef.abs().max()):.0f}")
    return "-".join(parts)


NAMES = [label_of(query) for query in queries(44)]


def total(query, row_map, rows, codes, n_classes=N_CLASSES):
    """The sum over a whole block, as the engine has it of each piece."""
    grid = query.grid(row_map, rows.shape[1])
    shape = query.shape(grid.n_columns, n_classes)
    block = grid.rows(rows) if query.reads == "digits" else rows
    summed = np.asarray(query.summand(grid, n_classes)(block, np.asarray(codes, dtype=np.int64)))
    assert summed.dtype == np.int64
    return summed.reshape(shape)


def adversarial_rows(grid, rng):
    """200 rows that lie badly: along what the rotation mixes, on half steps, at all extremes."""
    n, turned = grid.n_features, np.eye(grid.n_columns)
    grid.rotation.turn(turned, np.empty_like(turned))
    rows = [*turned[:40, :n], *(-turned[:20, :n]), *np.eye(n)[:20], *(-np.eye(n)[:20])]
    for size in (1e-300, 1e-160, 1e-20, 1.0, 1e20, 1e160, 1e300):
        rows += [
            np.full(n, size),
            np.full(n, -size),
            size * np.arange(n),
            size * rng.normal(size=n),
        ]
    steps = (rng.integers(-20, 20, size=(40, n)) + 0.5) * grid.unit  # halfway between two integers
    rows += [*steps, np.zeros(n), np.full(n, -0.0), np.full(n, 5e-324)]
    while len(rows) < 200:
        rows.append(np.where(rng.random(n) < 0.5, 1.0, -1.0) * 2.0 ** rng.integers(-60, 60, size=n))
    return np.array(rows[:200])


def parts_of(query, row_map, rows, codes):
    return [total(query, row_map, rows[i : i + 1], codes[i : i + 1]) for i in range(len(rows))]


@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_a_sum_is_the_sum_of_its_rows_own_parts_and_none_exceeds_its_bound(index, row_map):
    """So D with x less D is x's part, bit for bit, whatever D is."""
    rng = np.random.default_rng(index)
    query = list(queries(row_map.n_columns(N_FEATURES)))[index]
    grid = query.grid(row_map, N_FEATURES)
    rows = np.concatenate([random_rows(rng, 50), adversarial_rows(grid, rng)[index % 4 :: 4]])
    codes = rng.integers(N_CLASSES, size=len(rows))
    whole, parts = total(query, row_map, rows, codes), parts_of(query, row_map, rows, codes)
    assert np.array_equal(whole, sum(parts))
    without = total(query, row_map, rows[1:], codes[1:])
    assert np.array_equal(whole - without, parts[0])
    assert max(map(length, parts)) <= query.l2_sensitivity(grid, "add_or_remove_one")
    order = rng.permutation(len(parts))
    apart = max(length(parts[i] - parts[j]) for i, j in enumerate(order))
    assert apart <= query.l2_sensitivity(grid, "replace_one")


@pytest.mark.slow
@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_ten_thousand_rows_move_a_sum_by_their_own_parts(index, row_map):
    """Added to three others, or in the place of one; and 200 rows that lie badly."""
    rng = np.random.default_rng(index)
    query = list(queries(row_map.n_columns(N_FEATURES)))[index]
    grid = query.grid(row_map, N_FEATURES)
    summand = query.summand(grid, N_CLASSES)
    rows = np.concatenate([random_rows(rng, 3 + 10_000), adversarial_rows(grid, rng)])
    codes = rng.integers(N_CLASSES, size=len(rows))
    digits = grid.rows(rows) if query.reads == "digits" else None

    def summed(places):
        block = rows[places] if digits is None else [d[:, places] for d in digits]
        return np.asarray(summand(block, codes[places])).ravel()

    before, last = summed([0, 1, 2]), summed([2])
    added, replaced = (query.l2_sensitivity(grid, relation) for relation in RELATIONS)
    for i in range(3, len(rows)):
        own = summed([i])
        assert np.array_equal(summed([0, 1, 2, i]) - before, own)
        assert np.array_equal(summed([0, 1, i]) - before, own - last)
        # Of whole numbers far below 2⁵³ each; the root of their squares in float64.
        assert np.linalg.norm(own.astype(np.float64)) <= added * (1 + 1e-12)
        assert np.linalg.norm((own - last).astype(np.float64)) <= replaced * (1 + 1e-12)


# -- where the bounds are tight ------------------------------------------------------


def plain_map(n_features):
    """No constant column: what a row is long, its features are."""
    assert n_features <= 36  # not turned, so that rows lie as they are
    return RowMap()


E = np.eye(5)
ALMOST = np.array([[1.0, 0, 0, 0, 0.02], [-1.0, 0, 0, 0, 0.02]])


def saturating(outputs, favoured):
    """Weights whose logits are huge for the favoured outputs and hugely negative otherwise."""
    coef = np.zeros((outputs, 5))
    coef[:, -1] = -1e5
    coef[favoured, -1] = 1e5
    return torch.from_numpy(coef)


def gradient(loss="softmax", clip=0.5, coef=None):
    return GradientSum(torch.zeros(4, 5).double() if coef is None else coef, LOSSES[loss], clip)


ADDED = {
    "count": (Count(), E[0], 0),
    "class counts": (ClassCounts(), E[0], 2),
    "feature sum": (FeatureSum(), E[1], 0),
    "column histograms": (ColumnHistograms(5), E[1], 0),
    "class sums": (ClassSums(), E[1], 3),
    "gram": (Gram(), np.ones(5), 0),
    "class grams": (ClassGrams(), np.ones(5), 1),
    "clipped softmax at zero weights": (gradient(), E[0], 0),
    "clipped sigmoid at zero weights": (gradient("sigmoid"), E[0], 0),
    "softmax, certain of a wrong class": (
        gradient(clip=9.0, coef=saturating(4, [1])), ALMOST[0], 0,
    ),
    "sigmoid, wrong in every output": (
        gradient("sigmoid", 9.0, saturating(4, [1, 2, 3])), ALMOST[0], 0,
    ),
    "hessian, undecided in every output (h = 1/4)": (
        HessianSum(torch.zeros(4, 5).double()), E[2], 0,
    ),
}  # fmt: skip
REPLACED = {
    "class counts, another class": (ClassCounts(), E[0], 0, E[0], 1),
    "column histograms, no bin in common": (ColumnHistograms(5), E[0] + 1, 0, E[0] - 3, 0),
    "feature sum, antipodes": (FeatureSum(), E[0], 0, -E[0], 0),
    "class sums, antipodes of one class": (ClassSums(), E[0], 2, -E[0], 2),
    "gram, orthogonal rows": (Gram(), E[0], 0, E[1], 0),
    "class grams, another class": (ClassGrams(), E[0], 0, E[0], 1),
    "clipped softmax, antipodes": (gradient(), E[0], 0, -E[0], 0),
    "sigmoid, certain and wrong, almost antipodes": (
        gradient("sigmoid", 9.0, saturating(4, [1, 2, 3])), ALMOST[0], 0, ALMOST[1], 0,
    ),
    "hessian, orthogonal rows": (HessianSum(torch.zeros(4, 5).double()), E[0], 0, E[1], 0),
}  # fmt: skip


# Rows are a step or so short of the bound, which leaves room for rounding.
REACHED = 0.95


@pytest.mark.parametrize("query, row, code", ADDED.values(), ids=ADDED)
def test_an_adversarial_added_row_reaches_the_sensitivity(query, row, code):
    moved = length(total(query, plain_map(5), row[None], [code]))
    stated = query.l2_sensitivity(query.grid(plain_map(5), 5), "add_or_remove_one")
    assert REACHED * stated <= moved <= stated


@pytest.mark.parametrize("query, row, code, other, other_code", REPLACED.values(), ids=REPLACED)
def test_an_adversarial_replaced_row_reaches_the_sensitivity(query, row, code, other, other_code):
    moved = length(
        total(query, plain_map(5), row[None], [code])
        - total(query, plain_map(5), other[None], [other_code])
    )
    stated = query.l2_sensitivity(query.grid(plain_map(5), 5), "replace_one")
    assert REACHED * stated <= moved <= stated


def test_a_replaced_row_leaves_the_count():
    assert Count().l2_sensitivity(RowGrid.of(RowMap(), 5), "replace_one") == 0.0


# -- shapes, symmetry, and what an integer is worth ----------------------------------


@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_an_empty_sum_has_the_stated_shape_and_is_zero(row_map):
    for query in queries(row_map.n_columns(N_FEATURES)):
        empty = total(query, row_map, np.zeros((0, N_FEATURES)), [])
        assert not empty.any(), query.name


@pytest.mark.parametrize("row_map", MAPS.values(), ids=MAPS)
def test_symmetric_sums_are_symmetric_and_positive_semidefinite(row_map):
    rng = np.random.default_rng(2)
    rows, codes = random_rows(rng, 30), rng.integers(N_CLASSES, size=30)
    for query in queries(row_map.n_columns(N_FEATURES)):
        if query.symmetric:
            value = total(query, row_map, rows, codes)
            assert np.array_equal(value, np.swapaxes(value, -1, -2))
            values = np.linalg.eigvalsh(value.astype(np.float64))
            assert values.min() > -1e-9 * values.max()


@pytest.mark.parametrize("n_digits", [1, 2])
def test_no_sum_of_as_many_rows_as_are_allowed_leaves_its_integers(n_digits):
    """Entries are bounded by the largest digits; norms of parts are bounded by far less."""
    from dpfc.mechanism.integer_rows import largest_of
    from dpfc.mechanism.queries import MAX_SAMPLES

    entry = largest_of(n_digits)
    residual, curvature = largest_of(2) + 1, largest_of(3 - n_digits)
    assert MAX_SAMPLES * max(entry**2, residual * entry, curvature * entry**2) < HUGE


def test_a_public_weight_is_rounded_to_fourteen_bits_of_the_largest():
    """What a logit is off by: half a step of every weight, and float32."""
    rng = np.random.default_rng(3)
    row_map = MAPS["normalized"]
    grid = RowGrid.of(row_map, N_FEATURES)
    rows = rng.normal(size=(50, N_FEATURES))
    coef = weights_of(grid.n_columns, 2.0)
    query = GradientSum(coef, LOSSES["softmax"], 0.5)
    logits = query._logits(grid)(grid.rows(rows))
    turned = sum(d.astype(np.float64) * 128**i for i, d in enumerate(grid.rows(rows))) * grid.unit
    columns = coef.numpy().T.copy()
    grid.rotation.turn(columns, np.empty_like(columns))
    exact = columns.T @ turned
    step = abs(columns).max() / 16256
    assert abs(logits - exact).max() < 0.5 * step * abs(turned).sum(axis=0).max() + 1e-5


def test_weights_beyond_floats_give_bounded_parts():
    row_map = MAPS["normalized"]
    grid = RowGrid.of(row_map, N_FEATURES)
    rng = np.random.default_rng(4)
    rows, codes = random_rows(rng, 20), rng.integers(N_CLASSES, size=20)
    for scale in (1e-320, 1e30, 1e300):
        coef = weights_of(grid.n_columns, scale)
        for query in (GradientSum(coef, LOSSES["softmax"], 0.5), HessianSum(coef)):
            for part in parts_of(query, row_map, rows, codes):
                assert length(part) <= query.row_norm(grid)


def test_a_class_without_rows_gets_zeros_of_its_own():
    rows = random_rows(np.random.default_rng(5), 10)
    for query in (ClassCounts(), ClassSums(), ClassGrams()):
        value = total(query, MAPS["normalized"], rows, np.full(10, 2))
        assert not value[[0, 1, 3]].any()
        assert value[2].any()


def test_units_follow_the_bound():
    """Twice the clip norm: twice the worth of a step, the same integers."""
    rows = random_rows(np.random.default_rng(6), 10)
    codes = np.zeros(10, dtype=np.int64)
    once = RowMap(intercept_scaling=0.1)
    twice = replace(once, l2_clip_norm=2.0)
    for query in (ClassSums(), Gram()):
        small, large = (query.grid(m, N_FEATURES) for m in (once, twice))
        power = 2 if query.symmetric else 1
        assert query.unit(large) == pytest.approx(2**power * query.unit(small))
        assert np.array_equal(total(query, once, rows, codes), total(query, twice, rows, codes))


@pytest.mark.parametrize("relation", RELATIONS)
def test_stated_sensitivities_are_not_below_the_exact_roots(relation):
    """In exact arithmetic: one step in the last place short is short."""
    from fractions import Fraction

    factors = {0.0: 0, 1.0: 1, math.sqrt(2.0): 2, 2.0: 4}  # squared
    for n_features in (1, 2, 37, 100, 1283):
        for row_map in (RowMap(), RowMap(1.0, False)):
            for n_outputs in (1, 2, 3, 5, 10, 31, 100):
                coef = torch.zeros(n_outputs, n_features).double()
                gradient = GradientSum(coef, LOSSES["softmax"], 0.5)
                for query in (*PLAIN, gradient, HessianSum(coef)):
                    grid = query.grid(row_map, n_features)
                    limit = grid.squared_limit
                    squared = {
                        "feature_sum": limit, "class_sums": limit, "gram": limit**2,
                        "class_grams": limit**2, "gradient": limit * gradient._squared_limit,
                        "hessian": n_outputs * (HessianSum(coef)._largest(grid) * limit) ** 2,
                    }.get(query.name, 1)  # fmt: skip
                    factor = factors[query.relation_factor(relation)]
                    stated = Fraction(query.l2_sensitivity(grid, relation))
                    assert stated**2 >= factor * squared, (query.name, n_features, n_outputs)
