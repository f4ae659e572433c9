"""`dpfc fit`: a feature cache and a budget into a model file and a privacy statement."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.ledger_options import Said, open_ledger, record_model, spends
from dpfc.experiments.cli.options import (
    Accountant,
    Classes,
    ClassWeight,
    Delta,
    Epsilon,
    Features,
    Force,
    Json,
    Method,
    ModelOut,
    PublicFeatures,
    PublicSize,
    Relation,
    Seed,
    Settings,
)
from dpfc.experiments.estimators import (
    fitted_report,
    make_estimator,
    parse_class_weight,
    parse_classes,
)

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["fit"]


@spends
def fit(
    features: Features,
    epsilon: Epsilon,
    out: ModelOut,
    method: Method = "fc",
    delta: Delta = 1e-5,
    neighboring_relation: Relation = "add_or_remove_one",
    n_samples: PublicSize = None,
    classes: Classes = None,
    class_weight: ClassWeight = None,
    public_features: PublicFeatures = None,
    seed: Seed = None,
    accountant: Accountant = "auto",
    said: Said = Said(),
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a private classifier on a feature cache, spending (ε, δ) once.

    Writes the model file and prints the privacy statement: what was released, with how much
    noise, and what it adds up to. Everything is checked before anything is spent.

    With --ledger and --dataset, the spend is written into the ledger before anything is released,
    and a fit that would exceed what remains of the budget is refused.

    With --public-features, embeddings of unlabelled public data tell where private rows lie, for
    free. They must hold nothing private.

    Example: dpfc fit --features features/train --epsilon 1 --out model.safetensors
    """
    from dpfc.features import FeatureCache
    from dpfc.linear.saving import model_bytes
    from dpfc.mechanism.paid_models import PaidModel

    check_writable(out, reads=(features, public_features, said.ledger), force=force)
    cache = FeatureCache.open(features)
    book = open_ledger(cache, seed, said)
    own = {} if public_features is None else _open_public(public_features, method, cache)
    model = make_estimator(
        method,
        settings or (),
        **own,
        epsilon=epsilon,
        delta=delta,
        neighboring_relation=neighboring_relation,
        n_samples=n_samples,
        accountant=accountant,
        ledger=book,
        dataset=said.dataset,
        classes=parse_classes(classes, cache),
        class_weight=parse_class_weight(class_weight, cache),
        random_state=seed,
        verbose=sys.stderr.isatty(),
    )
    began = time.perf_counter()
    with PaidModel(out, replace=force) as target:
        model.fit(cache)
        seconds = time.perf_counter() - began
        # Whether a terminal watched is no part of the model.
        target.save(model_bytes(model.set_params(verbose=False)))
    record_model(book, said.dataset, model.privacy_, out)
    if json:
        print_json(fitted_report("fit", model, out, method=method))
        return
    print(model.privacy_.to_text())
    print(f"\nModel: {out} ({type(model).__name__}, {seconds:.1f} s)")


def _open_public(folder: Path, method: str, private: FeatureCache) -> dict[str, Any]:
    from dpfc.features import FeatureCache

    if method != "fc":
        raise ValueError(f"--public-features is for --method fc, got {method!r}.")
    public = FeatureCache.open(folder)
    if _made_by(public) != _made_by(private):
        raise ValueError(
            f"{folder} was embedded by another backbone, other weights or another schema than the "
            "private cache: use the same dpfc extract, or import, options for both."
        )
    return {"public_features": public}


def _made_by(cache: FeatureCache) -> dict[str, Any]:
    """What made a cache's features: of a table its schema, whichever file the rows came from."""
    backbone: dict[str, Any] = cache.manifest["backbone"]
    if cache.manifest["preprocessing"].get("schema") is None:
        return backbone
    return {key: value for key, value in backbone.items() if key != "sources"}
