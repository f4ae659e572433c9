"""One row more or less moves a sum of clipped gradients by no more than is stated.

Each case is a public network, private rows chosen against it, and one row among them that goes.
With DPFC_TEST_DEVICE=cuda in the environment sums are taken there.
"""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from dpfc import DPSGDClassifier
from dpfc.accounting import ReleaseRequest, calibrate
from dpfc.full_models.augmentation import Augmentation
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.mechanism import GRADIENT, GradientMechanism
from dpfc.full_models.dp_sgd.rows import ModuleRows
from dpfc.full_models.networks.factory import make_network
from dpfc.mechanism.noise import SeededNoise
from dpfc.mechanism.noisy_sum import sigma_of
from dpfc.mechanism.private_run import PrivateRun

C = 1.0
DEVICE = torch.device(os.environ.get("DPFC_TEST_DEVICE", "cpu"))
VOCABULARY = 11
SHAPES = {
    "linear": (17,),
    "mlp": (17,),
    "cnn": (1, 9, 9),
    "wrn-16-4": (3, 8, 8),
    "vit-tiny": (1, 8, 8),
    "dlr": (7, 2),
}
SLOW = ("wrn-16-4", "vit-tiny")
NETWORKS = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in (*SHAPES, "tokens")
]
PASSES = {}


@functools.cache
def network(name):
    torch.manual_seed(0)
    if name == "tokens":
        return make_network(
            "dlr", input_shape=(7,), n_classes=3, seed=0, vocabulary_size=VOCABULARY
        ).train()
    made = make_network(name, input_shape=SHAPES[name], n_classes=3, seed=0).train()
    with torch.no_grad():
        for parameter in made.parameters():  # off the zeros that some layers start at
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@contextmanager
def mechanism_over(module, clipping, X, codes, *, relation="add_or_remove_one", most_rows=16):
    plan = calibrate(
        [ReleaseRequest(GRADIENT, 1.0, 3, 1.0)],
        target_epsilon=1.0,
        target_delta=1e-5,
        neighboring_relation=relation,
    )
    sums = make_clipped_sums(clipping, module.to(DEVICE), C)
    tried = (module, clipping, X.shape[1:], most_rows)  # keeps the module, so that it stays itself
    mechanism = GradientMechanism(
        ModuleRows(X, codes),
        sums,
        Watched(SeededNoise(0), plan),
        n_samples=20,
        augmentation=Augmentation(),
        physical_batch_size=most_rows,
        device=DEVICE,
    )
    mechanism._passes = PASSES.get(tried)  # trying them out takes longer than the sums
    try:
        yield mechanism
        PASSES[tried] = mechanism.passes
    finally:
        sums.close()


def the_sum(module, clipping, X, codes, **options):
    """The sum over all rows, and what a row may move it by."""
    with mechanism_over(module, clipping, X, codes, **options) as mechanism:
        total = mechanism._clipped_sum(torch.arange(len(X)))
        # What noise is calibrated to: its standard deviation by the noise multiplier.
        scale = mechanism.run.noise_scale(GRADIENT, mechanism._sum(GRADIENT))
        return total.cpu(), scale / mechanism.run.plan[GRADIENT].noise_multiplier


class Watched(PrivateRun):
    """Keeps what noise is added to, and how large."""

    def release(self, name, of, total):
        def watched():
            value = total()
            self.added_to = value.cpu(), sigma_of(name, of, self.plan[name].noise_multiplier)
            return value

        return super().release(name, of, watched)


def rows_against(name, kind, n_rows):
    generator = torch.Generator().manual_seed(n_rows)
    codes = torch.randint(3, (n_rows,), generator=generator)
    if name == "tokens":
        X = torch.randint(VOCABULARY - 1, (n_rows, 7), generator=generator)
        if kind == "extreme":
            X[0] = VOCABULARY - 1  # a token that no other row holds
        return X, codes
    X = torch.randn((n_rows, *SHAPES[name]), generator=generator)
    if kind == "extreme":
        sizes = torch.tensor([1e9, 1e-9, 1e30, 1.0, 1e12])
        X *= sizes[torch.arange(n_rows) % 5].view(-1, *[1] * (X.ndim - 1))
    if kind == "large":
        X *= 1e9
    if kind == "boundary":
        # Nearly the same rows: the differences of scores are made of the last bits.
        X = X[:1] + 1e-7 * X
    return X, codes


