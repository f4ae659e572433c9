"""dpfc: private classifiers from frozen features.

`DPFCClassifier` is the one to start with. Every classifier takes a budget
(`epsilon`, `delta`), follows scikit-learn's conventions, and leaves a privacy
statement in `privacy_`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dpfc._version import __version__

if TYPE_CHECKING:
    from dpfc.exceptions import InsufficientMemoryError, ModelFileError, PrivacyWarning
    from dpfc.feature_covariance import DPFCClassifier
    from dpfc.gradient import DPGradientClassifier
    from dpfc.least_squares import DPLeastSquaresClassifier
    from dpfc.model_file import load_model
    from dpfc.newton import DPNewtonClassifier

# Imported when first used: `dpfc --help` and `dpfc.accounting` should not wait for torch.
_MODULES = {
    "DPFCClassifier": "feature_covariance",
    "DPGradientClassifier": "gradient",
    "DPLeastSquaresClassifier": "least_squares",
    "DPNewtonClassifier": "newton",
    "InsufficientMemoryError": "exceptions",
    "ModelFileError": "exceptions",
    "PrivacyWarning": "exceptions",
    "load_model": "model_file",
}

__all__ = [
    "DPFCClassifier",
    "DPGradientClassifier",
    "DPLeastSquaresClassifier",
    "DPNewtonClassifier",
    "InsufficientMemoryError",
    "ModelFileError",
    "PrivacyWarning",
    "__version__",
    "load_model",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dpfc.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
