"""A graph of ONNX, node by node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dpfc._version import __version__

if TYPE_CHECKING:
    import onnx

__all__ = ["Graph"]

# Of 2022: ONNX Runtime 1.14 and all that came after it have them.
_OPERATORS: Final = 17
_FORMAT: Final = 8


class Graph:
    """Nodes and constants under names of their own, with one float32 input.

    Only operators that are written in one way from version 13 on, so that the graph can follow
    another one of any such version.

    Parameters
    ----------
    name : str
        Of the input.
    shape : tuple of int
        Of a row; how many rows there are is left open.
    after : onnx.ModelProto, optional
        What computes the input, whose versions are taken over.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], after: onnx.ModelProto | None = None
    ) -> None:
        from onnx import TensorProto

        self.input = name
        self.single, self.double = TensorProto.FLOAT, TensorProto.DOUBLE
        self.half, self.whole = TensorProto.FLOAT16, TensorProto.INT64
        self._shape = shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.operators = _OPERATORS if after is None else _operators_of(after)
        self._format = _FORMAT if after is None else after.ir_version

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node, and give the name of its output."""
        from onnx import helper

        name = f"dpfc_{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: float | NDArray[Any]) -> str:
        """Append a constant; a number is one of float64."""
        from onnx import numpy_helper

        name = f"dpfc_constant_{len(self._constants)}"
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def cast(self, values: str, kind: int) -> str:
        """Change the type of a tensor."""
        return self.add("Cast", values, to=kind)

    def row_sums(self, values: str) -> str:
        """Sums over each row, shape (rows, 1)."""
        return self.add("ReduceSum", values, self.constant(np.array([1])), keepdims=1)

    def flat(self, column: str) -> str:
        """Make a vector of a matrix of one column."""
        return self.add("Reshape", column, self.constant(np.array([-1])))

    def model(self, codes: str, probabilities: str, classes: NDArray[Any]) -> onnx.ModelProto:
        """Close the graph, with outputs ``label`` and ``probabilities``.

        Parameters
        ----------
        codes : str
            Numbers of classes, int64 (rows,).
        probabilities : str
            Of shape (rows, n_classes), of any float.
        classes : ndarray of shape (n_classes,)
        """
        from onnx import helper

        labels = _labels(classes)
        kind = helper.np_dtype_to_tensor_dtype(labels.dtype)
        constant = self.constant(labels)
        self._nodes += [
            helper.make_node("Gather", [constant, codes], ["label"], name="dpfc_label"),
            helper.make_node(
                "Cast", [probabilities], ["probabilities"], name="dpfc_cast", to=self.single
            ),
        ]
        outputs = [
            helper.make_tensor_value_info("label", kind, ["rows"]),
            helper.make_tensor_value_info("probabilities", self.single, ["rows", len(classes)]),
        ]
        rows = helper.make_tensor_value_info(self.input, self.single, ["rows", *self._shape])
        graph = helper.make_graph(self._nodes, "dpfc", [rows], outputs, self._constants)
        return helper.make_model(
            graph,
            producer_name="dpfc",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", self.operators)],
            ir_version=self._format,
        )


def _operators_of(model: onnx.ModelProto) -> int:
    """Version of the standard's operators that a model is written in."""
    version: int = max(
        entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    )
    return version


def _labels(classes: NDArray[Any]) -> NDArray[Any]:
    """Classes in a type that runtimes know: int64, double, bool or string."""
    kind = classes.dtype.kind
    if kind == "U":
        return classes.astype(object)
    wider: dict[str, type] = {"i": np.int64, "u": np.int64, "f": np.float64}
    return classes.astype(wider.get(kind, classes.dtype))
