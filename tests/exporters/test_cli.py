"""fastseg-export as users and scripts call it: exit codes, one line of error, JSON on stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastseg_exporters.cli import main
from fastseg_targets.target import target_names

from tests.doubles.fastseg_run import running
from tests.doubles.tiny_onnx import tiny_onnx

Cli = Callable[..., tuple[int, str, str]]
DATA = "synthetic:size=96x64,train=4,val=2,test=2"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs fastseg-export in an empty folder; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastseg-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "jetson-fp61"], "did you mean jetson-fp16?"),
        (["--target", "mine.toml"], "No such file"),
        (["--size", "large"], "cannot read the size 'large'; write WxH"),
        (["--output", "logits", "--confidence"], "--confidence stands beside classes"),
        (["--output", "masks"], "--output is 'masks'; choose one of classes, logits"),
        (["--mask-stride", "3"], "--mask-stride is 3; choose one of (1, 2, 4)"),
        (["--require-usage", "any"], "--require-usage is 'any'; expected commercial"),
        (["--require-usage", "commercial", "--compare", "x"], "--compare makes none"),
        (["--deepstream", "ds"], "--deepstream is for TensorRT; add --target jetson-fp16"),
        (["--deepstream", "ds", "--target", "jetson-fp16", "--output", "logits"], "class maps"),
        (["--deepstream", "ds", "--compare", "x"], "--compare makes none"),
        (["--target", "cpu-int8", "--compare", "x"], "--target is for exports"),
        (["--strict", "--compare", "x"], "--strict is for exports, --compare makes none"),
        (["-o", "a", "--compare", "x"], "--out is for exports"),
        (["--mask-stride", "2", "--compare", "x"], "--mask-stride is for exports"),
        (["--deepstream", __file__, "--target", "jetson-int8"], "which is no folder"),
        (["--resume", "--force"], "--force nothing; leave one out"),
        (["--timeout", "0"], "--timeout is 0.0; expected seconds above 0"),
        (["--verify-images", "0"], "--verify-images"),
        (["--calibration-images", "0"], "--calibration-images"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_expected(
    cli: Cli, checkpoint: Path, arguments: list[str], message: str
) -> None:
    code, out, err = cli(checkpoint, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.safetensors"], "none.safetensors"),
        (["CHECKPOINT", "--calibration", "camvid:nowhere", "--target", "cpu-int8"], "nowhere"),
        (["CHECKPOINT", "--verify", "camvid:nowhere"], "nowhere"),
        (
            ["CHECKPOINT", "--verify", "synthetic-organ"],
            "verify on data with the network's",
        ),
        (["CHECKPOINT", "--verify", "movies:here"], "no data set kind 'movies'"),
        (["CHECKPOINT", "--size", "4x4"], "4x4"),
        (["CHECKPOINT", "--classes", "none.txt"], "none.txt"),
        (["my_nets:UNet"], "--classes FILE"),
        (["--compare", "none.fastseg"], "none.fastseg"),
        (["CHECKPOINT", "-o", "/dev/null/a.fastseg"], "/dev/null/a.fastseg"),
    ],
)
def test_what_cannot_be_had_is_exit_code_1_and_one_line(
    cli: Cli, checkpoint: Path, arguments: list[str], message: str
) -> None:
    words = [str(checkpoint) if word == "CHECKPOINT" else word for word in arguments]
    code, out, err = cli(*words)
    assert (code, out) == (1, "")
    last = err.rpartition("fastseg-export: ")[2]
    assert message in last.replace("\n", "")
    assert "Traceback" not in err


def test_what_a_network_prints_stays_out_of_the_results(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("chatty.py").write_text(
        "import torch\nprint('imported')\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        print(x.shape)\n        return x.mean()\n"
    )
    Path("classes.txt").write_text("road\nsky\n")
    code, out, err = cli("chatty:Net", "--classes", "classes.txt", "--json")
    assert (code, out) == (1, "")
    assert "imported\n" in err and "torch.Size([1, 3," in err


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_converted(
    cli: Cli, checkpoint: Path
) -> None:
    Path("a-file").touch()
    code, _, err = cli(checkpoint, "-o", "a-file/a.fastseg")
    assert code == 1
    assert "converting" not in err
    assert "cannot write a-file/a.fastseg: Not a directory" in " ".join(err.split())


def test_a_file_that_is_no_bundle_is_refused_and_left_alone(cli: Cli, checkpoint: Path) -> None:
    Path("mine.fastseg").write_bytes(b"my only copy of something")
    code, _, err = cli(checkpoint, "-o", "mine.fastseg")
    assert code == 1
    assert "mine.fastseg" in err
    assert Path("mine.fastseg").read_bytes() == b"my only copy of something"


def test_the_list_of_targets_says_what_each_needs_and_what_proves_it(cli: Cli) -> None:
    code, out, _ = cli("--list-targets", "--json")
    rows = {row["target"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == set(target_names())
    assert rows["jetson-fp16"]["needs"] == "pip install 'fastseg-edge[onnx]'"
    assert rows["jetson-fp16"]["verified_by"] == "ONNX Runtime; TensorRT on the device"
    assert {row["here"] for row in rows.values()} <= {"yes", "no"}


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, "fastseg-export 0.1.0\n")


@pytest.mark.slow
def test_the_least_said_makes_a_bundle_of_the_newest_run_here(cli: Cli, checkpoint: Path) -> None:
    run = Path("runs/street")
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(checkpoint.read_bytes())
    code, out, err = cli("--verify-images", 2, "--json")
    document = json.loads(out)
    assert code == 0
    assert "taking" in err and "the newest run here" in err
    assert document["bundle"] == "street.fastseg"
    (artifact,) = document["artifacts"]
    wanted = {"target", "precision", "bytes", "miou", "miou_drop", "worst_class_drop"}
    assert wanted | {"agreement", "latency_ms"} <= set(artifact)
    assert artifact["target"] == "cpu-fp32"


@pytest.mark.slow
@pytest.mark.usefixtures("converted_here")
def test_deepstream_gets_a_configuration_of_each_target_for_tensorrt(
    cli: Cli, checkpoint: Path
) -> None:
    words = ("-o", "a.fastseg", "--target", "jetson-fp16", "--target", "cpu-fp32", "--verify", DATA)
    code, out, err = cli(checkpoint, *words, "--deepstream", "ds", "--json")
    assert code == 0, err
    (made,) = json.loads(out)["deepstream"]
    assert made["target"] == "jetson-fp16" and made["agreement"] > 0.99
    assert Path(made["config"]).parent == Path("ds")
    code, out, _ = cli(checkpoint, *words, "--deepstream", "other", "--resume")
    assert code == 0 and "other/config_infer_jetson-fp16.txt" in out
    names = {file.name for file in Path("other").iterdir()}
    assert names == {file.name for file in Path("ds").iterdir()} and "README.md" in names


@pytest.mark.slow
@pytest.mark.usefixtures("outside_packages")
def test_one_target_that_fails_is_exit_code_1_and_the_others_are_there(
    cli: Cli, checkpoint: Path
) -> None:
    Path("hopeless.toml").write_text('description = "d"\nexporter = "crash"\nladder = ["fp32"]\n')
    words = ("-o", "a.fastseg", "--verify", DATA, "--target", "hopeless.toml")
    code, out, _ = cli(checkpoint, *words, "--target", "cpu-fp32", "--json")
    document = json.loads(out)
    assert (code, document["kept"]) == (1, [])
    assert "was killed by SIGSEGV" in document["failed"]["hopeless"]
    assert [artifact["target"] for artifact in document["artifacts"]] == ["cpu-fp32"]

    Path("hopeless.toml").rename("cpu-fp32.toml")
    words = (*words[:-1], "cpu-fp32.toml")
    assert json.loads(cli(checkpoint, *words, "--json")[1])["kept"] == ["cpu-fp32"]
    assert "cpu-fp32 failed (the bundle keeps its artifact of before): " in " ".join(
        cli(checkpoint, *words)[2].split()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("outside_packages")
def test_a_stopped_export_leaves_no_file_and_no_process(
    checkpoint: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "slow.toml").write_text(
        'description = "d"\nexporter = "hang"\nladder = ["fp32"]\nextra = "onnx"\n'
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "fastseg_exporters.cli", checkpoint, "--target", "slow.toml"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with running(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as export:
        child = wait_for(lambda: next(temporary.rglob("child.pid"), None), export)
        pid = int(wait_for(child.read_text, export))
        export.send_signal(number)
        assert export.wait(timeout=60) == code
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or None)
    assert list(tmp_path.glob("*.fastseg*")) == []
    assert list(temporary.iterdir()) == []


def wait_for(look: Callable[[], Any], child: "subprocess.Popen[str] | None" = None) -> Any:
    """Return what `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := look():
            return found
        assert child is None or child.poll() is None, "it ended by itself"
        time.sleep(0.05)
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    ("network", "usage"), [("small-camvid", "research use only"), (None, "research use only")]
)
def test_weights_not_for_the_required_use_are_refused_in_one_line_before_any_work(
    cli: Cli, tmp_path: Path, network: str | None, usage: str
) -> None:
    words = [network] if network else []
    code, out, err = cli(*words, "--target", "all", "--require-usage", "commercial")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    named = network or "lite-camvid"
    assert last.startswith(f"fastseg-export: {named}: {usage}, --require-usage commercial")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiny_onnx(), "gives class ids, of how many classes they do not say: --classes FILE"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_network_or_no_whole_one_is_named_in_one_line(
    cli: Cli, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    code, out, err = cli("model.onnx")
    assert (code, out) == (1, "")
    assert err.startswith(f"fastseg-export: model.onnx {said}") and err.count("\n") == 1
    assert "weights_only" not in err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89PNG\r\n\x1a\n\xff", "mine.toml is a PNG picture"), (b"= 1", "mine.toml: Invalid")],
)
def test_a_target_file_of_another_kind_is_named(
    cli: Cli, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    code, _, err = cli("nano-synthetic", "--target", "mine.toml")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("exporter", '"tensorr"', "no exporter 'tensorr'"),
        ("devices", '["orin-nanoo"]', "orin-nanoo"),
        ("ladder", '["int8", "fp16"]', "mine: onnx makes ('fp32', 'int8', 'int8-weights'), not"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--deepstream", "app"]])
def test_a_target_file_that_names_what_is_not_known_is_refused_before_any_work(
    cli: Cli, tmp_path: Path, key: str, value: str, message: str, more: list[str]
) -> None:
    table = {"description": '"d"', "exporter": '"onnx"', "ladder": '["fp32"]', "extra": '"onnx"'}
    lines = [f"{name} = {text}" for name, text in (table | {key: value}).items()]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    code, _, err = cli("nano-synthetic", "--target", "mine.toml", *more)
    assert code == 2
    assert message in err and "Traceback" not in err


def test_two_targets_of_one_name_are_refused_before_any_work(cli: Cli, tmp_path: Path) -> None:
    text = 'description = "d"\nexporter = "onnx"\nladder = ["fp32"]\n'
    for name in ("one/board.toml", "two/board.toml", "cpu-fp32.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for first, second in (("one/board.toml", "two/board.toml"), ("cpu-*", "cpu-fp32.toml")):
        code, _, err = cli("nano-synthetic", "--target", first, "--target", second)
        assert code == 2
        assert f"2 targets are called {Path(second).stem}; give a file another name" in err
