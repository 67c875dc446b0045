"""Times of several networks in ONNX Runtime, comparable because they take turns in one run."""

import statistics
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes

from fastseg import DeployGraph, FastSegNet

SIZE = (480, 384)  # multiples of 32: a head at 1/4 has no deploy graph for others
ROUNDS, WARMUP = 40, 3


def time_networks(models: Mapping[str, FastSegNet], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median milliseconds from camera bytes to class ids, one thread, batch 1."""
    sessions = {name: _open(model) for name, model in models.items()}
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, SIZE[1], SIZE[0], 3), np.uint8)
    times_ms: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARMUP + rounds):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(None, {"image": image_1HW3})
            if turn >= WARMUP:
                times_ms[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(times) for name, times in times_ms.items()}


def _open(model: FastSegNet) -> onnxruntime.InferenceSession:
    graph = DeployGraph(model, *SIZE).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = take_bytes(float_graph(graph), graph).SerializeToString()
    return onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
