"""The command as its users run it: a process, its streams and its exit code."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.bundle.reader import open_bundle
from remote_bench.analysis.report import BundleFacts
from remote_bench.cli.beforehand import split_names
from remote_bench.cli.bench import Bench
from remote_bench.cli.compare import Compare
from remote_bench.cli.doctor import Doctor
from remote_bench.cli.main import app
from remote_bench.host.errors import (
    UNTRUSTED,
    BoardBusy,
    DeviceFailure,
    Unreachable,
    UsageError,
)
from remote_bench.host.host import Interrupted

from tests.boards.sshd import files_in, processes_in
from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import noise, strongest_channel

COMMAND = [sys.executable, "-m", "remote_bench"]
SHORT = ["--seconds", "1", "--idle", "0.1", "--allow-busy"]


CODES = {"different": 0, "no_difference": 0, "cannot_tell": 9, "not_comparable": 3}


@pytest.fixture
def board(tmp_path):
    """The TMPDIR of this machine as a board."""
    folder = tmp_path / "board"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(tmp_path, board):
    return {**os.environ, "TMPDIR": str(board), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def call(tmp_path, environment):
    def call(*arguments: object, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path,
            env=environment, timeout=180, **options,
        )  # fmt: skip

    return call


def left(board: Path) -> list[str]:
    return files_in(board) + processes_in(board)


def test_help_teaches_the_commands_and_lists_the_exit_codes(call):
    done = call("--help")
    assert done.returncode == 0
    for text in ("remote_bench jetson.local street.fastseg", "--require"):
        assert text in done.stdout
    commands = done.stdout.rpartition("Commands:")[2].split()
    assert {"bench", "doctor", "compare"} <= set(commands)
    assert call("--json", "--help").stdout == done.stdout
    assert "5 host key" in " ".join(done.stdout.split())
    assert "remote_bench (fastseg-edge " in call("--version").stdout


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        ("orin street.fastseg --json", Bench(["orin", "street.fastseg"], as_json=True)),
        ("--json --target compare orin", Bench(["orin"], as_json=True, target="compare")),
        ("orin compare", Bench(["orin", "compare"])),
        ("bench doctor --json", Bench(["doctor"], as_json=True)),
        ("--json bench bench", Bench(["bench"], as_json=True)),
        ("", Bench()),
        ("--resume run-1", Bench(resume="run-1")),
        ("--json compare a.json b.json", Compare("a.json", "b.json", as_json=True)),
        ("compare a.json --json b.json", Compare("a.json", "b.json", as_json=True)),
        ("--folder=/x --json doctor orin", Doctor("orin", folder="/x", as_json=True)),
        ("--folder doctor doctor doctor", Doctor("doctor", folder="doctor")),
        ("doctor bench", Doctor("bench")),
    ],
)
def test_the_first_word_that_is_no_option_names_the_command_or_a_host(words, parsed):
    assert app(words.split(), standalone_mode=False) == parsed


def test_hosts_and_the_bundle_are_told_apart():
    assert split_names(["a", "b.fastseg", "c"]) == (["a", "c"], Path("b.fastseg"))
    assert split_names(["yours.onnx", "a"]) == (["a"], Path("yours.onnx"))
    with pytest.raises(UsageError, match="each once, and one bundle"):
        split_names(["a", "a"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "expected a host"),
        (("localhost", "absent.fastseg"), 2, "no bundle absent.fastseg"),
        (("localhost", "street.onnx"), 2, "no ONNX file street.onnx"),
        (("localhost", "street.pth"), 2, "neither a host nor a bundle"),
        (("localhost", "--color", "bgr"), 2, "are for an ONNX file; a bundle says them itself"),
        (("localhost", "--frames", "absent"), 2, "no such folder or video"),
        (("localhost", "--report", "absent/page.html"), 2, "a folder that can be written"),
        (("localhost", "--require", "speed>1"), 2, "unknown metric"),
        (("localhost", "--require", ""), 2, "cannot read ''; expected like fps>=30"),
        (("localhost", "--fps", "inf"), 2, "'--fps': Input should be less than or equal to 10000"),
        (("localhost", "--accept-host-key", "abc"), 2, "expected SHA256"),
        (("localhost", "--sweep", "giant"), 2, "no variant"),
        (("--resume", "run-unknown"), 2, "no detached run"),
        (("localhost", "--resume", "run-x"), 2, "--resume does not go with a host: the run has"),
        (("localhost", "--detach", "--record", "--report", "p.html"), 2, "--record and --report"),
        (("localhost", "x.fastseg", "--sweep", "nano"), 2, "--sweep does not go with a bundle"),
        (("localhost", "--sweep", "nano", "--strict"), 2, "--sweep does not go with --strict"),
        (("localhost", "--detach", "--strict"), 2, "--detach does not go with --strict: give that"),
        (("--resume", "run-x", "--binary", "x"), 2, "--resume does not go with --binary: the run"),
        (("--resume", "run-x", "--keep", "--folder", "/x"), 2, "not go with --keep and --folder:"),
        (("--resume", "../../etc/passwd"), 2, "expected a run"),
        (("no-such-host.invalid",), 4, "has no address"),
        (("doctor", "no-such-host.invalid"), 4, "has no address"),
        (("compare", "a.json", "b.json"), 2, "No such file"),
        (("--json", "compare", "a.json", "b.json"), 2, "a.json: No such file"),
        (
            ("compare", "a.json", "b.json", "--seconds", "5", "--via-ssh"),
            2,
            "--seconds, --via-ssh: only",
        ),
        (("compare", "a.json", "--json", "b.json"), 2, "a.json: No such file"),
        (("--json", "compare", "a.json"), 2, "Missing argument 'B.json["),
        (("--folder", "/tmp", "doctor", "no-such-host.invalid"), 4, "has no address"),
        (("--target", "compare", "no-such-host.invalid"), 4, "has no address"),
        (("bench", "doctor", "--report", "absent/page.html"), 2, "a folder that can be written"),
        (("a.json", "b.json"), 2, "a.json is no host, such as jetson.local"),
        (("bench", "a.json"), 2, "a.json is no host, such as jetson.local"),
        (("localhost", "--binary", "x"), 2, "--binary is for adb:SERIAL alone, got ['localhost']"),
        (("adb:X", "--fps", "30"), 2, "adb: does not go with --fps: a phone runs a benchmark tool"),
        (("localhost", "--device", "no.toml"), 2, "no.toml: No such file or directory; expected"),
        (("doctor", "localhost", "--device", "orin"), 2, "no device 'orin'; choose one of"),
        (("doctor", "street.fastseg"), 2, "street.fastseg is no host, such as jetson.local"),
        (("localhost", "--no-such-option"), 2, "No such option"),
    ],
)
@pytest.mark.slow
def test_a_mistake_is_one_clear_line_and_an_exit_code(call, board, arguments, code, said):
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("remote_bench: ")]
    assert len(errors) == 1 and said in errors[0]
    assert "Traceback" not in done.stderr
    assert left(board) == []


@pytest.mark.slow
def test_a_run_too_long_for_its_result_to_be_fetched_is_not_begun(call, board):
    done = call("localhost", "--seconds", 36000)
    assert done.returncode == 2 and "3600" in done.stderr
    assert left(board) == []


@pytest.mark.slow
def test_json_is_one_document_on_stdout_and_the_rest_is_on_stderr(call, board, bundle):
    done = call("localhost", bundle, *SHORT, "--json", "--report", "page.html")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] in ("valid", "valid_with_notes")
    assert report["fps"] > 0 and report["host"] == "localhost"
    assert {"p50", "p99"} <= set(report["latency_ms"])
    assert "localhost: run" in done.stderr
    assert "<!doctype html>" in (bundle.parent / "page.html").read_text()
    assert left(board) == []


@pytest.mark.slow
def test_a_missed_requirement_is_named_and_exits_with_3(call, bundle):
    done = call("localhost", bundle, *SHORT, "--require", "fps>=1,p50<=0.0001us")
    assert done.returncode == 3
    assert "requirement missed: p50<=0.0001us" in done.stderr


def test_compare_on_a_host_measures_both_bundles_in_turns_and_says_what_came(
    monkeypatch, capsys, bundle, report_of, made_result
):
    asked, failed = [], [""]

    def in_turns(measurement, bundles, rounds):
        asked.append((measurement.host.name, bundles, rounds, measurement.benchmark.seconds))
        return *([report_of(made_result(seconds=2))] * rounds for _ in bundles), failed[-1]

    monkeypatch.setattr("remote_bench.cli.compare.measure_in_turns", in_turns)
    options = {"on": "localhost", "repeats": 5, "seconds": 20.0, "as_json": True}
    assert Compare(str(bundle), str(bundle), **options).carry_out() == 0
    assert asked == [("localhost", (bundle, bundle), 5, 4.0)]
    found = json.loads(capsys.readouterr().out)
    assert (
        found["answer"] == "no_difference" and found["basis"] == "between 5 pairs of runs in turns"
    )
    failed.append("a run failed, and compared are the 5 a side before it: no memory")
    assert Compare(str(bundle), str(bundle), **options).carry_out() == UNTRUSTED
    assert json.loads(capsys.readouterr().out)["reasons"] == failed[1:]
    assert (
        Compare(str(bundle), str(bundle), **options | {"as_json": False}).carry_out() == UNTRUSTED
    )
    assert f"\n  {failed[1]}\n" in capsys.readouterr().out


def sweep_that_fails(monkeypatch, report_of, made_result, after, error):
    done = [
        replace(
            report_of(made_result()), bundle=BundleFacts(variant="nano", macs=n, width=64, height=n)
        )
        for n in range(after)
    ]

    def measured(measurement):
        if not done:
            raise error
        return done.pop(0)

    monkeypatch.setattr("remote_bench.cli.bench.measure", measured)
    return Bench(names=["localhost"], sweep="nano", sizes="64x32,128x64,256x64", as_json=True)


@pytest.mark.parametrize("error", [BoardBusy("held"), DeviceFailure("oom"), Unreachable("gone")])
def test_a_sweep_that_fails_keeps_what_it_measured_and_exits_with_the_failures_code(
    monkeypatch, capsys, report_of, made_result, error
):
    sweep = sweep_that_fails(monkeypatch, report_of, made_result, 2, error)
    assert sweep.carry_out() == error.exit_code
    seen = capsys.readouterr()
    assert [row["network"] for row in json.loads(seen.out)["sweeps"]["localhost"]["networks"]] == [
        "nano-64x0", "nano-64x1"
    ]  # fmt: skip
    assert str(error) in seen.err


def test_a_sweep_that_is_called_off_has_no_rows(monkeypatch, capsys, report_of, made_result):
    stop = Interrupted("stopped")
    stop.exit_code = 130
    sweep = sweep_that_fails(monkeypatch, report_of, made_result, 2, stop)
    assert sweep.carry_out() == 130
    assert json.loads(capsys.readouterr().out)["sweeps"] == {}


@pytest.mark.slow
def test_the_newest_bundle_here_is_taken_and_said(call, bundle):
    done = call("localhost", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    assert "bundle: street.fastseg, the newest in this folder" in done.stderr


@pytest.mark.slow
def test_two_boards_side_by_side_give_one_report_with_both(
    call, sshd, ssh_client, environment, bundle, board
):
    ssh_client.add("orin", sshd)
    environment["PATH"] = os.environ["PATH"]
    done = call("localhost", "orin", "gone.invalid", bundle, *SHORT, "--json")
    assert done.returncode == 4
    reports = json.loads(done.stdout)["reports"]
    assert [report["host"] for report in reports] == ["localhost", "orin", "gone.invalid"]
    assert reports[0]["fps"] > 0 and reports[1]["fps"] > 0
    assert reports[2]["error"]["kind"] == "Unreachable"
    assert left(board) == [] and sshd.left() == []


@pytest.mark.slow
def test_an_unknown_host_key_exits_with_5_and_the_command_that_accepts_it_works(
    call, sshd, ssh_client, environment, bundle
):
    ssh_client.add("orin", sshd)
    environment["PATH"] = os.environ["PATH"]
    sshd.known_hosts.write_text("")
    done = call("orin", bundle)
    assert done.returncode == 5
    options = done.stderr.split("remote_bench orin ")[1].split()
    done = call("orin", bundle, *SHORT, *options)
    assert done.returncode == 0, done.stderr
    assert call("orin", bundle, *SHORT).returncode == 0


@pytest.mark.slow
def test_a_detached_run_outlives_the_client_and_is_fetched_later(call, board, bundle):
    begun = call("localhost", bundle, *SHORT, "--detach", "--json")
    assert begun.returncode == 0, begun.stderr
    run = json.loads(begun.stdout)["runs"]["localhost"]
    assert left(board)
    done = call("--resume", run, "--json", "--require", "fps>=1")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["run_id"] == run and report["fps"] > 0
    assert left(board) == []
    assert call("--resume", run).returncode == 2


@pytest.mark.slow
def test_a_detached_run_holds_the_board_until_it_ends(call, board, bundle):
    begun = call(
        "localhost", bundle, "--seconds", 6, "--idle", 0.3, "--allow-busy", "--detach", "--json"
    )
    run = json.loads(begun.stdout)["runs"]["localhost"]
    busy = call("localhost", bundle, *SHORT)
    assert busy.returncode == 8 and "another run holds this board" in busy.stderr
    assert call("--resume", run).returncode == 0
    assert left(board) == []


@pytest.mark.slow
def test_what_is_deployed_is_opened_by_an_app_without_anything_else(call, board, bundle, tmp_path):
    app = tmp_path / "app"
    done = call("localhost", bundle, *SHORT, "--deploy", app, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "deployed; an app started with PYTHONPATH=" in done.stderr
    record = json.loads((app / "deployed.json").read_text())
    assert record["files"] == report["deployed"]["files"]
    assert record["report"]["run_id"] == report["run_id"]
    code = (
        "import numpy, fastseg_runtime; print(fastseg_runtime.__file__); "
        "net = fastseg_runtime.RealtimeSegmentation('bundle.fastseg'); "
        "print(net.infer(numpy.zeros((32, 48, 3), numpy.uint8)).shape)"
    )
    environment = {**os.environ, "FASTSEG_CACHE": str(app / "cache"), "PYTHONPATH": str(app)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=app, env=environment, capture_output=True, text=True
    )
    assert str(app) in found.stdout and "(32, 48)" in found.stdout, found.stderr
    assert left(board) == []


@pytest.mark.slow
def test_a_folder_that_takes_no_deployment_is_refused_before_anything_is_measured(
    call, board, bundle, tmp_path
):
    (tmp_path / "bundle.fastseg").write_bytes(b"theirs")
    done = call("localhost", bundle, *SHORT, "--deploy", tmp_path)
    assert done.returncode == 2 and "of somebody else" in done.stderr
    assert "localhost: build" not in done.stderr
    assert left(board) == []


@pytest.mark.slow
def test_a_record_makes_the_bundle_carry_its_proof(call, bundle):
    done = call("localhost", bundle, *SHORT, "--record", "--json")
    report = json.loads(done.stdout)
    with open_bundle(bundle) as opened:
        opened.verify()
        [artifact] = opened.manifest.artifacts
    [proof] = artifact.benchmarks
    assert proof["fps"] == report["fps"] and proof["run_id"] == report["run_id"]
    assert proof["device"]["name"] == report["device"]["name"]


@pytest.mark.slow
def test_frames_with_labels_give_the_miou_of_the_run(call, bundle, tmp_path):
    for number in range(3):
        image_HW3 = noise(seed=number)
        label_HW = strongest_channel(image_HW3)
        for folder, content in (("images", image_HW3), ("labels", np.stack([label_HW] * 3, 2))):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            file = tmp_path / "set" / folder / f"{number}.png"
            file.write_bytes(encode_rgb(np.ascontiguousarray(content)))
    done = call("localhost", bundle, *SHORT, "--frames", tmp_path / "set", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["miou"] == 1.0
    assert "frames: 3, of which 3 have labels" in done.stderr


@pytest.mark.slow
def test_doctor_gives_its_findings_and_leaves_nothing(call, board):
    done = call("doctor", "localhost", "--json")
    assert done.returncode == 0, done.stderr
    findings = json.loads(done.stdout)
    assert {check["what"] for check in findings["checks"]} >= {"numpy", "power rails"}
    assert left(board) == []


@pytest.mark.slow
def test_board_of_the_user_is_named_or_found_in_their_configuration(call, environment, tmp_path):
    record = tmp_path / "bench.toml"
    record.write_text(
        'like = "generic-x86"\ndescription = "Our bench"\nnot_measured = ["the fan"]\n'
        '[recognise]\nmachine = ["x86_64", "aarch64"]\n'
    )
    named = json.loads(call("doctor", "localhost", "--device", record, "--json").stdout)
    assert (named["device"], named["description"]) == ("bench", "Our bench")
    assert named["not_measured"] == ["the fan"]
    known = json.loads(call("doctor", "localhost", "--device", "orin-nx", "--json").stdout)
    assert known["device"] == "orin-nx"
    environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    mine = tmp_path / "config/fastseg/boards/mine.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text(record.read_text())
    assert json.loads(call("doctor", "localhost", "--json").stdout)["device"] == "mine"
    mine.write_text("like = 1\n")
    done = call("localhost")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "mine.toml" in done.stderr and "mend it" in done.stderr


def test_two_reports_of_one_board_are_compared(call, bundle, tmp_path):
    for name in ("a", "b"):
        done = call("localhost", bundle, *SHORT, "--json")
        (tmp_path / f"{name}.json").write_text(done.stdout)
    done = call("compare", "a.json", "b.json", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == CODES[result["answer"]]
    assert "differences" in result


PHASES = ["upload", "build", "idle_before", "run", "fetch"]
MOMENTS = [random.Random(seed).uniform(0, 5) for seed in range(4)]
ONCE = ([signal.SIGINT], {130})
TWICE = ([signal.SIGINT, signal.SIGINT], {130, -signal.SIGINT})  # the second may hit its very end
KILLED = ([signal.SIGKILL], {-signal.SIGKILL})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "delay_s", "signals", "codes"),
    [
        *((phase, 0, *case) for phase in PHASES for case in (ONCE, TWICE, KILLED)),
        *(("connect", moment_s, *KILLED) for moment_s in MOMENTS),
        ("build", 0, [signal.SIGTERM], {143}),  # handled as SIGINT is
        ("run", 0, [signal.SIGHUP], {129}),
    ],
)
def test_a_signal_at_any_point_leaves_a_clean_board(
    environment, board, bundle, tmp_path, phase, delay_s, signals, codes, record_property
):
    seconds = "1" if phase == "fetch" else "60"
    command = [*COMMAND, "localhost", str(bundle), "--seconds", seconds, "--idle", "0.5",
               "--allow-busy"]  # fmt: skip
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with running(command, env=environment, cwd=tmp_path, **pipes) as client:
        for line in client.stderr:
            if line.strip() == f"localhost: {phase}":
                break
        time.sleep(delay_s)
        begin = time.monotonic()
        for number in signals:
            client.send_signal(number)
            time.sleep(0.05)
        said = client.stderr.read()
        assert client.wait(90) in codes | ({0} if phase == "fetch" else set())
    assert "Traceback" not in said
    end = time.monotonic() + 60
    while time.monotonic() < end and gone_soon(board):
        time.sleep(0.1)
    assert gone_soon(board) == []
    record_property("board is clean", round(time.monotonic() - begin, 2))
    if phase not in ("connect", "upload"):
        assert left(board) == []


def gone_soon(board: Path) -> list[str]:
    """What is left but for the uploads that a retry goes on from."""
    ours = f"remote_bench-{os.geteuid()}"
    return [name for name in left(board) if name != ours and not name.startswith(f"{ours}/store")]


@pytest.mark.slow
def test_a_ctrl_c_while_connecting_exits_with_130(environment, ssh_client, sshd, tmp_path):
    server = socket.create_server(("127.0.0.1", 0))  # accepts, and never says a word
    ssh_client.add("orin", sshd, port=server.getsockname()[1])
    environment["PATH"] = os.environ["PATH"]
    pipe = subprocess.PIPE
    with running([*COMMAND, "orin"], env=environment, cwd=tmp_path, stderr=pipe) as client:
        assert client.stderr.readline() == "orin: connect\n"
        time.sleep(0.5)
        client.send_signal(signal.SIGINT)
        assert client.wait(30) == 130
        assert "Traceback" not in client.stderr.read()
    server.close()
