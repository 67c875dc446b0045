import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.draw import overlay

cv2 = pytest.importorskip("cv2")
from fastseg_runtime.video import FrameSource, VideoError, infer_video  # noqa: E402


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


@pytest.mark.skipif("FASTSEG_CLIPS" not in os.environ, reason="FASTSEG_CLIPS is not set")
def test_a_real_dash_cam_clip_decodes_to_its_end() -> None:
    source = FrameSource(os.path.join(os.environ["FASTSEG_CLIPS"], "vehicle_test_1280x720.mp4"))
    frames = list(source)
    assert len(frames) == 38 and frames[0].shape == (720, 1280, 3)
