"""Evidence as it is gathered: on this machine, on made and broken boards, and in this process."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastseg_exporters.gate.referees.referee import Referee
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_targets.device import load_device
from remote_bench.analysis.report import read_report
from remote_bench.cli.evidence import EVIDENCE, gather_evidence
from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError, DeviceFailure, Unreachable, UsageError
from remote_bench.link import payload
from remote_bench.run import evidence as gathering
from remote_bench.run import fleet, frame_files
from remote_bench.run.benchmark import Benchmark
from remote_bench.run.bundles import read_manifest
from remote_bench.run.evidence import in_order, why_rehearsal
from remote_bench.run.material import drawn_frames, targets_of

from fastseg.data import open_dataset
from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import full_plan, noise, strongest_channel

QUICK = {"seconds": 0.4, "warmup_s": 0.1, "idle_s": 0.1}


@pytest.fixture
def several(tmp_path):
    """A bundle with two artifacts that run on a CPU, one for phones and one for TensorRT."""
    plan = full_plan().with_scene(noise(seed=1), strongest_channel(noise(seed=1)))
    content = plan.members[plan.manifest.artifacts[0].entry]
    for target in ("cpu-other", "jetson-fp16"):
        backend = "onnxruntime" if target == "cpu-other" else "tensorrt"
        plan = plan.with_artifact(target, content, "onnx", requires={"backend": backend})
    plan = plan.with_artifact("ios-fp16", b"x", "coreml", requires={"backend": "coreml"})
    return plan.write(tmp_path / "street.fastseg")


@pytest.fixture
def frames(tmp_path):
    """Three pictures with labels that the network gives."""
    for number in range(3):
        image_HW3 = noise(seed=number)
        label_HW3 = strongest_channel(image_HW3)[..., None].repeat(3, axis=2)
        for kind, picture in (("images", image_HW3), ("labels", label_HW3)):
            file = tmp_path / f"labelled/{kind}/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_rgb(picture))
    return tmp_path / "labelled"


@pytest.fixture
def gather(tmp_path, monkeypatch):
    """Gather on a host; return the exit code and the report."""
    (tmp_path / "board").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "board"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def gather(bundle, host="localhost", minutes=2.0, **said) -> tuple[int, dict]:
        benchmark = Benchmark(bundle=bundle, **{**EVIDENCE, **QUICK, **said})
        folder = tmp_path / "evidence"
        code = gather_evidence(host, benchmark, Connector(None, None), folder, minutes, False)
        report = json.loads((folder / "report.json").read_text())
        return code, {**report, "by_target": {run["target"]: run for run in report["runs"]}}

    return gather


def texts(folder) -> str:
    return "".join(file.read_text() for file in folder.iterdir())


@pytest.mark.slow
def test_every_artifact_runs_labelled_frames_and_the_folder_names_nobody(
    several, frames, gather, made_board, tmp_path, capsys
):
    code, report = gather(several, frames=frames, root=str(made_board("orin-nano").root))
    runs = report["by_target"]
    for target in ("cpu-fp32", "cpu-other"):
        labelled = runs[target]["labelled"]
        assert (labelled["frames"], labelled["miou"], labelled["reference_miou"]) == (3, 1.0, 1.0)
        assert runs[target]["agreement"] == 1.0 and runs[target]["no_evidence"] == ""
        file = tmp_path / f"evidence/{target}.json"
        assert read_report(file.read_bytes()).bundle.target == target
    assert runs["ios-fp16"]["skipped"] and "runs on darwin" in runs["ios-fp16"]["problem"]
    assert "python3-libnvinfer" in runs["jetson-fp16"]["problem"]
    assert (code, report["unfinished"]) == (0, "")
    assert list((tmp_path / "board").glob("remote_bench*")) == []
    found = texts(tmp_path / "evidence")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    serial = "1421921123456"
    for private in (str(tmp_path), "/tmp", "/home", boot_id, "boot-1", serial, "remote_bench-"):
        assert private not in found, private
    assert "cpu-other" in capsys.readouterr().out
    assert report["place"]["device"] == "orin-nano"
    assert "made file tree" in report["place"]["rehearsal"]
    assert not any(row["closed"] for row in report["not_run"])


@pytest.mark.slow
def test_an_engine_that_gives_other_masks_is_no_evidence(several, frames, gather, faults):
    faults(wrong=0.5)
    code, report = gather(several, frames=frames)
    assert code == 7
    assert "other classes here" in report["by_target"]["cpu-fp32"]["no_evidence"]


@pytest.mark.slow
def test_a_board_that_dies_half_way_leaves_what_there_was(
    several, frames, gather, sshd, proxy, ssh_client, tmp_path
):
    ssh_client.add("board", sshd, port=proxy.port)

    def cut() -> None:
        proxy.cut_after = 0
        time.sleep(1)
        proxy.cut_after = None  # it is looked for, and found

    stop = when_noted(tmp_path / "evidence", 1, cut)
    code, report = gather(several, "board", frames=frames, seconds=2.0)
    stop.join()
    assert code == 4
    assert report["by_target"]["cpu-fp32"]["no_evidence"] == ""
    assert "connection" in report["unfinished"] and report["place"]["over_ssh"]
    text = texts(tmp_path / "evidence")
    assert "It ended early" in text and "127.0.0.1" not in text


def when_noted(folder, runs: int, act) -> threading.Thread:
    """Do something once a report is there and has so many runs."""

    def wait() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            file = folder / "report.json"
            if file.exists() and len(json.loads(file.read_text())["runs"]) == runs:
                return act()
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_ctrl_c_leaves_what_there_was_and_a_clean_board(several, frames, tmp_path):
    (tmp_path / "board").mkdir()
    folder = tmp_path / "new"
    words = ["evidence", "localhost", str(several), "--frames", str(frames), "-o", str(folder)]
    command = [sys.executable, "-m", "remote_bench", *words]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "board")}
    with running(command, stderr=subprocess.PIPE, env=environment) as process:
        when_noted(folder, 0, lambda: process.send_signal(signal.SIGINT)).join()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    report = json.loads((folder / "report.json").read_text())
    assert report["unfinished"].startswith("interrupted") and report["place"]["device"]
    assert list((tmp_path / "board").glob("remote_bench*")) == []


@pytest.mark.slow
def test_the_time_limit_holds_where_an_engine_hangs(several, gather, faults):
    faults(at_open="hang")
    begin = time.monotonic()
    code, report = gather(several, minutes=0.2)  # 12 s, of which 1.2 to clean up
    assert time.monotonic() - begin < 0.2 * 60 + 3  # and a little to write and to leave
    assert code == 1 and "over; the board was" in report["unfinished"]
    assert report["by_target"]["jetson-fp16"]["problem"] == "not reached"


@pytest.mark.parametrize(("takes", "ends"), [(0.8, "well"), (0.95, "called off"), (9, "left")])
def test_work_that_is_called_off_at_nine_tenths_has_the_rest_to_clean_up(takes, ends):
    limit_s, begin = 2.0, time.monotonic()

    def work(measurement) -> str:
        while ends != "left" and time.monotonic() - begin < takes * limit_s:
            measurement.cancel.check()
            time.sleep(0.01)
        time.sleep(3.0 if ends == "left" else 0)
        return "well"

    connector, benchmark = Connector(None, None), Benchmark()
    found = fleet.on_hosts(["localhost"], connector, benchmark, work, limit_s)["localhost"]
    took_s = time.monotonic() - begin
    if ends == "well":
        assert found == "well" and took_s < limit_s
    elif ends == "called off":
        assert "minutes are over" in str(found) and 0.9 * limit_s <= took_s < limit_s
    else:
        assert "left to clean up" in str(found) and limit_s <= took_s < 3.0


def test_a_board_whose_answers_break_the_work_costs_the_others_nothing():
    broken = SimpleNamespace(name="broken", close=lambda: None)
    sound = SimpleNamespace(name="sound", close=lambda: None)
    hosts = {"broken": broken, "sound": sound}
    connector = SimpleNamespace(connect=lambda name, row: hosts[name])

    def work(measurement) -> str:
        return {"sound": "well"}[measurement.host.name]

    found = fleet.on_hosts(list(hosts), connector, Benchmark(), work)
    assert found["sound"] == "well"
    assert isinstance(found["broken"], DeviceFailure)
    assert str(found["broken"]) == "broken: its work broke off: KeyError: 'broken'"
    with pytest.raises(KeyError):  # alone: our mistake, with its trace
        fleet.on_hosts(["broken"], connector, Benchmark(), work)


def test_a_host_whose_key_file_is_denied_costs_the_others_nothing():
    def connect(name, row):
        if name == "denied":
            raise PermissionError(errno.EACCES, "Permission denied", "/home/u/.ssh/id_lab")
        return SimpleNamespace(name=name, close=lambda: None)

    connector = SimpleNamespace(connect=connect)
    found = fleet.on_hosts(["denied", "sound"], connector, Benchmark(), lambda one: "well")
    assert found["sound"] == "well" and isinstance(found["denied"], Unreachable)
    assert "Permission denied: '/home/u/.ssh/id_lab'" in str(found["denied"])


def test_off_linux_the_artifacts_run_in_this_process(several, frames, gather, monkeypatch):
    monkeypatch.setattr(gathering, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(payload, "code_zip", lambda: pytest.fail("no agent runs there"))
    code, report = gather(several, frames=frames)
    run = report["by_target"]["cpu-fp32"]
    assert (code, run["engine"], run["agreement"]) == (0, "onnxruntime", 1.0)
    assert run["labelled"]["miou"] == 1.0 and run["p50_ms"] > 0
    assert report["by_target"]["ios-fp16"]["skipped"]


def test_what_cannot_be_begun_leaves_no_folder(several, gather, frames, tmp_path):
    with pytest.raises(BenchError, match="has no address"):
        gather(several, "no-such-host.invalid")
    (frames / "labels/1.png").write_bytes(encode_rgb(np.zeros((8, 48, 3), np.uint8)))
    with pytest.raises(UsageError, match="1.png is 48x8 and 1.png 48x32"):
        gather(several, frames=frames)
    assert not (tmp_path / "evidence").exists()


def test_a_label_of_half_the_size_is_of_the_same_picture(tmp_path, frames, several):
    for rows, good in ((16, True), (17, True), (18, False)):
        label_HW3 = np.zeros((rows, 24, 3), np.uint8)
        (frames / "labels/1.png").write_bytes(encode_rgb(label_HW3))
        manifest = read_manifest(several, None)
        if good:
            assert len(list(frame_files.read_frames(frames, manifest))) == 3
        else:
            with pytest.raises(UsageError, match="24x18"):
                list(frame_files.read_frames(frames, manifest))


def test_what_is_built_for_minutes_comes_last_and_float_before_int8(several):
    plan = full_plan()
    for target, precision, backend in [
        ("jetson-int8", "int8", "tensorrt"),
        ("jetson-fp16", "fp16", "tensorrt"),
        ("cpu-int8", "int8", "onnxruntime"),
    ]:
        requires = {"backend": backend}
        plan = plan.with_artifact(target, b"x", precision=precision, requires=requires)
    order = [one.target for one in in_order(plan.manifest.artifacts)]
    assert order[-3:] == ["cpu-int8", "jetson-fp16", "jetson-int8"]


def test_the_targets_of_a_board_are_those_that_name_it_or_that_it_builds():
    def names(device: str, builds: bool = False) -> list[str]:
        return [target.name for target in targets_of(load_device(device), builds)]

    assert names("orin-nano") == ["cpu-fp32", "jetson-fp16", "jetson-int8"]
    assert "jetson-fp16" not in names("generic-x86") and "jetson-fp16" in names("generic-x86", True)
    assert "raspberrypi-int8" in names("raspberry-pi-5")


@pytest.mark.parametrize(("is_here", "more"), [(True, ["fp16", "int8"]), (False, [])])
def test_what_a_vendors_toolchain_makes_is_tried_where_that_is(monkeypatch, is_here, more):
    monkeypatch.setattr(Referee, "is_installed", is_here)
    targets = targets_of(load_device("rk3588"), builds_engines=False)
    assert [t.name for t in targets] == ["cpu-fp32", *(f"rockchip-{name}" for name in more)]


@pytest.mark.slow
def test_drawn_streets_are_for_networks_of_their_classes_and_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    manifest = full_plan().manifest
    assert drawn_frames(manifest) is None
    manifest = dataclasses.replace(manifest, classes=open_dataset("synthetic", "test").classes)
    folder = drawn_frames(manifest)
    assert folder == drawn_frames(manifest)
    pairs = list(frame_files.read_frames(folder, manifest))
    assert len(pairs) == 20 and all(label_HW.max() > 0 for _, label_HW in pairs)


@pytest.mark.parametrize(
    ("root", "machine", "features", "said"),
    [
        ("/", "aarch64", ["fp", "asimd"], ""),
        ("/", "x86_64", ["sse2"], ""),
        ("/", "aarch64", ["sse2"], "emulated"),
        ("/", "aarch64", [], "emulated"),
        ("/made", "aarch64", ["fp", "asimd"], "made file tree"),
    ],
)
def test_a_made_tree_and_an_emulated_cpu_are_rehearsals(root, machine, features, said):
    probe = {"system": {"machine": machine}, "cpu": {"features": features}}
    assert said in why_rehearsal(root, probe) and bool(said) == bool(why_rehearsal(root, probe))


def test_the_report_tells_which_of_two_graphs_a_board_chose_and_both_times() -> None:
    rivals = {"model.onnx": {"latency_ms": 2.9}, "model-float-depthwise.onnx": {"latency_ms": 2.1}}
    build = {"file": "model-float-depthwise.onnx", "rivals": rivals, "flags": [], "audit": {}}
    report = SimpleNamespace(
        engine={"engines": [build]}, fps=1, latency_ms=None, power=None, verdict="ok", error=None
    )
    artifact = Artifact("jetson-int8", "onnx", "int8", "model.onnx", ())
    result = SimpleNamespace(accuracy=None, selftest=None)
    run = gathering._target_run(artifact, report, result, SimpleNamespace())
    assert run.audit[0]["rivals"] == rivals and run.audit[0]["file"] == build["file"]
