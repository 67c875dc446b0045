"""`remote_bench compare A.json B.json`: a difference with its interval, or why there is none.

One thing may differ between two reports: the network, the software, the power mode or the board
(with its modes). Where more than one does, a percentage would say nothing about any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastseg_runtime.arrays.stats import quantiles

from remote_bench.analysis.report import Report
from remote_bench.analysis.stats import Floats, Interval, bootstrap, ci95

# What must be equal within a group for the group not to differ.
_GROUPS = {
    "network": "bundle.sha256 engine.target engine.precision bundle.width bundle.height",
    "software": "engine.backend engine.version device.l4t device.kernel device.python",
    "power mode": "device.power_mode.name device.power_mode.id",
    "board": "device.name device.module device.model",
    "frames": "flags.frames flags.fps",
}


@dataclass(frozen=True)
class Difference:
    """One metric of two reports; the change is a fraction of a."""

    metric: str
    unit: str
    a: float
    b: float
    change: float
    change_ci95: Interval | None
    sure: bool  # the interval leaves out no change


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side.

    `differs` maps each group that differs to texts like "device.l4t: 36.4.3, 36.5.0"; there are no
    differences where the two are not comparable.
    """

    comparable: bool
    reasons: tuple[str, ...]
    differs: dict[str, tuple[str, ...]]
    differences: tuple[Difference, ...]


def compare(a: Report, b: Report) -> Comparison:
    """Compare two reports."""
    pairs = {group: _differing(a, b, paths.split()) for group, paths in _GROUPS.items()}
    differs = {group: texts for group, texts in pairs.items() if texts}
    if "board" in differs and "power mode" in differs:
        differs["board"] += differs.pop("power mode")  # modes are not portable
    reasons = [
        f"{name} is invalid: {'; '.join(reason.message for reason in report.reasons[:1])}"
        for name, report in (("A", a), ("B", b))
        if report.verdict == "invalid"
    ]
    if len(differs) > 1:
        reasons += [f"{group}: {text}" for group, texts in differs.items() for text in texts]
    differences = () if reasons else (*_speed(a, b), *_energy(a, b))
    return Comparison(not reasons, tuple(reasons), differs, differences)


def _differing(a: Report, b: Report, paths: list[str]) -> tuple[str, ...]:
    values = [(path, _get(a, path), _get(b, path)) for path in paths]
    return tuple(f"{path}: {left}, {right}" for path, left, right in values if left != right)


def _get(report: Report, path: str) -> Any:
    value: Any = report
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
    return value


def _speed(a: Report, b: Report) -> Iterator[Difference]:
    frames = _frames(a), _frames(b)
    yield _change("fps", "frames/s", lambda part: len(part) / float(part[:, 0].sum()), *frames)
    assert a.latency_ms and b.latency_ms  # of a run that is not invalid
    for name, fraction in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        if getattr(a.latency_ms, name) is not None and getattr(b.latency_ms, name) is not None:
            yield _change(name, "ms", _percentile_of(fraction), *frames)


def _percentile_of(fraction: float) -> Callable[[Floats], float]:
    return lambda part: float(quantiles(part[:, 1], [fraction])[0])


def _frames(report: Report) -> Floats:
    """Return (seconds until the next frame, latency in ms) of the flat-out run, (n, 2)."""
    columns = report.series.frames["flat_out"]
    end = report.series.spans["flat_out"][1]
    return np.column_stack([np.diff(np.append(columns.t, end)), columns.total_ms])


def _change(
    name: str, unit: str, statistic: Callable[[Floats], float], a: Floats, b: Floats
) -> Difference:
    left, right = bootstrap(a, statistic, seed=1), bootstrap(b, statistic, seed=2)
    interval = None if left is None or right is None else ci95(right / left - 1)
    return _difference(name, unit, statistic(a), statistic(b), interval)


def _energy(a: Report, b: Report) -> Iterator[Difference]:
    if not a.power or not b.power or a.power.scope != b.power.scope:
        return
    for key, unit in (("mean_w", "W"), ("j_per_frame", "J/frame")):
        left, right = ((getattr(p.flat_out, key), getattr(p.flat_out, f"{key}_ci95"))
                       for p in (a.power, b.power))  # fmt: skip
        if left[0] and right[0] is not None:
            yield _difference(key, unit, left[0], right[0], _ratio_ci95(left, right))


def _ratio_ci95(
    a: tuple[float, Interval | None], b: tuple[float, Interval | None]
) -> Interval | None:
    # The blocks are not in the report; relative half-widths add up in quadrature.
    halves = [(ci95[1] - ci95[0]) / 2 / abs(value) for value, ci95 in (a, b) if value and ci95]
    if len(halves) < 2:
        return None
    ratio, half = b[0] / a[0], math.hypot(*halves)
    return ratio * (1 - half) - 1, ratio * (1 + half) - 1


def _difference(name: str, unit: str, a: float, b: float, interval: Interval | None) -> Difference:
    sure = interval is not None and (interval[0] > 0 or interval[1] < 0)
    return Difference(name, unit, a, b, b / a - 1, interval, sure)
