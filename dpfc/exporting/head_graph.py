"""The head of a linear classifier as an ONNX graph: the row map, weights and probabilities.

Rows are worked out in float64, as `predict_proba` does, so that the two agree to what float32
can say of a probability, also for rows that lie near the centre.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpfc.exporting.graph import Graph
from dpfc.linear.head import LinearHead
from dpfc.mechanism.row_map import GRID, LENGTH_PERIOD, LEVEL, REACH, RowMap

if TYPE_CHECKING:
    import onnx

__all__ = ["head_model", "softmax_model"]

_NO_LENGTH = 2.0**-500  # as the row map's, of float64
_SHORTENED = 1.0 - 2.0**-40


def head_model(graph: Graph, rows: str, head: LinearHead) -> onnx.ModelProto:
    """Write a head into a graph and close it: ``label`` and ``probabilities`` come out.

    Parameters
    ----------
    graph : Graph
    rows : str
        Features, float32 (rows, n_features).
    head : LinearHead
    """
    n_features = head.weights.shape[1] - head.row_map.n_length_columns
    mapped = _mapped(graph, graph.cast(rows, graph.double), head.row_map, n_features)
    weights, intercept = graph.constant(head.weights.T), graph.constant(head.intercept)
    scores = graph.add("Add", graph.add("MatMul", mapped, weights), intercept)
    codes = _codes(graph, scores, len(head.intercept))
    return graph.model(codes, _probabilities(graph, scores, head), head.classes)


def softmax_model(graph: Graph, logits: str, classes: NDArray[Any]) -> onnx.ModelProto:
    """Write what a network's logits say into a graph and close it, as `head_model` does."""
    scores = graph.cast(logits, graph.double)
    codes = graph.add("ArgMax", scores, axis=1, keepdims=0)
    return graph.model(codes, graph.add("Softmax", scores, axis=1), classes)


def _mapped(graph: Graph, rows: str, row_map: RowMap, n_features: int) -> str:
    """All steps of `RowMap`; float64 has room for the squares of any float32."""
    unit = row_map.l2_clip_norm if math.isfinite(row_map.l2_clip_norm) else 1.0
    if row_map.scale is not None:
        centers, factors = map(graph.constant, np.asarray(row_map.scale))
        rows = graph.add("Mul", graph.add("Sub", rows, centers), factors)
        rows = graph.add("Clip", rows, graph.constant(-REACH), graph.constant(REACH))
    lengths = _norms(graph, rows)
    bounded, norms = rows, lengths
    if row_map.takes_roots:
        bounded = _roots(graph, rows, n_features)
        norms = _norms(graph, bounded)
    bounded = _bound(graph, bounded, norms, row_map, 1.0 / unit)
    if row_map.center is not None:
        shift = graph.constant(np.asarray(row_map.center) / unit)
        bounded = graph.add("Sub", bounded, shift)
        bounded = _bound(graph, bounded, _norms(graph, bounded), row_map)
    if row_map.linear is not None:
        grid = graph.constant(GRID)
        steps = graph.add("Round", graph.add("Div", bounded, grid))
        linear = graph.constant(np.asarray(row_map.linear))
        bounded = graph.add("MatMul", graph.add("Mul", steps, grid), linear)
        bounded = _bound(graph, bounded, _norms(graph, bounded), row_map)
    size = unit * math.sqrt(row_map.feature_share)
    mapped = graph.add("Mul", bounded, graph.constant(size))
    if not row_map.n_length_columns:
        return mapped
    size = row_map.length_scaling * unit * _SHORTENED
    waves = graph.add("Mul", _length_waves(graph, lengths), graph.constant(size))
    return graph.add("Concat", mapped, waves, axis=1)


def _norms(graph: Graph, rows: str) -> str:
    """Row norms, shape (rows, 1)."""
    squares = graph.add("Mul", rows, rows)
    return graph.add("Sqrt", graph.row_sums(squares))


