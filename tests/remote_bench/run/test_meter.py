import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastseg_targets.device import parse_device
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.analysis.requirements import parse
from remote_bench.analysis.result import MeterReadings, Phase, read_result
from remote_bench.analysis.summary import summarise
from remote_bench.host.local import LocalHost
from remote_bench.report.anonymous import anonymous
from remote_bench.report.figures import sections
from remote_bench.report.page import render_html
from remote_bench.run.meter import Meter

from tests.boards.measuring import Watcher, run

PHASES = (Phase("idle_before", 100.0, 105.0), Phase("run", 105.0, 125.0))


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def printing(*lines: str, then: str = "time.sleep(60)") -> tuple[str, ...]:
    """A meter that prints lines at once and does something then."""
    code = f"import sys, time\nfor line in {lines}: print(line, flush=True)\n{then}"
    return (sys.executable, "-c", code)


def read(command: tuple[str, ...], seconds: float = 0.5) -> MeterReadings:
    with Meter(command) as meter:
        meter.phase("idle_before")
        end = time.monotonic() + 10
        while time.monotonic() < end and meter._thread.is_alive() and not meter._rows:
            time.sleep(0.01)
        time.sleep(seconds)
    return meter.readings(PHASES)


def test_lines_of_the_meter_become_watts_in_the_boards_time():
    readings = read(printing("12.5", "  13 W", "-0.25W", "7W\r", "4.9e1", "35.699999999999996", ""))
    assert readings.watts == (12.5, 13.0, -0.25, 7.0, 49.0, 35.699999999999996)
    assert readings.failure == ""
    assert all(99.9 < t < 101 for t in readings.t)  # the phase began at 100 there, just now here


@pytest.mark.parametrize("line", ["12,5", "power: 12", "1e30", "nan"])
def test_lines_that_are_no_watts_are_told_beside_those_that_are(line):
    readings = read(printing("12.5", line, "13"))
    assert readings.watts == (12.5, 13.0)
    assert readings.failure == f"it printed {line!r}; expected watts, a number a line"


@given(st.floats(-1e6, 1e6), st.sampled_from(["", "W", " W", " W "]))
def test_any_number_of_watts_is_read_as_it_is(watts, unit):
    meter = Meter(("x",))
    meter._keep(1.0, f"{watts!r}{unit}".encode())
    assert meter._rows == [(1.0, watts)]


@given(st.binary())
def test_any_line_is_watts_or_passed_over(line):
    meter = Meter(("x",))
    meter._keep(1.0, line)
    assert all(abs(watts) < 1e9 for _, watts in meter._rows)
    assert isinstance(meter.readings(PHASES), MeterReadings)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-meter",), "it did not start: "),
        (printing("hello"), "it printed 'hello'; expected watts, a number a line"),
        (printing(), "it printed nothing; expected watts, a number a line (unbuffered)"),
        (printing("5", "6", then="sys.exit('no plug at 10.0.0.9')"),
         "it ended with status 1: no plug at 10.0.0.9"),
        (printing("5", then="sys.exit(0)"), "it ended with status 0: it said nothing"),
    ],
)  # fmt: skip
def test_meter_that_does_not_work_says_why_and_stops_nothing(command, said):
    assert read(command, 0.3).failure.startswith(said)


def test_clocks_are_matched_by_the_soonest_news_of_a_phase():
    with Meter(printing("5")) as meter:
        meter.phase("idle_before")
        meter._phases["run"] = meter._phases["idle_before"] + 9.0  # 4 s late, as news may be
        time.sleep(0.4)
    assert 99.5 < meter.readings(PHASES).t[0] < 101


@pytest.mark.slow
def test_nothing_of_a_meter_lives_on_whatever_it_has_started(tmp_path):
    child = tmp_path / "child"
    code = (
        "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\nprint(5, flush=True)\ntime.sleep(60)"
    )
    begin = time.monotonic()
    read((sys.executable, "-c", code))
    assert time.monotonic() - begin < 15
    while is_alive(int(child.read_text())) and time.monotonic() - begin < 30:
        time.sleep(0.05)  # a busy machine takes its time to end what was killed
    assert not is_alive(int(child.read_text()))


