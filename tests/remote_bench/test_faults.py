"""The fault table: each fault injected into a real connection, and what must happen then.

After each: the board has no process, file, lock or changed mode of ours.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from remote_bench.host.errors import (
    BenchError,
    BoardBusy,
    DeviceFailure,
    Unreachable,
)
from remote_bench.host.host import Cancel
from remote_bench.link.connection import Connection, Limits

from tests.boards.measuring import (
    CLEAN_S,
    ENDED_S,
    NOTICED_S,
    Watcher,
    connect,
    run,
    wait_until_clean,
    wait_until_over,
)
from tests.boards.sshd import files_in, processes_in
from tests.boards.stand_ins import make_bundle
from tests.doubles.fastseg_run import running

pytestmark = pytest.mark.slow  # needs openssh-server; seconds each


def test_a_good_run_leaves_nothing(sshd, host, bundle):
    before = files_in(sshd.folder)
    report = run(host, bundle=bundle)
    assert report.error is None and report.fps > 0
    assert not [path for path in report.board["appeared"] if str(sshd.folder) in path]
    assert files_in(sshd.folder) == before
    assert sshd.left() == []


def test_a_link_cut_in_the_middle_of_an_upload_leaves_a_part_and_the_retry_goes_on_from_there(
    sshd, proxy, host, tmp_path, within
):
    bundle = make_bundle(tmp_path / "big.fastseg", 8_000_000)
    proxy.cut_after = 5_000_000
    with pytest.raises(Unreachable, match="the connection broke"):
        run(host, bundle=bundle)
    within("noticed", NOTICED_S, proxy.cut_at)
    proxy.cut_after = None
    wait_until_over(sshd)
    within("board is clean", CLEAN_S, proxy.cut_at)
    [store] = [path for path in sshd.board.rglob("store")]
    [part] = store.glob("*.part")
    assert part.stat().st_size > 3_000_000
    assert not any(path.stat().st_size > 8_000_000 for path in store.iterdir())
    before = proxy.bytes_from_client
    assert run(host, bundle=bundle).error is None
    assert proxy.bytes_from_client - before < 5_500_000
    assert sshd.left() == []


def test_a_half_upload_that_is_no_beginning_of_the_file_is_replaced(sshd, proxy, host, tmp_path):
    bundle = make_bundle(tmp_path / "big.fastseg", 8_000_000)
    proxy.cut_after = 5_000_000
    with pytest.raises(Unreachable):
        run(host, bundle=bundle)
    proxy.cut_after = None
    wait_until_over(sshd)
    [part] = sshd.board.rglob("*.part")
    part.write_bytes(b"x" * part.stat().st_size)
    assert run(host, bundle=bundle).error is None


def test_a_peer_that_freezes_during_an_upload_is_noticed_in_time(
    sshd, proxy, host, tmp_path, within
):
    bundle = make_bundle(tmp_path / "big.fastseg", 40_000_000)
    frozen_at = []

    class Freezer(Watcher):
        def progress(self, done, total, fps=None) -> None:
            if total > 1e7 and done > 0.2 * total and not frozen_at:
                sshd.signal_sessions(signal.SIGSTOP)
                frozen_at.append(time.monotonic())

    with pytest.raises(Unreachable, match="no sign of life for 12 s"):
        run(host, Freezer(), bundle=bundle)
    within("noticed", NOTICED_S, frozen_at[0])


def test_a_network_that_freezes_before_the_board_s_first_answer_is_noticed_in_time(
    proxy, host, bundle, within
):
    begin = time.monotonic()
    with pytest.raises(Unreachable, match="the board starts no command"):
        run(host, Watcher(connect=proxy.frozen.set), bundle=bundle)
    within("noticed", NOTICED_S, begin)


def test_a_board_that_freezes_before_its_first_answer_is_noticed_in_time(
    start_sshd, ssh_client, bundle, within
):
    sshd = start_sshd(config="ForceCommand kill -STOP $$")  # in the login shell, before /bin/sh
    host = connect(ssh_client.add("board", sshd))
    begin = time.monotonic()
    with pytest.raises(Unreachable, match="did not start /bin/sh within 12 s"):
        run(host, bundle=bundle)
    within("noticed", NOTICED_S, begin)
    host.close()
    for process in processes_in(sshd.board):  # it thaws
        os.kill(int(process.split(":")[0]), signal.SIGCONT)
    wait_until_clean(sshd)


def test_a_board_that_freezes_in_the_middle_of_a_run_is_noticed_in_time(
    sshd, proxy, host, bundle, within
):
    frozen_at = []

    def freeze() -> None:
        sshd.signal_sessions(signal.SIGSTOP)
        frozen_at.append(time.monotonic())

    watcher = Watcher(run=freeze, lost=lambda: within("noticed", NOTICED_S, frozen_at[0]))
    report = run(host, watcher, bundle=bundle, seconds=60)
    within("command ended", ENDED_S, frozen_at[0])
    assert report.error.kind == "connection_lost"
    assert "no sign of life" in report.error.message
    assert report.verdict == "invalid"
    sshd.signal_sessions(signal.SIGCONT)
    wait_until_clean(sshd)


def test_a_network_that_swallows_everything_makes_the_board_stop_by_itself(
    sshd, proxy, host, bundle, within
):
    """No end of the connection reaches the board: it must notice the silence."""
    wanted = {"bundle": bundle, "seconds": 90, "limits": Limits(search_s=1)}  # the board's, here
    watcher = Watcher(run=proxy.frozen.set)
    thread = threading.Thread(target=run, args=(host, watcher), kwargs=wanted, daemon=True)
    thread.start()
    assert proxy.frozen.wait(30)
    begin = time.monotonic()
    wait_until_clean(sshd)
    within("board is clean", CLEAN_S, begin)
    thread.join(ENDED_S)
    within("command ended", ENDED_S, begin)


CLIENT = """
import sys
from pathlib import Path
from remote_bench.host.host import Cancel
from remote_bench.host.ssh import SshHost
from remote_bench.run.benchmark import Benchmark, Measurement
from remote_bench.run.measurement import measure


