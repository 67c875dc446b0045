"""Power and energy of a run: which rails, what they cover, and how sure the number is.

The device's table says which rails to sum; a rail that is part of another one is never added, and
without a table entry there is no total. The printed average of tegrastats is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import numpy as np
from fastseg_targets.device import Device, Power

from remote_bench.energy import EnergyCurve
from remote_bench.stats import Floats, Interval, bootstrap_ci95

Span = tuple[float, float]  # begin and end, s, monotonic

_LEAST_COVERAGE = 0.5  # below it there is no number
_BLOCK_S = 0.5
_MOST_BLOCKS = 200
_BOARD_SOURCES = ("tegrastats", "ina_hwmon", "ina_iio")  # they show the same sensors


@dataclass(frozen=True)
class Total:
    """The curves that add up to a total, and what it covers."""

    curves: tuple[EnergyCurve, ...]
    scope: str
    note: str

    def energy_j(self, begin: float, end: float) -> float:
        """Return the energy of all rails together."""
        return sum(curve.energy_j(begin, end) for curve in self.curves)

    def coverage(self, span: Span) -> float:
        """Return the least coverage of any rail."""
        return min(curve.coverage(*span) for curve in self.curves)


def choose_curves(curves: Sequence[EnergyCurve], span: Span) -> dict[str, EnergyCurve]:
    """Return one curve a rail: of two sources that show the same sensor, the fuller one.

    Args:
        curves: of all sources.
        span: the run; it decides which source is fuller.
    """
    chosen: dict[str, EnergyCurve] = {}
    board = [source for source in _BOARD_SOURCES if any(c.source == source for c in curves)]
    best = max(board, key=lambda source: _coverage(curves, source, span), default=None)
    for curve in curves:
        if curve.source not in _BOARD_SOURCES or curve.source == best:
            chosen.setdefault(curve.rail, curve)
    return chosen


def _coverage(curves: Sequence[EnergyCurve], source: str, span: Span) -> float:
    return max(curve.coverage(*span) for curve in curves if curve.source == source)


def choose_total(rails: dict[str, EnergyCurve], table: Power) -> Total | str:
    """Return the first sum of the table whose rails are all there, or the reason why none is."""
    for total in table.totals:
        matches = [
            [n for n in rails if fnmatchcase(n, pattern) and not _is_part(n, table)]
            for pattern in total.rails
        ]
        if all(matches):
            names = sorted({name for found in matches for name in found})
            return Total(tuple(rails[name] for name in names), total.scope, total.note)
    if not rails:
        return table.missing or "no power sensor could be read; run `remote_bench doctor`"
    wanted = " or ".join("+".join(total.rails) for total in table.totals)
    if not wanted:
        return f"{table.missing or 'the device has no rail table'}; seen: {', '.join(rails)}"
    return f"the rails to sum ({wanted}) are not all there; seen: {', '.join(sorted(rails))}"


def _is_part(rail: str, table: Power) -> bool:
    return any(fnmatchcase(rail, pattern) for pattern in table.do_not_add)


def measure_power(
    curves: Sequence[EnergyCurve], device: Device, spans: dict[str, Span], frames: Floats
) -> tuple[dict[str, Any] | None, str]:
    """Return the report's "power" and, where that is None, the reason.

    Args:
        curves: what was sampled.
        device: whose rail table counts.
        spans: "flat_out" and, as far as they are there, "idle_before", "idle_after", "paced".
        frames: the times at which frames were done, s, over the whole run.
    """
    run = spans["flat_out"]
    rails = choose_curves(curves, run)
    total = choose_total(rails, device.power)
    if isinstance(total, str):
        return None, total
    coverage = total.coverage(run)
    if coverage < _LEAST_COVERAGE:
        return None, f"the power samples cover {coverage:.0%} of the run; the rest is missing"
    idle = _idle(total, spans)
    used = {curve.rail for curve in total.curves}
    step_mw = {rail: device.power.step_mw.get(rail) for rail in sorted(used)}
    report: dict[str, Any] = {
        "source": sorted({curve.source for curve in total.curves}),
        "rails": sorted(used),
        "scope": total.scope,
        "note": total.note,
        "not_added": sorted(set(rails) - used),
        "step_mw": step_mw,
        "step_seen_mw": {curve.rail: curve.step_seen_mw for curve in total.curves},
        "rate_hz": min(_rate_hz(curve, run) for curve in total.curves),
        "coverage": coverage,
        "gaps": [gap for curve in total.curves[:1] for gap in curve.gaps(*run)],
        "idle": idle,
        "flat_out": _load(total, run, frames, idle),
        "paced": None,
    }
    if "paced" in spans:
        report["paced"] = _load(total, spans["paced"], frames, idle)
    return report, ""


def _idle(total: Total, spans: dict[str, Span]) -> dict[str, float | None]:
    before, after = (_idle_w(total, spans.get(name)) for name in ("idle_before", "idle_after"))
    both = [watts for watts in (before, after) if watts is not None]
    return {
        "before_w": before,
        "after_w": after,
        "drift_w": after - before if before is not None and after is not None else None,
        "mean_w": sum(both) / len(both) if both else None,
    }


def _idle_w(total: Total, span: Span | None) -> float | None:
    if span is None or total.coverage(span) < _LEAST_COVERAGE:
        return None
    begin, end = span
    return total.energy_j(begin, end) / (end - begin)


def _load(
    total: Total, span: Span, frames: Floats, idle: dict[str, float | None]
) -> dict[str, Any]:
    begin, end = span
    blocks = _blocks(total, span, frames)
    energy, count = total.energy_j(begin, end), _frames_until(frames, end, begin)
    idle_w = idle["mean_w"]
    result: dict[str, Any] = {
        "seconds": end - begin,
        "mean_w": energy / (end - begin),
        "mean_w_ci95": _ratio_ci(blocks, 0, 1),
        "energy_j": energy,
        "j_per_frame": energy / count if count else None,
        "j_per_frame_ci95": _ratio_ci(blocks, 0, 2),
        "j_per_frame_above_idle": None,
        "j_per_frame_above_idle_ci95": None,
    }
    if idle_w is not None and count:
        above = blocks.copy()
        above[:, 0] -= idle_w * above[:, 1]
        result["j_per_frame_above_idle"] = (energy - idle_w * (end - begin)) / count
        result["j_per_frame_above_idle_ci95"] = _ratio_ci(above, 0, 2)
    return result


def _blocks(total: Total, span: Span, frames: Floats) -> Floats:
    """Return (joules, seconds, frames) of equal parts of a span, (blocks, 3)."""
    begin, end = span
    count = int(np.clip((end - begin) / _BLOCK_S, 1, _MOST_BLOCKS))
    edges = np.linspace(begin, end, count + 1)
    joules = [total.energy_j(a, b) for a, b in pairwise(edges)]
    done = np.array([_frames_until(frames, edge, begin) for edge in edges])
    return np.column_stack([joules, np.diff(edges), np.diff(done)])


def _frames_until(frames: Floats, end: float, begin: float) -> float:
    """Return how many frames were done between two times; a part of one counts as a part."""
    if len(frames) == 0:
        return 0.0
    numbers = np.arange(1, len(frames) + 1, dtype=np.float64)
    at = np.interp([begin, end], frames, numbers, left=0.0)
    return float(at[1] - at[0])


def _ratio_ci(blocks: Floats, above: int, below: int) -> Interval | None:
    def ratio(part: Floats) -> float:
        divisor = float(part[:, below].sum())
        return float(part[:, above].sum()) / divisor if divisor else float("nan")

    interval = bootstrap_ci95(blocks, ratio)
    return interval if interval is not None and np.all(np.isfinite(interval)) else None


def _rate_hz(curve: EnergyCurve, span: Span) -> float:
    begin, end = span
    return float(np.sum((curve.t >= begin) & (curve.t <= end))) / (end - begin)
