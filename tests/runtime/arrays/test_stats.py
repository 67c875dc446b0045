import numpy as np
import pytest
from fastseg_runtime.arrays.stats import FRAMES_NEEDED, StageTimes, percentiles


@pytest.mark.parametrize("rank", [90, 99])
def test_needed_frames_are_the_fewest_that_give_99_percent_confidence(rank: int) -> None:
    p = rank / 100

    def doubt(frames: int) -> float:
        return float(p**frames + frames * (1 - p) * p ** (frames - 1))

    assert doubt(FRAMES_NEEDED[rank]) <= 0.01 < doubt(FRAMES_NEEDED[rank] - 1)


def test_percentiles_that_the_count_cannot_support_are_none() -> None:
    assert percentiles(np.arange(63.0))["p90"] is None
    assert percentiles(np.arange(64.0))["p90"] == pytest.approx(56.7)
    assert percentiles(np.arange(661.0))["p99"] is None
    assert percentiles(np.arange(662.0))["p99"] is not None
    assert percentiles(np.zeros(0))["p50"] is None


def test_only_the_last_frames_of_the_window_count() -> None:
    times = StageTimes(window=4)
    for value in range(6):
        times.add((value, 0.0, 1.0))
    summary = times.summary()
    assert summary["frames"] == 4
    assert summary["pre"]["p50"] == pytest.approx(3500.0)  # of 2, 3, 4, 5 seconds
    assert summary["total"]["p50"] == pytest.approx(4500.0)
    assert times.newest == pytest.approx((5.0, 0.0, 1.0))
