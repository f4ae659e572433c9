"""Every optimizer reproduces the result that its paper is known for, on a problem small enough."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dpfc.full_models.optimizers.factory import OptimizerSettings, make_optimizer
from dpfc.full_models.optimizers.schedules import refined_multipliers

# Slopes of a|x| between those too flat and those too steep for the noise to be hard.
SLOPES = (1.0, 0.3, 0.1, 0.03, 0.01)
N_RUNS = 1000


def minimise(settings, start, subgradient, n_steps, *, after_step=None, seed=0):
    """Last published weights, from subgradients at the weights that are in place."""
    parameter = torch.nn.Parameter(torch.as_tensor(start, dtype=torch.float64).clone())
    rule = make_optimizer(
        settings, [parameter], n_steps=n_steps, uniform=random.Random(seed).random
    )
    for step in range(n_steps):
        parameter.grad = subgradient(parameter.detach(), step)
        rule.step()
        if after_step is not None:
            rule.eval_mode()
            after_step(step, parameter.detach())
            rule.train_mode()
    rule.eval_mode()
    return parameter.detach()


def noisy_slope(slope, norms, seed=0):
    """Stochastic subgradients of a|x| with E g² = norm², the same law in every entry."""
    generator = torch.Generator().manual_seed(seed)

    def subgradient(x, step):
        noise = math.sqrt(norms[step] ** 2 - slope**2)
        return slope * x.sign() + noise * torch.randn(
            x.shape, generator=generator, dtype=torch.float64
        )

    return subgradient


def worst_mean_gap(settings, norms):
    """Mean of a|x| after a run from x = 1, over independent runs, for the worst slope a.

    Each entry is a run of its own: the optimizers used here treat entries separately.
    """
    return max(
        slope
        * float(
            minimise(settings, [1.0] * N_RUNS, noisy_slope(slope, norms), len(norms)).abs().mean()
        )
        for slope in SLOPES
    )


class HardFunction:
    """The convex Lipschitz function on which the last iterate is worse than the average.

    f(x) = max_i h_i·x, minimum at 0 within reach of the claim; at 0 ties go to the lowest i.
    Harvey, Liaw, Plan, Randhawa (2019), Tight Analyses for Non-smooth Stochastic Gradient
    Descent, section 3, for constant steps.
    """

    def __init__(self, n_steps):
        left = torch.arange(n_steps, 0, -1, dtype=torch.float64)
        self.rise = torch.cat([1 / (8 * left), torch.zeros(1, dtype=torch.float64)])
        self.start = torch.zeros(n_steps + 1, dtype=torch.float64)

    def values(self, x):
        earlier = torch.cumsum(self.rise * x, 0) - self.rise * x
        return earlier - 0.5 * x

    def subgradient(self, x, step):
        values = self.values(x)
        active = int((values >= values.max() - 1e-12).nonzero()[0])
        gradient = torch.zeros_like(x)
        gradient[:active] = self.rise[:active]
        gradient[active] = -0.5
        return gradient

    def scaled_gap(self, settings_for):
        """f at the published weights, times sqrt(n_steps)."""
        n_steps = self.start.numel() - 1
        settings = settings_for(1 / math.sqrt(n_steps))
        x = minimise(settings, self.start, self.subgradient, n_steps)
        return float(self.values(x).max()) * math.sqrt(n_steps)


def test_linear_decay_loses_the_log_factor_that_a_constant_rate_pays_at_the_last_iterate():
    """Defazio et al. (2023), Corollary 2, against Harvey et al. (2019), Theorem 3.1."""
    problems = [HardFunction(n_steps) for n_steps in (100, 400, 1600)]
    constant, linear = (
        [
            problem.scaled_gap(
                lambda rate, schedule=schedule: OptimizerSettings(
                    "sgd", rate, momentum=0.0, schedule=schedule
                )
            )
            for problem in problems
        ]
        for schedule in ("constant", "linear")
    )
    # Each fourfold run adds the same amount to the constant rate's: that is log T.
    assert constant[1] - constant[0] == pytest.approx(constant[2] - constant[1], rel=0.01)
    assert constant[1] - constant[0] > 0.05
    assert max(linear) < 1.02 * min(linear)
    assert max(linear) < 0.25 * constant[0]


@pytest.mark.parametrize("n_steps", [10, 100, 1000])
def test_linear_decays_last_iterate_obeys_the_bound(n_steps):
    """E f(x_T) - f* <= D G / sqrt(T): Defazio et al. (2023), Corollary 2."""
    norm = 2.0
    horizon = n_steps + 1
    # The theory's rate is proportional to 1 - t/T, whose largest value is n/(n + 1).
    rate = 1.0 / (norm * math.sqrt(horizon)) * n_steps / horizon
    settings = OptimizerSettings("sgd", rate, momentum=0.0, schedule="linear")
    gap, bound = worst_mean_gap(settings, [norm] * n_steps), norm / math.sqrt(horizon)
    assert gap < bound
    # Some slope is nearly as hard as the bound says: the rate is that of the theory.
    assert gap > 0.2 * bound


def test_refined_schedules_obey_their_bound_and_beat_linear_decay_where_norms_change():
    """E f(x_T) - f* <= D / sqrt(sum G_t^-2): Defazio et al. (2023), Theorem 3."""
    n_steps = 400
    norms = [1.5 + 18.5 * math.exp(-step / 40) for step in range(n_steps)]
    weights = torch.tensor([*norms, norms[-1]], dtype=torch.float64) ** -2
    bound = 1 / math.sqrt(float(weights.sum()))
    # w_t = D G_t^-2 / sqrt(sum G^-2), and the rate is w_t w_{t+1:T} / w_{1:T}.
    later = weights.flip(0).cumsum(0).flip(0)
    rate = float((weights[:-1] * later[1:]).max()) * bound / float(later[0])
    refined = OptimizerSettings(
        "sgd", rate, momentum=0.0, schedule="refined", schedule_norms=tuple(norms)
    )
    assert len(refined_multipliers(norms, n_steps, 2.0)) == n_steps
    linear_bound = math.sqrt(sum(norm**2 for norm in norms) / n_steps**2)
    linear_rate = 1 / math.sqrt(sum(norm**2 for norm in norms))
    linear = OptimizerSettings("sgd", linear_rate, momentum=0.0, schedule="linear")
    gap = worst_mean_gap(refined, norms)
    # The median filter moves the norms a little from those that the bound is for.
    assert gap < 1.1 * bound < 0.5 * linear_bound
    assert gap < 0.7 * worst_mean_gap(linear, norms)


def test_norms_observed_in_a_run_give_a_schedule_with_warmup_and_decay():
    """The loop as a user runs it: a first run's `gradient_norms` refine the second's schedule."""
    parameter = torch.nn.Parameter(torch.full((20,), 5.0, dtype=torch.float64))
    rule = make_optimizer(
        OptimizerSettings("sgd", 0.02, momentum=0.0), [parameter], n_steps=300, uniform=lambda: 0.0
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        noise = torch.randn(20, generator=generator, dtype=torch.float64)
        parameter.grad = parameter.detach() + noise
        rule.step()
    settings = OptimizerSettings(schedule="refined", schedule_norms=tuple(rule.gradient_norms))
    multipliers = refined_multipliers(settings.schedule_norms, 300, 2.0)
    peak = multipliers.index(1.0)
    assert 30 < peak < 240
    assert multipliers[0] < 0.3
    assert multipliers[-1] < 0.05


@pytest.mark.parametrize(("slope", "norm"), [(1.0, 1.0), (1.0, 3.0), (0.1, 3.0), (0.02, 1.0)])
def test_schedule_free_sgd_obeys_the_bound_at_every_step_without_knowing_the_last(slope, norm):
    """Defazio et al. (2024), Theorem 2, whose proof holds for any rate and any T.

    E f(x_T) - f* <= D²/(2 γ T) + γ G²/2, which γ = D/(G sqrt(T)) makes D G / sqrt(T). The
    package leaves the start out of the average, which moves D² by at most γ² G².
    """
    n_steps, rate = 500, 1.0 / (norm * math.sqrt(500))
    gaps = []
    minimise(
        OptimizerSettings("schedule-free-sgd", rate),
        [1.0] * N_RUNS,
        noisy_slope(slope, [norm] * n_steps),
        n_steps,
        after_step=lambda step, x: gaps.append(slope * float(x.abs().mean())),
    )
    for done, gap in enumerate(gaps, start=1):
        bound = 1 / (2 * rate * done) + rate * norm**2 / 2 * (1 + 1 / done)
        assert gap < 1.02 * bound, done
    assert gaps[-1] < norm / math.sqrt(n_steps) * 1.02


def test_schedule_free_sgd_has_no_log_factor_where_a_constant_rate_has():
    scaled = [
        HardFunction(n_steps).scaled_gap(lambda rate: OptimizerSettings("schedule-free-sgd", rate))
        for n_steps in (100, 400, 1600)
    ]
    assert scaled[2] < 1.05 * scaled[0]


@pytest.mark.parametrize("n_steps", [100, 1000])
def test_schedule_free_adamw_has_the_same_rate(n_steps):
    """With E g² = G² in every entry AdamW's step is that of SGD at lr/G."""
    settings = OptimizerSettings("schedule-free-adamw", 1.0 / math.sqrt(n_steps))
    norm = 2.0
    assert worst_mean_gap(settings, [norm] * n_steps) < 1.1 * norm / math.sqrt(n_steps)


