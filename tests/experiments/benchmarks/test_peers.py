"""Peers of the benchmark: exact without noise, as noisy as they claim, and searched well."""

import math

import numpy as np
import pytest
import torch
from noise_checks import assert_noise

from dpfc.accounting import calibrate_noise_multiplier, gaussian_mu
from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.benchmarks.peers import (
    PEERS,
    Noise,
    Peer,
    Rows,
    exact_mu,
    search,
    setting_key,
)
from dpfc.experiments.benchmarks.peers_opacus import OPACUS_PEERS
from dpfc.experiments.benchmarks.peers_paper import NEWTON_LIMIT, PAPER_PEERS, paper_mu
from dpfc.experiments.studies.data import Data

ALL = {peer.name: peer for peer in (*PEERS, *PAPER_PEERS, *OPACUS_PEERS)}
SIMULATED = [peer.name for peer in (*PEERS, *PAPER_PEERS)]
N, D, K = 120, 40, 4


def make_data(n=N, d=D, n_classes=K):
    generator = np.random.default_rng(3)
    y = (np.arange(n) % n_classes).astype(np.int32)
    X = generator.normal(size=(n, d)).astype(np.float32)
    X[np.arange(n), y] += 3
    X[:: n // 20] *= 5  # rows of very different lengths
    return Data(X, y, X, y, n_classes)


@pytest.fixture
def rows():
    return Rows(make_data())


@pytest.fixture
def unit(rows):
    X = rows.unit.double().numpy()
    assert np.linalg.norm(X, axis=1) == pytest.approx(np.ones(N), abs=1e-6)
    return X


Y = np.eye(K)[np.arange(N) % K]


def fit(name, rows, epsilon=math.inf, noise=None, /, **changes):
    peer = ALL[name]
    setting = {**peer.starts[0], **changes}
    assert set(setting) == set(peer.axes)
    return peer.fit(rows, setting, epsilon, noise or Noise(0))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def clipped(residual, bound):
    norms = np.linalg.norm(residual, axis=1, keepdims=True)
    return residual * np.minimum(1, bound / np.maximum(norms, 1e-12))


# --- without noise ---------------------------------------------------------------------------


def test_least_squares_without_noise_solves_the_weighted_ridge_regression(rows, unit):
    head = fit("paper-ls", rows, **{"alpha": 0.3, "lambda": 3.0})
    for k in range(K):
        own = unit[Y[:, k] == 1]
        matrix = own.T @ own + 0.3 * unit.T @ unit + 3.0 * np.eye(D)
        expected = np.linalg.solve(matrix, own.sum(axis=0))
        assert head.weights[k].numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "sigmoid -10"])
def test_feature_covariance_without_noise_takes_preconditioned_steps(rows, unit, loss):
    changes = {"loss": loss, "eta": 2.0, "lambda": 1.0, "steps": 2, "clip": 0.5}
    head = fit("paper-fc", rows, **changes)
    inverse, weights = np.linalg.inv(unit.T @ unit + np.eye(D)), np.zeros((K, D))
    for _ in range(2):
        logits = unit @ weights.T
        if loss == "softmax":
            residual = softmax(logits) - Y
        else:
            residual = 1 / (1 + np.exp(-(logits - (10 if "10" in loss else 0)))) - Y
        weights -= 2.0 * clipped(residual, 0.5).T @ unit @ inverse
    assert head.weights.numpy() == pytest.approx(weights, abs=1e-4)


def test_newton_without_noise_takes_newton_steps(rows, unit):
    head = fit("paper-newton", rows, **{"steps": 2, "lambda": 1.0, "eta": 0.6, "clip": 10.0})
    weights = np.zeros((K, D))
    for _ in range(2):
        p = 1 / (1 + np.exp(-unit @ weights.T))
        steps = [
            np.linalg.solve(
                (unit.T * (p[:, k] * (1 - p[:, k]))) @ unit + np.eye(D), unit.T @ (p - Y)[:, k]
            )
            for k in range(K)
        ]
        weights -= 0.6 * np.stack(steps)
    assert head.weights.numpy() == pytest.approx(weights, abs=1e-3)


