import logging
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.frames import video
from fastseg_runtime.frames.sources import SourceName, numbered_pictures, parse_source
from fastseg_runtime.frames.video import FrameSource, VideoError, VideoWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.http_camera import http_camera


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camera:0", SourceName("camera", "camera:0")),
        ("camera:1:1280x720@30", SourceName("camera", "camera:1", (1280, 720), 30.0)),
        ("camera:1@7.5", SourceName("camera", "camera:1", None, 7.5)),
        ("/dev/video2:640x480", SourceName("camera", "/dev/video2", (640, 480))),
        ("RTSP://host/live", SourceName("network", "RTSP://host/live")),
        ("https://host:8080/v?a=1", SourceName("network", "https://host:8080/v?a=1")),
        ("v4l2src ! appsink", SourceName("pipeline", "v4l2src ! appsink")),
        ("frames/%06d.png@10", SourceName("sequence", "frames/%06d.png", None, 10.0)),
        ("frames/%d.jpg", SourceName("sequence", "frames/%d.jpg")),
        ("-", SourceName("stdin", "-")),
        ("drive.mp4", SourceName("file", "drive.mp4")),
        ("/dev/videos/a.mp4", SourceName("file", "/dev/videos/a.mp4")),
        ("100%.mp4", SourceName("file", "100%.mp4")),
        ("camera:0:0640x480@00.5", SourceName("camera", "camera:0", (640, 480), 0.5)),
        ("camera:0:10x10@100", SourceName("camera", "camera:0", (10, 10), 100.0)),
    ],
)
def test_a_name_says_what_it_is(name: str, expected: SourceName) -> None:
    assert parse_source(name) == expected


