import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.analysis.requirements import METRICS, parse, value_of


@pytest.fixture
def report(report_of, made_result):
    return report_of(made_result())


def test_run_that_keeps_all_limits_misses_none(report):
    text = "fps>=90, p99<=33ms,memory<=800MB,power<=10.5W,energy<0.2J,agreement>=95%"
    assert parse(text).check(report).missed == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fps>=1000", "fps>=1000: measured 100"),
        ("p99<=5ms", "p99<=5ms: measured 10 ms"),
        ("p99<=0.005s", "p99<=0.005s: measured 10 ms"),
        ("memory<=100MB", "memory<=100MB: measured 488.3 MB"),
        ("power<=5000mW", "power<=5000mW: measured 10"),
        ("p99.9<=50ms", "p99.9<=50ms: not measured (needs 6636 frames, has 2000)"),
        ("miou>=60%", "miou>=60%: not measured"),
    ],
)
def test_miss_says_what_was_wanted_and_what_was_measured(report, text, message):
    check = parse(text).check(report)
    assert check.wanted == (text,)
    [missed] = check.missed
    assert missed.startswith(message)


def test_unmeasured_power_is_missed_with_its_reason(report_of, made_result):
    raw = made_result()
    raw["samples"]["tegrastats"]["lines"] = []
    report = report_of(raw)
    [missed] = parse("power<=10W").check(report).missed
    assert value_of(report, "power") is None and "sensor" in missed


def test_half_a_measurement_of_shared_memory_passes_no_limit(report_of, made_result):
    raw = made_result()
    for sample in raw["samples"]["environment"]:
        sample["available_kb"] = None  # what the GPU holds cannot be told
    report = report_of(raw)
    assert report.memory.unified and report.memory.peak_mb > 0
    [missed] = parse("memory<=100000MB").check(report).missed
    assert missed == (
        "memory<=100000MB: not measured (CPU and GPU share the memory, and how much less the whole "
        "board had is not known)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fps=30", "cannot read 'fps=30'; expected like fps>=30"),
        ("", "cannot read ''"),
        ("speed>=3", "unknown metric 'speed'; choose one of fps, sustained_fps"),
        ("p99<=33W", "unknown unit 'W'; p99 takes ms, us, s"),
        ("fps>=nan", "cannot read"),
    ],
)
def test_limit_that_makes_no_sense_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_value_or_none(report, metric):
    value = value_of(report, metric)
    assert value is None or value >= 0


@given(st.text())
def test_any_text_parses_or_is_a_value_error(text):
    try:
        parse(text)
    except ValueError as error:
        assert str(error)
