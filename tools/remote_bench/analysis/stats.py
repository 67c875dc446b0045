"""How sure a number from a series of frames is, and how it moved.

Frames are autocorrelated (a warm GPU stays warm), so intervals come from a circular block
bootstrap (Politis and Romano, 1992) and not from formulas for independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from fastseg_runtime.arrays import stats
from fastseg_runtime.arrays.stats import interval95
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

REPLICATES = 400
_LEAST_BLOCKS = 8


def bootstrap(
    columns: Floats, statistic: Callable[[Floats], float | Floats], seed: int = 0
) -> Floats | None:
    """Return the statistic of 400 resampled series, (400,) or (400, m); None if it is too short.

    Args:
        columns: the series along axis 0: (n,) or (n, m) for m quantities that belong together.
        statistic: takes a resampled series of the same shape.
        seed: the same seed gives the same replicates.
    """
    n = len(columns)
    if n < _LEAST_BLOCKS:
        return None
    length = round(math.sqrt(n))
    return stats.bootstrap(lambda indices: statistic(columns[indices]), n, REPLICATES, length, seed)


def ci95(replicates: Floats | None) -> Interval | None:
    """Return the 95 % interval of replicates; None where there are none, or one is no number."""
    return None if replicates is None or np.isnan(replicates).any() else interval95(replicates)


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
