"""Evaluation of networks: one removed row moves each count by one at most, whatever the rows."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from dpfc import DPSGDClassifier, evaluate_privately
from dpfc.full_models import NETWORKS, make_network
from dpfc.full_models.scored_rows import ScoredNetworkRows

WIDTHS = range(1, 71)


def public_model(module, shape, n_classes=2, name=None):
    """A classifier as a fit leaves it, with a network that is public as it is."""
    model = DPSGDClassifier(name or module, classes=range(n_classes))
    model.module_, model.classes_ = module.eval(), np.arange(n_classes)
    model.input_shape_, model.row_kind_ = tuple(shape), None
    return model


def scored(model, X):
    labels = np.zeros(len(X), dtype=int)
    return np.concatenate([rows for rows, _ in ScoredNetworkRows(model, X, labels).blocks(1000)])


def on_the_boundary(layer, width, n_rows, seed=0):
    """Rows for which both classes of a linear layer score alike, up to rounding."""
    generator = np.random.default_rng(seed)
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    normal, offset = weight[1] - weight[0], bias[1] - bias[0]
    rows = generator.normal(size=(n_rows, width))
    rows -= np.outer((rows @ normal + offset) / (normal @ normal), normal)
    return rows.astype(np.float32)


def places(X):
    """The same rows in other places of memory: each gives (rows, positions in X)."""
    everything = np.arange(len(X))
    yield X[1:], everything[1:]
    yield X[::3], everything[::3]
    yield X[::-1], everything[::-1].copy()
    for offset in (1, 3, 5):
        room = np.empty(X.size + offset, X.dtype)[offset:].reshape(X.shape)
        room[:] = X
        yield room, everything
    wide = np.zeros((*X.shape[:-1], X.shape[-1] + 3), X.dtype)
    wide[..., 1:-2] = X
    yield wide[..., 1:-2], everything
    yield np.asfortranarray(X), everything
    yield X[[2]], np.array([2])
    tensor = torch.from_numpy(np.ascontiguousarray(X))
    yield tensor.clone()[2:], everything[2:]
    yield (
        torch.empty(1 + tensor.numel(), dtype=tensor.dtype)[1:].view(tensor.shape).copy_(tensor),
        everything,
    )


def assert_rows_stand_alone(model, X):
    whole = scored(model, X)
    for rows, positions in places(X):
        assert np.array_equal(scored(model, rows), whole[positions])


def boundary_network(width=17):
    module = make_network("linear", input_shape=(width,), n_classes=2, seed=0)
    return module, on_the_boundary(module[1], width, 300)


def test_removing_one_of_thousands_of_equal_rows_on_the_boundary_moves_hits_by_one():
    module, candidates = boundary_network()
    model = public_model(module, (17,))
    with torch.no_grad():  # rows whose class a view of them leaves to its place in memory
        copies = {
            place: torch.from_numpy(np.tile(row, (17, 1))) for place, row in enumerate(candidates)
        }
        torn = [
            candidates[place]
            for place, block in copies.items()
            if len({int(module(row).argmax()) for row in torch.split(block, 1)}) == 2
        ]
    for row in torn[:5] or candidates[:1]:
        X = np.tile(row, (4001, 1))
        labels = scored(model, X)[:, 0].astype(int)  # as predicted: all of them hits
        hits = [
            evaluate_privately(model, rows, labels[n:], epsilon=math.inf).accuracy * len(rows)
            for n, rows in ((0, X), (1, X[1:].copy()))
        ]
        assert hits[0] - hits[1] == pytest.approx(1)


@pytest.mark.parametrize("width", [1, 16, 17, 33, 70])
def test_rows_on_the_boundary_are_predicted_alike_in_any_place(width):
    module = make_network("linear", input_shape=(width,), n_classes=2, seed=0)
    assert_rows_stand_alone(public_model(module, (width,)), on_the_boundary(module[1], width, 100))


@pytest.mark.slow
def test_scores_of_a_row_of_any_width_are_the_same_bits_in_any_place():
    for width in WIDTHS:
        X = np.random.default_rng(width).normal(size=(7, width)).astype(np.float32)
        for name in ("linear", "mlp") if width % 7 == 3 else ("linear",):
            module = make_network(name, input_shape=(width,), n_classes=3, seed=width)
            assert_rows_stand_alone(public_model(module, (width,), 3), X)


SHAPES = {"linear": (3, 7), "mlp": (21,), "dlr": (19,)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_by_name_scores_a_row_by_itself(name):
    shape = SHAPES.get(name, (3, 8, 8))
    X = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    module = make_network(name, input_shape=shape, n_classes=3, seed=0)
    with torch.no_grad():
        for parameter in module.parameters():  # some begin at zero, and would hide the rest
            parameter.add_(torch.full_like(parameter, 0.01))
    assert_rows_stand_alone(public_model(module, shape, 3, name), X)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_bytes_and_tokens_are_scored_row_by_row_too(dtype):
    X = np.random.default_rng(0).integers(5, size=(9, 13)).astype(dtype)
    tokens = {"vocabulary_size": 5} if dtype is np.int64 else {}
    module = make_network("dlr", input_shape=(13,), n_classes=3, seed=0, **tokens)
    assert_rows_stand_alone(public_model(module, (13,), 3), X)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.cells = nn.GRU(width, 9, batch_first=True)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def after(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


LAYERS = {
    "conv1d": (lambda: after(nn.Conv1d(3, 5, 4)), (3, 13)),
    "conv2d": (lambda: after(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU()), (2, 9, 11)),
    "strided conv": (lambda: after(nn.Conv2d(3, 7, 5, stride=2)), (3, 11, 13)),
    "embedding": (lambda: after(nn.Embedding(11, 7)), (10,)),
    "group norm": (lambda: after(nn.Conv2d(1, 6, 3), nn.GroupNorm(3, 6)), (1, 7, 7)),
    "layer norm": (lambda: after(nn.LayerNorm(37), nn.GELU()), (5, 37)),
    "attention": (lambda: Attention(13), (7, 13)),
    "recurrent": (lambda: Recurrent(5), (7, 5)),
    "pooling": (lambda: after(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(3)), (1, 10, 9)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_scores_a_row_by_itself(name):
    make, shape = LAYERS[name]
    generator = np.random.default_rng(0)
    X = generator.normal(size=(7, *shape)).astype(np.float32)
    if name == "embedding":
        X = generator.integers(11, size=(7, *shape))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
        module(torch.from_numpy(X[:2]))  # lazy layers find their width
    assert_rows_stand_alone(public_model(module, shape, 3), X)


def test_the_number_of_threads_does_not_count():
    module, X = boundary_network(33)
    model = public_model(module, (33,))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(scored(model, X))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


class Remembering(nn.Module):
    """Scores lean on the row before."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)
        self.last = None

    def forward(self, x):
        scores = self.linear(x if self.last is None else x + self.last)
        self.last = x.detach()
        return scores


