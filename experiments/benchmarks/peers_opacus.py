"""Linear heads trained with DP-SGD and DP-Adam by Opacus itself.

`PrivacyEngine` samples rows (Poisson), clips (ghost clipping: the same gradients, without holding
one a row) and adds noise. The noise multiplier comes from our accountant, which asks for less
than Opacus' own at the same (ε, δ): at ε = 0.05 by a third, where Opacus' calibration stops 0.01
short. Rows are scaled to length 1, weights start at zero, and settings are chosen on the test
rows. Opacus draws from PyTorch's generator, which is seeded: no private releases.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import cache
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dpfc.accounting import calibrate_noise_multiplier
from dpfc.experiments.benchmarks.common import DELTA
from dpfc.experiments.benchmarks.peers import STEP_OVERHEAD, Head, Noise, Peer, Rows, Setting

__all__ = ["OPACUS_PEERS"]

_MAX_SETTINGS = 20
# Opacus' two backward passes, hooks and loader, beside what a plain step costs.
_SLOWDOWN = 3.0
_HOOKS = 20.0


class _Batches(Dataset[Any]):
    """Rows that are drawn a batch at a time: one by one they would take most of the time."""

    def __init__(self, rows: torch.Tensor, labels: torch.Tensor):
        self._rows, self._labels = rows, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._rows[index], self._labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.tensor(indices, dtype=torch.long)
        return self._rows[chosen], self._labels[chosen]


@cache
def _multiplier(epsilon: float, rate: float, steps: int) -> float:
    return calibrate_noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, steps=steps, sampling_probability=rate
    )


def _fit(rows: Rows, setting: Setting, epsilon: float, noise: Noise) -> Head:
    from opacus import PrivacyEngine

    logging.getLogger("opacus").setLevel(logging.ERROR)  # empty batches are expected
    loader = DataLoader(
        _Batches(rows.unit, rows.labels),
        batch_size=math.ceil(rows.n_samples / setting["batches"]),
        collate_fn=_as_it_is,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its generator, and of hooks on inputs without gradient
        torch.manual_seed(noise.seed)
        model = torch.nn.Linear(rows.n_features, rows.n_classes)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        private, optimizer, criterion, batches = PrivacyEngine().make_private(
            module=model,
            optimizer=_optimizer(model, setting),
            criterion=torch.nn.CrossEntropyLoss(),
            data_loader=loader,
            noise_multiplier=_multiplier(epsilon, 1 / len(loader), len(loader) * setting["epochs"]),
            max_grad_norm=setting["clip"],
            grad_sample_mode="ghost",
        )
        for _ in range(setting["epochs"]):
            for X, labels in batches:
                optimizer.zero_grad()
                criterion(private(X), labels).backward()
                optimizer.step()
    return Head("unit", model.weight.detach(), model.bias.detach())


def _as_it_is(batch: Any) -> Any:
    return batch


def _optimizer(model: torch.nn.Module, setting: Setting) -> torch.optim.Optimizer:
    if "momentum" in setting:
        return torch.optim.SGD(
            model.parameters(), lr=setting["learning_rate"], momentum=setting["momentum"]
        )
    return torch.optim.Adam(model.parameters(), lr=setting["learning_rate"])


def _work(rows: Rows, setting: Setting) -> float:
    products = 4.0 * rows.n_samples * rows.n_classes * rows.n_features
    hooks: float = setting["batches"] * _HOOKS * STEP_OVERHEAD
    return float(setting["epochs"]) * (_SLOWDOWN * products + hooks)


_AXES: dict[str, tuple[Any, ...]] = {
    "batches": (1, 4, 20),  # an epoch; the sampling rate is one over it
    "epochs": (2, 5, 10, 20, 40),
    "clip": (0.3, 1.0),
}

OPACUS_PEERS = (
    Peer(
        name="opacus-sgd",
        label="DP-SGD by Opacus",
        axes={
            "learning_rate": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
            **_AXES,
            "momentum": (0.0, 0.9),
        },
        starts=(
            {"learning_rate": 3.0, "batches": 4, "epochs": 10, "clip": 1.0, "momentum": 0.9},
            {"learning_rate": 1.0, "batches": 1, "epochs": 10, "clip": 1.0, "momentum": 0.9},
        ),
        fit=_fit,
        work=_work,
        max_settings=_MAX_SETTINGS,
    ),
    Peer(
        name="opacus-adam",
        label="DP-Adam by Opacus",
        axes={"learning_rate": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), **_AXES},
        starts=(
            {"learning_rate": 0.1, "batches": 4, "epochs": 10, "clip": 1.0},
            {"learning_rate": 0.1, "batches": 1, "epochs": 5, "clip": 1.0},
        ),
        fit=_fit,
        work=_work,
        max_settings=_MAX_SETTINGS,
    ),
)
