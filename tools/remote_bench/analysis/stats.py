"""Statistics of frame times: what a count of frames can support, and how sure a number is.

Frames are autocorrelated (a warm GPU stays warm), so intervals come from a circular block
bootstrap (Politis and Romano, 1992) and not from formulas for independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_CONFIDENCE = 0.99  # of the counts
_REPLICATES = 400
_LEAST_BLOCKS = 8


@cache
def frames_needed(fraction: float) -> int:
    """Return how many frames a percentile needs at 99 % confidence: 64 for p90, 662 for p99.

    The smallest n for which at most one frame beyond the percentile is improbable:
    P(Binomial(n, 1 - fraction) <= 1) <= 0.01. MLPerf LoadGen's early stopping has the same counts.
    """
    n = 2
    while (1 + (n - 1) * (1 - fraction)) * fraction ** (n - 1) > 1 - _CONFIDENCE:
        n += 1
    return n


def percentile(values: Floats, fraction: float) -> float:
    """Return the smallest value that at least this fraction of the values does not exceed."""
    return float(np.quantile(values, fraction, method="inverted_cdf"))


def bootstrap_ci95(
    columns: Floats, statistic: Callable[[Floats], float], seed: int = 0
) -> Interval | None:
    """Return the 95 % interval of a statistic of a series, or None where the series is too short.

    Args:
        columns: the series along axis 0: (n,) or (n, m) for m quantities that belong together.
        statistic: takes a resampled series of the same shape.
        seed: the same seed gives the same interval.
    """
    replicates = bootstrap(columns, statistic, seed)
    return None if replicates is None else interval95(replicates)


def percentile_ci95(values: Floats, fractions: Sequence[float]) -> list[Interval | None]:
    """Return the 95 % interval of each percentile, from one bootstrap for all of them."""

    def percentiles(part: Floats) -> Floats:
        found: Floats = np.quantile(part, fractions, method="inverted_cdf")
        return found

    replicates = bootstrap(values, percentiles) if len(fractions) else None
    if replicates is None:
        return [None] * len(fractions)
    return [interval95(column) for column in replicates.T]


def interval95(replicates: Floats) -> Interval:
    """Return the middle 95 % of bootstrap replicates."""
    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def bootstrap(
    columns: Floats, statistic: Callable[[Floats], float | Floats], seed: int = 0
) -> Floats | None:
    """Return the statistic of 400 resampled series, (400,) or (400, m); None if it is too short."""
    n = len(columns)
    length = max(1, round(math.sqrt(n)))
    if n < _LEAST_BLOCKS:
        return None
    rng = np.random.default_rng(seed)
    steps = np.arange(length)
    found = []
    for _ in range(_REPLICATES):
        starts = rng.integers(0, n, math.ceil(n / length))
        indices = (starts[:, None] + steps).ravel()[:n] % n
        found.append(statistic(columns[indices]))
    return np.array(found, dtype=np.float64)


def median_ci95(values: Floats) -> Interval | None:
    """Return an interval of at least 95 % for the median of independent values; None below six.

    The order statistics of the sign test: no assumption about how the values are distributed.
    """
    n = len(values)
    outside, k = 0.5**n, 0  # P(Binomial(n, 1/2) <= k)
    while outside <= 0.025:
        k += 1
        outside += math.comb(n, k) * 0.5**n
    ordered = np.sort(values)
    return (float(ordered[k - 1]), float(ordered[n - k])) if k else None


def slope(times: Floats, values: Floats) -> float:
    """Return the Theil-Sen slope: the median slope of all pairs; robust against a few outliers."""
    i, j = np.triu_indices(len(times), k=1)
    run = times[j] - times[i]
    rise = values[j] - values[i]
    return float(np.median(rise[run > 0] / run[run > 0])) if np.any(run > 0) else 0.0


def window_medians(times: Floats, values: Floats, windows: int = 20) -> tuple[Floats, Floats]:
    """Cut a series into windows of equal time; return their mean times and median values."""
    edges = np.linspace(times[0], times[-1], windows + 1)
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, windows - 1)
    used = [window for window in range(windows) if np.any(place == window)]
    middle = [float(np.mean(times[place == window])) for window in used]
    median = [float(np.median(values[place == window])) for window in used]
    return np.array(middle), np.array(median)
