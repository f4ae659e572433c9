from ._version import __version__
from .accounting.ledger import (
    BudgetExceeded,
    LedgerError,
    PrivacyLedger,
)
from .evaluation import evaluate_privately
from .evaluation_figures import PrivateEvaluation
from .exceptions import (
    BudgetWarning,
    InsufficientMemoryError,
    ModelFileError,
    PrivacyWarning,
)
from .feature_covariance import DPFCClassifier
from .full_models.classifier import DPSGDClassifier
from .gradient import DPGradientClassifier
from .least_squares import DPLeastSquaresClassifier
from .model_file import load_model
from .newton import DPNewtonClassifier
from .summaries import (
    PrivateSummary,
    summarize_privately,
)
from .tuning import DPSearchCV

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
