import importlib.util
import random
from dataclasses import replace
from pathlib import Path

import pytest
from remote_bench.agent.environment import PI_BITS
from remote_bench.analysis import conditions

SCRIPT = Path(__file__).parents[3] / "tools/bench_figures/simulate_notes.py"
_spec = importlib.util.spec_from_file_location("simulate_notes", SCRIPT)
simulate_notes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(simulate_notes)


def test_what_throttled_a_pi_between_two_samples_has_the_names_of_what_a_sample_saw():
    """The agent travels alone, so each has a table of its own."""
    seen = {bit: conditions._pi_alerts(0, 1 << (bit + 16)) for bit in range(16)}
    said = {bit: {f"Raspberry Pi: {name}"} for bit, name in PI_BITS.items()}
    assert {bit: alerts for bit, alerts in seen.items() if alerts} == said


def clock(report_of, made_result, late_mhz, **keys):
    """Make the report of a run whose GPU clock is 1000 MHz, and then another in the last half."""
    raw = made_result(**keys)
    for sample in raw["samples"]["environment"]:
        sample["mhz"] = {"gpu.x": late_mhz if sample["t"] > 115 else 1000.0, "emc": None}
    return report_of(raw)


@pytest.mark.parametrize(("late_mhz", "found"), [(951.0, []), (949.0, ["clocks_fell"])])
def test_clock_has_fallen_where_it_lost_more_than_five_percent(
    report_of, made_result, late_mhz, found
):
    report = clock(report_of, made_result, late_mhz)
    assert [reason.code for reason in report.reasons] == found
    assert report.conditions.clocks["gpu.x"]["fell"] == pytest.approx(1 - late_mhz / 1000)


@pytest.mark.parametrize(("late_mhz", "found"), [(951.0, "throttle_events"), (949.0, "throttled")])
def test_event_counter_is_throttling_only_with_a_clock_that_fell(
    report_of, made_result, late_mhz, found
):
    counters = {"soctherm.oc3_event_cnt": 8}
    report = clock(report_of, made_result, late_mhz, counters_after=counters)
    assert [reason.code for reason in report.reasons] == [found]
    assert report.conditions.throttling.events == {"soctherm.oc3_event_cnt": 1}


def test_foreign_load_is_a_share_of_the_cores_that_the_run_may_use(report_of, made_result):
    def load(**info):
        raw = made_result(info=info)
        for part in raw["slices"]:
            part["cpu_s"] = {"busy": [0, 30.0], "worker": [0, 10.0], "supervisor": [0, 0.0]}
        return report_of(raw).conditions.foreign_load.cpu

    assert load(usable_cores=2) == pytest.approx(3 * load(), rel=1e-6)  # of 6


@pytest.mark.parametrize(
    ("busy", "known"),
    [
        ([0, 20.0], True),
        ([0, 12.0], True),  # ticks that were missed
        ([None, None], False),  # no /proc/stat
        ([0, 0], False),  # gVisor
        ([50000.0, 37500.0], False),  # a core was switched off
    ],
)
def test_load_of_others_that_nobody_counts_is_unknown_and_said(report_of, made_result, busy, known):
    raw = made_result()
    raw["slices"][0]["cpu_s"] = {"busy": busy, "worker": [0, 19.0], "supervisor": [0, 0.5]}
    report = report_of(raw)
    assert (report.conditions.foreign_load.cpu is not None) == known
    assert [r.code for r in report.reasons] == ([] if known else ["not_watched"])
    assert known or report.reasons[0].message.startswith("CPU load of others could not be watched")


