"""One safetensors file a model: weights, what makes them usable, and the statement.

Loading reads numbers and JSON and runs no code from the file.
"""

from __future__ import annotations

import json
import numbers
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpfc._support.files import check_regular, error_words
from dpfc._support.model_files import in_order, write_model
from dpfc.accounting import PrivacyStatement
from dpfc.exceptions import ModelFileError
from dpfc.mechanism.row_map import is_exact_linear_map

if TYPE_CHECKING:
    import torch

    from dpfc.full_models.classifier import DPSGDClassifier
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = ["load_model", "model_bytes", "save_model"]

_FORMAT = "dpfc-model-2"
# Of `dpfc.full_models.model_file`, which imports more than loading a linear model needs.
NETWORK_FORMAT = "dpfc-network-1"
# Its square roots kept their mean; a model that was fitted on them cannot be used any more.
_FORMAT_OF_PLAIN_ROOTS = "dpfc-model-1"
# The only classes that a file can name; anything else is refused.
_MODULES = {
    "DPFCClassifier": "dpfc.linear.feature_covariance",
    "DPGradientClassifier": "dpfc.linear.gradient",
    "DPLeastSquaresClassifier": "dpfc.linear.least_squares",
    "DPNewtonClassifier": "dpfc.linear.newton",
}
# What the parts of a damaged file raise where they are put together.
_MISFITS = (LookupError, TypeError, ValueError, OverflowError, RecursionError)
# Fitted arrays that a model may lack.
_OPTIONAL = ("center", "linear_map", "length_coef")


