"""The proofs of sensitivity and rounding, measured on neighbours."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from dpfc.mechanism.losses import LOSSES, SigmoidLoss, SoftmaxLoss, SquaredLoss
from dpfc.mechanism.queries import (
    MAX_SAMPLES,
    ClassCounts,
    ClassGrams,
    ClassSums,
    Count,
    FeatureSum,
    GradientSum,
    Gram,
    HessianSum,
)

RELATIONS = ["add_or_remove_one", "replace_one"]
N_CLASSES, N_COLUMNS = 4, 5
# The measured difference is itself rounded.
ROUNDING = 1e-11
PLAIN = [Count(), ClassCounts(), FeatureSum(), ClassSums(), Gram(), ClassGrams()]


def tensor(values):
    return torch.from_numpy(np.array(values, dtype=np.float64))


def gradient(loss="softmax", clip=0.5, coef=None, scale=3.0, seed=0):
    loss = LOSSES[loss]
    if coef is None:
        shape = (loss.n_outputs(N_CLASSES), N_COLUMNS)
        coef = np.random.default_rng(seed).normal(scale=scale, size=shape)
    return GradientSum(tensor(coef), loss, clip)


def hessian(scale=1.0, seed=0):
    coef = np.random.default_rng(seed).normal(scale=scale, size=(N_CLASSES, N_COLUMNS))
    return HessianSum(tensor(coef))


def queries():
    yield from PLAIN
    for loss in ("softmax", "sigmoid"):
        for clip in (1e-3, 0.5, 1.3, math.inf):
            for scale in (0.0, 3.0, 1e3):
                yield gradient(loss, clip, scale=scale)
    yield gradient("squared", 0.7)
    yield from (hessian(scale) for scale in (0.0, 1.0, 100.0))


def label_of(query):
    parts = [query.name]
    if isinstance(query, GradientSum):
        parts += [query.loss.name, f"c={query.residual_clip_norm:g}"]
    if isinstance(query, GradientSum | HessianSum):
        parts.append(f"w={float(query.coef.abs().max()):.0f}")
    return "-".join(parts)


def total(query, rows, codes, n_classes=N_CLASSES):
    codes = torch.as_tensor(np.array(codes), dtype=torch.int64)
    return query.block_sum(tensor(rows), codes, n_classes)


def moved(query, rows, codes, other_rows, other_codes, n_classes=N_CLASSES):
    """The norm of the difference between two data sets' sums."""
    difference = total(query, rows, codes, n_classes) - total(
        query, other_rows, other_codes, n_classes
    )
    return float(torch.linalg.vector_norm(difference))


def rows_in_ball(rng, n, bound, n_columns=N_COLUMNS):
    """Rows of norm at most `bound`, half of them on the sphere, some zero."""
    rows = rng.normal(size=(n, n_columns))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lengths = np.where(rng.random(n) < 0.5, 1.0, rng.random(n))
    lengths[rng.random(n) < 0.1] = 0.0
    return bound * rows * lengths[:, None]


def neighbours(rng, relation, bound):
    """Yield pairs of neighbouring data sets: random rows, antipodes, twins, other classes."""
    for _ in range(6):
        rows = rows_in_ball(rng, 12, bound)
        codes = rng.integers(N_CLASSES, size=12)
        if relation == "add_or_remove_one":
            yield rows, codes, rows[1:], codes[1:]
            continue
        other = (codes[0] + 1) % N_CLASSES
        orthogonal = np.roll(rows[0], 1) * np.where(np.arange(N_COLUMNS) % 2, -1.0, 1.0)
        for row in (rows_in_ball(rng, 1, bound)[0], -rows[0], 0 * rows[0], rows[0], orthogonal):
            for code in (codes[0], other):
                replaced_rows, replaced_codes = rows.copy(), codes.copy()
                replaced_rows[0], replaced_codes[0] = row, code
                yield rows, codes, replaced_rows, replaced_codes


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("query", list(queries()), ids=label_of)
def test_neighbours_move_the_sum_by_at_most_the_stated_sensitivity(query, relation):
    rng = np.random.default_rng(1)
    for bound in (0.03, 1.0, 2.5):
        stated = query.l2_sensitivity(bound, relation)
        for pair in neighbours(rng, relation, bound):
            assert moved(query, *pair) <= stated * (1 + ROUNDING) + ROUNDING * bound


