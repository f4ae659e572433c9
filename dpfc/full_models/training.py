"""The loop of a private training run: releases, steps, average, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from dpfc.full_models.averaging import WeightAverage
from dpfc.full_models.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from dpfc.full_models.interrupts import deferred_interrupt
from dpfc.full_models.private_gradients import GRADIENT, GradientMechanism
from dpfc.full_models.step_rule import StepRule
from dpfc.noise import NoiseSource, SeededNoise

__all__ = ["CheckpointPlan", "TrainingRun"]


@dataclass(frozen=True)
class CheckpointPlan:
    """Where and how often a run is kept, and what it has to match to go on."""

    path: Path
    every: int
    digest: str
    kept: dict[str, Any] | None

    @classmethod
    def open(cls, path: Path, every: int, digest: str) -> Self:
        """Read what is kept, if anything is.

        Raises
        ------
        CheckpointError
            If it is not this fit's, or damaged.
        """
        kept = read_checkpoint(path, digest) if path.exists() else None
        return cls(path, every, digest, kept)

    @property
    def paid(self) -> int | None:
        """The spend that paid for the whole run, if a ledger keeps it."""
        return None if self.kept is None else self.kept["spend"]


class TrainingRun:
    """Trains a module in place, from releases alone.

    Parameters
    ----------
    module : torch.nn.Module
    mechanism : GradientMechanism
        Of the module's trainable parameters.
    make_rule : callable
        From the standard deviation of a mean gradient's entries to the `StepRule`.
    average : WeightAverage or None
    noise : NoiseSource
        Of the mechanism; a seeded one's state is kept in checkpoints.
    checkpoints : CheckpointPlan or None
    spend_id : callable
        Gives the spend in a ledger once it is made.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        mechanism: GradientMechanism,
        make_rule: Callable[[float], StepRule],
        average: WeightAverage | None,
        noise: NoiseSource,
        checkpoints: CheckpointPlan | None,
        spend_id: Callable[[], int | None],
    ):
        self._module = module
        self._mechanism = mechanism
        self._average = average
        self._noise = noise
        self._checkpoints = checkpoints
        self._spend_id = spend_id
        kept = None if checkpoints is None else checkpoints.kept
        if kept is not None:
            self._load_mechanism(kept)
        # The noise's size needs the number of rows, which may be the first release.
        self.rule = make_rule(mechanism.gradient_noise())
        if kept is not None:
            self._load(kept)

    def run(self) -> None:
        """Take all steps that are left, and put the weights that are published in place.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C, once the step in hand is done and kept.
        CheckpointError
            If a checkpoint cannot be written.
        FloatingPointError
            If the weights are no numbers any more; they are a release, so this tells nothing.
        """
        planned = self._mechanism.plan[GRADIENT].count
        self.rule.train_mode()
        with deferred_interrupt() as interrupted:
            while self._mechanism.steps < planned:
                self._mechanism.release_gradient()
                self.rule.step()
                if self._average is not None:
                    self._average.update()
                self._keep(interrupted())
                if interrupted():
                    raise KeyboardInterrupt
        self.rule.eval_mode()
        if self._average is not None:
            self._average.copy_to_parameters()
        if not all(bool(torch.isfinite(p).all()) for p in self._module.parameters()):
            raise FloatingPointError(
                "the weights diverged: they hold NaN or infinity. The budget is spent. Lower "
                "learning_rate, or use mechanic=True."
            )

    def forget(self) -> None:
        """Remove the checkpoint of a run that is complete."""
        if self._checkpoints is not None:
            self._checkpoints.path.unlink(missing_ok=True)

    def _keep(self, now: bool) -> None:
        plan = self._checkpoints
        if plan is not None and (now or self._mechanism.steps % plan.every == 0):
            write_checkpoint(plan.path, self._state(plan.digest))

    def _state(self, digest: str) -> dict[str, Any]:
        return {
            "digest": digest,
            # Releases alone: private rows may have left something in whatever else it holds.
            "module": {name: p.detach().cpu() for name, p in self._trained().items()},
            "mechanism": self._mechanism.state(),
            "rule": self.rule.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "noise": self._noise.state() if isinstance(self._noise, SeededNoise) else None,
            "spend": self._spend_id(),
        }

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _load_trained(self, kept: dict[str, torch.Tensor]) -> None:
        trained = self._trained()
        if list(kept) != list(trained):
            raise ValueError("it has other trained parameters.")
        for name, parameter in trained.items():
            parameter.copy_(kept[name])

    def _load_mechanism(self, kept: dict[str, Any]) -> None:
        try:
            self._mechanism.load_state(kept["mechanism"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit this fit: {error}") from error

    def _load(self, kept: dict[str, Any]) -> None:
        try:
            self._load_trained(kept["module"])
            self.rule.load_state_dict(kept["rule"])
            if self._average is not None:
                self._average.load_state_dict(kept["average"])
            if isinstance(self._noise, SeededNoise):
                self._noise.load_state(kept["noise"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this fit: {error}") from error