def save_model(model: PrivateLinearClassifier, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier; the file appears whole or not at all.

    Raises
    ------
    ModelFileError
        If the file cannot be written, or the classes are not plain numbers or strings.
    """
    write_model(Path(path), model_bytes(model))


def model_bytes(model: PrivateLinearClassifier) -> bytes:
    """Content of a fitted classifier's file; depends on nothing but the model.

    Raises
    ------
    ModelFileError
        If the classes are not plain numbers or strings.
    """
    if model.classes_.dtype.kind not in "iufUb":
        raise ModelFileError("classes must be plain numbers or strings to be saved to a file.")
    parameters = model.get_params(deep=False)
    # Public labels are kept once, as classes_; a live generator has no business in a file.
    parameters |= {"classes": model.classes_.tolist()}
    # Where the owner keeps the ledger is nobody's business; the statement names the data set.
    parameters |= {"ledger": None, "dataset": None}
    # What public features did to the rows is kept as `linear_map_`.
    parameters |= {"public_features": None} if "public_features" in parameters else {}
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None
    header = {
        "format": _FORMAT,
        "estimator": type(model).__name__,
        "parameters": json.dumps({k: _plain(v) for k, v in parameters.items()}),
        "classes": json.dumps(model.classes_.tolist()),
        "privacy": model.privacy_.to_json(),
    }
    header |= columns_header(model)
    tensors = {"coef": model.coef_, "intercept": model.intercept_}
    for name in _OPTIONAL:
        if (value := getattr(model, f"{name}_")) is not None:
            tensors[name] = value
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return in_order(save(contiguous, metadata=header))


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
        Fitted, of the class that was saved.

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
    if network:
        return _load_network(path, header, module)
    known = header.get("format") in (_FORMAT, _FORMAT_OF_PLAIN_ROOTS)
    if not known or header.get("estimator") not in _MODULES:
        raise ModelFileError(f"{path} is not a model file of dpfc (format {_FORMAT!r}).")
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


def columns_header(model: Any) -> dict[str, str]:
    """The columns of the data frame that a model was fitted on, for a file's header.

    And how its features were made, where they came from a cache that tells it.
    """
    names = {"feature_names": "feature_names_in_", "columns": "_columns_in"}
    header = {
        key: json.dumps([str(name) for name in getattr(model, attribute)])
        for key, attribute in names.items()
        if hasattr(model, attribute)
    }
    origin = getattr(model, "features_from_", None)
    return header if origin is None else header | {"features_from": json.dumps(origin)}


def set_columns(model: Any, header: dict[str, str]) -> None:
    """Give a model the columns of a file's header, and how its features were made.

    Raises
    ------
    ValueError
        If they are no list of names, or not told as `columns_header` does.
    """
    origin = json.loads(header["features_from"]) if "features_from" in header else None
    if origin is not None:
        kinds = {"spec": str | None, "weights_sha256": str, "preprocessing": dict, "dtype": str}
        if not isinstance(origin, dict) or not all(
            isinstance(origin.get(key, 0), kind) for key, kind in kinds.items()
        ):
            raise ValueError("its features_from is not as dpfc writes it")
    model.features_from_ = origin
    for key in ("feature_names", "columns"):
        if key not in header:
            continue
        names = json.loads(header[key])
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"its {key} are no list of names")
        if key == "columns":
            model._columns_in = names
        else:
            model.feature_names_in_ = np.asarray(names, dtype=object)


def _load_network(
    path: Path, header: dict[str, str], module: torch.nn.Module | None
) -> DPSGDClassifier:
    from safetensors.torch import load_file

    from dpfc.full_models.model_file import rebuild_network

    try:
        return rebuild_network(header, load_file(path), module)
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


def parameters_of(header: dict[str, str], estimator_class: type[Any]) -> dict[str, Any]:
    """The parameters of a file's header.

    Raises
    ------
    ValueError
        If they are none, or the estimator has none of such a name.
    """
    parameters = json.loads(header["parameters"])
    if not isinstance(parameters, dict):
        raise ValueError("its parameters are no JSON object")
    if unknown := parameters.keys() - estimator_class().get_params(deep=False).keys():
        raise ValueError(f"{estimator_class.__name__} has no parameter {min(unknown)!r}")
    return parameters


def _rebuild(
    header: dict[str, str], tensors: dict[str, NDArray[np.float64]]
) -> PrivateLinearClassifier:
    """Put a fitted estimator together from a file's parts, checking that they fit."""
    name = header["estimator"]
    estimator_class = getattr(import_module(_MODULES[name]), name)
    parameters = {k: _from_plain(v) for k, v in parameters_of(header, estimator_class).items()}
    # Models that were saved before rows had roots, or columns for their length, have none.
    parameters.setdefault("nonnegative_root", False)
    if "length_scaling" in estimator_class().get_params():
        parameters.setdefault("length_scaling", 0.0)
    model: PrivateLinearClassifier = estimator_class(**parameters)
    model.coef_, model.intercept_ = tensors["coef"], tensors["intercept"]
    for part in _OPTIONAL:
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
    n_outputs = 1 if len(classes) == 2 else len(classes)
    shapes_fit = (
        model.coef_.shape == (n_outputs, n_features)
        and model.intercept_.shape == (n_outputs,)
        and (model.center_ is None or model.center_.shape == (n_features,))
        and (model.linear_map_ is None or model.linear_map_.shape == (n_features, n_features))
        and (model.length_coef_ is None or model.length_coef_.shape == (n_outputs, 2))
        and (model.length_coef_ is not None) == (model._row_map().n_length_columns > 0)
        and len(getattr(model, "feature_names_in_", range(n_features))) == n_features
    )
    if not shapes_fit:
        raise ValueError("its weights do not fit its classes")
    mapped = model.linear_map_ is not None
    if mapped and not (model.normalize and is_exact_linear_map(model.linear_map_)):
        raise ValueError("its linear map is none that rows can be multiplied with exactly")
    if not all(t.dtype == np.float64 and np.isfinite(t).all() for t in tensors.values()):
        raise ValueError("its weights are not finite float64 numbers")


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NumPy numbers."""
    value = plain_number(value)
    return "inf" if value == float("inf") else value


def plain_number(value: Any) -> Any:
    """A number of any type as one that JSON has; all else as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _from_plain(value: Any) -> Any:
    return float("inf") if value == "inf" else value
