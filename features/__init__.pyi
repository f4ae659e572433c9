from .backbones import (
    BACKBONES,
    DEFAULT_BACKBONES,
    Backbone,
    load_backbone,
)
from .cache import FeatureCache
from .cache_writer import FeatureCacheWriter
from .datasets import (
    Dataset,
    ImageDataset,
    ImageItem,
    TextDataset,
    TextItem,
    open_dataset,
)
from .exceptions import (
    DatasetError,
    FeatureCacheError,
    MissingDependencyError,
    OutOfDeviceMemoryError,
    UnreadableImageError,
    UnreadableItemError,
    UnreadableTextError,
)
from .extraction import extract
from .imported import import_features
from .manifest import CacheDescription
from .sklearn_transformer import BackboneTransformer

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
