"""`dpfc train`: a feature cache and a budget into a whole network, trained by DP-SGD."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.ledger_options import Said, open_ledger, record_model, spends
from dpfc.experiments.cli.options import (
    AccountantName,
    Classes,
    Delta,
    Epsilon,
    Features,
    Force,
    Json,
    ModelOut,
    PublicSize,
    RelationName,
    old_spelling,
)
from dpfc.experiments.estimators import fitted_report, make_network_classifier, parse_classes

if TYPE_CHECKING:
    from dpfc import DPSGDClassifier
    from dpfc.features import FeatureCache
    from dpfc.mechanism.paid_models import PaidModel

__all__ = ["train"]

# As `dpfc.full_models` has them; naming them here keeps PyTorch out of --help.
NetworkName = Literal["linear", "mlp", "cnn", "wrn-16-4", "vit-tiny", "dlr"]
OptimizerName = Literal["sgd", "adam", "adamw", "schedule-free-sgd", "schedule-free-adamw", "o2nc"]
ScheduleName = Literal["constant", "linear", "cosine", "refined"]
ClippingName = Literal["hooks", "functorch", "ghost"]
AugmentationName = Literal["flip", "crop", "crop-flip"]


@spends
def train(
    features: Features,
    epsilon: Epsilon,
    out: ModelOut,
    network: Annotated[
        NetworkName | None,
        typer.Option(metavar="NAME", help="mlp (default), linear, cnn, wrn-16-4, vit-tiny or dlr."),
    ] = None,
    model: Annotated[NetworkName | None, typer.Option(hidden=True)] = None,
    delta: Delta = 1e-5,
    steps: Annotated[int, typer.Option(metavar="N", help="Noisy gradients.")] = 200,
    sampling_probability: Annotated[
        float, typer.Option(metavar="Q", help="Expected share of the rows (or groups) in a step.")
    ] = 0.1,
    l2_clip_norm: Annotated[
        float, typer.Option(metavar="C", help="What each row's gradient is clipped at.")
    ] = 1.0,
    clipping: Annotated[
        ClippingName,
        typer.Option(
            metavar="NAME",
            help="hooks, functorch, or ghost: least memory, fast on linear layers.",
        ),
    ] = "hooks",
    optimizer: Annotated[
        OptimizerName,
        typer.Option(
            metavar="NAME",
            help="sgd, adam, adamw, schedule-free-sgd, schedule-free-adamw or o2nc.",
        ),
    ] = "adam",
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="The optimizer's own by default.")
    ] = None,
    mechanic: Annotated[
        bool, typer.Option("--mechanic", help="Tune the learning rate's scale; sgd, adam, adamw.")
    ] = False,
    schedule: Annotated[
        ScheduleName, typer.Option(metavar="NAME", help="constant, linear, cosine or refined.")
    ] = "constant",
    schedule_norms: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For refined: model of a run whose budget counts too."),
    ] = None,
    augmentation: Annotated[
        AugmentationName | None,
        typer.Option(metavar="NAME", help="Of square images: flip, crop or crop-flip."),
    ] = None,
    augmentation_multiplicity: Annotated[
        int, typer.Option(metavar="K", help="Copies of a row.")
    ] = 1,
    ema_decay: Annotated[
        float | None,
        typer.Option(metavar="DECAY", help="Publish a moving average of the weights."),
    ] = None,
    physical_batch_size: Annotated[
        int, typer.Option(metavar="N", help="Rows at a time, for memory alone.")
    ] = 128,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same command goes on from it, for no new spend."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")
    ] = "auto",
    neighboring_relation: Annotated[
        RelationName,
        typer.Option(metavar="NAME", help="add_or_remove_one, replace_one."),
    ] = "add_or_remove_one",
    n_samples: PublicSize = None,
    classes: Classes = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Make the run repeatable, and NOT private.")
    ] = None,
    accountant: Annotated[
        AccountantName,
        typer.Option(metavar="NAME", help="pld, rdp; exact if steps take all rows."),
    ] = "auto",
    said: Said = Said(),
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A further parameter: momentum, weight_decay, warmup_steps, trainable, "
            "input_bound or checkpoint_every; may be repeated.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a whole network on a feature cache by DP-SGD, spending (ε, δ) once.

    Images come from dpfc extract --backbone pixels. Where there is a backbone, dpfc fit takes
    seconds. Stopped, the same command goes on from --checkpoint. A cache's groups are protected.

    Example: dpfc train --features pixels/train --network cnn --epsilon 8 --out cnn.safetensors
    """
    from dpfc.features import FeatureCache
    from dpfc.mechanism.paid_models import PaidModel

    chosen = old_spelling(network, model, now="--network", before="--model") or "mlp"
    saved = _saved_before(checkpoint, out)
    reads = (features, schedule_norms, said.ledger)
    check_writable(out, reads=reads, force=force or saved)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, out, reads)
    cache = FeatureCache.open(features)
    book = open_ledger(cache, seed, said)
    if augmentation is not None:
        _check_images(cache)
    classifier = make_network_classifier(
        settings or (),
        module=chosen,
        epsilon=epsilon,
        delta=delta,
        n_steps=steps,
        sampling_probability=sampling_probability,
        l2_clip_norm=l2_clip_norm,
        clipping=clipping,
        optimizer=optimizer,
        learning_rate=learning_rate,
        mechanic=mechanic,
        schedule=schedule,
        schedule_norms=None if schedule_norms is None else _gradient_norms(schedule_norms),
        augmentation=augmentation,
        augmentation_multiplicity=augmentation_multiplicity,
        ema_decay=ema_decay,
        physical_batch_size=physical_batch_size,
        checkpoint=checkpoint,
        device=device,
        neighboring_relation=neighboring_relation,
        n_samples=n_samples,
        classes=parse_classes(classes, cache),
        random_state=seed,
        accountant=accountant,
        ledger=book,
        dataset=said.dataset,
        verbose=sys.stderr.isatty(),
    )
    seconds = _fit(classifier, cache, PaidModel(out, replace=force or saved), checkpoint)
    record_model(book, said.dataset, classifier.privacy_, out)
    if json:
        print_json(fitted_report("train", classifier, out, network=chosen))
        return
    print(classifier.privacy_.to_text())
    print(f"\nModel: {out} ({type(classifier).__name__}, {chosen}, {seconds:.1f} s)")


