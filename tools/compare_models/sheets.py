"""The results as tables of text, for the terminal and for the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from compare_models.results import Results
from compare_models.scale import Point, growth
from compare_models.speed import Row
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


def _speed_row(row: Row) -> tuple[str, ...]:
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
