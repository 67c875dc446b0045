"""The results as tables, for the terminal and for one HTML file without script or outside file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from fastseg_runtime.arrays.terminal import TextTable
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from compare_models.cost import Peaks
from compare_models.front import Scored
from compare_models.run import Results
from compare_models.scale import Point, curves_of, growth
from compare_models.speed import GraphSpeed
from compare_models.training_speed import TrainingSpeed

# Heading -> the cell of a row below it.
Columns = Mapping[str, Callable[[Any], str]]


def tables_of(results: Results) -> Iterator[TextTable]:
    """Yield a table for everything that was measured; the first column holds names."""
    if results.rows:
        yield _speed_table(results)
        yield _cost_table(results)
    if results.front:
        yield _front_table(results)
    if results.peaks:
        yield _roofline_table(results, results.peaks)
    if results.torch_rows:
        yield _torch_table(results)
    if results.accuracy:
        yield _accuracy_table(results)
    if results.sizes:
        yield _scale_table("Resolution", results.sizes)
    if results.batches:
        yield _scale_table("Batch, plain class map", results.batches)
    if results.training:
        yield _training_table(results.training)
    if results.exports:
        yield _export_table(results)
    if results.failed:
        yield TextTable(("part", "why"), list(results.failed.items()), "Left out, since it failed")


def _table(title: str, columns: Columns, rows: Iterable[Any], note: str = "") -> TextTable:
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return TextTable(list(columns), cells, title, note, range(1, len(columns)))


def _speed_table(results: Results) -> TextTable:
    title = (
        f"{results.width}x{results.height}, {results.classes} classes, class map out, "
        f"ONNX Runtime, {results.threads} threads"
    )
    columns: Columns = {
        "network": lambda row: row.label,
        f"times as fast as {results.rows[0].name} (95 %)": lambda row: str(row.speedup),
        "fastest rounds": lambda row: f"{row.speedup.fastest:.2f}",
        "over own fp32": lambda row: str(row.over_fp32 or ""),
        "ms here": lambda row: f"{row.latency_ms:.1f}",
        "tail": lambda row: f"{row.tail_share:.1%}",
        "convolutions": lambda row: f"{row.convolution_share:.1%}",
    }
    note = (
        "Ratios are medians over rounds A B C A B C ... with a bootstrap interval; times are of "
        "this machine at this hour. Tail: what runs after the last convolution."
    )
    return _table(title, columns, results.rows, note)


def _cost_table(results: Results) -> TextTable:
    columns: Columns = {
        "network": lambda row: row.label,
        "parameters M": lambda row: f"{row.cost.parameters / 1e6:.2f}",
        "GMACs": lambda row: f"{row.cost.macs / 1e9:.2f}",
        "activations MB": lambda row: f"{row.cost.activation_bytes / 1e6:.0f}",
        "file MB": lambda row: f"{row.file_mb:.1f}",
        "peak memory MB": lambda row: f"{row.memory_mb:.0f}",
    }
    note = "Peak memory: growth of a process that opens and runs the graph, MB of 2^20 bytes."
    return _table("Size and memory", columns, results.rows, note)


def _roofline_table(results: Results, peaks: Peaks) -> TextTable:
    title = (
        f"Roofline: {peaks.gflops:.0f} GFLOP/s of sgemm, {peaks.bandwidth_gb_s:.1f} GB/s of copy, "
        f"{results.threads} threads"
    )
    columns: Columns = {
        "network": lambda row: row.label,
        "fastest ms": lambda row: f"{row.fastest_ms:.1f}",
        "ms of arithmetic at peak": lambda row: f"{peaks.arithmetic_ms(row.cost):.1f}",
        "share of the peak": lambda row: f"{row.peak_share:.0%}",
        "ms to move activations once": lambda row: f"{peaks.traffic_ms(row.cost):.1f}",
    }
    return _table(title, columns, results.rows, "int8 may exceed the float32 peak.")


def _torch_table(results: Results) -> TextTable:
    columns: Columns = {
        "network": lambda row: row.label,
        "times as fast as the first (95 %)": lambda row: str(row.speedup),
        "ms here": lambda row: f"{row.latency_ms:.2f}",
    }
    return _table(f"torch on {results.torch_device}", columns, results.torch_rows)


def _accuracy_table(results: Results) -> TextTable:
    speedups = {row.name: row.speedup for row in results.rows if row.precision == "fp32"}
    first = results.accuracy[0]
    columns: Columns = {
        "network": lambda score: score.name,
        "mIoU %": lambda score: f"{100 * score.miou:.1f}",
        "times as fast": lambda score: str(speedups[score.name]),
        "steps": lambda score: str(score.steps),
    }
    title = f"Equal training, {first.images} images of {first.split}"
    return _table(title, columns, results.accuracy, "One seed each: a point is noise.")


def _front_table(results: Results) -> TextTable:
    columns: Columns = {
        "network": lambda row: row.label,
        "its input": lambda row: row.size,
        "mIoU %, 95 %": lambda row: " ".join([f"{100 * row.miou:.1f}", *_interval(row)]),
        f"times as fast as {results.front[0].name} (95 %)": lambda row: str(row.speedup),
        "ms here": lambda row: f"{row.latency_ms:.1f}",
        "file MB": lambda row: f"{row.file_bytes / 1e6:.1f}",
    }
    title = (
        f"{results.front[0].images} test images, {results.width}x{results.height}, "
        f"{results.classes} classes, frame in, class map out, {results.threads} threads"
    )
    return _table(title, columns, results.front, FRONT_NOTE)


def _interval(row: Scored) -> Iterator[str]:
    if row.miou_ci95:
        low, high = (100 * end for end in row.miou_ci95)
        yield f"({low:.1f} to {high:.1f})"


FRONT_NOTE = "Measured rivals only, on this CPU; a Jetson's GPU ranks dense networks higher."


def _scale_table(title: str, points: Sequence[Point]) -> TextTable:
    columns: Columns = {
        "network": lambda curve: curve[0],
        "ms": lambda curve: ", ".join(f"{point.latency_ms:.1f}" for point in curve[1]),
        "peak MB": lambda curve: ", ".join(f"{point.memory_mb:.0f}" for point in curve[1]),
        "exponent": lambda curve: f"{growth(curve[1]):.2f}",
    }
    shapes = dict.fromkeys((p.batch, p.width, p.height) for p in points)
    steps = ", ".join(f"{n} x {width}x{height}" for n, width, height in shapes)
    note = f"From left to right: {steps}. Exponent: 1 is linear in pixels."
    return _table(title, columns, curves_of(points).items(), note)


def _training_table(speed: TrainingSpeed) -> TextTable:
    rows = [
        ("fastseg_training", f"{speed.images_per_s:.1f}", str(speed.speedup)),
        ("DataLoader and OpenCV, float32", f"{speed.plain_images_per_s:.1f}", ""),
    ]
    note = f"Share of our time in which no batch was ready: {speed.waiting_share:.1%}."
    return TextTable(("loop", "images/s", "times as fast"), rows, "Training", note, (1, 2))


def _export_table(results: Results) -> TextTable:
    columns: Columns = {
        "network, target": lambda cost: f"{cost.network}, {cost.target}",
        "precision": lambda cost: cost.precision,
        "s": lambda cost: f"{cost.seconds:.1f}",
        "peak MB": lambda cost: f"{cost.memory_mb:.0f}",
    }
    failed = "; ".join(f"{e.target}: {e.error}" for e in results.exports if e.error)
    return _table("Exports, each in a process of its own", columns, results.exports, failed)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } .wide { overflow-x: auto } .note { color: #666; max-width: 55rem }
"""


