import numpy as np
import pytest
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_targets.device import load_device
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.analysis.power import (
    IdlePower,
    choose_curves,
    choose_total,
    curves,
    measure_power,
)
from remote_bench.analysis.result import Samples

RUN = (100.0, 120.0)
SPANS = {"flat_out": RUN, "idle_before": (90.0, 100.0), "idle_after": (120.0, 130.0)}
TIMES = np.round(np.arange(90.0, 130.05, 0.1), 3).tolist()
FRAMES = np.arange(100.05, 120.001, 0.05)  # 20 FPS


def feed(line, times=TIMES):
    return {"tegrastats": {"lines": [[t, line(t)] for t in times]}, "power": []}


def series(source, rails, row, unit="mw", wraps_at=None, times=TIMES):
    return {
        "source": source, "unit": unit, "rails": rails, "wraps_at": wraps_at or [None] * len(rails),
        "t": list(times), "values": [row(t) for t in times],
    }  # fmt: skip


def read(samples):
    return from_table(Samples, samples, "samples")


def measure(samples, device="orin-nano"):
    return measure_power(curves(read(samples)), load_device(device), SPANS, FRAMES)


def loaded(t):
    return 10000 if 100 <= t <= 120 else 4000


def test_mean_power_and_energy_a_frame_come_from_the_readings():
    power, reason = measure(feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW VDD_SOC 500mW/500mW"))
    assert reason == ""
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)
    assert power.flat_out.energy_j == pytest.approx(200, rel=0.01)
    assert power.flat_out.j_per_frame == pytest.approx(0.5, rel=0.01)
    assert power.flat_out.j_per_frame_above_idle == pytest.approx(0.3, rel=0.02)
    low, high = power.flat_out.j_per_frame_ci95
    assert low <= power.flat_out.j_per_frame <= high
    assert power.idle.before_w == pytest.approx(4, rel=0.02)
    assert power.idle.after_w == pytest.approx(4, rel=0.02)
    assert power.idle.drift_w == pytest.approx(0, abs=0.1)
    assert power.idle.mean_w == pytest.approx(4, rel=0.02)
    assert (power.scope, power.rails, power.not_added) == (
        "module",
        ("VDD_IN",),
        ("VDD_SOC",),
    )
    assert power.step_mw == {"VDD_IN": 40.0}
    assert power.rate_hz == pytest.approx(10, rel=0.02)


def above_idle_ci95(before, run, after):
    """Return the interval where each phase has its power, as a function of time, mW."""

    def line(t):
        phase = before if t < 100 else run if t <= 120 else after
        return f"VDD_IN {phase(t)}mW/1mW"

    power, _ = measure(feed(line))
    load = power.flat_out
    low, high = load.j_per_frame_above_idle_ci95
    assert low < load.j_per_frame_above_idle < high
    return high - low


def swings(mean_mw, by_mw):
    """Return power that is high for two seconds and low for two."""
    return lambda t: mean_mw + (by_mw if t % 4 < 2 else -by_mw)


def steady(mean_mw):
    return lambda t: mean_mw


def test_energy_above_idle_is_no_surer_than_the_idle_power():
    sure = above_idle_ci95(steady(4000), swings(10000, 500), steady(4000))
    unsure = above_idle_ci95(swings(4000, 1500), swings(10000, 500), swings(4000, 1500))
    assert unsure > 1.5 * sure


def test_energy_above_idle_is_unsure_by_the_drift_of_the_idle_power():
    sure = above_idle_ci95(steady(4000), swings(10000, 500), steady(4000))
    drifted = above_idle_ci95(steady(3000), swings(10000, 500), steady(5000))
    assert drifted - sure == pytest.approx(2 * 0.05, rel=0.2)  # 2 W, at 20 FPS, in all


def test_idle_power_of_too_short_a_phase_gives_energy_above_idle_without_an_interval():
    spans = {**SPANS, "idle_before": (98.0, 100.0), "idle_after": (120.0, 122.0)}
    samples = feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW")
    power, _ = measure_power(curves(read(samples)), load_device("orin-nano"), spans, FRAMES)
    assert power.flat_out.j_per_frame_above_idle == pytest.approx(0.3, rel=0.05)
    assert power.flat_out.j_per_frame_above_idle_ci95 is None
    assert power.flat_out.j_per_frame_ci95 is not None