def test_prototypes_without_noise_are_the_exact_class_means(rows, unit):
    means = np.stack([unit[Y[:, k] == 1].mean(axis=0) for k in range(K)])
    head = fit("prototypes", rows, score="euclidean", centred=False)
    assert head.weights.numpy() == pytest.approx(means, abs=1e-5)
    distances = ((unit[:, None] - means) ** 2).sum(axis=2)
    scores = rows.unit @ head.weights.T + head.intercept
    assert np.array_equal(scores.argmax(dim=1).numpy(), distances.argmin(axis=1))

    head = fit("prototypes", rows, score="cosine", centred=True)
    directions = means - unit.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert head.weights.numpy() == pytest.approx(directions, abs=1e-5)
    assert head.intercept.numpy() == pytest.approx(-directions @ unit.mean(axis=0), abs=1e-5)


@pytest.mark.parametrize("scale", ["unit", "level"])
@pytest.mark.parametrize("bias", [False, True])
def test_raft_without_noise_is_gradient_descent_with_momentum(rows, unit, scale, bias):
    changes = {"rows": scale, "bias": bias, "steps": 5, "total_rate": 10.0, "clip": 0.5}
    head = fit("dp-raft", rows, **changes)
    raw = make_data().X.astype(float)
    X = unit if scale == "unit" else raw / np.linalg.norm(raw, axis=1).mean()
    X = np.hstack([X, np.full((N, 1), float(bias))])
    weights, velocity = np.zeros((K, D + 1)), np.zeros((K, D + 1))
    for _ in range(5):
        residual = softmax(X @ weights.T) - Y
        gradients = residual[:, :, None] * X[:, None, :]
        norms = np.linalg.norm(gradients.reshape(N, -1), axis=1)
        total = (gradients * np.minimum(1, 0.5 / norms)[:, None, None]).sum(axis=0)
        velocity = 0.9 * velocity + total / (0.5 * N)
        weights -= 10.0 / 5 * velocity
    assert head.weights.numpy() == pytest.approx(weights[:, :-1], abs=1e-4)
    assert head.intercept.numpy() == pytest.approx(weights[:, -1], abs=1e-4)


@pytest.mark.parametrize("name", SIMULATED)
def test_accuracy_is_that_of_the_head_on_the_test_rows(rows, name):
    peer = ALL[name]
    accuracy = peer.run(rows, peer.starts[0], math.inf, 0)
    assert accuracy > 0.8
    head = peer.fit(rows, peer.starts[0], math.inf, Noise(0))
    scores = (rows.unit if head.rows == "unit" else rows.level) @ head.weights.T + head.intercept
    assert accuracy == pytest.approx((scores.argmax(dim=1).numpy() == np.arange(N) % K).mean())


# --- noise -----------------------------------------------------------------------------------


class Recorder(Noise):
    """Keeps what each release added, and the standard deviation that was asked for."""

    def __init__(self, seed):
        super().__init__(seed)
        self.releases = []

    def add(self, name, exact, standard_deviation, *, symmetric=False):
        noisy = super().add(name, exact, standard_deviation, symmetric=symmetric)
        self.releases.append((name, standard_deviation, symmetric, (noisy - exact).double()))
        return noisy


# From design.md's table at C = 1; the bound of the clipped residual or gradient is 0.5.
SENSITIVITIES = {
    "dp-raft": {"gradient": 1.0},
    "dp-raft-half": {"gradient": 0.5},
    "prototypes": {"sums": 1, "counts": 1},
    "paper-ls": {"sums": 1, "gram": 1, "class grams": 1},
    "paper-fc": {"gram": 1, "gradient": 0.5},
    "paper-newton": {"hessians": math.sqrt(K) / 4, "gradient": 0.5},
}
CHANGES = {
    "dp-raft": {"steps": 20},
    "dp-raft-half": {"steps": 20},
    "prototypes": {"score": "euclidean"},
    "paper-ls": {},
    "paper-fc": {"clip": 0.5, "steps": 10},
    "paper-newton": {"clip": 0.5, "steps": 10},
}
EPSILON = 0.7


