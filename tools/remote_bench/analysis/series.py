"""Time series of a run for plots: on one axis, seconds since the flat-out run began."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastseg_targets.device import Device

from remote_bench.analysis.power import EnergyCurve, Span, Total, choose_curves, choose_total
from remote_bench.analysis.stats import Floats

_POWER_POINTS = 1000


def plot_series(
    raw: dict[str, Any], rails: list[EnergyCurve], device: Device, spans: dict[str, Span]
) -> dict[str, Any]:
    """Return {"frames", "power", "celsius", "mhz", "spans"}; times in s from the run's begin.

    Frames are all there, as columns t, total_ms, pre_ms, infer_ms, post_ms by slice.
    """
    if "flat_out" not in spans:
        return {"frames": {}, "power": None, "celsius": {}, "mhz": {}, "spans": {}}
    zero = spans["flat_out"][0]
    environment = raw["samples"]["environment"]
    return {
        "frames": {name: _shifted(columns, zero) for name, columns in raw["frames"].items()},
        "power": _power(choose_total(choose_curves(rails, spans["flat_out"]), device.power), zero),
        "celsius": _columns(environment, "celsius", zero),
        "mhz": _columns(environment, "mhz", zero),
        "spans": {
            name: [round(time - zero, 3) for time in spans[name]]
            for name in ("idle_before", "flat_out", "paced", "idle_after")
            if name in spans
        },
    }


def _shifted(columns: dict[str, list[Any]], zero: float) -> dict[str, list[Any]]:
    return {**columns, "t": [round(t - zero, 6) for t in columns["t"]]}


def _columns(samples: list[dict[str, Any]], key: str, zero: float) -> dict[str, Any]:
    names = sorted({name for sample in samples for name in sample[key]})
    t = [round(sample["t"] - zero, 3) for sample in samples]
    return {"t": t, **{name: [sample[key].get(name) for sample in samples] for name in names}}


def _power(total: Total | str, zero: float) -> dict[str, list[float]] | None:
    if isinstance(total, str):
        return None
    begin = max(curve.t[0] for curve in total.curves)
    end = min(curve.t[-1] for curve in total.curves)
    count = min(_POWER_POINTS, max(len(curve.t) for curve in total.curves))
    if end <= begin or count < 2:
        return None
    edges: Floats = np.linspace(begin, end, count)
    joules = sum(np.interp(edges, curve.t, curve.joules) for curve in total.curves)
    watts = np.diff(joules) / np.diff(edges)
    middle = (edges[1:] + edges[:-1]) / 2 - zero
    return {"t": np.round(middle, 3).tolist(), "watts": np.round(watts, 4).tolist()}
