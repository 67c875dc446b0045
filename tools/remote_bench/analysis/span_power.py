"""Power and energy of one span of a run, idle or loaded, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from remote_bench.analysis.stats import Floats, Interval, bootstrap, interval95
from remote_bench.analysis.total_power import Span, Total

LEAST_COVERAGE = 0.5  # below it there is no number
_LEAST_IDLE_S = 1.0  # --idle 0 gives a moment, which says nothing
_BLOCK_S = 0.5
_MOST_BLOCKS = 200
_IDLE_SPANS = ("idle_before", "idle_after")


@dataclass(frozen=True)
class Idle:
    """Power of the idle board before and after the run; None where too little was sampled."""

    before_w: float | None
    after_w: float | None
    mean_replicates_w: Floats | None  # of the mean of both, bootstrapped

    @property
    def drift_w(self) -> float | None:
        """By how much the idle power rose over the run."""
        if self.before_w is None or self.after_w is None:
            return None
        return self.after_w - self.before_w

    @property
    def mean_w(self) -> float | None:
        """The mean of what there is of both."""
        known = [watts for watts in (self.before_w, self.after_w) if watts is not None]
        return sum(known) / len(known) if known else None

    def report(self) -> dict[str, float | None]:
        """Return what the report has of it."""
        return {
            "before_w": self.before_w,
            "after_w": self.after_w,
            "drift_w": self.drift_w,
            "mean_w": self.mean_w,
        }


def measure_idle(total: Total, spans: dict[str, Span]) -> Idle:
    """Return the power of "idle_before" and "idle_after", as far as they are there."""
    none = np.zeros(0)
    watts: list[float | None] = []
    replicates: list[Floats | None] = []
    for seed, name in enumerate(_IDLE_SPANS, start=1):  # the load has 0: they are independent
        span = spans.get(name)
        if span is None or not _says_something(total, span):
            watts.append(None)
            continue
        watts.append(total.energy_j(*span) / (span[1] - span[0]))
        replicates.append(bootstrap(_blocks(total, span, none), _mean_w, seed))
    known = [found for found in replicates if found is not None]
    complete = bool(known) and len(known) == len(replicates)
    before, after = watts
    return Idle(before, after, np.mean(known, axis=0) if complete else None)


def _says_something(total: Total, idle: Span) -> bool:
    return idle[1] - idle[0] >= _LEAST_IDLE_S and total.coverage(idle) >= LEAST_COVERAGE


def measure_load(total: Total, span: Span, frames: Floats, idle: Idle) -> dict[str, Any]:
    """Return power and energy of a loaded span, and energy a frame with and without the idle power.

    Args:
        total: the rails.
        span: when frames ran without a pause, or at their pace.
        frames: the times at which frames were done, s, over the whole run.
        idle: what the board needs without frames.
    """
    begin, end = span
    blocks = _blocks(total, span, frames)
    energy_j, count = total.energy_j(begin, end), _frames_until(frames, end, begin)
    result: dict[str, Any] = {
        "seconds": end - begin,
        "mean_w": energy_j / (end - begin),
        "mean_w_ci95": _ci95(bootstrap(blocks, _mean_w)),
        "energy_j": energy_j,
        "j_per_frame": energy_j / count if count else None,
        "j_per_frame_ci95": _ci95(bootstrap(blocks, _j_per_frame)),
        "j_per_frame_above_idle": None,
        "j_per_frame_above_idle_ci95": None,
    }
    if idle.mean_w is not None and count:
        result["j_per_frame_above_idle"] = (energy_j - idle.mean_w * (end - begin)) / count
        result["j_per_frame_above_idle_ci95"] = _above_idle_ci95(blocks, idle)
    return result


def _above_idle_ci95(blocks: Floats, idle: Idle) -> Interval | None:
    # Both means vary with what was sampled. Idle power that drifts from one value to another was
    # somewhere between them during the run: half of the drift from their mean at most.
    load = bootstrap(blocks, _j_and_s_per_frame)
    if load is None or idle.mean_replicates_w is None:
        return None
    interval = _ci95(load[:, 0] - idle.mean_replicates_w * load[:, 1])
    if interval is None:
        return None
    half_drift_j = abs(idle.drift_w or 0.0) / 2 * float(np.median(load[:, 1]))
    return interval[0] - half_drift_j, interval[1] + half_drift_j


def _blocks(total: Total, span: Span, frames: Floats) -> Floats:
    """Return (joules, seconds, frames) of equal parts of a span, (blocks, 3)."""
    begin, end = span
    count = int(np.clip((end - begin) / _BLOCK_S, 1, _MOST_BLOCKS))
    edges = np.linspace(begin, end, count + 1)
    joules = [total.energy_j(a, b) for a, b in pairwise(edges)]
    done = np.array([_frames_until(frames, edge, begin) for edge in edges])
    return np.column_stack([joules, np.diff(edges), np.diff(done)])


def _frames_until(frames: Floats, end: float, begin: float) -> float:
    """Return how many frames were done between two times; a part of one counts as a part."""
    if len(frames) == 0:
        return 0.0
    numbers = np.arange(1, len(frames) + 1, dtype=np.float64)
    at = np.interp([begin, end], frames, numbers, left=0.0)
    return float(at[1] - at[0])


def _mean_w(blocks: Floats) -> float:
    return float(blocks[:, 0].sum() / blocks[:, 1].sum())


def _j_and_s_per_frame(blocks: Floats) -> Floats:
    frames = float(blocks[:, 2].sum())
    found: Floats = blocks[:, :2].sum(axis=0) / frames if frames else np.full(2, np.nan)
    return found


def _j_per_frame(blocks: Floats) -> float:
    return float(_j_and_s_per_frame(blocks)[0])


def _ci95(replicates: Floats | None) -> Interval | None:
    return None if replicates is None or np.isnan(replicates).any() else interval95(replicates)
