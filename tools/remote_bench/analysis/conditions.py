"""What the board was like during the run: temperatures, clocks, throttling, load, memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from remote_bench.analysis.power import Span
from remote_bench.analysis.stats import slope
from remote_bench.tegrastats import parse_line

# vcgencmd get_throttled: bits 0-3 now, the same things since boot in bits 16-19.
_PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_CLOCK_FELL = 0.05
_MEMORY_SCOPE = (
    "worker process; PSS from smaps_rollup, peak from VmHWM (resident, shared pages whole)"
)


def temperatures(samples: Sequence[dict[str, Any]], span: Span) -> dict[str, Any]:
    """Return {"begin", "end", "max", "slope_c_per_min"} by zone over a span; {} without zones."""
    zones: dict[str, list[tuple[float, float]]] = {}
    for sample in _within(samples, span):
        for zone, celsius in sample["celsius"].items():
            if celsius is not None:
                zones.setdefault(zone, []).append((sample["t"], celsius))
    return {zone: _zone(np.array(rows)) for zone, rows in zones.items()}


def _zone(rows: Any) -> dict[str, float]:
    t, celsius = rows[:, 0], rows[:, 1]
    late = t >= (t[0] + t[-1]) / 2
    return {
        "begin": float(celsius[0]),
        "end": float(celsius[-1]),
        "max": float(celsius.max()),
        "slope_c_per_min": 60 * slope(t[late], celsius[late]),
    }


def clocks(samples: Sequence[dict[str, Any]], spans: dict[str, Span]) -> dict[str, Any]:
    """Return by clock the median MHz in each span, and "fell": its fall over the run, a share."""
    names = sorted({name for sample in samples for name in sample["mhz"]})
    return {
        name: {
            **{key: _median(_mhz(samples, span, name)) for key, span in spans.items()},
            "fell": _fall(_mhz(samples, spans["flat_out"], name)),
        }
        for name in names
    }


def _mhz(samples: Sequence[dict[str, Any]], span: Span, name: str) -> list[float]:
    values = (sample["mhz"].get(name) for sample in _within(samples, span))
    return [value for value in values if value is not None]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _fall(values: list[float]) -> float | None:
    third = len(values) // 3
    if not third or not np.median(values[:third]):
        return None
    return 1 - float(np.median(values[-third:]) / np.median(values[:third]))


def throttling(raw: dict[str, Any], span: Span) -> dict[str, Any]:
    """Return {"alerts", "events", "clocks_fell"}: alerts that were on, counters that moved.

    An over-current counter alone is no proof of harm (one Orin logged 27,390 events with its
    clocks unchanged): the measured clocks decide.
    """
    samples = raw["samples"]["environment"]
    alerts = sorted({name for sample in _within(samples, span) for name in sample["alerts"]})
    before, after = raw.get("counters_before") or {}, raw.get("counters_after") or {}
    events = {}
    for name, count in after.items():
        if name == "vcgencmd.throttled":
            alerts += _pi_alerts(before.get(name), count)
        elif count is not None and before.get(name) is not None and count != before[name]:
            events[name] = count - before[name]
    fell = {
        name: clock["fell"]
        for name, clock in clocks(samples, {"flat_out": span}).items()
        if clock["fell"] is not None and clock["fell"] > _CLOCK_FELL
    }
    return {"alerts": alerts, "events": events, "clocks_fell": fell}


def _pi_alerts(before: int | None, after: int | None) -> list[str]:
    if before is None or after is None:
        return []
    since_boot = after & ~before
    return [
        f"Raspberry Pi: {name}"
        for bit, name in _PI_BITS.items()
        if after >> bit & 1 or since_boot >> (bit + 16) & 1
    ]


def foreign_load(raw: dict[str, Any], slice_: dict[str, Any], idle: Span | None) -> dict[str, Any]:
    """Return {"cpu", "idle_cpu", "idle_gpu"}: shares that others used; None where not known."""
    used = {name: _difference(pair) for name, pair in slice_["cpu_s"].items()}
    cpu = None
    if used["busy"] is not None and used["worker"] is not None:
        others_s = used["busy"] - used["worker"] - (used["supervisor"] or 0)
        cpu = max(0.0, others_s) / _cpu_time_s(raw, slice_)
    return {
        "cpu": cpu,
        "idle_cpu": _idle_cpu(raw, idle, _cores(raw)),
        "idle_gpu": _idle_gpu(raw, idle),
    }


def sampler_cpu(raw: dict[str, Any], slice_: dict[str, Any] | None) -> float | None:
    """Return the share of all CPU cores that supervisor and sampler used; tegrastats is extra.

    Where blocks with and without the sampler differ by noise only, this bounds its cost.
    """
    used = _difference(slice_["cpu_s"]["supervisor"]) if slice_ else None
    return None if slice_ is None or used is None else used / _cpu_time_s(raw, slice_)


def _cores(raw: dict[str, Any]) -> int:
    return int(raw["probe"]["cpu"]["count"] or 1)


def _cpu_time_s(raw: dict[str, Any], slice_: dict[str, Any]) -> float:
    return float(slice_["end"] - slice_["begin"]) * _cores(raw)


def _difference(pair: Sequence[float | None]) -> float | None:
    return None if pair[0] is None or pair[1] is None else pair[1] - pair[0]


def _idle_cpu(raw: dict[str, Any], idle: Span | None, cores: int) -> float | None:
    inside = list(_within(raw["samples"]["environment"], idle)) if idle else []
    rows = [(s["t"], s["busy_cpu_s"]) for s in inside if s.get("busy_cpu_s") is not None]
    if len(rows) < 2 or rows[-1][0] <= rows[0][0]:
        return None
    return float((rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]) / cores)


def _idle_gpu(raw: dict[str, Any], idle: Span | None) -> float | None:
    if idle is None:
        return None
    lines = raw["samples"]["tegrastats"]["lines"]
    engines = [parse_line(text).gpu for t, text in lines if idle[0] <= t <= idle[1]]
    loads = [e.load_percent for e in engines if e is not None and e.load_percent is not None]
    return float(np.mean(loads)) / 100 if loads else None


def _within(samples: Iterable[dict[str, Any]], span: Span) -> Iterable[dict[str, Any]]:
    return (sample for sample in samples if span[0] <= sample["t"] <= span[1])


def summarise_memory(raw: dict[str, Any], unified: bool) -> dict[str, Any]:
    """Return the report's "memory", in MB (2^20 bytes); None where the kernel does not tell.

    Args:
        raw: result.json.
        unified: CPU and GPU share the memory, so that what the GPU holds shows in what the whole
            board has less of, and not in the process.
    """
    moments: dict[str, Any] = raw.get("memory") or {}
    workers = [s["worker"] for s in raw["samples"]["environment"] if s.get("worker")]
    readings = [*moments.values(), *workers]
    baseline, pss = _kb(moments, "imported", "pss_kb"), _most(readings, "pss_kb")
    return {
        "scope": _MEMORY_SCOPE,
        "baseline_mb": _mb(baseline),
        "pss_mb": _mb(pss),
        "peak_mb": _mb(_most(readings, "peak_rss_kb")),
        "delta_mb": _mb(None if pss is None or baseline is None else pss - baseline),
        "system_delta_mb": _mb(_system_delta_kb(raw, moments)),
        "unified": unified,
    }


def _system_delta_kb(raw: dict[str, Any], moments: dict[str, Any]) -> int | None:
    before = _kb(moments, "imported", "available_kb")
    samples = [s.get("available_kb") for s in raw["samples"]["environment"]]
    least = min((kb for kb in samples if kb is not None), default=None)
    return None if before is None or least is None else before - least


def _most(readings: list[dict[str, Any]], name: str) -> int | None:
    return max((r[name] for r in readings if r.get(name) is not None), default=None)


def _kb(moments: dict[str, Any], moment: str, name: str) -> int | None:
    value = (moments.get(moment) or {}).get(name)
    return int(value) if value is not None else None


def _mb(kb: int | None) -> float | None:
    return None if kb is None else round(kb / 1024, 2)
