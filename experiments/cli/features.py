"""`dpfc features`: look at a feature cache, check it, take it elsewhere, bring one from there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc._support.words import counted, shown
from dpfc.experiments.cli.console import print_json, sized
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import Force, Json
from dpfc.experiments.cli.schema import told_source

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["features_app", "print_skipped"]

_LISTED = 5

features_app = typer.Typer(rich_markup_mode=None)


@features_app.callback(invoke_without_command=True)
def _features(context: typer.Context) -> None:
    """Look at a feature cache, check it, export it, import one.

    What these print is for the data's owner: it is exact and carries no noise.

    Example: dpfc features info features/train
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


Cache = Annotated[Path, typer.Argument(metavar="DIR", help="Feature cache.")]

_PRIVATE = "Exact figures of private rows, for their owner: publish none of them."


@features_app.command("import")
def import_features(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Files of one kind, whose rows follow each other: .npy, .npz, .parquet, or .jsonl "
            "as Gemini, Vertex AI, OpenAI, Cohere and Bedrock return embeddings; with --schema "
            "tables: .csv, .tsv, .parquet, .jsonl.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the cache; new, or one to go on with.")
    ],
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What is public about a table's columns, from which its features are made, and "
            "which column is the label: see `dpfc schema`.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels in a file of their own: .npy, .txt with one a line, or a table. A table "
            "with a column of ids is matched by them; others have the rows' order.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Whose each row is, such as a patient's id, in a file of its own: of the kinds of "
            "--labels and matched like them.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column, array or field that says whose each row is; kept in the cache, so that a "
            "whole person can be protected.",
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
    """Write embeddings that were made elsewhere, or a table's columns, into a feature cache.

    Every row is checked before anything is written. Rows and labels are matched by id, or must be
    as many, in one order.

    Examples: dpfc features import train.npz --out features/train

    dpfc features import batch-1.jsonl batch-2.jsonl --labels labels.csv --class-names bad,good
    --out features/reviews

    dpfc features import patients.csv --schema schema.yaml --out features/patients
    """
    from dpfc.features import import_features as run_import

    began = time.perf_counter()
    cache = run_import(
        sources,
        out,
        labels=labels,
        groups=groups,
        label_column=label_column,
        group_column=group_column,
        features_column=features_column,
        id_column=id_column,
        class_names=None if class_names is None else class_names.split(","),
        drop=drop or (),
        schema=schema,
        dtype=dtype,
        on_error=on_error,
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - began
    skipped = len(cache.manifest["skipped"])
    labelled = cache.description.has_labels
    columns = cache.manifest["preprocessing"].get("columns")
    known = cache.manifest["preprocessing"].get("schema")
    if json:
        print_json(
            {
                "command": "features import",
                "path": str(out),
                "rows": len(cache),
                "skipped": skipped,
                "n_features": cache.n_features,
                "has_labels": labelled,
                "has_groups": cache.has_groups,
                "columns": columns,
                "schema_source": None if known is None else known["source"],
                "class_names": cache.class_names,
                "seconds": round(seconds, 3),
            }
        )
        return
    told = f"{'with' if labelled else 'without'} labels{' and groups' if cache.has_groups else ''}"
    print(
        f"{counted(len(cache), 'row')} × {counted(cache.n_features, 'feature')}, {told}, "
        f"in {seconds:.1f} s: {out}"
    )
    if columns is not None:
        print(f"features are the columns {shown(', '.join(columns))}")
    if known is not None:
        print(f"features by {schema} ({told_source(known['source'])}), which counts as public")
    if skipped:
        print_skipped(cache, f"requests that had failed, or rows without a label: {skipped:,}")


@features_app.command()
def info(
    cache: Cache,
    class_counts: Annotated[
        bool,
        typer.Option("--class-counts", help="Count each class's rows too: exact, so private."),
    ] = False,
    json: Json = False,
) -> None:
    """Say what a feature cache holds and where it comes from.

    Only the manifest and the shards' footers are read. What it prints is for the data's owner:
    even the number of rows is private where one row may be added or removed.

    Example: dpfc features info features/train
    """
    from dpfc.features import FeatureCache

    opened = FeatureCache.open(cache)
    manifest = opened.manifest
    report: dict[str, Any] = {
        "command": "features info",
        "path": str(cache),
        "private": _PRIVATE,
        "rows": len(opened),
        "skipped": len(manifest["skipped"]),
        "n_features": opened.n_features,
        "dtype": opened.description.dtype,
        "has_labels": opened.description.has_labels,
        "has_groups": opened.has_groups,
        "class_names": opened.class_names,
        "backbone": manifest["backbone"],
        "preprocessing": manifest["preprocessing"],
        "passes": manifest.get("passes"),
        "dataset": manifest["dataset"],
        "shards": len(manifest["shards"]),
        "bytes": sum((cache / shard["file"]).stat().st_size for shard in manifest["shards"]),
        "sha256": manifest["sha256"],
        "class_counts": _class_counts(opened) if class_counts else None,
    }
    print_json(report) if json else _print_info(report)


def _class_counts(cache: Any) -> dict[str, int]:
    import numpy as np

    counts = np.bincount(cache.read_labels(), minlength=len(cache.class_names or ()))
    names = cache.class_names or range(len(counts))
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _print_info(report: dict[str, Any]) -> None:
    names = report["class_names"]
    labels = "none" if not report["has_labels"] else "with names" if names else "without names"
    lines = {
        "rows": f"{report['rows']:,}",
        "skipped": f"{counted(report['skipped'], 'row')} that could not be read",
        "width": f"{counted(report['n_features'], 'feature')}, {report['dtype']}",
        "labels": f"{labels}: {', '.join(names)}" if names and report["has_labels"] else labels,
        "groups": "whose each row is" if report["has_groups"] else "none",
        "backbone": _one_line(report["backbone"]),
        "preprocessing": _preprocessing(report["preprocessing"]),
        "passes": "unknown" if report["passes"] is None else _one_line(report["passes"]),
        "data set": _one_line(report["dataset"]),
        "size": f"{sized(report['bytes'])} in {counted(report['shards'], 'shard')}",
        "checksum": report["sha256"],
    }
    if report["class_counts"] is not None:
        lines["class counts"] = _one_line(report["class_counts"])
    for name, value in lines.items():
        print(f"{name:14} {shown(value)}")
    print(f"\n{report['private']}")


def _preprocessing(values: dict[str, Any]) -> str:
    """In one line: of a table's schema, which fills a page, where it comes from."""
    if (schema := values.get("schema")) is None:
        return _one_line(values)
    return (
        f"schema of {counted(len(schema['columns']), 'column')} ({told_source(schema['source'])})"
    )


def _one_line(values: dict[str, Any]) -> str:
    return "; ".join(f"{key} {value}" for key, value in values.items()) or "unknown"


@features_app.command()
def verify(cache: Cache, json: Json = False) -> None:
    """Check every byte of a feature cache against its checksums.

    Finds what accidents change; whoever writes new checksums on purpose is not found out. The
    exit code is 1 if a file is damaged or missing, or the cache is incomplete.

    Example: dpfc features verify features/train
    """
    from dpfc.features import FeatureCache

    damages = FeatureCache.verify(cache)
    report = {"command": "features verify", "path": str(cache), "damages": damages}
    if json:
        print_json(report)
    else:
        print("\n".join(damages) or f"{cache} is whole.")
    if damages:
        raise typer.Exit(1)


@features_app.command()
def export(
    cache: Cache,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="File to write: .npy (features only), .npz (arrays X, y, ids, groups, "
            "class_names), .parquet or .csv.",
        ),
    ],
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a feature cache's rows to one file, for other programs.

    The file holds private rows, as the cache does.

    Example: dpfc features export features/train --out train.npz
    """
    from dpfc.features import FeatureCache
    from dpfc.features.cache.export import EXPORT_SUFFIXES, export_cache

    check_writable(out, reads=(cache,), force=force, suffixes=EXPORT_SUFFIXES)
    opened = FeatureCache.open(cache)
    export_cache(opened, out)
    if json:
        rows, width = len(opened), opened.n_features
        print_json(
            {"command": "features export", "path": str(out), "rows": rows, "n_features": width}
        )
        return
    print(f"{counted(len(opened), 'row')} × {counted(opened.n_features, 'feature')}: {out}")


def print_skipped(cache: FeatureCache, what: str) -> None:
    """Say what happened, where all ids stand, and the first of them."""
    ids = [shown(row["id"]) for row in cache.manifest["skipped"]]
    print(f"{what}; their ids stand in {cache.path / 'manifest.json'}.")
    more = f" and {len(ids) - _LISTED:,} more" if len(ids) > _LISTED else ""
    print(f"left out: {', '.join(ids[:_LISTED])}{more}")
