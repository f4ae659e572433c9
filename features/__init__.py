"""From images or texts to a feature cache: data sets, backbones, extraction, the cache.

Public names are imported when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpfc.features.backbones import BACKBONES, DEFAULT_BACKBONES, Backbone, load_backbone
    from dpfc.features.cache import FeatureCache
    from dpfc.features.cache_writer import FeatureCacheWriter
    from dpfc.features.datasets import ImageDataset, ImageItem, open_dataset
    from dpfc.features.exceptions import (
        DatasetError,
        FeatureCacheError,
        MissingDependencyError,
        OutOfDeviceMemoryError,
        UnreadableImageError,
    )
    from dpfc.features.extraction import extract
    from dpfc.features.imported import import_features
    from dpfc.features.manifest import CacheDescription
    from dpfc.features.sklearn_transformer import BackboneTransformer

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONES",
    "Backbone",
    "BackboneTransformer",
    "CacheDescription",
    "Dataset",
    "DatasetError",
    "FeatureCache",
    "FeatureCacheError",
    "FeatureCacheWriter",
    "ImageDataset",
    "ImageItem",
    "MissingDependencyError",
    "OutOfDeviceMemoryError",
    "TextDataset",
    "TextItem",
    "UnreadableImageError",
    "UnreadableItemError",
    "UnreadableTextError",
    "extract",
    "import_features",
    "load_backbone",
    "open_dataset",
]

_HOMES = {
    "backbones": ("BACKBONES", "DEFAULT_BACKBONES", "Backbone", "load_backbone"),
    "cache": ("FeatureCache",),
    "cache_writer": ("FeatureCacheWriter",),
    "datasets": (
        "Dataset",
        "ImageDataset",
        "ImageItem",
        "TextDataset",
        "TextItem",
        "open_dataset",
    ),
    "exceptions": (
        "DatasetError",
        "FeatureCacheError",
        "MissingDependencyError",
        "OutOfDeviceMemoryError",
        "UnreadableImageError",
        "UnreadableItemError",
        "UnreadableTextError",
    ),
    "extraction": ("extract",),
    "imported": ("import_features",),
    "manifest": ("CacheDescription",),
    "sklearn_transformer": ("BackboneTransformer",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