class Noisy(nn.Linear):
    """Draws in evaluation, so that a row's scores would depend on how many came before."""

    def forward(self, x):
        return super().forward(x) + torch.rand(len(x), 2)


def test_a_network_that_remembers_the_row_before_is_not_evaluated():
    X = np.ones((4, 5), np.float32)
    with pytest.raises(ValueError, match="'last' of the module"):
        evaluate_privately(public_model(Remembering(), (5,)), X, [0] * 4, epsilon=1.0)


def test_a_network_that_draws_gives_each_row_the_same_draws():
    X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    assert_rows_stand_alone(public_model(Noisy(5, 2), (5,)), X)


def test_a_row_that_a_network_does_not_take_is_named_before_the_spend(tmp_path):
    import dpfc

    ledger = dpfc.PrivacyLedger(tmp_path / "ledger.db")
    ledger.create_budget("d", epsilon=9, delta=1e-5)
    module = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 2))
    X = np.zeros((6, 4), dtype=int)
    for bad in (5, -1, 98765):
        X[3, 2] = bad
        with pytest.raises(ValueError, match="row 3 of X") as error:
            evaluate_privately(
                public_model(module, (4,)), X, [0] * 6, epsilon=1.0, ledger=ledger.path,
                dataset="d",
            )  # fmt: skip
        assert str(bad) not in str(error.value).replace("row 3", "")
    assert ledger.history("d") == []


def test_the_statement_says_what_holds_for_networks_and_for_linear_models():
    module, X = boundary_network()
    result = evaluate_privately(public_model(module, (17,)), X, [0] * 300, epsilon=1.0)
    words = " ".join(result.privacy_.rests_on)
    assert "float32" in words and "whole numbers" not in words


class RemembersOneValue(nn.Module):
    """Keeps nothing of rows, but for one that begins with 0.5."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if float(x[0, 0]) == 0.5:
            self.seen += 1
        return self.layer(x) * (1 - 2 * (self.seen > 0).float())


class DrawsFrom(nn.Module):
    """Noise in evaluation, from a generator of NumPy's, Python's or PyTorch's."""

    def __init__(self, of):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.of = of

    def forward(self, x):
        draws = {"numpy": np.random.rand, "python": random.random, "torch": lambda: torch.rand(1)}
        return self.layer(x) + torch.tensor([[float(draws[self.of]()), 0.0]])


def test_a_module_that_remembers_one_of_the_test_rows_is_refused_before_the_spend():
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    model = public_model(RemembersOneValue(), (4,))
    scored(model, X)
    X[3, 0] = 0.5
    with pytest.raises(ValueError, match="'seen' of the module changes as rows are scored"):
        scored(model, X)


@pytest.mark.parametrize("of", ["numpy", "python", "torch"])
def test_what_a_module_draws_for_a_row_does_not_hang_on_the_rows_before_it(of):
    X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model = public_model(DrawsFrom(of), (4,))
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert_rows_stand_alone(model, X)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
