import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import __version__
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.cli.main import main
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend
from fastseg_runtime.engines.opening import NoBackendError
from fastseg_runtime.frames.session import RealtimeSegmentation
from PIL import Image

from tests.doubles.fastseg_run import run, running
from tests.doubles.own_onnx import own_onnx
from tests.doubles.tiny_bundle import (
    BundlePlan,
    argmax_onnx,
    empty_plan,
    full_plan,
    noise,
    strongest_channel,
)

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, with one that cannot be read in their middle."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in (0, 2, 3):
        (folder / f"{index}.png").write_bytes(encode_rgb(noise(40, 50, index)))
    (folder / "1.png").write_bytes(b"not a picture")
    return folder


def test_masks_hold_the_class_ids(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_rgb(noise()))
    assert run(bundle_path, "a.png", "-o", "out", "--save", "mask") == 0
    with Image.open("out/a.mask.png") as mask:
        assert np.array_equal(np.asarray(mask), strongest_channel(noise()))
        assert mask.convert("RGB").getcolors() is not None


@pytest.mark.parametrize(
    ("save", "files"),
    [("overlay", ["a.overlay.png"]), ("both", ["a.mask.png", "a.overlay.png"])],
)
def test_overlays_are_pictures_of_the_frames_size(
    save: str, files: list[str], bundle_path: Path
) -> None:
    Path("a.png").write_bytes(encode_rgb(noise(60, 70)))
    assert run(bundle_path, "a.png", "-o", "out", "--save", save) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == files
    with Image.open("out/a.overlay.png") as overlay:
        assert (overlay.size, overlay.mode) == ((70, 60), "RGB")


def test_an_output_file_may_be_named(bundle_path: Path) -> None:
    Path("a.png").write_bytes(encode_rgb(noise()))
    assert run(bundle_path, "a.png", "-o", "result.png", "--save", "mask") == 0
    assert Path("result.png").is_file()


def test_an_unreadable_picture_does_not_stop_the_others_but_shows_in_the_exit_code(
    bundle_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, photos, "-o", "out", "--save", "mask") == 1
    assert [path.name for path in sorted(Path("out").iterdir())] == [
        "0.mask.png",
        "2.mask.png",
        "3.mask.png",
    ]
    out, err = capsys.readouterr()
    assert "1.png is no picture that can be decoded" in err
    assert "3 of 4 done" in out


class EngineError(Exception):
    """As ONNX Runtime's Fail and cv2.error: of no class that Python knows."""


