import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fastseg_runtime.frames.draw import overlay

cv2 = pytest.importorskip("cv2")
from fastseg_runtime.frames.video import FrameSource, VideoError, VideoWriter, infer_video  # noqa: E402


class BrightnessSession:
    """Class 1 where a pixel is bright."""

    color, engines = "rgb", 1

    def infer(self, frame: Any) -> Any:
        return (frame.mean(axis=2) > 128).astype(np.uint8)

    def overlay(self, frame: Any, classes: Any) -> Any:
        return overlay(frame, classes, np.array([[0, 0, 0], [255, 0, 0]], np.uint8), 1.0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(12):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, 32:] = 255
        writer.write(frame)
    writer.release()
    return path


def test_a_video_comes_out_with_as_many_frames_and_the_classes_drawn(
    clip: Path, tmp_path: Path
) -> None:
    seen = []
    fps = infer_video(
        BrightnessSession(), clip, tmp_path / "out.mp4", lambda done, total: seen.append(total)
    )
    assert fps > 0
    frames = list(FrameSource(str(tmp_path / "out.mp4")))
    assert len(frames) == 12 and seen == [12] * 12
    left, right = frames[0][24, 10], frames[0][24, 54]
    assert left.max() < 60 and right[0] > 200 and right[2] < 60  # red, in RGB


def test_a_truncated_video_gives_the_frames_it_has_or_a_clear_error(
    clip: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[:-600])
    with pytest.raises(VideoError, match="short.mp4"):
        infer_video(BrightnessSession(), short, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [("absent.mp4", "no such file"), ("camera:x", "a camera's number"), ("camera:99", "no such")],
)
def test_a_source_that_cannot_be_opened_says_why(source: str, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        FrameSource(source)


def test_an_error_in_the_middle_leaves_no_half_written_video(clip: Path, tmp_path: Path) -> None:
    class Failing(BrightnessSession):
        def infer(self, frame: Any) -> Any:
            raise RuntimeError("engine lost")

    with pytest.raises(RuntimeError, match="engine lost"):
        infer_video(Failing(), clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_second_ctrl_c_while_cleaning_up_leaves_no_half_written_video_either(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FrameSource, "close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        infer_video(BrightnessSession(), clip, tmp_path / "out.mp4", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


class Camera:
    """cv2.VideoCapture of a camera that gives some frames and is then unplugged."""

    frames: ClassVar[list[Any]] = []
    released = False

    def __init__(self, number: int) -> None:
        self._left = list(self.frames)

    def isOpened(self) -> bool:
        return True

    def get(self, property: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Any]:
        time.sleep(0.01)  # a frame at a time, so that none is dropped
        return (True, self._left.pop(0)) if self._left else (False, None)

    def release(self) -> None:
        type(self).released = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Camera]:
    class Plugged(Camera):
        frames: ClassVar[list[Any]] = [np.full((48, 64, 3), 200, np.uint8)] * 8

    monkeypatch.setattr(cv2, "VideoCapture", Plugged)
    return Plugged


def test_a_camera_that_disappears_is_told_and_what_it_gave_is_kept(
    camera: type[Camera], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "camera.mp4"
    with pytest.raises(VideoError, match=r"camera:0: .* no more frames; .* in .*camera.mp4"):
        infer_video(BrightnessSession(), "camera:0", target)
    assert camera.released
    monkeypatch.undo()
    assert len(list(FrameSource(str(target)))) >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["camera.mp4"]


def test_a_camera_that_gives_nothing_leaves_no_file(camera: type[Camera], tmp_path: Path) -> None:
    camera.frames = []
    with pytest.raises(VideoError, match=r"camera:0: the camera gives no more frames$"):
        infer_video(BrightnessSession(), "camera:0", tmp_path / "camera.mp4")
    assert not list(tmp_path.iterdir())


def test_pictures_that_change_their_size_are_all_written(tmp_path: Path) -> None:
    writer = VideoWriter(str(tmp_path / "out.mp4"), 10)
    for size in ((48, 64), (96, 128), (48, 64), (30, 30)):
        writer.write(np.full((*size, 3), 200, np.uint8))
    writer.finish()
    frames = list(FrameSource(str(tmp_path / "out.mp4")))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert min(frame.min() for frame in frames) > 150


@pytest.mark.skipif("FASTSEG_CLIPS" not in os.environ, reason="FASTSEG_CLIPS is not set")
def test_a_real_dash_cam_clip_decodes_to_its_end() -> None:
    source = FrameSource(os.path.join(os.environ["FASTSEG_CLIPS"], "vehicle_test_1280x720.mp4"))
    frames = list(source)
    assert len(frames) == 38 and frames[0].shape == (720, 1280, 3)
