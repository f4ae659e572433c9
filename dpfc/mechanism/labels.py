"""Labels and classes: what users bring, checked before anything is spent.

Messages name a row's position at most, never a label; classes are public and may be named.
"""

from __future__ import annotations

import json
import numbers
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from dpfc._support.callers import warn_caller
from dpfc._support.late import is_tensor, torch
from dpfc._support.validation import refuse_text
from dpfc.exceptions import PrivacyWarning

__all__ = [
    "accuracy",
    "as_labels",
    "encode_labels",
    "public_classes",
    "row_weights",
    "without_values",
]

# From this many rows on, a class for every other row is no list of classes.
_FEW_ROWS = 20
_INT64 = np.iinfo(np.int64)
# What scikit-learn says without repeating data.
_HARMLESS = re.compile(
    "Unknown label type|y should be a 1d array|setting an array element with a sequence|"
    "Complex data not supported"
)


def as_labels(y: ArrayLike | None, n_rows: int, owner: str) -> NDArray[Any]:
    """Labels as one array of numbers or of strings, none missing.

    Parameters
    ----------
    y : array-like of shape (n_rows,)
    n_rows : int
    owner : str
        Who asks for labels.

    Returns
    -------
    ndarray of shape (n_rows,)

    Raises
    ------
    TypeError, ValueError
        If there is no label a row, a label is missing, or labels are not all numbers or all
        strings; names a row's position at most.
    """
    if y is None:
        raise ValueError(
            f"{owner} requires y to be passed, but the target y is None: y must be given (pass y, "
            "one label a row)."
        )
    if is_tensor(y):
        y = _of_tensor(y)
    if sparse.issparse(y):
        raise TypeError("y must be dense, one label a row, got a sparse matrix.")
    masked = np.flatnonzero(np.ma.getmaskarray(y) if np.ma.isMaskedArray(y) else ())
    if len(masked):
        raise _missing(int(masked[0]))
    with without_values("y must have one label a row, all numbers or all strings"):
        labels: NDArray[Any] = column_or_1d(_kept_apart(y))
    if np.asarray(y).ndim == 2:
        warn_caller(
            "A column-vector y was passed when a 1d array was expected: pass y.ravel().",
            DataConversionWarning,
        )
    if len(labels) != n_rows:
        raise ValueError(
            f"y must have one label a row: X has {n_rows} rows and y has {len(labels)} labels."
        )
    return plain_labels(labels)


def plain_labels(labels: NDArray[Any], first_row: int = 0) -> NDArray[Any]:
    """Turn labels into NumPy's own numbers or strings.

    Raises
    ------
    ValueError
        If a label is missing, or they are not all numbers or all strings; names the row.
    """
    if labels.dtype.kind in "biuU":
        _check_whole(labels, first_row)
        return labels
    if labels.dtype.kind == "f":
        missing = np.flatnonzero(np.isnan(labels))
        if len(missing):
            raise _missing(first_row + int(missing[0]))
        return labels.astype(np.float64) if labels.dtype.itemsize > 8 else labels
    if labels.dtype.kind != "O":
        raise ValueError(
            f"y must hold plain labels, all numbers or all strings, got {labels.dtype}. Convert "
            "them, for example with y.astype(str)."
        )
    families = [_family(label) for label in labels]
    for wrong in ("missing", "other"):
        if wrong in families:
            row = first_row + families.index(wrong)
            raise (
                _missing(row)
                if wrong == "missing"
                else ValueError(
                    f"y must hold plain labels, all numbers or all strings; row {row} has neither."
                )
            )
    if len(set(families)) > 1:
        place = next(i for i, family in enumerate(families) if family != families[0])
        raise ValueError(
            f"y has labels of different types: {families[0]} first, then {families[place]} in row "
            f"{first_row + place}. Make them all numbers or all strings."
        )
    if families and families[0] == "strings":
        return labels.astype(str)
    _check_whole(labels, first_row)
    with without_values("y has numbers that no array holds"):
        return plain_labels(_not_objects(np.asarray(labels.tolist())), first_row)


