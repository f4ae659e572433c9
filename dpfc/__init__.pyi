from ._version import __version__
from .accounting.ledger.ledger import (
    BudgetExceeded,
    LedgerError,
    PrivacyLedger,
)
from .evaluation.evaluate import evaluate_privately
from .evaluation.result import PrivateEvaluation
from .evaluation.summaries import (
    PrivateSummary,
    summarize_privately,
)
from .exceptions import (
    BudgetWarning,
    InsufficientMemoryError,
    ModelFileError,
    PrivacyWarning,
)
from .exporting.model_card import model_card
from .exporting.onnx_file import export_onnx
from .features.tables.encoder import TableEncoder
from .full_models.classifier import DPSGDClassifier
from .linear.feature_covariance import DPFCClassifier
from .linear.forecast import Forecast
from .linear.gradient import DPGradientClassifier
from .linear.least_squares import DPLeastSquaresClassifier
from .linear.newton import DPNewtonClassifier
from .loading import load_model
from .search.search_cv import DPSearchCV

__all__ = [
    "BudgetExceeded",
    "BudgetWarning",
    "DPFCClassifier",
    "DPGradientClassifier",
    "DPLeastSquaresClassifier",
    "DPNewtonClassifier",
    "DPSGDClassifier",
    "DPSearchCV",
    "Forecast",
    "InsufficientMemoryError",
    "LedgerError",
    "ModelFileError",
    "PrivacyLedger",
    "PrivacyWarning",
    "PrivateEvaluation",
    "PrivateSummary",
    "TableEncoder",
    "__version__",
    "evaluate_privately",
    "export_onnx",
    "load_model",
    "model_card",
    "summarize_privately",
]