@pytest.mark.parametrize("name", ["Wow ! nice.jpg", "camera:0.jpg", "a ! b.mp4", "100%d.mp4"])
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("none")])
def test_what_is_there_is_a_file_whatever_its_name_looks_like(
    name: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    for path in (name, str(tmp_path / name)):
        assert parse_source(path) == SourceName("file", path)


def test_a_cameras_name_stays_one_beside_a_file_or_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("camera:0").mkdir()
    Path("-").touch()
    assert parse_source("camera:0").kind == "camera"
    assert parse_source("-").kind == "stdin"
    assert parse_source("./-").kind == "file"


@settings(max_examples=30)
@given(name=st.text(max_size=40))
def test_every_name_means_something_and_makes_the_name_of_a_file(name: str) -> None:
    stem = parse_source(name).stem
    assert stem and not set('/\\:*?"<>|\0') & set(stem) and len(stem) <= 80


def test_a_password_is_shown_nowhere() -> None:
    name = parse_source("rtsp://admin:hunter2@10.0.0.7:554/live")
    assert name.shown == "rtsp://10.0.0.7:554/live"
    assert name.stem == "rtsp-10.0.0.7-554-live"
    for secret in ("rtsp://token@host/live", "rtspsrc location=rtsp://a:b@c@host/live ! appsink"):
        assert not {"token", "a:b", "c@"} & set(re.split("[/ ]", parse_source(secret).shown))
        assert "@" not in parse_source(secret).shown
    for place, shown in (
        (
            "rtsp://h:1/user=a&password=hunter2&channel=1",
            "rtsp://h:1/user=a&password=...&channel=1",
        ),
        ("http://h/v.mjpg?usr=a&PWD=hunter2", "http://h/v.mjpg?usr=a&PWD=..."),
        ("https://h/v?api_key=hunter2", "https://h/v?api_key=..."),
        ("http://h/v?user=a&pw=hunter2", "http://h/v?user=a&pw=..."),
        ("rtsp://h/v?loginpas=hunter2&psw=hunter2", "rtsp://h/v?loginpas=...&psw=..."),
        (
            "rtspsrc location=rtsp://h/x user-id=a user-pw=hunter2 ! appsink",
            "rtspsrc location=rtsp://h/x user-id=a user-pw=... ! appsink",
        ),
        ("rtsp://admin:hunt/er2@h/a", "rtsp://h/a"),
        ("http://h:80/a@2x/b", "http://h:80/a@2x/b"),
    ):
        assert parse_source(place).shown == shown
        assert "hunter2" not in parse_source(place).stem
    with pytest.raises(VideoError) as raised:
        FrameSource("http://admin:hunter2@127.0.0.1:9/live")
    assert "hunter2" not in str(raised.value) and "no video comes from there" in str(raised.value)


def test_pictures_are_taken_by_number(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        cv2.imwrite(str(tmp_path / f"a{number}.png"), np.full((8, 9, 3), number, np.uint8))
    (tmp_path / "a3.jpg").touch()
    found = numbered_pictures(str(tmp_path / "a%d.png"))
    assert [file.stem for file in found] == ["a1", "a2", "a9", "a10"]
    source = FrameSource(f"{tmp_path}/a%d.png@4", "bgr")
    assert [int(frame[0, 0, 0]) for frame in source] == [1, 2, 9, 10]
    assert (source.count, source.fps, source.time_s()) == (4, 4.0, 0.75)


def test_a_number_in_the_folders_name_is_none_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "cam1").mkdir()
    cv2.imwrite(str(tmp_path / "cam1/frame.png"), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(VideoError, match="no such pictures; write the number of each file"):
        FrameSource(f"{tmp_path}/cam%d/frame.png")


def test_the_same_names_go_into_streams_and_videos(tmp_path: Path, bundle_path: Path) -> None:
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number:04d}.png"), np.full((48, 64, 3), 80, np.uint8))
    name = f"{tmp_path}/%04d.png@10"
    with RealtimeSegmentation(bundle_path) as session:
        times_s = [result.time_s for result in session.stream(name)]
        assert [result.time_s for result in session.stream(Path(name))] == times_s
        session.infer_video(name, tmp_path / "out.mp4")
    assert times_s == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert len(list(FrameSource(str(tmp_path / "out.mp4")))) == 5


def test_a_network_camera_that_hangs_up_is_connected_to_again(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "_RETRY_S", 0.05)
    caplog.set_level(logging.WARNING)
    with http_camera(12) as camera, RealtimeSegmentation(bundle_path) as session:
        results = session.stream(camera.url, latest=False)
        times_s = [result.time_s for result in islice(results, 20)]
        assert camera.connections >= 2
        results.close()  # type: ignore[attr-defined]
    assert times_s == sorted(times_s)
    assert "gives no frames; connecting again" in caplog.text and "is back" in caplog.text


@pytest.mark.slow
def test_a_network_camera_that_goes_silent_is_noticed(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "_RETRY_S", 0.05)
    monkeypatch.setattr(video, "_STALL_S", 1.0)
    with http_camera(12, silent_s=8.0) as camera, RealtimeSegmentation(bundle_path) as session:
        results = session.stream(camera.url, latest=False)
        assert len(list(islice(results, 16))) == 16
        results.close()  # type: ignore[attr-defined]
    assert "connecting again" in caplog.text


def test_a_recording_of_a_network_camera_ends_at_a_stop(bundle_path: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    with http_camera(1000) as camera, RealtimeSegmentation(bundle_path) as session:

        def count(done: int, total: int) -> None:
            if done == 9:
                stop.set()

        session.infer_video(camera.url, tmp_path / "out.mp4", count, stop=stop)
    assert len(list(FrameSource(str(tmp_path / "out.mp4")))) == 9


class WishingCamera:
    """cv2.VideoCapture of a camera that has one rate alone."""

    asked: ClassVar[dict[int, float]] = {}

    def __init__(self, *place: Any) -> None:
        self.asked.clear()

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> None:
        self.asked[prop] = value

    def get(self, prop: int) -> float:
        return 15.0 if prop == cv2.CAP_PROP_FPS else self.asked.get(prop, 0.0)


def test_a_camera_is_asked_for_its_size_and_says_what_it_gives_instead(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", WishingCamera)
    for name in ("camera:0:1280x720@30", "/dev/video0:1280x720@30"):
        source = FrameSource(name)
        assert WishingCamera.asked[cv2.CAP_PROP_FRAME_WIDTH] == 1280
        assert WishingCamera.asked[cv2.CAP_PROP_FRAME_HEIGHT] == 720
        assert source.is_live and source.fps == 15
    assert "camera:0 gives 15, not 30" in caplog.text


def test_a_pipeline_says_where_gstreamer_is_missing() -> None:
    has_it = re.search("GStreamer: +YES", cv2.getBuildInformation())
    expected = "GStreamer cannot run it" if has_it else "this OpenCV has no GStreamer"
    with pytest.raises(VideoError, match=expected):
        FrameSource("videotestsrc num-buffers=3 ! nothing-like-this ! appsink")


def test_a_url_of_a_whole_file_is_read_to_its_end(tmp_path: Path) -> None:
    writer = VideoWriter(str(tmp_path / "drive.mp4"), 10)
    for value in range(6):
        writer.write(np.full((48, 64, 3), 30 * value, np.uint8))
    writer.finish()
    files = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            source = FrameSource(f"http://127.0.0.1:{server.server_address[1]}/drive.mp4")
            assert (source.is_live, source.count, len(list(source))) == (False, 6, 6)
        finally:
            server.shutdown()
