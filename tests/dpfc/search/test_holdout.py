"""The hold-out of a search: a coin a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dpfc import (
    DPFCClassifier,
    DPGradientClassifier,
    DPLeastSquaresClassifier,
    DPNewtonClassifier,
    DPSearchCV,
)
from dpfc.mechanism.noise import SeededNoise, SystemNoise
from dpfc.mechanism.rows import SelectedRows
from dpfc.search.holdout import Holdout


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400], y[:400]


# -- the hold-out ------------------------------------------------------------------------


def test_a_further_row_moves_no_other_row():
    for seed in range(20):
        shorter = SeededNoise(seed).bernoulli(0.2, 500)
        longer = SeededNoise(seed).bernoulli(0.2, 501)
        assert (longer[:500] == shorter).all()


class Rows:
    """Numbered rows, in blocks of the asked size: arrays, or tensors as on a GPU."""

    n_features = 1
    device = torch.device("cpu")
    shares = None

    def __init__(self, n_samples, kind=np.asarray):
        self.n_samples = n_samples
        self.codes = np.arange(n_samples) % 3
        self._kind = kind

    def blocks(self, block_rows):
        for start in range(0, self.n_samples, block_rows):
            rows = np.arange(start, min(start + block_rows, self.n_samples))
            yield self._kind(rows[:, None].astype(np.float64)), self.codes[rows]


KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])


@KINDS
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_every_row_is_in_exactly_one_part_with_its_label(block_rows, kind):
    holdout = Holdout(Rows(100, kind), 0.3, SystemNoise())
    found = []
    for part in (holdout.training, holdout.validation):
        blocks = list(part.blocks(block_rows))
        assert {type(rows) for rows, _ in blocks} == {type(kind(np.zeros(1)))}
        rows = np.concatenate([rows for rows, _ in blocks])[:, 0].astype(np.int64)
        assert (np.concatenate([codes for _, codes in blocks]) == rows % 3).all()
        assert (part.codes == rows % 3).all() and part.n_samples == len(rows)
        assert rows.tolist() == sorted(rows.tolist())
        found += rows.tolist()
    assert sorted(found) == list(range(100))


def test_coins_have_the_stated_probability():
    share = Holdout(Rows(5000), 0.2, SystemNoise()).validation.n_samples / 5000
    assert abs(share - 0.2) < 6 * math.sqrt(0.16 / 5000)


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("strategy", ["composition", "random_stopping"])
def test_an_empty_part_is_nobodys_business(three_classes, relation, fraction, strategy):
    X, y = three_classes
    for estimator, grid in [
        (DPLeastSquaresClassifier, {"damping": [0.1, 0.2]}),
        (DPFCClassifier, {"n_steps": [2, 3]}),
        (DPNewtonClassifier, {"n_steps": [1, 2]}),
        (DPGradientClassifier, {"n_steps": [2, 3]}),
    ]:
        own = {"classes": range(3), "neighboring_relation": relation}
        search = DPSearchCV(estimator(**own), grid, strategy=strategy, validation_fraction=fraction)
        search.fit(X[:4], y[:4])
        assert search.predict(X).shape == y.shape and 0 <= search.best_score_ <= 1


@KINDS
def test_selected_rows_of_nothing(kind):
    part = SelectedRows(Rows(5, kind), np.zeros(5, dtype=np.bool_))
    assert part.n_samples == 0 and sum(len(block) for block, _ in part.blocks(2)) == 0
