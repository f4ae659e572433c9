"""Gradients of single rows where layers are used in less usual ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.per_sample_gradients import RowGradients

N_ROWS, N_FEATURES, N_CLASSES = 7, 5, 3


class Inplace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(N_FEATURES, 8), nn.ReLU(inplace=True), nn.Linear(8, N_CLASSES)
        )

    def forward(self, x):
        return self.layers(x)


class Beside(nn.Module):
    """Two layers whose outputs are added: both get the same tensor as their gradient."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.Linear(N_FEATURES, N_CLASSES) for _ in range(2))

    def forward(self, x):
        return self.left(x) + self.right(x.square())


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(N_FEATURES, N_FEATURES), nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x):
        return self.head(self.inner(self.inner(x).tanh()))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Linear(N_FEATURES, N_FEATURES) for _ in range(2))
        self.second.weight = self.first.weight
        self.head = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()))


class Own(nn.Module):
    """A parameter of its own beside layers with rules: functorch takes the whole."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(N_FEATURES))
        self.inner, self.head = nn.Linear(N_FEATURES, N_FEATURES), nn.Linear(N_FEATURES, N_CLASSES)
        self.inner.weight.requires_grad_(False)

    def forward(self, x):
        return self.head(self.inner(x * self.scale).tanh())


class Number(nn.Module):
    """A parameter without axes."""

    def __init__(self):
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.tensor(2.0)), nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x):
        return self.head(x * self.scale)


class TwoPlaces(nn.Module):
    """One layer that two parents hold."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(N_FEATURES, N_FEATURES), nn.Linear(N_FEATURES, N_CLASSES)
        self.both = nn.Sequential(self.inner, nn.Tanh(), self.head)

    def forward(self, x):
        return self.both(self.inner(x).tanh())


class Sequence(nn.Module):
    """A linear layer on each part of a row, and a norm."""

    def __init__(self):
        super().__init__()
        self.each, self.norm = nn.Linear(1, 4), nn.LayerNorm(4)
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, x):
        return self.head(self.norm(self.each(x[..., None])).mean(1))


MODULES = [Inplace, Beside, Twice, Tied, Own, Number, TwoPlaces, Sequence]


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N_ROWS, N_FEATURES, generator=generator)
    return X, torch.arange(N_ROWS) % N_CLASSES


def make(kind):
    torch.manual_seed(0)
    return kind().train()


def one_at_a_time(module, X, codes):
    """The rows' gradients by autograd: a list a row, of one tensor a trainable parameter."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        torch.autograd.grad(functional.cross_entropy(module(x[None]), code[None]), trained)
        for x, code in zip(X, codes, strict=True)
    ]


@pytest.mark.parametrize("functorch", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_gradients_are_those_of_one_row_at_a_time(kind, functorch, rows):
    X, codes = rows
    module = make(kind)
    expected = one_at_a_time(module, X, codes)
    of_rows = RowGradients(module, functorch=functorch)
    losses = functional.cross_entropy(of_rows.forward(X), codes, reduction="none")
    found = {part.parameter: part.numbers()[0] for part in of_rows.parts(losses)}
    trained = [p for p in module.parameters() if p.requires_grad]
    assert set(found) == set(trained)
    for place, parameter in enumerate(trained):
        wanted = torch.stack([each[place] for each in expected])
        torch.testing.assert_close(
            found[parameter], wanted.reshape(len(X), -1), rtol=1e-5, atol=1e-6
        )
        assert parameter.grad is None


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("kind", MODULES)
def test_lengths_are_those_of_one_row_at_a_time(kind, factored, rows):
    X, codes = rows
    module = make(kind)
    expected = [
        torch.linalg.vector_norm(torch.cat([g.flatten() for g in each]))
        for each in one_at_a_time(module, X, codes)
    ]
    of_rows = RowGradients(module, factored=factored)
    losses = functional.cross_entropy(of_rows.forward(X), codes, reduction="none")
    found = [part.lengths()[0] for part in of_rows.parts(losses)]
    lengths = torch.linalg.vector_norm(torch.stack(found), dim=0)
    torch.testing.assert_close(lengths, torch.stack(expected).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("kind", MODULES)
def test_clipped_sums_are_right_for_them(kind, clipping, rows):
    X, codes = rows
    module = make(kind)
    expected = one_at_a_time(module, X, codes)
    lengths = [float(torch.cat([g.flatten() for g in each]).norm()) for each in expected]
    bound = sorted(lengths)[N_ROWS // 2]  # half of the rows are cut
    sums = make_clipped_sums(clipping, module, bound)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    sums.add(X[:, None], codes, totals)
    for place, total in enumerate(totals):
        wanted = sum(
            min(1.0, bound / length) * each[place].double()
            for length, each in zip(lengths, expected, strict=True)
        )
        torch.testing.assert_close(total, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_layer_that_a_batch_does_not_use_gets_nothing(clipping, rows):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.never = (nn.Linear(N_FEATURES, N_CLASSES) for _ in range(2))

        def forward(self, x):
            return self.always(x)

    X, codes = rows
    sums = make_clipped_sums(clipping, make(Sometimes), 1.0)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    sums.add(X[:, None], codes, totals)
    assert [bool(total.any()) for total in totals] == [True, True, False, False]


@pytest.mark.parametrize("kind", MODULES)
def test_closing_leaves_the_module_as_it_was(kind, rows):
    module = make(kind)
    before = {name: set(vars(part)) for name, part in module.named_modules()}
    of_rows = RowGradients(module, functorch=True)
    of_rows.close()
    after = {name: set(vars(part)) for name, part in module.named_modules()}
    assert after == before
    assert not any(part._forward_hooks for part in module.modules())
    module(rows[0])
    assert of_rows._calls == []
