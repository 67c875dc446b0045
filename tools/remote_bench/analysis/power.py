"""Power and energy of a run: from what sensors said to joules a frame, and how sure they are.

A reading becomes energy by the trapezoidal rule over monotonic time, a counter by unwrapping it;
the device's table says which rails add up. A rail that is part of another one is never added,
without a table entry there is no total, and the printed average of tegrastats is never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise

import numpy as np
from fastseg_targets.device import Device, RailSum
from fastseg_targets.device import Power as RailTable
from numpy.typing import NDArray

from remote_bench.analysis.result import (
    MOST_NUMBER,
    MeterReadings,
    PowerReadings,
    Samples,
    Span,
    TegrastatsFeed,
)
from remote_bench.analysis.stats import Floats, Interval, bootstrap, ci95
from remote_bench.tegrastats import parse_line

_BOARD_SOURCES = ("ina_hwmon", "ina_iio", "tegrastats")  # they show the same sensors; sysfs first
_IDLE_SPANS = ("idle_before", "idle_after")
_LEAST_COVERAGE = 0.5  # below it there is no number: more of the run is unknown than known
_LEAST_IDLE_S = 1.0  # --idle 0 gives a moment, which says nothing; ten samples say a mean
# A sample that is late is no gap: a board that is busy may miss a few, and a second at most.
_GAP_PERIODS, _GAP_LEAST_S = 5.0, 1.0
_EDGE_S = 0.5  # five samples at 10 Hz: one alone would be the noise of one reading
_BLOCK_S = 0.5  # as many: longer than what neighbours have in common, and 4 s have eight of them
_MOST_BLOCKS = 200  # of the bootstrap: an interval of more is no surer and takes longer
_METER_NOTE = (
    "your meter: all that it supplies, with power supply and carrier board; no module's power"
)
# Of one rail: more than any processor or GPU takes. A counter is shown late by a tenth of a second.
_MOST_W, _LATE_S = 2000.0, 0.1
_MOST_POINTS = 1000  # of a plot: as many as it has pixels


@dataclass(frozen=True)
class EnergyCurve:
    """Energy of one rail since its first sample."""

    source: str
    rail: str
    t: Floats  # s, monotonic, increasing
    joules: Floats
    step_seen_mw: float | None = None  # the smallest difference between readings
    is_counter: bool = False
    breaks: tuple[float, ...] = ()  # samples after which the counter stepped as no power can

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

    def gaps(self, begin: float, end: float) -> tuple[Span, ...]:
        """Return the parts of an interval without samples that are long for this sensor.

        And those in which a counter broke off, however short.
        """
        inside = self.t[(self.t > begin) & (self.t < end)]
        edges = np.concatenate([[begin], inside, [end]])
        period = float(np.median(np.diff(self.t))) if len(self.t) > 1 else float("inf")
        longest = max(_GAP_LEAST_S, _GAP_PERIODS * period)
        starts = np.flatnonzero((np.diff(edges) > longest) | np.isin(edges[:-1], self.breaks))
        return tuple((float(edges[i]), float(edges[i + 1])) for i in starts)

    def coverage(self, begin: float, end: float) -> float:
        """Return the share of an interval that lies in no gap."""
        if end <= begin or len(self.t) < 2:
            return 0.0
        return 1 - sum(stop - start for start, stop in self.gaps(begin, end)) / (end - begin)


def curves(samples: Samples) -> list[EnergyCurve]:
    """Return a curve for each rail of each source that was sampled; null readings are left out."""
    found = _tegrastats_curves(samples.tegrastats)
    found += [curve for readings in samples.power for curve in _curves(readings)]
    return [curve for curve in found if len(curve.t) > 1 and curve.t[-1] > curve.t[0]]


def _curves(readings: PowerReadings) -> Iterator[EnergyCurve]:
    for column, rail in enumerate(readings.rails):
        pairs = zip(readings.t, (row[column] for row in readings.values), strict=True)
        rows = [(t, value) for t, value in pairs if value is not None]
        yield _curve(readings.source, rail, rows, readings.unit, readings.wraps_at[column])


def _tegrastats_curves(feed: TegrastatsFeed) -> list[EnergyCurve]:
    rows: dict[str, list[tuple[float, float]]] = {}
    for t, text in feed.lines:
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
        return _of_counter(source, rail, t, values / 1e6, wraps_at and wraps_at / 1e6)
    steps = np.diff(np.unique(values))
    joules = np.concatenate([[0.0], np.cumsum(np.diff(t) * (values[1:] + values[:-1]) / 2)]) / 1e3
    return EnergyCurve(
        source, rail, t, joules[: len(t)], float(steps.min()) if len(steps) else None
    )


def _of_counter(
    source: str, rail: str, t: Floats, counter_j: Floats, wraps_at_j: float | None
) -> EnergyCurve:
    good = ~_is_misread(t, counter_j, wraps_at_j)
    t, counter_j = t[good], counter_j[good]
    steps, dt = np.diff(counter_j), np.diff(t)
    # A counter that falls has wrapped, or, where nobody says at which value, begun anew.
    steps = steps + np.where(steps < 0, wraps_at_j or counter_j[:-1], 0.0)
    # Else it began anew too (after a suspend), or misread: then nobody knows what there was.
    known = (steps >= 0) & (steps <= _most_j(dt))
    mean_w = steps[known].sum() / max(dt[known].sum(), 1e-9)
    joules = np.cumsum(np.append(0.0, np.where(known, steps, mean_w * dt)))
    breaks = tuple(t[:-1][~known].tolist())
    return EnergyCurve(source, rail, t, joules[: len(t)], is_counter=True, breaks=breaks)


def _is_misread(t: Floats, counter_j: Floats, wraps_at_j: float | None) -> NDArray[np.bool_]:
    """Return which single readings are off: the next one goes on from where the last one was.

    The counter falls to one that is too low, and after one that is too high, by more than a wrap.
    """
    falls_j = np.diff(counter_j)
    no_wrap = (falls_j < 0) & (falls_j + (wraps_at_j or np.inf) > _most_j(np.diff(t)))
    misread = np.zeros(len(t), bool)
    goes_on = counter_j[2:] >= counter_j[:-2]
    misread[1:-1] = goes_on & (no_wrap[:-1] | no_wrap[1:])
    return misread


def _most_j(dt: Floats) -> Floats:
    return _MOST_W * np.maximum(dt, _LATE_S)


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

    def stuck(self, span: Span) -> str:
        """Return why what the sensors said in a span is no power; "" where it is."""
        still = [c.rail for c in self.curves if c.is_counter and c.energy_j(*span) == 0]
        if still:
            return f"the energy counter of {', '.join(still)} never moved: it is stuck"
        names = ", ".join(curve.rail for curve in self.curves)
        return "" if self.energy_j(*span) else f"0 W all the time from {names}: a sensor is stuck"


def choose_curves(curves: Sequence[EnergyCurve], span: Span) -> dict[str, EnergyCurve]:
    """Return one curve a rail: of sources that show the same sensor by one name, the fullest.

    Args:
        curves: of all sources.
        span: the run; it decides which source is fuller.
    """
    chosen: dict[str, EnergyCurve] = {}
    board = [curve for curve in curves if curve.source in _BOARD_SOURCES]
    board.sort(key=lambda curve: _BOARD_SOURCES.index(curve.source))  # of equal ones, the first
    board.sort(key=lambda curve: curve.coverage(*span), reverse=True)
    for curve in (*(c for c in curves if c.source not in _BOARD_SOURCES), *board):
        chosen.setdefault(curve.rail, curve)
    return chosen


def choose_total(rails: dict[str, EnergyCurve], table: RailTable) -> Total | str:
    """Return the first sum of the table whose rails are all there, or the reason why none is."""
    parts = [n for n in rails if any(fnmatchcase(n, pattern) for pattern in table.do_not_add)]
    for total in table.totals:
        matches = [
            [name for name in rails if fnmatchcase(name, pattern) and name not in parts]
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


@dataclass(frozen=True)
class IdlePower:
    """Power of the idle board before and after the run; None where too little was sampled."""

    before_w: float | None
    after_w: float | None
    drift_w: float | None  # by how much it rose over the run
    mean_w: float | None  # of what there is of both


@dataclass(frozen=True)
class LoadPower:
    """Power and energy of a loaded span, and energy a frame with and without the idle power."""

    seconds: float
    mean_w: float
    mean_w_ci95: Interval | None
    energy_j: float
    j_per_frame: float | None
    j_per_frame_ci95: Interval | None
    j_per_frame_above_idle: float | None
    j_per_frame_above_idle_ci95: Interval | None


@dataclass(frozen=True)
class Power:
    """Power of a run: which rails by which sources, how well sampled, and how much."""

    source: tuple[str, ...]
    rails: tuple[str, ...]
    scope: str  # what the rails supply, of fastseg_targets.device.SCOPES
    note: str
    not_added: tuple[str, ...]
    step_mw: dict[str, float | None]  # the sensor's, as the device's table has it
    step_seen_mw: dict[str, float | None]
    rate_hz: float
    coverage: float  # share of the run that lies in no gap
    gaps: tuple[Span, ...]
    idle: IdlePower
    flat_out: LoadPower
    paced: LoadPower | None
    # By rail: what tegrastats has of its energy beyond what its sensor's file says, a share.
    cross_check: dict[str, float] = field(default_factory=dict)
    breaks: int = 0  # of energy counters in the run: steps that no power makes
    paced_coverage: float | None = None  # as coverage, of the paced run


def _measure_idle(total: Total, spans: dict[str, Span]) -> tuple[IdlePower, Floats | None]:
    """Return the idle power, and its mean of both phases bootstrapped."""
    none = np.zeros(0)
    watts: list[float | None] = []
    replicates: list[Floats | None] = []
    for seed, name in enumerate(_IDLE_SPANS, start=1):  # the load has 0: they are independent
        span = spans.get(name)
        if (
            span is None
            or span[1] - span[0] < _LEAST_IDLE_S
            or total.coverage(span) < _LEAST_COVERAGE
        ):
            watts.append(None)
            continue
        watts.append(total.energy_j(*span) / (span[1] - span[0]))
        replicates.append(bootstrap(_blocks(total, span, none), _mean_w, seed))
    before, after = watts
    drift = None if before is None or after is None else after - before
    known = [value for value in watts if value is not None]
    idle = IdlePower(before, after, drift, sum(known) / len(known) if known else None)
    found = [sample for sample in replicates if sample is not None]
    complete = bool(found) and len(found) == len(replicates)
    return idle, np.mean(found, axis=0) if complete else None


def _measure_load(
    total: Total,
    spans: Sequence[Span],
    frames: Floats,
    idle: IdlePower,
    idle_replicates_w: Floats | None,
) -> LoadPower:
    blocks = np.concatenate([_blocks(total, span, frames) for span in spans])
    energy_j, seconds, count = map(float, blocks.sum(axis=0))
    above_idle_j = above_idle_ci95 = None
    if idle.mean_w is not None and count:
        above_idle_j = (energy_j - idle.mean_w * seconds) / count
        above_idle_ci95 = _above_idle_ci95(blocks, idle, idle_replicates_w)
    return LoadPower(
        seconds=seconds,
        mean_w=energy_j / seconds,
        mean_w_ci95=ci95(bootstrap(blocks, _mean_w)),
        energy_j=energy_j,
        j_per_frame=energy_j / count if count else None,
        j_per_frame_ci95=ci95(bootstrap(blocks, _j_per_frame)),
        j_per_frame_above_idle=above_idle_j,
        j_per_frame_above_idle_ci95=above_idle_ci95,
    )


def _above_idle_ci95(
    blocks: Floats, idle: IdlePower, idle_replicates_w: Floats | None
) -> Interval | None:
    # Both means vary with what was sampled. Idle power that drifts from one value to another was
    # somewhere between them during the run: half of the drift from their mean at most.
    load = bootstrap(blocks, _j_and_s_per_frame)
    if load is None or idle_replicates_w is None:
        return None
    interval = ci95(load[:, 0] - idle_replicates_w * load[:, 1])
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


def measure_power(
    curves: Sequence[EnergyCurve],
    device: Device,
    spans: dict[str, Span],
    frames: Floats,
    blocks: Sequence[Span] = (),
) -> tuple[Power | None, str]:
    """Return the power of a run and, where that is None, the reason.

    Args:
        curves: what was sampled.
        device: whose rail table counts.
        spans: "flat_out" and, as far as they are there, "idle_before", "idle_after", "paced".
        frames: the times at which frames were done, s, over the whole run.
        blocks: of the flat-out run, where it is several.
    """
    run = spans["flat_out"]
    blocks = blocks or (run,)
    rails = choose_curves(curves, run)
    total = choose_total(rails, device.power)
    if isinstance(total, str):
        return None, total
    coverage = total.coverage(run)
    if coverage < _LEAST_COVERAGE:
        return None, f"the power samples cover {coverage:.0%} of the run; the rest is missing"
    if stuck := total.stuck(run):
        return None, stuck
    idle = _measure_idle(total, spans)
    paced = spans.get("paced")
    paced_coverage = paced and total.coverage(paced)
    is_known = paced_coverage is not None and paced_coverage >= _LEAST_COVERAGE
    used = sorted({curve.rail for curve in total.curves})
    power = Power(
        source=tuple(sorted({curve.source for curve in total.curves})),
        rails=tuple(used),
        scope=total.scope,
        note=total.note,
        not_added=tuple(sorted(set(rails) - set(used))),
        step_mw={rail: device.power.step_mw.get(rail) for rail in used},
        step_seen_mw={curve.rail: curve.step_seen_mw for curve in total.curves},
        rate_hz=min(_rate_hz(curve, run) for curve in total.curves),
        coverage=coverage,
        gaps=min(total.curves, key=lambda curve: curve.coverage(*run)).gaps(*run),
        idle=idle[0],
        flat_out=_measure_load(total, blocks, frames, *idle),
        paced=_measure_load(total, [paced], frames, *idle) if paced and is_known else None,
        cross_check=_cross_check(curves, total, run),
        breaks=sum(run[0] <= t <= run[1] for curve in total.curves for t in curve.breaks),
        paced_coverage=paced_coverage,
    )
    return power, ""


def unread(samples: Samples, table: RailTable, power: Power) -> list[str]:
    """Return the rails that a sum with "*" would have had, and that never answered."""
    sums = [total.rails for total in table.totals if total.scope == power.scope]
    silent = {
        rail
        for readings in samples.power
        for column, rail in enumerate(readings.rails)
        if all(row[column] is None for row in readings.values)
    }
    return sorted(
        rail
        for rail in silent - {*power.rails}
        if any(fnmatchcase(rail, pattern) for rails in sums for pattern in rails)
        and not any(fnmatchcase(rail, pattern) for pattern in table.do_not_add)
    )


def measure_wall_power(
    readings: MeterReadings | None,
    device: Device,
    spans: dict[str, Span],
    frames: Floats,
    blocks: Sequence[Span],
) -> tuple[Power | None, str | None]:
    """Return the power that a meter of the user's showed, and what was wrong with that.

    It is no sum of rails and is held against none: the power supply and the carrier are in it.
    """
    if readings is None:
        return None, None
    mw = tuple((1e3 * watts,) for watts in readings.watts)
    rows = PowerReadings("meter", "mw", ("meter",), (None,), readings.t, mw)
    table = RailTable(totals=(RailSum(("meter",), "wall", _METER_NOTE),))
    power, reason = None, ""
    if len(readings.t) > 1:
        seen = curves(Samples(power=(rows,)))
        power, reason = measure_power(seen, replace(device, power=table), spans, frames, blocks)
    told = "; ".join(filter(None, (readings.failure, reason)))
    return power, f"the meter: {told}" if told else None


def _cross_check(curves: Sequence[EnergyCurve], total: Total, run: Span) -> dict[str, float]:
    printed = {curve.rail: curve for curve in curves if curve.source == "tegrastats"}
    shares = {}
    for curve in total.curves:
        other = printed.get(curve.rail)
        if other is None or other is curve or other.coverage(*run) < _LEAST_COVERAGE:
            continue
        joules, printed_j = curve.energy_j(*run), other.energy_j(*run)
        if joules or printed_j:  # a sensor stuck at 0 differs the most
            shares[curve.rail] = printed_j / joules - 1 if joules else MOST_NUMBER
    return shares


def mean_watts(
    curves: Sequence[EnergyCurve], device: Device, run: Span, spans: Sequence[Span]
) -> tuple[float | None, ...]:
    """Return the mean power of each span; None where too little of it was sampled.

    Args:
        curves: what was sampled.
        device: whose rail table counts.
        run: decides which source is fuller, as in measure_power().
        spans: of interest.
    """
    total = choose_total(choose_curves(curves, run), device.power)
    if isinstance(total, str) or total.stuck(run):
        return (None,) * len(spans)
    return tuple(
        total.energy_j(*span) / (span[1] - span[0])
        if total.coverage(span) >= _LEAST_COVERAGE
        else None
        for span in spans
    )


def _rate_hz(curve: EnergyCurve, span: Span) -> float:
    begin, end = span
    return float(np.sum((curve.t >= begin) & (curve.t <= end))) / (end - begin)


@dataclass(frozen=True)
class PowerSeries:
    """The board's power over time, for a plot; s from the flat-out run's begin."""

    t: tuple[float, ...]
    watts: tuple[float, ...]


def power_series(curves: Sequence[EnergyCurve], device: Device, run: Span) -> PowerSeries | None:
    """Return the power of the total, of at most 1000 points; None where there is no total."""
    total = choose_total(choose_curves(curves, run), device.power)
    if isinstance(total, str) or total.stuck(run):
        return None
    begin = max(curve.t[0] for curve in total.curves)
    end = min(curve.t[-1] for curve in total.curves)
    count = min(_MOST_POINTS, max(len(curve.t) for curve in total.curves))
    if end <= begin or count < 2:
        return None
    edges: Floats = np.linspace(begin, end, count)
    joules = sum(np.interp(edges, curve.t, curve.joules) for curve in total.curves)
    watts = np.diff(joules) / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2 - run[0]
    return PowerSeries(tuple(middle.round(3).tolist()), tuple(watts.round(4).tolist()))
