"""Errors of dpfc.features. Their messages never hold a label or a pixel value."""

from dpfc.exceptions import MissingDependencyError

__all__ = [
    "DatasetError",
    "FeatureCacheError",
    "MissingDependencyError",
    "OutOfDeviceMemoryError",
    "UnreadableImageError",
    "UnreadableItemError",
    "UnreadableTextError",
]


class DatasetError(ValueError):
    """A data set cannot be opened or read; the message says which and what to do."""


class UnreadableItemError(ValueError):
    """A row's image or text cannot be read; the message names its id and nothing of its content."""


class UnreadableImageError(UnreadableItemError):
    """An image cannot be decoded; the message names its id and nothing of its content."""


class UnreadableTextError(UnreadableItemError):
    """A row holds no text; the message names its id."""


class FeatureCacheError(ValueError):
    """A feature cache cannot be read, written or resumed; the message says what to do."""


class OutOfDeviceMemoryError(RuntimeError):
    """A batch does not fit into the device's memory; `extract` halves it and goes on."""
