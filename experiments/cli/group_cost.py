"""`dpfc budget group`: what several rows of one person cost, without any data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dpfc.experiments.cli.console import print_json, print_table
from dpfc.experiments.cli.options import Json, Relation

__all__ = ["group"]

# Names for programs and for people, of what is exact and of what holds for all.
_KINDS = {"full_batch_gaussian": "full-batch Gaussian", "any_mechanism": "any mechanism"}


def group(
    rows: Annotated[
        int, typer.Option(metavar="K", help="Rows of one person, or other unit, at most.", min=1)
    ],
    epsilon: Annotated[
        float | None, typer.Option(help="ε of a guarantee, for one row and for K; a float > 0.")
    ] = None,
    delta: Annotated[float, typer.Option(help="δ of the guarantee, in (0, 1).")] = 1e-5,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            help="In the place of --epsilon: noise of a run of equal Gaussian releases, for one "
            "row."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="Releases of that run.", min=1)] = 1,
    sampling_probability: Annotated[
        float, typer.Option(help="With which a row is in a release of it, in (0, 1].")
    ] = 1.0,
    neighboring_relation: Relation = "add_or_remove_one",
    json: Json = False,
) -> None:
    """Work out what a guarantee for one row means for K rows together, and back.

    No data are read. Full-batch Gaussian releases, which most methods here are, cost exactly K
    times the μ; for other mechanisms a bound holds whatever they do. A ledger charges by it:
    dpfc budget create … --rows-per-unit K.

    Examples: dpfc budget group --rows 5 --epsilon 1

    dpfc budget group --rows 5 --noise-multiplier 1 --steps 100 --sampling-probability 0.01
    """
    if (epsilon is None) == (noise_multiplier is None):
        raise ValueError("give --epsilon of a guarantee, or --noise-multiplier of a run.")
    if epsilon is not None:
        if steps != 1 or sampling_probability != 1.0:
            raise ValueError("--steps and --sampling-probability go with --noise-multiplier.")
        report = _of_guarantee(rows, epsilon, delta)
    else:
        run = (noise_multiplier, steps, sampling_probability)
        report = _of_run(rows, delta, run, neighboring_relation)
    report = {"rows": rows, "delta": delta, **report}
    if json:
        print_json({"command": "budget group", **report})
    elif epsilon is None:
        for name, count in (("row", "one row"), ("group", f"{rows} rows together")):
            print(f"{count}: ε = {report[name]['epsilon']:.4g} at δ = {delta:g}")
    else:
        _print(rows, report)


def _of_guarantee(rows: int, epsilon: float, delta: float) -> dict[str, Any]:
    from dpfc.accounting.gaussian import gaussian_epsilon, gaussian_mu
    from dpfc.accounting.groups import group_guarantee, row_epsilon, row_guarantee

    group = (gaussian_epsilon(rows * gaussian_mu(epsilon, delta), delta), delta)
    row = (row_epsilon(epsilon, delta, rows), delta)
    return {
        "epsilon": epsilon,
        "group": _pairs(group, group_guarantee(epsilon, delta, rows)),
        "row": _pairs(row, row_guarantee(epsilon, delta, rows)),
    }


def _pairs(*guarantees: tuple[float, float]) -> dict[str, dict[str, float]]:
    found = zip(_KINDS, guarantees, strict=True)
    return {kind: {"epsilon": epsilon, "delta": delta} for kind, (epsilon, delta) in found}


def _of_run(
    rows: int, delta: float, run: tuple[Any, int, float], neighboring_relation: str
) -> dict[str, Any]:
    import dp_accounting

    from dpfc.accounting.groups import group_epsilon

    noise_multiplier, steps, probability = run
    event = dp_accounting.GaussianDpEvent(noise_multiplier)
    if probability != 1.0:
        event = dp_accounting.PoissonSampledDpEvent(probability, event)
    event = dp_accounting.SelfComposedDpEvent(event, steps)
    one, many = (
        group_epsilon(event, count, delta, neighboring_relation=neighboring_relation)
        for count in (1, rows)
    )
    return {"epsilon": None, "row": {"epsilon": one}, "group": {"epsilon": many}}


def _print(rows: int, report: dict[str, Any]) -> None:
    epsilon, delta = f"ε = {report['epsilon']:g}", f"δ = {report['delta']:g}"
    for name, sentence in (
        ("group", f"With {epsilon}, {delta} for one row, {rows} rows together have:"),
        ("row", f"For {rows} rows together to have {epsilon}, {delta}, one row must have:"),
    ):
        print(sentence)
        lines = [
            (_KINDS[kind], f"{pair['epsilon']:.4g}", f"{pair['delta']:.4g}")
            for kind, pair in report[name].items()
        ]
        print_table(("releases", "ε", "δ"), lines)
        if name == "group":
            print()
