"""`dpfc budget calibrate`: what a budget buys, without any data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc.experiments.cli.console import print_json, print_table, rounded_safely
from dpfc.experiments.cli.options import Accountant, Json, MethodName, Relation, Settings
from dpfc.experiments.estimators import make_estimator

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyPlan

__all__ = ["calibrate"]

SolveName = Literal["noise", "steps", "sampling-probability", "epsilon", "delta"]

# What is worked out has no value of its own; everything else here has to be given.
_LABELS = {
    "noise_multiplier": "noise multiplier",
    "steps": "steps",
    "sampling_probability": "sampling probability",
    "epsilon": "ε",
    "delta": "δ",
}
_REQUIRED = ("epsilon", "noise_multiplier")
_DEFAULTS: dict[str, Any] = {"delta": 1e-5, "steps": 1, "sampling_probability": 1.0}


@dataclass(frozen=True)
class _Question:
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
        name, values = _named(free), asdict(self)
        if values[name] is not None:
            raise ValueError(f"--solve {free} works that out: leave {_option(name)} away.")
        missing = [n for n in _REQUIRED if n != name and values[n] is None]
        if missing:
            options = " and ".join(map(_option, missing))
            raise ValueError(f"--solve {free} needs {options}.")
        filled = {n: v for n, v in _DEFAULTS.items() if n != name and values[n] is None}
        return {**values, **filled}


def _named(free: str) -> str:
    """The quantity that --solve names."""
    return "noise_multiplier" if free == "noise" else free.replace("-", "_")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def calibrate(
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="ε of the guarantee, a float > 0; smaller is more private. 'inf' adds no noise "
            "and protects nothing. Needed unless it is what --solve asks for."
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="δ of the guarantee, in (0, 1); well below 1 / (people) (1e-5)."),
    ] = None,
    solve: Annotated[
        SolveName,
        typer.Option(help="What to work out; everything else is given. Not with --method."),
    ] = "noise",
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            metavar="Z", help="Standard deviation of the noise ÷ sensitivity, where it is known."
        ),
    ] = None,
    method: Annotated[
        MethodName | None,
        typer.Option(help="Show what `dpfc fit` with this method would release."),
    ] = None,
    neighboring_relation: Relation = "add_or_remove_one",
    accountant: Accountant = "auto",
    n_samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --method: number of rows, if public knowledge."),
    ] = None,
    settings: Settings = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="T", help="Without --method: number of Gaussian releases (1)."),
    ] = None,
    sampling_probability: Annotated[
        float | None,
        typer.Option(
            metavar="Q",
            help="Without --method: probability of each row to take part in a release "
            "(Poisson sampling), in (0, 1]; 1 is full batch (1).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Work out what an (ε, δ) budget allows. Needs no data and spends nothing.

    With --method: every release of a fit, its share of the budget (of μ²), its noise multiplier
    (standard deviation ÷ sensitivity) and how often it is drawn. Without: one Gaussian release,
    or T of them on Poisson-sampled rows, and whichever of noise, steps, sampling probability, ε
    and δ --solve names. The answer keeps to the budget and is within 1e-4 of the best.

    Example of what a fit would release: dpfc budget calibrate --epsilon 1 --method fc

    How much noise: dpfc budget calibrate --epsilon 8 --steps 1000 --sampling-probability 0.01

    How many steps: dpfc budget calibrate --solve steps --noise-multiplier 1 --epsilon 8
    --sampling-probability 0.01

    How large a batch: dpfc budget calibrate --solve sampling-probability --noise-multiplier 1
    --epsilon 8 --steps 1000

    What a run has cost: dpfc budget calibrate --solve epsilon --noise-multiplier 1 --steps 1000
    --sampling-probability 0.01
    """
    question = _Question(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        steps=steps,
        sampling_probability=sampling_probability,
        neighboring_relation=neighboring_relation,
        accountant=accountant,
    )
    if method is None and (settings or n_samples is not None):
        raise ValueError("--set and --n-samples go with --method.")
    if solve == "noise":
        plan = (
            _gaussian_plan(question)
            if method is None
            else _fit_plan(question, method, settings, n_samples)
        )
        _show({"method": method, "solve": solve, **_report(plan)}, _print_plan, json)
    elif method is not None:
        raise ValueError(f"--solve {solve} goes without --method.")
    else:
        _show(_solve(question, solve), _print_answer, json)


def _show(report: dict[str, Any], show: Callable[[dict[str, Any]], None], json: bool) -> None:
    if json:
        print_json({"command": "budget calibrate", **report})
    else:
        show(report)


