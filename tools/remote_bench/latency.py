"""Frame times of a run: rate, percentiles, steady state."""

from __future__ import annotations

from typing import Any

import numpy as np

from remote_bench.stats import (
    PERCENTILES,
    Floats,
    bootstrap_ci95,
    frames_needed,
    percentile,
    percentile_ci95,
    slope,
    window_medians,
)

INCLUDES = "pre-processing, copies, inference and post-processing of one frame"
_PARTS = ("pre_ms", "infer_ms", "post_ms")


def summarise_latency(frames: dict[str, list[Any]]) -> dict[str, Any]:
    """Return percentiles, extremes and the medians of the parts of one slice.

    Args:
        frames: the columns that the agent kept: t, total_ms, pre_ms, infer_ms, post_ms.

    Returns:
        "p50" to "p99.9" (None where the count does not support it, "reasons" says so), "ci95" by
        percentile, "min", "max", "mean", "count", "parts" and "includes".
    """
    total = _column(frames, "total_ms")
    supported = {n: f for n, f in PERCENTILES.items() if len(total) >= frames_needed(f)}
    intervals = percentile_ci95(total, list(supported.values()))
    result: dict[str, Any] = {
        name: percentile(total, fraction) if name in supported else None
        for name, fraction in PERCENTILES.items()
    }
    result["ci95"] = dict(zip(supported, intervals, strict=True))
    result["reasons"] = {
        name: f"needs {frames_needed(fraction)} frames, has {len(total)}"
        for name, fraction in PERCENTILES.items()
        if name not in supported
    }
    result.update(min=float(total.min()), max=float(total.max()), mean=float(total.mean()))
    parts = {part: _column(frames, part) for part in _PARTS}
    medians = {part: float(np.median(v)) if len(v) else None for part, v in parts.items()}
    return dict(result, count=len(total), parts=medians, includes=INCLUDES)


def frame_rate(slice_: dict[str, Any], frames: dict[str, list[Any]]) -> dict[str, Any]:
    """Return {"fps", "fps_ci95"}: frames over wall time, never one over the mean latency."""
    seconds = slice_["end"] - slice_["begin"]
    starts = np.append(_column(frames, "t"), slice_["end"])
    interval = bootstrap_ci95(np.diff(starts), lambda part: len(part) / float(part.sum()))
    return {"fps": slice_["frames"] / seconds, "fps_ci95": interval}


def latency_drift(frames: dict[str, list[Any]]) -> float:
    """Return how much the median latency moved over the run, as a fraction of it.

    The Theil-Sen slope of the medians of twenty windows, times the run's length.
    """
    t, total = _column(frames, "t"), _column(frames, "total_ms")
    middle, medians = window_medians(t, total)
    return slope(middle, medians) * float(t[-1] - t[0]) / float(np.median(total))


def sampler_overhead(result_frames: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the sampler costs: {"fraction", "ci95", "frames"}; None where not measured.

    Blocks of the run with and without the sampler took turns; the fraction is the ratio of their
    mean frame times less one.
    """
    with_, without = (
        _column(result_frames.get(name) or {}, "total_ms")
        for name in ("with_sampler", "without_sampler")
    )
    if len(with_) < 8 or len(without) < 8:
        return None
    count = min(len(with_), len(without))
    pairs = np.column_stack([with_[:count], without[:count]])

    def ratio(part: Floats) -> float:
        return float(np.mean(part[:, 0]) / np.mean(part[:, 1])) - 1

    return {"fraction": ratio(pairs), "ci95": bootstrap_ci95(pairs, ratio), "frames": 2 * count}


def _column(frames: dict[str, list[Any]], name: str) -> Floats:
    values = [value for value in frames.get(name) or [] if value is not None]
    return np.array(values, dtype=np.float64)
