"""`dpfc search`: hyperparameters chosen on private rows, under one budget."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.ledger_options import Said, open_ledger, record_model, spends
from dpfc.experiments.cli.options import (
    Accountant,
    Classes,
    Delta,
    Epsilon,
    Features,
    Force,
    Json,
    Method,
    ModelOut,
    PublicSize,
    Relation,
    Seed,
    Settings,
)
from dpfc.experiments.estimators import make_estimator, make_grid, parse_classes

if TYPE_CHECKING:
    from dpfc.search.cost import SearchCost
    from dpfc.search.search_cv import DPSearchCV

__all__ = ["search"]

Try = Annotated[
    list[str],
    typer.Option(
        "--try",
        metavar="NAME=A,B,C",
        help="A parameter and values; if repeated, all combinations.",
    ),
]
Strategy = Annotated[
    Literal["composition", "random_stopping"],
    typer.Option(
        metavar="NAME",
        help="composition: every candidate once. random_stopping: random candidates, a secret "
        "number of times, only the best published.",
    ),
]
Law = Annotated[
    Literal["negative_binomial", "poisson"],
    typer.Option(
        metavar="NAME",
        help="Law of the number of runs: negative_binomial (geometric at --shape 1), or poisson.",
    ),
]


@spends
def search(
    features: Features,
    epsilon: Epsilon,
    tries: Try,
    out: ModelOut,
    method: Method = "fc",
    delta: Delta = 1e-5,
    strategy: Strategy = "composition",
    validation_fraction: Annotated[
        float, typer.Option(help="Chance of a row to validate only.")
    ] = 0.2,
    refit_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the budget for a last fit of the best on all rows, in [0, 1); 0.7, or 0 "
            "under random stopping.",
        ),
    ] = None,
    mean_runs: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            help="Mean number of runs under random stopping; that of candidates.",
        ),
    ] = None,
    distribution: Law = "negative_binomial",
    shape: Annotated[float, typer.Option(help="Shape of the negative binomial law.")] = 1.0,
    neighboring_relation: Relation = "add_or_remove_one",
    n_samples: PublicSize = None,
    classes: Classes = None,
    seed: Seed = None,
    accountant: Accountant = "auto",
    said: Said = Said(),
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Choose hyperparameters on private rows; the whole search has one (ε, δ).

    Says first what each candidate gets of the budget, and what one fit without a search would
    have had. Losers cost as much as the winner: try few, chosen without looking at the data.
    Scores are noisy. Under random stopping, do not publish how long the search took.

    Example: dpfc search --features features/train --try logit_noise=0.35,0.7 --epsilon 2 --out best
    """
    from dpfc.features import FeatureCache
    from dpfc.linear.saving import model_bytes
    from dpfc.mechanism.paid_models import PaidModel
    from dpfc.search.search_cv import DPSearchCV

    check_writable(out, reads=(features, said.ledger), force=force)
    cache = FeatureCache.open(features)
    book = open_ledger(cache, seed, said)
    estimator = make_estimator(
        method,
        settings or (),
        neighboring_relation=neighboring_relation,
        n_samples=n_samples,
        accountant=accountant,
        classes=parse_classes(classes, cache),
    )
    searcher = DPSearchCV(
        estimator,
        make_grid(tries, estimator),
        epsilon=epsilon,
        delta=delta,
        strategy=strategy,
        validation_fraction=validation_fraction,
        refit_share="auto" if refit_share is None else refit_share,
        mean_runs="auto" if mean_runs is None else mean_runs,
        distribution=distribution,
        shape=shape,
        ledger=book,
        dataset=said.dataset,
        random_state=seed,
        verbose=False,
    )
    cost = searcher.privacy_cost()  # shown before a row is read
    print(cost, file=sys.stderr)
    with PaidModel(out, replace=force) as target:
        searcher.fit(cache)
        target.save(model_bytes(searcher.best_estimator_))
    record_model(book, said.dataset, searcher.privacy_, out)
    if json:
        print_json(_report(searcher, cost, method, out))
    else:
        _print(searcher, out)


def _report(searcher: DPSearchCV, cost: SearchCost, method: str, out: Path) -> dict[str, Any]:
    """Everything here may be published; the number of rows and the time are not among it."""
    report: dict[str, Any] = {
        "command": "search",
        "model": str(out),
        "method": method,
        "estimator": type(searcher.best_estimator_).__name__,
        "cost": asdict(cost),
        "best_params": searcher.best_params_,
        "best_score": None if math.isnan(searcher.best_score_) else searcher.best_score_,
        "classes": searcher.classes_,
        "privacy": searcher.privacy_.model_dump(mode="json"),
        "candidates": None,
    }
    if hasattr(searcher, "cv_results_"):
        results = searcher.cv_results_
        report["candidates"] = [
            {"params": params, "noisy_accuracy": score}
            for params, score in zip(results["params"], results["mean_test_score"], strict=True)
        ]
    return report


def _print(searcher: DPSearchCV, out: Path) -> None:
    if hasattr(searcher, "cv_results_"):
        results = searcher.cv_results_
        for params, score in zip(results["params"], results["mean_test_score"], strict=True):
            print(f"noisy accuracy {100 * score:6.2f}%  {_words(params)}")
    best = _words(searcher.best_params_)
    if math.isnan(searcher.best_score_):
        print(f"Nothing was run, as a Poisson law may have it. A random candidate: {best}")
    else:
        print(f"Best: {best}, noisy accuracy {100 * searcher.best_score_:.2f}%")
    print(searcher.privacy_.to_text().splitlines()[0])
    print(f"\nModel: {out} ({type(searcher.best_estimator_).__name__}), with the whole statement")


def _words(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())
