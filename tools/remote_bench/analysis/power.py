"""Power and energy of a run: from what sensors said to joules a frame, and how sure they are.

A reading becomes energy by the trapezoidal rule over monotonic time, a counter by unwrapping it;
the device's table says which rails add up. A rail that is part of another one is never added,
without a table entry there is no total, and the printed average of tegrastats is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import numpy as np
from fastseg_runtime.arrays.stats import interval95
from fastseg_targets.device import Device, Power

from remote_bench.analysis.stats import Floats, Interval, bootstrap
from remote_bench.tegrastats import parse_line

Span = tuple[float, float]  # begin and end, s, monotonic

_BOARD_SOURCES = ("tegrastats", "ina_hwmon", "ina_iio")  # they show the same sensors
_IDLE_SPANS = ("idle_before", "idle_after")
LEAST_COVERAGE = 0.5  # below it there is no number
_LEAST_IDLE_S = 1.0  # --idle 0 gives a moment, which says nothing
_GAP_PERIODS, _GAP_LEAST_S = 5.0, 1.0
_EDGE_S = 0.5
_BLOCK_S = 0.5
_MOST_BLOCKS = 200


@dataclass(frozen=True)
class EnergyCurve:
    """Energy of one rail since its first sample."""

    source: str
    rail: str
    t: Floats  # s, monotonic, increasing
    joules: Floats
    step_seen_mw: float | None = None  # the smallest difference between readings

    def energy_j(self, begin: float, end: float) -> float:
        """Return the energy between two times.

        Just before the first and after the last sample the power is taken to be that of the first
        and last half second.
        """
        return self._joules_at(end) - self._joules_at(begin)

    def _joules_at(self, time: float) -> float:
        first, last = float(self.t[0]), float(self.t[-1])
        if time < first:
            return float(self.joules[0]) - (first - time) * self._edge_w(first, first + _EDGE_S)
        if time > last:
            return float(self.joules[-1]) + (time - last) * self._edge_w(last - _EDGE_S, last)
        return float(np.interp(time, self.t, self.joules))

    def _edge_w(self, begin: float, end: float) -> float:
        begin, end = max(begin, float(self.t[0])), min(end, float(self.t[-1]))
        at = np.interp([begin, end], self.t, self.joules)
        return float(at[1] - at[0]) / (end - begin)

    def gaps(self, begin: float, end: float) -> list[tuple[float, float]]:
        """Return the parts of an interval without samples that are long for this sensor."""
        inside = self.t[(self.t > begin) & (self.t < end)]
        edges = np.concatenate([[begin], inside, [end]])
        period = float(np.median(np.diff(self.t))) if len(self.t) > 1 else float("inf")
        longest = max(_GAP_LEAST_S, _GAP_PERIODS * period)
        starts = np.flatnonzero(np.diff(edges) > longest)
        return [(float(edges[i]), float(edges[i + 1])) for i in starts]

    def coverage(self, begin: float, end: float) -> float:
        """Return the share of an interval that lies in no gap."""
        if end <= begin or len(self.t) < 2:
            return 0.0
        return 1 - sum(stop - start for start, stop in self.gaps(begin, end)) / (end - begin)


def curves(samples: dict[str, Any]) -> list[EnergyCurve]:
    """Return a curve for each rail of each source that an agent sampled.

    Args:
        samples: "samples" of result.json; a reading that is null is left out.
    """
    found = _tegrastats_curves(samples.get("tegrastats") or {})
    for series in samples.get("power") or []:
        for column, rail in enumerate(series["rails"]):
            rows = [
                (t, row[column])
                for t, row in zip(series["t"], series["values"], strict=True)
                if row[column] is not None
            ]
            wraps_at = series["wraps_at"][column]
            found.append(_curve(series["source"], rail, rows, series["unit"], wraps_at))
    return [curve for curve in found if len(curve.t) > 1 and curve.t[-1] > curve.t[0]]


def _tegrastats_curves(feed: dict[str, Any]) -> list[EnergyCurve]:
    rows: dict[str, list[tuple[float, float]]] = {}
    for t, text in feed.get("lines") or []:
        line = parse_line(text)
        # The current value alone: the average that is printed begins at tegrastats' own start.
        for name in line.rails:
            mw = line.rail_mw(name)
            if mw is not None:
                rows.setdefault(name, []).append((t, mw))
    return [_curve("tegrastats", name, found, "mw", None) for name, found in rows.items()]


def _curve(
    source: str, rail: str, rows: list[tuple[float, float]], unit: str, wraps_at: float | None
) -> EnergyCurve:
    t, values = (np.array([row[i] for row in rows], dtype=np.float64) for i in (0, 1))
    order = np.argsort(t, kind="stable")
    t, values = t[order], values[order]
    if unit == "uj":
        joules = _unwrapped(values, wraps_at) / 1e6
        return EnergyCurve(source, rail, t, joules)
    steps = np.diff(np.unique(values))
    joules = np.concatenate([[0.0], np.cumsum(np.diff(t) * (values[1:] + values[:-1]) / 2)]) / 1e3
    return EnergyCurve(
        source, rail, t, joules[: len(t)], float(steps.min()) if len(steps) else None
    )


def _unwrapped(counter: Floats, wraps_at: float | None) -> Floats:
    previous = np.append(counter[:1], counter[:-1])
    # A counter that falls has wrapped, or, where nobody says at which value, begun anew.
    lost = np.where(counter < previous, previous if wraps_at is None else wraps_at, 0.0)
    unwrapped: Floats = counter + np.cumsum(lost)
    return unwrapped


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


@dataclass(frozen=True)
class Idle:
    """Power of the idle board before and after the run; None where too little was sampled."""

    before_w: float | None
    after_w: float | None
    mean_replicates_w: Floats | None  # of the mean of both, bootstrapped

    @property
    def drift_w(self) -> float | None:
        """By how much the idle power rose over the run."""
        if self.before_w is None or self.after_w is None:
            return None
        return self.after_w - self.before_w

    @property
    def mean_w(self) -> float | None:
        """The mean of what there is of both."""
        known = [watts for watts in (self.before_w, self.after_w) if watts is not None]
        return sum(known) / len(known) if known else None

    def report(self) -> dict[str, float | None]:
        """Return what the report has of it."""
        return {
            "before_w": self.before_w,
            "after_w": self.after_w,
            "drift_w": self.drift_w,
            "mean_w": self.mean_w,
        }


def measure_idle(total: Total, spans: dict[str, Span]) -> Idle:
    """Return the power of "idle_before" and "idle_after", as far as they are there."""
    none = np.zeros(0)
    watts: list[float | None] = []
    replicates: list[Floats | None] = []
    for seed, name in enumerate(_IDLE_SPANS, start=1):  # the load has 0: they are independent
        span = spans.get(name)
        if span is None or not _says_something(total, span):
            watts.append(None)
            continue
        watts.append(total.energy_j(*span) / (span[1] - span[0]))
        replicates.append(bootstrap(_blocks(total, span, none), _mean_w, seed))
    known = [found for found in replicates if found is not None]
    complete = bool(known) and len(known) == len(replicates)
    before, after = watts
    return Idle(before, after, np.mean(known, axis=0) if complete else None)


def _says_something(total: Total, idle: Span) -> bool:
    return idle[1] - idle[0] >= _LEAST_IDLE_S and total.coverage(idle) >= LEAST_COVERAGE


def measure_load(total: Total, span: Span, frames: Floats, idle: Idle) -> dict[str, Any]:
    """Return power and energy of a loaded span, and energy a frame with and without the idle power.

    Args:
        total: the rails.
        span: when frames ran without a pause, or at their pace.
        frames: the times at which frames were done, s, over the whole run.
        idle: what the board needs without frames.
    """
    begin, end = span
    blocks = _blocks(total, span, frames)
    energy_j, count = total.energy_j(begin, end), _frames_until(frames, end, begin)
    result: dict[str, Any] = {
        "seconds": end - begin,
        "mean_w": energy_j / (end - begin),
        "mean_w_ci95": _ci95(bootstrap(blocks, _mean_w)),
        "energy_j": energy_j,
        "j_per_frame": energy_j / count if count else None,
        "j_per_frame_ci95": _ci95(bootstrap(blocks, _j_per_frame)),
        "j_per_frame_above_idle": None,
        "j_per_frame_above_idle_ci95": None,
    }
    if idle.mean_w is not None and count:
        result["j_per_frame_above_idle"] = (energy_j - idle.mean_w * (end - begin)) / count
        result["j_per_frame_above_idle_ci95"] = _above_idle_ci95(blocks, idle)
    return result


def _above_idle_ci95(blocks: Floats, idle: Idle) -> Interval | None:
    # Both means vary with what was sampled. Idle power that drifts from one value to another was
    # somewhere between them during the run: half of the drift from their mean at most.
    load = bootstrap(blocks, _j_and_s_per_frame)
    if load is None or idle.mean_replicates_w is None:
        return None
    interval = _ci95(load[:, 0] - idle.mean_replicates_w * load[:, 1])
    if interval is None:
        return None
    half_drift_j = abs(idle.drift_w or 0.0) / 2 * float(np.median(load[:, 1]))
    return interval[0] - half_drift_j, interval[1] + half_drift_j


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


def _mean_w(blocks: Floats) -> float:
    return float(blocks[:, 0].sum() / blocks[:, 1].sum())


def _j_and_s_per_frame(blocks: Floats) -> Floats:
    frames = float(blocks[:, 2].sum())
    found: Floats = blocks[:, :2].sum(axis=0) / frames if frames else np.full(2, np.nan)
    return found


def _j_per_frame(blocks: Floats) -> float:
    return float(_j_and_s_per_frame(blocks)[0])


def _ci95(replicates: Floats | None) -> Interval | None:
    return None if replicates is None or np.isnan(replicates).any() else interval95(replicates)


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
    if coverage < LEAST_COVERAGE:
        return None, f"the power samples cover {coverage:.0%} of the run; the rest is missing"
    idle = measure_idle(total, spans)
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
        "gaps": min(total.curves, key=lambda curve: curve.coverage(*run)).gaps(*run),
        "idle": idle.report(),
        "flat_out": measure_load(total, run, frames, idle),
        "paced": None,
    }
    if "paced" in spans:
        report["paced"] = measure_load(total, spans["paced"], frames, idle)
    return report, ""


def _rate_hz(curve: EnergyCurve, span: Span) -> float:
    begin, end = span
    return float(np.sum((curve.t >= begin) & (curve.t <= end))) / (end - begin)
