"""Models' files: what every header tells, bytes that hang on the model alone, and their writing."""

from __future__ import annotations

import json
import numbers
from pathlib import Path
from typing import Any

import numpy as np

from dpfc._support.files import IrregularFileError, open_regular, write_whole
from dpfc.exceptions import ModelFileError

__all__ = [
    "LINEAR_FORMAT",
    "NETWORK_FORMAT",
    "OLDER_LINEAR_FORMATS",
    "header_of",
    "in_order",
    "parameters_of",
    "plain_number",
    "set_columns",
    "write_model",
]

LINEAR_FORMAT = "dpfc-model-3"
OLDER_LINEAR_FORMATS = ("dpfc-model-1", "dpfc-model-2")
NETWORK_FORMAT = "dpfc-network-1"

_FORMATS = "dpfc-"  # what the names of all formats of ours begin with
_LENGTH_BYTES = 8
_HEADER_BYTES = 100_000_000  # the most that safetensors allows


def in_order(data: bytes) -> bytes:
    """Sort a safetensors file's metadata, which the library writes in an order drawn anew.

    References
    ----------
    The format: https://github.com/huggingface/safetensors#format
    """
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:end])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps(
        {"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)  # tensors stay aligned
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[end:]


def write_model(path: Path, data: bytes) -> None:
    """Write a model's file.

    Raises
    ------
    ModelFileError
        If that fails, or would replace what is no model of ours; no partial file is left.
    """
    try:
        _check_own_place(path)
        write_whole(path, data)
    except OSError as error:
        raise ModelFileError(f"cannot write the model to {path}: {error.strerror}.") from error


def _check_own_place(path: Path) -> None:
    """Refuse a name that is taken by anything but a model of dpfc, or an empty file.

    Raises
    ------
    ModelFileError
        If the file there is another.
    OSError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = file.read(size) if size <= _HEADER_BYTES else b""
            empty = file.seek(0, 2) == 0
    except (FileNotFoundError, IrregularFileError):
        return  # free, or refused where it is written
    if not (empty or _is_ours(header)):
        raise ModelFileError(
            f"{path} is there and no model file of dpfc: only such are replaced. Choose another "
            "name, or remove it first."
        )


def _is_ours(header: bytes) -> bool:
    try:
        known = json.loads(header)["__metadata__"]["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(known, str) and known.startswith(_FORMATS)


def header_of(model: Any, format_name: str) -> dict[str, str]:
    """What the header of a fitted classifier's file tells, whatever its kind.

    The columns of the data frame that it was fitted on, and how its features were made, where they
    came from a cache that tells it.

    Raises
    ------
    ModelFileError
        If the classes are not plain numbers or strings.
    """
    if model.classes_.dtype.kind not in "iufUb":
        raise ModelFileError("classes must be plain numbers or strings to be saved to a file.")
    header = {
        "format": format_name,
        "classes": json.dumps(model.classes_.tolist()),
        "privacy": model.privacy_.to_json(),
    }
    for key, attribute in (("feature_names", "feature_names_in_"), ("columns", "_columns_in")):
        if hasattr(model, attribute):
            header[key] = json.dumps([str(name) for name in getattr(model, attribute)])
    if (origin := getattr(model, "features_from_", None)) is not None:
        header["features_from"] = json.dumps(origin)
    return header


def set_columns(model: Any, header: dict[str, str]) -> None:
    """Give a model the columns of a file's header, and how its features were made.

    Raises
    ------
    ValueError
        If they are no list of names, or not told as `header_of` does.
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
