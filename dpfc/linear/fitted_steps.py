"""What stands before or beside a private classifier: whether it takes anything from the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["estimators_beside", "is_private", "learns", "wrapper_name"]

# Transformers whose fit looks at the number of columns only. Those that need no fit say so.
_BLIND = (
    "GaussianRandomProjection",
    "PolynomialCountSketch",
    "PolynomialFeatures",
    "RBFSampler",
    "SkewedChi2Sampler",
    "SparseRandomProjection",
)
# Encoders of the categories that they are given.
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder")
_MADE_UP_ROWS = 8


def learns(step: Any, X: Any = None) -> bool:
    """Whether a transformer takes anything from its rows as a whole.

    Parameters
    ----------
    step : estimator, str or None
    X : array-like or data frame, optional
        What its pipeline was given; looked at for its columns only.
    """
    from sklearn.utils import get_tags

    if step is None or isinstance(step, str):  # "passthrough", "drop"
        return False
    name = type(step).__name__
    if name == "FrozenEstimator" or name in _BLIND:
        return name.endswith("RandomProjection") and not isinstance(step.n_components, int)
    if name in _ENCODERS:
        return _learns_categories(step)
    if name == "FunctionTransformer":
        return _mixes_rows(step, X)
    for parts in ("steps", "transformer_list", "transformers"):
        if hasattr(step, parts):
            inside = [part[1] for part in getattr(step, parts)]
            return any(learns(part, X) for part in [*inside, getattr(step, "remainder", None)])
    try:
        return bool(get_tags(step).requires_fit)
    except Exception:  # one that is no scikit-learn transformer through and through
        return True


def estimators_beside(owner: Any) -> list[tuple[str, str]]:
    """Name and kind of what a vote or a stack fits without noise."""
    named = getattr(owner, "estimators", None)
    if not isinstance(named, list) or not all(
        isinstance(part, tuple) and len(part) == 2 for part in named
    ):
        return []
    parts = [] if getattr(owner, "cv", None) == "prefit" else list(named)
    if hasattr(owner, "final_estimator"):
        parts.append(("final_estimator", owner.final_estimator))
    return [
        (str(name), "LogisticRegression" if part is None else type(part).__name__)
        for name, part in parts
        if not (
            isinstance(part, str) or type(part).__name__ == "FrozenEstimator" or is_private(part)
        )
    ]


def wrapper_name(owner: Any, module: str) -> str:
    """Class of an estimator of neither scikit-learn nor dpfc; empty for all else."""
    from sklearn.base import BaseEstimator

    foreign = not module.startswith(("sklearn.", "dpfc."))
    # A subclass of a classifier of ours, or of a pipeline, is looked at as that is.
    ours = any(
        kind.__module__.startswith(("dpfc.", "sklearn.pipeline"))
        for kind in getattr(type(owner), "__mro__", ())
    )
    return type(owner).__name__ if foreign and isinstance(owner, BaseEstimator) and not ours else ""


def is_private(estimator: Any) -> bool:
    """Whether an estimator, or one inside it, is a classifier of dpfc."""
    try:
        parts = [estimator, *estimator.get_params(deep=True).values()]
    except Exception:  # not one of scikit-learn's
        parts = [estimator]
    return any(
        kind.__module__.startswith("dpfc.") and hasattr(kind, "predict")
        for part in parts
        for kind in type(part).__mro__
    )


def _learns_categories(encoder: Any) -> bool:
    given = not isinstance(encoder.categories, str)
    rare = [getattr(encoder, name, None) for name in ("min_frequency", "max_categories")]
    return not given or any(value is not None for value in rare)


def _mixes_rows(step: Any, X: Any) -> bool:
    """Whether a function gives made-up rows other values together than one by one."""
    shape = getattr(X, "shape", None)
    if step.func is None or not isinstance(shape, tuple) or len(shape) != 2:
        return False
    rows: Any = np.random.default_rng(0).normal(size=(_MADE_UP_ROWS, shape[1]))
    if hasattr(X, "iloc") and hasattr(X, "columns"):
        rows = type(X)(rows, columns=X.columns)
    try:
        cut = rows.iloc if hasattr(rows, "iloc") else rows
        arguments = step.kw_args or {}
        together = np.asarray(step.func(rows, **arguments))
        apart = [np.asarray(step.func(cut[i : i + 1], **arguments)) for i in range(len(rows))]
        return not np.allclose(together, np.concatenate(apart), equal_nan=True)
    except Exception:  # made for rows of another kind: nothing is known
        return False
