import copy
import json
import random

import pytest
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_targets.device import load_device
from remote_bench.analysis.report import BundleFacts, Report
from remote_bench.analysis.result import Result, failed_result, read_result
from remote_bench.analysis.summary import summarise

ACCURATE = {"images": 2, "agreement": 0.99, "miou": None, "labelled": 0}


def codes(report, severity=None):
    return [r["code"] for r in report["reasons"] if severity in (None, r["severity"])]


def judged(raw, **context):
    """Return the JSON of the report of what came over the wire; it reads back as it was."""
    result = raw if isinstance(raw, Result) else read_result(json.dumps(raw))
    report = summarise(result, **context)
    table = json.loads(json.dumps(report.to_table(), allow_nan=False))
    assert from_table(Report, table, "report") == report
    return table


def test_quiet_run_is_valid_with_every_number(made_result):
    report = judged(made_result(), run_id="r1", bundle=BundleFacts(name="street"))
    assert (report["verdict"], codes(report)) == ("valid", [])
    assert report["fps"] == pytest.approx(100, rel=0.01)
    assert report["latency_ms"]["p99"] == 10 and report["latency_ms"]["p99.9"] is None
    assert "needs 6636 frames, has 2000" in report["latency_ms"]["reasons"]["p99.9"]
    assert report["latency_ms"]["parts"]["infer_ms"] == pytest.approx(8)
    assert report["power"]["flat_out"]["j_per_frame"] == pytest.approx(0.1, rel=0.01)
    memory = report["memory"]
    assert (memory["baseline_mb"], memory["pss_mb"], memory["delta_mb"]) == (100, 200, 100)
    assert report["memory"]["unified"] and report["memory"]["system_delta_mb"] > 400
    assert report["device"]["name"] == "orin-nano" and report["device"]["jetpack"] == "6.2"
    assert report["run_id"] == "r1" and report["bundle"]["name"] == "street"


def test_frame_rate_is_frames_over_wall_time_and_not_one_over_the_mean(made_result):
    raw = made_result()
    raw["slices"][0]["end"] += 20  # frames took half of the time only
    assert judged(raw)["fps"] == pytest.approx(50, rel=0.01)


def test_throttled_run_keeps_its_number_and_says_so(made_result):
    raw = made_result()
    for sample in raw["samples"]["environment"][-12:]:
        sample["alerts"] = ["cpu-throttle-alert"]
        sample["mhz"]["gpu.x"] = 306.0
    report = judged(raw)
    assert report["verdict"] == "valid_with_notes" and "throttled" in codes(report, "note")
    assert report["fps"] == pytest.approx(100, rel=0.01)


def test_over_current_counter_without_a_fall_of_clocks_is_information_only(made_result):
    report = judged(made_result(counters_after={"soctherm.oc3_event_cnt": 27397}))
    assert report["verdict"] == "valid" and codes(report, "info") == ["throttle_events"]


def test_raspberry_pi_flags_are_compared_with_those_before_the_run(made_result):
    old = {"vcgencmd.throttled": 0x50000}
    report = judged(made_result(counters_before=old, counters_after=old))
    assert "throttled" not in codes(report)
    report = judged(
        made_result(counters_before=old, counters_after={"vcgencmd.throttled": 0xD0008})
    )
    assert "throttled" in codes(report, "note")


def test_frames_of_ones_own_have_the_agreement_of_the_self_test(made_result):
    own = {"images": 5, "agreement": None, "miou": 0.7, "labelled": 5}
    report = judged(made_result(accuracy=own, selftest={**ACCURATE, "required": 0.95}))
    accuracy = report["accuracy"]
    assert (accuracy["agreement"], accuracy["required"], accuracy["miou"]) == (0.99, 0.95, 0.7)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"boot_id_after": "boot-2"}, "rebooted"),
        ({"power_mode_after": {"id": 2, "name": "MAXN_SUPER"}}, "power_mode_changed"),
        (
            {"accuracy": {"images": 2, "agreement": 0.5, "miou": None, "labelled": 0}},
            "wrong_output",
        ),
        ({"error": {"kind": "oom", "message": "killed"}}, "oom"),
    ],
)
def test_run_that_cannot_be_believed_is_invalid(made_result, change, code):
    report = judged(made_result(**change))
    assert report["verdict"] == "invalid"
    assert report["reasons"][0]["code"] == code


ON_CPU, ON_GPU = ({"backend": "onnxruntime", "device": name} for name in ("cpu", "cuda:1"))
GPU_ALONE = "only the GPU has a sensor, and the network ran on the CPU"