def test_an_engine_that_fails_once_does_not_stop_the_others(
    bundle_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    infer = RealtimeSegmentation.infer

    def fail_for_the_second(session: Any, image: Any, out: Any = None) -> Any:
        if np.array_equal(image, noise(40, 50, 2)):
            raise EngineError("the kernel\nfailed")
        return infer(session, image, out)

    monkeypatch.setattr(RealtimeSegmentation, "infer", fail_for_the_second)
    assert run(bundle_path, photos, "-o", "out") == 1
    assert f"fastseg-run: {photos}/2.png: the kernel failed\n" in capsys.readouterr().err
    assert [path.name for path in sorted(Path("out").iterdir())] == [
        "0.overlay.png",
        "3.overlay.png",
    ]


@pytest.mark.parametrize("name", ["__init__", "overlay"])
def test_a_bug_of_ours_shows_its_trace_and_what_a_user_can_mend_does_not(
    name: str,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("a.png").write_bytes(encode_rgb(noise()))

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(RealtimeSegmentation, name, fail)
    for bug in (KeyError("x"), TypeError("x")):
        error: Exception = bug
        with pytest.raises(type(bug)):
            main([str(bundle_path), "a.png"])
    error = NoBackendError("no threads left; give fewer", [])
    assert run(bundle_path, "a.png") == 1
    assert "no threads left" in capsys.readouterr().err.splitlines()[-1]


def test_json_is_one_document_with_the_promised_names(
    bundle_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, photos, "-o", "out", "--save", "mask", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    first = document["inputs"][0]
    assert first["input"] == str(photos / "0.png")
    assert first["output"] == "out/0.mask.png"
    assert (first["width"], first["height"]) == (50, 40)
    assert first["fps"] > 0
    assert sum(first["class_shares"].values()) == pytest.approx(1.0)
    assert set(first["class_shares"]) <= {"red", "green", "blue"}
    assert [item["input"] for item in document["failed"]] == [str(photos / "1.png")]


def test_shares_and_speed_are_printed_for_people(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.png").write_bytes(encode_rgb(np.full((32, 48, 3), (0, 9, 0), np.uint8)))
    assert run(bundle_path, "a.png", "-o", "out", "--save", "mask") == 0
    line = capsys.readouterr().out
    assert line.startswith("a.png: 48x32, ")
    assert "FPS, green 100 % -> out/a.mask.png" in line


def test_inspect_shows_what_the_bundle_holds(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "--inspect") == 0
    text = capsys.readouterr().out
    assert "3 classes: red, green, blue" in text
    assert "licence of the data: CC0" in text
    assert "cpu-fp32: fp32" in text


def test_inspect_shows_the_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    proof = {"miou": 0.601, "miou_drop": 0.003, "agreement": 0.9931, "images": 101, "data": "val"}
    plan = empty_plan().with_artifact("cpu-int8", argmax_onnx(), verification=proof)
    assert run(plan.write(Path("v.fastseg")), "--inspect") == 0
    text = capsys.readouterr().out
    assert "mIoU 60.10 %, drop 0.30 %, agreement 99.31 % (101 images of val)" in text


def test_inspect_json_is_the_manifest(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "--inspect", "--json") == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_inspect_takes_what_a_run_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.onnx").write_bytes(own_onnx().SerializeToString())
    assert run("theirs.onnx", "--normalization", "imagenet", "--inspect") == 0
    text = capsys.readouterr().out
    assert text.startswith("theirs: unknown\n") and "theirs.onnx: fp32" in text
    assert run("nano-synthetic", "--inspect") == 0
    assert "nano-synthetic: nano, 0.46 M parameters\n" in capsys.readouterr().out


@pytest.mark.parametrize("action", [["--verify"], ["--extract", "cpu-fp32"]])
def test_what_only_a_bundle_has_is_not_asked_of_a_checkpoint(
    action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("nano-synthetic", *action) == 1
    said = "nano-synthetic.safetensors is not a fastseg bundle; name a .fastseg file"
    assert said in capsys.readouterr().err


def test_verify_checks_hashes_and_runs_the_selftest(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "--verify") == 0
    text = capsys.readouterr().out
    assert "2 files are whole" in text
    assert "cpu-fp32: passes with onnxruntime, agreement 100.00 %" in text


def test_verify_runs_with_the_threads_that_were_asked_for(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, open_ = [], OnnxRuntimeBackend.open

    def note(backend: OnnxRuntimeBackend, source: ModelSource) -> None:
        asked.append(source.threads)
        open_(backend, source)

    monkeypatch.setattr(OnnxRuntimeBackend, "open", note)
    assert run(bundle_path, "--verify", "--threads", "1") == 0
    assert asked == [1]


def test_verify_fails_where_the_class_maps_differ(capsys: pytest.CaptureFixture[str]) -> None:
    image = noise()
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx())
    plan = plan.with_scene(image, (strongest_channel(image) + 1) % 3)
    assert run(plan.write(Path("wrong.fastseg")), "--verify") == 1
    assert "cpu-fp32: FAILS with onnxruntime, agreement 0.00 %" in capsys.readouterr().out


def test_verify_tells_what_cannot_be_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    plan = full_plan().with_artifact(
        "ios-fp16", b"x", "coreml", requires={"backend": "coreml"}, precision="fp16"
    )
    assert run(plan.write(Path("two.fastseg")), "--verify", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["artifacts"]
    assert [row["passed"] for row in rows] == [True, None]


def test_verify_goes_on_after_an_engine_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    wide = argmax_onnx(width=64)  # not the size that the manifest promises
    plan = full_plan().with_artifact("cpu-int8", wide, precision="int8")
    assert run(plan.write(Path("half.fastseg")), "--verify") == 1
    out = capsys.readouterr().out
    assert "cpu-fp32: passes" in out
    assert "cpu-int8: FAILS: expected an ONNX graph" in out


def test_verify_of_a_target_that_is_not_there_lists_those_there_are(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "--verify", "--target", "cpu-fp23") == 1
    assert "has no target 'cpu-fp23'; it has cpu-fp32" in capsys.readouterr().err


def test_verify_of_a_damaged_bundle_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    plan = full_plan()
    member = "artifacts/cpu-fp32/model.onnx"
    members = {**plan.members, member: bytes(reversed(plan.members[member]))}
    path = BundlePlan(plan.manifest, members).write(Path("damaged.fastseg"))
    assert run(path, "--verify") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastseg-run: damaged.fastseg: artifacts/cpu-fp32/model.onnx has SHA")


def test_extract_writes_the_file_for_an_app(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, "--extract", "cpu-fp32", "-o", "assets") == 0
    assert Path("assets/model.onnx").read_bytes() == argmax_onnx()
    assert capsys.readouterr().out.split() == ["assets/model.onnx", "assets/contract.json"]


@pytest.mark.parametrize("out", ["a-file", "a-file/below"])
def test_a_file_in_the_way_of_a_folder_is_named_with_what_to_do(
    out: str, bundle_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a-file").write_text("")
    for words in (["--extract", "cpu-fp32"], [str(photos)]):
        assert run(bundle_path, *words, "-o", out) == 1
        errors = capsys.readouterr().err
        assert "no folder can be there, a file is; move it" in errors and "Errno" not in errors


def test_prepare_opens_and_tests_the_best_artifact(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--prepare", bundle_path) == 0
    assert "ready: cpu-fp32 (fp32) with onnxruntime" in capsys.readouterr().out


def test_doctor_says_what_is_there_and_what_would_run(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--doctor", bundle_path, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    backends = {item["backend"]: item for item in report["backends"]}
    assert backends["onnxruntime"]["usable"]
    assert report["bundle"]["usable"][0]["target"] == "cpu-fp32"
    assert run("--doctor", bundle_path) == 0
    text = capsys.readouterr().out
    assert "runs cpu-fp32 (fp32) with onnxruntime" in text
    assert "coreml" in text


def test_doctor_takes_what_is_said_of_an_onnx_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.onnx").write_bytes(own_onnx().SerializeToString())
    assert run("--doctor", tmp_path / "theirs.onnx", "--normalization", "imagenet") == 0
    assert "with onnxruntime" in capsys.readouterr().out


def test_doctor_fails_for_a_bundle_that_cannot_run_here() -> None:
    plan = empty_plan().with_artifact("ios", b"x", "coreml", requires={"backend": "coreml"})
    assert run("--doctor", plan.write(Path("ios.fastseg"))) == 1


def test_the_cache_is_shown_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--cache") == 0
    assert "cache: 0 engines" in capsys.readouterr().out
    assert run("--cache", "clear", "--json") == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 0


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"fastseg-runtime {__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a picture, folder, video or camera:0 (and a bundle before it, if you have one)"),
        (["b.fastseg"], "name a picture, folder, video or camera:0"),
        (["--inspect"], "--inspect needs a bundle"),
        (["none.png"], "no such file or folder: none.png"),
        (["b.fastseg", "a.png", "--inspect"], "--inspect takes no inputs, got a.png"),
        (["b.fastseg", "--inspect", "--verify"], "not allowed with"),
        (["b.fastseg", "none.png"], "no such file or folder: none.png"),
        (["b.fastseg", "a.png", "--threads", "0"], "expected 1 or more"),
        (["b.fastseg", "--view", "camera:0"], "--view took camera:0 as its address; write --view "),
        (["--view", "b.fastseg", "camera:0"], "--view took b.fastseg as its address"),
        (["b.fastseg", "--view", "rtsp://me:secret@host/a"], "--view took rtsp://host/a as its"),
    ],
)
def test_wrong_usage_is_said_and_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    full_plan().write(Path("b.fastseg"))
    Path("a.png").write_bytes(encode_rgb(noise()))
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "taking" not in err


@pytest.mark.parametrize("name", ["none.fastseg", "photo.jpg"])
def test_a_bundle_that_is_none_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert run(name, "--inspect") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastseg-run: ")
    assert name in line


def test_ctrl_c_stops_with_its_own_code_and_leaves_nothing_half_written(
    bundle_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    content = encode_rgb(noise(600, 800))
    for index in range(300):
        (folder / f"{index:03d}.png").write_bytes(content)
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", str(bundle_path), str(folder)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with running([*command, "-o", "out", "--save", "mask"], **pipes) as process:
        while not list(Path(".").glob("out/*.png")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "fastseg-run: stopped"
    for path in Path("out").iterdir():
        with Image.open(path) as image:
            image.load()


def test_help_teaches_without_waiting_for_numpy() -> None:
    code = (
        "import sys\nfrom fastseg_runtime.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('numpy' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "camera:0" in out.stdout
    assert "Exit codes" in out.stdout
    assert out.stdout.splitlines()[-1] == "False"