def test_a_moment_of_idle_power_is_no_idle_power():
    spans = {**SPANS, "idle_before": (99.9, 100.0), "idle_after": (120.0, 120.001)}
    samples = feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW")
    power, _ = measure_power(curves(read(samples)), load_device("orin-nano"), spans, FRAMES)
    assert power.idle == IdlePower(None, None, None, None)
    assert power.flat_out.j_per_frame_above_idle is None


def test_printed_average_is_never_used():
    power, _ = measure(feed(lambda t: f"VDD_IN {loaded(t)}mW/77777mW/88888mW"))
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)


def test_negative_readings_of_one_step_stay_in_the_mean():
    def line(t):
        sign = -1 if round(10 * t) % 2 else 1
        return f"VDD_GPU_SOC 5000mW/1mW VDD_CPU_CV {sign * 398}mW/1mW VIN_SYS_5V0 1000mW/1mW"

    power, _ = measure(feed(line), device="agx-orin")
    assert power.flat_out.mean_w == pytest.approx(6, abs=0.02)


def test_vddq_is_never_added_on_agx_orin():
    text = "VDD_GPU_SOC 2000mW/1mW VDD_CPU_CV 1000mW/1mW VIN_SYS_5V0 3000mW/1mW NC 0mW/0mW "
    power, _ = measure(feed(lambda t: text + "VDDQ_VDD2_1V8AO 700mW/1mW NC 0mW/0mW"), "agx-orin")
    assert power.flat_out.mean_w == pytest.approx(6)
    assert power.not_added == ("NC", "VDDQ_VDD2_1V8AO")


def test_thor_takes_the_system_input_alone_and_says_so():
    rails = "VDD_GPU 1962mW/1mW VDD_CPU_SOC_MSS 5887mW/1mW VIN_SYS_5V0 5635mW/1mW"
    power, _ = measure(feed(lambda t: rails + " VIN 19780mW/1mW"), "thor")
    assert (power.scope, power.flat_out.mean_w) == ("system", pytest.approx(19.78))
    power, _ = measure(feed(lambda t: rails), "thor")
    assert (power.scope, power.flat_out.mean_w) == ("module", pytest.approx(13.484))


def test_missing_rail_of_a_sum_gives_no_total():
    power, reason = measure(feed(lambda t: "VDD_GPU_SOC 1mW/1mW VDD_CPU_CV 1mW/1mW"), "agx-orin")
    assert power is None and "VIN_SYS_5V0" in reason and "not all there" in reason


def test_unknown_rails_of_an_unknown_board_are_never_summed():
    power, reason = measure(feed(lambda t: "VDD_A 1mW/1mW VDD_B 1mW/1mW"), "generic-arm64")
    assert power is None and "VDD_A" in reason


def test_board_without_a_sensor_says_what_to_do():
    power, reason = measure({"tegrastats": {"lines": []}, "power": []}, "raspberry-pi-4")
    assert power is None and "meter" in reason


def test_two_sources_of_the_same_sensor_are_counted_once():
    samples = feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW")
    samples["power"] = [series("ina_hwmon", ["VDD_IN"], lambda t: [loaded(t)])]
    power, _ = measure(samples)
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)
    assert power.source == ("ina_hwmon",) and power.cross_check["VDD_IN"] == pytest.approx(0)


@pytest.mark.parametrize("source", ["ina_hwmon", "ina_iio"])
def test_sensor_of_a_carrier_board_hides_no_rail_of_another_source(source):
    samples = feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW")
    samples["power"] = [series(source, ["ina219.1-0041.1"], lambda t: [12000])]
    power, _ = measure(samples)
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)
    assert (power.source, power.not_added) == (("tegrastats",), ("ina219.1-0041.1",))
    stray = series("ina_hwmon", ["ina219.1-0041.1"], lambda t: [12000])
    samples["power"] = [stray, series("ina_iio", ["VDD_IN"], lambda t: [loaded(t)])]
    assert measure(samples)[0].source == ("ina_iio",)


def test_what_tegrastats_shows_beyond_its_sensor_is_told():
    samples = feed(lambda t: f"VDD_IN {round(1.2 * loaded(t))}mW/1mW")
    samples["power"] = [series("ina_hwmon", ["VDD_IN"], lambda t: [loaded(t)])]
    power, _ = measure(samples)
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)
    assert power.cross_check["VDD_IN"] == pytest.approx(0.2, abs=0.01)


def test_sensor_that_reads_nothing_where_tegrastats_sees_watts_is_told():
    rails = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    samples = feed(lambda t: " ".join(f"{rail} {loaded(t)}mW/1mW" for rail in rails))
    samples["power"] = [series("ina_hwmon", rails, lambda t: [0, loaded(t), loaded(t)])]
    power, _ = measure(samples, "agx-orin")
    assert power.cross_check["VDD_GPU_SOC"] > 1000


