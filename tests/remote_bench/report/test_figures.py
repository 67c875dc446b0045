import io

import pytest
from remote_bench.analysis.result import failed_result
from remote_bench.analysis.summary import summarise
from remote_bench.report.figures import headline, render, sections
from rich.console import Console


def shown(report, width=160):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(render(report))
    return console.file.getvalue()


def test_summary_begins_with_the_verdict_and_the_headline(report_of, made_result):
    text = shown(report_of(made_result(), host="jetson.local"))
    assert "jetson.local" in text.splitlines()[0]
    assert "valid" in text.splitlines()[1] and "100.0 FPS" in text.splitlines()[1]
    assert "module: VDD_IN by tegrastats" in text and "VDD_IN 40 mW" in text


def test_number_that_cannot_be_had_is_a_dash_with_its_reason(report_of, made_result):
    raw = made_result(seconds=3)
    raw["samples"]["tegrastats"]["lines"] = []
    rows = {row.label: row for part in sections(report_of(raw)) for row in part.figures}
    assert rows["latency p99"].value == "-"
    assert rows["latency p99"].note == "needs 662 frames, has 301"
    assert rows["power"].value == "-" and "sensor" in rows["power"].note


def test_board_cannot_write_markup_or_escapes_to_the_terminal(report_of, made_result):
    raw = made_result(seconds=3)
    raw["probe"]["board"]["model"] = "\x1b]0;owned\x07[bold red]x[/] \x9b31m"
    text = shown(report_of(raw))
    assert "\x1b]0" not in text and "\x07" not in text and "\x9b" not in text
    assert "[bold red]x[/]" in text


def test_failed_run_shows_its_error_and_nothing_timed(made_result):
    raw = failed_result({}, made_result()["probe"], "oom", "killed, probably out of memory")
    report = summarise(raw)
    assert headline(report) == "nothing was timed"
    assert "killed, probably out of memory" in shown(report)
    assert [part.title for part in sections(report)] == ["Board"]


@pytest.mark.parametrize("width", [60, 80])
def test_names_stay_whole_on_a_narrow_terminal(report_of, made_result, width):
    raw, name = made_result(), "NVIDIA-Jetson-Orin-Nano-Developer-Kit-[tflite]-board"
    raw["probe"]["board"]["model"] = name
    text = shown(report_of(raw, host="a-host-name.of.some.department.example"), width)
    assert name in text and "a-host-name.of.some.department.example" in text


@pytest.mark.parametrize("width", [40, 80])
def test_summary_fits_a_narrow_terminal(report_of, made_result, width):
    lines = shown(report_of(made_result()), width).splitlines()
    assert max(map(len, lines)) <= width
