"""What the board was like during the run: temperatures, clocks, throttling, load, memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from fastseg_runtime.engines.engine import ENGINES

from remote_bench.analysis.result import (
    EnvironmentSample,
    Number,
    PowerMode,
    Result,
    Slice,
    Span,
)
from remote_bench.analysis.stats import Floats, Interval, change_of_thirds, slope, trend_half95
from remote_bench.tegrastats import parse_line

# vcgencmd get_throttled: bits 16-19 tell what happened since boot.
_PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
# A GPU of an Orin steps by 102 MHz, a tenth of its highest clock: half a step is no scatter of the
# means that are compared, and one step down is found. Chosen by that, not by an experiment.
CLOCK_FELL = 0.05
# Several clocks are judged in each run: 1 % of false alarms for each keeps them rare together.
_CLOCK_LEVEL = 0.99
_USED = 0.2  # of the samples: a core that our threads were seen on so often is one of the run's
_COUNTED_S = 0.1  # the kernel counts its cores by ticks, some of which it misses
_LINE_S = 2.0  # how old tegrastats' last line may be beside a sample
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
    slope_ci95: Interval | None = None


@dataclass(frozen=True)
class Throttling:
    """Alerts that were on, counters that moved, and clocks in use that surely fell, by a share."""

    alerts: tuple[str, ...]
    events: dict[str, int]
    clocks_fell: dict[str, float]


@dataclass(frozen=True)
class ForeignLoad:
    """Shares of the cores that we may run on, and of the GPU, that others used; None: not known."""

    cpu: float | None
    idle_cpu: float | None
    idle_gpu: float | None
    gpu: float | None = None  # during a run that used none itself, where it was the most
    before: float | None = None  # of the cores, before anything of ours began
    by: tuple[str, ...] = ()  # who that was
    later: dict[str, float] = field(default_factory=dict)  # of the cores, by the part of the run


@dataclass(frozen=True)
class GpuCap:
    """What the power mode allows the GPU, what it reached, and what its limit is set to, in MHz."""

    mode_mhz: float
    seen_mhz: float | None
    limit_mhz: float | None
    in_use: bool


@dataclass(frozen=True)
class Conditions:
    """What else was the matter; None where the run did not get that far."""

    power_mode: PowerMode | None
    temperatures: dict[str, ZoneCelsius] | None
    clocks: dict[str, dict[str, float | None]] | None  # MHz by span; "fell" is a share
    throttling: Throttling | None
    foreign_load: ForeignLoad | None
    changed: tuple[str, ...] = ()  # settings that somebody changed during the run
    gpu_cap: GpuCap | None = None


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


def conditions(result: Result, gpu_mhz: float | None = None) -> Conditions:
    """Return the conditions of a run.

    Args:
        result: of the run.
        gpu_mhz: the GPU's highest clock, of the device's table.
    """
    spans, samples = result.spans(), watched(result)
    mode, run = result.power_mode_before, spans.get("flat_out")
    if run is None:
        return Conditions(mode, None, None, None, None)
    blocks = [(part.begin, part.end) for part, _ in result.blocks()]
    timed = [sample for block in blocks for sample in _within(samples, block)]
    by_clock = _clocks(samples, spans, timed)
    whole = (run[0], max(part.end for part in result.slices))
    return Conditions(
        power_mode=mode,
        temperatures=_temperatures(_within(samples, run)),
        clocks=by_clock,
        throttling=_throttling(result, _within(samples, whole), timed),
        foreign_load=_foreign_load(result, samples, timed, spans.get("idle_before")),
        changed=tuple(_changed(result, whole)),
        gpu_cap=_gpu_cap(result, timed, gpu_mhz),
    )


def watched(result: Result) -> tuple[EnvironmentSample, ...]:
    """Return the samples of the board, each with what tegrastats printed of clocks and load."""
    lines = result.samples.tegrastats.lines
    times, found = [t for t, _ in lines], []
    for sample in result.samples.environment:
        at = bisect_right(times, sample.t) - 1
        if at < 0 or sample.t - times[at] > _LINE_S:
            found.append(sample)
            continue
        line = parse_line(lines[at][1])
        engines = (("gpu.tegrastats", line.gpu), ("memory.tegrastats", line.emc))
        mhz = {name: float(max(one.mhz)) for name, one in engines if one and one.mhz}
        printed = line.gpu.load_percent if line.gpu else None
        load = printed / 100 if sample.gpu_load is None and printed is not None else sample.gpu_load
        found.append(replace(sample, mhz={**sample.mhz, **mhz}, gpu_load=load))
    return tuple(found)


def uses_gpu(result: Result) -> bool | None:
    """Return whether the network ran on a GPU; None where nobody says what it ran on."""
    on_nvidia = uses_nvidia(result)
    return on_nvidia if on_nvidia is None else on_nvidia or "gpu" in _ran_on(result)


def uses_nvidia(result: Result) -> bool | None:
    """Return whether that was one of NVIDIA's; None as there."""
    engine = ENGINES.get(str((result.info or {}).get("backend")))
    if engine is None:
        return None
    return engine.needs_cuda or any(name in _ran_on(result) for name in ("cuda", "tensorrt"))