@pytest.mark.parametrize(
    "kind", ["extreme", *(pytest.param(k, marks=pytest.mark.slow) for k in ("large", "boundary"))]
)
@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_that_goes_moves_the_sum_by_its_stated_sensitivity_at_most(name, clipping, kind):
    """From passes of 1 row to passes of 20, the first row or another one."""
    module = network(name)
    for n_rows in range(1, 21) if name in ("linear", "mlp") else (1, 3, 15, 18):
        X, codes = rows_against(name, kind, n_rows)
        full, sensitivity = the_sum(module, clipping, X, codes)
        gone = n_rows // 2 if n_rows % 2 else 0
        rest = torch.arange(n_rows) != gone
        fewer, _ = the_sum(module, clipping, X[rest], codes[rest])
        own, _ = the_sum(module, clipping, X[~rest], codes[~rest])
        assert torch.isfinite(full).all()
        assert float(own.norm()) <= C
        assert C <= sensitivity <= 1.01 * C
        assert float((full - fewer).norm()) <= sensitivity
        # It moves it by what it adds alone: no other row's part depends on it.
        assert float((full - fewer - own).norm()) <= 1e-12 * n_rows


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_that_is_replaced_moves_the_sum_by_its_stated_sensitivity_at_most(name, clipping):
    module = network(name)
    for n_rows in (1, 8) if name in SLOW else (1, 2, 7, 20):
        X, codes = rows_against(name, "extreme", n_rows)
        full, sensitivity = the_sum(module, clipping, X, codes, relation="replace_one")
        Y, other = X.clone(), codes.clone()
        Y[0], other[0] = (0 if name == "tokens" else -X[0]), (codes[0] + 1) % 3
        changed, _ = the_sum(module, clipping, Y, other, relation="replace_one")
        assert 2 * C <= sensitivity <= 2.02 * C
        assert float((full - changed).norm()) <= sensitivity


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_noise_is_added_to_integers_that_a_row_moves_by_no_more_than_it_hides(clipping, relation):
    """The steps of neighbours, against σ / z: rows of length C, which cancel or add up."""
    X, codes = rows_against("mlp", "large", 9)
    Y = X[1:] if relation == "add_or_remove_one" else torch.cat([-X[:1], X[1:]])
    steps = []
    for rows, labels in ((X, codes), (Y, codes[-len(Y) :])):
        with mechanism_over(network("mlp"), clipping, rows, labels, relation=relation) as mechanism:
            mechanism.release_gradient()
            total, sigma = mechanism.run.added_to
            steps.append(total)
            multiplier = mechanism.run.plan[GRADIENT].noise_multiplier
            unit = mechanism._sum(GRADIENT).unit
    assert {total.dtype for total in steps} == {torch.int64}
    moved = float((steps[0] - steps[1]).double().norm())
    assert moved * unit >= 0.1 * C and moved <= sigma / multiplier


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_no_rows_at_all_give_a_sum_of_zeros(clipping):
    X, codes = rows_against("mlp", "large", 1)
    total, _ = the_sum(network("mlp"), clipping, X[:0], codes[:0])
    assert len(total) and not bool(total.any())


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("width", [1, 3, 15, 17, 31, 33, 65, 70])
def test_other_rows_do_not_feel_where_they_lie(width, clipping):
    """Rows whose first numbers lie at other places of a vector register, in "linear"."""
    generator = torch.Generator().manual_seed(width)
    module = make_network("linear", input_shape=(width,), n_classes=5, seed=0).train()
    X = 1e6 * torch.randn((18, width), generator=generator)
    codes = torch.randint(5, (18,), generator=generator)
    parts = [the_sum(module, clipping, X[i:], codes[i:])[0] for i in range(18)]
    for i in range(17):
        own, _ = the_sum(module, clipping, X[i : i + 1], codes[i : i + 1])
        assert float((parts[i] - parts[i + 1] - own).norm()) <= 1e-12


