"""`dpfc budget`: what a budget buys, without any data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc.experiments.console import print_json
from dpfc.experiments.methods import make_estimator
from dpfc.experiments.options import Delta, Epsilon, Json, MethodName, Relation, Settings

if TYPE_CHECKING:
    from dpfc.accounting import PrivacyPlan

__all__ = ["budget_app"]

budget_app = typer.Typer(help="Budgets and noise, without any data.", rich_markup_mode="markdown")


@budget_app.callback(invoke_without_command=True)
def _budget(context: typer.Context) -> None:
    """Work with budgets and noise; needs no data and spends nothing."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@budget_app.command()
def calibrate(
    epsilon: Epsilon,
    delta: Delta = 1e-5,
    method: Annotated[
        MethodName | None,
        typer.Option(help="Show what `dpfc fit` with this method would release."),
    ] = None,
    neighboring_relation: Relation = "add_or_remove_one",
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
            help="Without --method: probability with which each row takes part in a release, "
            "independently (Poisson sampling), in (0, 1]; 1 is full batch (1).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Work out the noise that an (ε, δ) budget asks for. Needs no data and spends nothing.

    With --method: every release of a fit, its share of the budget (of μ²), its noise multiplier
    (standard deviation ÷ sensitivity) and how often it is drawn. Without: the noise multiplier
    of one Gaussian release, or of T Poisson-sampled ones.

    Examples: dpfc budget calibrate --epsilon 1 --method fc

    dpfc budget calibrate --epsilon 8 --steps 1000 --sampling-probability 0.01
    """
    if method is None:
        if settings or n_samples is not None:
            raise ValueError("--set and --n-samples go with --method.")
        plan = _gaussian_plan(epsilon, delta, neighboring_relation, steps, sampling_probability)
    else:
        if steps is not None or sampling_probability is not None:
            raise ValueError(
                "--steps and --sampling-probability go without --method; use --set n_steps=… "
                "and --set sampling_probability=… with it."
            )
        plan = make_estimator(
            method,
            settings or (),
            epsilon=epsilon,
            delta=delta,
            neighboring_relation=neighboring_relation,
            n_samples=n_samples,
        ).privacy_plan()
    report = {"command": "budget calibrate", "method": method, **_report(plan)}
    if json:
        print_json(report)
    else:
        _print_plan(report)


def _gaussian_plan(
    epsilon: float, delta: float, relation: str, steps: int | None, probability: float | None
) -> PrivacyPlan:
    from dpfc.accounting import ReleaseRequest
    from dpfc.accounting import calibrate as calibrate_plan

    count = 1 if steps is None else steps
    request = ReleaseRequest("gaussian", 1.0, count, 1.0 if probability is None else probability)
    return calibrate_plan(
        [request], target_epsilon=epsilon, target_delta=delta, neighboring_relation=relation
    )


def _report(plan: PrivacyPlan) -> dict[str, Any]:
    from dataclasses import asdict

    from dpfc.accounting import epsilon_by_accountant

    return {
        "target_epsilon": plan.target_epsilon,
        "target_delta": plan.target_delta,
        "neighboring_relation": plan.neighboring_relation,
        "mu": plan.mu,
        "epsilon_by_accountant": epsilon_by_accountant(
            plan.event,
            plan.target_delta,
            neighboring_relation=plan.neighboring_relation,
            accountants=("exact", "pld", "rdp"),
        ),
        "releases": [asdict(release) for release in plan.releases],
    }


def _print_plan(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    relation = report["neighboring_relation"].replace("_", " ")
    print(f"ε = {report['target_epsilon']:g}, δ = {report['target_delta']:g}, {relation}\n")
    table = Table("release", box=None, pad_edge=False)
    for heading in ("share of μ²", "noise multiplier", "draws", "sampling"):
        table.add_column(heading, justify="right")
    for release in report["releases"]:
        sampled = release["sampling_probability"] < 1
        table.add_row(
            release["name"],
            f"{release['share']:.4%}".replace(".0000%", "%"),
            f"{release['noise_multiplier']:.6g}",
            str(release["count"]),
            f"Poisson {release['sampling_probability']:g}" if sampled else "full batch",
        )
    Console(highlight=False, markup=False).print(table)
    if report["mu"] is not None:
        mu = "∞" if math.isinf(report["mu"]) else f"{report['mu']:.6g}"
        print(f"\nμ = {mu} (Gaussian differential privacy)")
    for name, epsilon in report["epsilon_by_accountant"].items():
        value = epsilon if isinstance(epsilon, str) else f"ε = {epsilon:.6g}"
        print(f"{name:<6} {value}")
