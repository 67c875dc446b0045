import io
import random
from dataclasses import replace

import pytest
from remote_bench.analysis.comparison import compare
from remote_bench.analysis.report import BundleFacts, Reason
from remote_bench.analysis.result import PowerMode
from remote_bench.report.figures import render_comparison
from rich.console import Console


@pytest.fixture
def pair(report_of, made_result):
    """Two reports of the same board: B takes `factor` times as long for a frame."""

    def make(factor=1.0, noise=0.2, **context):
        reports = []
        for seed, mean in ((1, 10.0), (2, 10.0 * factor)):
            rng = random.Random(seed)
            raw = made_result(latency_ms=lambda t, r=rng, m=mean: m + r.gauss(0, noise))
            raw["info"] = {"target": "jetson-fp16", "precision": "fp16", "backend": "tensorrt",
                           "version": "10.3"}  # fmt: skip
            reports.append(report_of(raw, bundle=BundleFacts(sha256="aa"), **context))
        return reports

    return make


def test_slower_run_is_slower_by_a_sure_margin(pair):
    result = compare(*pair(1.05))
    rows = {row.metric: row for row in result.differences}
    assert result.comparable and result.differs == {}
    assert rows["fps"].change == pytest.approx(-0.048, abs=0.005) and rows["fps"].sure
    low, high = rows["p50"].change_ci95
    assert low < 0.05 < high and rows["p50"].sure
    assert rows["j_per_frame"].change == pytest.approx(0.05, abs=0.01)


def test_equal_runs_differ_by_noise_only(pair):
    rows = compare(*pair(1.0, noise=2.0)).differences
    assert not any(row.sure for row in rows if row.metric in ("fps", "p50"))


def test_one_group_that_differs_is_what_is_compared(pair):
    a, b = pair()
    b = replace(b, bundle=BundleFacts(sha256="bb"), engine={**b.engine, "precision": "int8"})
    result = compare(a, b)
    assert result.comparable and list(result.differs) == ["network"]


def test_two_groups_that_differ_are_not_comparable_and_each_is_named(pair):
    a, b = pair()
    device = replace(b.device, power_mode=PowerMode(2, "MAXN_SUPER"))
    result = compare(a, replace(b, engine={**b.engine, "version": "11.0"}, device=device))
    assert not result.comparable and result.differences == ()
    text = "; ".join(result.reasons)
    assert "10.3, 11.0" in text and "15W, MAXN_SUPER" in text


def test_two_boards_are_compared_in_spite_of_their_own_power_modes(pair):
    a, b = pair()
    other = replace(b.device, name="orin-nx", model="NX", power_mode=PowerMode(0, "MAXN"))
    assert compare(a, replace(b, device=other)).comparable


def test_invalid_report_is_not_compared(pair):
    a, b = pair()
    why = Reason("rebooted", "invalid", "the board rebooted")
    result = compare(a, replace(b, verdict="invalid", reasons=(why,)))
    assert result.reasons == ("B is invalid: the board rebooted",)


def test_power_of_another_scope_is_left_out(pair):
    a, b = pair()
    b = replace(b, power=replace(b.power, scope="system"))
    assert {row.metric for row in compare(a, b).differences} == {"fps", "p50", "p90", "p99"}


def test_comparison_is_shown_with_its_interval_or_its_reasons(pair):
    a, b = pair(1.05)
    console = Console(file=io.StringIO(), width=120)
    console.print(render_comparison(compare(a, b)))
    hostile = BundleFacts(sha256="\x1b[31m[red]")
    b = replace(b, engine={**b.engine, "version": "11.0"}, bundle=hostile)
    console.print(render_comparison(compare(a, b)))
    text = console.file.getvalue()
    assert "what differs: nothing" in text and "-4." in text and " to " in text
    assert "not comparable:" in text and "\x1b" not in text and "[red]" in text
