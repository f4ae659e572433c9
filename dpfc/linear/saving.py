"""A fitted linear classifier as one safetensors file: weights, what they need, the statement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from dpfc._support.model_files import LINEAR_FORMAT, header_of, in_order, plain_number

if TYPE_CHECKING:
    from dpfc.linear.base import PrivateLinearClassifier

__all__ = ["OPTIONAL_PARTS", "model_bytes"]

# Fitted arrays that a model may lack.
OPTIONAL_PARTS = ("scale", "center", "linear_map", "length_coef")


def model_bytes(model: PrivateLinearClassifier) -> bytes:
    """Content of a fitted classifier's file; depends on nothing but the model.

    Raises
    ------
    ModelFileError
        If the classes are not plain numbers or strings.
    """
    parameters = model.get_params(deep=False)
    # Public labels are kept once, as classes_; a live generator has no business in a file.
    parameters |= {"classes": model.classes_.tolist()}
    # Where the owner keeps the ledger is nobody's business; the statement names the data set.
    parameters |= {"ledger": None, "dataset": None}
    # What public features did to the rows is kept as `linear_map_`.
    parameters |= {"public_features": None} if "public_features" in parameters else {}
    if isinstance(parameters["class_weight"], Mapping):  # JSON's keys are strings
        pairs = [[plain_number(k), plain_number(v)] for k, v in parameters["class_weight"].items()]
        parameters["class_weight"] = pairs
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None
    header = header_of(model, LINEAR_FORMAT) | {
        "estimator": type(model).__name__,
        "parameters": json.dumps({k: _plain(v) for k, v in parameters.items()}),
    }
    tensors = {"coef": model.coef_, "intercept": model.intercept_}
    for name in OPTIONAL_PARTS:
        if (value := getattr(model, f"{name}_")) is not None:
            tensors[name] = value
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return in_order(save(contiguous, metadata=header))


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NumPy numbers."""
    value = plain_number(value)
    return "inf" if value == float("inf") else value