class ChannelsLast(nn.Module):
    """Its scores hang on a linear layer over (batch, height, width, channels) by a fiftieth."""

    def __init__(self, factor=0.02):
        super().__init__()
        self.factor = factor
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x.mean((1, 2)).tanh()) + self.factor * self.mix(x).mean((1, 2))[:, :3]


class Tokens(nn.Module):
    """A linear layer over the places of a sequence, then a mean."""

    def __init__(self, width=6):
        super().__init__()
        self.layer = nn.Linear(width, 3)

    def forward(self, x):
        return self.layer(x).mean(1)


@pytest.mark.parametrize("value", [1.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_linear_layer_over_images_counts_in_a_row_s_length(clipping, value):
    torch.manual_seed(0)
    module = ChannelsLast().train()
    X = torch.full((1, 5, 5, 4), value)
    lengths = [
        float(the_sum(module, clipping, X, torch.tensor([code]))[0].norm()) for code in range(3)
    ]
    assert 0 < max(lengths) <= C


@pytest.mark.parametrize("magnitude", [1.0, 1e3, 1e5, 1e7, 1e9, 1e15])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_what_cancels_within_a_row_does_not_shorten_it(clipping, magnitude):
    """Rows [M v, -M v + 1e-4 M e]: products of large numbers whose sum is small."""
    for width in (6, 64):
        torch.manual_seed(0)
        module = Tokens(width).train()
        v, e = torch.randn(2, width)
        row = torch.stack([magnitude * v, -magnitude * v + 1e-4 * magnitude * e])
        for code in range(3):
            total, sensitivity = the_sum(module, clipping, row[None], torch.tensor([code]))
            assert float(total.norm()) <= C
            three = row.repeat(3, 1, 1)
            codes = torch.tensor([code] * 3)
            full, _ = the_sum(module, clipping, three, codes)
            fewer, _ = the_sum(module, clipping, three[1:], codes[1:])
            assert float((full - fewer).norm()) <= sensitivity


def test_ghost_clipping_and_hooks_sum_the_same():
    torch.manual_seed(0)
    for module, shape in ((ChannelsLast(1.0), (5, 5, 4)), (Tokens(), (9, 6))):
        X, codes = torch.randn((12, *shape)), torch.arange(12) % 3
        by_hooks, _ = the_sum(module.train(), "hooks", X, codes)
        by_ghost, _ = the_sum(module, "ghost", X, codes)
        assert float((by_hooks - by_ghost).norm()) <= 1e-5 * float(by_hooks.norm())


class Fussy(nn.Module):
    """Raises at some rows, as a check of shapes, of probabilities or of finite numbers does."""

    def __init__(self, refuses, dropout=0.0):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4, 3)
        self.refuses = refuses

    def forward(self, x):
        if bool(self.refuses(x).any()):
            raise AssertionError(f"{float(x.abs().max())} is out of range")
        return self.head(self.drop(self.layer(x)))


@pytest.mark.parametrize("most_rows", [1, 8])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_row_that_the_module_comes_to_raise_at_adds_nothing_and_takes_no_other_row_along(
    clipping, most_rows
):
    """Not the rows beside it, nor those of a pass that zeros fill up."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn((18, 4), generator=generator)
    codes = torch.randint(3, (18,), generator=generator)
    X[3] = 100.0
    usual = torch.arange(18) != 3
    for refuses in (lambda x: x == 100.0, lambda x: (x == 100.0) | (x == 0.0)):
        torch.manual_seed(0)
        module = Fussy(lambda x: x != x).train()
        expected, _ = the_sum(module, clipping, X[usual], codes[usual], most_rows=most_rows)
        module.refuses = refuses  # once training has begun
        total, _ = the_sum(module, clipping, X, codes, most_rows=most_rows)
        fewer, _ = the_sum(module, clipping, X[usual], codes[usual], most_rows=most_rows)
        assert bool(expected.any())
        assert float((total - expected).norm()) <= 1e-12
        assert float((fewer - expected).norm()) <= 1e-12


def test_a_row_keeps_its_dropout_where_another_row_of_its_pass_fails():
    torch.manual_seed(0)
    module = Fussy(lambda x: x != x, dropout=0.5).train()
    X, codes = torch.ones((8, 4)), torch.zeros(8, dtype=torch.int64)
    expected, _ = the_sum(module, "hooks", X, codes, most_rows=8)
    own, _ = the_sum(module, "hooks", X[:7], codes[:7], most_rows=8)
    X[7] = 100.0
    module.refuses = lambda x: x == 100.0
    total, _ = the_sum(module, "hooks", X, codes, most_rows=8)
    assert float((total - own).norm()) <= 1e-12
    assert float((expected - own).norm()) > 0.1


def test_a_fit_does_not_end_at_a_row_that_the_module_comes_to_raise_at():
    """The weights move until it does, which an error after the spend would tell."""
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    X[7] = 100.0
    torch.manual_seed(0)

    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            scores = self.layer(x)
            if bool(((x == 100.0).all(1) & (scores.abs().amax(1) > 300.0)).any()):
                raise ValueError(f"a score is {float(scores.detach().abs().max())}")
            return scores

    model = DPSGDClassifier(
        Bounded(),
        epsilon=5.0,
        classes=[0, 1],
        n_samples=40,
        n_steps=8,
        learning_rate=3.0,
        device="cpu",
    )
    model.fit(X, np.arange(40) % 2)
    with pytest.raises(ValueError, match="a score is"):
        model.module_(torch.full((1, 4), 100.0))


class RefusesZeros(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        assert bool((x != 0).any(1).all()), "a row is empty"
        return self.layer(x)


def test_a_module_that_takes_no_rows_of_zeros_is_trained_on_one_row_at_a_time():
    """Passes are filled up with such; finding that out must not end a fit that is paid for."""
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    model = DPSGDClassifier(
        RefusesZeros(), epsilon=5.0, classes=[0, 1], n_samples=40, n_steps=2
    ).fit(X, np.arange(40) % 2)
    assert any("alone" in assumption for assumption in model.privacy_.rests_on)


class LooksForOneValue(nn.Module):
    """All rows of a pass are changed where one of them holds a value that made-up rows do not."""

    def __init__(self, value, ask):
        super().__init__()
        self.value = value
        self.ask = ask
        self.embed = nn.Embedding(500, 8) if isinstance(value, int) else nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        factor = 3.0 if ASKS[self.ask](x == self.value) else 1.0
        h = self.embed(x)
        return self.head(torch.tanh(factor * (h.mean(1) if h.ndim == 3 else h)))


ASKS = {
    "any": lambda found: found.any(),
    "item": lambda found: found.sum().item() > 0,
    "list": lambda found: True in found.flatten().tolist(),
    "numpy": lambda found: found.cpu().numpy().any(),
    "nonzero": lambda found: len(found.nonzero()) > 0,
    "mask": lambda found: len(found[found]) > 0,
    "equal": lambda found: not torch.equal(found, torch.zeros_like(found)),
    "where": lambda found: len(torch.where(found)[0]) > 0,
    "arange": lambda found: len(torch.arange(found.sum())) > 0,
    "repeat": lambda found: len(torch.repeat_interleave(found.flatten().long())) > 0,
    "one_hot": lambda found: nn.functional.one_hot(found.long()).shape[-1] > 1,
    "text": lambda found: "1" in str(found.sum()),
    "slice": lambda found: len(torch.ones(9)[: found.sum()]) > 0,
    "dlpack": lambda found: bool(np.from_dlpack(found.sum().cpu()) > 0),
    "storage": lambda found: any(found.cpu().untyped_storage()),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("value", [-1.0, -100.0, 250])
def test_a_condition_on_all_rows_of_a_pass_moves_no_other_row_whatever_it_looks_for(value, ask):
    torch.manual_seed(0)
    module = LooksForOneValue(value, ask).train()
    tokens = isinstance(value, int)
    X = torch.randint(200, (12, 6)) if tokens else torch.randn(12, 8)
    X[5] = value
    codes = torch.arange(12) % 3
    rest = torch.arange(12) != 5
    full, sensitivity = the_sum(module, "hooks", X, codes)
    fewer, _ = the_sum(module, "hooks", X[rest], codes[rest])
    own, _ = the_sum(module, "hooks", X[~rest], codes[~rest])
    assert float((full - fewer).norm()) <= sensitivity
    assert float((full - fewer - own).norm()) <= 1e-12
