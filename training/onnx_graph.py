"""A network's weights and its preprocessing become one ONNX graph over the raw float64 matrix.

Written with ``onnx.helper`` rather than exported: the graph has two dozen nodes, preprocessing has
to be inside it in float64, and torch's exporter needs another package and several seconds. The
invariant, held by a test: ONNX Runtime and torch agree on any row, missing values included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.encoding import Floats
from training.preprocessing import MAX_DEVIATIONS, Preprocessing

OPSET = 17
IR_VERSION = 8
"""File format of opset 17's release, ONNX 1.12: old enough for every runtime in use."""

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkWeights:
    """A multilayer perceptron with embeddings.

    Attributes:
        embeddings: One table per categorical column. Shapes ``(categories + 1, dimensions)``.
        layers: Weight ``(outputs, inputs)`` and bias ``(outputs,)`` of each layer; ReLU between.
    """

    embeddings: tuple[Weights, ...]
    layers: tuple[tuple[Weights, Weights], ...]


def build_onnx(
    weights: NetworkWeights, *, preprocessing: Preprocessing, typical_row: Floats
) -> bytes:
    """Write the graph ``matrix (rows, features) float64 -> margin (rows,) float64``.

    Args:
        weights: The trained network.
        preprocessing: What was learnt on the training rows.
        typical_row: A row to compare others with, kept as metadata. Shape ``(features,)``.

    Returns:
        The bytes of a checked ONNX file.
    """
    graph = _GraphWriter()
    numbers = _add_numbers(graph, preprocessing)
    inputs = [*numbers, *_add_embeddings(graph, preprocessing, weights.embeddings)]
    hidden = graph.add("Concat", *inputs, axis=1)
    for depth, (weight, bias) in enumerate(weights.layers):
        if depth:
            hidden = graph.add("Relu", hidden)
        hidden = graph.add("Gemm", hidden, graph.hold(weight), graph.hold(bias), transB=1)
    flat = graph.add("Squeeze", hidden, graph.hold(np.array([1], dtype=np.int64)))
    graph.add("Cast", flat, to=TensorProto.DOUBLE, output="margin")
    model = helper.make_model(
        graph.finish(num_features=len(typical_row)),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    typical = [None if np.isnan(value) else float(value) for value in typical_row]
    helper.set_model_props(model, {"typical_row": json.dumps(typical)})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _GraphWriter:
    """Nodes and constants in the order they were added, each under a fresh name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def hold(self, values: npt.ArrayLike) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: int) -> str:
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def finish(self, *, num_features: int) -> onnx.GraphProto:
        return helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("matrix", TensorProto.DOUBLE, ["rows", num_features])],
            [helper.make_tensor_value_info("margin", TensorProto.DOUBLE, ["rows"])],
            initializer=self._constants,
        )


def _add_numbers(graph: _GraphWriter, preprocessing: Preprocessing) -> list[str]:
    """Impute, compress and standardise in float64; the twin of ``Preprocessing.standardise``."""
    numeric = graph.add("Gather", "matrix", graph.hold(preprocessing.numeric), axis=1)
    is_missing = graph.add("IsNaN", numeric)
    filled = graph.add("Where", is_missing, graph.hold(preprocessing.medians), numeric)
    size = graph.add("Add", graph.add("Abs", filled), graph.hold(np.float64(1)))
    compressed = graph.add("Mul", graph.add("Sign", filled), graph.add("Log", size))
    centred = graph.add("Sub", compressed, graph.hold(preprocessing.means))
    scaled = graph.add("Div", centred, graph.hold(preprocessing.scales))
    limits = (graph.hold(np.float64(limit)) for limit in (-MAX_DEVIATIONS, MAX_DEVIATIONS))
    held = graph.add("Clip", scaled, *limits)
    flags = graph.add("Cast", is_missing, to=TensorProto.FLOAT)
    indicators = graph.add("Gather", flags, graph.hold(preprocessing.with_indicator), axis=1)
    return [graph.add("Cast", held, to=TensorProto.FLOAT), indicators]


def _add_embeddings(
    graph: _GraphWriter, preprocessing: Preprocessing, embeddings: tuple[Weights, ...]
) -> list[str]:
    """Look each category's vector up; unknown is row 0. The twin of ``code_categories``."""
    vectors = []
    for position, table in zip(preprocessing.categorical, embeddings, strict=True):
        codes = graph.add("Gather", "matrix", graph.hold(np.int64(position)), axis=1)
        is_missing = graph.add("IsNaN", codes)
        known = graph.add("Where", is_missing, graph.hold(np.float64(-1)), codes)
        shifted = graph.add("Add", known, graph.hold(np.float64(1)))
        index = graph.add("Cast", shifted, to=TensorProto.INT64)
        vectors.append(graph.add("Gather", graph.hold(table), index, axis=0))
    return vectors
