"""`dpfc extract`: images into a feature cache."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from dpfc.experiments.console import print_json
from dpfc.experiments.options import Json

__all__ = ["extract"]


def extract(
    data: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Image Parquet file or folder of them (Hugging Face layout), folder with one "
            "sub-folder of images a class, or 'mnist5k' or 'digits' (also ':train', ':test').",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the cache; new, or one to go on with.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="Frozen public network.")
    ] = "efficientnet-lite0",
    image_size: Annotated[
        int, typer.Option(help="Side of the square that images are resized to, in pixels.")
    ] = 128,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network runs.")
    ] = "auto",
    batch_size: Annotated[
        str, typer.Option(metavar="auto|N", help="Images a forward pass.")
    ] = "auto",
    dtype: Annotated[
        Literal["float16", "float32"], typer.Option(help="How features are stored.")
    ] = "float16",
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads; the available cores by default.", min=1),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh over a cache of other inputs.")
    ] = False,
    json: Json = False,
) -> None:
    """Turn images into a feature cache, with a frozen public network.

    Stopped with Ctrl-C or killed, it loses the shard in hand at most: run the same command
    again and it goes on.

    Example: dpfc extract --data train.parquet --out features/train
    """
    from dpfc.features import extract as extract_features
    from dpfc.features import load_backbone, open_dataset

    if batch_size != "auto" and not batch_size.isdecimal():
        raise ValueError(f"--batch-size must be 'auto' or a whole number, got {batch_size!r}.")
    began = time.perf_counter()
    dataset = open_dataset(data)
    network = load_backbone(backbone, image_size=image_size, device=device)
    cache = extract_features(
        dataset,
        network,
        out,
        batch_size="auto" if batch_size == "auto" else int(batch_size),
        dtype=dtype,
        workers=workers,
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - began
    report = {
        "command": "extract",
        "path": str(out),
        "rows": len(cache),
        "n_features": cache.n_features,
        "class_names": cache.class_names,
        "seconds": round(seconds, 3),
        "rows_per_second": round(len(cache) / seconds, 1),
    }
    if json:
        print_json(report)
        return
    print(
        f"{len(cache):,} rows × {cache.n_features:,} features in {seconds:.1f} s "
        f"({len(cache) / seconds:,.0f} rows/s): {out}"
    )
