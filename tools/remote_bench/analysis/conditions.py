"""What the board was like during the run: temperatures, clocks, throttling, load, memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from remote_bench.analysis.result import EnvironmentSample, PowerMode, Result, Slice, Span
from remote_bench.analysis.stats import Floats, slope
from remote_bench.tegrastats import parse_line

# vcgencmd get_throttled: bits 0-3 now, the same things since boot in bits 16-19.
_PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
# A GPU of an Orin steps by 102 MHz, a tenth of its highest clock: half a step is no scatter of the
# medians that are compared, and one step down is found. Chosen by that, not by an experiment.
CLOCK_FELL = 0.05
_MEMORY_SCOPE = (
    "worker process; PSS from smaps_rollup, peak from VmHWM (resident, shared pages whole)"
)


@dataclass(frozen=True)
class ZoneCelsius:
    """A temperature zone over the run; its slope is that of the second half."""

    begin: float
    end: float
    max: float
    slope_c_per_min: float


@dataclass(frozen=True)
class Throttling:
    """Alerts that were on, counters that moved, and clocks that fell, by a share."""

    alerts: tuple[str, ...]
    events: dict[str, int]
    clocks_fell: dict[str, float]


@dataclass(frozen=True)
class ForeignLoad:
    """Shares of all cores and of the GPU that others used; None where not known."""

    cpu: float | None
    idle_cpu: float | None
    idle_gpu: float | None


@dataclass(frozen=True)
class Conditions:
    """What else was the matter; None where the run did not get that far."""

    power_mode: PowerMode | None
    temperatures: dict[str, ZoneCelsius] | None
    clocks: dict[str, dict[str, float | None]] | None  # MHz by span; "fell" is a share
    throttling: Throttling | None
    foreign_load: ForeignLoad | None


@dataclass(frozen=True)
class Memory:
    """In MB (2^20 bytes); None where the kernel does not tell."""

    scope: str
    baseline_mb: float | None  # with the runtime imported, before the network
    pss_mb: float | None
    peak_mb: float | None
    delta_mb: float | None
    system_delta_mb: float | None  # what the whole board had less of
    unified: bool  # CPU and GPU share it: what the GPU holds shows in system_delta_mb alone


def conditions(result: Result) -> Conditions:
    """Return the conditions of a run."""
    spans, samples = result.spans(), result.samples.environment
    mode, run = result.power_mode_before, spans.get("flat_out")
    if run is None:
        return Conditions(mode, None, None, None, None)
    by_clock = _clocks(samples, spans)
    return Conditions(
        power_mode=mode,
        temperatures=_temperatures(_within(samples, run)),
        clocks=by_clock,
        throttling=_throttling(result, run, by_clock),
        foreign_load=_foreign_load(result, spans.get("idle_before")),
    )


def _temperatures(samples: Iterable[EnvironmentSample]) -> dict[str, ZoneCelsius]:
    zones: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        for zone, celsius in sample.celsius.items():
            if celsius is not None:
                zones.setdefault(zone, []).append((sample.t, celsius))
    return {zone: _zone(np.array(rows)) for zone, rows in zones.items()}


def _zone(rows: Floats) -> ZoneCelsius:
    t, celsius = rows[:, 0], rows[:, 1]
    late = t >= (t[0] + t[-1]) / 2
    return ZoneCelsius(
        begin=float(celsius[0]),
        end=float(celsius[-1]),
        max=float(celsius.max()),
        slope_c_per_min=60 * slope(t[late], celsius[late]),
    )


def _clocks(
    samples: Sequence[EnvironmentSample], spans: dict[str, Span]
) -> dict[str, dict[str, float | None]]:
    """Return by clock the median MHz in each span, and its fall over the run."""
    names = sorted({name for sample in samples for name in sample.mhz})
    return {
        name: {
            **{key: _median(_mhz(samples, span, name)) for key, span in spans.items()},
            "fell": _fall(_mhz(samples, spans["flat_out"], name)),
        }
        for name in names
    }


def _mhz(samples: Sequence[EnvironmentSample], span: Span, name: str) -> list[float]:
    values = (sample.mhz.get(name) for sample in _within(samples, span))
    return [value for value in values if value is not None]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _fall(values: list[float]) -> float | None:
    third = len(values) // 3
    if not third or not np.median(values[:third]):
        return None
    return 1 - float(np.median(values[-third:]) / np.median(values[:third]))


def _throttling(
    result: Result, run: Span, clocks: dict[str, dict[str, float | None]]
) -> Throttling:
    """Return what speaks for throttling.

    An over-current counter alone is no proof of harm (one Orin logged 27,390 events with its
    clocks unchanged): the measured clocks decide.
    """
    within = _within(result.samples.environment, run)
    alerts = sorted({name for sample in within for name in sample.alerts})
    before, after = result.counters_before or {}, result.counters_after or {}
    events = {}
    for name, count in after.items():
        old = before.get(name)
        if count is None or old is None:
            continue
        if name == "vcgencmd.throttled":
            alerts += _pi_alerts(old, count)
        elif count != old:
            events[name] = count - old
    falls = {name: clock["fell"] for name, clock in clocks.items()}
    fell = {name: fall for name, fall in falls.items() if fall is not None and fall > CLOCK_FELL}
    return Throttling(tuple(alerts), events, fell)


def _pi_alerts(before: int, after: int) -> list[str]:
    since_boot = after & ~before
    return [
        f"Raspberry Pi: {name}"
        for bit, name in _PI_BITS.items()
        if after >> bit & 1 or since_boot >> (bit + 16) & 1
    ]


def _foreign_load(result: Result, idle: Span | None) -> ForeignLoad:
    shares = [(foreign_cpu(result, part), part.seconds) for part, _ in result.blocks()]
    known = [(share, seconds) for share, seconds in shares if share is not None]
    whole_s = sum(seconds for _, seconds in known)
    cpu = sum(share * seconds for share, seconds in known) / whole_s if known else None
    if idle is None:
        return ForeignLoad(cpu, None, None)
    return ForeignLoad(cpu, _idle_cpu(result, idle), _idle_gpu(result, idle))


def foreign_cpu(result: Result, part: Slice) -> float | None:
    """Return the share of all CPU cores that others used in a slice."""
    busy, worker, ours = map(
        _difference, (part.cpu_s.busy, part.cpu_s.worker, part.cpu_s.supervisor)
    )
    if busy is None or worker is None:
        return None
    return max(0.0, busy - worker - (ours or 0)) / (part.seconds * _cores(result))


def sampler_cpu(result: Result) -> float | None:
    """Return the share of all CPU cores that supervisor and sampler used; tegrastats is extra.

    Where blocks with and without the sampler differ by noise only, this bounds its cost.
    """
    pairs = [(_difference(part.cpu_s.supervisor), part.seconds) for part, _ in result.blocks()]
    used = [(cpu_s, seconds) for cpu_s, seconds in pairs if cpu_s is not None]
    cpu_s, seconds = (sum(column) for column in zip(*used, strict=True)) if used else (0.0, 0.0)
    return cpu_s / seconds / _cores(result) if seconds else None


def _cores(result: Result) -> int:
    return result.probe.cpu.count or 1


def _difference(pair: tuple[float | None, float | None]) -> float | None:
    return None if pair[0] is None or pair[1] is None else pair[1] - pair[0]


def _idle_cpu(result: Result, idle: Span) -> float | None:
    inside = _within(result.samples.environment, idle)
    rows = [(s.t, s.busy_cpu_s) for s in inside if s.busy_cpu_s is not None]
    if len(rows) < 2 or rows[-1][0] <= rows[0][0]:
        return None
    return (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]) / _cores(result)


def _idle_gpu(result: Result, idle: Span) -> float | None:
    lines = result.samples.tegrastats.lines
    engines = [parse_line(text).gpu for t, text in lines if idle[0] <= t <= idle[1]]
    loads = [e.load_percent for e in engines if e is not None and e.load_percent is not None]
    return float(np.mean(loads)) / 100 if loads else None


def _within(samples: Iterable[EnvironmentSample], span: Span) -> Iterator[EnvironmentSample]:
    return (sample for sample in samples if span[0] <= sample.t <= span[1])


def memory(result: Result, unified: bool) -> Memory:
    """Return what the process held, and what the whole board had less of.

    Args:
        result: of the run.
        unified: CPU and GPU share the memory, so that what the GPU holds shows in what the whole
            board has less of, and not in the process.
    """
    samples = result.samples.environment
    readings = [*result.memory.values(), *(s.worker for s in samples if s.worker)]
    imported = result.memory.get("imported")
    baseline = imported.pss_kb if imported else None
    available = imported.available_kb if imported else None
    pss = _most(reading.pss_kb for reading in readings)
    least = min((s.available_kb for s in samples if s.available_kb is not None), default=None)
    return Memory(
        scope=_MEMORY_SCOPE,
        baseline_mb=_mb(baseline),
        pss_mb=_mb(pss),
        peak_mb=_mb(_most(reading.peak_rss_kb for reading in readings)),
        delta_mb=_mb_less(pss, baseline),
        system_delta_mb=_mb_less(available, least),
        unified=unified,
    )


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _mb(kb: int | None) -> float | None:
    return None if kb is None else round(kb / 1024, 2)


def _mb_less(kb: int | None, less_kb: int | None) -> float | None:
    return None if kb is None or less_kb is None else _mb(kb - less_kb)