def _bound(graph: Graph, rows: str, norms: str, row_map: RowMap, longest: float = 1.0) -> str:
    """Step 2: to length 1, or down to it; `longest` is the factor of a row that is short."""
    factors = graph.add("Div", graph.constant(_SHORTENED), norms)
    if row_map.normalize:
        none = graph.add("Less", norms, graph.constant(_NO_LENGTH))
        factors = graph.add("Where", none, graph.constant(0.0), factors)
    elif math.isfinite(row_map.l2_clip_norm):
        factors = graph.add("Min", factors, graph.constant(longest))
    else:
        factors = graph.constant(longest)
    return graph.add("Mul", rows, factors)


def _roots(graph: Graph, rows: str, n_features: int) -> str:
    """Step 1, of rows without a negative entry; the others as they are."""
    roots = graph.add("Sqrt", graph.add("Abs", rows))
    level = graph.add("Mul", graph.row_sums(roots), graph.constant(LEVEL / n_features))
    negative = graph.cast(graph.add("Less", rows, graph.constant(0.0)), graph.double)
    nonnegative = graph.add("Less", graph.row_sums(negative), graph.constant(0.5))
    return graph.add("Where", nonnegative, graph.add("Sub", roots, level), rows)


def _length_waves(graph: Graph, lengths: str) -> str:
    """Step 5, unscaled: two triangle waves of the length's logarithm, shape (rows, 2).

    The logarithm is linear between powers of two: k + length / 2^k - 1 for the largest
    2^k <= length, which is continuous, so that a k that rounding put too high does not matter.
    """
    there = graph.add("Greater", lengths, graph.constant(0.0))
    positive = graph.add("Where", there, lengths, graph.constant(1.0))
    log2 = graph.add("Div", graph.add("Log", positive), graph.constant(math.log(2.0)))
    k = graph.add("Floor", log2)
    mantissas = graph.add("Div", positive, graph.add("Pow", graph.constant(2.0), k))
    logarithm = graph.add("Add", k, graph.add("Sub", mantissas, graph.constant(1.0)))
    phases = graph.add("Div", logarithm, graph.constant(LENGTH_PERIOD))
    later = graph.add("Add", phases, graph.constant(0.25))
    waves = graph.add("Concat", _triangle(graph, phases), _triangle(graph, later), axis=1)
    return graph.add("Where", there, waves, graph.constant(0.0))


def _triangle(graph: Graph, phases: str) -> str:
    place = graph.add("Sub", phases, graph.add("Floor", phases))
    height = graph.add("Abs", graph.add("Sub", place, graph.constant(0.5)))
    return graph.add("Sub", graph.add("Mul", height, graph.constant(4.0)), graph.constant(1.0))


def _probabilities(graph: Graph, scores: str, head: LinearHead) -> str:
    """As `dpfc.linear.probabilities`."""
    n_classes = len(head.classes)
    if n_classes == 2:
        slope = 2.0 if head.link == "squared" else 1.0
        slopes: NDArray[np.float64] = np.array([[-slope, slope]])
        return _expit(graph, graph.add("Mul", scores, graph.constant(slopes)))
    if head.link == "squared":
        scores = graph.add("Mul", scores, graph.constant(float(n_classes)))
    if head.link != "sigmoid":
        return graph.add("Softmax", scores, axis=1)
    least = graph.constant(np.finfo(np.float64).tiny)
    positive = graph.add("Max", _expit(graph, scores), least)
    return graph.add("Div", positive, graph.row_sums(positive))


def _expit(graph: Graph, scores: str) -> str:
    """1 / (1 + exp(-s)); ONNX Runtime's own is 0 from -37 on, where all classes may be."""
    one = graph.constant(1.0)
    return graph.add("Div", one, graph.add("Add", one, graph.add("Exp", graph.add("Neg", scores))))


def _codes(graph: Graph, scores: str, n_outputs: int) -> str:
    """Numbers of the most likely classes, int64 (rows,)."""
    if n_outputs > 1:
        return graph.add("ArgMax", scores, axis=1, keepdims=0)
    positive = graph.add("Greater", scores, graph.constant(0.0))
    return graph.cast(graph.flat(positive), graph.whole)
