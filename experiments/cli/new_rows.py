"""New images, texts or tables as features, made as a model's training rows were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpfc.features import Backbone, FeatureCache
    from dpfc.features.datasets.base import Dataset

__all__ = ["check_same_columns", "embed_new_rows", "encode_new_table", "load_matching_backbone"]


def embed_new_rows(
    model: Any,
    out: Path,
    *,
    images: Sequence[Path] = (),
    texts: Sequence[str] = (),
    text_column: str | None = None,
    backbone: str | None = None,
    on_error: str = "stop",
) -> FeatureCache:
    """Embed images or texts into a feature cache that a model can be applied to.

    Parameters
    ----------
    model : estimator
        Fitted; its `features_from_` says how its training rows were made.
    out : Path
        Folder of the cache, for the time being.
    images : sequence of Path
        One folder, or files.
    texts : sequence of str
        Tables of texts, known by their endings, or texts themselves.
    text_column : str, optional
        Of a table.
    backbone : str, optional
        Where the model does not name one, or it lies in a file.
    on_error : {"stop", "skip"}
        At a row that cannot be read.

    Raises
    ------
    ValueError
        If nothing says which backbone it is, it is another than the training rows', or it takes
        no such rows.
    DatasetError
        If the images or texts cannot be read.
    """
    from dpfc.features import extract

    rows = _images(images) if images else _texts(texts, text_column)
    origin = getattr(model, "features_from_", None)
    network = load_matching_backbone(origin, backbone)
    if rows.modality != network.modality:
        option = "--images" if network.modality == "image" else "--text"
        raise ValueError(
            f"these are {rows.modality}s, and {network.spec} takes {network.modality}s: give the "
            f"model {network.modality}s, with {option}."
        )
    dtype = "float16" if origin is None else origin["dtype"]
    return extract(rows, network, out, dtype=dtype, on_error=on_error, progress=None)


def encode_new_table(model: Any, out: Path, table: Path) -> FeatureCache:
    """Encode a table's rows into a feature cache, by the schema of a model's training rows.

    Label and group are not needed, nor read.

    Parameters
    ----------
    model : estimator
        Fitted; its `features_from_` holds the schema.
    out : Path
        Folder of the cache, for the time being.
    table : Path

    Raises
    ------
    ValueError
        If the model was not trained on a table.
    DatasetError
        If the table cannot be read, or does not fit the schema.
    """
    from dpfc.features import TableSchema, import_features
    from dpfc.features.importing.table import TABLE_SPEC

    origin = getattr(model, "features_from_", None)
    if origin is None or origin["spec"] != TABLE_SPEC:
        raise ValueError(
            "the model was not trained on a table that was imported with a schema: give it a "
            "feature cache with --features, images or texts."
        )
    schema = TableSchema.from_dict(origin["preprocessing"]["schema"], "the model's schema")
    dtype = origin["dtype"]
    return import_features(table, out, schema=schema.for_new_rows(), dtype=dtype, progress=None)


def _images(paths: Sequence[Path]) -> Dataset:
    from dpfc.features import DatasetError, open_dataset
    from dpfc.features.datasets.folders import IMAGE_SUFFIXES, UnsortedImages

    for path in paths:
        if not path.exists():
            raise DatasetError(f"there is no file or folder {path}, which --images names.")
    if len(paths) == 1:
        return open_dataset(paths[0], unlabelled=True)
    for path in paths:
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            raise DatasetError(
                f"{path} is no file of an image ({', '.join(IMAGE_SUFFIXES)}): name one folder, or "
                "files."
            )
    parents = [path.absolute().parent for path in paths]
    return UnsortedImages(Path(os.path.commonpath(parents)), paths, "images")


def _texts(texts: Sequence[str], column: str | None) -> Dataset:
    from dpfc.features import open_dataset
    from dpfc.features.datasets.base import TABLE_SUFFIXES
    from dpfc.features.datasets.texts import GivenTexts

    tables = [text for text in texts if Path(text).suffix.lower() in TABLE_SUFFIXES]
    if not tables:
        return GivenTexts(texts)
    if len(texts) > 1:
        raise ValueError("--text takes one table, or texts themselves.")
    return open_dataset(Path(tables[0]), text_column=column, unlabelled=True)


def load_matching_backbone(origin: dict[str, Any] | None, spec: str | None) -> Backbone:
    """Load the network, and check that it is the one that made the training rows."""
    from dpfc.features import load_backbone
    from dpfc.features.importing.table import TABLE_SPEC

    wanted = spec or (None if origin is None else origin["spec"])
    if wanted == TABLE_SPEC:
        raise ValueError("the model was trained on a table: give it new rows with --table.")
    if wanted is None:
        raise ValueError(
            "the model does not say which backbone made its features: name it with --backbone, as "
            "for dpfc extract, or extract the rows and use --features."
        )
    about = {} if origin is None else origin["preprocessing"]
    size = about.get("image_size")
    network = load_backbone(wanted, image_size=size if isinstance(size, int) else None)
    if origin is None:
        return network
    if _settings(network.preprocessing) != _settings(about) and "pooling" in about:
        network = load_backbone(wanted, image_size=size, pooling=str(about["pooling"]))
    if network.weights_sha256 != origin["weights_sha256"]:
        raise ValueError(
            f"{wanted} has other weights than the backbone that made the model's features: name "
            "that one with --backbone."
        )
    if _settings(network.preprocessing) != _settings(about):
        raise ValueError(
            f"{wanted} prepares its input otherwise than for the model's features: extract the "
            "rows with the same options as then, and use --features."
        )
    return network


def _settings(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """What must agree: all but what products are computed in, which the device decides."""
    return {key: value for key, value in preprocessing.items() if key != "compute_dtype"}


def check_same_columns(model: Any, cache: FeatureCache, *, labels: bool = False) -> None:
    """Refuse a table's rows that another schema encoded than the rows that the model was fitted on.

    As wide as these they may be, and mean something else.

    Parameters
    ----------
    labels : bool
        Refuse labels of another column, too.

    Raises
    ------
    ValueError
        The message names the first column that differs.
    """
    ours, theirs = (
        None if origin is None else origin["preprocessing"].get("schema")
        for origin in (getattr(model, "features_from_", None), cache.origin)
    )
    if ours is None or theirs is None:
        return
    pairs = zip(_features(ours), _features(theirs), strict=False)
    differs = [there[0] for here, there in pairs if here != there]
    if not differs and labels and _label(ours) != _label(theirs):
        differs = [_label(theirs) or str(_label(ours))]
    general = [key for key in ("knots", "missing_values") if ours[key] != theirs[key]]
    if differs or general:
        what = f"column {differs[0]!r}" if differs else f"{general[0]}:"
        raise ValueError(
            f"{cache.path} was made by another schema than the model's rows: {what} differs. "
            "Import the table again with the model's schema."
        )


def _features(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """What becomes features, in their order; a unit is for people."""
    columns = schema["columns"].items()
    return [(name, {**column, "unit": None}) for name, column in columns if "type" in column]


def _label(schema: dict[str, Any]) -> str | None:
    columns = schema["columns"].items()
    return next((name for name, column in columns if column.get("role") == "label"), None)
