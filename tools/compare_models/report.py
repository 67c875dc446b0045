"""The results as tables, for the terminal and for one HTML file without script or outside file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compare_models.run import Results
from compare_models.scale import Point, growth
from compare_models.speed import GraphSpeed
from compare_models.timing import Ratio


@dataclass(frozen=True)
class Sheet:
    """One table; the first column holds names, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = ()
    note: str = ""


def sheets_of(results: Results) -> list[Sheet]:
    """Return a table for everything that was measured."""
    return [
        *([_speed_sheet(results), _cost_sheet(results)] if results.rows else []),
        *([_roofline_sheet(results)] if results.peaks else []),
        *([_torch_sheet(results)] if results.torch_rows else []),
        *([_accuracy_sheet(results)] if results.accuracy else []),
        *([_scale_sheet("Resolution", results.sizes)] if results.sizes else []),
        *([_scale_sheet("Batch, plain class map", results.batches)] if results.batches else []),
        *([_training_sheet(results)] if results.training else []),
        *([_export_sheet(results)] if results.exports else []),
    ]


def spread(ratio: Ratio) -> str:
    """Return a ratio with its interval, "2.10 (2.05 to 2.14)"."""
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _speed_sheet(results: Results) -> Sheet:
    reference = results.rows[0].name
    title = (
        f"{results.width}x{results.height}, {results.classes} classes, class map out, "
        f"ONNX Runtime, {results.threads} threads"
    )
    columns = ("network", f"times as fast as {reference} (95 %)", "fastest rounds", "over own fp32")
    note = (
        "Ratios are medians over rounds A B C A B C ... with a bootstrap interval; times are of "
        "this machine at this hour. Tail: what runs after the last convolution."
    )
    rows = [_speed_row(row) for row in results.rows]
    return Sheet(title, (*columns, "ms here", "tail", "convolutions"), rows, note)


def _speed_row(row: GraphSpeed) -> tuple[str, ...]:
    return (
        row.label,
        spread(row.speedup),
        f"{row.speedup.fastest:.2f}",
        "" if row.over_fp32 is None else spread(row.over_fp32),
        f"{row.latency_ms:.1f}",
        f"{row.tail_share:.1%}",
        f"{row.convolution_share:.1%}",
    )


def _cost_sheet(results: Results) -> Sheet:
    columns = ("network", "parameters M", "GMACs", "activations MB", "file MB", "peak memory MB")
    note = "Peak memory: growth of a process that opens and runs the graph, MB of 2^20 bytes."
    rows = [
        (
            row.label,
            f"{row.cost.parameters / 1e6:.2f}",
            f"{row.cost.macs / 1e9:.2f}",
            f"{row.cost.activation_bytes / 1e6:.0f}",
            f"{row.file_mb:.1f}",
            f"{row.memory_mb:.0f}",
        )
        for row in results.rows
    ]
    return Sheet("Size and memory", columns, rows, note)


def _roofline_sheet(results: Results) -> Sheet:
    assert results.peaks is not None
    peaks = results.peaks
    title = (
        f"Roofline: {peaks.gflops:.0f} GFLOP/s of sgemm, {peaks.bandwidth_gb_s:.1f} GB/s of copy, "
        f"{results.threads} threads"
    )
    columns = ("network", "fastest ms", "ms of arithmetic at peak", "share of the peak")
    traffic = "ms to move activations once"
    rows = [
        (
            row.label,
            f"{row.fastest_ms:.1f}",
            f"{peaks.arithmetic_ms(row.cost):.1f}",
            f"{row.peak_share:.0%}",
            f"{peaks.traffic_ms(row.cost):.1f}",
        )
        for row in results.rows
        if row.peak_share is not None
    ]
    return Sheet(title, (*columns, traffic), rows, "int8 may exceed the float32 peak.")


