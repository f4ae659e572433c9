"""The loop of a private training run: releases, steps, average, checkpoints."""

from __future__ import annotations

import copy
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dpfc._support.files import remove_stale
from dpfc.accounting import PrivacyStatement
from dpfc.full_models.checkpoints import (
    CheckpointError,
    check_alike,
    read_checkpoint,
    rows_digest,
    write_checkpoint,
)
from dpfc.full_models.dp_sgd.mechanism import GRADIENT, GradientMechanism
from dpfc.full_models.dp_sgd.rows import ModuleRows
from dpfc.full_models.optimizers.averaging import WeightAverage
from dpfc.full_models.optimizers.step_rule import StepRule
from dpfc.mechanism.noise import SeededNoise

__all__ = ["CheckpointPlan", "TrainingRun", "deferred_signals"]

# What the parts of a checkpoint raise that was put together by hand.
_MISFITS = (AttributeError, LookupError, TypeError, ValueError, OverflowError)


class CheckpointPlan:
    """Where and how often a run is kept, and what it has to match to go on.

    Parameters
    ----------
    path : Path
    every : int
        Steps.
    digest : str
        Of all that has to be the same, but for the rows.
    rows : ModuleRows
        Private; see `dpfc.full_models.checkpoints.rows_digest`.

    Attributes
    ----------
    kept : dict or None
        What an earlier process left.
    token : str
        What a ledger finds the run's spend by, whichever process made it.

    Raises
    ------
    CheckpointError
        If what is kept is not this fit's, or damaged.
    """

    def __init__(self, path: Path, every: int, digest: str, rows: ModuleRows):
        self.path = path
        self.every = every
        remove_stale(path)
        self.kept = read_checkpoint(path) if path.exists() else None
        salt = secrets.token_bytes(16) if self.kept is None else self.kept["rows"]["salt"]
        found = {"salt": salt, "digest": rows_digest(rows.tensors(), salt)}
        if self.kept is not None and (self.kept["digest"], self.kept["rows"]) != (digest, found):
            raise CheckpointError(
                f"{path} is the checkpoint of a fit with another module, parameters or data. Give "
                "the same ones to go on, or name another file to start afresh."
            )
        self.token: str = secrets.token_hex(16) if self.kept is None else self.kept["token"]
        self._base = {"digest": digest, "rows": found, "token": self.token}

    def begin(self, room: int) -> None:
        """Leave word of a run that is about to be paid for, and see that there is room for it.

        A process that is killed between its spend and its first step then pays once: the next
        one knows the token.

        Parameters
        ----------
        room : int
            Bytes of a checkpoint.

        Raises
        ------
        CheckpointError
            If it cannot be written; nothing was spent.
        """
        if self.kept is None:
            write_checkpoint(self.path, self._base, room)

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep a run as it stands.

        Raises
        ------
        CheckpointError
            If it cannot be written; an older one is left as it was.
        """
        write_checkpoint(self.path, {**self._base, **state})

    def add_statement(self, statement: PrivacyStatement) -> None:
        """Note that all is drawn and said; what is left is to save the model."""
        kept = read_checkpoint(self.path)
        write_checkpoint(self.path, {**kept, "statement": statement.to_json()})

    @property
    def begun(self) -> bool:
        """Whether anything was drawn that a run goes on from."""
        return self.kept is not None and "mechanism" in self.kept

    @property
    def statement(self) -> PrivacyStatement | None:
        """Of a run whose draws are complete."""
        text = None if self.kept is None else self.kept.get("statement")
        return None if text is None else PrivacyStatement.from_json(text)

    def forget(self) -> None:
        """Remove the file of a run that is complete."""
        self.path.unlink(missing_ok=True)


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
    checkpoints : CheckpointPlan or None
    """

    def __init__(
        self,
        module: torch.nn.Module,
        mechanism: GradientMechanism,
        make_rule: Callable[[float], StepRule],
        average: WeightAverage | None,
        checkpoints: CheckpointPlan | None,
    ):
        self._module = module
        self._mechanism = mechanism
        self._average = average
        self._checkpoints = checkpoints
        kept = checkpoints.kept if checkpoints is not None and checkpoints.begun else None
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
            At Ctrl-C, once the step in hand is done and kept. SIGTERM and SIGHUP do what they
            would have done, then.
        CheckpointError
            If a checkpoint cannot be written.
        FloatingPointError
            If the weights are no numbers any more; they are a release, so this tells nothing.
        """
        planned = self._mechanism.run.plan[GRADIENT].count
        self.rule.train_mode()
        with deferred_signals() as came:
            while self._mechanism.steps < planned and came() is None:
                self._mechanism.release_gradient()
                self.rule.step()
                if self._average is not None:
                    self._average.update()
                self._keep(came() is not None or self._mechanism.steps == planned)
            stopped_by = came()
        if stopped_by is not None:
            signal.raise_signal(stopped_by)
            raise KeyboardInterrupt  # where a handler of the caller's only takes note of it
        self.rule.eval_mode()
        if self._average is not None:
            self._average.copy_to_parameters()
        if not all(bool(torch.isfinite(p).all()) for p in self._module.parameters()):
            raise FloatingPointError(
                "the weights diverged: they hold NaN or infinity. The budget is spent. Lower "
                "learning_rate, or use mechanic=True."
            )

    def _keep(self, now: bool) -> None:
        plan = self._checkpoints
        if plan is not None and (now or self._mechanism.steps % plan.every == 0):
            plan.write(self._state())

    def _state(self) -> dict[str, Any]:
        noise = self._mechanism.run.noise
        return {
            # Releases alone: private rows may have left something in whatever else it holds.
            "module": {name: p.detach().cpu() for name, p in self._trained().items()},
            "mechanism": self._mechanism.state(),
            "rule": self.rule.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "noise": noise.state() if isinstance(noise, SeededNoise) else None,
        }

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self._module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _load_trained(self, kept: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._trained().items():
            parameter.copy_(kept[name])

    def _load_mechanism(self, kept: dict[str, Any]) -> None:
        try:
            self._mechanism.load_state(kept["mechanism"])
        except _MISFITS as error:
            raise _misfit(error) from error

    def _check_kind(self, kept: dict[str, Any]) -> None:
        """Refuse a state that is not of the kind that this run would leave."""
        wanted = self._state() | {"rule": _state_after_a_step(self.rule)}
        norms = kept["rule"]["gradient_norms"]
        if type(norms) is not list or len(norms) != self._mechanism.steps:
            raise ValueError("rule.gradient_norms must be a list of one number a step")
        wanted["rule"]["gradient_norms"] = [0.0] * len(norms)
        for name in ("module", "rule", "average", "noise"):
            check_alike(kept[name], wanted[name], name)

    def _load(self, kept: dict[str, Any]) -> None:
        try:
            self._check_kind(kept)
            self._load_trained(kept["module"])
            self.rule.load_state_dict(kept["rule"])
            if self._average is not None:
                self._average.load_state_dict(kept["average"])
            if isinstance(noise := self._mechanism.run.noise, SeededNoise):
                noise.load_state(kept["noise"])
        except (*_MISFITS, RuntimeError) as error:
            raise _misfit(error) from error


def _state_after_a_step(rule: StepRule) -> dict[str, Any]:
    """An example of what a rule keeps: some of it is there only once a step was taken."""
    tried = copy.deepcopy(rule)
    tried.train_mode()
    tried.made_up_step()
    return tried.state_dict()


def _misfit(error: Exception) -> CheckpointError:
    said = f"it lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
    return CheckpointError(
        f"the checkpoint does not fit this fit: {said}. Remove it to start afresh; that is a new "
        "fit, with a spend of its own."
    )


_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def deferred_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Hold a first Ctrl-C, SIGTERM or SIGHUP back; a second one does at once what it always does.

    What is ignored, as SIGHUP under nohup, stays ignored.

    Yields
    ------
    callable
        Which one came, if any. Outside the main thread, where Python gives signals to nobody, it
        never says so.
    """
    came: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def hold(number: int, _: object) -> None:
        came.append(signal.Signals(number))
        _restore(before)

    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            if (number := getattr(signal, name, None)) is None:
                continue
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None: it was not set from Python
                before[number] = handler
        for number in before:
            signal.signal(number, hold)
    try:
        yield lambda: came[0] if came else None
    finally:
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