def steps_taken(bias_correction, n_steps=4000, n_entries=300):
    """Mean of the last steps, over lr, of entries with gradients 0.2 and 0.6 under noise of 1."""
    gradient = torch.tensor([[0.2], [0.6]], dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros(2, n_entries, dtype=torch.float64))
    rule = make_optimizer(
        OptimizerSettings("adam", 1.0, betas=(0.9, 0.9999), bias_correction=bias_correction),
        [parameter],
        n_steps=n_steps,
        noise_standard_deviation=1.0,
        uniform=lambda: 0.0,
    )
    generator = torch.Generator().manual_seed(2)
    for step in range(n_steps):
        if step == n_steps - 500:
            before = parameter.detach().clone()
        noise = torch.randn(2, n_entries, generator=generator, dtype=torch.float64)
        parameter.grad = gradient + noise
        rule.step()
    return ((before - parameter.detach()).mean(1) / 500).tolist()


def test_dp_adam_is_dp_sgd_unless_its_bias_is_corrected():
    """Tang, Shpilevskiy, Lécuyer (2024), the title's claim.

    Adam's mean step is the gradient's sign, of length lr, whatever the gradient's size. Noise
    makes it nearly proportional to the gradient, as SGD's is; the correction undoes that.
    """
    small, large = steps_taken(bias_correction=False)
    assert large / small > 2.5
    small, large = steps_taken(bias_correction=True)
    assert 0.8 < small < 1.4
    assert 0.9 < large < 1.1


