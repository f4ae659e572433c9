"""Errors of dpfc.features. Their messages never hold a label or a pixel value."""

__all__ = [
    "DatasetError",
    "FeatureCacheError",
    "MissingDependencyError",
    "UnreadableImageError",
]


class DatasetError(ValueError):
    """A data set cannot be opened or read; the message says which and what to do."""


class UnreadableImageError(ValueError):
    """An image cannot be decoded; the message names its id and nothing of its content."""


class FeatureCacheError(ValueError):
    """A feature cache cannot be read, written or resumed; the message says what to do."""


class MissingDependencyError(ImportError):
    """An optional package is missing; the message names the extra to install."""