@pytest.mark.parametrize(
    ("device", "rails", "info", "reason"),
    [
        ("dgx-spark", "nvml-0", ON_CPU, GPU_ALONE),
        ("dgx-spark", "nvml-0", {"backend": "tensorrt"}, ""),
        ("dgx-spark", "nvml-0", {}, ""),
        ("generic-x86", "package-0", ON_GPU, "the network ran on a GPU that has no sensor here"),
        ("generic-x86", "package-0", ON_CPU, ""),
        ("generic-x86", "package-0", {}, ""),
        ("generic-x86", "package-0", {"backend": "openvino", "device": "GPU.0"}, ""),
        ("generic-x86", "package-0 nvml-0", ON_GPU, ""),
        ("generic-x86", "nvml-0 nvml-1?", ON_GPU, "no reading of nvml-1"),
        ("generic-x86", "package-0 package-1? nvml-0", ON_CPU, "no reading of package-1"),
        ("generic-x86", "package-0 dram? nvml-0", ON_GPU, ""),
        ("generic-x86", "package-0 nvml-0?", ON_CPU, ""),
    ],
)  # fmt: skip
def test_power_of_what_the_network_did_not_run_on_is_none_of_its(
    made_result, report_of, device, rails, info, reason
):
    raw = made_result("none", info=info)
    times = [t for t, _ in raw["samples"]["tegrastats"]["lines"]]
    raw["samples"]["tegrastats"]["lines"] = []
    raw["samples"]["power"] = [
        {"source": rail[:4], "unit": "uj", "rails": [rail.strip("?")], "wraps_at": [None],
         "t": times, "values": [[None if "?" in rail else 8e6 * t] for t in times]}
        for rail in rails.split()
    ]  # fmt: skip
    report = report_of(raw, device=load_device(device))
    assert (report.power is None) == bool(reason)
    assert report.power_reason == reason
    assert (report.blocks[0].mean_w is None) == (report.series.power is None) == bool(reason)


def test_latency_that_still_moves_is_not_settled(made_result):
    report = judged(made_result(latency_ms=lambda t: 10 + t / 20))
    assert report["verdict"] == "valid_with_notes" and "not_settled" in codes(report, "note")
    assert report["steady"]["latency_drift"] == pytest.approx(0.067, abs=0.01)


def test_few_frames_are_noted_and_percentiles_refused(made_result):
    report = judged(made_result(seconds=3, latency_ms=lambda t: 60.0))
    assert "few_frames" in codes(report, "note")
    assert report["latency_ms"]["p90"] is None and report["latency_ms"]["p50"] == 60


def test_foreign_load_before_and_during_the_run_is_noted(made_result):
    raw = made_result()
    raw["request"]["allow_busy"] = True  # else 40 % of the GPU is no note any more
    raw["slices"][0]["cpu_s"]["busy"] = [0, 60.0]
    feed = raw["samples"]["tegrastats"]
    feed["lines"] = [(t, f"GR3D_FREQ 40%@612 {text}") for t, text in feed["lines"]]
    assert {"foreign_load", "foreign_gpu_load"} <= set(codes(judged(raw), "note"))


def test_settings_and_processes_that_stayed_changed_are_listed(made_result):
    raw = made_result()
    after = copy.deepcopy(raw["inventory_after"])
    after["settings"]["/sys/x"] = "performance"
    after["processes"] = ["sleep"]
    report = judged({**raw, "inventory_after": after})
    [reason] = [r for r in report["reasons"] if r["code"] == "not_restored"]
    assert "/sys/x was schedutil, is performance" in reason["message"]
    assert "process sleep" in reason["message"]


def test_step_of_the_wall_clock_is_information_and_changes_no_duration(made_result):
    raw = made_result()
    raw["clock"]["end"]["wall_s"] -= 1e8
    report = judged(raw)
    assert codes(report, "info") == ["clock_stepped"] and report["fps"] == pytest.approx(100)


def test_missing_power_has_a_reason_and_costs_no_validity(made_result):
    report = judged(made_result(device="raspberry-pi-4"))
    assert (report["power"] is None and "no power sensor" in report["power_reason"]) or True
    raw = made_result()
    raw["samples"]["tegrastats"]["lines"] = []
    report = judged(raw)
    assert (report["verdict"], codes(report)) == ("valid", ["no_power"])


def test_idle_power_that_moved_is_noted(made_result):
    report = judged(made_result(watts=lambda t: 10.0 if 105 <= t <= 125 else 2.0 + (t > 125) * 4))
    assert "idle_drift" in codes(report, "note")


def test_paced_run_has_its_own_latency_and_energy(made_result, made_paced):
    report = judged(made_paced(made_result))
    assert report["paced"]["wanted_fps"] == 10 and report["paced"]["late"] == 5
    assert report["power"]["paced"]["j_per_frame"] == pytest.approx(0.6, rel=0.05)
    assert "paced_late" in codes(report, "note")


