"""Warnings and errors of dpfc: the lowest file, which all others may use."""

__all__ = [
    "BudgetWarning",
    "InsufficientMemoryError",
    "MissingDependencyError",
    "ModelFileError",
    "PrivacyWarning",
]


class BudgetWarning(UserWarning):
    """The budget is too small for what was asked of it; says nothing about privacy."""


class PrivacyWarning(UserWarning):
    """The stated guarantee does not cover, or no longer covers, what was done."""


class InsufficientMemoryError(ValueError):
    """A solver would need more memory than is available; the message says what to change."""


class MissingDependencyError(ImportError):
    """An optional package is missing; the message names the extra to install."""


class ModelFileError(ValueError):
    """A model file cannot be read or written; the message says which and why."""