class Printer:
    def phase(self, name):
        print(name, flush=True)

    def progress(self, done, total, fps=None):
        print("progress", flush=True)

    def note(self, text):
        pass


host = SshHost("board", lambda prompt: None)
short = {"warmup_s": 0.2, "idle_s": 0.3, "allow_busy": True}
wanted = Benchmark(bundle=Path(sys.argv[1]), seconds=30.0, **short)
measure(Measurement(host, wanted, Printer(), Cancel()))
"""


@pytest.mark.parametrize("phase", ["connect", "upload", "probe", "build", "settle", "run"])
def test_a_client_that_is_killed_at_any_time_leaves_nothing_but_what_a_retry_goes_on_from(
    sshd, ssh_client, bundle, phase, within
):
    ssh_client.add("board", sshd)
    command = [sys.executable, "-c", CLIENT, str(bundle)]
    with running(command, stdout=subprocess.PIPE) as client:
        for line in client.stdout:
            if line.strip() == phase:
                break
        client.kill()
    begin = time.monotonic()
    while time.monotonic() < begin + CLEAN_S:
        left = [name for name in sshd.left() if "store" not in name]
        if left in ([], [f"remote_bench-{os.geteuid()}"]):
            break
        time.sleep(0.1)
    assert left in ([], [f"remote_bench-{os.geteuid()}"])
    if phase in ("build", "settle", "run"):
        wait_until_clean(sshd, 5)
    within(f"board is clean, killed in {phase}", CLEAN_S, begin)


def test_a_board_that_reboots_in_the_middle_of_a_run_is_said_to_have_rebooted(
    sshd, proxy, host, bundle, made_board, within
):
    root, began = made_board("orin-nano").root, []

    def reboot() -> None:
        began.append(time.monotonic())
        sshd.drop()
        (root / "proc/sys/kernel/random/boot_id").write_text("another boot\n")
        sshd.start()

    report = run(host, Watcher(run=reboot), bundle=bundle, seconds=30, root=str(root))
    within("command ended", ENDED_S, began[0])
    assert report.error.kind == "rebooted"
    assert report.verdict == "invalid" and report.fps is None
    wait_until_clean(sshd)


def test_a_board_that_is_off_after_the_link_broke_is_reported_within_a_bound(
    sshd, proxy, host, bundle, within
):
    begin = time.monotonic()
    report = run(host, Watcher(run=sshd.drop), bundle=bundle, seconds=30)
    within("command ended", ENDED_S, begin)
    assert report.error.kind == "connection_lost"
    assert "does not answer any more" in report.error.message
    wait_until_clean(sshd)


@pytest.mark.parametrize(
    ("facts", "kind", "said"),
    [
        ({"at_frame": "oom"}, "oom", "probably because the board ran out of memory"),
        ({"at_open": "exit"}, "worker_died", "cudaMalloc failed"),
        ({"at_open": "error"}, "build_failed", "engine said no"),
        ({"at_open": "no_engine"}, "no_engine", "no engine here"),
        ({"wrong": 0.5}, "selftest_failed", "gives other classes"),
    ],
)
def test_a_failure_on_the_board_is_an_invalid_report_with_its_kind(
    sshd, host, faults, bundle, facts, kind, said
):
    faults(**facts)
    report = run(host, bundle=bundle)
    assert report.verdict == "invalid"
    assert report.error.kind == kind and said in report.error.message
    assert sshd.left() == []


JUMPING_CLOCK = """
import time
real, began = time.time, time.monotonic()
time.time = lambda: real() - (3600 if time.monotonic() - began > 0.7 else 0)
"""


def test_a_wall_clock_that_jumps_during_the_run_changes_no_duration(
    start_sshd, ssh_client, bundle, faults, tmp_path
):
    """Each Python on the board sees the clock fall by an hour, as a late RTC makes it."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK)
    sshd = start_sshd(environment={"PYTHONPATH": str(tmp_path)})
    host = connect(ssh_client.add("board", sshd))
    faults(infer_ms=20)
    report = run(host, bundle=bundle)
    host.close()
    assert report.error is None
    [said] = [r.message for r in report.reasons if r.code == "clock_stepped"]
    assert "stepped by -3600.0 s" in said
    assert 20 < report.latency_ms.p50 < 200 and 5 < report.fps < 50
    assert sshd.left() == []


