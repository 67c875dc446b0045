"""Frame times of a run: rate, percentiles, steady state, and what the sampler costs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from fastseg_runtime.arrays.stats import PERCENTILES, frames_needed, percentiles, quantiles

from remote_bench.analysis.result import Frames, Slice
from remote_bench.analysis.stats import (
    Floats,
    Interval,
    bootstrap,
    change_of_thirds,
    ci95,
    median_ci95,
    ratio_ci95,
    window_medians,
)

INCLUDES = "pre-processing, copies, inference and post-processing of one frame"


@dataclass(frozen=True)
class StageMedians:
    """The medians of the parts of a frame; None where the runtime does not tell them."""

    pre_ms: float | None
    infer_ms: float | None
    post_ms: float | None


@dataclass(frozen=True)
class Latency:
    """Percentiles (None where the count does not support one: `reasons` says so) and extremes."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None = field(metadata={"key": "p99.9"})
    ci95: dict[str, Interval | None]
    reasons: dict[str, str]
    min: float
    max: float
    mean: float
    count: int
    parts: StageMedians
    includes: str

    def percentiles(self) -> dict[str, float | None]:
        """Return all percentiles by the names that they have in a report."""
        return {name: getattr(self, name.replace(".", "_")) for name in PERCENTILES}


@dataclass(frozen=True)
class SamplerCost:
    """What sampling took of the frame rate, by blocks with and without it in turn."""

    fraction: float
    ci95: Interval | None
    frames: int


def summarise_latency(frames: Frames) -> Latency:
    """Return percentiles, extremes and the medians of the parts of one slice."""
    total = np.array(frames.total_ms)
    found = percentiles(total, PERCENTILES)
    supported = [name for name in PERCENTILES if found[name] is not None]
    fractions = [PERCENTILES[name] for name in supported]
    replicates = bootstrap(total, lambda part: quantiles(part, fractions)) if supported else None
    columns = () if replicates is None else replicates.T
    return Latency(
        **{name.replace(".", "_"): value for name, value in found.items()},
        ci95={name: ci95(column) for name, column in zip(supported, columns, strict=False)},
        reasons={
            name: f"needs {frames_needed(fraction)} frames, has {len(total)}"
            for name, fraction in PERCENTILES.items()
            if name not in supported
        },
        min=float(total.min()),
        max=float(total.max()),
        mean=float(total.mean()),
        count=len(total),
        parts=StageMedians(*map(_median, (frames.pre_ms, frames.infer_ms, frames.post_ms))),
        includes=INCLUDES,
    )


def _median(column: Sequence[float | None]) -> float | None:
    known = [value for value in column if value is not None]
    return float(np.median(known)) if known else None


def frame_rate(*parts: Slice) -> float:
    """Return frames over wall time, never one over the mean latency."""
    return sum(part.frames for part in parts) / sum(part.seconds for part in parts)


def frame_rate_ci95(blocks: Sequence[tuple[Slice, Frames]]) -> tuple[Interval | None, str]:
    """Return the 95 % interval of the frame rate, and what it is an interval of."""
    if len(blocks) >= 3:
        rates = [frame_rate(part) for part, _ in blocks]
        return ratio_ci95(rates), f"between {len(blocks)} blocks of one run"
    periods_s = np.concatenate([np.diff(np.append(f.t, part.end)) for part, f in blocks])
    found = ci95(bootstrap(periods_s, lambda some: len(some) / float(some.sum())))
    return found, "within one run: how runs differ is not in it"


def latency_drift(frames: Frames) -> tuple[float, Interval | None]:
    """Return how much the median latency moved over the run, as a fraction of it, and how surely.

    Medians of twenty windows: those of the last third against those of the first.
    """
    _, medians = window_medians(np.array(frames.t), np.array(frames.total_ms))
    return change_of_thirds(medians, 0.95) or (0.0, None)


def sampler_cost(slices: Sequence[Slice]) -> SamplerCost | None:
    """Return what the sampler costs; None where not measured.

    Blocks of the run with and without the sampler took turns. The fraction is the median, over
    neighbours, of the ratio of their mean frame times, less one: a load of somebody else spoils the
    pair that it falls on, not the median. Frames of one block share its circumstances, so the
    interval comes from the pairs.
    """
    with_, without = (
        [part for part in slices if part.name == name and part.frames]
        for name in ("with_sampler", "without_sampler")
    )
    pairs = list(zip(with_, without, strict=False))
    if not pairs:
        return None
    ratios: Floats = np.array([frame_rate(b) / frame_rate(a) - 1 for a, b in pairs])
    frames = sum(a.frames + b.frames for a, b in pairs)
    return SamplerCost(float(np.median(ratios)), median_ci95(ratios), frames)
