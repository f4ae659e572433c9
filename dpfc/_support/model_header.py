"""What the header of every model file tells: columns, parameters, and where features came from."""

from __future__ import annotations

import json
import numbers
from typing import Any

import numpy as np

LINEAR_FORMAT = "dpfc-model-2"
NETWORK_FORMAT = "dpfc-network-1"


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


def plain_number(value: Any) -> Any:
    """A number of any type as one that JSON has; all else as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)