def test_an_agent_that_is_killed_is_reported_as_out_of_memory(sshd, host, bundle, within):
    began = []

    def kill_agent() -> None:
        began.append(time.monotonic())
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                here = os.readlink(f"/proc/{pid}/cwd")
                is_agent = {b"remote_bench.agent", b"run"} <= set(command)
                if is_agent and str(sshd.board) in here:
                    os.kill(int(pid), signal.SIGKILL)

    report = run(host, Watcher(run=kill_agent), bundle=bundle, seconds=30)
    within("command ended", NOTICED_S, began[0])
    assert report.error.kind == "oom"
    assert sshd.left() == []


def test_a_keeper_that_is_killed_ends_the_run_and_the_next_connection_sweeps(
    sshd, host, bundle, within
):
    began = []

    def kill_keeper() -> None:
        began.append(time.monotonic())
        for number in sshd.left():
            if "sys.stdin.buffer" in number:
                os.kill(int(number.split(":")[0]), signal.SIGKILL)

    with pytest.raises(DeviceFailure, match="probably for lack of memory"):
        run(host, Watcher(run=kill_keeper), bundle=bundle, seconds=30)
    within("command ended", NOTICED_S, began[0])
    with Connection(host) as session:
        assert session.hello["swept"]
    wait_until_clean(sshd)


def test_a_slow_link_shows_progress_raises_no_false_alarm_and_changes_no_measurement(
    sshd, proxy, host, faults, tmp_path
):
    faults(infer_ms=100)  # of which a tenth is more than a busy machine takes
    bundle = make_bundle(tmp_path / "street.fastseg", 400_000)
    fast = run(host, bundle=bundle, seconds=2.0)
    proxy.bytes_per_s, proxy.delay_s = 64_000, 0.5
    watcher = Watcher()
    slow = run(host, watcher, bundle=bundle, seconds=2.0)
    assert slow.error is None
    assert len({round(part, 1) for part in watcher.fractions}) > 8
    ratio = slow.latency_ms.p50 / fast.latency_ms.p50
    assert 0.9 < ratio < 1.1
    assert sshd.left() == []


def test_a_second_run_on_the_same_board_waits_for_nobody_and_says_who_has_it(
    sshd, host, ssh_client, bundle, within
):
    with Connection(host) as first:
        first.request("lock")
        second = connect(ssh_client.add("again", sshd))
        begin = time.monotonic()
        with pytest.raises(BoardBusy, match=r"another run holds this board: .*who"):
            run(second, bundle=bundle)
        within("command ended", NOTICED_S, begin)
        second.close()
    assert run(host, bundle=bundle).error is None
    assert sshd.left() == []


def test_a_stale_lock_file_does_not_keep_anybody_out(sshd, host, bundle):
    (sshd.board / "remote_bench.lock").write_text(json.dumps({"who": "a dead one"}))
    assert run(host, bundle=bundle).error is None
    assert sshd.left() == []


def test_a_run_that_is_called_off_cleans_up_in_good_order(sshd, host, bundle, within):
    cancel, began = Cancel(), []

    def call_off() -> None:
        began.append(time.monotonic())
        cancel.set()

    with pytest.raises(BenchError, match="interrupted"):
        run(host, Watcher(run=call_off), cancel, bundle=bundle, seconds=60.0)
    within("command ended, board is clean", CLEAN_S, began[0])
    assert sshd.left() == []


def test_a_power_mode_that_was_changed_is_given_back_when_the_link_is_cut(
    sshd, ssh_client, proxy, host, bundle, made_board, within
):
    board = made_board("orin-nano")
    state = board.root / "nvpmodel_state"
    before = state.read_text()
    seen = []

    def cut() -> None:
        seen.append(state.read_text())
        proxy.cut_after = 0

    def mend() -> None:
        proxy.cut_after = None

    other = next(name for name, number in board.facts["modes"].items() if f"{number}\n" != before)
    watcher = Watcher(run=cut, lost=mend)
    report = run(host, watcher, bundle=bundle, seconds=60, root=str(board.root), power_mode=other)
    assert report.error.kind == "connection_lost"
    assert seen[0] != before
    wait_until_clean(sshd)
    assert state.read_text() == before
    within("mode is given back, board is clean", CLEAN_S, proxy.cut_at)
