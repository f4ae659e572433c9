"""What a row of a study's table must hold, whoever wrote the file that it comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["check_run"]

_TEXTS = ("dataset", "method", "label", "parameters")
_OPTIONAL_TEXTS = ("key", "study", "backbone", "error", "statement", "code", "finished")
_WHOLE = ("seed", "n_features", "n_classes")


def check_run(row: Mapping[str, Any]) -> None:
    """Refuse a row of which a field is not what a sweep writes.

    Parameters
    ----------
    row : mapping
        By the names of `sweep_store.results_schema`; its statement may be left out.

    Raises
    ------
    ValueError
        Names the field, and says what it must be; repeats no value.
    """
    for name in (*_TEXTS, *_OPTIONAL_TEXTS):
        value = row.get(name)
        _require(isinstance(value, str | None), name, "a text")
        _require(value is not None or name in _OPTIONAL_TEXTS, name, "a text")
    for name in _WHOLE:
        value = row.get(name)
        _require(value is None or (type(value) is int and value >= 0), name, "an int >= 0")
    _require(row.get("status") in ("ok", "failed"), "status", "ok or failed")
    _require(isinstance(row.get("private"), bool | None), "private", "true or false")
    _require(_is_number(row.get("epsilon")) and row["epsilon"] > 0, "epsilon", "a number > 0")
    for name in ("delta", "seconds"):
        value = row.get(name)
        _require(value is None or _is_finite(value), name, "a finite number")
    _check_objects(row)
    accuracy = row.get("accuracy")
    fits = accuracy is None if row["status"] == "failed" else _is_finite(accuracy)
    _require(
        fits and 0 <= (accuracy or 0) <= 1, "accuracy", "a number in [0, 1] of a run that is ok"
    )
    _check_outcome(row)


def _check_objects(row: Mapping[str, Any]) -> None:
    parameters = _json_object(row["parameters"], "parameters")
    plain = all(isinstance(value, bool | int | float | str | None) for value in parameters.values())
    _require(plain, "parameters", "an object in JSON, of numbers and texts")
    if (text := row.get("versions")) is not None:
        versions = _json_object(text, "versions")
        plain = all(isinstance(value, str | None) for value in versions.values())
        _require(plain, "versions", "an object in JSON, of texts")


def _check_outcome(row: Mapping[str, Any]) -> None:
    """What a run that has ended well has measured, by class."""
    names, shares = row.get("class_names"), row.get("per_class_accuracy")
    fits = names is None or (_is_list(names) and all(isinstance(name, str) for name in names))
    _require(fits, "class_names", "a list of texts")
    # A class without test rows has no accuracy.
    fits = shares is None or (_is_list(shares) and all(s is None or _is_number(s) for s in shares))
    _require(fits, "per_class_accuracy", "a list of numbers")
    confusion = row.get("confusion")
    fits = confusion is None or (
        _is_list(confusion)
        and len(confusion) > 0
        and all(_is_list(line) and len(line) == len(confusion) for line in confusion)
        and all(type(count) is int and count >= 0 for line in confusion for count in line)
    )
    _require(fits, "confusion", "a square of counts")
    sizes = {len(part) for part in (names, shares, confusion) if part is not None}
    sizes |= {row["n_classes"]} if row.get("n_classes") is not None else set()
    _require(len(sizes) <= 1, "n_classes", "the number of classes of all other fields")


def _json_object(text: object, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    _require(isinstance(value, dict), name, "an object in JSON")
    return dict(value or {})


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) < math.inf


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
