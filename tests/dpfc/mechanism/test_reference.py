"""Sums in floating point: what closed forms give, never noisy, and what integers stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mechanisms import N_CLASSES, BrokenNoise, mechanism_of

from dpfc import DPLeastSquaresClassifier, DPNewtonClassifier
from dpfc.mechanism.bounded_sums import BoundedRows
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.losses import SigmoidLoss, SoftmaxLoss
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
from dpfc.mechanism.reference import ReferenceRows
from dpfc.mechanism.row_map import RowMap
from dpfc.mechanism.rows import ArrayRows

N = 200
NAMES = [
    "count",
    "class_counts",
    "feature_sum",
    "class_sums",
    "gram",
    "class_grams",
    "softmax",
    "sigmoid",
    "hessian",
]
CLIP = 0.5


def query_of(name, n_columns):
    rng = np.random.default_rng(5)
    coef = torch.from_numpy(rng.normal(scale=0.4, size=(N_CLASSES, n_columns)))
    return {
        "count": Count(),
        "class_counts": ClassCounts(),
        "feature_sum": FeatureSum(),
        "class_sums": ClassSums(),
        "gram": Gram(),
        "class_grams": ClassGrams(),
        "softmax": GradientSum(coef, SoftmaxLoss(), CLIP),
        "sigmoid": GradientSum(coef, SigmoidLoss(), CLIP),
        "hessian": HessianSum(coef),
    }[name]


def source_of(n_features, n=N):
    """Rows that lean one way, so that sums of them are long; some longer than 1, some not."""
    rng = np.random.default_rng(6)
    X = np.abs(rng.normal(size=(n, n_features))) * rng.choice([0.05, 1.0], size=(n, 1))
    return ArrayRows(X, rng.integers(N_CLASSES, size=n))


def clipped(residuals):
    norms = residuals.norm(dim=1, keepdim=True)
    return residuals * (CLIP / norms).clamp(max=1.0)


def closed_form(name, query, rows, codes):
    """The sum over rows in float64, each part as its formula has it."""
    one_hot = torch.eye(N_CLASSES, dtype=torch.float64)[codes]
    match name:
        case "count":
            return torch.tensor([float(len(rows))], dtype=torch.float64)
        case "class_counts":
            return one_hot.sum(dim=0)
        case "feature_sum":
            return rows.sum(dim=0)
        case "class_sums":
            return torch.einsum("nk,nd->kd", one_hot, rows)
        case "gram":
            return torch.einsum("nd,ne->de", rows, rows)
        case "class_grams":
            return torch.einsum("nk,nd,ne->kde", one_hot, rows, rows)
        case "hessian":
            loss = torch.nn.functional.softplus
            second = [
                torch.func.vmap(torch.func.hessian(lambda w, x: loss(w @ x)), (None, 0))(w, rows)
                for w in query.coef
            ]
            return torch.stack([part.sum(dim=0) for part in second])

    def loss_of(logits, y):  # per row: its gradient in the logits is the residual
        if name == "softmax":
            return torch.logsumexp(logits, 0) - logits @ y
        return torch.nn.functional.softplus(logits).sum() - logits @ y

    residuals = torch.func.vmap(torch.func.grad(loss_of))(rows @ query.coef.T, one_hot)
    return torch.einsum("nk,nd->kd", clipped(residuals), rows)


# -- closed forms --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_is_what_its_formula_says(name):
    source, row_map = source_of(12), RowMap(1.3, intercept_scaling=0.1)
    query = query_of(name, 13)
    rows = row_map(torch.from_numpy(source._X))
    selected = np.arange(N) % 3 > 0
    reference = ReferenceRows(source, row_map, N_CLASSES)
    for keep, chosen in ((slice(None), None), (selected, selected)):
        found = reference.sum(query, chosen)
        expected = closed_form(name, query, rows[keep], source.codes[keep])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_blocks_add_up():
    source = source_of(3, n=9000)  # of 4096 rows at most
    reference = ReferenceRows(source, RowMap(), N_CLASSES)
    expected = closed_form("gram", Gram(), RowMap()(torch.from_numpy(source._X)), source.codes)
    torch.testing.assert_close(reference.sum(Gram()), expected, rtol=1e-12, atol=0)


def test_two_classes_have_one_output_of_the_second():
    rng = np.random.default_rng(7)
    X, codes = rng.normal(size=(50, 4)), rng.integers(2, size=50)
    query = GradientSum(torch.from_numpy(rng.normal(size=(1, 4))), SigmoidLoss(), math.inf)
    found = ReferenceRows(ArrayRows(X, codes), RowMap(math.inf, normalize=False), 2).sum(query)
    p = 1.0 / (1.0 + np.exp(-(X @ query.coef[0].numpy())))
    np.testing.assert_allclose(found[0], (p - codes) @ X, rtol=1e-12, atol=1e-13)


def test_without_noise_least_squares_are_the_normal_equations(three_classes):
    X, y = three_classes
    model = DPLeastSquaresClassifier(
        math.inf, classes=range(3), center=False, fit_intercept=False, normalize=False,
        l2_clip_norm=math.inf, damping=0.0, l2_regularization=0.5,
    ).fit(X, y)  # fmt: skip
    one_hot = np.eye(3)[y]
    expected = np.linalg.solve(X.T @ X + 0.5 * np.eye(6), X.T @ one_hot).T
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-9, atol=1e-12)


def test_without_noise_newtons_steps_end_where_the_gradient_vanishes(three_classes):
    X, y = three_classes
    model = DPNewtonClassifier(
        math.inf, classes=range(3), center=False, fit_intercept=False, nonnegative_root=False,
        n_steps=30, l2_regularization=1.0, residual_clip_norm=math.inf,
    ).fit(X, y)  # fmt: skip
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    residuals = 1.0 / (1.0 + np.exp(-rows @ model.coef_.T)) - np.eye(3)[y]
    gradient = residuals.T @ rows + 1.0 * model.coef_
    assert np.abs(gradient).max() < 1e-6


# -- never private -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["count", "gram", "gradient"])
def test_no_noise_is_added_to_it(name, monkeypatch):
    """A plan that asks for noise takes integers alone, and fails before noise is drawn."""
    source = source_of(30)
    query = query_of("softmax" if name == "gradient" else name, 30)
    monkeypatch.setattr(
        GaussianMechanism,
        "_bounded_rows",
        lambda self: ReferenceRows(source, self.row_map, N_CLASSES),
    )
    released = []
    mechanism = mechanism_of(2.0, rows=source, noise=BrokenNoise(), on_release=released.append)
    with pytest.raises(RuntimeError, match="not of the shape and type"):
        mechanism.release(name, query)
    assert released == []


def test_a_plan_without_noise_takes_it_and_asks_for_none():
    mechanism = mechanism_of(0.0, rows=source_of(30), noise=BrokenNoise())
    release = mechanism.release("gram", Gram())
    assert isinstance(mechanism._rows, ReferenceRows)
    assert release.noise_standard_deviation == 0.0
    noisy = mechanism_of(2.0, rows=source_of(30))
    noisy.release("gram", Gram())
    assert isinstance(noisy._rows, BoundedRows)


# -- what integers stand for ---------------------------------------------------------


def row_maps(n_features):
    rng = np.random.default_rng(8)
    center = torch.from_numpy(rng.normal(size=n_features)) * 0.3 / math.sqrt(n_features)
    return {
        "one digit": RowMap(),
        "one digit, all steps": RowMap(
            1.7, center=center, intercept_scaling=0.1, length_scaling=0.3, nonnegative_root=True
        ),
        "two digits": RowMap(0.6, normalize=False, intercept_scaling=0.2),
    }


def error_bound(name, query, grid):
    """How far one row's part may be from the integers' times their unit, in norm.

    A row on the grid is off by at most one step an entry (half of one where it is rounded to the
    nearest, and one where it is cut), and by what float32 loses.
    """
    bound = grid.row_map.l2_bound
    error = grid.unit * math.sqrt(grid.n_columns) + 2.0**-18 * bound
    longest = bound + error
    square = error * (2.0 * bound + error)  # ||x xᵀ - y yᵀ|| <= ||x - y|| (||x|| + ||y||)
    if name in ("feature_sum", "class_sums"):
        return error
    if name in ("gram", "class_grams"):
        return square
    # Weights are rounded to 14 bits of an output's largest; logits once to float32.
    weights = query.coef.abs().amax(dim=1) / (127 * 128) / 2.0 * math.sqrt(grid.n_columns)
    logits = (
        float(torch.linalg.matrix_norm(query.coef, 2)) * error + float(weights.norm()) * longest
    )
    logits += 2.0**-20 * float(query.coef.norm()) * longest
    if name == "hessian":
        # |d/df p (1 - p)| <= 1/(6√3), and h is rounded to a whole number of 1/4 over H.
        largest = 127 * 128 ** (2 - grid.n_digits)
        weight = logits / (6.0 * math.sqrt(3.0)) + 0.25 / largest + 2.0**-16
        return math.sqrt(N_CLASSES) * (weight * longest**2 + 0.25 * square)
    # Both residuals are functions of logits with a constant of Lipschitz of at most 1/2 (that of
    # p (1 - p) <= 1/4 for sigmoids), and clipping has 1; 2⁻¹⁶ is for the exponential.
    steps = math.sqrt(N_CLASSES) * (query.residual_bound / (127 * 128) + 2.0**-16)
    return (logits / 2.0 + steps) * longest + query.residual_bound * error


@pytest.mark.parametrize("n_features", [30, 50], ids=["plain", "turned"])
@pytest.mark.parametrize("row_map", ["one digit", "one digit, all steps", "two digits"])
@pytest.mark.parametrize("name", NAMES)
def test_integers_agree_with_floating_point_within_their_steps(name, row_map, n_features):
    source, row_map = source_of(n_features), row_maps(n_features)[row_map]
    query = query_of(name, row_map.n_columns(n_features))
    grid = query.grid(row_map, n_features)
    assert RowGrid.of(row_map, n_features).n_digits == (1 if row_map.normalize else 2)

    def both(rows, codes):
        rows = ArrayRows(rows, codes)
        whole = BoundedRows(rows, row_map, N_CLASSES).sum(query)
        assert whole.dtype == torch.int64
        found = whole.double() * query.unit(grid)
        if query.reads == "digits":
            found = grid.rotation.turn_back(found, both_sides=query.symmetric)
        return found, ReferenceRows(rows, row_map, N_CLASSES).sum(query)

    found, exact = both(source._X, source.codes)
    if name in ("count", "class_counts"):
        assert torch.equal(found, exact)
        return
    bound = error_bound(name, query, grid)
    assert float((found - exact).norm()) <= N * bound
    assert float((found - exact).norm()) < 0.02 * float(exact.norm())  # rounding averages out
    for row in range(20):
        alone = slice(row, row + 1)
        found, exact = both(source._X[alone], source.codes[alone])
        assert 0.0 < float((found - exact).norm()) <= bound
