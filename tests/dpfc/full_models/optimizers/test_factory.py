"""Every optimizer steps as published, resumes bit for bit, and reads gradients only."""

from __future__ import annotations

import ast
import io
import itertools
import random

import pytest
import torch

from dpfc.features.exceptions import MissingDependencyError
from dpfc.full_models.optimizers.adam import sum_of_squared_weights
from dpfc.full_models.optimizers.factory import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerSettings,
    StepRule,
    make_optimizer,
)
from dpfc.full_models.optimizers.schedules import refined_multipliers

NORMS = (4.0, 3.0, 2.0, 1.0, 1.0, 2.0)
SCHEDULE_FREE = ("schedule-free-sgd", "schedule-free-adamw")


def settings_of(name, schedule="constant", mechanic=False, **others):
    norms = NORMS if schedule == "refined" else None
    # Mechanic begins with a scale of 1e-8: only so do six steps move the weights by much.
    rate = 1e6 if mechanic else None
    others = {"weight_decay": 0.01, "learning_rate": rate, **others}
    return OptimizerSettings(
        name, schedule=schedule, schedule_norms=norms, mechanic=mechanic, **others
    )


COMBINATIONS = [
    *[
        settings_of(name, schedule, mechanic)
        for name in ("sgd", "adam", "adamw")
        for schedule in SCHEDULES
        for mechanic in (False, True)
    ],
    *[settings_of("o2nc", schedule) for schedule in SCHEDULES],
    *[settings_of(name, warmup_steps=steps) for name in SCHEDULE_FREE for steps in (0, 3)],
    settings_of("sgd", "linear", warmup_steps=2),
]


def label(settings):
    return f"{settings.name}-{settings.schedule}-{settings.mechanic}-{settings.warmup_steps}"


def fresh(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,), ())
    ]


def give_gradients(parameters, step):
    """Noise of a step's own, and a pull to 0: a gradient that depends on the weights."""
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.grad = parameter.detach() + 0.5 * noise


def make(settings, parameters, n_steps=6, noise=0.5, seed=7):
    source = random.Random(seed)
    rule = make_optimizer(
        settings,
        parameters,
        n_steps=n_steps,
        noise_standard_deviation=noise,
        uniform=source.random,
    )
    return rule, source


def flat(parameters):
    return torch.cat([parameter.detach().reshape(-1).clone() for parameter in parameters])


def assert_steps_equal_torch(settings, reference, n_steps=50, noise=0.0):
    parameters, others = fresh(), fresh()
    rule, _ = make(settings, parameters, n_steps, noise)
    theirs = reference(others)
    for step in range(n_steps):
        for group in (parameters, others):
            give_gradients(group, step)
        rule.step()
        theirs.step()
        assert torch.equal(flat(parameters), flat(others)), step


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_without_noise_is_torch_sgd(decay):
    assert_steps_equal_torch(
        OptimizerSettings("sgd", 0.1, momentum=0.8, weight_decay=decay),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, weight_decay=decay),
    )


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adams_without_noise_are_those_of_torch_bit_for_bit(name, decay):
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    settings = OptimizerSettings(name, 0.05, betas=(0.8, 0.99), weight_decay=decay)
    assert_steps_equal_torch(
        settings, lambda p: kind(p, 0.05, betas=(0.8, 0.99), weight_decay=decay)
    )


def test_bias_correction_can_be_switched_off():
    assert_steps_equal_torch(
        OptimizerSettings("adam", 0.05, bias_correction=False),
        lambda p: torch.optim.Adam(p, 0.05),
        noise=0.5,
    )
    with pytest.raises(AssertionError):
        assert_steps_equal_torch(
            OptimizerSettings("adam", 0.05), lambda p: torch.optim.Adam(p, 0.05), noise=0.5
        )


def mean_squared_denominator(assumed_noise, n_entries=4000, n_steps=2000):
    """Of the last step, for gradients 0.5 + N(0, 1); without noise it would be 1/4.

    With the first moment switched off, a step is the gradient over the denominator.
    """
    generator = torch.Generator().manual_seed(5)
    parameter = torch.nn.Parameter(torch.zeros(n_entries, dtype=torch.float64))
    settings = OptimizerSettings("adam", 1.0, betas=(0.0, 0.999))
    rule, _ = make(settings, [parameter], n_steps, assumed_noise)
    for _ in range(n_steps):
        parameter.grad = 0.5 + torch.randn(n_entries, generator=generator, dtype=torch.float64)
        before = parameter.detach().clone()
        rule.step()
    return float(((parameter.grad / (before - parameter.detach())) ** 2).mean())


def test_bias_correction_recovers_the_second_moment_and_a_wrong_noise_is_noticed():
    # Var (0.5 + z)² = 4·0.25 + 2 = 3, of which a moving average keeps the share Σ w².
    standard_error = (3 * sum_of_squared_weights(0.999, 2000) / 4000) ** 0.5
    assert standard_error < 0.001
    assert abs(mean_squared_denominator(1.0) - 0.25) < 6 * standard_error
    for wrong in (0.0, 0.9, 1.1):
        assert abs(mean_squared_denominator(wrong) - 0.25) > 60 * standard_error


