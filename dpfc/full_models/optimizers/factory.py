"""Optimizers on privatised gradients: what can be chosen, and the step rule that follows.

Every optimizer reads `p.grad` and the weights, nothing else. As the caller fills `p.grad` with
a release, whatever an optimizer does costs no privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from dpfc._support.suggestions import did_you_mean
from dpfc._support.validation import STEPS, Constraint, Flag, Interval, check_parameters, declared
from dpfc.full_models.optimizers.adam import PrivateAdam
from dpfc.full_models.optimizers.mechanic import Mechanic
from dpfc.full_models.optimizers.nonconvex import OnlineToNonconvex
from dpfc.full_models.optimizers.schedule_free import ScheduleFreeRule
from dpfc.full_models.optimizers.schedules import SCHEDULES, schedule_multipliers
from dpfc.full_models.optimizers.step_rule import StepRule

__all__ = ["OPTIMIZERS", "SCHEDULES", "OptimizerSettings", "StepRule", "make_optimizer"]

OPTIMIZERS: tuple[str, ...] = (
    "sgd",
    "adam",
    "adamw",
    "schedule-free-sgd",
    "schedule-free-adamw",
    "o2nc",
)
_LEARNING_RATES = {
    "sgd": 0.2,
    "adam": 2e-3,
    "adamw": 2e-3,
    "schedule-free-sgd": 2.0,
    "schedule-free-adamw": 5e-3,
    "o2nc": 0.2,
}
_ADAMS = ("adam", "adamw")
_WITH_MECHANIC = ("sgd", "adam", "adamw")


@declared
@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimizer, and how it is set.

    Parameters
    ----------
    name : {"sgd", "adam", "adamw", "schedule-free-sgd", "schedule-free-adamw", "o2nc"}
    learning_rate : float or None, default=None
        Of the mean gradient, before the schedule. For "o2nc" the largest l2 length of an
        update of all parameters together. None takes 0.2 for "sgd", 0.002 for "adam" and
        "adamw", 2 for "schedule-free-sgd" (as far as SGD with momentum 0.9 at 0.2), 0.005 for
        "schedule-free-adamw", 0.2 for "o2nc": between the best at a low and at a high noise
        level on a small network with gradients clipped at 1. Gradients clipped at C call for
        1/C times the rate of the SGDs.
    momentum : float in [0, 1), default=0.9
        Of "sgd"; β of "schedule-free-sgd", where it must not be 0; for "o2nc"
        T = 1/(1 - momentum) unrelated gradients, or sqrt(T) equal ones, make an update of
        full length.
    betas : (float, float), each in [0, 1), default=(0.9, 0.999)
        Of "adam", "adamw" and "schedule-free-adamw", for which the first must not be 0.
    weight_decay : float, default=0.0
        Shrinks the weights directly for "adamw" and "schedule-free-adamw"; for the others
        this times the weights is added to the gradient.
    schedule : {"constant", "linear", "cosine", "refined"}, default="constant"
        Of the learning rate (`dpfc.full_models.optimizers.schedules`); "constant" for the
        schedule-free.
    warmup_steps : int, default=0
        Steps over which the learning rate first rises linearly; 0 for "refined", which finds
        its own.
    schedule_norms : tuple of float or None, default=None
        For "refined": the `gradient_norms` of an earlier run with the same kind of optimizer.
        That run's privacy cost has to be counted as well.
    mechanic : bool, default=False
        Tune the learning rate's scale while training ("sgd", "adam", "adamw").
    bias_correction : bool, default=True
        For "adam" and "adamw": take the known variance of the noise out of the second moment.

    Raises
    ------
    ValueError
        For a value or a combination that does not exist.
    """

    name: str = "sgd"
    # Beyond it PyTorch stops in the middle of a step, at numbers that float32 does not have.
    learning_rate: Annotated[float | None, Interval(0, 1e30, closed="right", words=(None,))] = None
    momentum: Annotated[float, Interval(0, 1, closed="left")] = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: Annotated[float, Interval(0, 1e9, closed="left")] = 0.0
    schedule: str = "constant"
    warmup_steps: Annotated[int, Interval(0, closed="left", integer=True)] = 0
    schedule_norms: tuple[float, ...] | None = None
    mechanic: Annotated[bool, Flag()] = False
    bias_correction: Annotated[bool, Flag()] = True

    _constraints: ClassVar[dict[str, Constraint]]

    def __post_init__(self) -> None:
        _check_choice("optimizer", self.name, OPTIMIZERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        check_parameters(vars(self), self._constraints)
        _check_betas(self.betas)
        _check_schedule(self)
        if self.mechanic and self.name not in _WITH_MECHANIC:
            raise ValueError(
                f"mechanic tunes {', '.join(map(repr, _WITH_MECHANIC))}, not {self.name!r}: use "
                "one of them, or mechanic=False."
            )
        _check_schedule_free(self)

    @property
    def resolved_learning_rate(self) -> float:
        """The learning rate, or the optimizer's default."""
        default = _LEARNING_RATES[self.name]
        return default if self.learning_rate is None else float(self.learning_rate)


def make_optimizer(
    settings: OptimizerSettings,
    parameters: Sequence[torch.nn.Parameter],
    *,
    n_steps: int,
    noise_standard_deviation: float = 0.0,
    uniform: Callable[[], float],
) -> StepRule:
    """Make the step rule of some settings.

    Parameters
    ----------
    settings : OptimizerSettings
    parameters : sequence of Parameter
        At least one. Their gradients are mean gradients: the noisy sum over the expected
        number of rows.
    n_steps : int
        Planned, for the schedule.
    noise_standard_deviation : float, default=0.0
        Of every entry of `p.grad`; public.
    uniform : callable
        Returns a uniform number in [0, 1), for the random scaling of "o2nc".

    Raises
    ------
    ValueError
        For a number outside its range, or a warmup as long as the run.
    MissingDependencyError
        If "schedule-free-sgd" or "schedule-free-adamw" lacks its package.
    """
    _check_run(settings, n_steps, noise_standard_deviation)
    parameters = list(parameters)
    if settings.name.startswith("schedule-free"):
        return ScheduleFreeRule(
            settings.name,
            parameters,
            settings.resolved_learning_rate,
            momentum=settings.momentum,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
        )
    optimizer = _base_optimizer(settings, parameters, noise_standard_deviation, uniform)
    multipliers = schedule_multipliers(
        settings.schedule,
        n_steps,
        settings.warmup_steps,
        norms=settings.schedule_norms,
        norm_power=1.0 if settings.name in _ADAMS else 2.0,
    )
    mechanic = Mechanic(optimizer, parameters) if settings.mechanic else None
    return StepRule(settings.name, parameters, optimizer, multipliers, mechanic)


def _base_optimizer(
    settings: OptimizerSettings,
    parameters: list[torch.nn.Parameter],
    noise_standard_deviation: float,
    uniform: Callable[[], float],
) -> torch.optim.Optimizer:
    rate, decay = settings.resolved_learning_rate, settings.weight_decay
    if settings.name in _ADAMS:
        return PrivateAdam(
            parameters,
            rate,
            betas=settings.betas,
            weight_decay=decay,
            decoupled=settings.name == "adamw",
            noise_variance=noise_standard_deviation**2 if settings.bias_correction else 0.0,
        )
    if settings.name == "o2nc":
        horizon = 1.0 / (1.0 - settings.momentum)
        return OnlineToNonconvex(
            parameters, rate, horizon=horizon, weight_decay=decay, uniform=uniform
        )
    return torch.optim.SGD(parameters, rate, momentum=settings.momentum, weight_decay=decay)


def _check_run(settings: OptimizerSettings, n_steps: int, noise_standard_deviation: float) -> None:
    check_parameters(
        {"n_steps": n_steps, "noise_standard_deviation": noise_standard_deviation},
        {
            "n_steps": STEPS,
            "noise_standard_deviation": Interval(0, closed="left"),
        },
    )
    if settings.warmup_steps >= n_steps:
        raise ValueError(
            f"warmup_steps must be below the number of steps, {n_steps}, got "
            f"{settings.warmup_steps}."
        )


def _check_choice(what: str, value: object, options: Sequence[str]) -> None:
    if isinstance(value, str) and value in options:
        return
    hint = did_you_mean(str(value).lower(), options)
    listed = ", ".join(repr(option) for option in options)
    raise ValueError(f"{what} must be one of {listed}, got {value!r}.{hint}")


def _check_betas(betas: Any) -> None:
    share = Interval(0, 1, closed="left")
    if (
        not isinstance(betas, list | tuple)
        or len(betas) != 2
        or not all(share.accepts(beta) for beta in betas)
    ):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}.")


