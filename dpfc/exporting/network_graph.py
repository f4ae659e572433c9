"""A trained network as an ONNX graph, by PyTorch's exporter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpfc.exporting.graph import Graph
from dpfc.exporting.head_graph import softmax_model
from dpfc.exporting.joined import joined, opened
from dpfc.features.backbones.onnx_session import exported_module
from dpfc.full_models.dp_sgd.rows import ROW_KINDS, as_input
from dpfc.full_models.prediction import NetworkPredictor
from dpfc.full_models.silence import in_silence

if TYPE_CHECKING:
    import onnx

__all__ = ["network_model"]

_TRIED_ROWS = 8


def network_model(model: NetworkPredictor) -> tuple[onnx.ModelProto, NDArray[Any]]:
    """The graph, and made-up rows to try it on.

    It takes ``rows``, float32, uint8 or int64 as the network was fitted on, of shape
    (rows, *input_shape).

    Raises
    ------
    ValueError
        If PyTorch cannot write the network as ONNX.
    """
    kind = {name: dtype for dtype, name in ROW_KINDS.items()}[model.row_kind_ or "floats"]
    tried = _made_up_rows(model.input_shape_, kind)
    try:
        with in_silence():
            content = exported_module(_Logits(model), torch.from_numpy(tried[:2]), "rows", "logits")
    # Of many kinds, which PyTorch does not list.
    except Exception as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"this network cannot be written as ONNX by PyTorch's exporter: {first}."
        ) from error
    first_graph = opened(content)
    graph = Graph("logits", (len(model.classes_),), after=first_graph)
    return joined(first_graph, softmax_model(graph, graph.input, model.classes_)), tried


class _Logits(torch.nn.Module):
    """From rows as they are handed to `predict_proba` to logits."""

    def __init__(self, model: NetworkPredictor) -> None:
        super().__init__()
        self.network = model.module_
        self.bound = float(model.input_bound)
        self.eval()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.is_floating_point() and math.isfinite(self.bound):
            rows = rows.clamp(-self.bound, self.bound)
        logits: torch.Tensor = self.network(as_input(rows, rows.device))
        return logits


def _made_up_rows(shape: tuple[int, ...], dtype: torch.dtype) -> NDArray[Any]:
    draw = np.random.default_rng(0)
    size = (_TRIED_ROWS, *shape)
    if dtype == torch.float32:
        return draw.standard_normal(size).astype(np.float32)
    # Of tokens, those that every network knows.
    return draw.integers(0, 256 if dtype == torch.uint8 else 2, size).astype(
        np.uint8 if dtype == torch.uint8 else np.int64
    )
