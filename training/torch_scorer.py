"""A network's ONNX file becomes torch operations on a device: the same graph, node by node.

Preprocessing is in the graph, so it is written once (``training.onnx_graph``) and runs in float64
on the device too. Invariant, held by tests: margins are ONNX Runtime's within 1e-5.

The only module that scores with torch; import it where a device was asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from training.encoding import Floats

FIRST_CAPACITY = 1024
"""Rows the buffers hold before they first grow."""
TYPES = {
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT: torch.float32,
    TensorProto.INT64: torch.int64,
}


class TorchScorer:
    """A network on a device. One thread at a time: its buffers are its own.

    On CUDA, rows go through pinned memory and a stream of the scorer's own, so that copies need
    no second one by the driver and wait for nobody else's work.

    Args:
        content: The bytes of ``training.onnx_graph``'s file, checked by whoever read them.
        device: ``cpu`` or ``cuda``.

    Raises:
        ValueError: If torch has no such device, or the graph is none that ``onnx_graph`` writes.
    """

    def __init__(self, content: bytes, *, device: str) -> None:
        check_device(device)
        graph = onnx.load_from_string(content).graph
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream() if device == "cuda" else None
        self._steps, self._constants = _compile(graph, device=self._device)
        self._output = graph.output[0].name
        self._num_features = graph.input[0].type.tensor_type.shape.dim[1].dim_value
        self._staged, self._answers = self._make_buffers(FIRST_CAPACITY)

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud for raw columns ``(rows, features)``. Shape ``(rows,)``.

        A category's code must be one of its vocabulary or NaN, as ``encode_features`` makes it:
        on CUDA a code beyond it would break every later call too.
        """
        rows = len(matrix)
        self._reserve(rows)
        self._staged[:rows].numpy()[:] = matrix
        with torch.inference_mode(), self._enter_stream():
            on_device = self._staged[:rows].to(self._device, non_blocking=True)
            self._answers[:rows].copy_(self._run(on_device), non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        return self._answers[:rows].numpy().copy()

    def _run(self, matrix: torch.Tensor) -> torch.Tensor:
        values = {**self._constants, "matrix": matrix}  # (rows, features)
        for step in self._steps:
            inputs = (values[name] for name in step.inputs)
            values[step.output] = step.operation(*inputs, **step.attributes)
        return values[self._output]  # (rows,)

    def _enter_stream(self) -> AbstractContextManager[None]:
        return torch.cuda.stream(self._stream)  # with None, the block runs as it would without

    def _reserve(self, rows: int) -> None:
        """Hold buffers of at least so many rows; they only grow, and by half at least."""
        held = len(self._answers)
        if rows > held:
            self._staged, self._answers = self._make_buffers(max(rows, held + held // 2))

    def _make_buffers(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return memory for raw columns ``(rows, features)`` and margins ``(rows,)``."""
        is_pinned = self._device.type == "cuda"
        shapes = ((rows, self._num_features), (rows,))
        staged, answers = (
            torch.empty(shape, dtype=torch.float64, pin_memory=is_pinned) for shape in shapes
        )
        return staged, answers


def check_device(device: str) -> None:
    """Check that torch can use a device.

    Raises:
        ValueError: If it cannot; the message says what to do.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device '{device}'; it must be cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"torch {torch.__version__} sees no CUDA device; use --device cpu, or on a machine "
            "with a GPU install torch for it (UV_TORCH_BACKEND=auto make setup)"
        )


class _Step(NamedTuple):
    operation: Callable[..., torch.Tensor]
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    output: str


def _compile(
    graph: onnx.GraphProto, *, device: torch.device
) -> tuple[list[_Step], dict[str, torch.Tensor]]:
    """Turn nodes into calls, and put the constants where they will be read."""
    unknown = {node.op_type for node in graph.node} - set(OPERATIONS)
    if unknown:
        raise ValueError(
            f"the ONNX graph has operations unknown here: {', '.join(sorted(unknown))}"
        )
    steps = [
        _Step(
            OPERATIONS[node.op_type],
            tuple(node.input),
            {item.name: helper.get_attribute_value(item) for item in node.attribute},
            node.output[0],
        )
        for node in graph.node
    ]
    # axes are read by the host: on the device, each call would wait for them to come back
    axes = {node.input[1] for node in graph.node if node.op_type == "Squeeze"}
    constants = {
        tensor.name: torch.from_numpy(np.array(numpy_helper.to_array(tensor))).to(
            "cpu" if tensor.name in axes else device
        )
        for tensor in graph.initializer
    }
    return steps, constants


def _gather(values: torch.Tensor, index: torch.Tensor, *, axis: int) -> torch.Tensor:
    """Take slices along an axis, which the index's shape replaces.

    >>> _gather(torch.tensor([[1, 2], [3, 4]]), torch.tensor(1), axis=1).tolist()
    [2, 4]
    """
    taken = values.index_select(axis, index.reshape(-1))
    return taken.reshape(*values.shape[:axis], *index.shape, *values.shape[axis + 1 :])


def _multiply(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    transB: int,  # noqa: N803 - ONNX's
) -> torch.Tensor:
    return functional.linear(values, weight if transB else weight.T, bias)


def _concatenate(*parts: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.cat(parts, dim=axis)


def _cast(values: torch.Tensor, *, to: int) -> torch.Tensor:
    return values.to(TYPES[to])


def _squeeze(values: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return values.squeeze(tuple(axes.tolist()))


OPERATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Cast": _cast,
    "Clip": torch.clamp,
    "Concat": _concatenate,
    "Div": torch.div,
    "Gather": _gather,
    "Gemm": _multiply,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mul": torch.mul,
    "Relu": torch.relu,
    "Sign": torch.sign,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Where": torch.where,
}
"""By ONNX operator, opset 17, as far as ``training.onnx_graph`` uses its attributes.

Source: ONNX operator schemas, https://onnx.ai/onnx/operators/.
"""
