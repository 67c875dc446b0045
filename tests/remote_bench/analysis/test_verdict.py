"""Each limit of the verdict, just below and just above it."""

from dataclasses import replace

import pytest
from remote_bench.agent.supervisor import BUSY
from remote_bench.analysis.conditions import GpuCap
from remote_bench.analysis.frame_times import SamplerCost
from remote_bench.analysis.report import PacedRun, Soak, SoakPoint
from remote_bench.analysis.verdict import LIMITS, judge


@pytest.fixture
def valid(report_of, made_result):
    """A report that no rule has anything to say of; its run took 10 W."""
    report = report_of(made_result())
    assert report.reasons == ()
    return report


def agreement(report, value):
    return replace(report, accuracy=replace(report.accuracy, agreement=value))


def required(report, value):
    return agreement(replace(report, accuracy=replace(report.accuracy, required=0.95)), value)


def drift(report, value):
    steady = replace(report.steady, latency_drift=value, latency_drift_ci95=(value, value))
    return replace(report, steady=steady)


def heating(report, value):
    heat = {"celsius_per_min": value, "celsius_per_min_ci95": (value, value)}
    return replace(report, steady=replace(report.steady, **heat))


def cap(report, value):
    found = GpuCap(1000.0, value, None, True)
    return replace(report, conditions=replace(report.conditions, gpu_cap=found))


def cap_of_max_freq(report, value):
    found = GpuCap(1000.0, 306.0, value, False)
    return replace(report, conditions=replace(report.conditions, gpu_cap=found))


def other_source(report, value):
    return replace(report, power=replace(report.power, cross_check={"VDD_IN": value}))


def breaks(report, value):
    return replace(report, power=replace(report.power, breaks=value))


def soaked(report, value):
    point = SoakPoint(0.0, 30.0, None, None)
    soak = Soak(10.0, value <= LIMITS["soak_drift"], point, point, (point,))
    return replace(report, soak=soak)


def frames(report, value):
    return replace(report, latency_ms=replace(report.latency_ms, count=value))


def foreign(key):
    def change(report, value):
        load = replace(report.conditions.foreign_load, **{key: value})
        return replace(report, conditions=replace(report.conditions, foreign_load=load))

    return change


def foreign_later(report, value):
    return foreign("later")(report, {"paced run": value})


def overhead(report, value):
    cost = SamplerCost(value, (value, value), 100)
    return replace(report, sampler=replace(report.sampler, overhead=cost))


def coverage(report, value):
    return replace(report, power=replace(report.power, coverage=value))


def paced_coverage(report, value):
    return replace(report, power=replace(report.power, paced_coverage=value))


def idle_drift(report, value):
    flat_out = replace(report.power.flat_out, mean_w=10.0)
    idle = replace(report.power.idle, drift_w=value)
    return replace(report, power=replace(report.power, idle=idle, flat_out=flat_out))


def late(report, value):
    return replace(report, paced=PacedRun(30, 30, 1000, value, report.latency_ms))


def clock_step(report, value):
    return replace(report, changed=replace(report.changed, clock_step_s=value))


def bound(report, value):
    parts = replace(report.latency_ms.parts, infer_ms=value)
    return replace(report, bound_ms=8.0, latency_ms=replace(report.latency_ms, parts=parts))


EDGES = {
    "agreement": (agreement, 0.9, 0.8999, "wrong_output", "invalid"),
    "required": (required, 0.95, 0.9499, "wrong_output", "invalid"),
    "latency_drift": (drift, 0.05, 0.0501, "not_settled", "note"),
    "latency_drift, faster": (drift, -0.05, -0.0501, "not_settled", "note"),
    "celsius_per_min": (heating, 2.0, 2.001, "still_heating", "info"),
    "least_frames": (frames, 64, 63, "few_frames", "note"),
    "foreign_cpu": (foreign("cpu"), 0.1, 0.1001, "foreign_load", "note"),
    "foreign_gpu": (foreign("idle_gpu"), 0.1, 0.1001, "foreign_gpu_load", "note"),
    "foreign_invalid": (foreign("cpu"), 0.1, 0.3001, "foreign_load", "invalid"),
    "foreign_invalid, GPU": (foreign("gpu"), 0.1, 0.3001, "foreign_gpu_load", "invalid"),
    "foreign_gpu, in a run on the CPU": (foreign("gpu"), 0.1, 0.1001, "foreign_gpu_load", "note"),
    "foreign_cpu, later": (foreign_later, 0.1, 0.1001, "foreign_load", "note"),
    "gpu_cap": (cap, 950.0, 949.0, "gpu_capped", "note"),
    "gpu_cap, unused": (cap_of_max_freq, 950.0, 949.0, "gpu_capped", "info"),
    "sources_differ": (other_source, 0.1, 0.1001, "power_sources_differ", "note"),
    "sources_differ, less": (other_source, -0.1, -0.1001, "power_sources_differ", "note"),
    "soak_drift": (soaked, 0.02, 0.0201, "not_sustained", "note"),
    "sampler_overhead": (overhead, 0.01, 0.01001, "sampler_overhead", "note"),
    "power_coverage": (coverage, 0.95, 0.9499, "power_gaps", "note"),
    "power_coverage, paced": (paced_coverage, 0.95, 0.9499, "power_gaps", "note"),
    "a counter that began anew": (breaks, 0, 1, "power_gaps", "note"),
    "idle_drift": (idle_drift, 1.0, 1.001, "idle_drift", "note"),
    "idle_drift, falling": (idle_drift, -1.0, -1.001, "idle_drift", "note"),
    "late_frames": (late, 10, 11, "paced_late", "note"),
    "clock_step_s": (clock_step, 1.0, 1.001, "clock_stepped", "info"),
    "clock_step_s, back": (clock_step, -1.0, -1.001, "clock_stepped", "info"),
    "bound_ms": (bound, 8.0, 7.999, "faster_than_possible", "note"),
}


