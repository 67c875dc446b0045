from fractions import Fraction

import numpy as np
import pytest
from fastseg_runtime.arrays.stats import (
    PERCENTILES,
    StageTimes,
    bootstrap,
    frames_needed,
    interval95,
    percentiles,
    quantiles,
)
from hypothesis import given
from hypothesis import strategies as st

COUNTS = {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}  # of LoadGen


def test_counts_are_those_of_loadgen() -> None:
    assert {name: frames_needed(fraction) for name, fraction in PERCENTILES.items()} == COUNTS


@pytest.mark.parametrize("name", PERCENTILES)
def test_needed_frames_are_the_fewest_that_give_99_percent_confidence(name: str) -> None:
    p = PERCENTILES[name]

    def doubt(frames: int) -> float:
        return float(p**frames + frames * (1 - p) * p ** (frames - 1))

    assert doubt(COUNTS[name]) <= 0.01 < doubt(COUNTS[name] - 1)


@pytest.mark.parametrize("name", PERCENTILES)
def test_one_frame_less_than_needed_supports_no_percentile(name: str) -> None:
    times_ms = np.arange(float(COUNTS[name]))
    assert percentiles(times_ms[:-1], [name]) == {name: None}
    assert percentiles(times_ms, [name])[name] is not None


def test_the_device_is_told_three_percentiles_none_of_them_of_no_frame() -> None:
    assert percentiles(np.zeros(0)) == {"p50": None, "p90": None, "p99": None}


@given(
    values=st.lists(st.integers(0, 50), min_size=1, max_size=300),
    percent=st.integers(1, 100),
)
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(
    values: list[int], percent: int
) -> None:
    def enough(value: int) -> bool:
        return sum(v <= value for v in values) >= Fraction(percent, 100) * len(values)

    (found,) = quantiles(np.array(values), [percent / 100])
    assert found == min(filter(enough, values))


@given(st.lists(st.floats(0, 1e6), min_size=64, max_size=200))
def test_percentiles_are_numpys_inverted_distribution(values: list[float]) -> None:
    expected = np.quantile(values, [0.5, 0.9], method="inverted_cdf")
    found = percentiles(np.array(values))
    assert [found["p50"], found["p90"]] == list(expected)


def test_an_interval_leaves_2_5_percent_on_either_side() -> None:
    assert interval95(np.arange(1001.0)) == (25.0, 975.0)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = interval95(bootstrap(lambda i: values[i].mean(), len(values), 4000))
    standard_error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.1 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.1 * standard_error)


@pytest.mark.parametrize("block", [1, 3, 10])
def test_a_resample_has_as_many_data_in_blocks_of_neighbours(block: int) -> None:
    seen = bootstrap(lambda indices: indices, 10, 50, block)
    assert seen.shape == (50, 10) and set(seen.ravel()) == set(range(10))
    steps = np.diff(seen, axis=1)
    inside = [place for place in range(9) if (place + 1) % block]
    assert np.all(steps[:, inside] % 10 == 1)


def test_the_same_seed_gives_the_same_resamples() -> None:
    first, again, other = (bootstrap(lambda i: i, 9, 5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_only_the_last_frames_of_the_window_count() -> None:
    times = StageTimes(window=11)
    for value in range(13):
        times.add((value, 0.0, 1.0))
    summary = times.summary()
    assert summary["frames"] == 11
    assert summary["pre"]["p50"] == pytest.approx(7000.0)  # of 2, 3, ... 12 seconds
    assert summary["total"]["p50"] == pytest.approx(8000.0)
    assert times.newest == pytest.approx((12.0, 0.0, 1.0))
