"""One safetensors file a model: weights, what makes them usable, and the statement.

Loading reads numbers and JSON and runs no code from the file.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dpfc._support.files import check_regular, error_words
from dpfc._support.model_files import (
    LINEAR_FORMAT,
    NETWORK_FORMAT,
    OLDER_LINEAR_FORMATS,
    parameters_of,
    set_columns,
)
from dpfc.exceptions import ModelFileError
from dpfc.linear.saving import OPTIONAL_PARTS
from dpfc.linear.waiting import WaitingClassifier, plain_head
from dpfc.mechanism.row_map import is_exact_linear_map

if TYPE_CHECKING:
    import torch

    from dpfc.full_models.classifier import DPSGDClassifier
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = ["load_model"]

# Its square roots kept their mean; a model that was fitted on them cannot be used any more.
_FORMAT_OF_PLAIN_ROOTS = OLDER_LINEAR_FORMATS[0]
# The only classes that a file can name; anything else is refused.
_MODULES = {
    "DPFCClassifier": "dpfc.linear.feature_covariance",
    "DPGradientClassifier": "dpfc.linear.gradient",
    "DPLeastSquaresClassifier": "dpfc.linear.least_squares",
    "DPNewtonClassifier": "dpfc.linear.newton",
}
# What the parts of a damaged file raise where they are put together.
_MISFITS = (LookupError, TypeError, ValueError, OverflowError, RecursionError)


def load_model(
    path: str | os.PathLike[str], module: torch.nn.Module | None = None
) -> PrivateLinearClassifier | DPSGDClassifier:
    """Read a classifier that `save` wrote.

    Parameters
    ----------
    path : path-like
    module : torch.nn.Module, optional
        Of a `DPSGDClassifier` that was trained on a module without a name: one like it, for the
        weights of the file.

    Returns
    -------
    PrivateLinearClassifier or DPSGDClassifier
        Fitted, of the class that was saved. Where scikit-learn is not imported yet, a linear
        one waits with that, and with the check of its statement, until something else of it is
        used than predictions of NumPy's arrays.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or not a model of dpfc.
    """
    path = Path(path)
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            network = header.get("format") == NETWORK_FORMAT
            names = () if network else file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelFileError(f"cannot read a model from {path}: {error_words(error)}.") from error
    except (AttributeError, TypeError) as error:  # of a type of numbers that NumPy does not have
        raise ModelFileError(f"{path} is damaged: {_said(error)}") from error
    if network:
        return _load_network(path, header, module)
    known = header.get("format") in (LINEAR_FORMAT, *OLDER_LINEAR_FORMATS)
    if not known or header.get("estimator") not in _MODULES:
        raise ModelFileError(f"{path} is not a model file of dpfc (format {LINEAR_FORMAT!r}).")
    if "sklearn" not in sys.modules and header["format"] == LINEAR_FORMAT:
        head = plain_head(header, tensors)
        if head is not None:
            waiting: Any = WaitingClassifier(
                head,
                lambda: _class_of(header["estimator"]),
                lambda: _load_linear(path, header, tensors),
            )
            return waiting  # type: ignore[no-any-return]
    return _load_linear(path, header, tensors)


def _load_linear(
    path: Path, header: dict[str, str], tensors: dict[str, NDArray[np.float64]]
) -> PrivateLinearClassifier:
    try:
        model = _rebuild(header, tensors)
    except (*_MISFITS, AttributeError) as error:
        raise ModelFileError(f"{path} is damaged: {_said(error)}") from error
    if header["format"] == _FORMAT_OF_PLAIN_ROOTS and model.nonnegative_root:
        raise ModelFileError(
            f"{path} was written by an older dpfc, which took square roots of rows in another way: "
            "its predictions would be wrong here. Use the dpfc that wrote it, or fit again."
        )
    return model


def _load_network(
    path: Path, header: dict[str, str], module: torch.nn.Module | None
) -> DPSGDClassifier:
    from dpfc.full_models.rebuilding import read_network

    try:
        return read_network(path, header, module)
    except (*_MISFITS, RuntimeError) as error:
        if isinstance(error, ModelFileError):
            raise ModelFileError(f"{path} cannot be loaded: {error}") from error
        raise ModelFileError(f"{path} is damaged: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What is wrong with a file, in words."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, ValueError):
        return str(error)
    return f"one of its fields is of the wrong type or size ({error})"


def _class_of(name: str) -> Any:
    return getattr(import_module(_MODULES[name]), name)


def _rebuild(
    header: dict[str, str], tensors: dict[str, NDArray[np.float64]]
) -> PrivateLinearClassifier:
    """Put a fitted estimator together from a file's parts, checking that they fit."""
    from dpfc.accounting import PrivacyStatement

    estimator_class = _class_of(header["estimator"])
    parameters = {k: _from_plain(v) for k, v in parameters_of(header, estimator_class).items()}
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    # Models that were saved before rows had roots, or columns for their length, have none.
    parameters.setdefault("nonnegative_root", False)
    if "length_scaling" in estimator_class().get_params():
        parameters.setdefault("length_scaling", 0.0)
    model: PrivateLinearClassifier = estimator_class(**parameters)
    model.coef_, model.intercept_ = tensors["coef"], tensors["intercept"]
    for part in OPTIONAL_PARTS:
        setattr(model, f"{part}_", tensors.get(part))
    model.classes_ = np.asarray(json.loads(header["classes"]))
    model.n_features_in_ = model.coef_.shape[1]
    model.privacy_ = PrivacyStatement.from_json(header["privacy"])
    set_columns(model, header)
    _check_parts(model, tensors)
    model._check_parameters()
    return model


def _check_parts(model: PrivateLinearClassifier, tensors: dict[str, NDArray[Any]]) -> None:
    """Refuse weights, classes and names that do not fit each other."""
    classes, n_features = model.classes_, model.n_features_in_
    if classes.ndim != 1 or len(classes) < 2 or not np.array_equal(np.unique(classes), classes):
        raise ValueError("its classes are not a sorted list of different labels")
    scale, linear, n_outputs = (
        model.scale_,
        model.linear_map_,
        1 if len(classes) == 2 else len(classes),
    )
    shapes_fit = (
        model.coef_.shape == (n_outputs, n_features)
        and model.intercept_.shape == (n_outputs,)
        and (scale is None or scale.shape == (2, n_features))
        and (model.center_ is None or model.center_.shape == (n_features,))
        and (linear is None or linear.shape == (n_features, n_features))
        and (model.length_coef_ is None or model.length_coef_.shape == (n_outputs, 2))
        and (model.length_coef_ is not None) == (model._row_map().n_length_columns > 0)
        and len(getattr(model, "feature_names_in_", range(n_features))) == n_features
    )
    if not shapes_fit:
        raise ValueError("its weights do not fit its classes")
    if linear is not None and not (model.normalize and is_exact_linear_map(linear)):
        raise ValueError("its linear map is none that rows can be multiplied with exactly")
    if scale is not None and not (scale[1] > 0.0).all():
        raise ValueError("its columns are not scaled by positive numbers")
    if not all(t.dtype == np.float64 and np.isfinite(t).all() for t in tensors.values()):
        raise ValueError("its weights are not finite float64 numbers")


def _from_plain(value: Any) -> Any:
    return float("inf") if value == "inf" else value