@pytest.mark.parametrize("name", SIMULATED)
def test_releases_of_a_peer_compose_to_its_budget(name):
    recorder = Recorder(0)
    fit(name, Rows(make_data()), EPSILON, recorder, **CHANGES[name])
    assert {release[0] for release in recorder.releases} == set(SENSITIVITIES[name])
    total = sum((SENSITIVITIES[name][r[0]] / r[1]) ** 2 for r in recorder.releases)
    mu = paper_mu(EPSILON) if name.startswith("paper") else gaussian_mu(EPSILON, DELTA)
    assert total == pytest.approx(mu**2, rel=1e-6)


@pytest.mark.parametrize("name", SIMULATED)
def test_each_release_is_as_noisy_as_it_claims(name):
    draws = {}
    rows = Rows(make_data())
    for seed in range(12):
        recorder = Recorder(seed)
        fit(name, rows, EPSILON, recorder, **CHANGES[name])
        for release, deviation, symmetric, noise in recorder.releases:
            if symmetric:  # off the diagonal, (N + Nᵀ)/2 has a deviation of σ/√2
                above = torch.triu_indices(D, D, offset=1)
                assert torch.allclose(noise, noise.mT, atol=1e-4)
                noise = noise[..., above[0], above[1]] * math.sqrt(2)
            if name.startswith("dp-raft"):
                noise = noise[:, :-1]
            draws.setdefault((release, deviation), []).append(noise.flatten())
    for (release, deviation), parts in draws.items():
        if release != "counts":  # four numbers a fit
            assert_noise(torch.cat(parts).numpy(), deviation)


def test_class_counts_are_as_noisy_as_they_claim(rows):
    parts = []
    for seed in range(400):
        recorder = Recorder(seed)
        fit("prototypes", rows, EPSILON, recorder, score="euclidean", count_share=0.1)
        ((_, deviation, _, noise),) = (r for r in recorder.releases if r[0] == "counts")
        parts.append(noise)
    assert deviation == pytest.approx(1 / (gaussian_mu(EPSILON, DELTA) * math.sqrt(0.1)))
    assert_noise(torch.cat(parts).numpy(), deviation)


def test_counts_cost_nothing_where_they_are_not_needed(rows):
    recorder = Recorder(0)
    fit("prototypes", rows, EPSILON, recorder, score="cosine", centred=False)
    ((name, deviation, _, _),) = recorder.releases
    assert name == "sums"
    assert deviation == pytest.approx(1 / gaussian_mu(EPSILON, DELTA))


def test_noise_repeats_with_its_seed_and_streams_are_independent():
    def draw(seed, name):
        return Noise(seed).add(name, torch.zeros(1000), 1.0)

    assert torch.equal(draw(0, "gram"), draw(0, "gram"))
    others = draw(1, "gram"), draw(0, "gradient")
    for other in others:
        assert abs(float((draw(0, "gram") * other).mean())) < 0.2
    noise = Noise(0)
    first, second = (noise.add("gram", torch.zeros(1000), 1.0) for _ in range(2))
    assert abs(float((first * second).mean())) < 0.2


# --- accounting ------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "ratio"), [(0.1, 1.56), (8.0, 1.15)])
def test_the_papers_accounting_asks_for_more_noise(epsilon, ratio):
    assert exact_mu(epsilon) / paper_mu(epsilon) == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 8.0])
def test_the_papers_mu_is_the_optimum_over_alpha(epsilon):
    beta, alphas = paper_mu(epsilon) ** 2, 1 + np.geomspace(1e-3, 1e5, 200_001)
    epsilons = alphas * beta / 2 + math.log(1 / DELTA) / (alphas - 1)
    assert epsilons.min() == pytest.approx(epsilon, rel=1e-6)
    assert paper_mu(math.inf) == exact_mu(math.inf) == math.inf


# --- what runs where, and the search ---------------------------------------------------------


