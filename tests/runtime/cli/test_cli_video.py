"""fastseg-run on videos, and on pictures beside them: which files come of what."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.frames.video import FrameSource, VideoWriter
from fastseg_runtime.frames.view import View
from PIL import Image

from tests.doubles.fastseg_run import run, running
from tests.doubles.http_camera import http_camera
from tests.doubles.tiny_bundle import noise

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of six frames, 64x48, in one colour."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(6):
        writer.write(np.full((48, 64, 3), (0, 200, 0), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["seg.avi", "seg.mkv", "seg.MOV"])
def test_a_video_is_written_in_the_format_that_its_name_asks_for(
    name: str, clip: Path, bundle_path: Path
) -> None:
    assert run(bundle_path, clip, "-o", name) == 0
    video = cv2.VideoCapture(name)
    assert sum(video.read()[0] for _ in range(9)) == 6
    video.release()
    left = {path.name for path in Path(".").iterdir()} - {"cache"}  # of self-tests that passed
    assert left == {"clip.mp4", name, "tiny.fastseg"}


def test_results_of_equal_names_keep_their_whole_names(bundle_path: Path) -> None:
    Path("in").mkdir()
    for name in ("a.png", "a.ppm"):
        cv2.imwrite(f"in/{name}", noise())
    assert run(bundle_path, "in", "-o", "out") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "a.png.overlay.png",
        "a.ppm.overlay.png",
    ]


@pytest.mark.parametrize(("save", "width"), [("overlay", 64), ("mask", 64), ("both", 128)])
def test_a_video_gives_a_video_with_shares_over_all_frames(
    save: str, width: int, clip: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle_path, clip, "-o", "seg.mp4", "--save", save, "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["inputs"]
    assert result["output"] == "seg.mp4"
    assert (result["width"], result["height"], result["frames"]) == (64, 48, 6)
    assert result["class_shares"] == {"green": 1.0}
    video = cv2.VideoCapture("seg.mp4")
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == width
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    video.release()


def test_a_file_that_is_no_video_is_named(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.mp4").write_bytes(b"not a video")
    assert run(bundle_path, "broken.mp4", "-o", "out") == 1
    assert "broken.mp4" in capsys.readouterr().err
    assert not Path("out").exists()


def test_inputs_that_cannot_be_read_leave_no_folder_behind(bundle_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"not a picture")
    assert run(bundle_path, "a.png", "b.png", "-o", "deep/out") == 1
    assert not Path("deep").exists()


def test_folders_are_made_for_what_is_written(clip: Path, bundle_path: Path) -> None:
    cv2.imwrite("a.png", noise())
    assert run(bundle_path, "a.png", clip, "-o", "deep/out") == 0
    assert sorted(path.name for path in Path("deep/out").iterdir()) == [
        "a.overlay.png",
        "clip.overlay.mp4",
    ]
    assert run(bundle_path, clip, "-o", "other/place/seg.avi") == 0
    assert Path("other/place/seg.avi").is_file()


def test_outputs_that_are_there_are_replaced_on_request_alone(
    clip: Path, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("a.png", noise())
    for arguments in (("a.png", "--save", "both"), (clip,), ("--extract", "cpu-fp32")):
        assert run(bundle_path, *arguments, "-o", "out") == 0
        kept = {path: path.read_bytes() for path in Path("out").iterdir()}
        assert run(bundle_path, *arguments, "-o", "out", "--save", "both") == 2
        assert "is there already; add --overwrite" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in Path("out").iterdir()} == kept
        assert run(bundle_path, *arguments, "-o", "out", "--overwrite") == 0


def test_a_picture_that_cannot_be_written_is_named_itself(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("a.png", noise())
    assert run(bundle_path, "a.png", "-o", "/proc/a.png") == 1
    error = capsys.readouterr().err
    assert "'/proc/a.png'" in error and ".part" not in error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"])
def test_a_signal_leaves_a_recording_that_plays(name: str, bundle_path: Path) -> None:
    number, frame = getattr(signal, name), noise()
    writer = VideoWriter("long.mp4", 30)
    for _ in range(3000):
        writer.write(frame)
    writer.finish()
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", bundle_path, "long.mp4"]
    coco = ["--format", "coco", "--save", "overlay", "-o", "out.mp4"]
    with running([*command, *coco], stderr=subprocess.PIPE) as process:
        while not (Path("out.mp4").exists() and Path("out.mp4").stat().st_size > 50_000):
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    frames = len(list(FrameSource("out.mp4")))
    assert 10 < frames < 3000
    if name != "SIGKILL":
        assert process.returncode == 128 + number
        assert f"stopped after {frames} frames, in out.mp4" in said
        (annotations,) = Path().rglob("annotations.json")
        assert len(json.loads(annotations.read_text())["images"]) == frames


@pytest.mark.slow
def test_a_real_drive_runs_from_beginning_to_end(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = os.environ.get("FASTSEG_CLIPS")
    if not clips:
        pytest.skip("FASTSEG_CLIPS is not set: no real video here")
    (source, *_) = sorted(Path(clips).glob("*.mp4"))
    assert run(bundle_path, source, "-o", "out", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["inputs"]
    assert result["frames"] > 100


@pytest.mark.slow
def test_a_picture_of_48_megapixels_gives_a_mask_of_its_size(bundle_path: Path) -> None:
    Image.new("RGB", (8000, 6000), (9, 8, 7)).save("large.jpg")
    assert run(bundle_path, "large.jpg", "-o", "out", "--save", "both") == 0
    with Image.open("out/large.mask.png") as mask:
        assert mask.size == (8000, 6000)


@pytest.mark.slow
def test_a_video_comes_from_stdin(bundle_path: Path) -> None:
    writer = VideoWriter("clip.mkv", 10)
    for _ in range(9):
        writer.write(noise())
    writer.finish()
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", bundle_path, "-", "-o", "out"]
    with open("clip.mkv", "rb") as stdin:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-: 48x32, ")
    assert len(list(FrameSource("out/stdin.overlay.mp4"))) == 9


@pytest.mark.slow
def test_a_video_that_may_be_cut_off_on_stdin_is_told_of_and_one_with_gaps_is_not(
    bundle_path: Path,
) -> None:
    writer = VideoWriter("clip.mkv", 10)
    for time_s in (0.0, 0.1, 0.2, 2.9, 3.0, 8.9, 9.0):
        writer.write(noise(), time_s)
    writer.finish()
    content = Path("clip.mkv").read_bytes()
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", bundle_path, "-", "-o", "out.mp4"]
    for bytes_, is_cut in ((content, False), (content[: len(content) * 2 // 3], True)):
        done = subprocess.run(
            [*command, "--overwrite"], input=bytes_, capture_output=True, check=True
        )
        assert (b"was it cut off?" in done.stderr) == is_cut, done.stderr
    assert 1 <= len(list(FrameSource("out.mp4"))) < 7


@pytest.mark.slow
def test_a_run_can_be_seen_while_it_goes_and_ends_in_order(bundle_path: Path) -> None:
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", bundle_path, "-o", "out.mkv"]
    pipe = subprocess.PIPE
    with (
        http_camera(10_000) as camera,
        running([*command, camera.url, "--view"], stdout=pipe, stderr=pipe) as process,
    ):
        assert process.stderr is not None
        url = next(line.split()[-1] for line in process.stderr if "see it at" in line)
        while json.load(urllib.request.urlopen(f"{url}state", timeout=60))["frames"] < 10:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said  # a live source runs until then
    assert "64x48" in out and len(list(FrameSource("out.mkv"))) >= 3  # some are dropped


@pytest.mark.parametrize("output", ["run.v1", "runs", "run.v1/seg.mkv"])
def test_a_click_saves_where_the_video_is(
    output: str, clip: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def show_and_note(view: View, result: Any) -> None:
        folders.append(view.folder)

    monkeypatch.setattr(View, "show", show_and_note)
    assert run(bundle_path, clip, "-o", output, "--view=127.0.0.1") == 0
    clip.unlink()
    assert {file.parent for file in Path(".").rglob("*.m[kp][v4]")} == set(folders)


@pytest.mark.parametrize("kind", ["file", "camera"])
def test_a_signal_ends_a_file_of_the_network_as_one_on_disk(
    kind: str,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    writer = VideoWriter("long.avi", 30)
    for _ in range(200):
        writer.write(noise())
    writer.finish()
    drawn: list[int] = []
    overlay = RealtimeSegmentation.overlay

    def overlay_and_stop(self: RealtimeSegmentation, frame: Any, classes: Any) -> Any:
        drawn.append(len(drawn))
        if drawn[-1] == 20:
            signal.raise_signal(signal.SIGTERM)
        return overlay(self, frame, classes)

    monkeypatch.setattr(RealtimeSegmentation, "overlay", overlay_and_stop)
    files = partial(SimpleHTTPRequestHandler, directory=".")
    with http_camera(300) as camera, ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/long.avi"
        source, code = (url, 143) if kind == "file" else (camera.url, 0)
        assert run(bundle_path, source, "-o", "out.mp4") == code
        server.shutdown()
    assert "out.mp4" in capsys.readouterr().out
    assert 1 <= len(list(FrameSource("out.mp4"))) < 200


def test_a_signal_ends_pictures_after_the_one_under_way_and_is_reported(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(name, noise())
    drawn: list[Any] = []
    overlay = RealtimeSegmentation.overlay

    def overlay_and_stop(self: RealtimeSegmentation, frame: Any, classes: Any) -> Any:
        drawn.append(frame)
        if len(drawn) == 2:
            signal.raise_signal(signal.SIGTERM)
        return overlay(self, frame, classes)

    monkeypatch.setattr(RealtimeSegmentation, "overlay", overlay_and_stop)
    assert run(bundle_path, "a.png", "b.png", "c.png", "-o", "out", "--json") == 143
    document = json.loads(capsys.readouterr().out)
    assert [entry["input"] for entry in document["inputs"]] == ["a.png", "b.png"]
    assert {path.name for path in Path("out").iterdir()} == {"a.overlay.png", "b.overlay.png"}


@pytest.mark.parametrize("option", ["--view", "--steady"])
def test_what_is_for_videos_is_refused_with_pictures_alone(
    option: str, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite("a.png", noise())
    assert run(bundle_path, "a.png", option) == 2
    assert f"{option} is for videos and cameras" in capsys.readouterr().err


def test_a_video_that_was_cut_off_fails(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = VideoWriter("drive.mkv", 10)
    for _ in range(12):
        writer.write(noise())
    writer.finish()
    Path("drive.mkv").write_bytes(Path("drive.mkv").read_bytes()[:9000])
    assert run(bundle_path, "drive.mkv", "-o", "out.mp4") == 1
    error = capsys.readouterr().err
    assert "drive.mkv ends early" in error and "frames until then are in out.mp4" in error
    assert len(list(FrameSource("out.mp4"))) >= 1


def test_numbered_pictures_and_missing_ones(
    bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        cv2.imwrite(f"{number:03d}.png", noise())
    assert run(bundle_path, "%03d.png@5", "-o", "out.mp4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["inputs"][0]["frames"] == 3
    assert run(bundle_path, "other/%03d.png", "-o", "out2.mp4") == 1
    assert "other/%03d.png: no such pictures" in capsys.readouterr().err
