"""`dpfc fit`: a feature cache and a budget into a model file and a privacy statement."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc.experiments.console import print_json
from dpfc.experiments.files import check_writable
from dpfc.experiments.methods import make_estimator
from dpfc.experiments.options import (
    Delta,
    Epsilon,
    Features,
    Force,
    Json,
    MethodName,
    Relation,
    Settings,
)

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["fit"]


def fit(
    features: Features,
    epsilon: Epsilon,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Model file to write (safetensors).")],
    method: Annotated[
        MethodName,
        typer.Option(
            help="fc: DP-FC, the one to start with. ls: DP-LS, least squares. gd: gradient "
            "descent, the baseline. newton: DP-Newton, slow."
        ),
    ] = "fc",
    delta: Delta = 1e-5,
    neighboring_relation: Relation = "add_or_remove_one",
    n_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of rows, if it is public knowledge; otherwise it is treated as private.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The public list of classes; needed only where the cache names none.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Make the run repeatable. The result is NOT private: who knows the seed can "
            "subtract the noise. By default noise comes from the system's secure source.",
        ),
    ] = None,
    settings: Settings = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a private classifier on a feature cache, spending (ε, δ) once.

    Writes the model file and prints the privacy statement: what was released, with how much
    noise, and what it adds up to. Everything is checked before anything is spent.

    Example: dpfc fit --features features/train --epsilon 1 --out model.safetensors
    """
    from dpfc.features import FeatureCache

    check_writable(out, force=force)
    cache = FeatureCache.open(features)
    model = make_estimator(
        method,
        settings or (),
        epsilon=epsilon,
        delta=delta,
        neighboring_relation=neighboring_relation,
        n_samples=n_samples,
        classes=None if classes is None else _parse_classes(classes, cache),
        random_state=seed,
        verbose=sys.stderr.isatty(),
    )
    began = time.perf_counter()
    model.fit(cache)
    seconds = time.perf_counter() - began
    # Whether a terminal watched is no part of the model.
    model.set_params(verbose=False).save(out)
    if json:
        print_json(_report(model, method, out, seconds))
        return
    print(model.privacy_.to_text())
    print(f"\nModel: {out} ({type(model).__name__}, {seconds:.1f} s)")


def _report(model: Any, method: str, out: Path, seconds: float) -> dict[str, Any]:
    """Everything here may be published; the number of rows, for one, is not among it."""
    return {
        "command": "fit",
        "model": str(out),
        "method": method,
        "estimator": type(model).__name__,
        "n_features": model.n_features_in_,
        "classes": model.classes_,
        "seconds": round(seconds, 3),
        "privacy": model.privacy_.model_dump(mode="json"),
    }


def _parse_classes(text: str, cache: FeatureCache) -> list[str] | list[int]:
    """Class labels as the cache has them: names, or integers where it names none."""
    parts = [part.strip() for part in text.split(",")]
    if cache.class_names is not None:
        return parts
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise ValueError(
            f"--classes must be whole numbers, as the labels of this cache are, got {text!r}."
        ) from None