def test_total_of_0_w_is_no_power():
    power, reason = measure(feed(lambda t: "VDD_IN 0mW/1mW"))
    assert power is None and "0 W all the time from VDD_IN" in reason


RANGE_UJ = 262143328850  # of a Xeon's package


def counted(counter, wraps_at=RANGE_UJ):
    rapl = series("rapl", ["package-0"], lambda t: [counter(t)], "uj", [wraps_at])
    return measure({"tegrastats": {"lines": []}, "power": [rapl]}, "generic-x86")


@pytest.mark.parametrize("value", [0, 123456789])
def test_energy_counter_that_never_moves_is_no_power(value):
    power, reason = counted(lambda t: value)
    assert power is None and "counter of package-0 never moved" in reason


def test_energy_counter_that_begins_anew_is_no_wrap_and_is_told():
    power, _ = counted(lambda t: 1e10 + 15e6 * t if t < 112 else 15e6 * (t - 112))
    assert power.flat_out.mean_w == pytest.approx(15)
    assert power.breaks == 1 and power.coverage == pytest.approx(0.995, abs=0.002)


@pytest.mark.parametrize("by_j", [-2, -9e3, 2, 9e3])
@pytest.mark.parametrize("wraps_at", [RANGE_UJ, 0, None])
def test_one_reading_of_an_energy_counter_that_is_off_costs_nothing(by_j, wraps_at):
    power, _ = counted(lambda t: 1e10 + 15e6 * t + (1e6 * by_j if t == 110 else 0), wraps_at)
    assert power.flat_out.mean_w == pytest.approx(15, rel=0.001)
    assert power.breaks == 0


def test_energy_counter_that_wraps_at_every_second_step_is_unwrapped():
    times = np.arange(90.0, 130.5)
    rapl = series("rapl", ["package-0"], lambda t: [40e6 * t % 65.536e6], "uj", [65.536e6], times)
    power, _ = measure({"tegrastats": {"lines": []}, "power": [rapl]}, "generic-x86")
    assert power.flat_out.mean_w == pytest.approx(40) and power.breaks == 0


def test_step_that_no_power_makes_in_a_tenth_of_a_second_is_none():
    power, _ = counted(lambda t: 1e10 + 15e6 * t + (1e9 if t > 110 else 0))
    assert power.flat_out.mean_w == pytest.approx(15, rel=0.001) and power.breaks == 1


def test_energy_counter_that_wraps_at_nobody_knows_what_goes_on():
    power, _ = counted(lambda t: (2.6e11 + 15e6 * t) % RANGE_UJ, None)
    assert power.flat_out.mean_w == pytest.approx(15, rel=0.01)


def test_rails_of_a_single_value_are_power_too():
    power, _ = measure(feed(lambda t: f"VDD_IN {loaded(t)}mW"))
    assert power.flat_out.mean_w == pytest.approx(10, rel=0.01)


def test_fuller_source_is_taken_where_tegrastats_died():
    samples = feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW", times=TIMES[:110])
    samples["power"] = [series("ina_hwmon", ["VDD_IN"], lambda t: [loaded(t)])]
    power, _ = measure(samples)
    assert power.source == ("ina_hwmon",) and power.coverage == 1


def test_gap_is_reported_and_half_a_run_without_samples_is_no_number():
    short = [t for t in TIMES if not 105 < t < 110]
    power, _ = measure(feed(lambda t: "VDD_IN 10000mW/1mW", times=short))
    assert power.coverage == pytest.approx(0.75, abs=0.02)
    [gap] = power.gaps
    assert gap == pytest.approx((105, 110), abs=0.11)
    long = [t for t in TIMES if not 101 < t < 119]
    power, reason = measure(feed(lambda t: "VDD_IN 10000mW/1mW", times=long))
    assert power is None and "cover" in reason


def test_energy_counter_that_wraps_is_unwrapped():
    def counter(t):
        return [(8e6 * (t - 90)) % 50e6, (2e6 * (t - 90)) % 50e6]

    rapl = series("rapl", ["package-0", "core"], counter, "uj", [50e6, 50e6])
    power, _ = measure({"tegrastats": {"lines": []}, "power": [rapl]}, "generic-x86")
    assert power.flat_out.mean_w == pytest.approx(8)
    assert (power.scope, power.rails) == ("soc", ("package-0",))


