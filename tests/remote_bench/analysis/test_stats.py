import math

import numpy as np
import pytest
from fastseg_runtime.arrays.stats import quantiles
from remote_bench.analysis.stats import (
    bootstrap,
    ci95,
    median_ci95,
    slope,
    window_medians,
)


def test_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = ci95(bootstrap(rng.normal(10, 2, 100), np.mean))
        hits += low <= 10 <= high
    assert 170 <= hits <= 199


def test_intervals_of_percentiles_hold_the_percentiles():
    values = np.random.default_rng(3).exponential(size=2000)
    replicates = bootstrap(values, lambda part: quantiles(part, [0.5, 0.9]))
    for column, fraction in zip(replicates.T, (0.5, 0.9), strict=True):
        low, high = ci95(column)
        assert low <= np.quantile(values, fraction, method="inverted_cdf") <= high


def test_interval_grows_with_autocorrelation():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=900)
    slow = np.repeat(noise[:45], 20)
    widths = [np.ptp(ci95(bootstrap(v, np.mean))) for v in (noise, slow)]
    assert widths[1] > 2 * widths[0]


def test_series_that_is_too_short_has_no_interval():
    assert bootstrap(np.ones(7), np.mean) is None and ci95(None) is None
    assert ci95(bootstrap(np.ones(8), np.mean)) == (1, 1)
    assert ci95(np.array([1.0, np.nan])) is None


def test_interval_of_a_median_is_that_of_the_sign_test():
    assert median_ci95(np.arange(5.0)) is None
    assert median_ci95(np.arange(6.0)) == (0, 5)  # 1 - 2 / 2**6 = 96.9 %
    assert median_ci95(np.arange(8.0)) == (0, 7)
    assert median_ci95(np.arange(9.0)) == (1, 7)  # 1 - 2 * (1 + 9) / 2**9 = 96.1 %
    assert median_ci95(np.arange(20.0)) == (5, 14)  # as tables of the sign test have it


def test_slope_is_not_moved_by_an_outlier():
    t = np.arange(20.0)
    values = 3 * t
    values[7] = 1e6
    assert slope(t, values) == pytest.approx(3)
    assert slope(np.zeros(3), np.ones(3)) == 0


def test_windows_hold_all_frames_and_skip_empty_times():
    t = np.array([0.0, 0.1, 0.2, 9.9, 10.0])
    middle, medians = window_medians(t, np.array([1.0, 2, 3, 8, 8]))
    assert medians.tolist() == [2.0, 8.0]
    assert math.isclose(middle[0], 0.1)
