"""Columns on a private scale: bins, what noisy histograms say, and what a fit makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpfc import BudgetWarning, DPFCClassifier, load_model
from dpfc.linear.scaling import column_scales, scale_share
from dpfc.mechanism.column_histograms import N_BINS, ColumnHistograms, bin_edges
from dpfc.mechanism.integer_rows import RowGrid
from dpfc.mechanism.row_map import RowMap

REACH = 4.0  # spreads, where entries are cut


def histograms(rows):
    query = ColumnHistograms(rows.shape[1])
    grid = RowGrid.of(RowMap(), rows.shape[1])
    codes = np.zeros(len(rows), dtype=np.int64)
    found = np.asarray(query.summand(grid, 2)(rows, codes))
    return found.reshape(query.shape(0, 2))


def place_of(value):
    """A value's bin, by its definition."""
    lower, _ = bin_edges()
    if value == 0:
        return 0
    place = 1 + int(np.searchsorted(lower, abs(value), side="right")) - 1
    return place + (N_BINS // 2 if value < 0 else 0)


# -- bins ----------------------------------------------------------------------------


def test_every_value_is_counted_in_its_bin():
    lower, _ = bin_edges()
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 5e-324, 1e-310, 1e308, *lower[1:], *np.nextafter(lower[1:], 0.0)]
    values += list(np.exp(rng.uniform(-20.0, 25.0, size=200)))
    signed = np.array([*values, *(-np.array(values))])
    found = histograms(signed[np.newaxis, :])
    assert found.sum(axis=1).tolist() == [1] * len(signed)
    assert found.argmax(axis=1).tolist() == [place_of(v) for v in signed]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
def test_narrow_types_and_tensors_have_the_same_bins(dtype):
    rows = (100 * np.random.default_rng(1).normal(size=(50, 7))).astype(dtype)
    expected = histograms(rows.astype(np.float64))
    assert np.array_equal(histograms(rows), expected)
    assert np.array_equal(histograms(torch.from_numpy(rows)), expected)


# -- what histograms say -------------------------------------------------------------

COLUMNS = {
    "about zero": (lambda rng, n: 30.0 * rng.normal(size=n), 0.0, 30.0),
    "far from zero": (lambda rng, n: 13.0 + 0.8 * rng.normal(size=n), 13.0, 0.8),
    "negative": (lambda rng, n: -900.0 + 300.0 * rng.normal(size=n), -900.0, 300.0),
    "skewed": (lambda rng, n: rng.gamma(1.0, 500.0, size=n), 500.0, 500.0),
    "small": (lambda rng, n: 0.005 + 0.002 * rng.normal(size=n), 0.005, 0.002),
    "mostly zero": (lambda rng, n: 2000.0 * rng.random(n) * (rng.random(n) < 0.3), 300.0, 700.0),
    "yes or no": (lambda rng, n: 1.0 * (rng.random(n) < 0.5), 0.5, 0.5),
}


@pytest.mark.parametrize("noise", [0.0, 30.0])
@pytest.mark.parametrize("make, center, spread", COLUMNS.values(), ids=COLUMNS)
def test_centre_and_spread_are_found_through_noise(make, center, spread, noise):
    """To within a spread and a half, and a factor of 2.5: about 20 deviations of this noise."""
    rng = np.random.default_rng(2)
    counts = histograms(make(rng, 2000)[:, np.newaxis])
    found, factor = column_scales(counts + noise * rng.normal(size=counts.shape), 2000, noise)[:, 0]
    assert abs(found - center) < 1.5 * spread
    assert spread / 2.5 < 1.0 / factor < 2.5 * spread


def test_noise_alone_moves_scales_by_a_few_powers_of_two_at_most():
    noise = np.random.default_rng(3).normal(size=(50, N_BINS))
    scale = column_scales(1e4 * noise, 10.0, 1e4)
    assert abs(np.log2(scale[1])).max() < 3.0


def test_the_share_grows_with_the_noise_and_is_nothing_where_it_drowns_all():
    shares = [scale_share(signal, 20) for signal in (10.0, 50.0, 100.0, 1e3, 1e6)]
    assert shares[0] == 0.0
    assert shares[1] == 0.25
    assert shares[1] > shares[2] > shares[3] == shares[4] == 0.01


# -- the map of rows -----------------------------------------------------------------

SCALE = np.array([[0.0, 13.0, -5e3, 0.1, 7.0], [1.0, 1.25, 1e-3, 50.0, 1e300]])


def test_rows_are_centred_scaled_and_cut():
    X = np.array([[0.5, 13.8, -5e3, 0.12, 7.0], [9.0, -1e308, 1e308, 0.1, 8.0]])
    expected = np.clip((X - SCALE[0]) * SCALE[1], -REACH, REACH)
    mapped = RowMap(math.inf, False, scale=SCALE)(X)
    np.testing.assert_array_equal(mapped, expected)
    unit = RowMap(scale=SCALE)(X)
    np.testing.assert_allclose(unit, expected / np.linalg.norm(expected, axis=1)[:, None], 1e-11)


