import errno
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.frames.draw import overlay
from PIL import Image

from tests.doubles.tiny_bundle import noise

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
    [
        ("absent.mp4", "no such file"),
        ("camera:x", "a camera's number"),
        ("camera:99", "no such"),
        ("camera:0@0", "camera:0: a size or rate of 0"),
        ("camera:0@0.00", "camera:0: a size or rate of 0"),
        ("camera:0:0x0", "camera:0: a size or rate of 0"),
        ("camera:0:640x0@30", "camera:0: a size or rate of 0"),
        ("/dev/video0@0", "a size or rate of 0"),
        ("%06d.png@0", "%06d.png: a size or rate of 0"),
    ],
)
def test_a_source_that_cannot_be_opened_says_why(source: str, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        FrameSource(source)


def test_a_picture_as_a_video_is_the_upright_and_whole_one_of_infer(tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.JPG", Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(noise(48, 64)).save(path, exif=exif)
    (frame_HW3,) = FrameSource(str(path))
    assert np.array_equal(frame_HW3, read_image(path)) and frame_HW3.shape == (64, 48, 3)
    infer_video(BrightnessSession(), path, tmp_path / "photo.mp4")
    assert len(list(FrameSource(str(tmp_path / "photo.mp4")))) == 1
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ends in the middle of the picture"):
        list(FrameSource(str(path)))


def test_an_animated_png_is_all_its_frames(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(noise(48, 64)) for _ in range(3))
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    assert len(list(FrameSource(str(tmp_path / "a.png")))) == 3


@pytest.mark.parametrize("name", ["2024-05-01T12:30:05.mp4", "cam:front.mp4", "concat:x.mp4"])
def test_a_colon_in_the_name_of_a_file_is_no_protocol(
    name: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    clip.rename(name)
    assert len(list(FrameSource(name))) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux alone")
def test_a_video_whose_name_or_folder_is_no_utf8_is_read(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latin1 = os.fsdecode(b"Stra\xdfe")
    (clip.parent / latin1).mkdir()
    monkeypatch.chdir(clip.parent / latin1)
    for name in ("drive.mp4", f"{latin1}.mp4"):
        shutil.copy(clip, name)
        assert len(list(FrameSource(name))) == len(list(FrameSource(os.path.abspath(name)))) == 12


def test_the_parent_of_a_linked_folder_is_the_parent_of_what_the_link_names(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trip" / "day").mkdir(parents=True)
    (tmp_path / "today").symlink_to(tmp_path / "trip" / "day")
    clip.rename(tmp_path / "trip" / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(list(FrameSource("today/../clip.mp4"))) == 12


def test_an_error_in_the_middle_leaves_no_half_written_video(clip: Path, tmp_path: Path) -> None:
    class Failing(BrightnessSession):
        def infer(self, frame: Any) -> Any:
            raise RuntimeError("engine lost")

    with pytest.raises(RuntimeError, match="engine lost"):
        infer_video(Failing(), clip, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_second_ctrl_c_while_cleaning_up_leaves_a_file_that_plays_too(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FrameSource, "close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        infer_video(BrightnessSession(), clip, tmp_path / "out.mp4", progress=interrupt)
    monkeypatch.undo()
    assert len(list(FrameSource(str(tmp_path / "out.mp4")))) == 1


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


def write_clip(path: Path, times_s: list[float]) -> Path:
    writer = VideoWriter(str(path), 10)
    for index, time_s in enumerate(times_s):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8), time_s)
    writer.finish()
    return path


def times_of(path: Path) -> list[float]:
    source = FrameSource(str(path))
    return [source.time_s() for _ in source]


def test_a_video_of_variable_rate_comes_out_with_its_own_times(tmp_path: Path) -> None:
    times_s = [0, 0.04, 0.08, 0.5, 0.9, 3.0, 3.04]
    source = write_clip(tmp_path / "phone.mp4", times_s)
    infer_video(BrightnessSession(), source, tmp_path / "out.mkv")
    assert times_of(tmp_path / "out.mkv") == pytest.approx(times_s, abs=1e-3)


def test_a_camera_that_drops_frames_plays_at_real_speed(
    camera: type[Camera], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Slow(BrightnessSession):
        def infer(self, frame: Any) -> Any:
            time.sleep(0.1)  # of a camera's frames, which come every 0.01 s
            return super().infer(frame)

    camera.frames = [np.full((48, 64, 3), 200, np.uint8)] * 60
    start_s = time.monotonic()
    with pytest.raises(VideoError, match="no more frames"):
        infer_video(Slow(), "camera:0", tmp_path / "out.mp4")
    lasted_s = time.monotonic() - start_s
    monkeypatch.undo()
    times_s = times_of(tmp_path / "out.mp4")
    assert len(times_s) < 60
    assert 0.5 <= times_s[-1] <= lasted_s


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_that_ends_early_is_told_and_what_it_gave_is_kept(
    suffix: str, tmp_path: Path
) -> None:
    writer = VideoWriter(str(tmp_path / f"drive{suffix}"), 10)
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    if suffix != ".mp4":  # whose index would be at the end
        writer.finish()
    content = (tmp_path / f"drive{suffix}").read_bytes()
    short = tmp_path / f"short{suffix}"
    short.write_bytes(content[: len(content) * 2 // 3])
    message = r"short\..* ends early, .* bytes are missing: \d+ of .*; the \d+ frames .*out.mp4"
    with pytest.raises(VideoError, match=message):
        infer_video(BrightnessSession(), short, tmp_path / "out.mp4")
    assert 1 <= len(times_of(tmp_path / "out.mp4")) < 20


@pytest.mark.parametrize(("suffix", "is_told"), [(".avi", True), (".mp4", False)])
def test_pictures_that_an_avi_shows_late_are_told(
    suffix: str, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = VideoWriter(str(tmp_path / f"out{suffix}"), 10)
    for index in range(9):
        writer.write(np.zeros((48, 64, 3), np.uint8), index / 30)
    writer.finish()
    assert caplog.text.count("an .avi has one rate") == is_told


def noisy(path: Path, frames: int = 40) -> bytes:
    """Write a video whose frames take the same place each; return its bytes."""
    writer, rng = VideoWriter(str(path), 10), np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (96, 128, 3), np.uint8))
    writer.finish()
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_that_is_damaged_in_the_middle_is_no_trimmed_one(
    suffix: str, tmp_path: Path
) -> None:
    content = bytearray(noisy(tmp_path / f"drive{suffix}"))
    begin, end = len(content) * 4 // 10, len(content) // 2
    content[begin:end] = bytes(end - begin)
    (tmp_path / f"drive{suffix}").write_bytes(content)
    with pytest.raises(VideoError, match=r"1\d of 40 frames: .* it is damaged there"):
        infer_video(BrightnessSession(), tmp_path / f"drive{suffix}", tmp_path / "out.mp4")


@pytest.mark.parametrize("trailer", [b"\0\0\1\0a trailer of a camera", b"four"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_bytes_behind_the_last_frame_are_no_fault(
    suffix: str, trailer: bytes, tmp_path: Path
) -> None:
    content = noisy(tmp_path / f"drive{suffix}")
    (tmp_path / f"drive{suffix}").write_bytes(content + trailer)
    infer_video(BrightnessSession(), tmp_path / f"drive{suffix}", tmp_path / "out.mp4")
    assert len(times_of(tmp_path / "out.mp4")) == 40


def test_an_embedder_ends_a_video_with_an_event(clip: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    infer_video(
        BrightnessSession(), clip, tmp_path / "out.mp4", lambda done, _: stop.set(), stop=stop
    )
    assert len(times_of(tmp_path / "out.mp4")) == 1


def test_an_existing_file_is_kept_where_that_is_asked_for(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    with pytest.raises(VideoError, match=r"out.mp4 cannot be written: is there already"):
        infer_video(BrightnessSession(), clip, tmp_path / "out.mp4", overwrite=False)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_the_input_is_never_the_output_under_any_name(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    with pytest.raises(VideoError, match=r"link.mp4 is the input"):
        infer_video(BrightnessSession(), clip, tmp_path / "link.mp4")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("full.mp4", "No space left on device"),
        ("clip.mp4/out.mp4", "Not a directory|File exists"),
        ("folder.mp4", "Is a directory"),
        ("/proc/out.mp4", "No such file or directory"),
        ("out.wmv", "ends in one of .mp4, "),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_the_cause(
    target: str, reason: str, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    with pytest.raises(VideoError, match=f"{tmp_path / target} cannot be written.*({reason})"):
        infer_video(BrightnessSession(), clip, tmp_path / target)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "got NoneType"),
        (np.zeros((4, 4)), r"got float64 \(4, 4\)"),
        (np.zeros((4, 4, 3)), "got float64"),
        (np.zeros((4, 4), np.uint8), "repeat the grey channel"),
        (np.zeros((4, 4, 4), np.uint8), "drop the alpha channel"),
        ("picture", "got str"),
    ],
)
def test_a_drawing_that_is_no_picture_is_told(
    picture: Any, message: str, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"draw\(\) is to return a picture: .*" + message):
        infer_video(BrightnessSession(), clip, tmp_path / "out.mp4", draw=lambda *_: picture)


@pytest.mark.skipif("FASTSEG_CLIPS" not in os.environ, reason="FASTSEG_CLIPS is not set")
def test_a_real_dash_cam_clip_decodes_to_its_end() -> None:
    source = FrameSource(os.path.join(os.environ["FASTSEG_CLIPS"], "vehicle_test_1280x720.mp4"))
    frames = list(source)
    assert len(frames) == 38 and frames[0].shape == (720, 1280, 3)


def test_pictures_that_the_disk_lost_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced, sync = tmp_path / "clip.mp4", threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        if not synced.is_set() and os.path.samestat(os.fstat(descriptor), path.stat()):
            synced.set()
            raise OSError(errno.EIO, "Input/output error")  # Linux says it once
        sync(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    writer = VideoWriter(str(path), 25)
    writer.write(np.zeros((16, 32, 3), np.uint8))
    assert synced.wait(20)
    with pytest.raises(VideoError, match="cannot be written: Input/output error"):
        writer.finish()