def html_page(results: Results, pictures: Mapping[str, bytes]) -> str:
    """Return the page, with pictures, PNGs by file name, in it."""
    facts = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    body = [
        "<h1>Networks side by side</h1>",
        f'<p class="note">{escape(facts)}<br><code>{escape(results.command)}</code></p>',
        *(picture(name, png) for name, png in pictures.items()),
        *map(_html, tables_of(results)),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>compare_models</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n"
    )


def picture(name: str, png: bytes) -> str:
    """Return a picture that needs no other file, as HTML."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _html(table: TextTable) -> str:
    return (
        f'<h2>{escape(table.title)}</h2><div class="wide"><table>{table_rows(table)}</table>'
        f'</div><p class="note">{escape(table.note)}</p>'
    )


def table_rows(table: TextTable) -> str:
    """Return head and rows as HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in table.headings)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"


DPI = 130
OURS, OTHERS = "#2563eb", "#6b7280"
# Of a label beside its point, in points of type, the best first.
PLACES = tuple(
    (x, y, side) for y in (4, -11, 14, -21, 24) for x, side in ((6, "left"), (-6, "right"))
)


def pictures_of(results: Results, ours: set[str]) -> dict[str, bytes]:
    """Return PNGs by file name; `ours` are the names of the networks that are FastSegNets."""
    pictures = {"pareto.png": pareto(results, ours)} if results.rows else {}
    if any(row.miou_ci95 for row in results.front):  # else no pixel is labelled
        pictures["front.png"] = front_picture(results.front)
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


