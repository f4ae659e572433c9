"""Warnings that point at the user's own line, however deep inside dpfc they arise."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn, with the first line outside dpfc as the place.

    Parameters
    ----------
    message : str
    category : type
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("dpfc."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
