from .backbones.base import Backbone
from .backbones.loading import BACKBONES, DEFAULT_BACKBONES, load_backbone
from .cache.manifest import CacheDescription
from .cache.reader import FeatureCache
from .cache.writer import FeatureCacheWriter
from .datasets.base import Dataset, ImageDataset, ImageItem, TextDataset, TextItem
from .datasets.opening import open_dataset
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
from .importing.import_features import import_features
from .sklearn_transformer import BackboneTransformer
from .tables.encoder import TableEncoder
from .tables.schema import TableSchema

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
    "TableEncoder",
    "TableSchema",
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