@pytest.mark.parametrize(("name", "part"), [("paced", "paced run"), ("soak", "fifth of the soak")])
def test_load_that_comes_after_the_flat_out_run_is_seen_in_what_it_slows(
    report_of, made_result, name, part
):
    def with_part(busy_cores):
        raw = made_result(info={"backend": "onnxruntime", "device": "cpu"})
        raw["frames"][name] = {k: 10 * v[:100] for k, v in raw["frames"]["flat_out"].items()}
        for number in range(10):
            begin, cores = 125.0 + 10 * number, busy_cores if number > 7 or name == "paced" else 1.0
            cpu = {"busy": [0, 10 * cores], "worker": [0, 10.0], "supervisor": [0, 0.0]}
            raw["slices"].append({"name": name, "begin": begin, "end": begin + 10, "frames": 100,
                                  "fps": 10.0, "late": 0, "cpu_s": cpu})  # fmt: skip
        last = raw["samples"]["environment"][-1]
        raw["samples"]["environment"] += [
            {**last, "t": 131.0 + s, "gpu_load": (busy_cores - 1) / 5} for s in range(100)
        ]
        return report_of(raw)

    assert with_part(1.0).conditions.foreign_load.gpu == 0
    assert not {"foreign_load", "foreign_gpu_load"} & {r.code for r in with_part(1.0).reasons}
    report = with_part(6.0)
    assert report.verdict == "invalid" and report.conditions.foreign_load.cpu < 0.1
    said = [r.message for r in report.reasons if r.code.startswith("foreign")]
    assert len(said) == 2 and said[0].startswith("others used 83% of the usable CPU cores during")
    assert said[0].endswith(part) and said[1].startswith("others used 100% of the GPU during")


def test_zone_that_heats_in_the_second_half_alone_is_told_by_its_slope_there(
    report_of, made_result
):
    def heated(per_minute):
        raw = made_result()
        for sample in raw["samples"]["environment"]:
            late_s = max(0.0, sample["t"] - 115)
            sample["celsius"] = {"tj": 50 + per_minute * late_s / 60, "cold": 20.0}
        return report_of(raw)

    assert heated(1.95).reasons == ()
    report = heated(2.05)
    assert [reason.code for reason in report.reasons] == ["still_heating"]
    assert report.steady.hottest == "tj"
    assert report.conditions.temperatures["tj"].slope_c_per_min == pytest.approx(2.05)


def test_memory_is_the_most_of_any_reading_and_a_missing_one_is_none(report_of, made_result):
    raw = made_result()
    raw["samples"]["environment"][3]["worker"]["peak_rss_kb"] = 1024 * 999
    memory = report_of(raw).memory
    assert (memory.baseline_mb, memory.pss_mb, memory.peak_mb) == (100, 200, 999)
    raw["memory"]["imported"] |= {"pss_kb": None, "available_kb": None}
    unknown = report_of(raw).memory
    assert unknown == replace(memory, baseline_mb=None, delta_mb=None, system_delta_mb=None)


def jumping(report_of, made_result, clocks, **keys):
    """Make the report of a run in which clocks jump between two steps and fall in the end."""
    raw = made_result(**keys)
    for number, sample in enumerate(raw["samples"]["environment"]):
        sample["mhz"] = {name: mhz(number, sample["t"] > 118) for name, mhz in clocks.items()}
        sample["ran_on"] = [0, 1]
    return report_of(raw)


FALLING = {
    "cpu.policy0.requested": lambda number, late: 700.0 if late else 1000.0,
    "cpu.policy4.requested": lambda number, late: 500.0 if late else 1000.0,
    "gpu.x": lambda number, late: 306.0 if late else 1020.0,
    "memory.dmc": lambda number, late: 528.0 if late else 2112.0,
}


@pytest.mark.parametrize(
    ("info", "fell"),
    [
        ({"backend": "onnxruntime", "device": "cpu"}, {"cpu.policy0.requested"}),
        ({"backend": "tensorrt", "device": "Orin"}, {"cpu.policy0.requested", "gpu.x"}),
        ({"backend": "onnxruntime", "device": "cuda:0"}, {"cpu.policy0.requested", "gpu.x"}),
    ],
)
def test_only_clocks_of_what_the_network_ran_on_are_judged(report_of, made_result, info, fell):
    report = jumping(report_of, made_result, FALLING, info=info)
    assert set(report.conditions.throttling.clocks_fell) == fell
    assert set(report.conditions.clocks) == set(FALLING)