def test_no_meter_gives_no_readings_and_starts_nothing():
    with Meter(()) as meter:
        meter.phase("run")
    assert meter.readings(PHASES) is None


def test_meter_that_was_started_after_the_runs_end_is_not_blamed():
    with Meter(printing()) as meter:
        for phase in PHASES:  # as --resume hears of a run that is over
            meter.phase(phase.name)
        time.sleep(0.2)
    assert meter.readings(PHASES) is None


def test_arguments_are_no_shells(tmp_path):
    said = f"$(touch {tmp_path}/made); `id` && echo 7"
    echo = "import sys; print(len(sys.argv[1]), flush=True); import time; time.sleep(60)"
    assert read((sys.executable, "-c", echo, said)).watts == (float(len(said)),)
    assert os.listdir(tmp_path) == []


def wall(report_of, made_result, watts=lambda t: 15.0 if 105 <= t <= 125 else 9.0, failure=""):
    times = tuple(100 + 0.2 * i for i in range(151))
    readings = MeterReadings(times, tuple(watts(t) for t in times), failure)
    result = replace(read_result(json.dumps(made_result())), meter=readings)
    return summarise(result)


def test_wall_power_stands_beside_the_modules_and_is_never_taken_for_it(report_of, made_result):
    report = wall(report_of, made_result)
    assert report.power.scope == "module" and report.wall_power.scope == "wall"
    assert report.power.flat_out.mean_w == pytest.approx(10, rel=0.01)
    assert report.wall_power.flat_out.mean_w == pytest.approx(15, rel=0.01)
    assert report.wall_power.idle.mean_w == pytest.approx(9, rel=0.02)
    assert "meter" not in report.power.rails + report.power.not_added
    check = parse("power<=12W,wall_power<=12W,wall_energy<=200mJ").check(report)
    assert check.missed == ("wall_power<=12W: measured 15 W",)
    figures = {f.label: f for part in sections(report) for f in part.figures}
    assert "no module's power" in figures["mean power at the meter, flat out"].note
    assert report.reasons == ()
    assert "mean power at the meter, flat out" in render_html([report])


def test_meter_that_failed_is_a_note_and_its_words_leave_no_report_that_is_given_away(
    report_of, made_result
):
    report = wall(report_of, made_result, failure="it ended with status 1: key=hunter2")
    assert [reason.code for reason in report.reasons] == ["meter_failed"]
    assert report.wall_power is not None and report.verdict == "valid_with_notes"
    assert "hunter2" not in json.dumps(anonymous(report).to_table())
    without = read_result(json.dumps(made_result()))
    assert summarise(without).wall_power_reason is None
    missed = parse("wall_power<=1W").check(summarise(without)).missed
    assert missed == ("wall_power<=1W: not measured (give the board a meter: power.command)",)


def test_command_of_a_board_is_a_list_of_texts():
    begin = 'description = "x"\nlike = "raspberry-pi-4"\n[power]\ncommand = '
    assert parse_device("m", begin + '["a", "b c"]').power.command == ("a", "b c")
    wrongs = {'"a b"': "list", '[""]': "a program", '["a\\u0000"]': "a program", "[1]": "str"}
    for wrong, said in wrongs.items():
        with pytest.raises(ValueError, match=f"expected {said}"):
            parse_device("m", begin + wrong)


@pytest.mark.slow
def test_run_here_with_a_meter_has_its_watts_and_not_its_command(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = "import time\nwhile True: print('4.5 W', flush=True); time.sleep(0.05)"
    command = json.dumps([sys.executable, "-c", code])
    text = f'description = "x"\nlike = "generic-x86"\n[power]\ncommand = {command}'
    device = parse_device("bench", text)
    report = run(LocalHost(), Watcher(), bundle=bundle, device=device, seconds=2.0)
    assert report.wall_power_reason is None and report.fps
    assert report.wall_power.flat_out.mean_w == pytest.approx(4.5)
    assert report.wall_power.coverage > 0.9
    assert "4.5 W" not in json.dumps(report.to_table())