def _torch_sheet(results: Results) -> Sheet:
    rows = [(r.label, spread(r.speedup), f"{r.latency_ms:.2f}") for r in results.torch_rows]
    columns = ("network", "times as fast as the first (95 %)", "ms here")
    return Sheet(f"torch on {results.torch_device}", columns, rows)


def _accuracy_sheet(results: Results) -> Sheet:
    speedups = {row.name: row.speedup for row in results.rows if row.precision == "fp32"}
    first = results.accuracy[0]
    rows = [
        (a.name, f"{100 * a.miou:.1f}", spread(speedups[a.name]), str(a.steps))
        for a in results.accuracy
    ]
    columns = ("network", "mIoU %", "times as fast", "steps")
    title = f"Equal training, {first.images} images of {first.split}"
    return Sheet(title, columns, rows, "One seed each: a point is noise.")


def _scale_sheet(title: str, points: Sequence[Point]) -> Sheet:
    rows = []
    for (name, threads), group in groupby(
        sorted(points, key=lambda p: (p.name, p.threads, p.megapixels)),
        key=lambda p: (p.name, p.threads),
    ):
        series = list(group)
        rows.append(
            (
                f"{name}, {threads} threads",
                ", ".join(f"{p.latency_ms:.1f}" for p in series),
                ", ".join(f"{p.memory_mb:.0f}" for p in series),
                f"{growth(series):.2f}",
            )
        )
    shapes = dict.fromkeys((p.batch, p.width, p.height) for p in points)
    steps = ", ".join(f"{n} x {width}x{height}" for n, width, height in shapes)
    note = f"From left to right: {steps}. Exponent: 1 is linear in pixels."
    return Sheet(title, ("network", "ms", "peak MB", "exponent"), rows, note)


def _training_sheet(results: Results) -> Sheet:
    assert results.training is not None
    speed = results.training
    rows = [
        ("fastseg_training", f"{speed.images_per_s:.1f}", spread(speed.speedup)),
        ("DataLoader and OpenCV, float32", f"{speed.plain_images_per_s:.1f}", ""),
    ]
    note = f"Share of our time in which no batch was ready: {speed.waiting_share:.1%}."
    return Sheet("Training", ("loop", "images/s", "times as fast"), rows, note)


def _export_sheet(results: Results) -> Sheet:
    rows = [
        (f"{e.network}, {e.target}", e.precision, f"{e.seconds:.1f}", f"{e.memory_mb:.0f}")
        for e in results.exports
    ]
    columns = ("network, target", "precision", "s", "peak MB")
    failed = "; ".join(f"{e.target}: {e.error}" for e in results.exports if e.error)
    return Sheet("Exports, each in a process of its own", columns, rows, failed)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .wide { overflow-x: auto } .note { color: #666; max-width: 55rem }
"""


def html_page(results: Results, pictures: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        results: of a run.
        pictures: PNGs by file name.
    """
    facts = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    body = [
        "<h1>Networks side by side</h1>",
        f'<p class="note">{escape(facts)}<br><code>{escape(results.command)}</code></p>',
        *(_picture(name, png) for name, png in pictures.items()),
        *(_table(sheet) for sheet in sheets_of(results)),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>compare_models</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def _picture(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in sheet.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in sheet.rows
    )
    return (
        f'<h2>{escape(sheet.title)}</h2><div class="wide"><table><tr>{head}</tr>{rows}</table>'
        f'</div><p class="note">{escape(sheet.note)}</p>'
    )


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


def _draw_network(axes: Axes, row: GraphSpeed, value: float, is_ours: bool) -> None:
    color = OURS if is_ours else OTHERS
    ratio = row.speedup
    axes.plot([ratio.low, ratio.high], [value, value], color=color, linewidth=1)
    axes.scatter(ratio.median, value, s=30 + 25 * row.cost.parameters / 1e6, color=color, alpha=0.7)
    axes.annotate(row.label, (ratio.median, value), (6, 6), textcoords="offset points", fontsize=8)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
