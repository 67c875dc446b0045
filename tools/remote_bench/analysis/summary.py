"""From what the agent wrote on the board to a report: `summarise(raw, context)`.

`raw` is result.json (result.schema.json); a report is described by report.schema.json. A run that
failed gives a report too: what it did not reach is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from fastseg_runtime.engines.engine import precisions
from fastseg_targets.device import Device, load_device, recognise

from remote_bench.analysis import conditions
from remote_bench.analysis.conditions import summarise_memory
from remote_bench.analysis.latency import (
    frame_rate,
    latency_drift,
    sampler_overhead,
    summarise_latency,
)
from remote_bench.analysis.power import EnergyCurve, Span, curves, measure_power
from remote_bench.analysis.schema import SchemaError
from remote_bench.analysis.series import plot_series
from remote_bench.analysis.stats import Floats
from remote_bench.analysis.verdict import judge

SCHEMA = 1


def summarise(raw: dict[str, Any], context: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the report of one run.

    Args:
        raw: result.json of the agent, checked by schema.parse(..., "result").
        context: what the workstation knows, all optional: "run_id", "host", "tool", "created" (ISO
            8601), "device" (a device's name; else it is recognised), "bundle" (an object:
            "name", "sha256", "target", "precision", "macs", "bytes_moved", ...), "flags", "board"
            (what the workstation found on the board before and after). They are copied as they are.

    Raises:
        SchemaError: columns that belong together differ in length.
    """
    _check_columns(raw)
    context = dict(context or {})
    name = context.pop("device", None)
    device = load_device(name) if name else recognise(raw["probe"])
    raw = {**raw, "samples": raw.get("samples") or _NO_SAMPLES}
    report = {**_identity(raw), **context, **_measured(raw, device)}
    report["bound_ms"] = _bound_ms(device, report["bundle"], raw.get("info") or {})
    report["verdict"], report["reasons"] = judge(report)
    return report


def _identity(raw: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdict": "",
        "reasons": [],
        "run_id": None,
        "host": None,
        "tool": None,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle": {},
        "error": raw["error"],
        "flags": raw["request"],
        "log": raw.get("log") or "",
    }


def _measured(raw: dict[str, Any], device: Device) -> dict[str, Any]:
    slices = {part["name"]: part for part in raw["slices"]}
    spans = _spans(raw, slices)
    rails = curves(raw["samples"])
    power, power_reason = _power(raw, rails, device, spans)
    circumstances = _conditions(raw, slices, spans)
    return {
        **_speed(raw, slices),
        "steady": _steady(circumstances["temperatures"], raw, spans),
        "accuracy": raw.get("accuracy") or raw.get("selftest"),
        "load": raw.get("load"),
        "engine": raw.get("info"),
        "memory": summarise_memory(raw, device.unified_memory),
        "power": power,
        "power_reason": power_reason,
        "device": describe_device(device, raw["probe"]),
        "conditions": circumstances,
        "sampler": _sampler(raw, slices),
        "changed": _changed(raw),
        "series": plot_series(raw, rails, device, spans),
    }


def failed_result(
    request: dict[str, Any], probe: dict[str, Any], kind: str, message: str
) -> dict[str, Any]:
    """Return what summarise() takes of a run whose result.json is lost: rebooted, cut, killed."""
    return {
        "schema": SCHEMA,
        "request": {"sampler_hz": 0, **request},
        "probe": probe,
        "phases": [],
        "frames": {},
        "slices": [],
        "memory": {},
        "error": {"kind": kind, "message": message},
    }


_NO_SAMPLES: dict[str, Any] = {
    "power": [],
    "environment": [],
    "tegrastats": {"lines": [], "events": [], "dropped": 0, "failure": ""},
}


