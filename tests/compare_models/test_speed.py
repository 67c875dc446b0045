import pytest
from compare_models.candidate import OwnNetworks, open_candidates
from compare_models.cost import Peaks, measure_peaks
from compare_models.scale import Point, growth, sweep_sizes
from compare_models.speed import compare, node_times
from compare_models.torch_ways import time_on

SIZE = (128, 64)
MAIN = OwnNetworks(output_name="0")


def test_rows_hold_ratios_to_the_first_network(rival: str) -> None:
    candidates = open_candidates([rival, "nano"], SIZE, classes=5, own=MAIN)
    rows = compare(candidates, threads=1, rounds=3, peaks=Peaks(gflops=1e6, bandwidth_gb_s=1.0))
    assert [row.label for row in rows] == ["tiny", "nano"]
    assert rows[0].speedup.median == 1.0
    assert rows[1].cost.macs > rows[0].cost.macs
    for row in rows:
        assert row.fastest_ms <= row.latency_ms
        assert row.memory_mb > 0
        assert row.peak_share is not None and 0 < row.peak_share < 1


def test_the_tail_is_what_runs_after_the_last_convolution() -> None:
    (candidate,) = open_candidates(["nano"], SIZE, classes=5)
    profile = node_times(candidate.model, candidate.feed, threads=1, runs=2)
    assert 0 < profile.tail_share < 1 and 0 < profile.convolution_share < 1
    assert profile.tail_share + profile.convolution_share <= 1


def test_the_peaks_of_a_machine_are_positive() -> None:
    peaks = measure_peaks(threads=1, repeats=1)
    assert peaks.gflops > 0 and peaks.bandwidth_gb_s > 0


def test_growth_is_the_exponent_of_time_in_pixels() -> None:
    points = [Point("a", 100 * n, 100 * n, 1, 1, 3.0 * n**3, 10.0) for n in (1, 2, 4)]
    assert growth(points) == pytest.approx(1.5)


def test_a_sweep_has_a_point_for_each_size_and_thread_count() -> None:
    points = sweep_sizes(["nano"], 3, rounds=3, sizes=((64, 32), (128, 64)), threads=(1,))
    assert [(p.width, p.height, p.threads) for p in points] == [(64, 32, 1), (128, 64, 1)]
    assert all(p.latency_ms > 0 and p.memory_mb > 0 for p in points)


def test_torch_is_timed_eager_on_the_cpu() -> None:
    candidates = open_candidates(["nano"], (64, 32), classes=3)
    times_ms = time_on(candidates, "cpu", rounds=2, ways=("eager",))
    assert set(times_ms) == {"nano eager fp32", "nano eager bf16"}