@pytest.mark.parametrize("name", EDGES)
def test_limit_is_where_the_docs_say_and_the_limit_itself_is_no_offence(valid, name):
    change, just_within, just_beyond, code, severity = EDGES[name]
    assert judge(change(valid, just_within)) == ("valid", ())
    verdict, [reason] = judge(change(valid, just_beyond))
    assert (reason.code, reason.severity) == (code, severity)
    assert verdict == {"invalid": "invalid", "note": "valid_with_notes", "info": "valid"}[severity]


def test_every_limit_has_its_edges_above():
    assert set(LIMITS) <= set(EDGES)


def test_sampler_that_noise_can_explain_is_information(valid):
    cost = SamplerCost(0.02, (0.01, 0.03), 100)
    _, [reason] = judge(replace(valid, sampler=replace(valid.sampler, overhead=cost)))
    assert (reason.code, reason.severity) == ("sampler_overhead", "info")


def test_a_board_is_waited_for_where_a_run_on_it_would_get_a_note():
    """The agent travels alone, so it has a limit of its own."""
    assert LIMITS["foreign_cpu"] == LIMITS["foreign_gpu"] == BUSY


@pytest.mark.parametrize(("share", "severity"), [(0.1001, "note"), (0.3, "note"), (0.9, "note")])
def test_load_that_was_allowed_is_a_note_at_any_size_and_so_is_the_busy_board(
    valid, share, severity
):
    load = replace(valid.conditions.foreign_load, cpu=share, before=share, by=("ffmpeg 90%",))
    report = replace(valid, conditions=replace(valid.conditions, foreign_load=load))
    verdict, reasons = judge(replace(report, flags={**report.flags, "allow_busy": True}))
    assert verdict == "valid_with_notes"
    assert [reason.code for reason in reasons] == ["busy_board", "foreign_load"]
    assert "ffmpeg 90%" in reasons[0].message


def test_what_could_not_be_watched_is_a_reason_with_what_would_help(valid):
    report = replace(valid, not_watched={"throttling": "sudo usermod -aG video $USER"})
    verdict, [reason] = judge(report)
    assert verdict == "valid" and (reason.code, reason.severity) == ("not_watched", "info")
    assert reason.message == "throttling could not be watched: sudo usermod -aG video $USER"


def test_memory_that_the_gpu_did_not_get_in_a_run_that_ended_well_is_a_note(valid):
    log = "NvMapMemAllocInternalTagged: 1075072515 error 12\nfine\nNvMapMemHandleAlloc: error 12\n"
    verdict, [reason] = judge(replace(valid, log=log))
    assert (verdict, reason.code) == ("valid_with_notes", "gpu_memory_short")
    assert "2 times" in reason.message
    assert judge(replace(valid, log="NvMapMemAllocInternalTagged: error 120")) == ("valid", ())


@pytest.mark.parametrize(("l4t", "severity"), [("36.4.3", "note"), (None, "info")])
def test_desktop_that_runs_is_named_with_the_command_that_ends_it(valid, l4t, severity):
    device = replace(valid.device, l4t=l4t, desktop=("Xorg", "gnome-shell"))
    _, [reason] = judge(replace(valid, device=device))
    assert (reason.code, reason.severity) == ("desktop_runs", severity)
    assert "(Xorg, gnome-shell)" in reason.message and "multi-user.target" in reason.message


def test_a_host_key_that_nobody_compared_is_a_reason(valid):
    verdict, [reason] = judge(replace(valid, weakened=("the key was accepted unseen",)))
    assert verdict == "valid" and (reason.code, reason.severity) == ("host_key_unseen", "info")
    assert reason.message == "the key was accepted unseen"


def test_gravest_reason_comes_first_and_decides(valid):
    report = agreement(drift(clock_step(valid, 2.0), 0.1), 0.5)
    verdict, reasons = judge(report)
    assert verdict == "invalid"
    assert [reason.severity for reason in reasons] == ["invalid", "note", "info"]
