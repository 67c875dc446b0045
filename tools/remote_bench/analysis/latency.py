"""Frame times of a run: rate, percentiles, steady state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastseg_runtime.arrays.stats import PERCENTILES, frames_needed, percentiles

from remote_bench.analysis.stats import (
    Floats,
    bootstrap_ci95,
    median_ci95,
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
    result: dict[str, Any] = dict(percentiles(total, PERCENTILES))
    supported = [name for name in PERCENTILES if result[name] is not None]
    intervals = percentile_ci95(total, [PERCENTILES[name] for name in supported])
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


def sampler_overhead(slices: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the sampler costs: {"fraction", "ci95", "frames"}; None where not measured.

    Blocks of the run with and without the sampler took turns. The fraction is the median, over
    neighbours, of the ratio of their mean frame times, less one: a load of somebody else spoils the
    pair that it falls on, not the median. Frames of one block share its circumstances, so the
    interval comes from the pairs.

    Args:
        slices: of the whole run, in their order: "name", "begin", "end", "frames".
    """
    with_, without = (_blocks(slices, name) for name in ("with_sampler", "without_sampler"))
    pairs = list(zip(with_, without, strict=False))
    if not pairs:
        return None
    ratios = np.array([_frame_s(a) / _frame_s(b) - 1 for a, b in pairs])
    frames = sum(a["frames"] + b["frames"] for a, b in pairs)
    return {"fraction": float(np.median(ratios)), "ci95": median_ci95(ratios), "frames": frames}


def _blocks(slices: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [part for part in slices if part["name"] == name and part["frames"]]


def _frame_s(block: dict[str, Any]) -> float:
    return float(block["end"] - block["begin"]) / int(block["frames"])


def _column(frames: dict[str, list[Any]], name: str) -> Floats:
    values = [value for value in frames.get(name) or [] if value is not None]
    return np.array(values, dtype=np.float64)
