"""A fitted classifier as one ONNX file, which runs where there is no Python."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from dpfc._support.files import error_words, write_whole
from dpfc._support.packages import require
from dpfc._version import __version__
from dpfc.exceptions import ModelFileError
from dpfc.exporting.graph import Graph
from dpfc.exporting.head_graph import head_model
from dpfc.exporting.joined import backbone_with_head, run
from dpfc.linear.prediction import LinearPredictor

if TYPE_CHECKING:
    import onnx

    from dpfc.accounting import PrivacyStatement
    from dpfc.features import Backbone

__all__ = ["export_onnx", "onnx_bytes"]

_MOST_BYTES = 2**31 - 2**24  # what a protocol buffer holds, less room for all but weights
_TRIED_ROWS = 64
_HEAD_TOLERANCE = 1e-5
# Other kernels, or fused ones, round otherwise in each of many layers; features that were rounded
# to float16 move by 2^-11 of their size where such a difference meets the middle of two numbers.
_NETWORK_TOLERANCE = 1e-4
_BACKBONE_TOLERANCE = 1e-3


def export_onnx(
    model: Any, path: str | os.PathLike[str], *, backbone: Backbone | None = None
) -> None:
    """Write a fitted classifier as one ONNX file; a file of that name is replaced.

    The graph gives ``label``, shape (rows,), and ``probabilities``, float32 of shape
    (rows, n_classes): what `predict` and `predict_proba` give, to 1e-5 (a whole
    network: 1e-4; with a backbone: 1e-3). That is tried on made-up rows before anything is
    written. It takes

    - of a linear classifier ``features``, float32 of shape (rows, n_features);
    - with a backbone, that network's own input, and the backbone is part of the graph;
    - of a `DPSGDClassifier` ``rows``, of the shape and kind of the rows of its fit.

    The privacy statement is in the file's metadata.

    Parameters
    ----------
    model : estimator
        Fitted: a classifier of dpfc, or a search over one.
    path : path-like
    backbone : Backbone, optional
        Of `dpfc.features.load_backbone`: "efficientnet-lite0" or "onnx:FILE", the network that
        made the features of a linear classifier.

    Raises
    ------
    MissingDependencyError
        If onnx or onnxruntime is not installed.
    ValueError
        If the model cannot be exported, or the backbone is not that of its features.
    ModelFileError
        If the file cannot be written; no partial file is left. It is a ValueError.
    """
    content = onnx_bytes(model, backbone)
    try:
        write_whole(Path(path), content)
    except OSError as error:
        words = f"cannot write the model to {os.fspath(path)}: {error_words(error)}."
        raise ModelFileError(words) from error


def onnx_bytes(model: Any, backbone: Backbone | None = None) -> bytes:
    """Content of the file that `export_onnx` writes; raises as it does, but for the writing."""
    for package in ("onnx", "onnxruntime"):
        require(package, "an export to ONNX", "onnx")
    check_is_fitted(model)
    fitted = getattr(model, "best_estimator_", model)
    if isinstance(fitted, LinearPredictor):
        exported, tried, expected = _linear(fitted, backbone)
        tolerance = _HEAD_TOLERANCE if backbone is None else _BACKBONE_TOLERANCE
    elif backbone is not None:
        raise ValueError(f"a {type(fitted).__name__} has no backbone: leave it out.")
    else:
        exported, tried, expected = _network(fitted)
        tolerance = _NETWORK_TOLERANCE
    _describe(exported, fitted, model.privacy_, backbone)
    content: bytes = exported.SerializeToString(deterministic=True)
    label, probabilities = run(content, tried)
    _check_agreement(label, probabilities, expected, fitted.classes_, tolerance)
    return content


def _linear(
    model: LinearPredictor, backbone: Backbone | None
) -> tuple[onnx.ModelProto, NDArray[Any], NDArray[np.float64]]:
    """The graph of a linear classifier, rows to try it on, and their probabilities."""
    _check_size(model)
    head = model._head()
    if backbone is None:
        graph = Graph("features", (model.n_features_in_,))
        features = tried = _made_up_rows(model.n_features_in_)
        exported = head_model(graph, graph.input, head)
    else:
        dtype = _check_backbone(model, backbone)
        exported, tried, features = backbone_with_head(backbone, head, dtype)
    return exported, tried, head.probabilities(head.scores(features.astype(np.float64)))


def _network(model: Any) -> tuple[onnx.ModelProto, NDArray[Any], NDArray[np.float64]]:
    """The same of a network."""
    from dpfc.exporting.network_graph import network_model
    from dpfc.full_models.prediction import NetworkPredictor

    if not isinstance(model, NetworkPredictor):
        raise ValueError(f"a {type(model).__name__} cannot be exported to ONNX.")
    exported, tried = network_model(model)
    return exported, tried, model.predict_proba(tried)


def _check_size(model: LinearPredictor) -> None:
    arrays = (model.coef_, model.linear_map_)
    n_bytes = sum(array.nbytes for array in arrays if array is not None)
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"the model's weights take {n_bytes:,} bytes, and an ONNX file holds less than 2 GiB."
        )


def _check_backbone(model: Any, backbone: Backbone) -> str:
    """Refuse a backbone that cannot have made a model's features; give their dtype."""
    origin = getattr(model, "features_from_", None)
    if backbone.n_features != model.n_features_in_:
        raise ValueError(
            f"{backbone.spec} makes {backbone.n_features} features, and the model takes "
            f"{model.n_features_in_}: name the backbone of its features."
        )
    if origin is None:
        return "float32"
    if origin["weights_sha256"] != backbone.weights_sha256:
        raise ValueError(f"{backbone.spec} has other weights than the backbone of the features.")
    return str(origin["dtype"])


