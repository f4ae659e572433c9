"""What a budget allows of one quantity when the others are given.

All for `steps` releases of one Gaussian mechanism, full batch or Poisson sampled. Every
result is on the safe side: its epsilon, as evaluated by the accountant, is at most the target
and within 1e-4, relative, of it. For epsilon and delta themselves: `compute_epsilon` and
`compute_delta`.
"""

from __future__ import annotations

import math

from dpfc.accounting._checks import check_float, check_int, check_target
from dpfc.accounting.accountants import trial_epsilon
from dpfc.accounting.calibration import calibrate, central_limit_mu
from dpfc.accounting.gaussian import gaussian_mu
from dpfc.accounting.numerics.root_finding import find_count, find_log
from dpfc.accounting.plans import ReleaseRequest, release_event

__all__ = ["calibrate_noise_multiplier", "calibrate_sampling_probability", "calibrate_steps"]


def calibrate_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    steps: int = 1,
    sampling_probability: float = 1.0,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> float:
    """Smallest noise multiplier that `steps` releases need.

    Parameters
    ----------
    target_epsilon : float in (0, inf]
    target_delta : float in (0, 1)
        0 is allowed when epsilon is infinite.
    steps : int, default=1
    sampling_probability : float in (0, 1], default=1.0
        1 is full batch.
    neighboring_relation : {"add_or_remove_one", "replace_one"}, default="add_or_remove_one"
    accountant : {"auto", "exact", "pld", "rdp"}, default="auto"
        As in `compute_epsilon`.

    Returns
    -------
    float
        Standard deviation of the noise / l2 sensitivity; 0 when epsilon is infinite.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases, or delta pays alone for the few rows
        that are ever drawn, so that noise has no effect.
    ValueError
        When a parameter is outside its interval.
    """
    steps = check_int("steps", steps, 1)
    plan = calibrate(
        [ReleaseRequest("gaussian", 1.0, steps, sampling_probability)],
        target_epsilon=target_epsilon,
        target_delta=target_delta,
        neighboring_relation=neighboring_relation,
        accountant=accountant,
    )
    return plan["gaussian"].noise_multiplier


def calibrate_steps(
    noise_multiplier: float,
    *,
    target_epsilon: float,
    target_delta: float,
    sampling_probability: float = 1.0,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> int:
    """Largest number of releases that fits the budget, as evaluated by the accountant.

    Parameters
    ----------
    noise_multiplier : float in (0, inf)
    target_epsilon : float in (0, inf)
    target_delta : float in (0, 1)
    sampling_probability, neighboring_relation, accountant
        As in `calibrate_noise_multiplier`.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases.
    ValueError
        When a parameter is outside its interval, not even one release fits, or 10^15 do.
    """
    probability = check_float("sampling_probability", sampling_probability, 0, 1, closed="right")
    task = _Task(noise_multiplier, target_epsilon, target_delta, neighboring_relation, accountant)
    steps = find_count(lambda count: task.epsilon(count, probability), task.target_epsilon)
    if steps == 0:
        raise ValueError(
            f"not even one release with noise_multiplier={noise_multiplier!r} fits "
            f"target_epsilon={target_epsilon!r} and target_delta={target_delta!r}; ask "
            "calibrate_noise_multiplier how much noise one needs."
        )
    return steps


def calibrate_sampling_probability(
    noise_multiplier: float,
    steps: int,
    *,
    target_epsilon: float,
    target_delta: float,
    neighboring_relation: str = "add_or_remove_one",
    accountant: str = "auto",
) -> float:
    """Largest probability with which each row may take part in each release.

    Parameters
    ----------
    noise_multiplier : float in (0, inf)
    steps : int
    target_epsilon : float in (0, inf)
    target_delta : float in (0, 1)
    neighboring_relation, accountant
        As in `calibrate_noise_multiplier`.

    Returns
    -------
    float
        In (0, 1]; 1, the full batch, when that fits.

    Raises
    ------
    UnsupportedEventError
        When `accountant` cannot evaluate the releases.
    ValueError
        When a parameter is outside its interval.
    """
    steps = check_int("steps", steps, 1)
    task = _Task(noise_multiplier, target_epsilon, target_delta, neighboring_relation, accountant)
    if task.epsilon(steps, 1.0) <= task.target_epsilon:
        return 1.0
    log_probability = find_log(
        lambda log_q: task.epsilon(steps, math.exp(log_q)),
        task.target_epsilon,
        task.log_probability_guess(steps),
        highest=0.0,
    )
    return math.exp(log_probability)


class _Task:
    """What is the same in each trial of a search."""

    def __init__(
        self, noise_multiplier: float, epsilon: float, delta: float, relation: str, accountant: str
    ) -> None:
        self.noise_multiplier = check_float("noise_multiplier", noise_multiplier, 0, math.inf)
        self.target_epsilon, self._delta = check_target(epsilon, delta)
        check_float("target_epsilon", self.target_epsilon, 0, math.inf)
        self._relation, self._accountant = relation, accountant

    def epsilon(self, steps: int, sampling_probability: float) -> float:
        """Epsilon of `steps` releases; infinite where it is too large to tell."""
        event = release_event(self.noise_multiplier, steps, sampling_probability)
        return trial_epsilon(event, self._delta, self._relation, self._accountant)

    def log_probability_guess(self, steps: int) -> float:
        """By the central limit theorem."""
        one = math.sqrt(steps) * central_limit_mu(self.noise_multiplier, self._relation)
        guess = gaussian_mu(self.target_epsilon, self._delta) / one
        return math.log(min(max(guess, self._delta / steps), 0.5))
