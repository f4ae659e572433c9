"""What can't be is refused, in a sentence that says what to write instead."""

from __future__ import annotations

import random

import pytest
import torch

from dpfc.full_models.optimizers.factory import OptimizerSettings, make_optimizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adamv"}, "Did you mean 'adam"),
        ({"name": "SGD"}, "Did you mean 'sgd'"),
        ({"name": None}, "optimizer must be one of 'sgd'"),
        ({"schedule": "lineal"}, "Did you mean 'linear'"),
        ({"learning_rate": 0.0}, "learning_rate must be a float in"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "learning_rate must be"),
        ({"momentum": 1.0}, "momentum must be a float in"),
        ({"momentum": -0.1}, "momentum must be"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"warmup_steps": 1.5}, "warmup_steps must be an int"),
        ({"warmup_steps": -1}, "warmup_steps must be"),
        ({"mechanic": 1}, "mechanic must be True or False"),
        ({"bias_correction": None}, "bias_correction must be"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"betas": (0.9,)}, "betas must be two numbers"),
        ({"betas": (float("nan"), 0.9)}, "betas must be two numbers"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"name": "o2nc", "mechanic": True}, "mechanic tunes 'sgd', 'adam', 'adamw'"),
        ({"name": "schedule-free-sgd", "mechanic": True}, "mechanic tunes"),
        ({"name": "schedule-free-adamw", "schedule": "linear"}, "in place of a schedule"),
        ({"name": "schedule-free-sgd", "momentum": 0.0}, "momentum must not be 0"),
        ({"name": "schedule-free-adamw", "betas": (0.0, 0.9)}, "first of betas"),
        ({"schedule": "refined"}, "needs schedule_norms"),
        ({"schedule": "refined", "schedule_norms": ()}, "needs schedule_norms"),
        ({"schedule": "linear", "schedule_norms": (1.0,)}, "are for the schedule 'refined'"),
        ({"schedule": "refined", "schedule_norms": (1.0, float("nan"))}, "finite numbers"),
        ({"schedule": "refined", "schedule_norms": (1.0, -1.0)}, "not negative"),
        (
            {"schedule": "refined", "schedule_norms": (1.0,), "warmup_steps": 1},
            "finds its own warmup",
        ),
    ],
)
def test_wrong_settings_are_refused_in_a_clear_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be an int"),
        ({"n_steps": 3}, "warmup_steps must be below the number of steps, 3, got 3"),
        ({"noise_standard_deviation": -1.0}, "noise_standard_deviation must be"),
        ({"noise_standard_deviation": float("nan")}, "noise_standard_deviation must be"),
    ],
)
def test_a_wrong_run_is_refused_in_a_clear_sentence(arguments, message):
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    arguments = {"n_steps": 10, "uniform": random.random, **arguments}
    with pytest.raises(ValueError, match=message):
        make_optimizer(OptimizerSettings(warmup_steps=3), parameters, **arguments)
