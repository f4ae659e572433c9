"""dpfc: private classifiers from frozen features.

`DPFCClassifier` is the one to start with. Every classifier takes a budget
(`epsilon`, `delta`), follows scikit-learn's conventions, and leaves a privacy
statement in `privacy_`.
"""

from dpfc._version import __version__
from dpfc.exceptions import InsufficientMemoryError, ModelFileError, PrivacyWarning
from dpfc.feature_covariance import DPFCClassifier
from dpfc.gradient import DPGradientClassifier
from dpfc.least_squares import DPLeastSquaresClassifier
from dpfc.model_file import load_model
from dpfc.newton import DPNewtonClassifier

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
