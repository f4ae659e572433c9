"""`dpfc features import`: embeddings made elsewhere into a feature cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from dpfc.experiments.cli.console import counted, print_json, shown
from dpfc.experiments.cli.options import Json
from dpfc.experiments.cli.skipped import print_skipped

__all__ = ["import_features"]


def import_features(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Files of one kind, whose rows follow each other: .npy, .npz, .parquet, or .jsonl "
            "as Gemini, Vertex AI, OpenAI, Cohere and Bedrock return embeddings.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the cache; new, or one to go on with.")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels in a file of their own: .npy, .txt with one a line, or a table. A table "
            "with a column of ids is matched by them; others have the rows' order.",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column, array or field with the labels; 'label' (.npz: 'y') if there.",
        ),
    ] = None,
    features_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column, array or field with the features, where it has no usual name; in "
            "Parquet, 'f*' takes all columns of numbers that start with f, '*' all: but not the "
            "label, the id or an index.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column that a * must not take; may be repeated."),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column, array or field with the ids; 'id', 'key' or 'custom_id' if there.",
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="The public list of classes. Give the same one for training and test rows; "
            "without it, names collected from private labels are not kept.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="How features are stored.")
    ] = "float16",
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(
            help="At a request that the service answered with an error, or a row without its "
            "label: stop and name it, or leave it out and list it in the cache's manifest."
        ),
    ] = "stop",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh over a cache of other inputs.")
    ] = False,
    json: Json = False,
) -> None:
    """Write embeddings that were made elsewhere into a feature cache.

    Every row is checked before anything is written. Rows and labels are matched by id, or must be
    as many, in one order.

    Examples: dpfc features import train.npz --out features/train

    dpfc features import batch-1.jsonl batch-2.jsonl --labels labels.csv --class-names bad,good
    --out features/reviews
    """
    from dpfc.features import import_features as run_import

    began = time.perf_counter()
    cache = run_import(
        sources,
        out,
        labels=labels,
        label_column=label_column,
        features_column=features_column,
        id_column=id_column,
        class_names=None if class_names is None else class_names.split(","),
        drop=drop or (),
        dtype=dtype,
        on_error=on_error,
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - began
    skipped = len(cache.manifest["skipped"])
    labelled = cache.description.has_labels
    columns = cache.manifest["preprocessing"].get("columns")
    if json:
        print_json(
            {
                "command": "features import",
                "path": str(out),
                "rows": len(cache),
                "skipped": skipped,
                "n_features": cache.n_features,
                "has_labels": labelled,
                "columns": columns,
                "class_names": cache.class_names,
                "seconds": round(seconds, 3),
            }
        )
        return
    print(
        f"{counted(len(cache), 'row')} × {counted(cache.n_features, 'feature')}, "
        f"{'with' if labelled else 'without'} labels, in {seconds:.1f} s: {out}"
    )
    if columns is not None:
        print(f"features are the columns {shown(', '.join(columns))}")
    if skipped:
        print_skipped(cache, f"requests that had failed, or rows without a label: {skipped:,}")
