"""The graph in an ONNX file: read at one size, and what it costs on paper.

compare_models counts every network on its graph, batch norms folded, so that a torch module and a
file are counted alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx
from fastseg_runtime.engines.image_port import ImagePort

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
TAIL = "/class_map"  # names of nodes that upsample and take the argmax


@dataclass(frozen=True)
class Cost:
    """The cost of one image; the class map's own work is left out.

    Attributes:
        parameters: elements of weights and biases.
        macs: multiply-adds of convolutions and matrix products.
        activation_bytes: float32 outputs of these.
    """

    parameters: int
    macs: int
    activation_bytes: int


def graph_at(path: Path, port: ImagePort, size: tuple[int, int]) -> onnx.ModelProto:
    """Return the graph of a file that was checked, for one picture of one size.

    Args:
        path: the file; weights beside it are read too.
        port: how it takes its picture.
        size: (width, height).
    """
    model = onnx.load(path)
    sort_nodes(model.graph)
    width, height = size
    sides = [1, height, width, 3] if port.channels_last else [1, 3, height, width]
    (value,) = (value for value in model.graph.input if value.name == port.name)
    for dim, side in zip(value.type.tensor_type.shape.dim, sides, strict=True):
        dim.dim_value = side
    del model.graph.value_info[:]  # of the open size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes behind what they read, as ONNX asks; ONNX Runtime's converter to half does not."""
    made = {"", *(value.name for value in (*graph.input, *graph.initializer))}
    made |= {tensor.values.name for tensor in graph.sparse_initializer}
    waiting, ordered = list(graph.node), list[onnx.NodeProto]()
    while waiting:
        left = []
        for node in waiting:
            if made.issuperset(_read_by(node)):
                made.update(node.output)
                ordered.append(node)
            else:
                left.append(node)
        if len(left) == len(waiting):
            return  # a circle, or a name that nobody makes: onnx says it better
        waiting = left
    del graph.node[:]
    graph.node.extend(ordered)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, and the graphs in it from outside of them."""
    read = set(node.input)
    for inner in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
        own = {value.name for value in (*inner.input, *inner.initializer)}
        own |= {name for step in inner.node for name in step.output}
        read |= {name for step in inner.node for name in _read_by(step)} - own
    return read


def cost_of(model: onnx.ModelProto) -> Cost:
    """Count a float graph of fixed size; what has no known shape counts nothing."""
    shapes = _shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    parameters: dict[str, int] = {}
    macs = activations = 0
    for node in model.graph.node:
        known = all(name in shapes for name in (*node.input[:2], node.output[0]))
        if node.op_type not in WEIGHTED or node.name.startswith(TAIL) or not known:
            continue
        weight, output = shapes[node.input[1]], shapes[node.output[0]]
        for name in (name for name in node.input[1:] if name in constants):
            parameters[name] = math.prod(shapes[name])
        macs += _macs(node, shapes[node.input[0]], weight, output)
        activations += math.prod(output)
    return Cost(sum(parameters.values()), macs, 4 * activations)


def _macs(node: onnx.NodeProto, x: list[int], weight: list[int], output: list[int]) -> int:
    if node.op_type == "Conv":  # an output element meets the weights of its channel once
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":  # an input element does
        return math.prod(x) * math.prod(weight[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * x[-2 if transposed else -1]


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
