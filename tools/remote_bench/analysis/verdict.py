"""The verdict: valid, valid_with_notes or invalid, and every reason in words and as a code.

Each rule looks at a report without its verdict and gives a reason or none. Limits are ours; they
stand in one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

VALID, WITH_NOTES, INVALID = "valid", "valid_with_notes", "invalid"

LIMITS = {
    "agreement": 0.9,  # of the timed run's masks with PyTorch's, where the bundle says nothing
    "latency_drift": 0.05,  # of the median, over the run
    "celsius_per_min": 2.0,  # in the second half of the run
    "foreign_cpu": 0.1,  # of all cores
    "foreign_gpu": 0.1,  # GPU load while we were idle
    "sampler_overhead": 0.01,  # of the frame rate
    "power_coverage": 0.95,  # of the run
    "idle_drift": 0.1,  # of the mean power
    "late_frames": 0.01,  # of a paced run
    "clock_step_s": 1.0,  # wall clock against monotonic clock
    "least_frames": 64,  # what p90 needs
}


@dataclass(frozen=True)
class Reason:
    """Why a report is not plainly valid. severity: "invalid", "note" or "info"."""

    code: str
    severity: str
    message: str


Rule = Callable[[dict[str, Any]], Iterator[Reason]]


def judge(report: dict[str, Any]) -> tuple[str, list[dict[str, str]]]:
    """Return the verdict and the reasons, gravest first.

    Args:
        report: everything of a report but its verdict.
    """
    reasons = [reason for rule in RULES for reason in rule(report)]
    order = ("invalid", "note", "info")
    reasons.sort(key=lambda reason: order.index(reason.severity))
    severities = {reason.severity for reason in reasons}
    verdict = INVALID if "invalid" in severities else WITH_NOTES if "note" in severities else VALID
    return verdict, [asdict(reason) for reason in reasons]


def _failed(report: dict[str, Any]) -> Iterator[Reason]:
    if error := report["error"]:
        yield Reason(error["kind"], "invalid", error["message"])
    if not report["error"] and report["fps"] is None:
        yield Reason("no_frames", "invalid", "no frame was timed")


def _board_changed(report: dict[str, Any]) -> Iterator[Reason]:
    changed = report["changed"]
    if changed["rebooted"]:
        yield Reason("rebooted", "invalid", "the board rebooted during the run")
    if changed["power_mode"]:
        before, after = changed["power_mode"]
        text = f"the power mode changed during the run, from {before} to {after}"
        yield Reason("power_mode_changed", "invalid", text)
    if changed["not_restored"]:
        text = "the board is not as it was: " + "; ".join(changed["not_restored"])
        yield Reason("not_restored", "note", text)
    step = changed["clock_step_s"]
    if abs(step or 0) > LIMITS["clock_step_s"]:
        text = f"the board's wall clock stepped by {step:.1f} s; durations do not depend on it"
        yield Reason("clock_stepped", "info", text)


def _output(report: dict[str, Any]) -> Iterator[Reason]:
    accuracy = report["accuracy"] or {}
    agreement, required = accuracy.get("agreement"), accuracy.get("required")
    required = LIMITS["agreement"] if required is None else required
    if agreement is not None and agreement < required:
        text = f"the timed run's masks agree with PyTorch's in {agreement:.1%} of the pixels, "
        text += f"{required:.1%} are needed"
        yield Reason("wrong_output", "invalid", text)
    if report["fps"] is not None and agreement is None and accuracy.get("miou") is None:
        text = "nothing says whether the timed run's masks are right: no reference and no labels"
        yield Reason("output_not_checked", "info", text)


def _steady(report: dict[str, Any]) -> Iterator[Reason]:
    steady = report["steady"] or {}
    drift = steady.get("latency_drift")
    if drift is not None and abs(drift) > LIMITS["latency_drift"]:
        text = f"not settled: the median latency moved by {drift:+.1%} over the run"
        yield Reason("not_settled", "note", text)
    slope = steady.get("celsius_per_min")
    if slope is not None and slope > LIMITS["celsius_per_min"]:
        text = f"not settled: {steady['hottest']} still rises by {slope:.1f} C a minute"
        yield Reason("still_heating", "note", text)
    count = (report["latency_ms"] or {}).get("count")
    if count is not None and count < LIMITS["least_frames"]:
        text = f"{count} frames support no percentile beyond the median; run for longer"
        yield Reason("few_frames", "note", text)


def _throttled(report: dict[str, Any]) -> Iterator[Reason]:
    throttling = report["conditions"]["throttling"] or {}
    fell = throttling.get("clocks_fell") or {}
    clocks = ", ".join(f"{name} by {share:.0%}" for name, share in sorted(fell.items()))
    if alerts := throttling.get("alerts"):
        text = f"throttled: {', '.join(alerts)}" + (f"; clocks fell: {clocks}" if clocks else "")
        yield Reason("throttled", "note", text)
    elif throttling.get("events") and fell:
        text = f"throttled: {throttling['events']}; clocks fell: {clocks}"
        yield Reason("throttled", "note", text)
    elif fell:
        yield Reason("clocks_fell", "note", f"clocks fell during the run: {clocks}")
    elif throttling.get("events"):
        text = f"over-current or throttle events, clocks unchanged: {throttling['events']}"
        yield Reason("throttle_events", "info", text)


def _foreign(report: dict[str, Any]) -> Iterator[Reason]:
    load = report["conditions"]["foreign_load"] or {}
    if (load.get("cpu") or 0) > LIMITS["foreign_cpu"]:
        text = f"other processes used {load['cpu']:.0%} of all CPU cores during the run"
        yield Reason("foreign_load", "note", text)
    if (load.get("idle_gpu") or 0) > LIMITS["foreign_gpu"]:
        text = f"somebody else used {load['idle_gpu']:.0%} of the GPU before the run"
        yield Reason("foreign_gpu_load", "note", text)


def _sampler(report: dict[str, Any]) -> Iterator[Reason]:
    overhead = report["sampler"]["overhead"]
    if overhead and overhead["fraction"] > LIMITS["sampler_overhead"]:
        sure = overhead["ci95"] and overhead["ci95"][0] > LIMITS["sampler_overhead"]
        text = f"sampling cost {overhead['fraction']:.1%} of the frame rate"
        text += "" if sure else ", within what the noise of the board can explain"
        yield Reason("sampler_overhead", "note" if sure else "info", text)
    if failure := report["sampler"]["tegrastats_failure"]:
        yield Reason("tegrastats_failed", "info", failure)


def _power(report: dict[str, Any]) -> Iterator[Reason]:
    power = report["power"]
    if power is None:
        yield Reason("no_power", "info", f"no power: {report['power_reason']}")
        return
    if power["coverage"] < LIMITS["power_coverage"]:
        text = f"power was sampled for {power['coverage']:.0%} of the run only"
        yield Reason("power_gaps", "note", text)
    drift, mean = power["idle"]["drift_w"], power["flat_out"]["mean_w"]
    if drift is not None and abs(drift) > LIMITS["idle_drift"] * abs(mean):
        text = f"idle power moved by {drift:+.2f} W between before and after the run"
        yield Reason("idle_drift", "note", text)


def _paced(report: dict[str, Any]) -> Iterator[Reason]:
    paced = report["paced"]
    if paced and paced["late"] > LIMITS["late_frames"] * paced["frames"]:
        text = (
            f"{paced['late']} of {paced['frames']} frames came late at {paced['wanted_fps']:g} FPS"
        )
        yield Reason("paced_late", "note", text)


def _bound(report: dict[str, Any]) -> Iterator[Reason]:
    bound, parts = report["bound_ms"], (report["latency_ms"] or {}).get("parts") or {}
    infer = parts.get("infer_ms")
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
    _steady,
    _throttled,
    _foreign,
    _sampler,
    _power,
    _paced,
    _bound,
)
