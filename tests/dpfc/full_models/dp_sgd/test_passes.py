"""Passes of fixed shape: where rows lie, what fills them up, and when rows go one at a time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.passes import Passes, choose_passes


def chosen(module, like, *, clipping="hooks", most_rows=16, expected_rows=30.0, n_copies=1, q=0.01):
    sums = make_clipped_sums(clipping, module.train(), 1.0)
    try:
        return choose_passes(
            sums,
            like,
            n_copies=n_copies,
            most_rows=most_rows,
            expected_rows=expected_rows,
            sampling_probability=q,
        )
    finally:
        sums.close()


class MixesRows(nn.Module):
    """The mean of a pass has a small part in every row's scores."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x + 1e-7 * x.mean(0))


class KnowsPlaces(nn.Module):
    """A row is changed by where it stands in a pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x * (1 + 1e-6 * torch.arange(len(x))[:, None]))


class Draws(nn.Module):
    """Noise in the forward pass, as from a layer that drops paths."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x * (torch.rand(len(x), 1) < 0.5))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 7), (1, 4, 4)])
def test_rows_are_laid_out_one_after_the_other_and_zeros_after_them(shape, aligned):
    X, codes = torch.randn(3, 2, *shape), torch.tensor([2, 1, 2])
    laid, padded = Passes(5, aligned).lay_out(X, codes)
    assert laid.shape == (5, 2, *shape)
    assert torch.equal(laid[:3], X) and not bool(laid[3:].any())
    assert padded.tolist() == [2, 1, 2, 0, 0]
    as_batch = laid.flatten(0, 1)
    assert as_batch.data_ptr() == laid.data_ptr()  # a view: rows stay where they lie
    if aligned:
        assert all(row.data_ptr() % 64 == 0 for row in as_batch)


def test_passes_leave_few_places_empty():
    module = nn.Linear(16, 3)
    sizes = {n: chosen(module, torch.zeros(1, 16), most_rows=128, expected_rows=n).n_rows
             for n in (1.0, 20.0, 100.0, 130.0, 1000.0)}  # fmt: skip
    assert sizes == {1.0: 8, 20.0: 32, 100.0: 120, 130.0: 80, 1000.0: 120}
    all_rows = chosen(module, torch.zeros(1, 16), most_rows=128, expected_rows=64.0, q=1.0)
    assert all_rows.n_rows == 64
    assert chosen(module, torch.zeros(1, 16), most_rows=3).n_rows == 3
    assert chosen(module, torch.zeros(1, 16), most_rows=1) == Passes(1)


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("kind", [MixesRows, KnowsPlaces])
def test_rows_go_one_at_a_time_where_places_differ(kind, clipping):
    assert chosen(kind(), torch.zeros(1, 4), clipping=clipping) == Passes(1)


def test_a_module_that_draws_goes_one_row_at_a_time_and_dropout_does_not():
    assert chosen(Draws(), torch.zeros(1, 4)) == Passes(1)
    module = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    assert chosen(module, torch.zeros(1, 16)).n_rows == 16
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_trying_out_leaves_weights_and_the_global_generator_as_they_were(clipping):
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    chosen(module, torch.zeros(1, 5), clipping=clipping)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_what_fills_up_a_pass_adds_nothing(clipping):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).train()
    X, codes = torch.randn(3, 1, 5), torch.tensor([0, 1, 2])
    sums = make_clipped_sums(clipping, module, 0.5)
    plain, filled = ([torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
                     for _ in range(2))  # fmt: skip
    sums.add(X, codes, plain)
    laid, padded = Passes(8).lay_out(X, codes)
    sums.add(laid, padded, filled, n_rows=3)
    sums.close()
    for a, b in zip(plain, filled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_sums_run_on_kernels_that_give_the_same_again_and_leave_the_switches(clipping):
    seen = set()

    def switches():
        cudnn = torch.backends.cudnn
        return cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    class Records(nn.Linear):
        def forward(self, x):
            seen.add(switches())
            return super().forward(x)

    before = switches()
    sums = make_clipped_sums(clipping, nn.Sequential(Records(4, 4), nn.Linear(4, 2)).train(), 1.0)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    sums.add(torch.ones(3, 1, 4), torch.zeros(3, dtype=torch.int64), totals)
    sums.close()
    assert seen == {(before[0], True, False, False)} and switches() == before