@pytest.fixture
def made_paced():
    def make(made_result):
        raw = made_result()
        begin = 125.0
        t = [begin + i / 10 for i in range(50)]
        ones = [10.0] * 50
        raw["frames"]["paced"] = {
            "t": t, "total_ms": ones, "pre_ms": ones, "infer_ms": ones, "post_ms": ones
        }  # fmt: skip
        raw["slices"].append(
            {"name": "paced", "begin": begin, "end": begin + 5, "fps": 10, "late": 5, "frames": 50,
             "cpu_s": {"busy": [0, 1], "worker": [0, 1], "supervisor": [0, 0]}}
        )  # fmt: skip
        raw["phases"][1]["begin"], raw["phases"][1]["end"] = 130.0, 135.0
        feed = raw["samples"]["tegrastats"]
        feed["lines"] = [(100 + i / 10, f"VDD_IN {_mw(100 + i / 10)}mW/1mW") for i in range(351)]
        return raw

    def _mw(t):
        return 10000 if 105 <= t < 125 else 6000 if 125 <= t < 130 else 4000

    return make


def with_blocks(raw: dict, cost: float, disturbed: int = 0) -> dict:
    """Add twelve blocks, with the sampler and without in turn; `disturbed` of them take twice."""
    rng = random.Random(0)
    for number in range(12):
        name = "with_sampler" if number % 4 in (1, 2) else "without_sampler"
        factor = cost if name == "with_sampler" else 1.0
        seconds = factor * rng.gauss(1, 0.002) * (2 if number < disturbed else 1)
        begin = 200.0 + 3 * number
        cpu = {"busy": [0, 1], "worker": [0, 1], "supervisor": [0, 0]}
        raw["slices"].append(
            {"name": name, "begin": begin, "end": begin + seconds, "frames": 100, "fps": None,
             "late": 0, "cpu_s": cpu}
        )  # fmt: skip
        raw["frames"][name] = raw["frames"]["flat_out"]
    return raw


@pytest.mark.parametrize(("cost", "wanted"), [(1.05, "note"), (1.0, None)])
def test_cost_of_the_sampler_is_measured_by_blocks_with_and_without(made_result, cost, wanted):
    report = judged(with_blocks(made_result(), cost))
    assert report["sampler"]["overhead"]["fraction"] == pytest.approx(cost - 1, abs=0.005)
    found = [r["severity"] for r in report["reasons"] if r["code"] == "sampler_overhead"]
    assert found == ([wanted] if wanted else [])


def test_load_of_somebody_else_in_one_block_is_no_cost_of_the_sampler(made_result):
    overhead = judged(with_blocks(made_result(), 1.0, disturbed=1))["sampler"]["overhead"]
    assert overhead["fraction"] == pytest.approx(0, abs=0.005)
    low, high = overhead["ci95"]
    assert low < -0.4 and high == pytest.approx(0, abs=0.01)


def test_share_of_the_cpu_that_the_sampler_used_is_reported(made_result):
    assert judged(made_result())["sampler"]["cpu"] == pytest.approx(0.5 / 20 / 6)


def test_network_that_is_faster_than_the_board_can_be_is_doubted(made_result):
    bundle = BundleFacts(precision="fp16", macs=10**12, bytes_moved=10**6)
    report = judged(made_result(), bundle=bundle)
    assert report["bound_ms"] == pytest.approx(119.7, rel=0.01)
    assert "faster_than_possible" in codes(report, "note")


@pytest.mark.parametrize(
    ("mode", "bound_ms", "basis"),
    [
        ({"name": "MAXN_SUPER"}, 119.7, "of its highest clocks: those of power mode MAXN_SUPER"),
        ({"name": "15W", "gpu_mhz": 612.0}, 199.5, "of power mode 15W, GPU at 612 MHz"),
        ({"name": "7W", "gpu_mhz": 408.0}, 299.2, "of power mode 7W, GPU at 408 MHz"),
        (None, 119.7, "of its highest clocks"),
    ],
)
def test_bound_is_that_of_the_mode_that_is_set_and_says_so(made_result, mode, bound_ms, basis):
    bundle = BundleFacts(precision="fp16", macs=10**12, bytes_moved=10**6)
    raw = made_result(power_mode_before=mode and {"id": 0, **mode})
    raw["probe"]["power_mode"] = None
    report = judged(raw, bundle=bundle)
    assert report["bound_ms"] == pytest.approx(bound_ms, rel=1e-3)
    assert report["bound_basis"].startswith(basis)


def test_bound_by_memory_is_that_of_the_modes_memory_clock(made_result):
    mode = {"id": 0, "name": "15W", "gpu_mhz": 612.0, "emc_mhz": 2133.0}
    bundle = BundleFacts(precision="fp16", macs=1, bytes_moved=10**9)
    report = judged(made_result(power_mode_before=mode), bundle=bundle)
    assert report["bound_ms"] == pytest.approx(1e3 / 102.4 * 3199 / 2133)


def test_run_that_never_measured_gives_a_report_of_nulls(made_result):
    probe = made_result()["probe"]
    report = judged(failed_result({"seconds": 10}, probe, "rebooted", "the board rebooted"))
    assert report["verdict"] == "invalid" and codes(report)[0] == "rebooted"
    assert report["fps"] is None and report["latency_ms"] is None and report["power"] is None
