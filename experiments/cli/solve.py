"""`dpfc budget calibrate --solve`: the one free quantity of a run of Gaussian releases."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dpfc.experiments.cli.console import rounded_safely

__all__ = ["Question", "SolveName", "print_answer", "solve"]

SolveName = Literal["noise", "steps", "sampling-probability", "epsilon", "delta"]

_OPTIONS = {
    "noise_multiplier": "--noise-multiplier",
    "steps": "--steps",
    "sampling_probability": "--sampling-probability",
    "epsilon": "--epsilon",
    "delta": "--delta",
}
# What is worked out has no value of its own; everything else here has to be given.
_FREE = {
    "noise": "noise_multiplier",
    "steps": "steps",
    "sampling-probability": "sampling_probability",
    "epsilon": "epsilon",
    "delta": "delta",
}
_REQUIRED = ("epsilon", "noise_multiplier")
_DEFAULTS: dict[str, Any] = {"delta": 1e-5, "steps": 1, "sampling_probability": 1.0}


@dataclass(frozen=True)
class Question:
    """What a command line gives of a run of equal Gaussian releases; None is left open."""

    # Floats, and an int for steps; mypy cannot see which one `checked` leaves open.
    epsilon: Any
    delta: Any
    noise_multiplier: Any
    steps: Any
    sampling_probability: Any
    neighboring_relation: str
    accountant: str

    def checked(self, free: SolveName) -> dict[str, Any]:
        """Return all values by name, with defaults filled in; None for what `free` names.

        Raises
        ------
        ValueError
            If something needed is missing, or what is to be worked out is given.
        """
        name, values = _FREE[free], asdict(self)
        if values[name] is not None:
            raise ValueError(f"--solve {free} works that out: leave {_OPTIONS[name]} away.")
        missing = [n for n in _REQUIRED if n != name and values[n] is None]
        if missing:
            options = " and ".join(_OPTIONS[n] for n in missing)
            raise ValueError(f"--solve {free} needs {options}.")
        filled = {n: v for n, v in _DEFAULTS.items() if n != name and values[n] is None}
        return {**values, **filled}


def solve(question: Question, free: SolveName) -> dict[str, Any]:
    """Work out what is free, other than noise: that takes a whole plan.

    Returns
    -------
    dict
        The whole run, with its epsilon by every accountant.
    """
    from dpfc.accounting import compute_delta, compute_epsilon, epsilon_by_accountant
    from dpfc.accounting.accountants import resolve_accountant
    from dpfc.accounting.plans import release_event

    run = question.checked(free)
    if free in ("steps", "sampling-probability"):
        run[_FREE[free]] = _calibrate(run, free)
    event = release_event(run["noise_multiplier"], run["steps"], run["sampling_probability"])
    rules = {"neighboring_relation": run["neighboring_relation"], "accountant": run["accountant"]}
    if free == "epsilon":
        run["epsilon"] = compute_epsilon(event, run["delta"], **rules)
    elif free == "delta":
        # Rounded to 0, it would be no bound.
        run["delta"] = max(compute_delta(event, run["epsilon"], **rules), math.ulp(0.0))
        if run["delta"] == 1:
            raise ValueError(
                f"so little noise gives no guarantee at --epsilon {run['epsilon']:g}: δ would be 1."
            )
    by_accountant = epsilon_by_accountant(
        event,
        run["delta"],
        neighboring_relation=run["neighboring_relation"],
        accountants=("exact", "pld", "rdp"),
    )
    resolved = resolve_accountant(
        run["accountant"],
        event,
        target_delta=run["delta"],
        neighboring_relation=run["neighboring_relation"],
    )
    return {
        "solve": free,
        **run,
        "accountant": resolved,
        "epsilon_by_accountant": by_accountant,
    }


def _calibrate(run: dict[str, Any], free: SolveName) -> float:
    from dpfc import accounting

    budget = {
        "target_epsilon": run["epsilon"],
        "target_delta": run["delta"],
        "neighboring_relation": run["neighboring_relation"],
        "accountant": run["accountant"],
    }
    noise_multiplier, probability = run["noise_multiplier"], run["sampling_probability"]
    if free == "steps":
        return accounting.calibrate_steps(
            noise_multiplier, sampling_probability=probability, **budget
        )
    return accounting.calibrate_sampling_probability(noise_multiplier, run["steps"], **budget)


def print_answer(report: dict[str, Any]) -> None:
    """Print the run, what was worked out marked, and its epsilon by accountant."""
    free = _FREE[report["solve"]]
    relation = report["neighboring_relation"].replace("_", " ")
    print(f"{relation}, accountant {report['accountant']}\n")
    labels = {
        "noise_multiplier": "noise multiplier",
        "steps": "steps",
        "sampling_probability": "sampling probability",
        "epsilon": "ε",
        "delta": "δ",
    }
    for name, label in labels.items():
        value = report[name]
        # What was given is printed as it is; what was worked out, to the safe side.
        up = name != "sampling_probability"
        text = rounded_safely(value, up=up) if name == free and name != "steps" else f"{value:.15g}"
        print(f"{label:<21} {text}{'   ← worked out' if name == free else ''}")
    print()
    print_epsilons(report["epsilon_by_accountant"])


def print_epsilons(epsilons: dict[str, float | str]) -> None:
    """Print one line for each accountant."""
    for name, epsilon in epsilons.items():
        value = epsilon if isinstance(epsilon, str) else f"ε = {epsilon:.6g}"
        print(f"{name:<6} {value}")