def _describe(
    exported: onnx.ModelProto, model: Any, statement: PrivacyStatement, backbone: Backbone | None
) -> None:
    """Write who is protected how, and what the graph belongs to, into the file's metadata."""
    name = type(model).__name__
    exported.doc_string = f"{name} of dpfc. {statement.short}"
    exported.producer_name, exported.producer_version = "dpfc", __version__
    facts = {
        "dpfc_version": __version__,
        "estimator": name,
        "classes": json.dumps(model.classes_.tolist()),
        "features_from": json.dumps(getattr(model, "features_from_", None)),
        "preprocessing": json.dumps(None if backbone is None else backbone.preprocessing),
        "guarantee": statement.short,
        "private": json.dumps(statement.private),
        "epsilon": repr(statement.target_epsilon),
        "delta": repr(statement.target_delta),
        "neighboring_relation": statement.neighboring_relation,
        "unit_of_privacy": statement.unit_of_privacy,
        "privacy_statement": statement.to_json(indent=None),
    }
    kept = [entry for entry in exported.metadata_props if entry.key not in facts]
    del exported.metadata_props[:]
    exported.metadata_props.extend(kept)
    for key, value in facts.items():
        exported.metadata_props.add(key=key, value=value)


def _check_agreement(
    label: NDArray[Any],
    probabilities: NDArray[Any],
    expected: NDArray[np.float64],
    classes: NDArray[Any],
    tolerance: float,
) -> None:
    """Hold what a graph gives against what the model gives.

    Raises
    ------
    RuntimeError
        If probabilities are apart, or a label is not that of a largest probability.
    """
    places = np.searchsorted(classes, label.astype(classes.dtype))
    chosen = expected[np.arange(len(expected)), places]
    apart = float(np.max(abs(probabilities - expected)))
    if not (apart <= tolerance and (chosen >= expected.max(axis=1) - 2 * tolerance).all()):
        raise RuntimeError(
            f"the graph does not give what the model gives (probabilities are {apart:.2g} apart): "
            "nothing was written. This is an error of dpfc, or of ONNX Runtime."
        )


def _made_up_rows(n_features: int) -> NDArray[np.float32]:
    """Rows of many lengths, of one sign and of both, and a zero row."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((_TRIED_ROWS, n_features))
    rows[::2] = abs(rows[::2])
    rows[0] = 0.0
    return (rows * 10.0 ** draw.uniform(-6, 6, (_TRIED_ROWS, 1))).astype(np.float32)
