"""`dpfc budget calibrate`: what a budget buys, without any data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc.experiments.cli.console import print_json, print_table, rounded_safely
from dpfc.experiments.cli.options import Accountant, Json, MethodName, Relation, Settings
from dpfc.experiments.cli.solve import (
    Question,
    SolveName,
    print_answer,
    print_epsilons,
)
from dpfc.experiments.cli.solve import solve as solve_question
from dpfc.experiments.estimators import make_estimator

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyPlan

__all__ = ["calibrate"]


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
    question = Question(
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
        _show(solve_question(question, solve), print_answer, json)


def _show(report: dict[str, Any], show: Callable[[dict[str, Any]], None], json: bool) -> None:
    if json:
        print_json({"command": "budget calibrate", **report})
    else:
        show(report)


def _gaussian_plan(question: Question) -> PrivacyPlan:
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
    question: Question, method: str, settings: list[str] | None, n_samples: int | None
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
    from dataclasses import asdict

    from dpfc.accounting import epsilon_by_accountant

    return {
        "target_epsilon": plan.target_epsilon,
        "target_delta": plan.target_delta,
        "neighboring_relation": plan.neighboring_relation,
        "accountant": plan.accountant,
        "mu": plan.mu,
        "epsilon_by_accountant": epsilon_by_accountant(
            plan.event,
            plan.target_delta,
            neighboring_relation=plan.neighboring_relation,
            accountants=("exact", "pld", "rdp"),
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
    print_epsilons(report["epsilon_by_accountant"])
