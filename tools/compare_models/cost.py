"""What this machine can do at most: peak arithmetic and memory bandwidth, measured.

Roofline: Williams, Waterman, Patterson, CACM 52(4), 2009.
"""

from __future__ import annotations

import timeit
from dataclasses import dataclass

import onnx
import torch
from fastseg_exporters.onnx.to_onnx import OPSET
from fastseg_runtime.arrays.metrics import Array
from onnx import TensorProto, helper, numpy_helper

from compare_models.timing import Call, open_session, pinned
from fastseg.onnx_graph import Cost
from fastseg.progress import show_progress

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