@pytest.mark.parametrize(
    ("policies", "ran_on", "ours"),
    [
        ({"0": [0, 3, 4, 5], "1": [1, 2]}, [3, 4, 5], "0"),  # a Jetson TX2
        ({"0": [0, 3, 4, 5], "1": [1, 2]}, [1, 2], "1"),
        ({"0": [0, 3, 4, 5], "1": [1, 2]}, [0], "0"),
        ({}, [3, 4, 5], "1"),  # of an older agent
        ({"7": [3]}, [3], "1"),  # of no clock that is seen
    ],
)
def test_clock_of_a_core_is_that_of_the_policy_that_has_it(
    report_of, made_result, policies, ran_on, ours
):
    raw = made_result(info={"backend": "onnxruntime", "device": "cpu"})
    raw["probe"]["cpu"]["policies"] = policies
    for sample in raw["samples"]["environment"]:
        mhz = 1000.0 if sample["t"] > 115 else 2000.0
        sample["mhz"] = {f"cpu.policy{number}.requested": mhz for number in (0, 1)}
        sample["ran_on"] = ran_on
    fell = report_of(raw).conditions.throttling.clocks_fell
    assert list(fell) == [f"cpu.policy{ours}.requested"]


def test_clock_that_jumps_all_the_time_has_not_fallen(report_of, made_result):
    clocks = {"gpu.x": lambda number, late: (1020.0, 612.0, 816.0, 306.0)[number % 4]}
    assert jumping(report_of, made_result, clocks).reasons == ()


@pytest.mark.parametrize(
    ("limit", "seen", "found"),
    [(1020.0, 1020.0, []), (624.75, 624.75, ["gpu_capped"]), (None, 624.75, ["gpu_capped"])],
)
def test_gpu_that_stays_below_the_clock_of_its_mode_is_said(
    report_of, made_result, limit, seen, found
):
    mode = {"id": 2, "name": "MAXN_SUPER"}  # 1020 MHz by the table of an Orin Nano
    raw = made_result(power_mode_before=mode, power_mode_after=mode)
    raw["info"] = {"backend": "tensorrt", "device": "Orin"}
    if limit:
        path = "/sys/class/devfreq/17000000.gpu/max_freq"
        raw["probe"]["settings"][path] = str(int(1e6 * limit))
    for sample in raw["samples"]["environment"]:
        sample["mhz"] = {"gpu.x": seen}
    assert [reason.code for reason in report_of(raw).reasons] == found


def test_memory_clock_and_gpu_load_of_tegrastats_stand_beside_what_sysfs_shows(
    report_of, made_result
):
    raw = made_result(info={"backend": "onnxruntime", "device": "cpu"})
    lines = raw["samples"]["tegrastats"]["lines"]
    raw["samples"]["tegrastats"]["lines"] = [
        (t, f"EMC_FREQ 12%@3199 GR3D_FREQ 20%@[612] {text}") for t, text in lines
    ]
    report = report_of(raw)
    assert report.conditions.clocks["memory.tegrastats"]["flat_out"] == 3199
    assert report.conditions.foreign_load.gpu == pytest.approx(0.2)
    assert "memory.tegrastats" in report.series.mhz
    assert {r.message for r in report.reasons} == {
        "others used 20% of the GPU before the run",
        "others used 20% of the GPU during a run on the CPU",
    }


def test_runs_that_stand_still_seldom_get_a_note():
    # 20 of each kind here; 200 by the script, whose figures docs/report.md has.
    noted = [
        bool(simulate_notes.notes(simulate_notes.stationary(random.Random(seed), *kind)))
        for kind in simulate_notes.KINDS.values()
        for seed in range(8)
    ]
    assert sum(noted) <= 1


def test_step_of_a_tenth_in_the_middle_of_the_run_is_noted(report_of, made_result):
    rng = random.Random(0)
    raw = made_result(latency_ms=lambda t: (30 if t < 10 else 33) * (1 + rng.gauss(0, 0.03)))
    report = report_of(raw)
    assert [reason.code for reason in report.reasons] == ["not_settled"]
    assert "95 % interval" in report.reasons[0].message
