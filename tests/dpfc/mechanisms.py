"""A mechanism over small private rows, every query, noise that is none, and what runs draw."""

from __future__ import annotations

import math

import numpy as np
import torch

from dpfc.accounting import PlannedRelease, PrivacyPlan
from dpfc.mechanism.column_histograms import ColumnHistograms
from dpfc.mechanism.gaussian import GaussianMechanism
from dpfc.mechanism.losses import SoftmaxLoss
from dpfc.mechanism.noise import SystemNoise
from dpfc.mechanism.noisy_sum import Release
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
from dpfc.mechanism.row_map import RowMap
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
    "column_histograms": ColumnHistograms(N_FEATURES),
    "class_sums": ClassSums(),
    "gram": Gram(),
    "class_grams": ClassGrams(),
    "gradient": GradientSum(weights(), SoftmaxLoss(), 0.5),
    "hessian": HessianSum(weights()),
}


class ConstantNoise:
    """Noise and coins that are no noise: the same number of deviations in every entry."""

    description, reproducible = "constant", True

    def __init__(self, value=0.0, coins=True):
        self.value, self.coins, self.sizes = value, coins, []

    def rounded_gaussian(self, sigma, size):
        self.sizes.append(size)
        return np.full(size, round(self.value * sigma))

    def bernoulli(self, probability, size):
        return np.full(size, self.coins)


class BrokenNoise(ConstantNoise):
    def rounded_gaussian(self, sigma, size):
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
    """What a release without its noise is."""
    mechanism = mechanism_of(counts={name: 1}, noise=ConstantNoise(), **options)
    return mechanism.release(name, QUERIES[name]).value


def grid_of(query, row_map=RowMap(), n_features=N_FEATURES):
    return query.grid(row_map, n_features)


def unit_of(query, **options):
    return query.unit(grid_of(query, **options))


def sensitivity_of(query, relation="add_or_remove_one", **options):
    grid = grid_of(query, **options)
    return query.l2_sensitivity(grid, relation) * query.unit(grid)


def whole(values, unit):
    """Values as the whole numbers of units that they are, or a failure."""
    numbers = (values / unit).round()
    assert torch.equal(numbers * unit, values)
    return numbers.to(torch.int64)


def as_drawn(mechanism, name, query):
    """A release before it is turned back, in whole units."""
    drawn, release = [], mechanism.run.release
    mechanism.run.release = lambda *args: drawn.append(release(*args)) or drawn[0]
    mechanism.release(name, query)
    return whole(drawn[0].value, unit_of(query, n_features=mechanism.n_features))


class Transcript:
    """Records the exact sum and the noise of every draw; can repeat another run's releases."""

    def __init__(self, monkeypatch):
        self.draws: list[tuple[str, torch.Tensor, float]] = []
        self.releases: list[Release] = []
        self.repeat: list[Release] = []
        original = PrivateRun.release

        def release(run, name, of, total):
            def kept():
                value = total()
                self.draws.append((name, value * of.unit, run.noise_scale(name, of)))
                return value

            drawn = original(run, name, of, kept)
            if self.repeat:
                drawn = self.repeat[len(self.draws) - 1]
            self.releases.append(drawn)
            return drawn

        monkeypatch.setattr(PrivateRun, "release", release)

    def record(self, run, repeat=()):
        """What a call draws, as (name, exact sum, noise), and what was released of it."""
        self.draws, self.releases, self.repeat = [], [], list(repeat)
        run()
        return self.draws, self.releases


def squared_moves(draws, others):
    """By release, ||S - S'||² / σ² of two runs' exact sums, added up."""
    moved: dict[str, float] = {}
    for (name, before, scale), (again, after, same) in zip(draws, others, strict=True):
        assert name == again
        assert scale == same
        step = float(torch.linalg.vector_norm(after - before)) / scale
        moved[name] = moved.get(name, 0.0) + step**2
    return moved


def weights_of(n_columns, scale, seed=0, n_outputs=4):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(scale=scale, size=(n_outputs, n_columns)))


def length(values):
    return math.sqrt(sum(int(v) ** 2 for v in values.ravel()))


def random_rows(rng, n, n_features=41):
    """Rows of any size and shape: dense, sparse, one-hot, counts, positive, tiny, huge, zero."""
    rows = rng.normal(size=(n, n_features))
    kinds = rng.integers(7, size=n)
    rows[kinds == 1] *= rng.random((int((kinds == 1).sum()), n_features)) < 0.1
    rows[kinds == 2] = np.eye(n_features)[rng.integers(n_features, size=int((kinds == 2).sum()))]
    rows[kinds == 3] = rng.poisson(0.3, size=(int((kinds == 3).sum()), n_features))
    rows[kinds == 4] = abs(rows[kinds == 4])
    rows[kinds == 5] *= 10.0 ** rng.integers(-200, 200, size=(int((kinds == 5).sum()), 1))
    rows[kinds == 6] = 0.0
    return rows
