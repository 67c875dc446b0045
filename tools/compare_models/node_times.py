"""Where a graph's time goes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array

from compare_models.engine import open_session, pinned

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

    def by_operator(self) -> dict[str, float]:
        """Return each operator's share of the time, the largest first."""
        shares: dict[str, float] = defaultdict(float)
        for _, operator, time_us in self.nodes:
            shares[operator] += time_us / self.total_us
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


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