def test_newton_is_left_out_with_a_reason_where_it_is_too_large(rows):
    newton = ALL["paper-newton"]
    assert newton.left_out(rows) is None
    rows.n_features = math.ceil(math.sqrt(NEWTON_LIMIT / (N * K))) + 1
    assert "n d² K" in newton.left_out(rows)


@pytest.mark.parametrize("name", ALL)
def test_starts_lie_on_the_grid_and_work_grows_with_the_rows(name):
    peer = ALL[name]
    for start in peer.starts:
        assert set(start) == set(peer.axes)
        assert all(value in peer.axes[axis] for axis, value in start.items())
    small, large = Rows(make_data()), Rows(make_data(d=2 * D))
    assert 0 < peer.work(small, peer.starts[0]) < peer.work(large, peer.starts[0])


AXES = {
    "a": tuple(range(12)),
    "b": tuple(range(12)),
    "word": ("x", "y", "z"),
    "flag": (False, True),
}
TOY = Peer("toy", "toy", AXES, ({"a": 0, "b": 11, "word": "x", "flag": False},), None, None)


def height(setting):
    ridge = -10 * (setting["a"] - setting["b"]) ** 2 - (setting["a"] - 7) ** 2
    return ridge + 5 * (setting["word"] == "z") + setting["flag"]


def test_search_finds_the_top_of_a_slanted_ridge():
    tried = search(TOY, TOY.starts, height, lambda setting: True)
    assert tried[0] == {"a": 7, "b": 7, "word": "z", "flag": True}
    assert len(tried) < 12 * 12 * 6 / 2
    keys = [setting_key(setting) for setting in tried]
    assert len(set(keys)) == len(keys)


def test_search_stops_when_nothing_more_is_affordable():
    left = iter(range(10))
    tried = search(TOY, TOY.starts, height, lambda setting: next(left, None) is not None)
    assert len(tried) == 10


# --- Opacus ----------------------------------------------------------------------------------


def test_opacus_adds_the_noise_that_is_calibrated(rows, unit):
    # One full-batch step of SGD from zero, rate 1: -n W is the clipped gradient and its noise.
    setting = {"learning_rate": 1.0, "batches": 1, "epochs": 1, "clip": 0.3, "momentum": 0.0}
    peer, noise = ALL["opacus-sgd"], []
    for seed in range(12):
        head = peer.fit(rows, setting, EPSILON, Noise(seed))
        noise.append(-N * torch.cat([head.weights, head.intercept[:, None]], dim=1))
    residual = np.full((N, K), 1 / K) - Y
    X = np.hstack([unit, np.ones((N, 1))])
    exact = clipped(residual, 0.3 / math.sqrt(2)).T @ X
    multiplier = calibrate_noise_multiplier(target_epsilon=EPSILON, target_delta=DELTA)
    assert_noise(torch.stack(noise).double().numpy() - exact, 0.3 * multiplier)


def test_opacus_repeats_with_its_seed_and_leaves_the_global_generator_alone(rows):
    peer = ALL["opacus-adam"]
    torch.manual_seed(5)
    first = peer.fit(rows, peer.starts[0], EPSILON, Noise(0))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    again = peer.fit(rows, peer.starts[0], EPSILON, Noise(0))
    other = peer.fit(rows, peer.starts[0], EPSILON, Noise(1))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


def test_opacus_own_accountant_agrees_with_the_budget():
    # Opacus' bound is looser than ours by its own error term, 0.01.
    from opacus.accountants import create_accountant

    multiplier = calibrate_noise_multiplier(
        target_epsilon=EPSILON, target_delta=DELTA, steps=40, sampling_probability=0.25
    )
    accountant = create_accountant("prv")
    accountant.history = [(multiplier, 0.25, 40)]
    assert accountant.get_epsilon(delta=DELTA) == pytest.approx(EPSILON, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["opacus-sgd", "opacus-adam"])
def test_opacus_learns_digits(name):
    from dpfc.experiments.studies.named_data import load_named

    (digits,) = load_named(["digits"])
    peer = ALL[name]
    assert peer.run(Rows(digits.data), peer.starts[0], 8.0, 0) > 0.8