# -- where the bounds are tight ------------------------------------------------------

C = 1.7
E = C * np.eye(N_COLUMNS)
# Two rows of almost opposite direction that agree in the last column, so that weights on
# that column saturate both residuals in the same way.
B = 0.05
ALMOST = C * np.array([[math.sqrt(1 - B**2), 0, 0, 0, B], [-math.sqrt(1 - B**2), 0, 0, 0, B]])


def saturating(outputs, favoured):
    """Weights whose logits are huge for the favoured outputs and hugely negative otherwise."""
    coef = np.zeros((outputs, N_COLUMNS))
    coef[:, -1] = -1e4
    coef[favoured, -1] = 1e4
    return coef


ADDED = {
    "count": (Count(), E[0], 0),
    "class counts": (ClassCounts(), E[0], 2),
    "feature sum": (FeatureSum(), E[1], 0),
    "class sums": (ClassSums(), E[1], 3),
    "gram": (Gram(), np.full(N_COLUMNS, C / math.sqrt(N_COLUMNS)), 0),
    "class grams": (ClassGrams(), np.full(N_COLUMNS, C / math.sqrt(N_COLUMNS)), 1),
    "clipped softmax at zero weights": (gradient(scale=0.0), E[0], 0),
    "clipped sigmoid at zero weights": (gradient("sigmoid", scale=0.0), E[0], 0),
    "clipped squared": (gradient("squared", 0.7), ALMOST[0], 1),
    "softmax, certain of a wrong class": (
        gradient(clip=math.inf, coef=saturating(4, [1])),
        ALMOST[0],
        0,
    ),
    "sigmoid, certain and wrong in every output": (
        gradient("sigmoid", math.inf, coef=saturating(4, [1, 2, 3])),
        ALMOST[0],
        0,
    ),
    "hessian, undecided in every output (h = 1/4)": (hessian(0.0), E[2], 0),
}
REPLACED = {
    "class counts, another class": (ClassCounts(), E[0], 0, E[0], 1),
    "feature sum, antipodes": (FeatureSum(), E[0], 0, -E[0], 0),
    "class sums, antipodes of one class": (ClassSums(), E[0], 2, -E[0], 2),
    "gram, orthogonal rows": (Gram(), E[0], 0, E[1], 0),
    "class grams, another class": (ClassGrams(), E[0], 0, E[0], 1),
    "class grams, orthogonal rows of one class": (ClassGrams(), E[0], 1, E[1], 1),
    "clipped softmax, antipodes": (gradient(scale=0.0), E[0], 0, -E[0], 0),
    "clipped sigmoid, antipodes": (gradient("sigmoid", scale=0.0), E[0], 0, -E[0], 0),
    "softmax, certain and wrong, almost antipodes": (
        gradient(clip=math.inf, coef=saturating(4, [1])),
        ALMOST[0],
        0,
        ALMOST[1],
        0,
    ),
    "sigmoid, certain and wrong, almost antipodes": (
        gradient("sigmoid", math.inf, coef=saturating(4, [1, 2, 3])),
        ALMOST[0],
        0,
        ALMOST[1],
        0,
    ),
    "hessian, orthogonal rows": (hessian(0.0), E[0], 0, E[1], 0),
}


@pytest.mark.parametrize("query, row, code", ADDED.values(), ids=ADDED)
def test_an_adversarial_added_row_reaches_the_sensitivity(query, row, code):
    rows, codes = np.array([ALMOST[1], row]), [1, code]
    stated = query.l2_sensitivity(C, "add_or_remove_one")
    measured = moved(query, rows, codes, rows[:1], codes[:1])
    assert 0.99 * stated <= measured <= stated * (1 + ROUNDING)


