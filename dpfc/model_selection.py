"""What surrounds a fit and is not private: searches, several fits, transformers before it.

There is no hook for any of it: the callers' modules are all that tells, in workers as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from dpfc.callers import warn_caller
from dpfc.exceptions import PrivacyWarning

__all__ = ["gaps_around_fit", "warn_under_model_selection"]

# Where scikit-learn fits on folds.
_FOLDS = ("sklearn.model_selection", "sklearn.calibration", "sklearn.feature_selection._rfe")
# Where it fits several times on the same rows, or on some of them drawn again.
_SEVERAL = (
    "sklearn.multioutput",
    "sklearn.multiclass",
    "sklearn.ensemble",
    "sklearn.semi_supervised",
)
# Transformers whose fit looks at the number of columns only. Those that need no fit say so.
_BLIND = (
    "GaussianRandomProjection",
    "PolynomialCountSketch",
    "PolynomialFeatures",
    "RBFSampler",
    "SkewedChi2Sampler",
    "SparseRandomProjection",
)
_FITS = ("fit", "fit_transform", "fit_predict", "_fit")


def warn_under_model_selection() -> None:
    """Warn when a fit is one of several, or comes after a transformer that was fitted.

    Warns
    -----
    PrivacyWarning
    """
    folds, several, steps = _around()
    if folds:
        warn_caller(
            "this fit runs inside scikit-learn's search or cross-validation: every fit spends "
            "its own (epsilon, delta), one removed row moves most rows to other folds, and "
            "scores carry no noise. No statement covers what is chosen by them. DPSearchCV "
            "searches under one budget.",
            PrivacyWarning,
        )
    if several:
        warn_caller(
            f"this fit is one of several on the same rows ({several}): each spends its own "
            "(epsilon, delta), and together they cost more than any one statement says. A ledger "
            "adds them up.",
            PrivacyWarning,
        )
    for name, kind in steps:
        warn_caller(
            f"step {name!r} ({kind}) of the pipeline was fitted on the private rows before this "
            "classifier: what it learnt from them is covered by no statement, and goes into every "
            "prediction. Fit it on public rows and put it in as FrozenEstimator, take one that "
            "learns nothing (Normalizer), or leave it out.",
            PrivacyWarning,
        )


def gaps_around_fit() -> list[str]:
    """The same in sentences for a statement; none where there is nothing to say."""
    folds, several, steps = _around()
    return [
        *(
            ["NOT COVERED: what was chosen by scikit-learn's search or cross-validation around it"]
            if folds
            else []
        ),
        *(
            [f"NOT COVERED: the other fits on the same rows ({several}), which add to the cost"]
            if several
            else []
        ),
        *(
            f"NOT COVERED: what step {name!r} ({kind}) of the pipeline learnt from these rows"
            for name, kind in steps
        ),
    ]


def _around() -> tuple[bool, str, list[tuple[str, str]]]:
    """Whether a fit is on folds, what fits several times, and the pipelines' fitted steps."""
    folds, several = False, ""
    steps: list[tuple[str, str]] = []
    place: dict[int, int] = {}
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        folds = folds or module.startswith(_FOLDS)
        if module.startswith(_SEVERAL) and not several:
            several = ".".join(module.split(".")[:2])
        pipeline = _pipeline_of(frame)
        if pipeline is None:
            continue
        if frame.f_code.co_name == "_fit":  # in one of its own steps, which comes after some
            place[id(pipeline)] = frame.f_locals.get("step_idx", len(pipeline.steps))
        else:
            before = pipeline.steps[: place.get(id(pipeline), len(pipeline.steps) - 1)]
            steps = [(name, type(s).__name__) for name, s in before if _learns(s)] + steps
    return folds, several, list(dict.fromkeys(steps))


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _pipeline_of(frame: FrameType) -> Any:
    """The pipeline whose fit a frame is, if it is one."""
    module = sys.modules.get("sklearn.pipeline")  # without it there is no pipeline
    code = frame.f_code
    if module is None or code.co_name not in _FITS or "self" not in code.co_varnames:
        return None
    owner = frame.f_locals.get("self")
    return owner if isinstance(owner, module.Pipeline) else None


def _learns(step: Any) -> bool:
    """Whether a transformer's fit takes anything from its rows."""
    from sklearn.utils import get_tags

    if step is None or isinstance(step, str):  # "passthrough", "drop"
        return False
    name = type(step).__name__
    if name == "FrozenEstimator" or name in _BLIND:
        return name.endswith("RandomProjection") and not isinstance(step.n_components, int)
    for parts in ("steps", "transformer_list", "transformers"):
        if hasattr(step, parts):
            return any(_learns(part[1]) for part in getattr(step, parts))
    try:
        return bool(get_tags(step).requires_fit)
    except Exception:  # one that is no scikit-learn transformer through and through
        return True