def _check_schedule(settings: OptimizerSettings) -> None:
    refined, norms = settings.schedule == "refined", settings.schedule_norms
    if refined and not norms:
        raise ValueError(
            "The schedule 'refined' needs schedule_norms, the gradient_norms of an earlier run."
        )
    if norms is not None and not refined:
        raise ValueError(
            f"schedule_norms are for the schedule 'refined', not {settings.schedule!r}."
        )
    if refined and settings.warmup_steps:
        raise ValueError(
            "The schedule 'refined' finds its own warmup: warmup_steps must be 0, got "
            f"{settings.warmup_steps}."
        )
    number = Interval(0, closed="left")
    if norms is not None and not all(number.accepts(norm) for norm in norms):
        raise ValueError("schedule_norms must be finite numbers that are not negative.")


def _check_schedule_free(settings: OptimizerSettings) -> None:
    if not settings.name.startswith("schedule-free"):
        return
    if settings.schedule != "constant":
        raise ValueError(
            f"{settings.name!r} averages in place of a schedule: schedule must be 'constant', "
            f"got {settings.schedule!r}."
        )
    if settings.name == "schedule-free-sgd" and settings.momentum == 0.0:
        raise ValueError("momentum must not be 0 for 'schedule-free-sgd'.")
    if settings.name == "schedule-free-adamw" and settings.betas[0] == 0.0:
        raise ValueError("The first of betas must not be 0 for 'schedule-free-adamw'.")
