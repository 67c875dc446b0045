"""What a graph costs on paper, and what this machine can do at most.

Parameters, multiply-adds and activation bytes are counted on the ONNX graph, batch norms folded, so
that a torch module and a file are counted alike. Peak arithmetic and memory bandwidth are measured.

Roofline: Williams, Waterman, Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import timeit
from dataclasses import dataclass

import onnx
import torch
from fastseg_exporters.onnx.to_onnx import OPSET
from fastseg_runtime.arrays.metrics import Array
from onnx import TensorProto, helper, numpy_helper

from compare_models.timing import Call, open_session, pinned
from fastseg.progress import show_progress

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
TAIL = "/class_map"  # names of nodes that upsample and take the argmax


@dataclass(frozen=True)
class Cost:
    """The cost of one image; the class map's own work is left out."""

    parameters: int  # elements of weights and biases
    macs: int  # multiply-adds of convolutions and matrix products
    activation_bytes: int  # float32 outputs of these


def cost_of(model: onnx.ModelProto) -> Cost:
    """Count a float graph of fixed size."""
    shapes = _shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    parameters: dict[str, int] = {}
    macs = activations = 0
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.name.startswith(TAIL):
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


SIDES = (512, 768, 1024, 1536)  # of square matrices; some fit into the caches, some do not
COPY_BYTES = 256 << 20  # far more than any cache
REPEATS = 20


@dataclass(frozen=True)
class Peaks:
    """Of this machine with a number of threads."""

    gflops: float  # float32, 1e9 additions and multiplications a second
    bandwidth_gb_s: float  # read and written by a copy

    def arithmetic_ms(self, cost: Cost) -> float:
        """Return how long the multiply-adds take at peak: no float32 graph is faster."""
        return 2 * cost.macs / self.gflops / 1e6

    def traffic_ms(self, cost: Cost) -> float:
        """Return how long it takes to write and read every activation in main memory once.

        No bound: caches spare much of it.
        """
        return 2 * cost.activation_bytes / self.bandwidth_gb_s / 1e6


def measure_peaks(threads: int, repeats: int = REPEATS) -> Peaks:
    """Measure sgemm, ONNX Runtime's and torch's, and a copy; the best of all repeats counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sides = show_progress(SIDES, "measuring sgemm", len(SIDES))
        gflops = max(_sgemm_gflops(side, threads, repeats) for side in sides)
        return Peaks(gflops, _copy_gb_s(repeats))
    finally:
        torch.set_num_threads(before)


def _sgemm_gflops(side: int, threads: int, repeats: int) -> float:
    a, b, out = (torch.rand(side, side) for _ in range(3))
    session = open_session(_product_with(b.numpy()), threads)
    by_torch_s = _fastest_s(lambda: torch.mm(a, b, out=out), repeats)
    with pinned():
        by_onnxruntime_s = _fastest_s(lambda: session.run(None, {"a": a.numpy()}), repeats)
    return 2 * side**3 / min(by_torch_s, by_onnxruntime_s) / 1e9


def _product_with(b_NN: Array) -> onnx.ModelProto:
    shape = list(b_NN.shape)
    a, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ac")
    product = helper.make_node("MatMul", ["a", "b"], ["c"])
    weights = [numpy_helper.from_array(b_NN, "b")]
    graph = helper.make_graph([product], "sgemm", [a], [c], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _copy_gb_s(repeats: int) -> float:
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _fastest_s(lambda: target.copy_(source), repeats) / 1e9


def _fastest_s(call: Call, repeats: int) -> float:
    return min(timeit.repeat(call, number=1, repeat=repeats + 1))