@pytest.mark.parametrize("query, row, code, other, other_code", REPLACED.values(), ids=REPLACED)
def test_an_adversarial_replaced_row_reaches_the_sensitivity(query, row, code, other, other_code):
    rows, others = np.array([ALMOST[1], row]), np.array([ALMOST[1], other])
    stated = query.l2_sensitivity(C, "replace_one")
    measured = moved(query, rows, [1, code], others, [1, other_code])
    assert 0.99 * stated <= measured <= stated * (1 + ROUNDING)


def test_two_classes_reach_the_sensitivity_of_one_sigmoid_output():
    query = gradient("sigmoid", math.inf, coef=saturating(1, [0]))
    for relation, other in (("add_or_remove_one", None), ("replace_one", ALMOST[1])):
        others, codes = ([], []) if other is None else ([other], [0])
        others = np.array(others).reshape(-1, N_COLUMNS)
        measured = moved(query, ALMOST[:1], [0], others, codes, n_classes=2)
        stated = query.l2_sensitivity(C, relation)
        assert 0.99 * stated <= measured <= stated * (1 + ROUNDING)


def test_a_replaced_row_leaves_the_count():
    assert Count().l2_sensitivity(C, "replace_one") == 0.0
    assert moved(Count(), E[:1], [0], E[1:2], [1]) == 0.0


def test_an_added_zero_row_moves_only_counts():
    for query in queries():
        measured = moved(query, np.zeros((1, N_COLUMNS)), [0], np.zeros((0, N_COLUMNS)), [])
        assert measured == (1.0 if query.name in ("count", "class_counts") else 0.0)


@pytest.mark.parametrize("query", list(queries()), ids=label_of)
def test_an_empty_sum_has_the_stated_shape_and_is_zero(query):
    empty = total(query, np.zeros((0, N_COLUMNS)), [])
    assert empty.shape == query.shape(N_COLUMNS, N_CLASSES)
    assert empty.dtype == torch.float64
    assert not empty.any()


@pytest.mark.parametrize("query", [q for q in queries() if q.symmetric], ids=label_of)
def test_symmetric_sums_are_symmetric_and_positive_semidefinite(query):
    rng = np.random.default_rng(2)
    value = total(query, rows_in_ball(rng, 30, 1.0), rng.integers(N_CLASSES, size=30))
    torch.testing.assert_close(value, value.mT, rtol=0, atol=1e-13)
    assert float(torch.linalg.eigvalsh(value).min()) > -1e-12


# -- rounding ------------------------------------------------------------------------


def exact_plain(query, rows, codes):
    """The exact sum of a polynomial query, as an array of fractions."""
    out = np.full(query.shape(rows.shape[1], N_CLASSES), Fraction(0), dtype=object)
    for row, code in zip(rows, codes, strict=True):
        x = np.array([Fraction(float(v)) for v in row], dtype=object)
        match query.name:
            case "count":
                out[0] += 1
            case "class_counts":
                out[code] += 1
            case "feature_sum":
                out += x
            case "class_sums":
                out[code] += x
            case "gram":
                out += np.outer(x, x)
            case "class_grams":
                out[code] += np.outer(x, x)
    return out


def exact_nonlinear(query, rows, codes):
    """The exact sum of a gradient or Hessian, with 60 digits."""
    mp = mpmath.mp
    coef = query.coef.numpy()
    n_columns = rows.shape[1]
    out = np.full(query.shape(n_columns, N_CLASSES), mp.mpf(0), dtype=object)
    for row, code in zip(rows, codes, strict=True):
        x = np.array([mp.mpf(float(v)) for v in row], dtype=object)
        logits = [mp.fsum(mp.mpf(float(w)) * v for w, v in zip(k, x, strict=True)) for k in coef]
        sigmoids = [1 / (1 + mp.exp(-f)) for f in logits]
        if isinstance(query, HessianSum):
            for k, p in enumerate(sigmoids):
                out[k] += p * (1 - p) * np.outer(x, x)
            continue
        if isinstance(query.loss, SoftmaxLoss):
            peak = max(logits)
            powers = [mp.exp(f - peak) for f in logits]
            r = [p / mp.fsum(powers) for p in powers]
        elif isinstance(query.loss, SigmoidLoss):
            r = sigmoids
        else:
            assert isinstance(query.loss, SquaredLoss)
            r = logits
        r = [p - (k == code) for k, p in enumerate(r)]
        length = mp.sqrt(mp.fsum(p * p for p in r))
        clip = mp.mpf(query.residual_clip_norm)
        factor = mp.mpf(1) if length <= clip else clip / length
        out += np.outer(np.array([p * factor for p in r], dtype=object), x)
    return out


