"""`dpfc predict`: a model file applied to images, texts, a table or a feature cache."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dpfc._support.csv_text import write_csv
from dpfc._support.files import write_whole
from dpfc._support.words import counted, shown
from dpfc.experiments.cli.console import print_json
from dpfc.experiments.cli.files import check_writable
from dpfc.experiments.cli.options import Force, Json, ModelPath

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dpfc.features import FeatureCache

__all__ = ["predict"]


def predict(
    model: ModelPath,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="File to write, .csv or .parquet; '-' is CSV on standard output."
        ),
    ],
    features: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Feature cache that `dpfc extract` wrote."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A table, encoded by the schema of the table that the model was trained on.",
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR|FILE", help="Images, in one folder or in files (repeat it for each)."
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|TEXT", help="A table of texts, or a text itself (repeat it for each)."
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a table: the texts; 'text' or 'sentence' if there."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Network that embeds images or texts, where the model does not name it or it "
            "lies in a file; it must be that of the model's features.",
        ),
    ] = None,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="At an image or text that cannot be read: stop, or leave it out."),
    ] = "stop",
    proba: Annotated[
        bool, typer.Option("--proba", help="Add a column of probabilities for each class.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model's predictions for new images, texts, a table or a feature cache.

    One line a row.

    Columns: id (or row, counted from 0, where a cache has no ids), predicted_class, and with
    --proba one column probability_CLASS a class. Labels are not needed, nor read.

    Examples: dpfc predict --model model.safetensors --images photos --out out.csv

    dpfc predict --model model.safetensors --features features/test --out out.csv

    dpfc predict --model model.safetensors --table new-patients.csv --out out.csv
    """
    from dpfc import load_model
    from dpfc.experiments.cli.new_rows import check_same_columns, embed_new_rows, encode_new_table
    from dpfc.features import FeatureCache

    if out == "-" and json:
        raise ValueError("--json and --out - would both write to standard output; choose one.")
    if sum(map(bool, (features, images, text, table))) != 1:
        raise ValueError("name the rows with one of --features, --images, --text and --table.")
    if out != "-":
        reads = (model, features, table, *(images or ()), *_tables(text or ()))
        check_writable(Path(out), reads=reads, force=force, suffixes=(".csv", ".parquet"))
    classifier = load_model(model)
    if features is not None:
        cache = FeatureCache.open(features)
        check_same_columns(classifier, cache)
        _predict(classifier, cache, out, proba, json)
        return
    with tempfile.TemporaryDirectory(prefix="dpfc-predict-") as folder:
        if table is not None:
            _predict(
                classifier,
                encode_new_table(classifier, Path(folder, "cache"), table),
                out,
                proba,
                json,
            )
            return
        cache = embed_new_rows(
            classifier,
            Path(folder, "cache"),
            images=images or (),
            texts=text or (),
            text_column=text_column,
            backbone=backbone,
            on_error=on_error,
        )
        for row in cache.manifest["skipped"]:
            print(f"left out, since it cannot be read: {shown(row['id'])}", file=sys.stderr)
        _predict(classifier, cache, out, proba, json)


def _tables(texts: Sequence[str]) -> list[Path]:
    """Those that are names of files, not texts themselves."""
    found = []
    for text in texts:
        with suppress(OSError):  # a text may be too long for a name
            found += [Path(text)] if Path(text).is_file() else []
    return found


def _predict(classifier: Any, cache: FeatureCache, out: str, proba: bool, json: bool) -> None:
    """Write the predictions, and say how many."""
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
        print(f"{counted(len(cache), 'prediction')}: {out}")


def _row_names(cache: FeatureCache) -> dict[str, Any]:
    """Column with the rows' ids, or their positions where the cache has none."""
    import numpy as np

    from dpfc.features.cache.parquet_reading import read_columns

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
