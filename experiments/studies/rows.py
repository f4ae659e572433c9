"""Rows of a study: feature caches that are there, and data sets that are embedded once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpfc._support.files import read_regular
from dpfc.experiments.studies.config import DataSet, StudyConfig
from dpfc.experiments.studies.runs import Rows

if TYPE_CHECKING:
    from dpfc.features import FeatureCache

__all__ = ["find_rows", "missing_caches"]

_MANIFEST = "manifest.json"


def missing_caches(config: StudyConfig, folder: Path) -> list[Path]:
    """Feature caches that `find_rows` would write, or finish, first."""
    wanted = [
        cache
        for data in config.datasets
        if not _is_ready(data)
        for backbone in config.backbones
        for _, cache in _caches(data, backbone, folder)
    ]
    return [cache for cache in wanted if not _complete(cache)]


def find_rows(
    config: StudyConfig, folder: Path, embed: Callable[[str, str, Path], FeatureCache] | None = None
) -> list[Rows]:
    """Rows of every data set and backbone of a study; each is embedded once for all runs.

    Parameters
    ----------
    config : StudyConfig
    folder : Path
        Of the study; caches of its own lie in ``features``.
    embed : callable or None
        Takes data set, backbone and folder, and writes a cache. None embeds with `extract`.

    Raises
    ------
    ValueError
        If a data set needs a backbone and the study names none.
    FeatureCacheError, DatasetError, MissingDependencyError
        If rows cannot be read or embedded.
    """
    found = []
    for data in config.datasets:
        if data.builtin is not None:
            where = (data.builtin, None, None, _builtin_digest(data))
            found.append(Rows(data.name, None, *where, rows_per_class=data.rows_per_class))
        elif _is_ready(data):
            found.append(_cached(data, None, Path(str(data.train)), Path(str(data.test))))
        elif not config.backbones:
            raise ValueError(
                f"{data.name}: {data.train} is no feature cache, and the study names no backbones "
                "to embed it with: add backbones: [efficientnet-lite0], or run dpfc extract first."
            )
        else:
            for backbone in config.backbones:
                caches = _caches(data, backbone, folder)
                for source, cache in caches:
                    (embed or _embed)(source, backbone, cache)
                found.append(_cached(data, backbone, *(cache for _, cache in caches)))
    return found


def _is_ready(data: DataSet) -> bool:
    """Whether a data set needs no embedding."""
    places = (data.train, data.test)
    return data.builtin is not None or all(
        place is not None and (Path(place) / _MANIFEST).exists() for place in places
    )


def _caches(data: DataSet, backbone: str, folder: Path) -> list[tuple[str, Path]]:
    """Source and cache of both splits."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", backbone)
    return [
        (str(source), folder / "features" / f"{data.name}-{safe}-{split}")
        for split, source in (("train", data.train), ("test", data.test))
    ]


def _complete(cache: Path) -> bool:
    try:
        return bool(json.loads(read_regular(cache / _MANIFEST, limit="json_bytes"))["complete"])
    except (OSError, ValueError, KeyError):
        return False


def _cached(data: DataSet, backbone: str | None, train: Path, test: Path) -> Rows:
    from dpfc.experiments.studies.data import check_pair
    from dpfc.features import FeatureCache

    check_pair([FeatureCache.open(path) for path in (train, test)])
    # A manifest holds the digest of every shard.
    digest = hashlib.sha256()
    for path in (train, test):
        digest.update(read_regular(path / _MANIFEST))
    # Paths are absolute: workers may start elsewhere.
    places = str(train.resolve()), str(test.resolve())
    where = (None, places[0], places[1], digest.hexdigest()[:16])
    return Rows(data.name, backbone, *where, rows_per_class=data.rows_per_class)


def _builtin_digest(data: DataSet) -> str:
    from dpfc.experiments.studies.named_data import load_named

    return load_named([str(data.builtin)])[0].digest


def _embed(source: str, backbone: str, cache: Path) -> FeatureCache:
    from dpfc.features import extract, load_backbone, open_dataset

    cache.parent.mkdir(parents=True, exist_ok=True)
    return extract(open_dataset(source), load_backbone(backbone), cache)
