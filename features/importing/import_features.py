"""Features and tables into a feature cache: NumPy arrays, Parquet, a service's JSONL, CSV."""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpfc._support.files import sha256_of_file
from dpfc._support.progress import Progress, Report, reporting
from dpfc._support.validation import Choice, check
from dpfc.features.cache.manifest import DTYPES, NUMBERED_BY_ROWS, CacheDescription
from dpfc.features.cache.reader import FeatureCache
from dpfc.features.cache.writer import FeatureCacheWriter, refuse_overwritten
from dpfc.features.datasets.base import (
    ON_ERROR,
    TABLE_SUFFIXES,
    checked_names,
    printable,
    refuse_irregular,
    row_id,
)
from dpfc.features.datasets.groups import Groups
from dpfc.features.datasets.labels import read_labels
from dpfc.features.exceptions import DatasetError
from dpfc.features.importing.arrays import NpyFile, NpzFile
from dpfc.features.importing.first_pass import Survey
from dpfc.features.importing.jsonl import open_records
from dpfc.features.importing.labels import read_group_file, read_label_file
from dpfc.features.importing.leaks import refuse_label_columns
from dpfc.features.importing.parquet import ParquetFeatures
from dpfc.features.importing.rows import Columns, Source
from dpfc.features.importing.table import TABLE_SPEC, TableFile
from dpfc.features.tables.schema import TableSchema, read_schema

__all__ = ["import_features"]

_RECORDS = (".jsonl", ".ndjson")
_OPENERS: dict[str, Callable[[Path, Columns], Source]] = {
    ".npy": NpyFile,
    ".npz": NpzFile,
    ".parquet": ParquetFeatures,
}
_FAILED = "the embedding service reported an error for it"
_UNLABELLED = "it has no label"


