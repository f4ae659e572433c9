"""A saved linear classifier that predicts in NumPy, and becomes its estimator when asked for more.

Importing scikit-learn, SciPy and the accountants takes seconds, of which a prediction needs
nothing. As `importlib.util.LazyLoader` does with modules, the object that stands in for the
estimator changes its class when something else of it is used.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpfc.linear.head import LinearHead
from dpfc.linear.probabilities import Link
from dpfc.mechanism.row_map import RowMap, is_exact_linear_map

__all__ = ["WaitingClassifier", "plain_head"]

_LINKS: dict[str, Link] = {"DPNewtonClassifier": "sigmoid", "DPLeastSquaresClassifier": "squared"}
_ROWS = 4096  # at a time
_PARTS = {"coef", "intercept", "scale", "center", "linear_map", "length_coef"}
_set_class = vars(object)["__class__"].__set__  # past the property below


class _Waiting(NamedTuple):
    head: LinearHead
    kind: Callable[[], type]
    make: Callable[[], Any]
    lock: Any  # an RLock


class WaitingClassifier:
    """Stands in for an estimator until more than a prediction of plain rows is wanted.

    Parameters
    ----------
    head : LinearHead
    kind : callable
        Gives the estimator's class.
    make : callable
        Makes the estimator.
    """

    def __init__(self, head: LinearHead, kind: Callable[[], type], make: Callable[[], Any]) -> None:
        row_map = head.row_map
        vars(self)["n_features_in_"] = head.weights.shape[1] - row_map.n_length_columns
        vars(self)["classes_"] = head.classes
        vars(self)["_waiting"] = _Waiting(head, kind, make, RLock())

    def predict(self, X: Any) -> Any:
        """As the estimator's."""
        head, scores = self._scores(X)
        return self._become().predict(X) if scores is None else head.labels(scores)

    def predict_proba(self, X: Any) -> Any:
        """As the estimator's."""
        head, scores = self._scores(X)
        return self._become().predict_proba(X) if scores is None else head.probabilities(scores)

    def decision_function(self, X: Any) -> Any:
        """As the estimator's."""
        head, scores = self._scores(X)
        if scores is None:
            return self._become().decision_function(X)
        return scores[:, 0] if len(head.classes) == 2 else scores

    def _scores(self, X: Any) -> tuple[Any, NDArray[np.float64] | None]:
        """The head, and scores of rows that need no further look; None for all others."""
        waiting: _Waiting | None = vars(self).get("_waiting")
        # Beside scikit-learn the estimator looks at who calls it, and costs nothing more.
        if waiting is None or "sklearn" in sys.modules or not self._is_plain(X):
            return None, None
        parts = [X[start : start + _ROWS] for start in range(0, len(X), _ROWS)]
        scores = [waiting.head.scores(part.astype(np.float64)) for part in parts]
        return waiting.head, np.concatenate(scores)

    def _is_plain(self, X: Any) -> bool:
        if type(X) is not np.ndarray or X.ndim != 2 or len(X) == 0:
            return False
        known = X.dtype in (np.float64, np.float32, np.float16) or X.dtype.kind in "iu"
        return known and X.shape[1] == self.n_features_in_ and bool(np.isfinite(X).all())

    def _become(self) -> Any:
        """Be the estimator from now on."""
        waiting: _Waiting | None = vars(self).get("_waiting")
        if waiting is not None:
            with waiting.lock:
                if "_waiting" in vars(self):
                    model = waiting.make()
                    vars(self).update(vars(model))
                    _set_class(self, type(model))
                    del vars(self)["_waiting"]
        return self

    # What Python asks of an object without a look at its attributes, or that `object` answers.

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        # Of what `isinstance` asks; it would not believe an object that changes while asked.
        waiting: _Waiting | None = vars(self).get("_waiting")
        return type(self) if waiting is None else waiting.kind()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._become(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._become(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._become(), name)

    def __dir__(self) -> list[str]:
        return dir(self._become())

    def __repr__(self) -> str:
        return repr(self._become())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._become().__reduce_ex__(protocol)


def plain_head(header: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> LinearHead | None:
    """What the parts of a model's file predict, if they fit; None where anything is unusual.

    The estimator, which is made then, says what is wrong with the file, if something is.
    """
    try:
        return _head(header, tensors)
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _head(header: Mapping[str, str], tensors: Mapping[str, NDArray[Any]]) -> LinearHead | None:
    named = {"feature_names", "columns"} & header.keys()  # are compared with those of X
    statement = json.loads(header["privacy"])
    if named or not isinstance(statement, dict) or not tensors.keys() <= _PARTS:
        return None
    if not all(t.dtype == np.float64 and np.isfinite(t).all() for t in tensors.values()):
        return None
    parameters = json.loads(header["parameters"])
    link = _LINKS.get(header["estimator"]) or parameters["loss"]
    classes = np.asarray(json.loads(header["classes"]))
    coef, lengths = tensors["coef"], tensors.get("length_coef")
    row_map = _row_map(parameters, tensors)
    n_outputs = 1 if len(classes) == 2 else len(classes)
    fits = (
        link in ("softmax", "sigmoid", "squared")
        and classes.ndim == 1
        and len(classes) >= 2
        and np.array_equal(np.unique(classes), classes)
        and coef.ndim == 2
        and len(coef) == n_outputs
        and tensors["intercept"].shape == (n_outputs,)
        and (lengths is not None) == (row_map.n_length_columns > 0)
        and (lengths is None or lengths.shape == (n_outputs, 2))
        and _is_usual(row_map, coef.shape[1])
    )
    if not fits:
        return None
    weights = coef if lengths is None else np.hstack([coef, lengths])
    return LinearHead(row_map, weights, tensors["intercept"], link, classes)


def _row_map(parameters: dict[str, Any], tensors: Mapping[str, NDArray[Any]]) -> RowMap:
    bound, normalize = parameters["l2_clip_norm"], parameters["normalize"]
    return RowMap(
        float(bound),
        normalize,
        center=tensors.get("center"),
        nonnegative_root=parameters["nonnegative_root"],
        linear=tensors.get("linear_map"),
        length_scaling=float(parameters.get("length_scaling", 0.0)) if normalize else 0.0,
        scale=tensors.get("scale"),
    )


def _is_usual(row_map: RowMap, n_features: int) -> bool:
    linear, center, scale = row_map.linear, row_map.center, row_map.scale
    return (
        row_map.normalize in (True, False)
        and row_map.nonnegative_root in (True, False)
        and row_map.l2_clip_norm > 0.0
        and (math.isfinite(row_map.l2_clip_norm) or not row_map.normalize)
        and row_map.feature_share > 0.0
        and (center is None or center.shape == (n_features,))
        and (scale is None or (scale.shape == (2, n_features) and bool((scale[1] > 0.0).all())))
        and (linear is None or (row_map.normalize and linear.shape == (n_features,) * 2))
        and (linear is None or is_exact_linear_map(linear))
    )
