"""One check of X for all estimators: numbers, none missing, in the columns of the fit.

What comes out is an array or tensor of NumPy's own numbers; messages name a row's position at
most, never a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dpfc._support.callers import warn_caller
from dpfc._support.column_names import is_id_name, is_index_name
from dpfc._support.late import is_tensor, torch
from dpfc.mechanism.labels import without_values

__all__ = ["FLOAT_DTYPES", "as_matrix", "as_numbers", "check_columns", "check_finite"]

# What rows may come as; all else is converted to the first.
FLOAT_DTYPES = (np.float64, np.float32, np.float16)
_SPARSE = "Sparse data was passed for X, but dense data is required: X.toarray(), or X.to_dense()."
_NUMBERS = "X must hold numbers only"
# Of columns in a message: how many, and how much of each name.
_MOST_NAMED = 5
_LONGEST_NAME = 80


def as_numbers(X: Any) -> NDArray[Any] | torch.Tensor:
    """Turn whatever rows come in into native floats (bool too), or integers.

    Parameters
    ----------
    X : array-like, data frame or torch.Tensor of shape (n_samples, ...)

    Returns
    -------
    ndarray, or a torch.Tensor where the rows lie on another device than the CPU

    Raises
    ------
    TypeError, ValueError
        If they are not real numbers, or have no rows or no columns.
    """
    numbers = _of_tensor(X) if is_tensor(X) else _of_array_like(X)
    if numbers.ndim < 2:
        kind = "scalar" if numbers.ndim == 0 else "1D"
        raise ValueError(
            f"Expected 2D array, got {kind} array instead: X must have one row or more, each an "
            "array of numbers. Reshape your data to (n_samples, n_features)."
        )
    if 0 in numbers.shape:
        what = "sample(s)" if numbers.shape[0] == 0 else "feature(s)"
        raise ValueError(
            f"Found array with 0 {what} (shape={tuple(numbers.shape)}) while a minimum of 1 is "
            "required: X must have one row or more, each an array of numbers."
        )
    return numbers


def as_matrix(X: Any) -> NDArray[Any] | torch.Tensor:
    """Rows of floats, finite, of shape (n_samples, n_features).

    Raises
    ------
    TypeError, ValueError
    """
    numbers = as_numbers(X)
    if numbers.ndim > 2:
        raise ValueError(f"Found array with dim {numbers.ndim}, while dim <= 2 is required.")
    if not isinstance(numbers, np.ndarray):
        numbers = numbers if numbers.is_floating_point() else numbers.double()
    elif numbers.dtype not in FLOAT_DTYPES:
        numbers = numbers.astype(np.float64)
    check_finite(numbers)
    return numbers


def check_columns(estimator: Any, X: Any, *, reset: bool) -> None:
    """Remember the columns of a data frame at a fit, and hold later ones against them.

    Names that are strings become `feature_names_in_`; others, such as pandas' numbers, are kept
    beside it.

    Raises
    ------
    TypeError, ValueError
        If names are used twice or of several types, or are not those of the fit in their order.

    Warns
    -----
    UserWarning
        If only one of fit and prediction had names, or a name at a fit is that of an identifier.
    """
    names = _column_names(X)
    texts = names is not None and all(isinstance(name, str) for name in names)
    if reset:
        _warn_of_identifiers(names or ())
        for attribute in ("feature_names_in_", "_columns_in"):
            estimator.__dict__.pop(attribute, None)
        if names is not None and texts:
            estimator.feature_names_in_ = np.asarray(names, dtype=object)
        elif names is not None:
            estimator._columns_in = [str(name) for name in names]
        return
    known, name = getattr(estimator, "feature_names_in_", None), type(estimator).__name__
    if known is None and texts:
        text = f"X has feature names, but {name} was fitted without feature names"
        warn_caller(text, UserWarning)
    if known is not None and not texts:
        text = f"X does not have valid feature names, but {name} was fitted with feature names"
        warn_caller(text, UserWarning)
    if not texts:
        known = getattr(estimator, "_columns_in", None)
    if known is None or names is None:
        return
    given, known = [str(name) for name in names], [str(name) for name in known]
    if given != known:
        same = sorted(given) == sorted(known)
        how = "stand in another order" if same else f"are others, or not {len(known)} of them"
        raise ValueError(
            "The feature names should match those that were passed during fit: the columns of X "
            f"{how}. Take the columns of the fit in its order: X[list(model.feature_names_in_)]."
        )


def _warn_of_identifiers(names: Sequence[Any]) -> None:
    """Say by name which columns are ids or an index, from which nothing can be learnt."""
    found = [n for n in names if isinstance(n, str) and (is_id_name(n) or is_index_name(n))]
    if found:
        listed = ", ".join(map(_shown, found[:_MOST_NAMED]))
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        warn_caller(
            f"X has a feature that is called as ids or an index are: {listed}{more}. Such a column "
            "tells rows apart and predicts nothing of new ones, and the budget is spent on it too: "
            f"leave it out with X.drop(columns=[{listed}{', …' if more else ''}]). If it is a "
            "feature, give it another name.",
            UserWarning,
        )


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 2]}…'"


def check_finite(X: Any, first_row: int = 0) -> None:
    """Refuse NaN and infinity, naming the first row's position.

    Raises
    ------
    ValueError
    """
    finite = torch.isfinite(X).cpu().numpy() if is_tensor(X) else np.isfinite(X)
    finite = finite.reshape(len(finite), -1).all(axis=1)
    if not finite.all():
        row = first_row + int(np.argmin(finite))
        raise ValueError(f"X contains NaN or infinity, first in row {row}.")


def _column_names(X: Any) -> list[Any] | None:
    """Names of X's columns, each once and all of one kind; None where they have none."""
    names = _names_of(X)
    if names is None:
        return None
    places: dict[Any, int] = {}
    for place, name in enumerate(names):
        if name in places:
            raise ValueError(
                f"X has two columns of the same name, at {places[name]} and {place} (counted from "
                "0). Rename or remove one."
            )
        places[name] = place
    if len({isinstance(name, str) for name in names}) > 1:
        raise TypeError(
            "the names of X's columns must all be strings or all be none, got both: "
            "X.columns = X.columns.astype(str) makes them strings."
        )
    return names