def _ran_on(result: Result) -> str:
    return str((result.info or {}).get("device")).lower()


def _in_use(result: Result, timed: Sequence[EnvironmentSample]) -> set[str]:
    """Return the clocks that the network's speed hangs on: its GPU, its cores.

    A policy of cpufreq is named by its first core; where an older agent did not say which others it
    has, it ends before the next one. Where nobody says what was used, all of them are.
    """
    names = {name for sample in timed for name in sample.mhz}
    used = {n for n in names if n.startswith("gpu.") and uses_gpu(result) is not False}
    policies = sorted({int(digits) for n in names if (digits := _policy(n)).isdecimal()})
    of_core = {core: int(name) for name, cores in result.probe.cpu.policies.items()
               for core in cores if name.isdecimal() and int(name) in policies}  # fmt: skip
    seen: dict[int, int] = dict.fromkeys(policies, 0)
    for sample in timed:
        ran_on = policies if sample.ran_on is None else sample.ran_on
        for policy in {of_core.get(core, policies[max(bisect_right(policies, core) - 1, 0)])
                       for core in ran_on if policies}:  # fmt: skip
            seen[policy] += 1
    ours = {str(policy) for policy, count in seen.items() if count > _USED * len(timed)}
    return used | {name for name in names if _policy(name) in ours}


def _policy(clock: str) -> str:
    return clock.partition("cpu.policy")[2].partition(".")[0]


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
    per_min, half = 60 * slope(t[late], celsius[late]), trend_half95(t[late], celsius[late])
    return ZoneCelsius(
        begin=float(celsius[0]),
        end=float(celsius[-1]),
        max=float(celsius.max()),
        slope_c_per_min=per_min,
        slope_ci95=None if half is None else (per_min - 60 * half, per_min + 60 * half),
    )


def _clocks(
    samples: Sequence[EnvironmentSample],
    spans: dict[str, Span],
    timed: Sequence[EnvironmentSample],
) -> dict[str, dict[str, float | None]]:
    """Return by clock the median MHz in each span, and its fall over the run."""
    names = sorted({name for sample in samples for name in sample.mhz})
    within = {key: list(_within(samples, span)) for key, span in spans.items()}
    within["flat_out"] = list(timed)
    return {
        name: {
            **{key: _median(_mhz(some, name)) for key, some in within.items()},
            "fell": -found[0] if (found := _change(timed, name)) else None,
        }
        for name in names
    }


def _mhz(samples: Iterable[EnvironmentSample], name: str) -> list[float]:
    values = (sample.mhz.get(name) for sample in samples)
    return [value for value in values if value is not None]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _change(timed: Sequence[EnvironmentSample], name: str) -> tuple[float, Interval] | None:
    return change_of_thirds(np.array(_mhz(timed, name)), _CLOCK_LEVEL)


def _throttling(
    result: Result, whole: Iterable[EnvironmentSample], timed: Sequence[EnvironmentSample]
) -> Throttling:
    """Return what speaks for throttling.

    An over-current counter alone is no proof of harm (one Orin logged 27,390 events with its
    clocks unchanged): the measured clocks decide.
    """
    alerts = {name for sample in whole for name in sample.alerts}
    before, after = result.counters_before or {}, result.counters_after or {}
    events = {}
    for name, count in after.items():
        old = before.get(name)
        if count is None or old is None:
            continue
        if name == "vcgencmd.throttled":
            alerts |= _pi_alerts(old, count)
        elif count != old:
            events[name] = count - old
    changes = {name: _change(timed, name) for name in _in_use(result, timed)}
    fell = {n: -found[0] for n, found in changes.items() if found and -found[1][1] > CLOCK_FELL}
    return Throttling(tuple(sorted(alerts)), events, fell)


def _pi_alerts(before: int, after: int) -> set[str]:
    # What is on now is sampled once a second; this is what came and went between two samples.
    since_boot = after & ~before
    return {f"Raspberry Pi: {n}" for bit, n in _PI_BITS.items() if since_boot >> (bit + 16) & 1}


def _changed(result: Result, whole: Span) -> Iterator[str]:
    for t, what, old, new in result.samples.changes:
        if whole[0] <= t <= whole[1]:
            yield f"{what} from {old} to {new}, {t - whole[0]:.0f} s into the run"


