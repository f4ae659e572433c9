"""`dpfc summarize`: private counts and means of a feature cache."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dpfc._support.words import counted, shown
from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.ledger_options import Said, open_ledger, spends
from dpfc.experiments.cli.options import (
    Accountant,
    Classes,
    Delta,
    Epsilon,
    Features,
    Json,
    Relation,
    Seed,
)

__all__ = ["summarize"]


@spends
def summarize(
    features: Features,
    epsilon: Epsilon,
    delta: Delta = 1e-5,
    statistics: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="What to release: count (number of rows), class_counts (rows of each class), "
            "mean (of the clipped features).",
        ),
    ] = "count,class_counts",
    l2_clip_norm: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            help="With mean: rows longer than this are scaled down to it. Choose it without "
            "looking at the rows.",
        ),
    ] = None,
    classes: Classes = None,
    neighboring_relation: Relation = "add_or_remove_one",
    accountant: Accountant = "auto",
    said: Said = Said(),
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Count the rows of a feature cache privately, by class too, and average its features.

    What is printed carries noise and may be published.

    Example: dpfc summarize --features features/train --epsilon 0.1 --statistics class_counts
    """
    from dpfc import summarize_privately
    from dpfc.experiments.estimators import parse_classes
    from dpfc.features import FeatureCache

    cache = FeatureCache.open(features)
    book = open_ledger(cache, seed, said)
    summary = summarize_privately(
        cache,
        epsilon=epsilon,
        delta=delta,
        statistics=[part.strip() for part in statistics.split(",")],
        classes=parse_classes(classes, cache),
        l2_clip_norm=l2_clip_norm,
        neighboring_relation=neighboring_relation,
        accountant=accountant,
        ledger=book,
        dataset=said.dataset,
        random_state=seed,
    )
    report: dict[str, Any] = {
        "command": "summarize",
        "features": str(features),
        "count": summary.count,
        "class_counts": None,
        "mean": None if summary.mean is None else summary.mean.tolist(),
        "noise_standard_deviation": summary.noise_standard_deviation,
        "privacy": summary.privacy_.model_dump(mode="json"),
    }
    if summary.class_counts is not None and summary.classes_ is not None:
        pairs = zip(summary.classes_.tolist(), summary.class_counts.tolist(), strict=True)
        report["class_counts"] = {str(name): rows for name, rows in pairs}
    if json:
        print_json(report)
        return
    _print_summary(report)
    print(f"\n{summary.privacy_}")


def _print_summary(report: dict[str, Any]) -> None:
    noise, unit = report["noise_standard_deviation"], report["privacy"]["unit_of_privacy"]
    # Of people, who may have several rows, each is counted once.
    rows = "rows" if unit == "one row" else f"count ({unit} counts as 1)"
    if report["count"] is not None:
        print(f"{rows} {report['count']:,.1f} ± {noise['count']:,.1f}")
    if report["class_counts"] is not None:
        print(f"{rows} by class, each ± {noise['class_counts']:,.1f}:")
        width = max(len(shown(name)) for name in report["class_counts"])
        for name, number in report["class_counts"].items():
            print(f"  {shown(name):<{width}}  {number:,.1f}")
    if report["mean"] is not None:
        features = counted(len(report["mean"]), "feature")
        print(f"mean of {features}, each ± {noise['mean']:.3g}: see --json")