def test_processor_and_gpu_of_a_pc_are_added_under_their_own_scope():
    sources = [
        series("rapl", ["package-0"], lambda t: [5e6 * t], "uj", [None]),
        series("nvml", ["nvml-0"], lambda t: [30e6 * t], "uj", [None]),
    ]
    power, _ = measure({"tegrastats": {"lines": []}, "power": sources}, "generic-x86")
    assert power.scope == "soc + gpu"
    assert power.flat_out.mean_w == pytest.approx(35)


def test_run_that_outlasts_its_samples_by_a_little_loses_no_energy():
    times = [t for t in TIMES if 90.3 < t < 129.8]
    power, _ = measure(feed(lambda t: "VDD_IN 5000mW/1mW", times=times))
    assert power.idle.before_w == pytest.approx(5)
    assert power.idle.after_w == pytest.approx(5)


def test_null_readings_are_left_out():
    rows = series("ina_hwmon", ["VDD_IN"], lambda t: [None if 103 < t < 103.5 else 5000])
    power, _ = measure({"tegrastats": {"lines": []}, "power": [rows]})
    assert power.flat_out.mean_w == pytest.approx(5)


@given(st.lists(st.integers(0, 3), max_size=12))
def test_doubled_shuffled_and_dropped_rails_never_sum_twice(order):
    tokens = ["VDD_GPU_SOC 2000mW/1mW", "VDD_CPU_CV 1000mW/1mW", "VIN_SYS_5V0 3000mW/1mW"]
    tokens.append("VDDQ_VDD2_1V8AO 700mW/1mW")
    samples = feed(lambda t: " ".join(tokens[i] for i in order))
    rails = choose_curves(curves(read(samples)), RUN)
    total = choose_total(rails, load_device("agx-orin").power)
    if {0, 1, 2} <= set(order):
        assert total.energy_j(*RUN) == pytest.approx(120)
    else:
        assert isinstance(total, str)


@pytest.mark.parametrize(("missing_s", "known"), [(9.8, True), (10.2, False)])
def test_half_of_the_run_has_to_be_sampled(missing_s, known):
    times = [t for t in TIMES if not 105 < t < 105 + missing_s]
    power, reason = measure(feed(lambda t: "VDD_IN 10000mW/1mW", times=times))
    assert (power is not None) == known
    assert known or "cover 49% of the run" in reason


@pytest.mark.parametrize(
    ("hz", "gap_s", "gaps"), [(10, 0.95, 0), (10, 1.1, 1), (2, 2.4, 0), (2, 2.6, 1)]
)
def test_gap_is_a_second_or_five_periods_of_a_slow_sensor(hz, gap_s, gaps):
    times = [t for t in TIMES[:: 10 // hz] if not 105 < t < 105 + gap_s]
    times = sorted({*times, 105.0, 105.0 + gap_s})
    power, _ = measure(feed(lambda t: "VDD_IN 10000mW/1mW", times=times))
    assert len(power.gaps) == gaps


@pytest.mark.parametrize(
    ("idle_s", "known", "sure"),
    [(0.99, False, False), (1.01, True, False), (3.9, True, False), (4.1, True, True)],
)
def test_idle_power_needs_a_second_and_its_interval_four(idle_s, known, sure):
    spans = {**SPANS, "idle_before": (100 - idle_s, 100.0), "idle_after": (120.0, 120 + idle_s)}
    samples = read(feed(lambda t: f"VDD_IN {loaded(t)}mW/1mW"))
    power, _ = measure_power(curves(samples), load_device("orin-nano"), spans, FRAMES)
    assert (power.idle.mean_w is not None) == known
    assert (power.flat_out.j_per_frame_above_idle_ci95 is not None) == sure


@pytest.mark.parametrize(("until", "mean_w"), [(130, 5), (125.1, 5), (124.9, None), (120, None)])
def test_power_of_a_paced_run_needs_half_of_it_sampled(until, mean_w):
    spans = {"flat_out": RUN, "paced": (120.0, 130.0)}
    times = [t for t in TIMES if t <= until]
    samples = feed(lambda t: f"VDD_IN {10000 if t <= 120 else 5000}mW/1mW", times=times)
    power, _ = measure_power(curves(read(samples)), load_device("orin-nano"), spans, FRAMES)
    assert power.coverage == 1
    assert power.paced_coverage == pytest.approx((until - 120) / 10, abs=0.02)
    assert (power.paced and power.paced.mean_w) == (mean_w and pytest.approx(mean_w, rel=0.02))
