"""From images to a feature cache: data sets, frozen backbones, extraction, the cache itself.

Public names are imported when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpfc.features.backbones import BACKBONES, Backbone, load_backbone
    from dpfc.features.cache import FeatureCache
    from dpfc.features.cache_writer import FeatureCacheWriter
    from dpfc.features.datasets import ImageDataset, ImageItem, open_dataset
    from dpfc.features.exceptions import (
        DatasetError,
        FeatureCacheError,
        MissingDependencyError,
        UnreadableImageError,
    )
    from dpfc.features.extraction import extract
    from dpfc.features.manifest import CacheDescription

__all__ = [
    "BACKBONES",
    "Backbone",
    "CacheDescription",
    "DatasetError",
    "FeatureCache",
    "FeatureCacheError",
    "FeatureCacheWriter",
    "ImageDataset",
    "ImageItem",
    "MissingDependencyError",
    "UnreadableImageError",
    "extract",
    "load_backbone",
    "open_dataset",
]

_HOMES = {
    "backbones": ("BACKBONES", "Backbone", "load_backbone"),
    "cache": ("FeatureCache",),
    "cache_writer": ("FeatureCacheWriter",),
    "datasets": ("ImageDataset", "ImageItem", "open_dataset"),
    "exceptions": (
        "DatasetError",
        "FeatureCacheError",
        "MissingDependencyError",
        "UnreadableImageError",
    ),
    "extraction": ("extract",),
    "manifest": ("CacheDescription",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
