"""From what the agent wrote on the board to a report: `summarise(result)`.

A run that failed gives a report too: what it did not reach is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from fastseg_runtime.arrays.stats import percentiles
from fastseg_runtime.engines.engine import precisions
from fastseg_targets.device import Device, recognise

from remote_bench.analysis.conditions import (
    ZoneCelsius,
    conditions,
    foreign_cpu,
    memory,
    sampler_cpu,
    uses_gpu,
    uses_nvidia,
    watched,
)
from remote_bench.analysis.frame_times import (
    frame_rate,
    frame_rate_ci95,
    latency_drift,
    sampler_cost,
    summarise_latency,
)
from remote_bench.analysis.power import (
    EnergyCurve,
    Power,
    curves,
    mean_watts,
    measure_power,
    measure_wall_power,
    power_series,
    unread,
)
from remote_bench.analysis.report import (
    SCHEMA,
    Block,
    BundleFacts,
    Changes,
    Fingerprint,
    PacedRun,
    Report,
    SamplerFacts,
    Series,
    Steadiness,
)
from remote_bench.analysis.result import (
    Accuracy,
    EnvironmentSample,
    Frames,
    JetsonProbe,
    PowerMode,
    Probe,
    Result,
    Span,
)
from remote_bench.analysis.soak import Watts, summarise_soak
from remote_bench.analysis.stats import Floats
from remote_bench.analysis.verdict import judge

# What is said to be unwatched; of power there is a reason of its own.
WATCHED = ("throttling", "temperatures", "GPU load")


def summarise(
    result: Result,
    *,
    device: Device | None = None,
    bundle: BundleFacts | None = None,
    run_id: str | None = None,
    host: str | None = None,
    address: str | None = None,
    tool: str | None = None,
    weakened: tuple[str, ...] | None = None,
) -> Report:
    """Return the report of one run.

    Args:
        result: what the agent wrote, or failed_result().
        device: the board; else it is recognised.
        bundle: what was measured.
        run_id: of the run; this and what follows stands in the report as it is.
        host: as the user named it.
        address: where that is.
        tool: what measured, with its version.
        weakened: what took from the trust that it was this board.
    """
    board = device or recognise(dataclasses.asdict(result.probe))
    spans, found = result.spans(), conditions(result, board.peak.gpu_mhz)
    bound_ms, bound_basis = _bound(board, facts := bundle or BundleFacts(), result)
    timed, blocks = result.frames.get("flat_out"), result.blocks()
    rails = curves(result.samples)
    power, power_reason = None, "the run did not get that far"
    wall, wall_reason = None, None
    if blocks:
        run = (board, spans, _done_times(result), [(p.begin, p.end) for p, _ in blocks])
        power, power_reason = measure_power(rails, *run)
        if power is not None and (power_reason := _is_not_all(power, board, result)):
            power, rails = None, []
        wall, wall_reason = measure_wall_power(result.meter, *run)

    def watts(some: Sequence[Span]) -> tuple[float | None, ...]:
        return mean_watts(rails, board, spans["flat_out"], some)

    interval, basis = frame_rate_ci95(blocks) if blocks else (None, "")
    report = Report(
        schema=SCHEMA,
        verdict="valid",
        reasons=(),
        run_id=run_id,
        host=host,
        tool=tool,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        bundle=facts,
        error=result.error,
        flags=result.request,
        log=result.log,
        fps=frame_rate(*(part for part, _ in blocks)) if blocks else None,
        fps_ci95=interval,
        fps_ci95_basis=basis,
        blocks=_blocks(result, watts) if blocks else (),
        not_watched=_not_watched(result),
        soak=summarise_soak(result, watts) if blocks else None,
        latency_ms=summarise_latency(timed) if blocks and timed else None,
        paced=_paced(result),
        steady=_steady(found.temperatures, timed),
        accuracy=_accuracy(result),
        load=result.load,
        engine=result.info,
        memory=memory(result, board.unified_memory),
        power=power,
        power_reason=power_reason,
        wall_power=wall,
        wall_power_reason=wall_reason,
        device=_fingerprint(board, result.probe),
        conditions=found,
        sampler=_sampler(result),
        changed=_changes(result),
        series=_series(result, rails, board, spans),
        bound_ms=bound_ms,
        bound_basis=bound_basis,
        address=address,
        weakened=weakened or None,
    )
    verdict, reasons = judge(report)
    return dataclasses.replace(report, verdict=verdict, reasons=reasons)


def _is_not_all(power: Power, board: Device, result: Result) -> str:
    """Return why a power lacks what the network took; "" where it does not."""
    if power.scope == "gpu" and uses_gpu(result) is False:
        return "only the GPU has a sensor, and the network ran on the CPU"
    # Intel's graphics are part of the processor's package; NVIDIA's are not, unless on a Jetson.
    if power.scope == "soc" and uses_nvidia(result) and not board.unified_memory:
        return "the network ran on a GPU that has no sensor here"
    lost = unread(result.samples, board.power, power)
    return f"no reading of {', '.join(lost)}" if lost else ""


def _fingerprint(device: Device, probe: Probe) -> Fingerprint:
    board, total_kb = probe.board, probe.memory.total_kb
    return Fingerprint(
        name=device.name,
        description=device.description,
        model=board.model,
        module=board.module,
        serial_sha256=board.serial_sha256,
        **vars(probe.system),
        **vars(probe.jetson or JetsonProbe()),
        python=probe.python.version,
        modules=probe.python.modules,
        packages=probe.packages,
        cpu=probe.cpu.model,
        cpu_count=probe.cpu.count,
        memory_mb=None if total_kb is None else round(total_kb / 1024, 1),
        power_mode=probe.power_mode or PowerMode(),
        settings=probe.settings,
        sku=device.is_sku,
        chips_mb=device.memory_mb,
        desktop=probe.desktop,
        notes=device.notes,
        not_measured=device.not_measured,
    )


def _not_watched(result: Result) -> dict[str, str]:
    """Return what the agent found no way to watch, and what would help."""
    rows = {str(row["what"]): row for row in result.probe.readable if not row["ok"]}
    found = {
        what: str(rows[what]["fix"] or rows[what]["detail"] or "Linux shows none here")
        for what in WATCHED
        if what in rows
    }
    if any(foreign_cpu(result, part) is None for part, _ in result.blocks()):
        found["CPU load of others"] = "/proc/stat has no counts, as in a sandbox, or lost a core's"
    return found


def _blocks(result: Result, watts: Watts) -> tuple[Block, ...]:
    blocks = result.blocks()
    return tuple(
        Block(
            begin=round(part.begin - blocks[0][0].begin, 3),
            seconds=part.seconds,
            frames=part.frames,
            fps=frame_rate(part),
            latency_ms=percentiles(np.array(frames.total_ms)),
            mean_w=mean_w,
            foreign_cpu=foreign_cpu(result, part),
        )
        for (part, frames), mean_w in zip(
            blocks, watts([(part.begin, part.end) for part, _ in blocks]), strict=True
        )
    )


def _accuracy(result: Result) -> Accuracy | None:
    ran, tested = result.accuracy, result.selftest
    if ran and tested and ran.agreement is None:  # PyTorch never saw frames of the user's own
        return dataclasses.replace(ran, agreement=tested.agreement, required=tested.required)
    return ran or tested


def _paced(result: Result) -> PacedRun | None:
    blocks = result.blocks("paced")
    if not blocks:
        return None
    part, frames = blocks[0]
    return PacedRun(
        wanted_fps=part.fps or 0.0,
        fps=frame_rate(part),
        frames=part.frames,
        late=part.late,
        latency_ms=summarise_latency(frames),
    )


def _done_times(result: Result) -> Floats:
    columns = [np.array(f.t) + np.array(f.total_ms) / 1e3 for f in result.frames.values()]
    return np.sort(np.concatenate(columns))


def _bound(device: Device, bundle: BundleFacts, result: Result) -> tuple[float | None, str | None]:
    """Return the roofline bound in ms and whose clocks it is of: those of the mode that is set."""
    precision = bundle.precision or (result.info or {}).get("precision")
    if bundle.macs is None or precision not in precisions():
        return None, None
    mode, basis = result.power_mode_before or result.probe.power_mode, "of its highest clocks"
    if mode and (mode.gpu_mhz or mode.emc_mhz) and device.peak.gpu_mhz:
        device = dataclasses.replace(device, peak=device.peak.at(mode.gpu_mhz, mode.emc_mhz))
        basis = f"of power mode {mode.name}, GPU at {device.peak.gpu_mhz:.0f} MHz"
    elif mode:
        basis += f": those of power mode {mode.name} are not known"
    return device.bound_ms(bundle.macs, bundle.bytes_moved or 0, precision), basis


def _steady(zones: dict[str, ZoneCelsius] | None, frames: Frames | None) -> Steadiness | None:
    if zones is None or frames is None:
        return None
    hottest = max(zones, key=lambda zone: zones[zone].max, default=None)
    heat, (drift, drift_ci95) = zones.get(hottest or ""), latency_drift(frames)
    return Steadiness(
        latency_drift=drift,
        hottest=hottest,
        celsius_per_min=heat.slope_c_per_min if heat else None,
        latency_drift_ci95=drift_ci95,
        celsius_per_min_ci95=heat.slope_ci95 if heat else None,
    )


def _sampler(result: Result) -> SamplerFacts:
    feed = result.samples.tegrastats
    return SamplerFacts(
        hz=result.request["sampler_hz"],
        overhead=sampler_cost(result.slices),
        cpu=sampler_cpu(result),
        tegrastats_failure=feed.failure if result.probe.tools.get("tegrastats") else "",
        dropped_lines=feed.dropped,
    )


def _changes(result: Result) -> Changes:
    boot_id, after = result.probe.system.boot_id, result.boot_id_after
    modes = _mode(result.power_mode_before), _mode(result.power_mode_after)
    step = None
    if clock := result.clock:
        wall_s = clock.end.wall_s - clock.begin.wall_s
        step = wall_s - (clock.end.monotonic_s - clock.begin.monotonic_s)
    return Changes(
        rebooted=bool(boot_id and after and boot_id != after),
        power_mode=modes if modes[1] and modes[0] != modes[1] else None,
        not_restored=tuple(_not_restored(result)),
        clock_step_s=step,
    )


def _mode(mode: PowerMode | None) -> str | None:
    return f"{mode.name} ({mode.id})" if mode else None


def _not_restored(result: Result) -> list[str]:
    before, after = result.inventory_before, result.inventory_after
    if before is None or after is None:
        return []
    found = [
        f"{path} was {value}, is {after.settings.get(path)}"
        for path, value in before.settings.items()
        if after.settings.get(path) != value
    ]
    modes = _mode(before.power_mode), _mode(after.power_mode)
    if modes[0] != modes[1]:
        found.append(f"power mode was {modes[0]}, is {modes[1]}")
    left = sorted(set(after.processes) - set(before.processes))
    return found + [f"process {name} still runs" for name in left]


def _series(
    result: Result, rails: list[EnergyCurve], device: Device, spans: dict[str, Span]
) -> Series:
    run = spans.get("flat_out")
    if run is None:
        return Series({}, None, {}, {}, {})
    zero, samples = run[0], watched(result)
    shown = ("idle_before", "flat_out", "paced", "soak", "idle_after")
    return Series(
        frames={
            name: dataclasses.replace(columns, t=tuple(round(t - zero, 6) for t in columns.t))
            for name, columns in result.frames.items()
            if name != "soak"  # its curve has what there is to see, and an hour of frames is long
        },
        power=power_series(rails, device, run),
        celsius=_columns(samples, [sample.celsius for sample in samples], zero),
        mhz=_columns(samples, [sample.mhz for sample in samples], zero),
        spans={
            name: (round(spans[name][0] - zero, 3), round(spans[name][1] - zero, 3))
            for name in shown
            if name in spans
        },
    )


def _columns(
    samples: tuple[EnvironmentSample, ...], rows: list[dict[str, float | None]], zero: float
) -> dict[str, tuple[float | None, ...]]:
    names = sorted({name for row in rows for name in row})
    t = tuple(round(sample.t - zero, 3) for sample in samples)
    return {"t": t, **{name: tuple(row.get(name) for row in rows) for name in names}}