def _names_of(X: Any) -> list[Any] | None:
    """Names of the columns of a data frame, or of a table of Arrow; None for anything else."""
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        return list(X.columns)
    of_arrow = getattr(getattr(X, "schema", None), "names", None)
    return list(of_arrow) if isinstance(of_arrow, list) else None


def _of_tensor(X: torch.Tensor) -> NDArray[Any] | torch.Tensor:
    if X.layout != torch.strided:
        raise TypeError(_SPARSE)
    if X.requires_grad:
        raise ValueError("X is a tensor that requires a gradient: pass X.detach().")
    if X.is_complex():
        raise ValueError("Complex data not supported: X must hold real numbers only.")
    if X.is_quantized or X.device.type == "meta":
        raise ValueError(f"{_NUMBERS}: got a quantized tensor, or one without data.")
    if X.dtype == torch.bool:
        X = X.float()
    elif X.is_floating_point() and X.dtype not in (torch.float64, torch.float32, torch.float16):
        X = X.float()  # bfloat16 and narrower, of which float32 holds every value
    return np.asarray(X.numpy()) if X.device.type == "cpu" else X


def _of_array_like(X: Any) -> NDArray[Any]:
    if sparse.issparse(X) or any("Sparse" in str(dtype) for dtype in _dtypes(X)):
        raise TypeError(_SPARSE)
    if np.ma.isMaskedArray(X) and np.ma.is_masked(X):
        rows = np.flatnonzero(np.ma.getmaskarray(X).reshape(len(X), -1).any(axis=1))
        raise ValueError(
            f"X has masked entries, first in row {int(rows[0])}. Fill them, or remove such rows."
        )
    with without_values("X cannot be read as an array of numbers"):
        array = np.asarray(X)
    if array.ndim == 0 and array.dtype.kind == "O":
        wrong = ValueError if X is None else TypeError
        raise wrong(f"X must be an array of numbers, got {type(X).__name__}.")
    if array.ndim == 0 and array.dtype.kind == "U":
        raise ValueError(
            f"{_NUMBERS}, got strings: a file is read first, by numpy.load, pandas.read_parquet "
            "or, if it is a feature cache, dpfc.features.FeatureCache.open."
        )
    names = _names_of(X)
    if names and array.dtype.kind not in "biuf" and array.shape[1:] == (len(names),):
        return np.column_stack([_column(X, array, place, name) for place, name in enumerate(names)])
    return _native(array)


def _column(X: Any, array: NDArray[Any], place: int, name: object) -> NDArray[Any]:
    """One column of a data frame, whose name an error says."""
    try:
        return _native(np.asarray(X.iloc[:, place]) if hasattr(X, "iloc") else array[:, place])
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"X's column {_shown(name)} cannot be a feature: {error} Leave it out, or make it "
            "numbers: dpfc.TableEncoder does, by a public schema."
        ) from None


def _dtypes(X: Any) -> list[Any]:
    return list(X.dtypes) if hasattr(X, "iloc") and hasattr(X, "columns") else []


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers in this machine's byte order, of types that torch has."""
    if array.dtype.kind == "O":
        return _of_objects(array)
    if array.dtype.kind == "c":
        raise ValueError("Complex data not supported: X must hold real numbers only.")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{_NUMBERS}, got {_kind_words(array.dtype)}.")
    if array.dtype.kind == "b":
        return array.astype(np.float64)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # refused as infinite
            return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _kind_words(dtype: np.dtype[Any]) -> str:
    return "strings" if dtype.kind in "US" else "records" if dtype.kind == "V" else str(dtype)


def _of_objects(array: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.empty(array.size)
    for place, value in enumerate(array.flat):
        if isinstance(value, str | bytes):
            raise ValueError(f"{_NUMBERS}, got strings.")
        missing = value is None or type(value).__name__ in ("NAType", "NaTType")
        try:
            flat[place] = np.nan if missing else float(value)
        except OverflowError:
            flat[place] = np.inf
        except Exception as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"{_NUMBERS}: float() argument must be a string or a real number, got "
                f"{type(value).__name__}."
            ) from None
    return flat.reshape(array.shape)
