"""How time and memory grow with resolution, batch and threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fastseg_exporters.onnx.to_onnx import FLOAT_IMAGE, to_onnx

from compare_models.candidate import OwnNetworks, open_candidates, open_graph
from compare_models.memory import peak_memory_mb
from compare_models.timing import Graph, time_graphs
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
) -> Iterator[Point]:
    """Measure torch modules at several sizes; those of one size and thread count interleaved."""
    for width, height in show_progress(sizes, "sweeping sizes", len(sizes)):
        candidates = open_candidates(specs, (width, height), classes, own=own)
        for count in threads:
            graphs = {c.name: (c.model, c.feed) for c in candidates}
            for name, cost in _costs(graphs, count, rounds).items():
                yield Point(name, width, height, 1, count, *cost)


def sweep_batches(
    spec: str,
    classes: int,
    rounds: int,
    own: OwnNetworks | None,
) -> list[Point]:
    """Measure one network at several batches, with the plain class map: ours takes one image."""
    width, height = BATCH_SIZE
    graph = open_graph(spec, BATCH_SIZE, classes, own)
    rng = np.random.default_rng(0)
    graphs: dict[str, Graph] = {}
    for n in BATCHES:
        image_NHW3 = rng.integers(0, 256, (n, height, width, 3), np.uint8)
        model = to_onnx(graph, torch.zeros(image_NHW3.shape, dtype=torch.uint8), graph)
        graphs[str(n)] = (model, {FLOAT_IMAGE: image_NHW3})
    return [
        Point(spec, width, height, int(n), count, *cost)
        for count in show_progress(THREADS, "sweeping batches", len(THREADS))
        for n, cost in _costs(graphs, count, rounds).items()
    ]


def _costs(
    graphs: Mapping[str, Graph], threads: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the milliseconds and the peak memory, MB, of graphs that are timed in turn."""
    times_ms = time_graphs(graphs, threads, rounds)
    return {
        name: (float(np.median(times_ms[name])), peak_memory_mb(*graph, threads))
        for name, graph in graphs.items()
    }


def curves_of(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Return the points of each network and number of threads, small ones first, by a label."""
    curves: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: (p.name, p.threads, p.megapixels)):
        curves.setdefault(f"{point.name}, {point.threads} threads", []).append(point)
    return curves


def growth(points: Sequence[Point]) -> float:
    """Return the exponent of time in pixels, 1 for linear, of a network's points; NaN of one."""
    if len(points) < 2:
        return float("nan")
    pixels = np.log([point.megapixels for point in points])
    return float(np.polyfit(pixels, np.log([point.latency_ms for point in points]), 1)[0])