def _gaussian_plan(question: _Question) -> PrivacyPlan:
    from dpfc.accounting import ReleaseRequest
    from dpfc.accounting import calibrate as calibrate_plan

    run = question.checked("noise")
    return calibrate_plan(
        [ReleaseRequest("gaussian", 1.0, run["steps"], run["sampling_probability"])],
        target_epsilon=run["epsilon"],
        target_delta=run["delta"],
        neighboring_relation=run["neighboring_relation"],
        accountant=run["accountant"],
    )


def _fit_plan(
    question: _Question, method: str, settings: list[str] | None, n_samples: int | None
) -> PrivacyPlan:
    if question.steps is not None or question.sampling_probability is not None:
        raise ValueError(
            "--steps and --sampling-probability go without --method; use --set n_steps=… "
            "and --set sampling_probability=… with it."
        )
    run = question.checked("noise")
    return make_estimator(
        method,
        settings or (),
        epsilon=run["epsilon"],
        delta=run["delta"],
        neighboring_relation=run["neighboring_relation"],
        accountant=run["accountant"],
        n_samples=n_samples,
    ).privacy_plan()


def _report(plan: PrivacyPlan) -> dict[str, Any]:
    return {
        "target_epsilon": plan.target_epsilon,
        "target_delta": plan.target_delta,
        "neighboring_relation": plan.neighboring_relation,
        "accountant": plan.accountant,
        "mu": plan.mu,
        "epsilon_by_accountant": _epsilons(
            plan.event, plan.target_delta, plan.neighboring_relation
        ),
        "releases": [asdict(release) for release in plan.releases],
    }


def _release_row(release: dict[str, Any]) -> tuple[str, ...]:
    sampled = release["sampling_probability"] < 1
    return (
        release["name"],
        f"{release['share']:.4%}".replace(".0000%", "%"),
        rounded_safely(release["noise_multiplier"], up=True),
        str(release["count"]),
        f"Poisson {release['sampling_probability']:g}" if sampled else "full batch",
    )


def _print_plan(report: dict[str, Any]) -> None:
    relation = report["neighboring_relation"].replace("_", " ")
    budget = f"ε = {report['target_epsilon']:g}, δ = {report['target_delta']:g}"
    print(f"{budget}, {relation}, accountant {report['accountant']}\n")
    headings = ("release", "share of μ²", "noise multiplier", "draws", "sampling")
    print_table(headings, map(_release_row, report["releases"]))
    if report["mu"] is not None:
        mu = "∞" if math.isinf(report["mu"]) else f"{report['mu']:.6g}"
        print(f"\nμ = {mu} (Gaussian differential privacy)")
    _print_epsilons(report["epsilon_by_accountant"])


def _solve(question: _Question, free: SolveName) -> dict[str, Any]:
    """Work out what is free, other than noise: that takes a whole plan.

    Returns
    -------
    dict
        The whole run, with its epsilon by every accountant.
    """
    from dpfc.accounting import compute_delta, compute_epsilon
    from dpfc.accounting.accountants import resolve_accountant
    from dpfc.accounting.plans import release_event

    run = question.checked(free)
    if free in ("steps", "sampling-probability"):
        run[_named(free)] = _calibrate(run, free)
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
        "epsilon_by_accountant": _epsilons(event, run["delta"], run["neighboring_relation"]),
    }


def _epsilons(event: Any, delta: float, relation: str) -> dict[str, float | str]:
    from dpfc.accounting import epsilon_by_accountant

    return epsilon_by_accountant(
        event, delta, neighboring_relation=relation, accountants=("exact", "pld", "rdp")
    )


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


def _print_answer(report: dict[str, Any]) -> None:
    """Print the run, what was worked out marked, and its epsilon by accountant."""
    free = _named(report["solve"])
    relation = report["neighboring_relation"].replace("_", " ")
    print(f"{relation}, accountant {report['accountant']}\n")
    for name, label in _LABELS.items():
        value = report[name]
        # What was given is printed as it is; what was worked out, to the safe side.
        up = name != "sampling_probability"
        text = rounded_safely(value, up=up) if name == free and name != "steps" else f"{value:.15g}"
        print(f"{label:<21} {text}{'   ← worked out' if name == free else ''}")
    print()
    _print_epsilons(report["epsilon_by_accountant"])


def _print_epsilons(epsilons: dict[str, float | str]) -> None:
    """Print one line for each accountant."""
    for name, epsilon in epsilons.items():
        value = epsilon if isinstance(epsilon, str) else f"ε = {epsilon:.6g}"
        print(f"{name:<6} {value}")