def rosenbrock(w):
    """Nesterov's nonsmooth Chebyshev-Rosenbrock function, and its gradient.

    Gürbüzbalaban, Overton (2012), On Nesterov's Nonsmooth Chebyshev-Rosenbrock Functions.
    """
    inner = w[1] - 2 * w[0] ** 2 + 1
    sign = torch.sign(inner)
    value = 0.25 * (w[0] - 1) ** 2 + inner.abs()
    return float(value), torch.stack([0.5 * (w[0] - 1) - 4 * w[0] * sign, sign])


def test_o2nc_finds_a_goldstein_stationary_point_where_no_gradient_is_small():
    """Cutkosky, Mehta, Orabona (2023), Theorem 8 and Corollary 9, on a curved nonsmooth valley."""
    start, delta = torch.tensor([-1.0, 1.5], dtype=torch.float64), 0.1
    first_value, _ = rosenbrock(start)
    for n_steps in (500, 4000):
        horizon = math.ceil((5.0 * n_steps * delta / first_value) ** (2 / 3))
        points, gradients = [], []

        def subgradient(w, step, points=points, gradients=gradients):
            points.append(w.clone())
            gradients.append(rosenbrock(w)[1])
            return gradients[-1].clone()

        radius = delta / horizon
        settings = OptimizerSettings("o2nc", radius, momentum=1 - 1 / horizon)
        minimise(settings, start, subgradient, n_steps)
        used = n_steps // horizon * horizon
        blocks = torch.stack(gradients)[:used].reshape(-1, horizon, 2)
        average = float(blocks.mean(1).norm(dim=1).mean())
        norms = torch.stack(gradients).norm(dim=1)
        bound = first_value / (radius * used) + 2.5 * float(norms.max()) / math.sqrt(horizon)
        assert average < bound
        assert average < 0.6 < float(norms.min())
        where = torch.stack(points)[:used].reshape(-1, horizon, 2)
        assert float((where - where.mean(1, keepdim=True)).norm(dim=2).max()) <= delta


