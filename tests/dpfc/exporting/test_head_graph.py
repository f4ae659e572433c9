"""The graph of a head gives what the head gives, whatever its options and rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpfc.exporting.graph import Graph
from dpfc.exporting.head_graph import head_model
from dpfc.exporting.joined import run
from dpfc.linear.head import LinearHead
from dpfc.mechanism.row_map import RowMap, exact_linear_map

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LABELS = {
    "int": lambda k: np.arange(k) * 7 - 3,
    "text": lambda k: np.array([f"klasse-{i:02}-ü" for i in range(k)]),
    "float": lambda k: np.arange(k) + 0.5,
}


@st.composite
def heads(draw):
    """Heads of any options, with weights of any size that a fit gives."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_features, n_classes = draw(st.integers(1, 40)), draw(st.integers(2, 7))
    normalize = draw(st.booleans())
    bounds = st.floats(1e-3, 1e3)
    bound = draw(bounds if normalize else st.one_of(bounds, st.just(np.inf)))
    linear = None
    if normalize and draw(st.booleans()):
        linear = exact_linear_map(torch.from_numpy(rng.standard_normal((n_features,) * 2))).numpy()
    unit = bound if np.isfinite(bound) else 1.0
    center = rng.standard_normal(n_features) * unit * 0.3 if draw(st.booleans()) else None
    row_map = RowMap(
        bound,
        normalize,
        center=center,
        nonnegative_root=draw(st.booleans()),
        linear=linear,
        scale=rng.lognormal(0, 2, (2, n_features)) if draw(st.booleans()) else None,
        length_scaling=draw(st.sampled_from([0.0, 0.2])) if normalize else 0.0,
    )
    n_outputs = 1 if n_classes == 2 else n_classes
    size = 10.0 ** draw(st.integers(-2, 2)) / unit
    return LinearHead(
        row_map,
        rng.standard_normal((n_outputs, row_map.n_columns(n_features))) * size,
        rng.standard_normal(n_outputs),
        draw(st.sampled_from(["softmax", "sigmoid", "squared"])),
        LABELS[draw(st.sampled_from([*LABELS]))](n_classes),
    )


def rows_for(head, seed):
    """Rows of both signs and of one, long and short, zero, of subnormal numbers, and huge ones."""
    rng = np.random.default_rng(seed)
    n_features = head.weights.shape[1] - head.row_map.n_length_columns
    rows = rng.standard_normal((24, n_features)) * 10.0 ** rng.uniform(-20, 15, (24, 1))
    rows[::2] = abs(rows[::2])
    rows[2], rows[3] = 0.0, -0.0
    rows[4], rows[5] = 3.4e38, -3.4e38
    rows[6] = 1e-44
    rows[7] = np.where(rng.random(n_features) < 0.5, 0.0, 1.0)
    rows[8] = 2.0 ** rng.integers(-100, 100)
    return rows.astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(heads(), st.integers(0, 2**32))
def test_probabilities_are_equal_to_1e_5_and_labels_are_those_of_the_head(head, seed):
    rows = rows_for(head, seed)
    graph = Graph("features", (rows.shape[1],))
    content = head_model(graph, graph.input, head).SerializeToString()
    label, probabilities = run(content, rows)
    scores = head.scores(rows.astype(np.float64))
    expected = head.probabilities(scores)
    assert probabilities.dtype == np.float32 and probabilities.shape == expected.shape
    assert abs(probabilities - expected).max() <= 1e-5
    clear = np.sort(expected, axis=1)
    clear = clear[:, -1] - clear[:, -2] > 1e-6
    assert (label == head.labels(scores))[clear].all()
    assert set(label.tolist()) <= set(head.classes.tolist())


@pytest.mark.parametrize("n_rows", [1, 2, 1000])
def test_any_number_of_rows_goes_through_one_graph(n_rows):
    head = LinearHead(RowMap(), np.eye(3), np.zeros(3), "softmax", np.arange(3))
    graph = Graph("features", (3,))
    content = head_model(graph, graph.input, head).SerializeToString()
    rows = np.random.default_rng(0).standard_normal((n_rows, 3)).astype(np.float32)
    label, probabilities = run(content, rows)
    assert label.shape == (n_rows,) and probabilities.shape == (n_rows, 3)
