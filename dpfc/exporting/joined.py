"""Graphs behind each other: a backbone or a trained network, then what makes classes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.exporting.graph import Graph
from dpfc.exporting.head_graph import head_model
from dpfc.features.backbones.base import Backbone, OnnxNetwork
from dpfc.linear.head import LinearHead

if TYPE_CHECKING:
    import onnx

__all__ = ["backbone_with_head", "joined", "opened", "run"]

_OLDEST_OPERATORS = 13  # the first that the head can be written in


def opened(content: bytes) -> onnx.ModelProto:
    """Parse a graph, and write it in newer operators where the head has none so old.

    Raises
    ------
    ValueError
        If there are no newer ones for what it uses.
    """
    import onnx
    from onnx import version_converter

    model = onnx.load_from_string(content)
    version = Graph("", (), after=model).operators
    if version >= _OLDEST_OPERATORS:
        return model
    try:
        return version_converter.convert_version(model, Graph("", ()).operators)
    except Exception as error:  # of the converter's own kinds
        raise ValueError(
            f"the backbone's ONNX file uses operators of version {version}, which cannot be "
            f"turned into those of version {_OLDEST_OPERATORS}: export it again from its source."
        ) from error


def joined(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """One graph, in which the second takes the only output of the first."""
    from onnx import compose

    places = [(first.graph.output[0].name, second.graph.input[0].name)]
    return compose.merge_models(first, second, io_map=places)


def run(content: bytes, rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Outputs of a graph of one input, in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    outputs: list[NDArray[Any]] = session.run(None, {entry.name: rows})
    return outputs


def backbone_with_head(
    backbone: Backbone, head: LinearHead, dtype: str
) -> tuple[onnx.ModelProto, NDArray[Any], NDArray[np.float32]]:
    """A backbone and a head as one graph, with inputs to try it on.

    Parameters
    ----------
    backbone : Backbone
    head : LinearHead
    dtype : {"float16", "float32"}
        Of the features that the head was fitted on, which are rounded to it.

    Returns
    -------
    model : onnx.ModelProto
    inputs : ndarray
        A batch of made-up images, as the graph takes them.
    features : ndarray of shape (n, n_features)
        What the backbone by itself makes of them.

    Raises
    ------
    ValueError
        If the backbone is none that can be part of an ONNX graph.
    """
    if not isinstance(backbone, OnnxNetwork):
        raise ValueError(
            f"{backbone.spec} cannot be part of an ONNX graph: efficientnet-lite0 and onnx:FILE "
            "can. Export the head alone, and give it the backbone's features."
        )
    content = backbone.onnx_network()
    first = opened(content)
    side, draw = backbone.image_size, np.random.default_rng(0)
    pixels = draw.integers(0, 256, (backbone.best_batch_size, side, side, 3), dtype=np.uint8)
    inputs = backbone.onnx_input(pixels)
    (output,) = run(content, inputs)
    maps = output.ndim == 4
    graph = Graph("dpfc_features", output.shape[1:], after=first)
    rows = graph.cast(graph.input, graph.single)
    if maps:
        rows = graph.add("Flatten", graph.add("GlobalAveragePool", rows), axis=1)
    features = np.asarray(output, np.float32)
    features = features.mean((2, 3)) if maps else features
    if dtype == "float16":
        rows = graph.cast(graph.cast(rows, graph.half), graph.single)
        features = features.astype(np.float16).astype(np.float32)
    return joined(first, head_model(graph, rows, head)), inputs, features
