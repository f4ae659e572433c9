"""A warning under scikit-learn's own search and cross-validation, which are not private."""

from __future__ import annotations

import sys
import warnings

from dpfc.exceptions import PrivacyWarning

__all__ = ["warn_under_model_selection"]

# Where scikit-learn fits on folds.
_CALLERS = ("sklearn.model_selection", "sklearn.calibration", "sklearn.feature_selection._rfe")


def warn_under_model_selection() -> None:
    """Warn when a fit was called from scikit-learn's search or cross-validation.

    Warns
    -----
    PrivacyWarning
    """
    # There is no hook for it: the callers' modules are all that tells, in workers as well.
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith(_CALLERS):
            warnings.warn(
                "this fit runs inside scikit-learn's search or cross-validation: every fit spends "
                "its own (epsilon, delta), one removed row moves most rows to other folds, and "
                "scores carry no noise. No statement covers what is chosen by them. DPSearchCV "
                "searches under one budget.",
                PrivacyWarning,
                stacklevel=3,
            )
            return
