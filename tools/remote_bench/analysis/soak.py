"""What a board keeps up: a run that goes on for minutes, in windows, against its cold start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from remote_bench.analysis.conditions import watched
from remote_bench.analysis.frame_times import frame_rate
from remote_bench.analysis.report import Soak, SoakPoint
from remote_bench.analysis.result import Result, Slice, Span
from remote_bench.analysis.stats import Floats, slope
from remote_bench.analysis.verdict import LIMITS

Watts = Callable[[Sequence[Span]], tuple[float | None, ...]]


def summarise_soak(result: Result, watts: Watts) -> Soak | None:
    """Return the soak of a run; None where there was none.

    Args:
        result: of the run.
        watts: gives the mean power of spans.
    """
    windows = [part for part, _ in result.blocks("soak")]
    if not windows:
        return None
    begin = windows[0].begin
    points = [_point(result, [part], watts, begin) for part in windows]
    seconds = windows[-1].end - begin
    return Soak(
        minutes=seconds / 60,
        steady=_is_steady(points),
        cold=_point(result, [result.blocks()[0][0]], watts, begin),
        sustained=_point(result, result.sustained(), watts, begin),
        curve=tuple(points),
    )


def _point(result: Result, parts: Sequence[Slice], watts: Watts, zero: float) -> SoakPoint:
    begin, end = parts[0].begin, parts[-1].end
    hottest = [
        max((c for c in sample.celsius.values() if c is not None), default=None)
        for sample in watched(result)
        if begin <= sample.t <= end
    ]
    known = [celsius for celsius in hottest if celsius is not None]
    [mean_w] = watts([(begin, end)])
    celsius = float(np.mean(known)) if known else None
    return SoakPoint((begin + end) / 2 - zero, frame_rate(*parts), mean_w, celsius)


def _is_steady(points: Sequence[SoakPoint]) -> bool:
    """Return whether rate and heat stood still in the second half."""
    late = points[len(points) // 2 :]
    if len(late) < 2:
        return False
    t: Floats = np.array([point.t for point in late])
    rates: Floats = np.array([point.fps for point in late])
    drift = slope(t, rates) * float(t[-1] - t[0]) / float(rates.mean())
    warm = [(point.t, point.celsius) for point in late if point.celsius is not None]
    heats: Floats = np.array(warm).reshape(-1, 2)
    per_min = 60 * slope(heats[:, 0], heats[:, 1]) if len(warm) > 1 else 0.0
    return abs(drift) <= LIMITS["soak_drift"] and per_min <= LIMITS["celsius_per_min"]
