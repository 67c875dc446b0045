"""Power and energy of a run: the report's "power"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastseg_targets.device import Device

from remote_bench.analysis.energy import EnergyCurve
from remote_bench.analysis.span_power import LEAST_COVERAGE, measure_idle, measure_load
from remote_bench.analysis.stats import Floats
from remote_bench.analysis.total_power import Span, choose_curves, choose_total


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
