"""Statistics of times: which percentile a count supports and which value it is, and bootstraps.

The one definition for the runtime, remote_bench and every table: the same times give the same
numbers everywhere.
"""

import math
import threading
from functools import lru_cache
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.metrics import Array

STAGES = ("pre", "infer", "post")
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
CONFIDENCE = 0.99  # that a percentile which a count supports is no accident, as in MLPerf
INTERVAL = (0.025, 0.975)  # of bootstrap replicates: the middle 95 %


@lru_cache(maxsize=None)
def frames_needed(fraction: float) -> int:
    """Return how many frames a percentile needs: 11 for p50, 64 for p90, 662 for p99.

    The smallest n for which at most one frame beyond the percentile is improbable:
    P(Binomial(n, 1 - fraction) <= 1) <= 0.01. These are the counts of early stopping in MLPerf
    Inference (LoadGen, single stream, 99 % confidence, no tolerance), which runs until then.
    """
    count = 2
    while (1 + (count - 1) * (1 - fraction)) * fraction ** (count - 1) > 1 - CONFIDENCE:
        count += 1
    return count


def quantiles(values: Array, fractions: Iterable[float]) -> Array:
    """Return, for each fraction, the smallest value that so many of the values do not exceed.

    The inverse of the empirical distribution (type 1 of Hyndman and Fan, 1996; "nearest rank"): a
    time that was measured. Interpolation would invent one between two modes of a latency.

    Args:
        values: (n,), n > 0.
        fractions: above 0, up to 1.
    """
    # 0.07 * 100 is 7.000000000000001: without the slack the next rank would be taken.
    ranks = [max(math.ceil(fraction * len(values) - 1e-9) - 1, 0) for fraction in fractions]
    found: Array = np.partition(values, ranks)[ranks]
    return found


def percentiles(
    times_ms: Array, names: Iterable[str] = ("p50", "p90", "p99")
) -> Dict[str, Optional[float]]:
    """Return percentiles by their names in PERCENTILES; None where too few frames support one."""
    return {
        name: float(quantiles(times_ms, [fraction])[0])
        if len(times_ms) >= frames_needed(fraction)
        else None
        for name, fraction in ((name, PERCENTILES[name]) for name in names)
    }


def bootstrap(
    statistic: Callable[[Array], Any], count: int, resamples: int, block: int = 1, seed: int = 0
) -> Array:
    """Return a statistic of resampled data, (resamples,) or (resamples, m) float64.

    Args:
        statistic: takes the indices of a resample, (count,), and returns a number or m of them.
            Quantities that belong together are taken by the same indices: in pairs.
        count: of the data.
        resamples: how many.
        block: neighbours that stay together, round the end to the beginning (circular block
            bootstrap, Politis and Romano 1992), where they depend on each other; 1 for
            independent data (Efron and Tibshirani 1993).
        seed: the same seed gives the same resamples.
    """
    generator, steps = np.random.default_rng(seed), np.arange(block)
    found = []
    for _ in range(resamples):
        starts = generator.integers(0, count, -(-count // block))
        found.append(statistic((starts[:, None] + steps).ravel()[:count] % count))
    return np.array(found, np.float64)


def interval95(replicates: Array) -> Tuple[float, float]:
    """Return the middle 95 % of bootstrap replicates (Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(replicates, INTERVAL)
    return float(low), float(high)


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
