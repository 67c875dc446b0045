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
from fastseg_exporters.onnx.to_onnx import take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import quantize
from fastseg_runtime.arrays.metrics import Array

from compare_models.candidate import Candidate, export_float
from compare_models.cost import Cost, Peaks, cost_of
from compare_models.memory import peak_memory_mb
from compare_models.timing import Ratio, call_of, open_session, pinned, ratio_to, time_rounds
from fastseg import DeployGraph
from fastseg.progress import show_progress


@dataclass(frozen=True)
class GraphSpeed:
    """One graph's figures.

    Attributes:
        name: of the candidate.
        precision: "fp32" or "int8".
        cost: on paper.
        file_mb: size of the ONNX file, MB of 1e6 bytes.
        latency_ms: median; of this machine at this hour, unlike the ratios.
        fastest_ms: of all rounds.
        speedup: the reference's time over this one's.
        over_fp32: for int8: the same network's fp32 time over this one's.
        memory_mb: peak of a process that runs it, above its start.
        tail_share: of the time, after the last convolution.
        convolution_share: of the time.
        peak_share: of the machine's peak arithmetic, fastest round; None: not measured.
    """

    name: str
    precision: str
    cost: Cost
    file_mb: float
    latency_ms: float
    fastest_ms: float
    speedup: Ratio
    over_fp32: Ratio | None
    memory_mb: float
    tail_share: float
    convolution_share: float
    peak_share: float | None

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
    models = {(candidate.name, "fp32"): candidate.model for candidate in candidates}
    if int8:
        torch_modules = [c for c in candidates if c.graph is not None]
        for candidate in show_progress(torch_modules, "quantizing", len(torch_modules)):
            assert candidate.graph is not None
            models[candidate.name, "int8"] = export_int8(candidate.graph)
    feeds = {candidate.name: candidate.feed for candidate in candidates}
    calls = {" ".join(key): call_of(model, feeds[key[0]], threads) for key, model in models.items()}
    with pinned():
        times_ms = time_rounds(calls, rounds)
    calls.clear()  # their sessions hold memory
    reference_ms = times_ms[f"{candidates[0].name} fp32"]
    rows = []
    for (name, precision), model in show_progress(models.items(), "profiling", len(models)):
        profile = node_times(model, feeds[name], threads)
        mine_ms = times_ms[f"{name} {precision}"]
        cost = cost_of(models[name, "fp32"])
        float_ms = times_ms[f"{name} fp32"]
        rows.append(
            GraphSpeed(
                name,
                precision,
                cost,
                model.ByteSize() / 1e6,
                float(np.median(mine_ms)),
                float(mine_ms.min()),
                ratio_to(reference_ms, mine_ms),
                ratio_to(float_ms, mine_ms) if precision == "int8" else None,
                peak_memory_mb(model, feeds[name], threads),
                profile.tail_share,
                profile.convolution_share,
                _peak_share(peaks, cost, float(mine_ms.min())),
            )
        )
    return rows


def _peak_share(peaks: Peaks | None, cost: Cost, latency_ms: float) -> float | None:
    return None if peaks is None else peaks.arithmetic_ms(cost) / latency_ms


IMAGES = 8  # speed does not depend on the ranges


def export_int8(graph: DeployGraph) -> onnx.ModelProto:
    """Convert to int8 QDQ, camera bytes in and class ids out, as target cpu-int8 has it."""
    images = Calibration(count=IMAGES).images(graph.width, graph.height)
    return take_bytes(quantize(export_float(graph), images, graph.mean, graph.std), graph)


SUFFIX = "_kernel_time"
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "NhwcFusedConv", "ConvInteger")


@dataclass(frozen=True)
class NodeTimes:
    """Median times of the nodes of an optimised graph, in the order in which they run.

    Attributes:
        nodes: (name, operator, microseconds).
    """

    nodes: tuple[tuple[str, str, float], ...]

    @property
    def total_us(self) -> float:
        """Time in all nodes."""
        return sum((time_us for _, _, time_us in self.nodes), 0.0)

    @property
    def convolution_share(self) -> float:
        """Share of the time that convolutions take."""
        return sum(t for _, op, t in self.nodes if op in CONVOLUTIONS) / self.total_us

    @property
    def tail_share(self) -> float:
        """Share of the time after the last convolution: upsampling, argmax, their reordering."""
        last = max((i for i, node in enumerate(self.nodes) if node[1] in CONVOLUTIONS), default=-1)
        return sum(time_us for _, _, time_us in self.nodes[last + 1 :]) / self.total_us


def node_times(
    model: onnx.ModelProto, feed: Mapping[str, Array], threads: int, runs: int = 10
) -> NodeTimes:
    """Profile a graph; the first run, which allocates, is left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, f"{folder}/profile")
        with pinned():
            for _ in range(runs + 1):
                session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    times_us: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            key = (event["name"].removesuffix(SUFFIX), event["args"]["op_name"])
            times_us.setdefault(key, []).append(event["dur"])
    return NodeTimes(tuple((*key, float(np.median(times[1:]))) for key, times in times_us.items()))