def distance(computed, exact):
    """The Frobenius norm of computed - exact, without rounding before the root."""
    exact_computed = [
        Fraction(float(v)) if isinstance(e, Fraction) else mpmath.mp.mpf(float(v))
        for v, e in zip(computed.numpy().ravel(), exact.ravel(), strict=True)
    ]
    squares = [(a - b) ** 2 for a, b in zip(exact_computed, exact.ravel(), strict=True)]
    return math.sqrt(float(sum(squares)))


@pytest.mark.parametrize("query", PLAIN, ids=label_of)
def test_rounding_of_sums_stays_within_its_bound_in_any_order(query):
    rng = np.random.default_rng(3)
    rows = rows_in_ball(rng, 300, 1.0)
    rows[::2] *= 10.0 ** rng.uniform(-12, 0, size=(150, 1))
    codes = rng.integers(N_CLASSES, size=300)
    exact = exact_plain(query, rows, codes)
    # The bound is for MAX_SAMPLES rows and proportional to them.
    bound = query.rounding_bound(1.0, N_COLUMNS) * len(rows) / MAX_SAMPLES
    for _ in range(5):
        order = rng.permutation(len(rows))
        blocks = np.array_split(order, 3)
        computed = sum(total(query, rows[block], codes[block]) for block in blocks)
        assert distance(computed, exact) <= bound


NONLINEAR = [
    *(gradient(loss, clip, scale=s) for loss in ("softmax", "sigmoid") for clip in (0.5, math.inf)
      for s in (1.0, 1e4)),
    gradient("squared", 0.7),
    hessian(1.0),
    hessian(1e4),
]  # fmt: skip


@pytest.mark.parametrize("query", NONLINEAR, ids=label_of)
def test_rounding_of_residuals_stays_within_its_bound_in_any_order(query):
    rng = np.random.default_rng(4)
    rows, codes = rows_in_ball(rng, 40, 1.0), rng.integers(N_CLASSES, size=40)
    with mpmath.workdps(60):
        exact = exact_nonlinear(query, rows, codes)
        bound = query.rounding_bound(1.0, N_COLUMNS) * len(rows) / MAX_SAMPLES
        for _ in range(3):
            order = rng.permutation(len(rows))
            assert distance(total(query, rows[order], codes[order]), exact) <= bound
        for row in range(10):
            alone = slice(row, row + 1)
            error = distance(
                total(query, rows[alone], codes[alone]),
                exact_nonlinear(query, rows[alone], codes[alone]),
            )
            product = 4 * 2.0**-53 * query.row_norm(1.0)
            assert error <= query.row_error(1.0, N_COLUMNS) + product


# A tiny clip pays for the rounding of whole residuals; that is not small.
USUAL = [q for q in queries() if getattr(q, "residual_clip_norm", 1.0) > 0.1]


@pytest.mark.parametrize("query", USUAL, ids=label_of)
def test_rounding_is_small_beside_the_sensitivity_at_weights_that_occur(query):
    bound = query.rounding_bound(1.0, N_COLUMNS)
    assert 0 < bound < 1e-2 * query.l2_sensitivity(1.0, "add_or_remove_one")


def test_rounding_of_diverged_weights_is_infinite_or_large():
    assert gradient(coef=np.full((4, 5), 1e200)).rounding_bound(1.0, 5) == math.inf
    assert hessian(1e9).rounding_bound(1.0, 5) > 1.0
