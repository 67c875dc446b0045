from dataclasses import replace

import pytest


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