def import_features(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | Path,
    *,
    labels: str | PathLike[str] | None = None,
    groups: str | PathLike[str] | None = None,
    features_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    class_names: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    schema: TableSchema | Mapping[str, Any] | str | PathLike[str] | None = None,
    dtype: str = "float16",
    on_error: str = "stop",
    progress: bool | Report | None = None,
    overwrite: bool = False,
    shard_rows: int = 8192,
) -> FeatureCache:
    """Write features that were made elsewhere into a feature cache.

    The files are read twice: once to check every row, before anything is written, and once to
    write. A block of rows is in memory at a time, and 20 bytes a row for ids and labels. Stopped
    at any moment, it goes on when it is called again.

    Parameters
    ----------
    sources : path or sequence of paths
        One or several files of one kind, whose rows follow each other: ``.npy``, ``.npz``,
        ``.parquet``, or ``.jsonl`` (also ``.ndjson``) with one record of an embedding service a
        line; see the page on importing features. With `schema`, tables: ``.csv``, ``.tsv``,
        ``.parquet`` or ``.jsonl``.
    out : str or Path
        Folder of the cache: new, empty, or a cache of the same files.
    labels : path, optional
        File of the labels: ``.npy``, ``.txt`` with one a line, or a table. A table with a column
        of ids is matched by them, and every id must have its row; other labels belong to the rows
        in their order, and there must be as many. Those in the sources are then not looked at.
    groups : path, optional
        File that says which person, or other unit of privacy, each row belongs to: of the kinds of
        `labels` and matched like them, but for rows of a table that no id asks for.
    features_column, label_column, id_column : str, optional
        Columns, arrays or fields, where they have not a usual name. In Parquet,
        ``features_column="*"`` takes every column of numbers that is not the label, the id or
        the index of a data frame, nor in `drop`; ``"f*"`` those that start with f. They are
        listed in the manifest, under ``preprocessing``.
    group_column : str, optional
        Column, array or field of the groups, beside the features or, with `groups`, in that file.
        Rows have no groups without either. Groups are texts or whole numbers and never missing;
        rows belong together exactly where they are equal, as for `open_dataset`.
    class_names : sequence of str, optional
        The public list of class names, as for `open_dataset`; names that are collected from the
        labels are private and are not kept.
    drop : sequence of str
        Columns that a star must not take.
    schema : TableSchema, dict or path, optional
        What is public about a table's columns: they become features as `TableEncoder` makes
        them, and label, classes, group and id are what it says. It is kept in the manifest, and in
        models, so that new rows are encoded the same.
    dtype : {"float16", "float32"}
        How features are stored; they are rounded to it.
    on_error : {"stop", "skip"}
        What to do with a request that the service answered with an error, or a row whose label
        is missing: stop and name it, or leave it out and list it in the manifest, under
        ``skipped``. A request that failed and was sent again counts once.
    progress : bool or callable, optional
        As for `extract`.
    overwrite : bool
        Start afresh over a feature cache of other inputs.
    shard_rows : int
        Rows in a shard.

    Returns
    -------
    FeatureCache

    Raises
    ------
    ValueError
        If a parameter is out of range, or the schema is none.
    DatasetError
        If a file cannot be read, rows differ in width, a feature is not finite in `dtype`, ids
        repeat, or labels do not match the rows; the message names the file and the row or line.
    FeatureCacheError
        If the folder is foreign, in use, holds a cache of other inputs or, with `overwrite`, a
        source, or cannot be written.
    """
    check("dtype", dtype, Choice(DTYPES))
    check("on_error", on_error, ON_ERROR)
    listed = [sources] if isinstance(sources, str | PathLike) else list(sources)
    paths, label_path = [Path(path) for path in listed], None if labels is None else Path(labels)
    group_path = None if groups is None else Path(groups)
    columns = Columns(
        features_column,
        label_column,
        id_column,
        labels is not None,
        _checked_drop(drop, listed),
        group_column,
        groups is not None,
    )
    if not paths:
        raise ValueError("sources must name at least one file.")
    files = [*paths, *(path for path in (label_path, group_path) if path is not None)]
    if overwrite:
        refuse_overwritten(Path(out), files)
    before = _stamps(files)
    known = None if schema is None else _read_schema(schema, columns)
    opened = _open(paths, columns, known)
    names = _stated_names(opened, None if class_names is None else checked_names(class_names))
    survey = Survey(opened, dtype, skip_failed=on_error == "skip")
    codes, numbered = _labels_of(survey, columns, label_path, names)
    persons = None if group_path is None else _groups_of(survey, columns, group_path)
    taken = getattr(opened[0], "taken", None)
    if taken is not None and codes is not None:
        facts = getattr(opened[0], "facts", None)
        refuse_label_columns(survey, taken, codes, paths[0], facts=facts)
    description = CacheDescription(
        n_features=survey.n_features,
        dtype=dtype,
        # Names in a manifest count as public; those collected from private labels are not.
        class_names=None if names is None else tuple(names),
        has_labels=codes is not None,
        has_ids=True,
        has_groups=group_path is not None or opened[0].has_groups,
        shard_rows=shard_rows,
        preprocessing=_preprocessing(known, taken),
        **_provenance(paths, label_path, group_path, columns, survey.n_rows, numbered, known),
    )
    with FeatureCacheWriter(out, description, overwrite=overwrite) as writer:
        if not writer.is_complete:
            total = survey.n_rows - len(survey.answered)
            with reporting(progress, writer.n_covered, total, doing="importing") as shown:
                _write(writer, survey, codes, persons, shown)
            if _stamps(files) != before:
                raise _changed(paths[0])
            writer.finish()
    return FeatureCache.open(out)


def _read_schema(
    schema: TableSchema | Mapping[str, Any] | str | PathLike[str], columns: Columns
) -> TableSchema:
    """The schema of a table, which also says which column is what.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or columns are named beside it.
    """
    said = {
        "features_column": columns.features,
        "label_column": None if columns.labels_apart else columns.label,
        "id_column": columns.id,
        "group_column": columns.group_beside,
        "drop": columns.drop or None,
    }
    named = [option for option, value in said.items() if value is not None]
    if named:
        raise ValueError(f"{named[0]} does not go with schema, which gives columns their roles.")
    return read_schema(schema)


