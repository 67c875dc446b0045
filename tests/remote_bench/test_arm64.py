"""The whole tool against an emulated arm64 board that has nothing but python3."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastseg_runtime.arrays.image import encode_rgb
from remote_bench.cli.doctor import examine
from remote_bench.cli.evidence import EVIDENCE, gather_evidence
from remote_bench.host.connect import Connector
from remote_bench.host.host import Cancel
from remote_bench.report.page import render_html
from remote_bench.run.benchmark import Benchmark, Measurement

from tests.boards.arm64_board import ADDRESS, Arm64Board, missing
from tests.boards.measuring import Watcher, connect, run
from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import noise, strongest_channel

pytestmark = [
    pytest.mark.arm64,
    pytest.mark.skipif(bool(missing()), reason=f"no emulated arm64 board: {missing()}"),
]

MV, MA = 5000, 1200  # of the made rail VDD_IN: 6 W


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The board; FASTSEG_ARM64_ROOT names a folder that keeps its packages for the next time."""
    kept = os.environ.get("FASTSEG_ARM64_ROOT")
    board = Arm64Board(Path(kept) if kept else tmp_path_factory.mktemp("arm64"))
    hwmon = "sys/class/hwmon/hwmon4"
    for name, value in {"name": "ina3221", "in1_label": "VDD_IN"}.items():
        board.write(f"{hwmon}/{name}", f"{value}\n")
    board.write(f"{hwmon}/in1_input", f"{MV}\n")
    board.write(f"{hwmon}/curr1_input", f"{MA}\n")
    yield board
    board.stop()


@pytest.fixture
def host(board, ssh_client):
    alias = ssh_client.add("jetson", board, HostName=ADDRESS, User="jetson")
    host = connect(alias)
    yield host
    host.close()


def wait_until_clean(board) -> None:
    end = time.monotonic() + 60
    while (board.left() or board.processes()) and time.monotonic() < end:
        time.sleep(0.2)
    assert (board.left(), board.processes()) == ([], [])


def test_doctor_recognises_the_board_and_says_what_it_lacks(board, host):
    findings = examine(Measurement(host, Benchmark(), Watcher(), Cancel()))
    assert findings["device"] == "orin-nano"
    assert not findings["root"]
    checks = {check["what"]: check for check in findings["checks"]}
    assert checks["power rails"]["detail"] == "VDD_IN"
    assert not checks["numpy"]["ok"] and "brings a wheel" in checks["numpy"]["fix"]
    wait_until_clean(board)


def test_a_bare_board_runs_a_network_with_wheels_that_travel_and_nothing_stays(board, host, bundle):
    watcher = Watcher()
    report = run(host, watcher, bundle=bundle, seconds=10, idle_s=2, warmup_s=1)
    assert report.error is None, report.error
    assert any("no numpy and no onnxruntime" in note for note in watcher.notes)
    assert report.device.machine == "aarch64"
    assert report.engine["backend"] == "onnxruntime"
    assert report.accuracy.agreement == 1.0
    assert report.power.rails == ("VDD_IN",)
    assert report.power.flat_out.mean_w == pytest.approx(MV * MA / 1e6)
    assert report.power.scope == "module"
    assert not [p for p in report.board["appeared"] if "remote_bench" in p]
    wait_until_clean(board)


def test_a_board_with_another_job_is_measured_where_that_is_allowed_and_says_so(
    board, host, bundle
):
    with running([sys.executable, "-c", "while True: pass"]):
        report = run(host, bundle=bundle, seconds=3, idle_s=0.5, warmup_s=0.5, allow_busy=True)
    assert report.error is None and len(report.blocks) == 3
    assert {"busy_board", "foreign_load"} <= {reason.code for reason in report.reasons}
    assert report.verdict != "invalid" and "<svg" in render_html([report])
    wait_until_clean(board)


def test_what_was_kept_is_not_sent_again(board, host, bundle):
    waits = []
    for keep in (True, False):
        watcher = Watcher()
        wanted = {"bundle": bundle, "seconds": 2, "idle_s": 0.5, "warmup_s": 0.5, "keep": keep}
        assert run(host, watcher, **wanted).error is None
        waits.append(watcher.began["build"] - watcher.began["connect"])
    assert waits[1] < waits[0]
    wait_until_clean(board)


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
        pass

    def note(self, text):
        pass


host = SshHost("jetson", lambda prompt: None)
wanted = Benchmark(bundle=Path(sys.argv[1]), seconds=120.0, allow_busy=True)
measure(Measurement(host, wanted, Printer(), Cancel()))
"""


def test_a_killed_client_leaves_a_clean_board(board, host, bundle):
    command = [sys.executable, "-c", CLIENT, str(bundle)]
    with running(command, stdout=subprocess.PIPE) as client:
        for line in client.stdout:
            if line.strip() == "run":
                break
        client.kill()
    wait_until_clean(board)


def test_evidence_is_gathered_whole_and_called_a_rehearsal(board, ssh_client, bundle, tmp_path):
    alias = ssh_client.add("jetson", board, HostName=ADDRESS, User="jetson")
    picture = noise(seed=1)
    label_HW3 = strongest_channel(picture)[..., None].repeat(3, axis=2)
    for kind, image_HW3 in (("images", picture), ("labels", label_HW3)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "0.png").write_bytes(encode_rgb(image_HW3))
    benchmark = Benchmark(bundle=bundle, frames=tmp_path, **EVIDENCE)
    connector, folder = Connector(None, None), tmp_path / "evidence"
    assert gather_evidence(alias, benchmark, connector, folder, 14, as_json=False) == 0
    report = json.loads((folder / "report.json").read_text())
    assert "the board was emulated" in report["place"]["rehearsal"]
    (ran,) = [one for one in report["runs"] if one["engine"] == "onnxruntime"]
    assert ran["agreement"] == 1.0 and ran["labelled"]["miou"] == 1.0
    assert ran["power_w"] == pytest.approx(MV * MA / 1e6)
    assert not report["unfinished"]
    wait_until_clean(board)
