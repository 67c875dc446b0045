import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fastseg_runtime
import numpy as np
import pytest
import remote_bench.agent
from remote_bench.agent import worker_client
from remote_bench.agent.board import Board
from remote_bench.agent.channel import Channel
from remote_bench.agent.supervisor import Supervisor
from remote_bench.agent.tegrastats_feed import TegrastatsFeed
from remote_bench.analysis.result import read_result
from remote_bench.analysis.summary import summarise

from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import HEIGHT, WIDTH, full_plan, noise, strongest_channel

pytestmark = pytest.mark.slow  # seconds each: agent, worker and sampler are real processes

GOVERNOR = "sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
PHASES = ["quiet", "build", "selftest", "settle", "idle_before", "run", "idle_after", "restore"]


class Run:
    """An agent on a made board; `events` fills while it runs."""

    def __init__(
        self,
        folder: Path,
        faults: dict,
        python=sys.executable,
        stdout=subprocess.PIPE,
        stderr=None,
        largest_file=resource.RLIM_INFINITY,
        **request,
    ) -> None:
        self.folder = folder
        (folder / "remote_bench").symlink_to(Path(remote_bench.agent.__file__).parents[1])
        runtime = folder / "runtime/fastseg_runtime"
        shutil.copytree(Path(fastseg_runtime.__file__).parent, runtime)
        shutil.copy(Path(__file__).parents[1].joinpath("stub_runtime.py"), runtime / "__init__.py")
        plan = full_plan().with_scene(noise(seed=1), strongest_channel(noise(seed=1)))
        plan.write(folder / "net.fastseg")
        (folder / "faults.json").write_text(json.dumps(faults))
        self.process = subprocess.Popen(
            [python, "-B", "-u", "-m", "remote_bench.agent", "run"],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY)
            ),
        )
        table = {
            "token": "t0k", "work_dir": str(folder), "bundle": "net.fastseg", "target": None,
            "runtime_paths": ["runtime"], "frames": None, "seconds": 0.5, "warmup_s": 0.1,
            "idle_s": 0.1, "fps": None, "sampler_hz": 10, "power_mode": None, "detach": False,
            "root": "/", "cache_dir": str(folder / "cache"), "device": {},
        }  # fmt: skip
        line = json.dumps({**table, **request}).encode() + b"\n"
        self.process.stdin.write(line)
        self.process.stdin.flush()
        self.events: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            assert line.startswith(b"@t0k ")
            self.events.append(json.loads(line[5:]))

    def end(self, timeout_s: float = 60) -> int:
        status = self.process.wait(timeout_s)
        self._reader.join(10)
        for pipe in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
            pipe.close()
        return status

    def wait_for(self, event: str, **fields) -> dict:
        for _ in range(600):
            for found in self.events:
                if found["event"] == event and fields.items() <= found.items():
                    return found
            time.sleep(0.05)
        raise AssertionError(f"no {event} {fields} in {self.events}")

    def named(self, event: str) -> list[dict]:
        return [found for found in self.events if found["event"] == event]

    def result(self) -> dict:
        return json.loads((self.folder / "result.json").read_text())

    def processes(self) -> list[str]:
        """What still runs in the work folder; what was killed may need a moment to go."""
        end = time.monotonic() + 10
        while (found := self._processes()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def _processes(self) -> list[str]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/cwd") == str(self.folder):
                    found.append(Path(f"/proc/{pid}/cmdline").read_text())
            except OSError:
                continue
        return found


@pytest.fixture
def start(tmp_path):
    runs = []

    def make(faults: dict, **request) -> Run:
        folder = tmp_path / f"work{len(runs)}"
        folder.mkdir()
        runs.append(Run(folder, faults, **request))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.end()


def test_run_goes_through_its_phases_and_leaves_a_result(start, made_board):
    board = made_board("orin-nano")
    run = start({}, root=str(board.root), seconds=4, fps=20)
    assert run.end() == 0
    assert [event["name"] for event in run.named("phase")] == PHASES
    assert run.events[-1] == {"event": "result", "path": "result.json"}
    assert run.named("heartbeat") and run.named("progress")
    result = run.result()
    assert result["error"] is None
    flat_out = result["frames"]["flat_out"]
    assert min(flat_out["total_ms"]) >= 2 and flat_out["infer_ms"][0] > 0
    [paced] = [part for part in result["slices"] if part["name"] == "paced"]
    assert paced["frames"] == pytest.approx(80, abs=2)
    assert result["selftest"]["agreement"] == 1 and result["accuracy"]["images"] == 2
    assert {"flat_out", "with_sampler", "without_sampler", "paced"} <= set(result["frames"])
    assert result["memory"]["imported"]["pss_kb"] > 1000
    assert summarise(read_result(json.dumps(result))).sampler.cpu <= 0.01
    assert board.facts["tegrastats"] in [
        line for _, line in result["samples"]["tegrastats"]["lines"]
    ]
    assert result["inventory_before"] == result["inventory_after"]
    assert run.processes() == []


def test_end_of_stdin_ends_the_run_and_everything_it_started(start, made_board):
    run = start({"at_frame": "child"}, seconds=60, root=str(made_board("orin-nano").root))
    run.wait_for("progress", slice="flat_out")
    begin = time.monotonic()
    run.process.stdin.close()
    run.end(20)
    assert time.monotonic() - begin < 10
    assert run.processes() == []
    assert not (run.folder / "result.json").exists()


def test_detached_run_goes_on_without_its_connection(start):
    run = start({}, seconds=2, detach=True)
    run.wait_for("phase", name="run")
    run.process.stdin.close()
    run.process.send_signal(signal.SIGHUP)
    assert run.end() == 0
    assert run.result()["error"] is None


def test_detached_run_ends_well_when_nobody_hears_it_any_more(start):
    reading, writing = os.pipe()
    os.close(reading)
    run = start({}, detach=True, stdout=writing)
    os.close(writing)
    assert run.end() == 0
    assert run.result()["error"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_calls_the_run_off(start, number):
    run = start({}, seconds=60)
    run.wait_for("phase", name="run")
    run.process.send_signal(number)
    assert run.end(20) != 0
    assert run.named("error")[0]["kind"] == "aborted"
    assert run.processes() == []


def test_killed_agent_leaves_no_process_and_gives_the_power_mode_back(start, made_board):
    board = made_board("orin-nano")
    run = start({}, seconds=60, root=str(board.root), power_mode="MAXN_SUPER")
    run.wait_for("progress", slice="flat_out")
    assert (board.root / "nvpmodel_state").read_text().strip() == "2"
    run.process.kill()
    run.end(20)
    assert run.processes() == []
    assert (board.root / "nvpmodel_state").read_text().strip() == "0"


def test_power_mode_is_set_for_the_run_and_given_back(start, made_board):
    board = made_board("orin-nano")
    run = start({}, root=str(board.root), power_mode="25W")
    assert run.end() == 0
    result = run.result()
    assert result["power_mode_before"]["name"] == result["power_mode_after"]["name"] == "25W"
    assert result["power_mode_restored"]["ok"]
    assert result["inventory_after"]["power_mode"]["name"] == "15W"
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    assert report.device.power_mode.name == report.conditions.power_mode.name == "25W"
    assert report.changed.power_mode is None


def test_power_mode_is_given_back_though_the_worker_cannot_be_killed(
    made_board, tmp_path, monkeypatch
):
    def start(command, **options):  # a driver that hangs keeps its process, as this one stays
        process = subprocess.Popen(["/bin/sh", "-c", "exec sleep 60 >&-"], **options)
        monkeypatch.setattr(process, "kill", lambda: started.append(process))
        return process

    monkeypatch.setattr(worker_client, "start", start)
    monkeypatch.setattr(worker_client, "END_S", 0.1)
    request = {
        "root": str(made_board("orin-nano").root), "work_dir": str(tmp_path), "idle_s": 0,
        "power_mode": "25W", "runtime_paths": [],
    }  # fmt: skip
    started, channel, begin = [], Channel("t0k"), time.monotonic()
    assert not Supervisor(request, channel, threading.Event()).run()
    channel.close()
    assert time.monotonic() - begin < 30
    os.kill(started[0].pid, signal.SIGKILL)
    started[0].wait(30)
    result = json.loads((tmp_path / "result.json").read_text())
    assert "hung up and did not end" in result["error"]["message"]
    assert result["power_mode_restored"]["ok"]


def test_power_mode_that_is_refused_ends_the_run_before_it_measures(start, made_board):
    run = start({}, root=str(made_board("orin-nano").root), power_mode="MAXN")
    assert run.end() == 1
    error = run.named("error")[0]
    assert error["kind"] == "power_mode" and "MAXN_SUPER" in error["message"]
    assert "flat_out" not in run.result()["frames"]


@pytest.mark.parametrize(
    ("faults", "kind", "says"),
    [
        ({"at_open": "oom"}, "oom", "out of memory"),
        ({"at_frame": "oom"}, "oom", " MB, 0 kills for memory by the kernel"),
        ({"at_frame": "exit"}, "worker_died", "status 7; it said: cudaMalloc failed"),
        ({"at_open": "error"}, "build_failed", "engine said no"),
        ({"at_open": "no_engine"}, "no_engine", "no engine here"),
        ({"at_frame": "error"}, "run_failed", "engine said no"),
        ({"wrong": 0.5}, "selftest_failed", "50.0% of its pixels, 99.0% are needed"),
    ],
)
def test_failure_of_the_engine_is_named_and_the_board_restored(start, faults, kind, says):
    run = start(faults)
    assert run.end() == 1
    [error] = run.named("error")
    assert error["kind"] == kind and says in error["message"]
    assert run.result()["error"]["kind"] == kind
    assert run.named("phase")[-1]["name"] == "restore"
    assert run.processes() == []


@pytest.mark.parametrize(
    ("version", "kind"), [("3.6", "old_python"), ("3.8", "no_numpy"), ("3.12", "no_numpy")]
)
def test_board_whose_python_lacks_something_is_told_what(start, version, kind):
    found = list((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} here")
    run = start({}, python=found[0])
    assert run.end() == 1
    [error] = run.named("error")
    assert error["kind"] == kind
    assert run.result()["error"]["kind"] == kind


def test_what_an_engine_prints_does_not_get_between_the_events(start):
    run = start({"at_frame": "chatter"})
    assert run.end() == 0
    assert len(run.named("result")) == 1
    assert "hello from the engine" in run.result()["log"]


def test_engine_that_was_built_is_loaded_again_in_a_fresh_process(start):
    run = start({"built": True})
    assert run.end() == 0
    load = run.result()["load"]
    assert load["built"] and load["cold_ms"] > 0 and load["warm_ms"] > 0
    [engine] = run.result()["info"]["engines"]
    assert engine["engine_sha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("script", "failure"),
    [("exit 1", "tegrastats ended"), ("echo 'VDD_IN 1mW/1mW'; sleep 600", "fell silent")],
)
def test_power_comes_from_sysfs_whatever_becomes_of_tegrastats(start, made_board, script, failure):
    board = made_board("orin-nano")
    board.tool("tegrastats", script)
    run = start({}, root=str(board.root), idle_s=1.5, seconds=2)
    assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    assert report.power.source == ("ina_hwmon",) and report.power.coverage == 1
    assert failure in report.sampler.tegrastats_failure


def test_half_a_line_of_tegrastats_is_left_out(made_board):
    made = made_board("orin-nano")
    made.tool("tegrastats", r"printf 'VDD_IN 1mW/1mW\nVDD_\377 2mW/1mW\nVDD_IN 99'; sleep 600")
    feed = TegrastatsFeed(Board(str(made.root)), hz=10)
    feed.start()
    for _ in range(100):
        if len(feed.lines) >= 2:
            break
        time.sleep(0.1)
    feed.stop()
    assert [text for _, text in feed.lines] == ["VDD_IN 1mW/1mW", "VDD_\ufffd 2mW/1mW"]


def test_flood_of_lines_is_bounded(start, made_board):
    board = made_board("orin-nano")
    board.tool("tegrastats", "exec yes 'VDD_IN 1mW/1mW'")
    run = start({"infer_ms": 5}, root=str(board.root))
    assert run.end() == 0
    feed = run.result()["samples"]["tegrastats"]
    assert feed["dropped"] > 1000 and len(feed["lines"]) < 1000


@pytest.mark.parametrize(
    "changes",  # file, its new text, and the reason that this is for the verdict
    [
        [
            ("sys/class/thermal/cooling_device0/cur_state", "1", "throttled", "note"),
            ("nvpmodel_state", "2", "power_mode_changed", "invalid"),
            ("proc/sys/kernel/random/boot_id", "boot-2", "rebooted", "invalid"),
            (GOVERNOR, "x", "not_restored", "note"),
            (GOVERNOR, "x", "settings_changed", "note"),
        ],
        [("sys/class/hwmon/hwmon3/oc1_event_cnt", "9", "throttle_events", "info")],
    ],
)
def test_what_changes_on_the_board_during_the_run_changes_the_verdict(start, made_board, changes):
    board = made_board("orin-nano")
    run = start({}, root=str(board.root), seconds=3)
    run.wait_for("progress", slice="flat_out")
    for path, text, _, _ in changes:
        board.write(path, text + "\n")
    assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    reasons = {(r.code, r.severity) for r in report.reasons}
    assert {(code, severity) for _, _, code, severity in changes} <= reasons
    assert report.fps > 0


def test_gpu_that_somebody_else_uses_before_and_in_a_run_on_the_cpu_is_seen(start, made_board):
    board = made_board("orin-nano")
    board.tool("tegrastats", "while :; do echo 'GR3D_FREQ 60%@612 VDD_IN 9mW/9mW'; sleep 0.1; done")
    run = start({}, root=str(board.root), idle_s=1.5, seconds=3)
    assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    found = [(r.severity, r.message) for r in report.reasons if r.code == "foreign_gpu_load"]
    assert found == [
        ("invalid", "others used 60% of the GPU before the run"),
        ("invalid", "others used 60% of the GPU during a run on the CPU"),
    ]


VCGENCMD = """case "$1" in get_throttled) echo throttled=$(cat {root}/bits);; *) exit 1;; esac"""


def test_what_came_and_went_in_the_run_is_seen(start, made_board):
    # A Pi whose bits since boot were set before; and somebody who flips mode and governor.
    board = made_board("orin-nano")
    board.write("bits", "0x50000")
    board.tool("vcgencmd", VCGENCMD.format(root=board.root))
    run = start({}, root=str(board.root), seconds=6)
    run.wait_for("progress", slice="flat_out")
    board.write("bits", "0x5000D")
    board.write("nvpmodel_state", "2\n")
    board.write(GOVERNOR, "powersave\n")
    time.sleep(3)
    board.write("bits", "0x50000")
    board.write("nvpmodel_state", "0\n")
    board.write(GOVERNOR, "schedutil\n")
    assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    said = {reason.code: reason.message for reason in report.reasons}
    assert "Raspberry Pi: throttled, Raspberry Pi: under-voltage" in said["throttled"]
    assert "power mode from 15W (0) to MAXN_SUPER (2)" in said["power_mode_changed"]
    assert "scaling_governor from schedutil to powersave" in said["settings_changed"]


def test_busy_board_is_refused_by_the_name_of_what_loads_it(start):
    with running([sys.executable, "-c", "while True: pass"]):
        run = start({}, allow_busy=False, busy_patience_s=0.5)
        assert run.end() == 1
    [error] = run.named("error")
    assert error["kind"] == "board_busy" and "--allow-busy" in error["message"]
    assert "python" in error["message"] and "of the usable CPU cores" in error["message"]
    assert "waiting for a quiet board" in run.named("note")[0]["text"]


def test_busy_board_is_measured_where_that_is_allowed_and_the_report_says_so(start):
    with running([sys.executable, "-c", "while True: pass"]):
        run = start({}, allow_busy=True)
        assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    assert report.verdict == "valid_with_notes"
    codes = [reason.code for reason in report.reasons]
    assert "busy_board" in codes and "foreign_load" in codes


def test_seconds_that_cannot_tell_a_percentile_are_said_before_the_run(start):
    run = start({"infer_ms": 20}, least_frames={"p99": 662}, seconds=1)
    assert run.end() == 0
    [note] = run.named("note")
    assert "p99 needs" in note["text"] and "--lengthen would" in note["text"]
    assert run.events.index(note) < run.events.index(run.wait_for("progress", slice="flat_out"))


def test_run_is_lengthened_where_that_is_asked_for(start):
    run = start({"infer_ms": 5}, least_frames={"p90": 64}, seconds=0.1, lengthen=True)
    assert run.end() == 0
    report = summarise(read_result((run.folder / "result.json").read_bytes()))
    assert report.latency_ms.p90 is not None and report.latency_ms.count >= 64


def test_soak_gives_what_is_kept_up_beside_the_cold_run(start, made_board):
    run = start({}, root=str(made_board("orin-nano").root), soak="0.05", seconds=0.9)
    assert run.end() == 0
    soak = summarise(read_result((run.folder / "result.json").read_bytes())).soak
    assert len(soak.curve) == 3 and soak.minutes == pytest.approx(0.05, rel=0.2)
    assert soak.sustained.fps > 0 and soak.cold.watts == pytest.approx(4.915)
    assert soak.sustained.celsius == pytest.approx(46.968)


def test_folder_that_takes_no_result_is_one_clear_line(start):
    run = start({}, largest_file=5000, stderr=subprocess.PIPE)
    said = run.process.stderr.read()
    assert run.end() == 4
    assert said.startswith(b"agent: cannot write the work folder") and said.count(b"\n") == 1
    assert not list(run.folder.glob("result.json*"))


def test_labels_of_one_class_that_is_found_give_no_miou(start, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    image = np.full((HEIGHT, WIDTH, 3), 10, np.uint8)
    image[..., 0] = 200
    np.save(frames / "a.npy", image)
    np.save(frames / "a.label.npy", strongest_channel(image))
    run = start({}, frames=str(frames))
    assert run.end() == 0
    assert run.result()["accuracy"]["miou"] is None


def test_frames_folder_with_labels_gives_the_miou_of_the_timed_run(start, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    image = noise(HEIGHT, WIDTH, seed=3)
    label = strongest_channel(image)
    label[: HEIGHT // 2] = 255  # nobody judged the upper half
    np.save(frames / "a.npy", image)
    np.save(frames / "a.label.npy", label)
    run = start({}, frames=str(frames))
    assert run.end() == 0
    assert run.result()["accuracy"]["miou"] == 1


@pytest.mark.parametrize("fault", [{"at_open": "nvmap"}, {"at_frame": "nvmap"}])
def test_memory_that_a_jetsons_driver_did_not_get_is_named_and_what_to_do(start, fault):
    run = start(fault)
    assert run.end() == 1
    [error] = run.named("error")
    assert error["kind"] == "oom" and "reboot, which joins the pieces" in error["message"]


def test_gpu_that_somebody_uses_is_waited_for_too(start, made_board):
    board = made_board("orin-nano")
    board.write("sys/class/devfreq/17000000.gpu/device/load", "970\n")
    run = start({}, root=str(board.root), allow_busy=False, busy_patience_s=0.5)
    assert run.end() == 1
    [error] = run.named("error")
    assert error["kind"] == "board_busy" and "97% of the GPU" in error["message"]