def kinked_norm(n_steps, seed, n_entries=10, noise=2.0):
    """Mean norm of block averages of true gradients on sum ||x_i| - 1| / sqrt(d), under noise."""
    scale = 1 / math.sqrt(n_entries)
    distance = 0.7 * n_entries * scale
    horizon = math.ceil((math.sqrt(1 + noise**2) * n_steps / distance) ** (2 / 3))
    generator = torch.Generator().manual_seed(seed)
    gradients = []

    def subgradient(x, step):
        gradients.append((x.abs() - 1).sign() * x.sign() * scale)
        return gradients[-1] + noise * scale * torch.randn(
            n_entries, generator=generator, dtype=torch.float64
        )

    settings = OptimizerSettings("o2nc", 1 / horizon, momentum=1 - 1 / horizon)
    minimise(settings, [0.3] * n_entries, subgradient, n_steps, seed=seed)
    used = n_steps // horizon * horizon
    blocks = torch.stack(gradients)[:used].reshape(-1, horizon, n_entries)
    return float(blocks.mean(1).norm(dim=1).mean())


@pytest.mark.slow
def test_o2nc_has_the_best_possible_rate_on_a_noisy_nonsmooth_nonconvex_problem():
    """ε ~ (N δ)^(-1/3): Corollary 9. Eight times the steps make ε half as large."""
    coarse = sum(kinked_norm(2000, seed) for seed in range(4)) / 4
    fine = sum(kinked_norm(16_000, seed) for seed in range(2)) / 2
    assert 1.7 < coarse / fine < 2.8


def telescoped(uniform_values, n_steps=40):
    """Σ <g_n, Δ_n> and F(x_N) - F(x_0) for F(x) = |x| + x⁴/4, whose steps jump its kink."""
    values = iter(uniform_values)
    parameter = torch.nn.Parameter(torch.tensor([0.35], dtype=torch.float64))
    rule = make_optimizer(
        OptimizerSettings("o2nc", 0.3, momentum=0.5),
        [parameter],
        n_steps=n_steps,
        uniform=lambda: next(values),
    )
    point, update, total = 0.35, 0.0, 0.0
    for _ in range(n_steps):
        gradient = float(parameter.detach().sign() + parameter.detach() ** 3)
        total += gradient * update
        point += update
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        rule.step()
        state = rule.state_dict()["optimizer"]["state"][0]
        update = float(state["update"])
        point = float(state["point"]) - update
    return total, abs(point) + point**4 / 4 - 0.35 - 0.35**4 / 4


def test_random_scaling_makes_linear_losses_add_up_to_the_change_of_the_function():
    """E Σ <g_n, Δ_n> = E F(x_N) - F(x_0), the identity of Theorem 7; without it, not."""
    source = random.Random(4)
    pairs = [telescoped([source.random() for _ in range(40)]) for _ in range(400)]
    differences = torch.tensor([total - change for total, change in pairs])
    standard_error = float(differences.std()) / math.sqrt(len(pairs))
    assert abs(float(differences.mean())) < 5 * standard_error
    total, change = telescoped([1.0] * 40)
    assert abs(total - change) > 20 * standard_error