def _preprocessing(schema: TableSchema | None, taken: list[str] | None) -> dict[str, Any]:
    """What was done to the rows, as a manifest tells it."""
    if schema is not None:
        return {"schema": schema.to_dict()}
    return {} if taken is None else {"columns": list(taken)}


def _open(paths: list[Path], columns: Columns, schema: TableSchema | None) -> Sequence[Source]:
    """Open files, which must be of one kind and hold the same."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise DatasetError("a file is named twice: its rows would count twice.")
    kinds = {path.suffix.lower() for path in paths}
    if len(kinds) > 1:
        raise DatasetError(f"import one kind of file at a time, got {', '.join(sorted(kinds))}.")
    (kind,) = kinds
    if schema is None and kind in _RECORDS:
        return open_records(paths, columns)
    if schema is not None and kind not in TABLE_SUFFIXES:
        raise DatasetError(
            f"{paths[0]} is no table that a schema can describe: {', '.join(TABLE_SUFFIXES)}."
        )
    if schema is None and kind in TABLE_SUFFIXES and kind not in _OPENERS:
        raise DatasetError(
            f"{paths[0]} is a table: its columns become features by a public schema (schema, "
            "--schema); `dpfc schema` helps to write one."
        )
    if schema is None and kind not in _OPENERS:
        raise DatasetError(
            f"{paths[0]} is of no kind that is read as features: "
            f"{', '.join([*_OPENERS, *_RECORDS])}. Write its rows as one of these."
        )
    opened: list[Source] = [
        _OPENERS[kind](path, columns) if schema is None else TableFile(path, schema, columns)
        for path in paths
    ]
    for source in opened[1:]:
        for what in ("labels", "ids", "groups"):
            if getattr(source, f"has_{what}") != getattr(opened[0], f"has_{what}"):
                raise DatasetError(f"of {opened[0].path} and {source.path} only one has {what}.")
        if getattr(source, "taken", None) != getattr(opened[0], "taken", None):
            raise DatasetError(
                f"{source.path} has other columns of features than {opened[0].path}, or in "
                "another order."
            )
    return opened


def _stated_names(sources: Sequence[Source], names: list[str] | None) -> list[str] | None:
    """Class names that the caller or the files state."""
    for source in sources:
        theirs = None if source.class_names is None else checked_names(source.class_names)
        if theirs is not None and names is not None and theirs != names:
            raise DatasetError(
                f"{source.path} names its classes otherwise than class_names or the file before it."
            )
        names = names or theirs
    return names


def _labels_of(
    survey: Survey, columns: Columns, path: Path | None, names: list[str] | None
) -> tuple[NDArray[np.int32] | None, bool]:
    """Check all rows and give their labels' codes, in the rows' order; None without labels.

    And whether the numbers follow from the names that occur.
    """
    if path is not None:
        file = read_label_file(path, columns, names, skip_missing=survey.skip_failed)
        deque(survey.run(), maxlen=0)
        return survey.match(file), file.values.from_labels
    if survey.sources[0].has_labels:
        found = read_labels(
            survey.run(),
            "the sources",
            names,
            survey.place_of_kept,
            # Class names that a file states number its own integers.
            numbered=survey.sources[0].class_names is not None,
            skip_missing=survey.skip_failed,
        )
        return survey.spread(found.codes), found.from_labels
    if names is not None:
        raise DatasetError(
            "class_names were given, but there are no labels to name: say where with "
            "label_column or labels."
        )
    deque(survey.run(), maxlen=0)
    return None, False


def _groups_of(survey: Survey, columns: Columns, path: Path) -> Groups:
    """The groups of all rows, in their order, from a file; the rows have been checked.

    A failed request may have none, which its code -1 says.
    """
    file = read_group_file(path, columns)
    return Groups(survey.match(file), file.values.names)


def _provenance(
    paths: list[Path],
    labels: Path | None,
    groups: Path | None,
    columns: Columns,
    n_rows: int,
    numbered: bool,
    schema: TableSchema | None,
) -> dict[str, dict[str, Any]]:
    """Where the features come from, as a manifest tells it."""
    sources = [{"name": printable(path.name), "sha256": sha256_of_file(path)} for path in paths]
    beside = None if labels is None else sha256_of_file(labels)
    content = repr(([source["sha256"] for source in sources], beside, columns))
    content += repr(columns.drop) if columns.drop else ""
    content += repr(("group", columns.group)) if columns.group is not None else ""
    content += repr(("groups", sha256_of_file(groups))) if groups is not None else ""
    # A table's features are told by its schema alone: so a model can say how they were made.
    spec = {"spec": "imported"}
    if schema is not None:
        spec = {"spec": TABLE_SPEC, "weights_sha256": schema.sha256}
        content += schema.sha256
    name = sources[0]["name"] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    return {
        "backbone": {**spec, "sources": sources},
        "dataset": {
            "name": name,
            "n_samples": n_rows,
            "fingerprint": hashlib.sha256(content.encode()).hexdigest(),
            **({"labels": NUMBERED_BY_ROWS} if numbered else {}),
        },
    }


def _write(
    writer: FeatureCacheWriter,
    survey: Survey,
    codes: NDArray[np.int32] | None,
    persons: Groups | None,
    shown: Progress,
) -> None:
    """Write the rows from where the writer stands."""
    start, position, covered = writer.n_covered, 0, 0
    total = survey.n_rows - len(survey.answered)
    for rows in survey.blocks():
        place, position = position, position + len(rows)
        if place in survey.answered:
            continue
        done = min(max(start - covered, 0), len(rows))
        covered += len(rows)
        ids = rows.id_texts() or [row_id(place + row) for row in range(len(rows))]
        if done < len(rows) and rows.X is None:
            writer.skip(ids[0], _FAILED)
        elif done < len(rows) and rows.X is not None:
            labels = None if codes is None else codes[place + done : position]
            groups = rows.group_texts()
            if persons is not None:
                groups = persons.texts(persons.codes[place:position])
            _write_rows(
                writer,
                rows.X[done:],
                labels,
                ids[done:],
                None if groups is None else groups[done:],
            )
        shown.report(max(covered, start), total)
    if position != survey.n_rows:
        raise _changed(survey.sources[0].path)


def _write_rows(
    writer: FeatureCacheWriter,
    X: NDArray[Any],
    codes: NDArray[np.int32] | None,
    ids: Sequence[str],
    groups: Sequence[str] | None,
) -> None:
    """Write rows in their order, and skip those whose label is missing."""
    if codes is None or (codes >= 0).all():
        writer.write(X, codes, ids, groups)
        return
    # A shard covers consecutive rows, so that a stopped import knows where to go on.
    ends = np.flatnonzero(np.diff(codes >= 0)) + 1
    for part in np.split(np.arange(len(codes)), ends):
        if codes[part[0]] >= 0:
            own = None if groups is None else [groups[row] for row in part]
            writer.write(X[part], codes[part], [ids[row] for row in part], own)
            continue
        for row in part:
            writer.skip(ids[row], _UNLABELLED)


def _checked_drop(drop: Sequence[str], sources: Sequence[str | PathLike[str]]) -> tuple[str, ...]:
    """The columns that a star must not take.

    Raises
    ------
    ValueError
        If it is no list of names, or the sources are no Parquet files.
    """
    if isinstance(drop, str) or not all(isinstance(name, str) for name in drop):
        raise ValueError("drop must be a list of names of columns.")
    if drop and any(Path(path).suffix.lower() != ".parquet" for path in sources):
        raise ValueError("drop=[…] is for .parquet with features_column='*': leave it away.")
    return tuple(drop)


def _stamps(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Size and time of files: a label that was read must belong to the row that is written."""
    for path in files:
        if path.is_dir() or not path.exists():
            what = "is a folder: name its files" if path.is_dir() else "does not exist"
            raise DatasetError(f"nothing to import: {path} {what}.")
        refuse_irregular(path)
    return [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in files)]


def _changed(path: Path) -> DatasetError:
    return DatasetError(
        f"{path}, or a file beside it, changed while it was read. Run again when nothing writes "
        "to it."
    )
