"""Each limit of the verdict, just below and just above it."""

from dataclasses import replace

import pytest
from remote_bench.analysis.frame_times import SamplerCost
from remote_bench.analysis.report import PacedRun
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
    return replace(report, steady=replace(report.steady, latency_drift=value))


def heating(report, value):
    return replace(report, steady=replace(report.steady, celsius_per_min=value))


def frames(report, value):
    return replace(report, latency_ms=replace(report.latency_ms, count=value))


def foreign(key):
    def change(report, value):
        load = replace(report.conditions.foreign_load, **{key: value})
        return replace(report, conditions=replace(report.conditions, foreign_load=load))

    return change


def overhead(report, value):
    cost = SamplerCost(value, (value, value), 100)
    return replace(report, sampler=replace(report.sampler, overhead=cost))


def coverage(report, value):
    return replace(report, power=replace(report.power, coverage=value))


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
    "celsius_per_min": (heating, 2.0, 2.001, "still_heating", "note"),
    "least_frames": (frames, 64, 63, "few_frames", "note"),
    "foreign_cpu": (foreign("cpu"), 0.1, 0.1001, "foreign_load", "note"),
    "foreign_gpu": (foreign("idle_gpu"), 0.1, 0.1001, "foreign_gpu_load", "note"),
    "sampler_overhead": (overhead, 0.01, 0.01001, "sampler_overhead", "note"),
    "power_coverage": (coverage, 0.95, 0.9499, "power_gaps", "note"),
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


def test_gravest_reason_comes_first_and_decides(valid):
    report = agreement(drift(clock_step(valid, 2.0), 0.1), 0.5)
    verdict, reasons = judge(report)
    assert verdict == "invalid"
    assert [reason.severity for reason in reasons] == ["invalid", "note", "info"]