def describe_device(device: Device, probe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint of a board for a report."""
    board, system, jetson = probe["board"], probe["system"], probe.get("jetson") or {}
    python, mode = probe["python"], probe.get("power_mode") or {}
    return {
        "name": device.name,
        "description": device.description,
        "model": board["model"],
        "module": board["module"],
        "serial_sha256": board["serial_sha256"],
        "machine": system["machine"],
        "kernel": system["kernel"],
        "distribution": system["distribution"],
        "boot_id": system["boot_id"],
        "euid": system["euid"],
        "l4t": jetson.get("l4t"),
        "jetpack": jetson.get("jetpack"),
        "python": python["version"],
        "modules": python["modules"],
        "packages": probe["packages"],
        "cpu": probe["cpu"]["model"],
        "cpu_count": probe["cpu"]["count"],
        "memory_mb": _mb(probe["memory"]["total_kb"]),
        "power_mode": {key: mode.get(key) for key in ("id", "name", "fan")},
        "settings": probe["settings"],
    }


def _check_columns(raw: dict[str, Any]) -> None:
    for name, columns in raw["frames"].items():
        if len({len(column) for column in columns.values()}) != 1 or not columns["t"]:
            raise SchemaError(f"result.frames.{name}: its columns are empty or differ in length")
    for part in raw["slices"]:
        if part["name"] not in raw["frames"] or part["end"] <= part["begin"]:
            raise SchemaError(f"result.slices: {part['name']!r} has no frames or no duration")
    for series in (raw.get("samples") or {}).get("power") or []:
        rows = {len(row) for row in series["values"]} | {len(series["wraps_at"])}
        if len(series["values"]) != len(series["t"]) or rows - {len(series["rails"])}:
            raise SchemaError(f"result.samples.power: {series['source']} has ragged rows")


def _spans(raw: dict[str, Any], slices: dict[str, Any]) -> dict[str, Span]:
    spans = {name: (part["begin"], part["end"]) for name, part in slices.items()}
    for phase in raw["phases"]:
        if phase["name"].startswith("idle_") and phase["end"] is not None:
            spans[phase["name"]] = (phase["begin"], phase["end"])
    return {name: span for name, span in spans.items() if span[1] > span[0]}


def _speed(raw: dict[str, Any], slices: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"fps": None, "fps_ci95": None, "latency_ms": None, "paced": None}
    if "flat_out" in slices:
        frames = raw["frames"]["flat_out"]
        result |= frame_rate(slices["flat_out"], frames)
        result["latency_ms"] = summarise_latency(frames)
    if "paced" in slices:
        part, frames = slices["paced"], raw["frames"]["paced"]
        result["paced"] = {
            "wanted_fps": part["fps"],
            "fps": frame_rate(part, frames)["fps"],
            "frames": part["frames"],
            "late": part["late"],
            "latency_ms": summarise_latency(frames),
        }
    return result


def _power(
    raw: dict[str, Any], rails: list[EnergyCurve], device: Device, spans: dict[str, Span]
) -> tuple[dict[str, Any] | None, str]:
    if "flat_out" not in spans:
        return None, "the run did not get that far"
    return measure_power(rails, device, spans, _done_times(raw))


def _done_times(raw: dict[str, Any]) -> Floats:
    done = [
        t + total_ms / 1e3
        for frames in raw["frames"].values()
        for t, total_ms in zip(frames["t"], frames["total_ms"], strict=True)
    ]
    return np.sort(np.array(done, dtype=np.float64))


def _bound_ms(device: Device, bundle: Mapping[str, Any], info: Mapping[str, Any]) -> float | None:
    precision = bundle.get("precision") or info.get("precision")
    macs, bytes_moved = bundle.get("macs"), bundle.get("bytes_moved") or 0
    if macs is None or precision not in precisions():
        return None
    return device.bound_ms(macs, bytes_moved, precision)


def _conditions(
    raw: dict[str, Any], slices: dict[str, Any], spans: dict[str, Span]
) -> dict[str, Any]:
    samples = raw["samples"]["environment"]
    result: dict[str, Any] = {
        "power_mode": raw.get("power_mode_before"),
        "temperatures": None,
        "clocks": None,
        "throttling": None,
        "foreign_load": None,
    }
    if "flat_out" not in spans:
        return result
    run = spans["flat_out"]
    return result | {
        "temperatures": conditions.temperatures(samples, run),
        "clocks": conditions.clocks(samples, spans),
        "throttling": conditions.throttling(raw, run),
        "foreign_load": conditions.foreign_load(raw, slices["flat_out"], spans.get("idle_before")),
    }


def _sampler(raw: dict[str, Any], slices: dict[str, Any]) -> dict[str, Any]:
    feed = raw["samples"]["tegrastats"]
    failed = feed["failure"] if raw["probe"]["tools"].get("tegrastats") else ""
    return {
        "hz": raw["request"]["sampler_hz"],
        "overhead": sampler_overhead(raw["slices"]),
        "cpu": conditions.sampler_cpu(raw, slices.get("flat_out")),
        "tegrastats_failure": failed,
        "tegrastats_events": feed["events"],
        "dropped_lines": feed["dropped"],
    }


def _changed(raw: dict[str, Any]) -> dict[str, Any]:
    boot_id, after = raw["probe"]["system"]["boot_id"], raw.get("boot_id_after")
    modes = [_mode(raw.get(f"power_mode_{when}")) for when in ("before", "after")]
    clock = raw.get("clock")
    step = None
    if clock:
        wall, monotonic = (clock["end"][k] - clock["begin"][k] for k in ("wall_s", "monotonic_s"))
        step = wall - monotonic
    return {
        "rebooted": bool(boot_id and after and boot_id != after),
        "power_mode": modes if raw.get("power_mode_after") and modes[0] != modes[1] else None,
        "not_restored": _not_restored(raw),
        "clock_step_s": step,
    }


def _mode(mode: dict[str, Any] | None) -> str | None:
    return f"{mode['name']} ({mode['id']})" if mode else None


def _not_restored(raw: dict[str, Any]) -> list[str]:
    before, after = raw.get("inventory_before") or {}, raw.get("inventory_after") or {}
    if not before or not after:
        return []
    found = [
        f"{path} was {value}, is {after['settings'].get(path)}"
        for path, value in before["settings"].items()
        if after["settings"].get(path) != value
    ]
    if _mode(before["power_mode"]) != _mode(after["power_mode"]):
        found.append(
            f"power mode was {_mode(before['power_mode'])}, is {_mode(after['power_mode'])}"
        )
    left = sorted(set(after["processes"]) - set(before["processes"]))
    return found + [f"process {name} still runs" for name in left]


def _steady(
    zones: dict[str, Any] | None, raw: dict[str, Any], spans: dict[str, Span]
) -> dict[str, Any] | None:
    if "flat_out" not in spans or zones is None:
        return None
    hottest = max(zones, key=lambda zone: zones[zone]["max"], default=None)
    return {
        "latency_drift": latency_drift(raw["frames"]["flat_out"]),
        "hottest": hottest,
        "celsius_per_min": zones[hottest]["slope_c_per_min"] if hottest else None,
    }


def _mb(kb: int | None) -> float | None:
    return None if kb is None else round(kb / 1024, 1)
