"""What surrounds a fit and is not private: searches, several fits, transformers before it.

There is no hook for any of it: the callers' modules are all that tells, in workers as well.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from dpfc._support.callers import warn_caller
from dpfc.exceptions import PrivacyWarning
from dpfc.linear.fitted_steps import estimators_beside, is_private, learns, wrapper_name

__all__ = ["gaps_around_fit", "warn_of_learning_from_scores", "warn_under_model_selection"]

# Where scikit-learn fits on folds.
_FOLDS = ("sklearn.model_selection", "sklearn.calibration", "sklearn.feature_selection._rfe")
# Where it fits several times on the same rows, or on some of them drawn again.
_SEVERAL = (
    "sklearn.multioutput",
    "sklearn.multiclass",
    "sklearn.ensemble",
    "sklearn.semi_supervised",
)
_FITS = ("fit", "fit_transform", "fit_predict", "_fit", "fit_resample")
# What is fitted on the scores of a classifier that was fitted before.
_LEARN_FROM_SCORES = (
    "CalibratedClassifierCV",
    "StackingClassifier",
    "TunedThresholdClassifierCV",
)


def warn_under_model_selection() -> None:
    """Warn when a fit is one of several, or comes after a transformer that was fitted.

    Warns
    -----
    PrivacyWarning
    """
    around = _around()
    if around.folds:
        warn_caller(
            "this fit runs inside scikit-learn's search or cross-validation: every fit spends "
            "its own (epsilon, delta), one removed row moves most rows to other folds, and "
            "scores carry no noise. No statement covers what is chosen by them. DPSearchCV "
            "searches under one budget.",
            PrivacyWarning,
        )
    if around.several:
        warn_caller(
            f"this fit is one of several on the same rows ({around.several}): each spends its own "
            "(epsilon, delta), and together they cost more than any one statement says. A ledger "
            "adds them up.",
            PrivacyWarning,
        )
    for name, kind in around.beside:
        warn_caller(
            f"{name!r} ({kind}) beside this classifier is fitted on the private rows without "
            "noise: what both say together is covered by no statement. Leave it out, fit it on "
            "public rows, or take a classifier of dpfc.",
            PrivacyWarning,
        )
    for name, kind in around.steps:
        warn_caller(
            f"step {name!r} ({kind}) of the pipeline was fitted on the private rows before this "
            "classifier: what it learnt from them is covered by no statement, and goes into every "
            "prediction. Fit it on public rows and put it in as FrozenEstimator, take one that "
            "learns nothing (Normalizer), or leave it out.",
            PrivacyWarning,
        )


def warn_of_learning_from_scores() -> None:
    """Warn when scikit-learn fits a calibration, a threshold or a stack on a classifier's scores.

    Of a classifier that was fitted before, no fit tells.

    Warns
    -----
    PrivacyWarning
    """
    for frame in _frames():
        owner = _fitted_in(frame)
        name = type(owner).__name__
        if name not in _LEARN_FROM_SCORES or is_private(getattr(owner, "final_estimator", None)):
            continue
        warn_caller(
            f"{name} learns from this classifier's scores and the labels of the rows it is fitted "
            "on, without noise: no statement covers that. Give it public rows only.",
            PrivacyWarning,
        )
        return


def gaps_around_fit() -> list[str]:
    """The same in sentences for a statement; none where there is nothing to say."""
    around = _around()
    gaps = []
    if around.folds:
        gaps.append("what was chosen by scikit-learn's search or cross-validation around it")
    if around.several:
        gaps.append(f"the other fits on the same rows ({around.several}), which add to the cost")
    gaps += [
        f"what {name!r} ({kind}) beside it learnt from these rows without noise"
        for name, kind in around.beside
    ]
    gaps += [
        f"what step {name!r} ({kind}) of the pipeline learnt from these rows"
        for name, kind in around.steps
    ]
    said = [f"NOT COVERED: {gap}" for gap in gaps]
    if around.wrapper:
        said.append(
            f"the fit of {around.wrapper}, which calls this one, does no more with the rows"
        )
    return said


@dataclass
class _Around:
    """What a fit runs inside.

    Attributes
    ----------
    folds : bool
        Whether it is on folds.
    several : str
        The module that fits several times on the same rows; empty if none does.
    beside : list of (str, str)
        Name and kind of estimators that are fitted beside it, without noise.
    steps : list of (str, str)
        Name and kind of the pipelines' steps before it that learn.
    wrapper : str
        Class of an estimator of neither scikit-learn nor dpfc whose fit calls this one.
    """

    folds: bool = False
    several: str = ""
    beside: list[tuple[str, str]] = field(default_factory=list)
    steps: list[tuple[str, str]] = field(default_factory=list)
    wrapper: str = ""


def _around() -> _Around:
    found = _Around()
    place: dict[int, int] = {}
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        owner = _fitted_in(frame)
        # It fits once, on all rows, and has its threshold from the user.
        once = type(owner).__name__ == "FixedThresholdClassifier"
        found.folds = found.folds or (module.startswith(_FOLDS) and not once)
        if module.startswith(_SEVERAL):
            found.several = found.several or ".".join(module.split(".")[:2])
            found.beside += estimators_beside(owner)
        if module == "sklearn.compose._target" and learns(getattr(owner, "transformer", None)):
            found.steps.append(("transformer", type(owner.transformer).__name__))
        found.wrapper = found.wrapper or wrapper_name(owner, module)
        pipeline = _pipeline(owner)
        if pipeline is None:
            continue
        if frame.f_code.co_name == "_fit":  # in one of its own steps, which comes after some
            place[id(pipeline)] = frame.f_locals.get("step_idx", len(pipeline.steps))
        else:
            before = pipeline.steps[: place.get(id(pipeline), len(pipeline.steps) - 1)]
            X = frame.f_locals.get("X")
            found.steps = [
                (name, type(s).__name__) for name, s in before if learns(s, X)
            ] + found.steps
    found.beside = list(dict.fromkeys(found.beside))
    found.steps = list(dict.fromkeys(found.steps))
    return found


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _fitted_in(frame: FrameType) -> Any:
    """The estimator whose fit a frame is; None for any other, whose variables are not read."""
    return frame.f_locals.get("self") if frame.f_code.co_name in _FITS else None


def _pipeline(owner: Any) -> Any:
    """The estimator if it is a pipeline, else None."""
    module = sys.modules.get("sklearn.pipeline")  # without it there is no pipeline
    return owner if module is not None and isinstance(owner, module.Pipeline) else None
