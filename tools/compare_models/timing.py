"""Interleaved timing, A B C A B C ..., and ratios with their spread.

Whatever else the machine does falls on all sides alike, so the ratios of one round can be trusted
where times cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt
from fastseg_runtime.arrays.stats import bootstrap, interval95, quantiles
from fastseg_training.progress import show_progress

from compare_models.engine import Call

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the reference, over the rounds of one run.

    Attributes:
        median: of the ratios of single rounds.
        low: of the 95 % interval of the median.
        high: likewise.
        quartiles: of the ratios of single rounds.
        fastest: of the fastest rounds of both: what is left when nobody else disturbs.
    """

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]
    fastest: float


def time_rounds(calls: Mapping[str, Call], rounds: int) -> dict[str, Floats]:
    """Time all calls in turn, again and again.

    Each timed call follows an untimed one of the same network: its weights are in the cache again
    and the threads of the network before have gone to sleep.

    Args:
        calls: by name.
        rounds: how often each is timed.

    Returns:
        Milliseconds of every round, by name.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    for _ in show_progress(range(rounds), "timing", rounds):
        for name, call in calls.items():
            call()
            start = perf_counter()
            call()
            times_ms[name].append(1e3 * (perf_counter() - start))
    return {name: np.array(times) for name, times in times_ms.items()}


def ratio_to(reference_ms: Floats, times_ms: Floats) -> Ratio:
    """Return the reference's time over the other's, round by round."""
    ratios = reference_ms / times_ms
    medians = bootstrap(lambda picked: np.median(ratios[picked]), len(ratios), RESAMPLES)
    first, third = map(float, quantiles(ratios, (0.25, 0.75)))
    fastest = float(reference_ms.min() / times_ms.min())
    return Ratio(float(np.median(ratios)), *interval95(medians), (first, third), fastest)