def test_no_roots_are_taken_of_centred_rows():
    X = np.random.default_rng(4).random((9, 5)) + np.array([0.0, 13.0, 0.0, 1.0, 8.0])
    plain, rooted = (RowMap(nonnegative_root=root, scale=SCALE)(X) for root in (False, True))
    np.testing.assert_array_equal(plain, rooted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_scaled_row_has_the_same_bits_anywhere(dtype):
    X = (10.0 * np.random.default_rng(5).normal(size=(300, 5))).astype(dtype)
    row_map = RowMap(intercept_scaling=0.1, length_scaling=0.2, scale=SCALE)
    whole = row_map(X)
    assert np.array_equal(row_map(torch.from_numpy(X)).numpy(), whole)
    assert np.array_equal(np.concatenate([row_map(X[i : i + 1]) for i in range(300)]), whole)
    assert (np.linalg.norm(whole, axis=1) <= row_map.l2_bound).all()
    grid = RowGrid.of(row_map, 5)
    (digits,) = grid.rows(X)
    alone = [grid.rows(X[i : i + 1])[0] for i in range(300)]
    assert np.array_equal(np.concatenate(alone, axis=1), digits)


# -- a fit ---------------------------------------------------------------------------

OFFSETS, SPREADS = np.array([1e3, 0.0, -3.0, 50.0]), np.array([200.0, 0.01, 1.0, 5000.0])


def table(n, seed=0):
    """The column that tells the classes apart is a ten-thousandth as long as another."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    rows = rng.normal(size=(n, 4))
    rows[:, 1] += 3.0 * y - 1.5
    return OFFSETS + SPREADS * rows, y


@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
def test_columns_on_any_scale_tell_classes_apart(tmp_path):
    X, y = table(3000)
    test_rows, test_labels = table(2000, seed=1)
    options = {"epsilon": 2.0, "classes": [0, 1], "random_state": 0}
    plain = DPFCClassifier(**options).fit(X, y)
    scaled = DPFCClassifier(scale="private", **options).fit(X, y)
    assert plain.score(test_rows, test_labels) < 0.7
    assert scaled.score(test_rows, test_labels) > 0.9  # 0.933 without noise
    (record,) = [r for r in scaled.privacy_.releases if r.name == "column_histograms"]
    assert record.l2_sensitivity == pytest.approx(2.0)
    assert record.shape == [4, N_BINS]
    scaled.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert np.array_equal(loaded.predict_proba(test_rows), scaled.predict_proba(test_rows))
    assert np.array_equal(loaded.scale_, scaled.scale_)


@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
def test_the_plan_holds_the_histograms_and_the_fit_pays_no_more(estimator_class):
    model = estimator_class(2.0, scale="private", classes=[0, 1], random_state=0)
    plan = model.privacy_plan()
    assert plan["column_histograms"].count == 1
    model.fit(*table(500))
    shares = [r.share_of_budget for r in model.privacy_.releases]
    assert math.fsum(shares) == pytest.approx(1.0)
    assert {r.name for r in model.privacy_.releases} >= {"count", "column_histograms"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_few_rows_are_not_scaled_and_pay_nothing_for_it():
    model = DPFCClassifier(0.1, scale="private", classes=[0, 1], random_state=0)
    with pytest.warns(BudgetWarning, match="was left out"):
        model.fit(*table(40))
    assert model.scale_ is None
    assert "column_histograms" not in {r.name for r in model.privacy_.releases}


def test_without_noise_columns_are_scaled_too():
    X, y = table(3000)
    model = DPFCClassifier(math.inf, scale="private", classes=[0, 1]).fit(X, y)
    assert (abs(model.scale_[0] - OFFSETS) < 1.5 * SPREADS).all()
    assert model.score(*table(2000, seed=1)) > 0.91


def test_public_features_are_on_no_private_scale():
    X, y = table(50)
    model = DPFCClassifier(scale="private", public_features=X, classes=[0, 1])
    with pytest.raises(ValueError, match="do not go together"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="scale must be one of 'private' or None"):
        DPFCClassifier(scale="public", classes=[0, 1]).fit(X, y)


@pytest.mark.filterwarnings("ignore::dpfc.PrivacyWarning")
def test_a_file_whose_scale_turns_columns_round_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    model = DPFCClassifier(4.0, scale="private", classes=[0, 1], random_state=0)
    model.fit(*table(1000)).save(path)
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in [*file.keys()]}
    tensors["scale"] = -tensors["scale"]
    save_file(tensors, path, metadata=header)
    with pytest.raises(ValueError, match="not scaled by positive"):
        load_model(path)
