"""What TensorRT's ONNX parser asks of a graph, as far as our graphs could break it.

From NVIDIA's support matrix and onnx-tensorrt's documents: uint8 enters and leaves through a
cast from or to float alone, quantization is int8, symmetric and without int32 biases, resize
scales are constants, one file, operators from a list.
"""

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import numpy_helper

NEWEST_OPSET = {8: 17, 10: 20, 11: 24}
# Of the parser of 8.6, and only those that a segmentation network may hold.
# fmt: off
OPERATORS = {
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant",
    "Conv", "DequantizeLinear", "Div", "Exp", "Flatten", "Gemm", "GlobalAveragePool", "Greater",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min",
    "Mul", "Pad", "Pow", "QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceSum", "Relu",
    "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze", "Where",
}
# fmt: on
_UINT8 = onnx.TensorProto.UINT8
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Violation:
    """One reason for which the parser refuses the graph."""

    node: int
    name: str
    operator: str
    text: str


def find_violations(model: onnx.ModelProto, major: int) -> list[Violation]:
    """Return everything that the parser of a major release would refuse."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    found = []
    if opset > NEWEST_OPSET[major]:
        found.append(Violation(-1, "", "", f"Unsupported opset {opset}"))
    if any(tensor.external_data for tensor in model.graph.initializer):
        found.append(Violation(-1, "", "", "Failed to open file of external weights"))
    graph = _Graph(model)
    for index, node in enumerate(model.graph.node):
        for text in _problems(graph, node):
            found.append(Violation(index, node.name, node.op_type, text))
    return found


class _Graph:
    """Types and constants by the names of tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model)
        values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.inputs = {value.name for value in model.graph.input}


def _problems(graph: _Graph, node: Any) -> list[str]:
    found = []
    if node.op_type not in OPERATORS:
        found.append(f"No importer registered for op: {node.op_type}")
    if node.op_type != "Cast" and any(
        graph.types.get(name) == _UINT8 for name in [*node.input, *node.output]
    ):
        found.append("UINT8 is only supported for casts from or to float at the network's border")
    if node.op_type == "Cast":
        found += _cast_problems(graph, node)
    if node.op_type in _QUANTIZERS:
        found += _quantizer_problems(graph, node)
    if node.op_type == "Resize" and node.input[-1] not in graph.constants:
        found.append("Resize scales must be an initializer!")
    if node.op_type == "Conv" and len(node.input) > 2 and node.input[2] not in graph.constants:
        found.append("The bias tensor is required to be an initializer for the Conv operator")
    return found


def _cast_problems(graph: _Graph, node: Any) -> list[str]:
    before, after = graph.types.get(node.input[0]), graph.types.get(node.output[0])
    if before == _UINT8 and after not in _FLOATS:
        return ["UINT8 must be cast to float or half"]
    if after == _UINT8 and before not in _FLOATS:
        return ["UINT8 must be cast from float or half"]
    return []


def _quantizer_problems(graph: _Graph, node: Any) -> list[str]:
    found = []
    zero_point = graph.constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero_point is None or zero_point.dtype != "int8":
        found.append("TensorRT only supports INT8 quantization here")
    elif zero_point.any():
        found.append("TensorRT only supports symmetric quantization: zero point must be zero")
    scale = graph.constants.get(node.input[1])
    if scale is None or not (scale > 0).all():
        found.append("Scale coefficients must all be positive")
    return found