def test_sum_of_squared_weights_is_that_of_the_moving_average():
    for beta, n_steps in ((0.9, 1), (0.9, 7), (0.999, 300), (0.0, 4)):
        weights = torch.tensor([beta ** (n_steps - 1 - i) for i in range(n_steps)]).double()
        weights /= weights.sum()
        assert sum_of_squared_weights(beta, n_steps) == pytest.approx(float((weights**2).sum()))


def test_where_gradients_are_noise_the_floor_keeps_adams_steps_short():
    parameter = torch.nn.Parameter(torch.zeros(2000))
    rule, _ = make(OptimizerSettings("adam", 1.0), [parameter], 100, 1.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(100):
        parameter.grad = torch.randn(2000, generator=generator)
        before = parameter.detach().clone()
        rule.step()
        length = float((parameter.detach() - before).norm() / 2000**0.5)
        assert length < 2.0, step


@pytest.mark.parametrize("settings", COMBINATIONS, ids=label)
def test_a_resume_after_any_step_is_bit_exact(settings):
    parameters = fresh()
    rule, source = make(settings, parameters)
    path, saved = [], []
    for step in range(6):
        content = io.BytesIO()
        torch.save({"rule": rule.state_dict(), "source": repr(source.getstate())}, content)
        saved.append(content.getvalue())
        give_gradients(parameters, step)
        rule.step()
        path.append(flat(parameters))
    assert (path[-1] - path[2]).norm() > 1e-3
    for start, content in enumerate(saved):
        state = torch.load(io.BytesIO(content), weights_only=True)
        others = fresh(seed=99)
        resumed, its_source = make(settings, others, seed=99)
        resumed.load_state_dict(state["rule"])
        its_source.setstate(ast.literal_eval(state["source"]))
        for step in range(start, 6):
            give_gradients(others, step)
            resumed.step()
            assert torch.equal(flat(others), path[step]), (start, step)
        assert resumed.gradient_norms == rule.gradient_norms
        resumed.eval_mode()
        rule.eval_mode()
        assert torch.equal(flat(others), flat(parameters))
        rule.train_mode()


@pytest.mark.parametrize("settings", COMBINATIONS, ids=label)
def test_a_state_is_a_copy_that_later_steps_leave_alone(settings):
    parameters = fresh()
    rule, _ = make(settings, parameters)
    for step in range(3):
        give_gradients(parameters, step)
        rule.step()
    state = rule.state_dict()
    content = io.BytesIO()
    torch.save(state, content)
    others = fresh(seed=1)
    resumed, _ = make(settings, others)
    resumed.load_state_dict(state)
    for step in range(3, 6):
        for group, one in ((parameters, rule), (others, resumed)):
            give_gradients(group, step)
            one.step()
    again = io.BytesIO()
    torch.save(state, again)
    assert again.getvalue() == content.getvalue()


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_looking_at_the_average_does_not_change_a_schedule_free_run(name):
    paths = []
    for look in (False, True):
        parameters = fresh()
        rule, _ = make(settings_of(name), parameters)
        for step in range(6):
            give_gradients(parameters, step)
            rule.step()
            training = flat(parameters)
            if look:
                rule.eval_mode()
                rule.eval_mode()
                # After one step the average is that step's iterate.
                assert torch.equal(flat(parameters), training) == (step == 0)
                rule.train_mode()
                rule.train_mode()
                assert torch.equal(flat(parameters), training)
        paths.append(training)
    assert torch.equal(*paths)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_a_state_saved_on_the_average_resumes_there(name):
    parameters, others = fresh(), fresh(seed=1)
    rule, _ = make(settings_of(name), parameters)
    for step in range(4):
        give_gradients(parameters, step)
        rule.step()
    rule.eval_mode()
    resumed, _ = make(settings_of(name), others)
    resumed.load_state_dict(rule.state_dict())
    assert torch.equal(flat(others), flat(parameters))
    with pytest.raises(RuntimeError, match="train_mode"):
        resumed.step()
    for group, one in ((parameters, rule), (others, resumed)):
        one.train_mode()
        give_gradients(group, 4)
        one.step()
    assert torch.equal(flat(others), flat(parameters))


def test_schedule_free_publishes_the_average_of_the_iterates():
    """Equations 3 to 5 of Defazio et al. (2024), written out."""
    (parameter,) = parameters = [torch.nn.Parameter(torch.tensor([1.0, -2.0]).double())]
    rule, _ = make(OptimizerSettings("schedule-free-sgd", 0.3, momentum=0.8), parameters, 20)
    x = z = parameter.detach().clone()
    for step in range(20):
        y = 0.2 * z + 0.8 * x
        torch.testing.assert_close(parameter.detach(), y)
        give_gradients(parameters, step)
        z = z - 0.3 * parameter.grad
        x = x + (z - x) / (step + 1)
        rule.step()
        rule.eval_mode()
        torch.testing.assert_close(parameter.detach(), x)
        rule.train_mode()


def test_o2nc_is_projected_gradient_descent_on_updates_with_random_scaling():
    """Algorithm 1 of Cutkosky, Mehta, Orabona (2023), written out; T = 4, D = 0.5."""
    (parameter,) = parameters = [torch.nn.Parameter(torch.tensor([1.0, -2.0]).double())]
    rule, _ = make(OptimizerSettings("o2nc", 0.5, momentum=0.75), parameters, 20, seed=3)
    source = random.Random(3)
    point = parameter.detach().clone()
    update, largest, lengths = torch.zeros(2).double(), 0.0, []
    for step in range(20):
        give_gradients(parameters, step)
        largest = max(largest, float(parameter.grad.norm()))
        update = update - 0.5 / (largest * 4**0.5) * parameter.grad
        lengths.append(float(update.norm()))
        update = update * min(1.0, 0.5 / lengths[-1])
        rule.step()
        torch.testing.assert_close(parameter.detach(), point + source.random() * update)
        point = point + update
    assert min(lengths) < 0.5 < max(lengths)


@pytest.mark.parametrize(("name", "power"), [("sgd", 2.0), ("adam", 1.0), ("adamw", 1.0)])
def test_refined_weights_are_inverse_squares_for_sgd_and_inverses_for_adam(name, power):
    parameter = torch.nn.Parameter(torch.zeros(()))
    settings = settings_of(name, "refined", learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    rule, _ = make(settings, [parameter], noise=0.0)
    path = [0.0]
    for _ in range(6):
        parameter.grad = torch.tensor(-1.0)
        rule.step()
        path.append(parameter.item())
    lengths = [later - earlier for earlier, later in itertools.pairwise(path)]
    assert lengths == pytest.approx(refined_multipliers(NORMS, 6, power), abs=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "o2nc"])
def test_the_modes_of_the_others_do_nothing(name):
    parameters = fresh()
    rule, _ = make(settings_of(name), parameters)
    give_gradients(parameters, 0)
    rule.step()
    before = flat(parameters)
    rule.eval_mode()
    assert torch.equal(flat(parameters), before)
    rule.train_mode()
    assert torch.equal(flat(parameters), before)


@pytest.mark.parametrize("settings", COMBINATIONS, ids=label)
def test_autograd_stays_on_and_norms_are_those_of_the_gradients(settings):
    parameters = fresh()
    rule, _ = make(settings, parameters)
    assert isinstance(rule, StepRule)
    norms = []
    for step in range(3):
        give_gradients(parameters, step)
        norms.append(float(torch.cat([p.grad.reshape(-1) for p in parameters]).norm()))
        rule.step()
        assert torch.is_grad_enabled()
    assert rule.gradient_norms == pytest.approx(norms, rel=1e-6)
    assert all(p.requires_grad and p.is_leaf for p in parameters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_length_of_a_first_step_follows_the_schedule(name):
    lengths = []
    for warmup_steps in (0, 4):
        parameters = fresh()
        settings = settings_of(name, warmup_steps=warmup_steps, weight_decay=0.0)
        rule, _ = make(settings, parameters)
        before = flat(parameters)
        give_gradients(parameters, 0)
        rule.step()
        lengths.append(float((flat(parameters) - before).norm()))
    assert lengths[1] == pytest.approx(lengths[0] / 4, rel=1e-3)


def test_a_run_beyond_its_plan_keeps_the_last_rate():
    parameter = torch.nn.Parameter(torch.zeros(()))
    settings = OptimizerSettings("sgd", 1.0, momentum=0.0, schedule="linear")
    rule, _ = make(settings, [parameter], 2)
    path = []
    for _ in range(4):
        parameter.grad = torch.tensor(-1.0)
        rule.step()
        path.append(parameter.item())
    assert path == [1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_gradient_is_refused_before_anything_moves(name):
    parameters = fresh()
    rule, _ = make(settings_of(name), parameters)
    give_gradients(parameters, 0)
    parameters[1].grad = None
    before = flat(parameters)
    with pytest.raises(RuntimeError, match=r"shape \(5,\) has no gradient"):
        rule.step()
    assert torch.equal(flat(parameters), before)
    assert rule.gradient_norms == []


def test_a_state_of_another_optimizer_is_refused():
    rule, _ = make(settings_of("sgd"), fresh())
    for other in (settings_of("adam"), settings_of("sgd", mechanic=True)):
        state = make(other, fresh())[0].state_dict()
        with pytest.raises(ValueError, match="resume with the settings of the run"):
            rule.load_state_dict(state)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_a_missing_package_is_named_with_what_installs_it(name, monkeypatch):
    monkeypatch.setattr("dpfc._support.packages.find_spec", lambda package: None)
    with pytest.raises(MissingDependencyError, match=r'schedulefree.*"dpfc\[full-models\]"'):
        make(settings_of(name), fresh())
    make(settings_of("adam"), fresh())
