"""Statistics of frame times: percentiles that the count supports, and a window of stages."""

import threading
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array

STAGES = ("pre", "infer", "post")
# Percentile -> frames needed to claim it with 99 % confidence when one frame may be later:
# the least n with p^n + n (1 - p) p^(n-1) <= 0.01 (MLPerf LoadGen, early stopping).
FRAMES_NEEDED = {50: 1, 90: 64, 99: 662}


def percentiles(times_ms: Array) -> Dict[str, Optional[float]]:
    """Return p50, p90 and p99 of frame times; None where there are too few frames to say."""
    return {
        f"p{rank}": float(np.percentile(times_ms, rank)) if len(times_ms) >= needed else None
        for rank, needed in FRAMES_NEEDED.items()
    }


class StageTimes:
    """The stages of the last frames, in milliseconds, in a buffer of fixed size."""

    def __init__(self, window: int = 1000) -> None:
        self._times_ms = np.zeros((window, len(STAGES)))
        self.count = 0  # frames ever added
        self._lock = threading.Lock()

    @property
    def newest(self) -> Tuple[float, ...]:
        """Return the stages of the newest frame, in seconds."""
        return tuple(self._times_ms[(self.count - 1) % len(self._times_ms)] / 1e3)

    def add(self, seconds: Sequence[float]) -> None:
        """Take note of one frame: seconds in each stage."""
        with self._lock:
            row = self._times_ms[self.count % len(self._times_ms)]
            for index, value in enumerate(seconds):
                row[index] = value * 1e3
            self.count += 1

    def summary(self) -> Dict[str, Any]:
        """Return {"frames": n, "pre": {"p50": ms, ...}}, also for "infer", "post" and "total"."""
        rows = self._times_ms[: self.count]
        table: Dict[str, Any] = {"frames": len(rows)}
        for index, stage in enumerate(STAGES):
            table[stage] = percentiles(rows[:, index])
        table["total"] = percentiles(rows.sum(axis=1))
        return table
