"""The comparison itself: every candidate's cost, and its time beside the others' in one run.

Beside it the int8 form of a candidate (QDQ, ranges from generated scenes), and where a graph's time
goes by ONNX Runtime's own profiler.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from fastseg_exporters.convert.source import Calibration
from fastseg_exporters.onnx.to_onnx import for_onnxruntime
from fastseg_exporters.onnx.to_onnx_int8 import quantize
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import InputSpec

from compare_models.candidate import Candidate, export_float
from compare_models.cost import Peaks
from compare_models.memory import peak_memory_mb
from compare_models.onnx_file import keep_only
from compare_models.timing import Graph, Ratio, open_session, pinned, ratio_to, time_graphs
from fastseg import DeployGraph
from fastseg.onnx_graph import Cost, cost_of
from fastseg.progress import show_progress


@dataclass(frozen=True, kw_only=True)
class GraphSpeed:
    """One graph's figures."""

    name: str  # of the candidate
    precision: str  # "fp32" or "int8"
    cost: Cost  # on paper
    file_mb: float  # size of the ONNX file, MB of 1e6 bytes
    latency_ms: float  # median; of this machine at this hour, unlike the ratios
    fastest_ms: float  # of all rounds
    speedup: Ratio  # the reference's time over this one's
    over_fp32: Ratio | None  # for int8: the same network's fp32 time over this one's
    memory_mb: float  # peak of a process that runs it, above its start
    tail_share: float  # of the time, after the last convolution: less what the graph takes without
    convolution_share: float  # of the nodes' time, by the profiler
    peak_share: float | None  # of the machine's peak arithmetic, fastest round; None: not measured

    @property
    def label(self) -> str:
        """The name, with the precision where it is not fp32."""
        return self.name if self.precision == "fp32" else f"{self.name} {self.precision}"


def compare(
    candidates: Sequence[Candidate],
    threads: int,
    rounds: int,
    int8: bool = False,
    peaks: Peaks | None = None,
) -> list[GraphSpeed]:
    """Measure candidates against the first of them.

    Args:
        candidates: the reference first.
        threads: of ONNX Runtime.
        rounds: how often each is timed.
        int8: measure the int8 form of every torch module too.
        peaks: of this machine, for the share of the peak.
    """
    graphs: dict[tuple[str, str], Graph] = {(c.name, "fp32"): (c.model, c.feed) for c in candidates}
    if int8:
        torch_modules = [c for c in candidates if c.graph is not None]
        for candidate in show_progress(torch_modules, "quantizing", len(torch_modules)):
            assert candidate.graph is not None
            graphs[candidate.name, "int8"] = (export_int8(candidate.graph), candidate.feed)
    by_label = {" ".join(key): graph for key, graph in graphs.items()}
    cut = {f"{label} cut": (up_to_logits(model), feed) for label, (model, feed) in by_label.items()}
    times_ms = time_graphs(by_label | cut, threads, rounds)
    reference_ms = times_ms[f"{candidates[0].name} fp32"]
    rows = []
    for (name, precision), graph in show_progress(graphs.items(), "profiling", len(graphs)):
        mine_ms = times_ms[f"{name} {precision}"]
        cost = cost_of(graphs[name, "fp32"][0])
        float_ms = times_ms[f"{name} fp32"]
        fastest_ms = float(mine_ms.min())
        rows.append(
            GraphSpeed(
                name=name,
                precision=precision,
                cost=cost,
                file_mb=graph[0].ByteSize() / 1e6,
                latency_ms=float(np.median(mine_ms)),
                fastest_ms=fastest_ms,
                speedup=ratio_to(reference_ms, mine_ms),
                over_fp32=ratio_to(float_ms, mine_ms) if precision == "int8" else None,
                memory_mb=peak_memory_mb(*graph, threads),
                tail_share=1 - float(np.median(times_ms[f"{name} {precision} cut"] / mine_ms)),
                convolution_share=convolution_share(*graph, threads),
                peak_share=None if peaks is None else peaks.arithmetic_ms(cost) / fastest_ms,
            )
        )
    return rows


IMAGES = 8  # speed does not depend on the ranges


def export_int8(graph: DeployGraph) -> onnx.ModelProto:
    """Convert to int8 QDQ, camera bytes in and class ids out, as target cpu-int8 has it."""
    images = Calibration(count=IMAGES).images(InputSpec(graph.width, graph.height))
    return for_onnxruntime(quantize(export_float(graph), images, graph.mean, graph.std), graph)


# The last one of our int8 graphs is a Gemm (fastseg_exporters/onnx/logit_rows.py).
CONVOLUTIONS = (
    *("Conv", "ConvTranspose", "FusedConv", "QLinearConv", "NhwcFusedConv", "ConvInteger"),
    "Gemm",
)
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


def up_to_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph that ends with its last convolution, as it was quantized; all without one.

    How much longer the whole takes is the tail's share. ONNX Runtime's profiler says more, since
    it spends some 4 us on each of the tail's 60 little nodes, whatever they do.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    nodes = model.graph.node
    made = [node.output[0] for node in nodes if node.op_type in CONVOLUTIONS]
    if not made:
        return cut
    name = made[-1]
    following = {node.input[0]: node for node in nodes if node.op_type in QUANTIZING}
    while name in following:
        name = following[name].output[0]
    return keep_only(cut, onnx.ValueInfoProto(name=name))


SUFFIX = "_kernel_time"


def convolution_share(
    model: onnx.ModelProto, feed: Mapping[str, Array], threads: int, runs: int = 10
) -> float:
    """Return the share of the nodes' median times, by the profiler; the first run is left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, f"{folder}/profile")
        with pinned():
            for _ in range(runs + 1):
                session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times_us: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            key = (event["name"], event["args"]["op_name"])
            times_us.setdefault(key, []).append(event["dur"])
    medians_us = np.array([np.median(times[1:]) for times in times_us.values()])
    convolves = np.array([operator in CONVOLUTIONS for _, operator in times_us])
    return float(medians_us[convolves].sum() / medians_us.sum())
