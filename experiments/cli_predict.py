"""`dpfc predict`: a model file applied to a feature cache."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpfc.experiments.console import print_json
from dpfc.experiments.csv_text import write_csv
from dpfc.experiments.files import check_writable, write_whole
from dpfc.experiments.options import Features, Force, Json, ModelPath

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dpfc.features import FeatureCache

__all__ = ["predict"]


def predict(
    model: ModelPath,
    features: Features,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="File to write, .csv or .parquet; '-' is CSV on standard output."
        ),
    ],
    proba: Annotated[
        bool, typer.Option("--proba", help="Add a column of probabilities for each class.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model's predictions for a feature cache, one line a row.

    Columns: id (or row, counted from 0, where the cache has no ids), predicted_class, and with
    --proba one column probability_CLASS a class. Labels are not needed.

    Example: dpfc predict --model model.safetensors --features features/test --out out.csv
    """
    from dpfc import load_model
    from dpfc.features import FeatureCache

    if out == "-" and json:
        raise ValueError("--json and --out - would both write to standard output; choose one.")
    if out != "-":
        check_writable(Path(out), force=force, suffixes=(".csv", ".parquet"))
    classifier = load_model(model)
    cache = FeatureCache.open(features)
    columns: dict[str, Any] = _row_names(cache)
    columns["predicted_class"] = classifier.predict(cache)
    if proba:
        probabilities = classifier.predict_proba(cache)
        for k, name in enumerate(classifier.classes_.tolist()):
            columns[f"probability_{name}"] = probabilities[:, k]
    _write(columns, out)
    if json:
        print_json({"command": "predict", "path": out, "rows": len(cache), "columns": [*columns]})
    elif out != "-":
        print(f"{len(cache):,} predictions: {out}")


def _row_names(cache: FeatureCache) -> dict[str, Any]:
    """Column with the rows' ids, or their positions where the cache has none."""
    import numpy as np

    from dpfc.features.parquet_reading import read_columns

    if not cache.description.has_ids:
        return {"row": np.arange(len(cache))}
    ids: list[str] = []
    for shard in cache.manifest["shards"]:
        ids += read_columns(cache.path / shard["file"], ["id"]).column("id").to_pylist()
    return {"id": ids}


def _write(columns: dict[str, Any], out: str) -> None:
    if Path(out).suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        write_whole(Path(out), sink.getvalue())
        return
    text = io.StringIO(newline="")
    rows = zip(*(_plain(column) for column in columns.values()), strict=True)
    write_csv(text, [[*columns], *rows])
    if out == "-":
        sys.stdout.write(text.getvalue())
    else:
        write_whole(Path(out), text.getvalue())


def _plain(column: list[str] | NDArray[np.generic]) -> list[Any]:
    return column if isinstance(column, list) else list(column.tolist())
