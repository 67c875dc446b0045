"""A phone behind a fake adb: pushed files are copied, and what is pushed as a tool runs here."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from fastseg_runtime.bundle.reader import open_bundle
from remote_bench.analysis.requirements import parse
from remote_bench.host.adb import AdbHost
from remote_bench.host.errors import DeviceFailure, MissingRequirement, Unreachable, UsageError
from remote_bench.host.host import Cancel, Interrupted
from remote_bench.report.figures import sections
from remote_bench.report.page import render_html
from remote_bench.run.benchmark import Benchmark, Measurement
from remote_bench.run.measurement import measure

from tests.boards import fake_adb
from tests.boards.measuring import Watcher
from tests.doubles.tiny_bundle import full_plan
from tests.remote_bench.analysis.test_bench_tools import NEW, PERF

ANDROID = {
    "getprop": "[ro.product.manufacturer]: [Acme]\n[ro.product.model]: [Phone 9 $(id) [x]]\n"
    "[ro.soc.model]: [SM8650]\n[ro.build.version.release]: [15]\n",
    "dumpsys": '[ "$1" = battery ] && echo "  temperature: 312" || echo "Thermal Status: 0"',
    "nproc": "echo 8",
    "uname": '[ "$1" = -m ] && echo aarch64 || echo 6.1.75-android14',
}


class Phone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("serial", "R5CT")
        self.write("state", "device")
        (folder / "data/local/tmp").mkdir(parents=True)
        for name, text in ANDROID.items():
            text = f"cat <<'END'\n{text}END\n" if name == "getprop" else text
            self.tool(f"bin/{name}", text)

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def tool(self, name: str, script: str) -> Path:
        file = self.write(name, f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def left(self) -> list[Path]:
        return list((self.folder / "data/local/tmp").iterdir())


@pytest.fixture
def phone(tmp_path, monkeypatch):
    made = Phone(tmp_path / "phone")
    adb = tmp_path / "adb-bin/adb"
    adb.parent.mkdir()
    adb.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {fake_adb.__file__} "$@"\n')
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PHONE", str(made.folder))
    return made


@pytest.fixture
def bundle(tmp_path):
    plan = full_plan().with_artifact("android-fp16", b"a tflite file", "tflite", precision="fp16")
    return plan.write(tmp_path / "street.fastseg")


def benchmark_model(phone: Phone, output: str = NEW, more: str = "") -> Path:
    return phone.tool(
        "benchmark_model",
        f'pwd > {phone.folder}/where; printf "%s\\n" "$@" > {phone.folder}/arguments\n'
        f'[ -s "$(sed -n s/--graph=//p {phone.folder}/arguments)" ] || exit 9\n{more}\n'
        f"cat <<'END'\n{output}\nEND",
    )


def run(bundle, *binary, cancel=None, watcher=None, **options):
    options = {"repeats": 1, **options}
    wanted = Benchmark(bundle=bundle, binary=tuple(map(str, binary)), **options)
    host = AdbHost("adb:R5CT")
    return measure(Measurement(host, wanted, watcher or Watcher(), cancel or Cancel()))


def test_figures_of_the_tool_stand_in_a_report_with_what_they_leave_out(phone, bundle):
    report = run(bundle, benchmark_model(phone), "--use_gpu=true", "--x=a b$(id)", repeats=3)
    assert report.fps == pytest.approx(1e3 / 63.7432, rel=1e-4)
    assert report.verdict == "valid_with_notes"
    codes = [reason.code for reason in report.reasons]
    assert codes[:2] == ["inference_alone", "delegate_partial"] and "output_not_checked" in codes
    assert "no pre-processing" in report.latency_ms.includes
    assert report.latency_ms.p50 == pytest.approx(51.891) and report.latency_ms.p99 is None
    assert report.latency_ms.reasons["p99"] == "benchmark_model does not print it"
    assert len(report.blocks) == 3 and report.fps_ci95_basis == "between 3 calls of benchmark_model"
    assert (
        report.device.name == "generic-android" and report.device.model == "Acme Phone 9 $(id) [x]"
    )
    assert (report.device.distribution, report.device.cpu_count) == ("Android 15", 8)
    assert report.conditions.temperatures["battery"].end == 31.2
    assert report.power is None and "charged over USB" in report.power_reason
    assert report.bundle.target == "android-fp16" and report.engine["backend"] == "benchmark_model"
    arguments = (phone.folder / "arguments").read_text().splitlines()
    assert arguments[:2] == ["--use_gpu=true", "--x=a b$(id)"]
    assert "--min_secs=6.66667" in arguments and "--warmup_min_secs=2" in arguments
    assert phone.left() == []
    assert json.loads(json.dumps(report.to_table()))["reasons"]
    text = " ".join(f"{f.label} {f.value} {f.note}" for s in sections(report) for f in s.figures)
    assert "timed the graph alone" in render_html([report])
    assert "Android phone" in text and "no agent runs on a phone" in text


def test_an_onnx_file_is_exported_as_the_tool_takes_it(phone, bundle, tmp_path, monkeypatch):
    asked = []

    def choose(file, target, *others):
        asked.append(target)
        return bundle

    monkeypatch.setattr("remote_bench.run.phone.choose_bundle", choose)
    for file in (tmp_path / "yours.onnx", None, bundle):
        run(file, benchmark_model(phone))
    assert asked == ["android-fp16", "android-fp16", None]


def test_requirements_hold_for_a_phone_too(phone, bundle):
    report = run(bundle, benchmark_model(phone))
    check = parse("fps>=30,p50<=60ms,power<=5W").check(report)
    assert [text.split(":")[0] for text in check.missed] == ["fps>=30", "power<=5W"]


def test_an_onnx_artifact_runs_by_onnx_runtimes_tool(phone, bundle):
    tool = phone.tool("onnxruntime_perf_test", f"echo \"$@\" >&2; cat <<'END'\n{PERF}\nEND")
    report = run(bundle, tool)
    assert report.fps == pytest.approx(1e3 / 98.962, rel=1e-4)
    assert report.bundle.target == "cpu-fp32" and report.latency_ms.p50 is None
    assert report.latency_ms.reasons["p50"] == "needs 11 frames a call, has 5"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("echo 'ERROR: no such delegate'; exit 1", "status 1 and said 'ERROR: no such delegate'"),
        ("echo STARTING!; exit 0", "printed what nobody knows: no lines"),
        ("kill -9 $$", "ended with status"),
    ],
)
def test_a_tool_that_fails_gives_an_invalid_report_that_says_why(phone, bundle, more, said):
    report = run(bundle, benchmark_model(phone, more=more))
    assert report.verdict == "invalid" and report.fps is None
    assert report.error.kind == "tool_failed" and said in report.error.message
    assert phone.left() == []


@pytest.mark.slow
def test_throttling_that_android_tells_is_a_note(phone, bundle):
    phone.tool("bin/dumpsys", "echo 'Thermal Status: 2'")
    codes = {reason.code: reason.message for reason in run(bundle, benchmark_model(phone)).reasons}
    assert codes["throttled"] == "throttled: Android's thermal status was 2 (moderate)"
    phone.tool("bin/dumpsys", "exit 1")
    report = run(bundle, benchmark_model(phone))
    assert "throttling" in report.not_watched and report.conditions.temperatures == {}


@pytest.mark.slow
def test_a_ctrl_c_ends_the_tool_on_the_phone_and_removes_everything(phone, bundle):
    cancel, pid = Cancel(), phone.folder / "pid"
    tool = benchmark_model(phone, more=f"echo $$ > {pid}; exec sleep 60")
    watcher = Watcher(run=lambda: threading.Timer(1.5, cancel.set).start())
    with pytest.raises(Interrupted):
        run(bundle, tool, cancel=cancel, watcher=watcher)
    time.sleep(0.2)
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert phone.left() == []


@pytest.mark.slow
def test_a_phone_that_is_pulled_out_is_said_and_what_stays_there_too(phone, bundle):
    watcher = Watcher(run=lambda: phone.write("serial", "gone"))
    report = run(bundle, benchmark_model(phone), watcher=watcher)
    assert "device 'R5CT' not found" in report.error.message
    assert any("is left there" in note for note in watcher.notes) and len(phone.left()) == 1


@pytest.mark.parametrize(
    ("name", "state", "kind", "said"),
    [
        ("adb:R5CT", "unauthorized", Unreachable, "error: device unauthorized.; adb devices lists"),
        ("adb:R5CT", "offline", Unreachable, "device offline"),
        ("adb:OTHER", "device", Unreachable, "device 'OTHER' not found"),
        ("adb:", "device", UsageError, "expected adb:SERIAL"),
        ("adb:-H", "device", UsageError, "expected adb:SERIAL"),
    ],
)
def test_a_phone_that_cannot_be_used_is_told_apart(phone, name, state, kind, said):
    phone.write("state", state)
    with pytest.raises(kind, match=said):
        AdbHost(name)


def test_a_push_that_has_no_end_is_no_push(phone, tmp_path):
    host = AdbHost("adb:R5CT")
    adb = tmp_path / "adb-bin/adb"
    adb.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(DeviceFailure, match="adb push /there: it had no end in 0.3 s; is there"):
        host.push(str(adb), "/there", timeout_s=0.3)


def test_a_folder_that_a_silent_phone_keeps_is_said(phone, bundle, monkeypatch):
    shell = AdbHost.shell
    monkeypatch.setattr(
        AdbHost, "shell", lambda *given: (None, "") if "rm -rf" in given[1] else shell(*given)
    )
    watcher = Watcher()
    run(bundle, benchmark_model(phone), watcher=watcher)
    assert any("is left there: adb gave no answer" in note for note in watcher.notes)


def test_without_adb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no adb on PATH; install Android's platform tools"):
        AdbHost("adb:R5CT")


def test_what_a_phone_cannot_do_is_refused_in_one_line(phone, bundle, tmp_path):
    with pytest.raises(UsageError, match="expected --binary FILE"):
        run(bundle)
    with pytest.raises(UsageError, match="no such file; expected a tool for the phone"):
        run(bundle, tmp_path / "absent")
    with pytest.raises(MissingRequirement, match=r"no target cpu-fp32 of the format tflite"):
        run(bundle, benchmark_model(phone), target="cpu-fp32")
    only_onnx = full_plan().write(tmp_path / "other.fastseg")
    with pytest.raises(MissingRequirement, match=r"fastseg-export --target android-fp16 adds one"):
        run(only_onnx, benchmark_model(phone))
    with pytest.raises(UsageError, match="a phone runs a benchmark tool alone"):
        AdbHost("adb:R5CT").start("true")
    assert phone.left() == []


def test_the_file_that_runs_is_the_artifacts(phone, bundle):
    tool = benchmark_model(phone, more=f"cp model/* {phone.folder}")
    run(bundle, tool)
    with open_bundle(bundle) as opened:
        entry = opened.artifact("android-fp16").entry
        assert (phone.folder / Path(entry).name).read_bytes() == opened.read(entry)
