"""How time and memory grow with resolution, batch and threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from fastseg_exporters.onnx.to_onnx import FLOAT_IMAGE, to_onnx

from compare_models.candidate import OwnNetworks, open_candidates, open_graph
from compare_models.memory import peak_memory_mb
from compare_models.timing import call_of, pinned, time_rounds
from fastseg import DeployGraph
from fastseg.progress import show_progress

SIZES = ((256, 128), (512, 256), (1024, 512), (2048, 1024))  # (width, height), pixels
BATCHES = (1, 2, 4, 8)
BATCH_SIZE = (512, 256)
THREADS = (1, 2)


@dataclass(frozen=True)
class Point:
    """One network at one size, batch and number of threads; times are of the whole batch."""

    name: str
    width: int
    height: int
    batch: int
    threads: int
    latency_ms: float
    memory_mb: float

    @property
    def megapixels(self) -> float:
        """Input pixels of the whole batch, millions."""
        return self.width * self.height * self.batch / 1e6


def sweep_sizes(
    specs: list[str],
    classes: int,
    rounds: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    threads: Sequence[int] = THREADS,
    own: OwnNetworks | None = None,
) -> list[Point]:
    """Measure torch modules at several sizes; those of one size and thread count interleaved."""
    points = []
    for width, height in show_progress(sizes, "sweeping sizes", len(sizes)):
        candidates = open_candidates(specs, (width, height), classes, own=own)
        for count in threads:
            calls = {c.name: call_of(c.model, c.feed, count) for c in candidates}
            with pinned():
                times_ms = time_rounds(calls, rounds)
            for c in candidates:
                latency_ms = float(np.median(times_ms[c.name]))
                memory_mb = peak_memory_mb(c.model, c.feed, count)
                points.append(Point(c.name, width, height, 1, count, latency_ms, memory_mb))
    return points


def sweep_batches(
    spec: str,
    classes: int,
    rounds: int,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] = THREADS,
    own: OwnNetworks | None = None,
) -> list[Point]:
    """Measure one network at several batches, with the plain class map: ours takes one image."""
    width, height = BATCH_SIZE
    graph = open_graph(spec, BATCH_SIZE, classes, own)
    rng = np.random.default_rng(0)
    feeds = {
        n: {FLOAT_IMAGE: rng.integers(0, 256, (n, height, width, 3), np.uint8)} for n in batches
    }
    models = {n: _export_batch(graph, n) for n in batches}
    points = []
    for count in show_progress(threads, "sweeping batches", len(threads)):
        calls = {str(n): call_of(models[n], feeds[n], count) for n in batches}
        with pinned():
            times_ms = time_rounds(calls, rounds)
        for n in batches:
            memory_mb = peak_memory_mb(models[n], feeds[n], count)
            latency_ms = float(np.median(times_ms[str(n)]))
            points.append(Point(spec, width, height, n, count, latency_ms, memory_mb))
    return points


def growth(points: Sequence[Point]) -> float:
    """Return the exponent of time in pixels, 1 for linear, of one network's points."""
    pixels = np.log([point.megapixels for point in points])
    return float(np.polyfit(pixels, np.log([point.latency_ms for point in points]), 1)[0])


def _export_batch(graph: DeployGraph, batch: int) -> onnx.ModelProto:
    example = torch.zeros(batch, graph.height, graph.width, 3, dtype=torch.uint8)
    return to_onnx(graph, example, graph)
