"""The program in docs/platforms against a stand-in of a camera."""

import ast
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import ClassInfo

from tests.doubles.tiny_bundle import HEIGHT, WIDTH, full_plan, noise, strongest_channel

PAGES = Path(__file__).parents[2] / "docs/platforms"
EXAMPLES = PAGES / "examples"
Array = np.ndarray[Any, Any]
Messages = list[Any]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_is_short_and_for_python_3_8_and_says_that_no_hardware_ran_it(
    file: Path,
) -> None:
    text = file.read_text("utf-8")
    ast.parse(text, feature_version=(3, 8))
    assert len(text.splitlines()) <= 60
    assert "not run on a" in text


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    classes = [ClassInfo(name, (0, 0, 0)) for name in ("Sky", "Road", "Car")]
    return str(full_plan(classes=classes).write(tmp_path / "tiny.fastseg"))


class Camera:
    """Gives a few frames, then stops, as when the cable is pulled."""

    opened: list[str] = []  # noqa: RUF012 (emptied by the fixture)
    frames: Messages = []  # noqa: RUF012
    released = 0

    def __init__(self, source: "str | int", api: int = cv2.CAP_ANY) -> None:
        assert isinstance(source, int) or api == cv2.CAP_GSTREAMER
        self.opened.append(str(source))
        self.left = list(self.frames)

    def isOpened(self) -> bool:
        return bool(self.frames)

    def read(self) -> tuple[bool, Any]:
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self) -> None:
        type(self).released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[Camera]:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "opened", [])
    monkeypatch.setattr(Camera, "released", 0)
    return Camera


def test_the_csi_loop_says_where_the_road_is_and_frees_the_camera(
    bundle: str,
    camera: type[Camera],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[..., 0] = 90  # blue: a car; the road is green, on the right half
    frame[:, WIDTH // 2 :, 1] = 200
    assert set(strongest_channel(frame[..., ::-1]).ravel().tolist()) == {1, 2}
    monkeypatch.setattr(Camera, "frames", [frame])
    with pytest.raises(SystemExit, match="no more frames"):
        runpy.run_path(str(EXAMPLES / "csi_loop.py"))["main"](bundle)
    assert capsys.readouterr().out == "frame 0: road at 0.75, 0 dropped\n"
    assert camera.released == 1
    assert f"width={WIDTH}, height={HEIGHT}, format=BGRx" in camera.opened[0]


def test_the_csi_loop_says_what_to_look_at_where_no_camera_opens(
    bundle: str, camera: type[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Camera, "frames", [])
    with pytest.raises(SystemExit, match="has this OpenCV GStreamer"):
        runpy.run_path(str(EXAMPLES / "csi_loop.py"))["main"](bundle)


def run_page(page: str, bundle: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python of a page in a folder with the bundle; return the names it made."""
    monkeypatch.chdir(Path(bundle).parent)
    Path(bundle).rename("street.fastseg")
    names: dict[str, Any] = {}
    for block in re.findall(
        r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text("utf-8"), re.S
    ):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", ["linux", "windows"])
def test_the_code_for_a_computer_segments_what_the_camera_gives(
    page: str, bundle: str, camera: type[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = noise(40, 60)
    monkeypatch.setattr(Camera, "frames", [frame, frame])
    names = run_page(page, bundle, monkeypatch)
    np.testing.assert_array_equal(names["classes"], names["seg"].infer(frame))
    assert camera.opened == ["0"]


@pytest.mark.parametrize("page", ["linux", "windows"])
def test_the_code_for_a_computer_says_so_where_there_is_no_camera(
    page: str, bundle: str, camera: type[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Camera, "frames", [])
    with pytest.raises(SystemExit, match="gives no frame"):
        run_page(page, bundle, monkeypatch)


class CameraGone(Exception):
    """The ribbon cable was pulled."""


class Picamera2:
    """What the page uses of picamera2."""

    frames: Messages = []  # noqa: RUF012 (set by the test)

    def create_video_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
        assert main == {"size": (WIDTH, HEIGHT), "format": "RGB888"}
        return main

    def configure(self, configuration: dict[str, Any]) -> None:
        self.left = list(self.frames)

    def start(self) -> None:
        assert self.left

    def capture_array(self) -> Array:
        if not self.left:
            raise CameraGone
        frame: Array = self.left.pop(0)
        return frame


def test_the_code_for_a_raspberry_pi_prints_the_road_until_the_camera_goes(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[:, : WIDTH // 2, 1] = 200  # the road is green; the rest is black, the sky's id
    monkeypatch.setattr(Picamera2, "frames", [frame])
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    with pytest.raises(CameraGone):
        run_page("raspberry-pi", bundle, monkeypatch)
    assert capsys.readouterr().out == f"(0, {WIDTH // 2}) 0\n"