def public_classes(
    classes: Iterable[Any] | None, y: Iterable[NDArray[Any]], names: list[str] | None = None
) -> NDArray[Any]:
    """Return the sorted class labels: as stated, as a cache names them, or read from `y`.

    Raises
    ------
    ValueError
        If there are fewer than two classes, they are not plain numbers or strings, which a model
        file can hold, or those read from `y` are no classes but measurements.

    Warns
    -----
    PrivacyWarning
        If the classes are read from the private labels.
    """
    if classes is None:
        classes = names
    if classes is None:
        warn_caller(
            "classes were read from the private labels: a released model then reveals which "
            "classes occur, without privacy. Pass classes=… to state them.",
            PrivacyWarning,
        )
        return _classes_of_labels(y)
    listed = _listed(classes)
    unique, n_listed = np.unique(listed), len(listed)
    if len(unique) < 2 or len(unique) != n_listed:
        raise ValueError(
            f"classes must list two or more different labels, got {n_listed} "
            f"label(s), {len(unique)} of them different."
        )
    return _storable(unique)


def encode_labels(y: NDArray[Any], classes: NDArray[Any], first_row: int = 0) -> NDArray[np.int64]:
    """Positions of the labels in the sorted `classes`, shape (n_samples,).

    Raises
    ------
    ValueError
        If a label is not one of `classes`; names the first such row's position.
    """
    y = plain_labels(np.asarray(y), first_row)
    if not len(y):
        return np.empty(0, dtype=np.int64)
    if (y.dtype.kind == "U") != (classes.dtype.kind == "U"):
        families = ("strings", "numbers") if y.dtype.kind == "U" else ("numbers", "strings")
        raise ValueError(
            f"y has labels that are not in classes, of different types: y holds {families[0]}, "
            f"first in row {first_row}, and the classes are {families[1]}. State the classes as "
            f"the labels are, or convert y.{_recoded(y, classes)}"
        )
    codes = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    unknown = np.flatnonzero(classes[codes] != y)
    if len(unknown):
        raise ValueError(
            f"y has labels that are not in classes, the first in row {first_row + int(unknown[0])}."
            f"{_recoded(y, classes) or ' Add the class, or remove such rows.'}"
        )
    return codes.astype(np.int64)


def accuracy(y: ArrayLike | None, predicted: NDArray[Any], sample_weight: Any, owner: str) -> float:
    """Share of rows whose label was predicted, weighted; exact.

    Raises
    ------
    TypeError, ValueError
        If labels are not as `as_labels` takes them, or of another type than the predictions, or
        weights are not one finite number >= 0 a row.
    """
    labels = as_labels(y, len(predicted), owner)
    if (labels.dtype.kind == "U") != (predicted.dtype.kind == "U"):
        encode_labels(labels, np.unique(predicted))  # refuses them
    weights = row_weights(sample_weight, len(predicted))
    return float(np.average(labels == predicted, weights=weights))