def _saved_before(checkpoint: Path | None, out: Path) -> bool:
    """Whether `out` is the model of the run in the checkpoint, which was killed after saving it."""
    if checkpoint is None or not (checkpoint.is_file() and out.is_file()):
        return False
    from dpfc import load_model
    from dpfc.exceptions import ModelFileError
    from dpfc.full_models.checkpoints import CheckpointError, read_checkpoint

    try:
        statement = read_checkpoint(checkpoint).get("statement")
        return statement is not None and load_model(out).privacy_.to_json() == statement
    except (CheckpointError, ModelFileError):
        return False


def _check_checkpoint(checkpoint: Path, out: Path, reads: Sequence[Path | None]) -> None:
    """Refuse a checkpoint that could not be written once the budget is spent."""
    if checkpoint.resolve() == out.resolve():
        raise ValueError("--checkpoint and --out are the same file: name two.")
    check_writable(checkpoint, reads=reads, force=True, option="--checkpoint")


def _check_images(cache: FeatureCache) -> None:
    """Refuse to augment what is no image before anything is spent."""
    from dpfc.full_models.networks.factory import square_image

    if square_image(cache.n_features) is None:
        raise ValueError(
            f"--augmentation is for square images, and rows of {cache.n_features} features are "
            "none: make the cache with dpfc extract --backbone pixels, or leave it out."
        )


def _gradient_norms(path: Path) -> list[float]:
    """Released norms that a model file of an earlier run keeps."""
    from dpfc import load_model

    norms: list[float] | None = getattr(load_model(path), "gradient_norms_", None)
    if norms is None:
        raise ValueError(f"--schedule-norms takes a model of dpfc train, and {path} is none.")
    return norms


def _fit(
    model: DPSGDClassifier, cache: FeatureCache, target: PaidModel, checkpoint: Path | None
) -> float:
    """Fit and save; says so where a stopped fit can go on. Returns seconds."""
    from dpfc.full_models.saving import network_bytes

    began = time.perf_counter()
    try:
        with target:
            model.fit(cache)
            seconds = time.perf_counter() - began
            # Whether a terminal watched is no part of the model.
            target.save(network_bytes(model.set_params(verbose=False)))
    except BaseException as error:
        if not isinstance(error, ValueError) and checkpoint is not None and checkpoint.exists():
            print(f"The same command goes on from {checkpoint}.", file=sys.stderr)
        raise
    return seconds
