"""The verdict: valid, valid_with_notes or invalid, and every reason in words and as a code.

Each rule looks at a report without its verdict and gives reasons or none. Limits are ours; they
stand in one table, each with what it was chosen by: sense and arithmetic where nothing is quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fastseg_runtime.arrays.stats import PERCENTILES, frames_needed

from remote_bench.analysis.power import Power
from remote_bench.analysis.report import Reason, Report, Verdict
from remote_bench.analysis.result import MOST_NUMBER

LIMITS: dict[str, float] = {
    # Where the agent names none. A sound int8 gave 0.970 at least, one with a doubled weight less
    # than 0.93 in 14 of 18 cases: see gate_agreement of fastseg_runtime.engines.engine.
    "agreement": 0.9,
    # Of the median, over the run. A clock that steps down in the middle takes a tenth and more of
    # the speed (an Orin's GPU has ten steps); of half of that nobody takes two runs for different.
    "latency_drift": 0.05,
    # Of the clock that the power mode allows the GPU: half a step of an Orin's.
    "gpu_cap": 0.05,
    # Of two sensors of the same rail. INA steps of 40 mW are 1 % of 4 W; a wrong rail is far off.
    "sources_differ": 0.1,
    # Of the rate, in the second half of a soak: as for the drift of a run, with minutes to tell.
    "soak_drift": 0.02,
    # In the second half of the run. Going on like that for ten minutes is 20 C more, which brings
    # a board of 60 C to where boards throttle: the number is one of a cold board.
    "celsius_per_min": 2.0,
    # Of the usable cores: on four of them, almost half of one that was not ours to use.
    "foreign_cpu": 0.1,
    # Of the usable cores, or of the GPU: on four cores more than one. The number is then one of the
    # two programs together; a run of 84 % gave a quarter of the speed.
    "foreign_invalid": 0.3,
    # GPU load while we were idle, or of a run on the CPU, which shares memory and heat with it.
    "foreign_gpu": 0.1,
    # Of the frame rate: what docs/remote_bench.md promises that sampling costs at most.
    "sampler_overhead": 0.01,
    # Of the run. The twentieth that is not seen may have half the power or twice that of the rest:
    # then the mean is wrong by 2.5 to 5 %, as much as we call drift.
    "power_coverage": 0.95,
    # Of the mean power: the energy above idle is unsure by half of it on either side, and of a
    # board whose idle takes half of its power that is a tenth.
    "idle_drift": 0.1,
    # Of a paced run: where more than one in a hundred is late, p99 is.
    "late_frames": 0.01,
    # Wall clock against monotonic clock. ntpd and timesyncd slew a clock by 0.5 ms a second at
    # most: what has moved by more within minutes was set.
    "clock_step_s": 1.0,
    "least_frames": frames_needed(PERCENTILES["p90"]),
}
_NVMAP = re.compile(r"NvMap[^\n]*error 12\b")  # of a Jetson's driver, in the worker's log
Rule = Callable[[Report], Iterator[Reason]]


def judge(report: Report) -> tuple[Verdict, tuple[Reason, ...]]:
    """Return the verdict and the reasons, gravest first.

    Args:
        report: everything of a report but its verdict.
    """
    reasons = [reason for rule in RULES for reason in rule(report)]
    order = ("invalid", "note", "info")
    reasons.sort(key=lambda reason: order.index(reason.severity))
    severities = {reason.severity for reason in reasons}
    verdict: Verdict = "valid_with_notes" if "note" in severities else "valid"
    return "invalid" if "invalid" in severities else verdict, tuple(reasons)


def _failed(report: Report) -> Iterator[Reason]:
    if error := report.error:
        yield Reason(error.kind, "invalid", error.message)
    elif report.fps is None:
        yield Reason("no_frames", "invalid", "no frame was timed")


def _board_changed(report: Report) -> Iterator[Reason]:
    changed = report.changed
    if changed.rebooted:
        yield Reason("rebooted", "invalid", "the board rebooted during the run")
    in_the_run = report.conditions.changed
    modes = [text for text in in_the_run if text.startswith("power mode")]
    if changed.power_mode or modes:
        text = modes[0] if modes else "power mode from {} to {}".format(*changed.power_mode or ())
        yield Reason("power_mode_changed", "invalid", f"changed during the run: {text}")
    if settings := [text for text in in_the_run if text not in modes]:
        more = f" and {len(settings) - 1} more" if len(settings) > 1 else ""
        yield Reason("settings_changed", "note", f"changed during the run: {settings[0]}{more}")
    if changed.not_restored:
        text = "the board is not as it was: " + "; ".join(changed.not_restored)
        yield Reason("not_restored", "note", text)
    step_s = changed.clock_step_s or 0.0
    if abs(step_s) > LIMITS["clock_step_s"]:
        text = f"the board's wall clock stepped by {step_s:.1f} s; durations do not depend on it"
        yield Reason("clock_stepped", "info", text)


def _output(report: Report) -> Iterator[Reason]:
    accuracy = report.accuracy
    agreement = accuracy.agreement if accuracy else None
    if accuracy and agreement is not None:
        required = LIMITS["agreement"] if accuracy.required is None else accuracy.required
        if agreement < required:
            text = f"the timed run's masks agree with PyTorch's in {agreement:.1%} of the pixels, "
            text += f"{required:.1%} are needed"
            yield Reason("wrong_output", "invalid", text)
    elif report.fps is not None and (accuracy is None or accuracy.miou is None):
        text = "nothing says whether the timed run's masks are right: no reference and no labels"
        yield Reason("output_not_checked", "info", text)


def _short_of_memory(report: Report) -> Iterator[Reason]:
    count = len(_NVMAP.findall(report.log))
    if count and report.error is None:
        text = (
            f"the GPU got no memory {count} times (NvMap error 12): a builder passes over kernels "
        )
        text += "then, and the engine may be slower than one that is built after a reboot"
        yield Reason("gpu_memory_short", "note", text)


def _desktop(report: Report) -> Iterator[Reason]:
    if running := report.device.desktop:
        text = (
            f"a desktop runs ({', '.join(running)}), which takes memory and time of CPU and GPU; "
        )
        text += "sudo systemctl isolate multi-user.target ends it until the next boot"
        # A Jetson shares one memory and one GPU with it: 20 % of the rate were seen.
        yield Reason("desktop_runs", "note" if report.device.l4t else "info", text)


def _tool(report: Report) -> Iterator[Reason]:
    engine = report.engine or {}
    if left_out := engine.get("left_out"):
        yield Reason("inference_alone", "note", f"{engine['backend']} timed {left_out}")
    for said in engine.get("delegates") or ():
        if "partially" in said or "not be" in said:
            yield Reason("delegate_partial", "note", f"{engine['backend']} said: {said}")


def _steady(report: Report) -> Iterator[Reason]:
    if steady := report.steady:
        low, high = steady.latency_drift_ci95 or (0.0, 0.0)
        if max(low, -high) > LIMITS["latency_drift"]:
            text = f"not settled: the median latency moved by {steady.latency_drift:+.1%} over the "
            yield Reason(
                "not_settled", "note", f"{text}run (95 % interval {low:+.1%} to {high:+.1%})"
            )
        slope_ci95 = steady.celsius_per_min_ci95
        if slope_ci95 and slope_ci95[0] > LIMITS["celsius_per_min"]:
            text = f"{steady.hottest} still rises by {steady.celsius_per_min:.1f} C a minute: "
            text += "what a board keeps up for long, --soak tells"
            yield Reason("still_heating", "info", text)
    if report.latency_ms and report.latency_ms.count < LIMITS["least_frames"]:
        count = report.latency_ms.count
        text = f"{count} frames support no percentile beyond the median; run for longer"
        yield Reason("few_frames", "note", text)


def _throttled(report: Report) -> Iterator[Reason]:
    throttling = report.conditions.throttling
    if throttling is None:
        return
    fell, events = throttling.clocks_fell, throttling.events
    clocks = ", ".join(f"{name} by {share:.0%}" for name, share in sorted(fell.items()))
    if throttling.alerts:
        text = f"throttled: {', '.join(throttling.alerts)}"
        yield Reason("throttled", "note", text + (f"; clocks fell: {clocks}" if clocks else ""))
    elif events and fell:
        yield Reason("throttled", "note", f"throttled: {events}; clocks fell: {clocks}")
    elif fell:
        yield Reason("clocks_fell", "note", f"clocks fell during the run: {clocks}")
    elif events:
        text = f"over-current or throttle events, clocks unchanged: {events}"
        yield Reason("throttle_events", "info", text)


def _gpu_capped(report: Report) -> Iterator[Reason]:
    cap = report.conditions.gpu_cap
    if cap is None:
        return
    least_mhz, mode = (1 - LIMITS["gpu_cap"]) * cap.mode_mhz, report.conditions.power_mode
    name = mode.name if mode else "?"
    allowed = f"its power mode {name} allows {cap.mode_mhz:.0f} MHz"
    if cap.limit_mhz is not None and cap.limit_mhz < least_mhz:
        text = f"the GPU is limited to {cap.limit_mhz:.0f} MHz (max_freq), though {allowed}"
        yield Reason("gpu_capped", "note" if cap.in_use else "info", text)
    elif cap.seen_mhz is not None and cap.seen_mhz < least_mhz:
        text = f"the GPU never ran above {cap.seen_mhz:.0f} MHz, though {allowed}"
        if cap.in_use or cap.limit_mhz is None:  # else an idle GPU, which is free to run faster
            yield Reason("gpu_capped", "note" if cap.in_use else "info", text)


def _soaked(report: Report) -> Iterator[Reason]:
    soak = report.soak
    if soak and not soak.steady:
        text = f"not steady after {soak.minutes:.1f} minutes: the sustained rate may be lower still"
        yield Reason("not_sustained", "note", text)


def _watched(report: Report) -> Iterator[Reason]:
    for what, why in report.not_watched.items():
        yield Reason("not_watched", "info", f"{what} could not be watched: {why}")


def _trusted(report: Report) -> Iterator[Reason]:
    for text in report.weakened or ():
        yield Reason("host_key_unseen", "info", text)


def _foreign(report: Report) -> Iterator[Reason]:
    load, allowed = report.conditions.foreign_load, bool(report.flags.get("allow_busy"))
    if load is None:
        return
    if allowed and (load.before or 0.0) > LIMITS["foreign_cpu"]:
        text = f"a busy board, measured all the same (--allow-busy): others used {load.before:.0%} "
        yield Reason(
            "busy_board", "note", f"{text}of the usable CPU cores before it: {', '.join(load.by)}"
        )
    parts = {"run": load.cpu, **load.later}
    cores = "of the usable CPU cores during the"
    found = (
        *(("foreign_load", "foreign_cpu", parts[part], f"{cores} {part}") for part in parts),
        ("foreign_gpu_load", "foreign_gpu", load.idle_gpu, "of the GPU before the run"),
        ("foreign_gpu_load", "foreign_gpu", load.gpu, "of the GPU during a run on the CPU"),
    )
    for code, limit, share, what in found:
        if share is not None and share > LIMITS[limit]:
            grave = share > LIMITS["foreign_invalid"] and not allowed
            yield Reason(code, "invalid" if grave else "note", f"others used {share:.0%} {what}")


def _sampler(report: Report) -> Iterator[Reason]:
    overhead = report.sampler.overhead
    if overhead and overhead.fraction > LIMITS["sampler_overhead"]:
        sure = overhead.ci95 and overhead.ci95[0] > LIMITS["sampler_overhead"]
        text = f"sampling cost {overhead.fraction:.1%} of the frame rate"
        text += "" if sure else ", within what the noise of the board can explain"
        yield Reason("sampler_overhead", "note" if sure else "info", text)
    if failure := report.sampler.tegrastats_failure:
        yield Reason("tegrastats_failed", "info", failure)


def _power(report: Report) -> Iterator[Reason]:
    power, wall = report.power, report.wall_power
    if report.wall_power_reason:
        yield Reason("meter_failed", "note", report.wall_power_reason)
    elif wall:
        yield from _power_gaps(wall, "the meter told of")
    if power is None:
        yield Reason("no_power", "info", f"no power: {report.power_reason}")
        return
    yield from _power_gaps(power, "power was sampled for")
    if power.breaks:
        text = f"an energy counter stepped {power.breaks} times as no power makes it: it began "
        text += "anew (a suspend, a driver), or misread; what it took there is taken as the mean"
        yield Reason("power_gaps", "note", text)
    for rail, share in power.cross_check.items():
        if abs(share) > LIMITS["sources_differ"]:
            more = f"{share:+.0%} of" if share < MOST_NUMBER else "power on"
            text = f"tegrastats shows {more} {rail} against what its sensor says"
            yield Reason("power_sources_differ", "note", text)
    drift = power.idle.drift_w
    if drift is not None and abs(drift) > LIMITS["idle_drift"] * abs(power.flat_out.mean_w):
        text = f"idle power moved by {drift:+.2f} W between before and after the run"
        yield Reason("idle_drift", "note", text)


def _power_gaps(power: Power, told: str) -> Iterator[Reason]:
    for part, share in (("run", power.coverage), ("paced run", power.paced_coverage)):
        if share is not None and share < LIMITS["power_coverage"]:
            yield Reason("power_gaps", "note", f"{told} {share:.0%} of the {part} only")


def _paced(report: Report) -> Iterator[Reason]:
    paced = report.paced
    if paced and paced.late > LIMITS["late_frames"] * paced.frames:
        text = f"{paced.late} of {paced.frames} frames came late at {paced.wanted_fps:g} FPS"
        yield Reason("paced_late", "note", text)


def _bound(report: Report) -> Iterator[Reason]:
    bound = report.bound_ms
    infer = report.latency_ms.parts.infer_ms if report.latency_ms else None
    if bound is not None and infer is not None and infer < bound:
        text = (
            f"inference took {infer:.2f} ms, less than the {bound:.2f} ms that the device's table "
            "says is possible: the table or the measurement is wrong"
        )
        yield Reason("faster_than_possible", "note", text)


RULES: tuple[Rule, ...] = (
    _failed,
    _board_changed,
    _output,
    _tool,
    _short_of_memory,
    _desktop,
    _steady,
    _throttled,
    _gpu_capped,
    _soaked,
    _watched,
    _trusted,
    _foreign,
    _sampler,
    _power,
    _paced,
    _bound,
)