def front_picture(front: Sequence[Scored]) -> bytes:
    """Draw mIoU against ms, both as measured, with the interval of the mIoU."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in front:
        color, percent = OURS if row.is_ours else OTHERS, 100 * row.miou
        marker = "o" if row.precision == "fp32" else "s"
        ends = row.miou_ci95 or (row.miou, row.miou)
        axes.plot([row.latency_ms] * 2, [100 * end for end in ends], color=color, lw=0.8)
        axes.scatter(row.latency_ms, percent, s=40, marker=marker, color=color, alpha=0.8)
    points = pareto_front([(1 / row.latency_ms, 100 * row.miou) for row in front], True)
    steps = [(1 / speed, percent) for speed, percent in points]
    axes.plot(*zip(*steps, strict=True), color=OURS, linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xscale="log", xlabel="ms a frame, class map out", ylabel="mIoU, %")
    for told in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        told("{x:g}")  # 40, not 4 x 10^1
    axes.set_title(FRONT_NOTE, fontsize=8)
    axes.margins(0.12)
    axes.grid(alpha=0.3, which="both")
    label_points(figure, axes, [(row.label, (row.latency_ms, 100 * row.miou)) for row in front])
    return _png(figure)


def label_points(
    figure: Figure, axes: Axes, points: Sequence[tuple[str, tuple[float, float]]]
) -> None:
    """Write a label at each point of a picture that is whole, in the first place that is free."""
    figure.draw_without_rendering()
    inside, taken = axes.get_window_extent(), list[Bbox]()
    for x, y in (axes.transData.transform(place) for _, place in points):
        taken.append(Bbox([[x - 4, y - 4], [x + 4, y + 4]]))
    for label, place in points:
        for number, (x, y, side) in enumerate(PLACES, start=1):
            text = axes.annotate(
                label, place, (x, y),
                textcoords="offset points", fontsize=8, ha=side, parse_math=False,
            )  # fmt: skip
            box = text.get_window_extent()
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
            if number == len(PLACES) or (fits and not any(map(box.overlaps, taken))):
                taken.append(box)
                break
            text.remove()


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
    curves = curves_of(points)
    for label, curve in curves.items():
        pixels = [point.megapixels for point in curve]
        time_axes.plot(pixels, [point.latency_ms for point in curve], marker=".", label=label)
        memory_axes.plot(pixels, [point.memory_mb for point in curve], marker=".")
    drawn = [point for curve in curves.values() for point in curve]
    last, ends = drawn[-1], [drawn[0].megapixels, drawn[-1].megapixels]
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
    axes.annotate(
        row.label, (ratio.median, value), (6, 6),
        textcoords="offset points", fontsize=8, parse_math=False,
    )  # fmt: skip


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