def _gpu_cap(
    result: Result, timed: Sequence[EnvironmentSample], gpu_mhz: float | None
) -> GpuCap | None:
    mode = result.power_mode_before
    if mode is None:
        return None
    wanted = mode.gpu_mhz or (gpu_mhz if (mode.name or "").startswith("MAXN") else None)
    limits = [
        int(text) / 1e6
        for path, text in result.probe.settings.items()
        if "gpu" in path and path.endswith("/max_freq") and (text or "").isdigit() and text
    ]
    seen = [
        mhz for sample in timed for n, mhz in sample.mhz.items() if n.startswith("gpu.") and mhz
    ]
    if wanted is None:
        return None
    in_use = uses_gpu(result) is not False
    return GpuCap(wanted, max(seen, default=None), min(limits, default=None), in_use)


def _foreign_load(
    result: Result,
    samples: Sequence[EnvironmentSample],
    timed: Sequence[EnvironmentSample],
    idle: Span | None,
) -> ForeignLoad:
    paced = [part for part, _ in result.blocks("paced")]
    later = {"paced run": paced, "last fifth of the soak": result.sustained()}
    shares = {name: _foreign_share(result, parts) for name, parts in later.items()}
    spans = [(parts[0].begin, parts[-1].end) for parts in later.values() if parts]
    gpus = [_gpu_load(_within(samples, span)) for span in spans]
    before = result.busy_before
    return ForeignLoad(
        cpu=_foreign_share(result, [part for part, _ in result.blocks()]),
        idle_cpu=_idle_cpu(result, idle) if idle else None,
        idle_gpu=_gpu_load(_within(samples, idle)) if idle else None,
        gpu=_most([_gpu_load(timed), *gpus]) if uses_gpu(result) is False else None,
        before=before.cpu if before else None,
        by=before.by if before else (),
        later={name: share for name, share in shares.items() if share is not None},
    )


def _foreign_share(result: Result, parts: Sequence[Slice]) -> float | None:
    shares = [(foreign_cpu(result, part), part.seconds) for part in parts]
    known = [(share, seconds) for share, seconds in shares if share is not None]
    whole_s = sum(seconds for _, seconds in known)
    return sum(share * seconds for share, seconds in known) / whole_s if known else None


def _gpu_load(samples: Iterable[EnvironmentSample]) -> float | None:
    loads = [sample.gpu_load for sample in samples if sample.gpu_load is not None]
    return float(np.mean(loads)) if loads else None


def foreign_cpu(result: Result, part: Slice) -> float | None:
    """Return the share of the usable CPU cores that others used in a slice; None: not known.

    A count that falls, or has clearly less than the worker alone used, counts something else: a
    core was switched off, or a sandbox has no such counts.
    """
    busy, worker, ours = map(
        _difference, (part.cpu_s.busy, part.cpu_s.worker, part.cpu_s.supervisor)
    )
    if busy is None or worker is None or busy < max(0.0, worker / 2 - _COUNTED_S):
        return None
    return max(0.0, busy - worker - (ours or 0)) / (part.seconds * _cores(result))


def sampler_cpu(result: Result) -> float | None:
    """Return the share of the usable cores that supervisor and sampler used; tegrastats is extra.

    Where blocks with and without the sampler differ by noise only, this bounds its cost.
    """
    pairs = [(_difference(part.cpu_s.supervisor), part.seconds) for part, _ in result.blocks()]
    used = [(cpu_s, seconds) for cpu_s, seconds in pairs if cpu_s is not None]
    cpu_s, seconds = (sum(column) for column in zip(*used, strict=True)) if used else (0.0, 0.0)
    return cpu_s / seconds / _cores(result) if seconds else None


def _cores(result: Result) -> int:
    usable = (result.info or {}).get("usable_cores")  # fewer in a container or under taskset
    return usable if isinstance(usable, int) and usable > 0 else result.probe.cpu.count or 1


def _difference(pair: tuple[float | None, float | None]) -> float | None:
    return None if pair[0] is None or pair[1] is None else pair[1] - pair[0]


def _idle_cpu(result: Result, idle: Span) -> float | None:
    inside = _within(result.samples.environment, idle)
    rows = [(s.t, s.busy_cpu_s) for s in inside if s.busy_cpu_s is not None]
    if len(rows) < 2 or rows[-1][0] <= rows[0][0]:
        return None
    return (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]) / _cores(result)


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


def _most(values: Iterable[Number | None]) -> Number | None:
    return max((value for value in values if value is not None), default=None)


def _mb(kb: int | None) -> float | None:
    return None if kb is None else round(kb / 1024, 2)


def _mb_less(kb: int | None, less_kb: int | None) -> float | None:
    return None if kb is None or less_kb is None else _mb(kb - less_kb)
