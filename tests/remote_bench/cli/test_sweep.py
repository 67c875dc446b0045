import dataclasses

import pytest
from remote_bench.analysis.report import BundleFacts
from remote_bench.analysis.requirements import parse
from remote_bench.analysis.result import Failure
from remote_bench.cli.bench import summarise_sweep, sweep_table


@pytest.fixture
def row(report_of, made_result):
    """Make the report of a network of a sweep, named like nano-64x32."""
    valid = report_of(made_result(seconds=1))

    def make(name, macs, verdict="valid", fps=40.0):
        variant, width, height = name.replace("-", "x").split("x")
        bundle = BundleFacts(variant=variant, width=int(width), height=int(height), macs=macs)
        return dataclasses.replace(valid, bundle=bundle, verdict=verdict, fps=fps)

    return make


def test_the_largest_network_that_keeps_the_limits_is_found(row):
    reports = [
        row("nano-64x32", 1),
        row("small-64x32", 2, fps=31.0),
        row("base-64x32", 3, "invalid"),
        row("large-64x32", 4, fps=29.0),
    ]
    found = summarise_sweep(reports, parse("fps>=30"))
    assert found["largest"] == "small-64x32"
    assert found["networks"][3]["missed"] == ["fps>=30: measured 29"]
    assert summarise_sweep(reports[3:], parse("fps>=30"))["largest"] is None


def test_why_a_network_of_a_sweep_was_not_measured_is_in_its_row(row):
    failed = dataclasses.replace(
        row("nano-64x32", 1, "invalid"), error=Failure("board_busy", "others use 80%")
    )
    found = summarise_sweep([failed], None)
    assert found["networks"][0]["error"] == "others use 80%" and found["largest"] is None
    assert "others use 80%" in str(sweep_table("board", found).rows)
