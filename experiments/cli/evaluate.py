"""`dpfc evaluate`: how good a model is, under a budget or for the owner's eyes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc._support.words import counted
from dpfc.experiments.cli.console import print_json, print_table
from dpfc.experiments.cli.ledger_options import Said, open_ledger, spends
from dpfc.experiments.cli.options import (
    AccountantName,
    Features,
    Json,
    ModelPath,
    RelationName,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dpfc import DPSGDClassifier, PrivateEvaluation
    from dpfc.features import FeatureCache
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = ["evaluate"]

_OWN_LOOK = (
    "Not private: for the owner's eyes only. Computed without noise; publishing these figures is "
    "covered by no guarantee if the rows are private. --epsilon gives figures that may be "
    "published."
)


@spends
def evaluate(
    model: ModelPath,
    features: Features,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="ε of the guarantee, a float > 0. Without it, figures are exact and for the "
            "owner's eyes only."
        ),
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="δ of the guarantee, in (0, 1); 1e-5 by default.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Any of accuracy, confusion_matrix and auc, which share the budget equally; "
            "accuracy,confusion_matrix by default.",
        ),
    ] = None,
    neighboring_relation: Annotated[
        RelationName | None,
        typer.Option(
            metavar="NAME",
            help="What is hidden: add_or_remove_one (the default), or replace_one, under which "
            "the number of rows is public.",
        ),
    ] = None,
    n_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of test rows, if it is public knowledge; otherwise it is private.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(help="Of each interval by itself, in (0, 1); 0.95 by default."),
    ] = None,
    accountant: Annotated[
        AccountantName | None,
        typer.Option(metavar="NAME", help="How releases are added up; auto by default."),
    ] = None,
    said: Said = Said(),
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Make the noise repeatable. The result is NOT private: who knows the seed can "
            "subtract it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure a model on a feature cache with labels.

    With --epsilon, test rows are protected: figures come from noisy counts, with intervals
    for both the noise and the choice of rows, and a privacy statement. Without it, figures
    are exact, they are the data owner's own look, and no guarantee covers publishing them.

    Example: dpfc evaluate --model model.safetensors --features features/test --epsilon 1
    """
    from dpfc import load_model
    from dpfc.experiments.cli.new_rows import check_same_columns
    from dpfc.features import FeatureCache

    options = {
        "delta": delta,
        "metrics": None if metrics is None else tuple(part.strip() for part in metrics.split(",")),
        "neighboring_relation": neighboring_relation,
        "n_samples": n_samples,
        "confidence": confidence,
        "accountant": accountant,
        "ledger": said.ledger,
        "dataset": said.dataset,
        "random_state": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    words = {"random_state": "--seed"}
    for name in [words.get(name, f"--{name.replace('_', '-')}") for name in given] + said.options:
        if epsilon is None:
            raise ValueError(f"{name} needs --epsilon: without it nothing is private or spent.")
    classifier = load_model(model)
    cache = FeatureCache.open(features)
    check_same_columns(classifier, cache, labels=True)
    origin = {"command": "evaluate", "model": str(model), "features": str(features)}
    if epsilon is None:
        _show_own_look(origin, classifier, cache, json)
    else:
        paying: dict[str, Any] = {"ledger": open_ledger(cache, seed, said)}
        evaluation = _evaluate_privately(classifier, cache, epsilon, given | paying)
        _show_private(origin, evaluation, json)


def _evaluate_privately(
    classifier: PrivateLinearClassifier | DPSGDClassifier,
    cache: FeatureCache,
    epsilon: float,
    options: dict[str, Any],
) -> PrivateEvaluation:
    from dpfc import evaluate_privately

    _check_kinds(cache, classifier.classes_)
    return evaluate_privately(classifier, cache, epsilon=epsilon, **options)


def _show_private(origin: dict[str, Any], evaluation: PrivateEvaluation, json: bool) -> None:
    """Everything here may be published; the exact number of rows is not among it."""
    if json:
        print_json(origin | evaluation.to_dict())
    else:
        print(evaluation)


def _show_own_look(
    origin: dict[str, Any],
    classifier: PrivateLinearClassifier | DPSGDClassifier,
    cache: FeatureCache,
    json: bool,
) -> None:
    labels = _labels(cache, classifier.classes_)
    hits = classifier.predict(cache) == labels
    per_class = []
    for name in classifier.classes_.tolist():
        own = hits[labels == name]
        accuracy = float(own.mean()) if len(own) else None
        per_class.append({"class": name, "rows": len(own), "accuracy": accuracy})
    report = origin | {
        "accuracy": float(hits.mean()),
        "rows": len(hits),
        "per_class": per_class,
        "note": _OWN_LOOK,
    }
    if json:
        print_json(report)
    else:
        _print_own_look(report)


def _labels(cache: FeatureCache, classes: NDArray[Any]) -> NDArray[Any]:
    """Labels as the model names them, shape (n_samples,)."""
    import numpy as np

    from dpfc.mechanism.rows import cache_labels

    labels = cache_labels(cache, cache.read_labels())
    _check_kinds(cache, classes)
    unknown = int((~np.isin(labels, classes)).sum())
    if unknown:
        raise ValueError(
            f"rows of the cache with labels that the model does not know: {unknown:,}."
        )
    return labels


def _check_kinds(cache: FeatureCache, classes: NDArray[Any]) -> None:
    """Refuse names of classes where the model has numbers, and the reverse."""
    if (cache.class_names is not None) != (classes.dtype.kind == "U"):
        raise ValueError(
            "the model's classes and the cache's labels are of different kinds (names and "
            "numbers): the model was trained on another data set."
        )


def _print_own_look(report: dict[str, Any]) -> None:
    print(f"accuracy {report['accuracy']:.2%} on {counted(report['rows'], 'row')}\n")
    rows = []
    for entry in report["per_class"]:
        accuracy = "-" if entry["accuracy"] is None else f"{entry['accuracy']:.2%}"
        rows.append((str(entry["class"]), f"{entry['rows']:,}", accuracy))
    print_table(("class", "rows", "accuracy"), rows)
    print(f"\n{_OWN_LOOK}")
