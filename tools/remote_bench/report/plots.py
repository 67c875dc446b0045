"""Plots as SVG text: lines and points over time, and a histogram. No script, no outside file."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from remote_bench.analysis.stats import Floats
from remote_bench.host.live import plain

_WIDTH = 920
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 34
_MOST_POINTS = 4000
_BARS, _BARS_HEIGHT = 60, 200
_ONE = 0.2  # how high a single frame stands on a logarithmic axis
_NONE: Mapping[str, float] = {}
_COLORS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


def escaped(text: object) -> str:
    """Return a board's text as HTML that shows it as it is, whatever it holds."""
    return html.escape(plain(text), quote=True)


@dataclass(frozen=True)
class Line:
    """A series over time; NaN breaks the line."""

    label: str
    t: Floats
    y: Floats
    points: bool = False  # dots instead of a line


@dataclass(frozen=True)
class Axes:
    """Maps values to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int

    def px(self, values: Floats) -> Floats:
        """Return the horizontal pixels of times."""
        share = (values - self.x[0]) / (self.x[1] - self.x[0])
        pixels: Floats = _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        return pixels

    def py(self, values: Floats) -> Floats:
        """Return the vertical pixels of values."""
        share = (values - self.y[0]) / (self.y[1] - self.y[0])
        pixels: Floats = self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)
        return pixels


def time_plot(
    title: str,
    unit: str,
    lines: Sequence[Line],
    x_range: tuple[float, float],
    shaded: Sequence[tuple[str, tuple[float, float]]] = (),
    marks: Mapping[str, float] = _NONE,
    height: int = 200,
    x_unit: str = "s",
) -> str:
    """Return a plot of series over time; "" where there is no value.

    Args:
        title: of the plot.
        unit: of the values.
        lines: the series.
        x_range: of the time axis; what lies outside is cut off.
        shaded: labelled spans of time.
        marks: labelled values, drawn as lines across.
        height: in pixels.
        x_unit: of the time axis.
    """
    values = np.concatenate([line.y for line in lines]) if lines else np.array([])
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    top = edge(values) if any(line.points for line in lines) else float(values.max())
    seen = [value for value in marks.values() if value < 2 * top]  # a limit far above is no news
    axes = Axes(x_range, _padded(float(values.min()), max([top, *seen])), height)
    parts = _grid(axes, unit, x_unit)
    inside = [_shade(axes, span, label) for label, span in shaded]
    for number, line in enumerate(lines):
        color = _COLORS[number % len(_COLORS)]
        if line.points:
            clipped = Line(line.label, line.t, np.minimum(line.y, axes.y[1]))
            inside.append(_points(axes, clipped, color))
        else:
            inside.append(_path(axes, line, color))
    for label, value in marks.items():
        y = axes.py(np.array([value]))[0]
        inside.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="mark"/>')
        inside.append(f'<text x="{_LEFT + 4}" y="{y - 3:.1f}">{escaped(label)}</text>')
    return _svg(title, height, [*parts, _clipped(axes, inside)], [line.label for line in lines])


def edge(values: Floats) -> float:
    """Return where an axis ends, so that a few outliers do not flatten all else."""
    usual = float(np.quantile(values, 0.99))
    return min(float(values.max()), usual + 2 * (usual - float(np.median(values))))


def histogram(
    title: str,
    unit: str,
    values: Floats,
    marks: Mapping[str, float] = _NONE,
) -> str:
    """Return how often each value occurs; the count axis is logarithmic, so that a tail shows.

    What lies beyond the edge is counted in the last bar.
    """
    if not len(values):
        return ""
    top = edge(values)
    seen = [value for value in marks.values() if value < 2 * top]
    low, high = _padded(float(values.min()), max([top, *seen]))
    counts, edges = np.histogram(np.minimum(values, top), bins=_BARS, range=(low, high))
    logs = np.log10(np.maximum(counts, 1)) + (counts > 0) * _ONE
    axes = Axes((low, high), (0.0, max(1.0, float(logs.max()) * 1.05)), _BARS_HEIGHT)
    left, right = axes.px(edges[:-1]), axes.px(edges[1:])
    tops, floor = axes.py(logs), axes.py(np.array([0.0]))[0]
    bars = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(end - x - 0.5, 0.5):.1f}" '
        f'height="{floor - y:.1f}" fill="{_COLORS[0]}"><title>{count} frames</title></rect>'
        for x, end, y, count in zip(left, right, tops, counts, strict=True)
        if count
    ]
    for label, value in marks.items():
        x = axes.px(np.array([value]))[0]
        bars.append(f'<path d="M{x:.1f} {_TOP}V{floor:.1f}" class="mark"/>')
        bars.append(f'<text x="{x + 3:.1f}" y="{_TOP + 12}">{escaped(label)}</text>')
    beyond = int(np.sum(values > top))
    more = f"; the last bar has {beyond} up to {values.max():.1f} {unit}" if beyond else ""
    counted = [10**n for n in range(math.ceil(axes.y[1] - _ONE))]
    ticks = [_y_tick(axes, math.log10(count) + _ONE, f"{count}") for count in counted]
    parts = [
        *ticks,
        '<text x="6" y="18">frames</text>',
        _clipped(axes, bars),
        *_x_ticks(axes, unit),
    ]
    return _svg(title + more, _BARS_HEIGHT, parts, [])


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _svg(title: str, height: int, parts: Sequence[str], labels: Sequence[str]) -> str:
    legend, x = [], float(_WIDTH - _RIGHT)
    for number, label in reversed(list(enumerate(labels if len(labels) > 1 else ()))):
        color = _COLORS[number % len(_COLORS)]
        style = f'style="fill:{color}" text-anchor="end"'
        legend.append(f'<text x="{x:.0f}" y="18" {style}>{escaped(label)}</text>')
        x -= 8 * min(len(label), 24) + 18
    return (
        f'<div class="wide"><svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escaped(title)}">'
        f'<text x="{_LEFT}" y="18" class="title">{escaped(title)}</text>'
        + "".join([*parts, *legend])
        + "</svg></div>"
    )


def _clipped(axes: Axes, parts: Sequence[str]) -> str:
    """Return drawings of which nothing leaves the axes: an inner picture cuts at its borders."""
    box = f"{_LEFT} {_TOP} {_WIDTH - _LEFT - _RIGHT} {axes.height - _TOP - _BOTTOM}"
    x, y, width, height = box.split()
    size = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    return f'<svg {size} viewBox="{box}">{"".join(parts)}</svg>'


def _shade(axes: Axes, span: tuple[float, float], label: str) -> str:
    left, right = axes.px(np.array(span))
    height = axes.height - _TOP - _BOTTOM
    return (
        f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" class="span" '
        f'height="{height}"/><text x="{left + 3:.1f}" y="{_TOP + 12}">{escaped(label)}</text>'
    )


def _grid(axes: Axes, unit: str, x_unit: str) -> list[str]:
    ticks = [_y_tick(axes, value, f"{value:g}") for value in _ticks(*axes.y)]
    return [*_x_ticks(axes, x_unit), *ticks, f'<text x="6" y="18">{escaped(unit)}</text>']


def _y_tick(axes: Axes, value: float, label: str) -> str:
    y = axes.py(np.array([value]))[0]
    line = f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>'
    return f'{line}<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'


def _x_ticks(axes: Axes, unit: str) -> list[str]:
    floor = axes.height - _BOTTOM
    parts = [f'<path d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}" class="axis"/>']
    for value in _ticks(*axes.x, count=9):
        x = axes.px(np.array([value]))[0]
        text = f"{value:g} {escaped(unit)}"
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{text}</text>')
    return parts


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round values inside a range: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def _points(axes: Axes, line: Line, color: str) -> str:
    x, y = axes.px(line.t), axes.py(line.y)
    if len(x) > _MOST_POINTS:
        return _envelope(x, y, color)
    marks = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return f'<path d="{marks}" stroke="{color}" class="points"/>'


def _envelope(x: Floats, y: Floats, color: str) -> str:
    """Return one stroke a pixel column, from its lowest to its highest point."""
    columns = np.floor(x).astype(int)
    order = np.argsort(columns, kind="stable")
    columns, y = columns[order], y[order]
    found, starts = np.unique(columns, return_index=True)
    low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    strokes = "".join(
        f"M{column} {a:.1f}V{b + 0.5:.1f}" for column, a, b in zip(found, low, high, strict=True)
    )
    return f'<path d="{strokes}" stroke="{color}" class="line"/>'


def _path(axes: Axes, line: Line, color: str) -> str:
    x, y = axes.px(line.t), axes.py(line.y)
    here = np.isfinite(y)
    goes_on = np.append(False, here[:-1])  # else the pen is up
    steps = [
        f"{'L' if drawn else 'M'}{a:.1f} {b:.1f}"
        for a, b, drawn in zip(x[here], y[here], goes_on[here], strict=True)
    ]
    return f'<path d="{"".join(steps)}" stroke="{color}" class="line"/>'
