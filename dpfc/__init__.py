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
    from dpfc.accounting.ledger import BudgetExceeded, LedgerError, PrivacyLedger
    from dpfc.evaluation import PrivateEvaluation, evaluate_privately
    from dpfc.exceptions import (
        BudgetWarning,
        InsufficientMemoryError,
        ModelFileError,
        PrivacyWarning,
    )
    from dpfc.feature_covariance import DPFCClassifier
    from dpfc.full_models.classifier import DPSGDClassifier
    from dpfc.gradient import DPGradientClassifier
    from dpfc.least_squares import DPLeastSquaresClassifier
    from dpfc.model_file import load_model
    from dpfc.newton import DPNewtonClassifier
    from dpfc.summaries import PrivateSummary, summarize_privately
    from dpfc.tuning import DPSearchCV

# Imported when first used: `dpfc --help` and `dpfc.accounting` should not wait for torch.
_MODULES = {
    "BudgetExceeded": "accounting.ledger",
    "BudgetWarning": "exceptions",
    "DPFCClassifier": "feature_covariance",
    "DPGradientClassifier": "gradient",
    "DPLeastSquaresClassifier": "least_squares",
    "DPNewtonClassifier": "newton",
    "DPSGDClassifier": "full_models.classifier",
    "DPSearchCV": "tuning",
    "InsufficientMemoryError": "exceptions",
    "LedgerError": "accounting.ledger",
    "ModelFileError": "exceptions",
    "PrivacyLedger": "accounting.ledger",
    "PrivacyWarning": "exceptions",
    "PrivateEvaluation": "evaluation",
    "PrivateSummary": "summaries",
    "evaluate_privately": "evaluation",
    "load_model": "model_file",
    "summarize_privately": "summaries",
}

__all__ = [
    "BudgetExceeded",
    "BudgetWarning",
    "DPFCClassifier",
    "DPGradientClassifier",
    "DPLeastSquaresClassifier",
    "DPNewtonClassifier",
    "DPSGDClassifier",
    "DPSearchCV",
    "InsufficientMemoryError",
    "LedgerError",
    "ModelFileError",
    "PrivacyLedger",
    "PrivacyWarning",
    "PrivateEvaluation",
    "PrivateSummary",
    "__version__",
    "evaluate_privately",
    "load_model",
    "summarize_privately",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dpfc.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
