"""`dpfc demo`: the whole way, without any data or download of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from dpfc.experiments.cli.console import print_json, print_table
from dpfc.experiments.cli.options import Json, parse_numbers
from dpfc.experiments.estimators import LABELS

if TYPE_CHECKING:
    from dpfc.experiments.demo import DemoReport

__all__ = ["demo"]

_WHAT = {
    "plot": "accuracy versus ε",
    "plot_svg": "the same for print",
    "results": "every figure",
    "model": "private model",
    "statement": "its privacy statement",
    "statement_json": "the same for machines",
}


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for caches, plots, model and statement.")
    ] = Path("runs/demo"),
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="Budgets ε to train at; δ is 1e-5.")
    ] = "0.1,0.5,1,2,4,8",
    repeats: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Fits of each method at each ε, for error bars."),
    ] = 3,
    json: Json = False,
) -> None:
    """Go the whole way on 5,000 digits (MNIST) that come inside a pip package.

    Embeds the images once (about a minute on two cores), then trains DP-FC, DP-LS and DP-GD at
    every ε, and shows test accuracy, mean ± standard error, beside that of logistic regression
    without privacy. A second run uses the embeddings of the first. Noise is real: figures vary
    from run to run.

    Example: dpfc demo --out runs/demo --epsilons 0.1,1,8
    """
    budgets = parse_numbers(epsilons, "--epsilons")
    from dpfc.experiments.demo import run_demo

    report = run_demo(out, budgets, repeats=repeats)
    if json:
        print_json({"command": "demo", **asdict(report)})
    else:
        _print_report(report, budgets)


def _print_report(report: DemoReport, budgets: tuple[float, ...]) -> None:
    from dpfc.experiments.demo import CEILING, accuracies

    print(f"test accuracy on {report.data}, δ = 1e-5\n")
    rows = [
        (LABELS[method], *(_mean_words(found[epsilon]) for epsilon in budgets))
        for method, found in accuracies(report.runs).items()
    ]
    rows.append((CEILING, *[f"{report.ceiling:.1%}"] * len(budgets)))
    print_table(("method", *(f"ε = {epsilon:g}" for epsilon in budgets)), rows)
    print()
    print("DP-Newton is left out: a fit takes about a minute here (dpfc fit --method newton).")
    print("Every run has a budget of its own; budgets of all that is published add up.\n")
    for name, path in report.files.items():
        print(f"{_WHAT[name]:<23} {path}")
    print(f"\nThe model is DP-FC at ε = {report.model_epsilon:g}. Done in {report.seconds:.0f} s.")


def _mean_words(values: Sequence[float]) -> str:
    from dpfc.experiments.pictures.views import standard_error

    error = f" ± {100 * standard_error(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1%}{error}"
