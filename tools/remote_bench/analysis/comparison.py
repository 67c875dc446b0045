"""`remote_bench compare A.json B.json`: a difference with its interval, or why there is none.

One thing may differ between two reports: the network, the software, the power mode or the board
(with its modes). Where more than one does, a percentage would say nothing about any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from fastseg_runtime.arrays.stats import interval95, quantiles

from remote_bench.analysis.stats import Floats, Interval, bootstrap

# What must be equal within a group for the group not to differ.
_GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "network": (
        ("bundle", "sha256"),
        ("engine", "target"),
        ("engine", "precision"),
        ("bundle", "width"),
        ("bundle", "height"),
    ),
    "software": (
        ("engine", "backend"),
        ("engine", "version"),
        ("device", "l4t"),
        ("device", "kernel"),
        ("device", "python"),
    ),
    "power mode": (("device", "power_mode", "name"), ("device", "power_mode", "id")),
    "board": (("device", "name"), ("device", "module"), ("device", "model")),
    "frames": (("flags", "frames"), ("flags", "fps")),
}


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare two reports.

    Returns:
        {"comparable", "reasons", "differs", "differences"}: "differs" maps each group that differs
        to texts like "device.l4t: 36.4.3, 36.5.0"; "differences" is a list of {"metric", "unit",
        "a", "b", "change", "change_ci95", "sure"} with the change as a fraction of a; it is empty
        where the two are not comparable.
    """
    differs = {
        group: texts for group, paths in _GROUPS.items() if (texts := _differences(a, b, paths))
    }
    if "board" in differs and "power mode" in differs:
        differs["board"] += differs.pop("power mode")  # modes are not portable
    reasons = [
        f"{name} is invalid: {'; '.join(r['message'] for r in report['reasons'][:1])}"
        for name, report in (("A", a), ("B", b))
        if report["verdict"] == "invalid"
    ]
    if len(differs) > 1:
        reasons += [f"{group}: {text}" for group, texts in differs.items() for text in texts]
    differences = [] if reasons else [*_speed(a, b), *_energy(a, b)]
    return {
        "comparable": not reasons,
        "reasons": reasons,
        "differs": differs,
        "differences": differences,
    }


def _differences(
    a: dict[str, Any], b: dict[str, Any], paths: tuple[tuple[str, ...], ...]
) -> list[str]:
    pairs = [(".".join(path), _get(a, path), _get(b, path)) for path in paths]
    return [f"{name}: {left}, {right}" for name, left, right in pairs if left != right]


def _get(report: dict[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = report
    for key in path:
        value = (value or {}).get(key)
    return value


def _speed(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    statistics: list[tuple[str, str, Callable[[Floats], float]]] = [
        ("fps", "frames/s", lambda part: len(part) / float(part[:, 0].sum())),
    ]
    for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        if a["latency_ms"][name] is not None and b["latency_ms"][name] is not None:
            statistics.append((name, "ms", _percentile_of(fraction)))
    frames = _frames(a), _frames(b)
    return [_change(name, unit, statistic, *frames) for name, unit, statistic in statistics]


def _percentile_of(fraction: float) -> Callable[[Floats], float]:
    return lambda part: float(quantiles(part[:, 1], [fraction])[0])


def _frames(report: dict[str, Any]) -> Floats:
    """Return (seconds until the next frame, latency in ms) of the flat-out run, (n, 2)."""
    columns = report["series"]["frames"]["flat_out"]
    end = report["series"]["spans"]["flat_out"][1]
    starts = np.append(np.array(columns["t"], dtype=np.float64), end)
    return np.column_stack([np.diff(starts), columns["total_ms"]])


def _change(
    name: str, unit: str, statistic: Callable[[Floats], float], a: Floats, b: Floats
) -> dict[str, Any]:
    left, right = statistic(a), statistic(b)
    replicates = bootstrap(a, statistic, seed=1), bootstrap(b, statistic, seed=2)
    interval = None
    if replicates[0] is not None and replicates[1] is not None:
        interval = interval95(replicates[1] / replicates[0] - 1)
    return _row(name, unit, left, right, interval)


def _energy(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    if not a["power"] or not b["power"] or a["power"]["scope"] != b["power"]["scope"]:
        return []
    rows = []
    for key, unit in (("mean_w", "W"), ("j_per_frame", "J/frame")):
        left, right = a["power"]["flat_out"], b["power"]["flat_out"]
        if not left[key] or right[key] is None:
            continue
        rows.append(_row(key, unit, left[key], right[key], _ratio_interval(left, right, key)))
    return rows


def _ratio_interval(a: dict[str, Any], b: dict[str, Any], key: str) -> Interval | None:
    # The blocks are not in the report; relative half-widths add up in quadrature.
    halves = [
        (ci[1] - ci[0]) / 2 / abs(side[key]) if (ci := side[f"{key}_ci95"]) and side[key] else None
        for side in (a, b)
    ]
    if halves[0] is None or halves[1] is None:
        return None
    ratio, half = b[key] / a[key], math.hypot(halves[0], halves[1])
    return ratio * (1 - half) - 1, ratio * (1 + half) - 1


def _row(name: str, unit: str, a: float, b: float, interval: Interval | None) -> dict[str, Any]:
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return {
        "metric": name,
        "unit": unit,
        "a": a,
        "b": b,
        "change": b / a - 1,
        "change_ci95": interval,
        "sure": sure,
    }
