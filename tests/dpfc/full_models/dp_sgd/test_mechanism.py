"""The mechanism under DP-SGD: what a row can add, how much noise there is, what is counted."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from dpfc.accounting import ReleaseRequest, calibrate
from dpfc.full_models.augmentation import AUGMENTATIONS, Augmentation
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.mechanism import (
    GRADIENT,
    GradientMechanism,
    _grid_step,
    _whole_steps,
)
from dpfc.full_models.dp_sgd.rows import ModuleRows
from dpfc.mechanism.noise import SeededNoise, noise_source
from dpfc.mechanism.private_run import PrivateRun

C = 0.5


def parameters_of(module):
    return [p for p in module.parameters() if p.requires_grad]


def row_gradient(module, x, code):
    loss = functional.cross_entropy(module(x[None]), torch.tensor([code]))
    return torch.autograd.grad(loss, parameters_of(module))


def flat(tensors):
    return torch.cat([t.flatten().double() for t in tensors])


def clipped_sum(module, X, codes, clipping, clip_norm=C):
    sums = make_clipped_sums(clipping, module, clip_norm)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    if len(X):
        sums.add(torch.as_tensor(X)[:, None], torch.as_tensor(codes), totals)
    sums.close()
    return flat(totals)


def mechanism(
    module, rows, *, epsilon=1.0, n_steps=3, q=0.5, n_samples=50, noise=None, charge=None, **options
):
    requests = [ReleaseRequest(GRADIENT, 1.0, n_steps, q)]
    if n_samples is None and options.get("relation") != "replace_one":
        requests = [ReleaseRequest("count", 0.01), ReleaseRequest(GRADIENT, 0.99, n_steps, q)]
    plan = calibrate(
        requests,
        target_epsilon=epsilon,
        target_delta=1e-5,
        neighboring_relation=options.pop("relation", "add_or_remove_one"),
    )
    run = PrivateRun(noise or SeededNoise(0), plan, charge=charge)
    X, codes = rows
    defaults = {
        "augmentation": Augmentation(),
        "physical_batch_size": 16,
        "device": torch.device("cpu"),
    }
    return GradientMechanism(
        ModuleRows(torch.as_tensor(X), torch.as_tensor(codes)),
        make_clipped_sums("hooks", copy.deepcopy(module), C),
        run,
        n_samples=n_samples,
        **defaults | options,
    )


def released(mechanism):
    mechanism.release_gradient()
    return flat(p.grad for p in mechanism._sums.parameters)


# -- clipping ------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [0.01, 0.5, 100.0, math.inf])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_sum_is_that_of_clipped_gradients_one_at_a_time(module, rows, clipping, clip_norm):
    X, codes = rows
    expected = 0
    for x, code in zip(torch.from_numpy(X), codes, strict=True):
        gradient = flat(row_gradient(module, x, code))
        expected += gradient * min(1.0, clip_norm / float(gradient.norm()))
    found = clipped_sum(module, X, codes, clipping, clip_norm)
    assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4, 1e20, 3e38])
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_one_more_row_adds_at_most_c(module, rows, clipping, value):
    """Also where its activations, and so its gradients, are beyond what float32 holds."""
    X, codes = rows
    other = np.full((1, 5), value, dtype=np.float32)
    for code in range(3):
        more = clipped_sum(module, np.concatenate([X, other]), [*codes, code], clipping)
        distance = float((more - clipped_sum(module, X, codes, clipping)).norm())
        assert math.isfinite(distance) and distance <= C * (1 + 1e-5)


def test_no_row_alone_is_longer_than_c_to_the_last_bit(module):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(300, 5, generator=generator) * torch.logspace(-3, 6, 300)[:, None]
    for clipping in ("hooks", "functorch"):
        for x in X:
            assert float(clipped_sum(module, x[None], [1], clipping).norm()) <= C


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_row_without_finite_gradient_is_left_out(rows, clipping):
    """A network that divides by what a row holds."""

    class Divide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x / x[:, :1])

    X, codes = rows
    module = Divide()
    broken = np.concatenate([X, np.zeros((2, 5), dtype=np.float32)])
    found = clipped_sum(module, broken, [*codes, 0, 1], clipping)
    assert torch.isfinite(found).all()
    assert torch.allclose(found, clipped_sum(module, X, codes, clipping), atol=1e-6)
    assert clipped_sum(module, broken[-2:], [0, 1], clipping).norm() == 0


def test_augmented_copies_are_averaged_before_they_are_clipped(module):
    X, code = torch.randn(1, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([2])
    copies = torch.stack([X[0], 3 * X[0], -X[0]])[None]
    sums = make_clipped_sums("hooks", module, C)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in sums.parameters]
    sums.add(copies, code, totals)
    sums.close()
    mean = sum(flat(row_gradient(module, x, 2)) for x in copies[0]) / 3
    expected = mean * min(1.0, C / float(mean.norm()))
    assert torch.allclose(flat(totals), expected, atol=1e-6)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_change_each_image_from_itself_alone(name):
    images = torch.arange(3 * 2 * 12 * 12.0).reshape(3, 2, 12, 12)
    augment = Augmentation(AUGMENTATIONS[name], 40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        copies = augment(images)
    assert copies.shape == (3, 40, 2, 12, 12)
    for image, own in zip(images, copies, strict=True):
        assert set(own.unique().tolist()) <= set(image.unique().tolist())
        assert len(own.flatten(1).unique(dim=0)) > 1
    with pytest.raises(ValueError, match="keep the shape"):
        Augmentation(lambda X: X[:, :1]).check(images[:1])


# -- noise ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide():
    return torch.nn.Linear(2000, 3)


@pytest.mark.parametrize("relation", ["add_or_remove_one", "replace_one"])
@pytest.mark.parametrize("seed", [None, 7])
def test_noise_has_the_stated_size(wide, relation, seed):
    """Full batch, so that what is no noise is known; 6,003 entries reject 0.8 and 1.25 times σ."""
    X, codes = np.ones((4, 2000), dtype=np.float32), [0, 1, 2, 0]
    source = mechanism(
        wide, (X, codes), q=1.0, n_steps=2, noise=noise_source(seed), relation=relation
    )
    total = clipped_sum(wide, X, codes, "hooks")
    draws = [released(source) * source.expected_batch_size() - total for _ in range(2)]
    (record,) = source.run.records
    factor = 1.0 if relation == "add_or_remove_one" else 2.0
    assert record.l2_sensitivity == factor * C and record.count == 2
    sigma = record.noise_standard_deviation
    assert sigma == pytest.approx(source.run.plan[GRADIENT].noise_multiplier * factor * C, rel=2e-3)
    for draw in draws:
        for scale, fits in ((1.0, True), (0.8, False), (1.25, False)):
            p = stats.kstest(draw.numpy() / (scale * sigma), "norm").pvalue
            assert (p > 1e-4) == fits
    assert abs(np.corrcoef(*(d.numpy() for d in draws))[0, 1]) < 0.06


def test_noise_of_the_rule_is_that_of_the_release(wide):
    X, codes = np.zeros((4, 2000), dtype=np.float32), [0, 1, 2, 0]
    source = mechanism(wide, (X, codes), q=0.5, n_samples=50)
    expected = source.run.records == [] and source.gradient_noise()
    released(source)
    assert expected == source.run.records[0].noise_standard_deviation / 25


@pytest.mark.parametrize("n_samples", [50, None])
@pytest.mark.parametrize("epsilon", [1e-6, 1.0, 100.0])
def test_releases_are_whole_steps_of_a_public_grid(wide, epsilon, n_samples):
    X, codes = np.ones((4, 2000), dtype=np.float32), [0, 1, 2, 0]
    source = mechanism(wide, (X, codes), q=1.0, epsilon=epsilon, n_samples=n_samples)
    public, exact = source._sum(GRADIENT), clipped_sum(wide, X, codes, "hooks")
    assert math.frexp(public.unit)[0] == 0.5  # a power of two
    whole = _whole_steps(exact, public.unit)
    assert float((whole * public.unit - exact).abs().max()) <= public.unit / 2
    released = source.run.release(GRADIENT, public, lambda: whole)
    steps = released.value / public.unit
    assert torch.equal(steps.round(), steps) and not torch.equal(steps, whole.double())
    assert source.n_samples() == round(source.n_samples())
    gradient, *counts = source.run.records
    assert gradient.sum_unit == public.unit and gradient.numerical_slack > 0.0
    assert [(c.sum_unit, c.numerical_slack) for c in counts] == [(1.0, 0.0)] * (n_samples is None)


@pytest.mark.parametrize("n_entries", [1, 6_003, 2**31])
@pytest.mark.parametrize("noise_multiplier", [1e-3, 1.0, 1e6, 1e10])
def test_the_grid_adds_little_and_keeps_noise_far_from_overflow(n_entries, noise_multiplier):
    step = _grid_step(1.0, n_entries, noise_multiplier)
    assert noise_multiplier * (1.0 / step + math.sqrt(n_entries)) <= 2.0**50
    if noise_multiplier <= 1e6:
        assert step * math.sqrt(n_entries) <= 2.0**-12


# -- sampling and spending -----------------------------------------------------------


def test_rows_are_drawn_independently_with_the_stated_probability(module, rows):
    source = mechanism(module, rows, q=0.3, n_steps=1)
    drawn = torch.stack(
        [torch.bincount(source._sampled_rows(), minlength=60) for _ in range(2000)]
    ).double()
    hits = drawn.sum(0)
    assert drawn.max() == 1
    assert stats.binomtest(int(hits.sum()), 120_000, 0.3).pvalue > 1e-4
    assert stats.chisquare(hits.numpy(), [float(hits.mean())] * 60).pvalue > 1e-4
    # Sizes of samples vary as those of independent draws do, not as those of shuffled batches.
    sizes = drawn.sum(1)
    assert float(sizes.var()) == pytest.approx(60 * 0.3 * 0.7, rel=0.15)


def test_an_empty_sample_is_a_step_like_any_other(module, rows):
    source = mechanism(module, rows, q=1e-4, n_steps=2)
    gradient = released(source)
    assert float(gradient.abs().min()) > 0 and source.steps == 1
    released(source)
    with pytest.raises(RuntimeError, match="all are spent"):
        source.release_gradient()


def test_sums_do_not_depend_on_how_rows_go_through_the_network(module, rows):
    gradients = [
        released(mechanism(module, rows, epsilon=math.inf, q=1.0, physical_batch_size=n))
        for n in (1, 7, 60)
    ]
    for gradient in gradients[1:]:
        assert torch.allclose(gradient, gradients[0], atol=1e-7)


def test_the_event_is_that_of_the_sampler_that_ran(module, rows):
    source = mechanism(module, rows, q=0.25, n_steps=4, n_samples=None)
    for _ in range(4):
        source.release_gradient()
    count, gradient = source.run.records
    assert (count.name, count.sampling_probability, count.count) == ("count", 1.0, 1)
    assert (gradient.sampling_probability, gradient.count) == (0.25, 4)
    assert gradient.event == source.run.plan[GRADIENT].event


def test_gradients_are_divided_by_a_noisy_count_and_never_by_the_true_one(module, rows):
    sizes = set()
    for seed in range(8):
        source = mechanism(
            module, rows, q=0.5, n_samples=None, noise=SeededNoise(seed), epsilon=8.0
        )
        sizes.add(source.expected_batch_size())
    assert len(sizes) > 4
    assert mechanism(module, rows, q=0.5, n_samples=50).expected_batch_size() == 25
    source = mechanism(module, rows, q=0.5, n_samples=None, relation="replace_one")
    assert source.expected_batch_size() == 30 and source.run.records == []


class Charge:
    """A ledger's charge that keeps the order of things, or refuses."""

    def __init__(self, log, refuse=False):
        self.log, self.refuse = log, refuse

    def commit(self):
        self.log.append("paid")
        if self.refuse:
            raise ValueError("too late")


class LoggedNoise(SeededNoise):
    def __init__(self, log):
        super().__init__(0)
        self.log = log

    def bernoulli(self, probability, size):
        self.log.append("drawn")
        return super().bernoulli(probability, size)


def test_it_pays_before_it_looks_at_a_row(module, rows):
    log = []
    source = mechanism(module, rows, charge=Charge(log), noise=LoggedNoise(log))
    source.release_gradient()
    assert log == ["paid", "drawn"]
    log.clear()
    refused = mechanism(module, rows, charge=Charge(log, refuse=True), noise=LoggedNoise(log))
    with pytest.raises(ValueError, match="too late"):
        refused.release_gradient()
    assert log == ["paid"] and refused.run.records == []


def test_a_state_goes_on_and_no_other_plan_takes_it(module, rows):
    source = mechanism(module, rows, n_samples=None)
    source.release_gradient()
    other = mechanism(module, rows, n_samples=None)
    other.load_state(source.state())
    assert other.steps == 1 and other.n_samples() == source.n_samples()
    with pytest.raises(ValueError, match="not what this fit would draw"):
        mechanism(module, rows, n_samples=None, q=0.4).load_state(source.state())
