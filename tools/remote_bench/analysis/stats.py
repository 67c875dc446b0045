"""How sure a number is, from the frames of one block or from several blocks, and how it moved.

Frames are autocorrelated (a warm GPU stays warm), so intervals within a block come from a circular
block bootstrap (Politis and Romano, 1992) and not from formulas for independent samples. Blocks are
few and independent: Student's t serves them, on logarithms, since noise of times is a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from fastseg_runtime.arrays import stats
from fastseg_runtime.arrays.stats import interval95
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

REPLICATES = 400
_LEAST_BLOCKS = 8
_WINDOWS = 20


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


def t_quantile(probability: float, degrees: float) -> float:
    """Return a quantile of Student's t for a probability of 0.9 to 0.999.

    Exact for one and two degrees of freedom; else Abramowitz and Stegun 26.7.5, within 1 % from
    three on. Parts of a degree (Welch) are rounded down, which widens the interval.
    """
    v = max(1, math.floor(degrees))
    if v == 1:
        return math.tan(math.pi * (probability - 0.5))
    if v == 2:
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4 / v
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / v**4
    return z + first + second + third + fourth


def ratio_ci95(values: Sequence[float]) -> Interval | None:
    """Return the interval of the geometric mean of positive, independent values; None below 3."""
    if len(values) < 3 or min(values) <= 0:
        return None
    logs = np.log(values)
    half = t_quantile(0.975, len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    middle = float(logs.mean())
    return math.exp(middle - half), math.exp(middle + half)


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


def trend_half95(times: Floats, values: Floats) -> float | None:
    """Return half the width of the 95 % interval of a straight line's slope; None below five.

    Neighbours depend on each other: the correlation of neighbouring residuals widens it, as for a
    first-order autoregression.
    """
    n = len(times)
    if n < 5 or times[-1] <= times[0]:
        return None
    centred = times - times.mean()
    squares = float((centred**2).sum())
    rest = values - values.mean() - centred * float((centred * values).sum()) / squares
    total = float((rest**2).sum())
    related = float((rest[1:] * rest[:-1]).sum()) / total if total else 0.0
    related = min(max(related, 0.0), 0.9)
    error = math.sqrt(total / (n - 2) / squares * (1 + related) / (1 - related))
    return t_quantile(0.975, n - 2) * error


def change_of_thirds(values: Floats, level: float) -> tuple[float, Interval] | None:
    """Return by which share the last third is above the first, and the interval of that.

    Student's t of the two means with the degrees of freedom of the smaller variance alone, which
    is on the safe side. A step counts as much as a slope. None below six values.
    """
    third = len(values) // 3
    first, last = values[:third], values[len(values) - third :]
    if third < 2 or not first.mean():
        return None
    change = float(last.mean() / first.mean()) - 1
    error = math.hypot(first.std(ddof=1), last.std(ddof=1)) / math.sqrt(third) / first.mean()
    half = t_quantile((1 + level) / 2, third - 1) * float(error)
    return change, (change - half, change + half)


def window_medians(times: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Cut a series into 20 windows of equal time; return their mean times and median values."""
    edges = np.linspace(times[0], times[-1], _WINDOWS + 1)
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, _WINDOWS - 1)
    used = [window for window in range(_WINDOWS) if np.any(place == window)]
    middle = [float(np.mean(times[place == window])) for window in used]
    median = [float(np.median(values[place == window])) for window in used]
    return np.array(middle), np.array(median)
