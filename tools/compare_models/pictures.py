"""Pictures of a run, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compare_models.results import Results
from compare_models.scale import Point
from compare_models.speed import Row

DPI = 130
OURS, OTHERS = "#2563eb", "#6b7280"


def pictures_of(results: Results, ours: set[str]) -> dict[str, bytes]:
    """Return PNGs by file name.

    Args:
        results: of a run.
        ours: names of the networks that are FastSegNets.
    """
    pictures = {"pareto.png": pareto(results, ours)} if results.rows else {}
    if results.sizes:
        pictures["scale.png"] = scale(results.sizes, "input, megapixels")
    if results.batches:
        pictures["batch.png"] = scale(results.batches, "batch, megapixels")
    return pictures


def pareto(results: Results, ours: set[str]) -> bytes:
    """Draw speed against mIoU where networks were trained, else against multiply-adds."""
    miou = {a.name: 100 * a.miou for a in results.accuracy}
    rows = [row for row in results.rows if not miou or row.name in miou]
    values = {row.label: miou.get(row.name, row.cost.macs / 1e9) for row in rows}
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        _draw_network(axes, row, values[row.label], row.name in ours)
    front = pareto_front([(row.speedup.median, values[row.label]) for row in rows], bool(miou))
    axes.plot(*zip(*front, strict=True), color=OURS, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel(f"times as fast as {results.rows[0].name}, 95 % interval")
    axes.set_ylabel("mIoU, %" if miou else "multiply-adds, 1e9")
    axes.set_title(f"{results.width}x{results.height}, {results.threads} threads; area: parameters")
    axes.margins(0.12)
    axes.grid(alpha=0.3)
    return _png(figure)


def pareto_front(
    points: list[tuple[float, float]], larger_is_better: bool
) -> list[tuple[float, float]]:
    """Return the points (speed, value) that no other beats in both, the fastest first."""
    sign = 1 if larger_is_better else -1
    front: list[tuple[float, float]] = []
    for speed, value in sorted(points, key=lambda p: (-p[0], -sign * p[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((speed, value))
    return front


def scale(points: Sequence[Point], x_label: str) -> bytes:
    """Draw time and memory against pixels, with a line of slope 1 to compare with."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    ordered = sorted(points, key=lambda p: (p.name, p.threads, p.megapixels))
    for (name, threads), group in groupby(ordered, key=lambda p: (p.name, p.threads)):
        series = list(group)
        pixels = [p.megapixels for p in series]
        style = {"marker": ".", "label": f"{name}, {threads} threads"}
        time_axes.plot(pixels, [p.latency_ms for p in series], **style)
        memory_axes.plot(pixels, [p.memory_mb for p in series], **style)
    first, last = ordered[0], ordered[-1]
    ends = [first.megapixels, last.megapixels]
    linear_ms = [last.latency_ms * x / last.megapixels for x in ends]
    time_axes.plot(ends, linear_ms, color=OTHERS, linestyle=":", label="linear")
    for axes, label in ((time_axes, "ms"), (memory_axes, "peak memory, MB")):
        axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=label)
        axes.grid(alpha=0.3, which="both")
    time_axes.legend(fontsize=7)
    return _png(figure)


def _draw_network(axes: Axes, row: Row, value: float, is_ours: bool) -> None:
    color = OURS if is_ours else OTHERS
    ratio = row.speedup
    axes.plot([ratio.low, ratio.high], [value, value], color=color, linewidth=1)
    axes.scatter(ratio.median, value, s=30 + 25 * row.cost.parameters / 1e6, color=color, alpha=0.7)
    axes.annotate(row.label, (ratio.median, value), (6, 6), textcoords="offset points", fontsize=8)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