def row_weights(sample_weight: Any, n_rows: int) -> NDArray[np.float64] | None:
    """Weights of rows in an exact figure; None where there are none.

    Raises
    ------
    ValueError
        If they are not one finite number >= 0 a row, or all are zero.
    """
    if sample_weight is None:
        return None
    with without_values("sample_weight must hold one number a row"):
        weights = np.asarray(sample_weight)
        weights = weights.astype(np.float64) if weights.dtype.kind in "biufO" else weights
    usable = weights.dtype == np.float64 and weights.shape == (n_rows,)
    if not (usable and np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(
            f"sample_weight must be one finite number >= 0 a row ({n_rows} rows), not all zero."
        )
    return np.asarray(weights)


@contextmanager
def without_values(words: str) -> Iterator[None]:
    """Keep the words of scikit-learn's checks that print no data; say `words` for all others.

    Raises
    ------
    TypeError, ValueError
        In place of whatever the checks raise.
    """
    try:
        yield
    except Exception as error:
        text = str(error).split("\n")[0].rstrip(" :.")
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{text if _HARMLESS.match(text) else words}.") from None


def _of_tensor(y: torch.Tensor) -> NDArray[Any]:
    if y.layout != torch.strided or y.is_quantized or y.device.type == "meta" or y.is_complex():
        raise ValueError("y must hold plain labels, all numbers or all strings, one a row.")
    y = y.detach().cpu()
    return np.asarray((y.float() if y.is_floating_point() and y.itemsize < 4 else y).numpy())


def _kept_apart(y: Any) -> Any:
    """Keep a list's labels as they are where NumPy would make strings or floats of them all."""
    if str(getattr(y, "dtype", "")) in ("Int64", "UInt64"):  # pandas', with missing ones
        return np.asarray(y, dtype=object)
    is_list = isinstance(y, list | tuple)
    if is_list and any(isinstance(label, str) or _is_wide(label) for label in y):
        labels = np.empty(len(y), dtype=object)
        labels[:] = y
        return labels
    return y


def _is_wide(label: object) -> bool:
    """Whether it is a whole number beyond int64."""
    return isinstance(label, numbers.Integral) and not _INT64.min <= int(label) <= _INT64.max


def _check_whole(labels: NDArray[Any], first_row: int) -> None:
    """Refuse whole numbers beyond int64: beside smaller ones, NumPy and files make floats of them.

    Raises
    ------
    ValueError
        Names the first row.
    """
    if labels.dtype.kind == "O":
        wide = np.flatnonzero([_is_wide(label) for label in labels])
    else:
        wide = np.flatnonzero(labels > _INT64.max if labels.dtype == np.uint64 else ())
    if len(wide):
        raise ValueError(
            f"y has whole numbers that int64 does not hold (below -2**63, or 2**63 and above), the "
            f"first in row {first_row + int(wide[0])}: name such classes by strings, for example "
            "with y.astype(str)."
        )


def _not_objects(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind not in "biuf":
        raise ValueError  # whole numbers beyond 64 bits, fractions
    return labels


def _family(label: object) -> str:
    if label is None or type(label).__name__ in ("NAType", "NaTType") or label != label:
        return "missing"
    if isinstance(label, str):
        return "strings"
    return "numbers" if isinstance(label, numbers.Real | np.bool_) else "other"


def _missing(row: int) -> ValueError:
    return ValueError(
        f"y has a missing label (None, NaN or masked), which is not in classes, the first in row "
        f"{row}. Remove such rows, or give them a class of their own."
    )


def _recoded(y: NDArray[Any], classes: NDArray[Any]) -> str:
    """Advice where labels look like those that scikit-learn's meta-estimators hand on."""
    if y.dtype.kind not in "biuf" or not np.isin(y, np.arange(len(classes))).all():
        return ""
    return (
        " They are whole numbers from 0 on: scikit-learn recodes labels to 0 … k-1 inside "
        "VotingClassifier, StackingClassifier, BaggingClassifier, OneVsRestClassifier and "
        "cross_val_predict. There, give this classifier classes=range(k)."
    )


def _classes_of_labels(y: Iterable[NDArray[Any]]) -> NDArray[Any]:
    blocks, n_rows = [], 0
    for block in y:
        labels = plain_labels(np.asarray(block), n_rows)
        n_rows += len(labels)
        blocks.append(np.unique(labels))
    known = np.unique(np.concatenate(blocks))
    with without_values("y must hold classes, not measurements"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's of many classes
        check_classification_targets(known)
    if len(known) < 2:
        raise ValueError(
            f"the labels have {len(known)} class(es); a classifier needs 2 or more classes. "
            "Pass classes=… if there are more."
        )
    if n_rows >= _FEW_ROWS and len(known) > n_rows // 2:
        raise ValueError(
            f"the labels have {len(known)} classes in {n_rows} rows: they look like measurements "
            "or names of rows, and as classes they would all be published. State classes=… if "
            "they are public classes."
        )
    return _storable(known)


def _listed(classes: Iterable[Any]) -> NDArray[Any]:
    """Stated classes as an array of numbers or strings."""
    refuse_text("classes", classes)
    try:
        labels = list(classes.tolist() if hasattr(classes, "tolist") else classes)
        families = {_family(label) for label in labels}
    except (TypeError, ValueError):
        labels, families = [], {"other"}  # not a list, or a ragged one
    if "missing" in families and not families & {"strings", "other"}:
        raise ValueError("classes must not contain NaN, None or infinity.")
    if len(families) > 1 or not families <= {"strings", "numbers"}:
        raise ValueError("classes must be a list of plain labels, all numbers or all strings.")
    if any(map(_is_wide, labels)):
        raise ValueError(
            "classes must hold no whole number below -2**63, or 2**63 and above, which int64 does "
            "not hold: name such classes by strings, in y too."
        )
    listed = np.asarray(labels)
    if listed.dtype.kind == "f" and not np.isfinite(listed).all():
        raise ValueError("classes must not contain NaN, None or infinity.")
    if labels and listed.dtype.kind not in "biufU":
        raise ValueError("classes must be a list of plain labels, all numbers or all strings.")
    wide = listed.dtype.kind == "f" and listed.dtype.itemsize > 8
    return listed.astype(np.float64) if wide else listed


def _storable(classes: NDArray[Any]) -> NDArray[Any]:
    """Refuse classes that a model file would not give back: nothing is paid for and then lost."""
    again = np.asarray(json.loads(json.dumps(classes.tolist())))
    if not np.array_equal(again, classes):
        raise ValueError(
            "classes must be plain numbers or strings that a model file can hold; these come back "
            "changed from one. Use strings, or numbers that float64 tells apart."
        )
    return classes
