"""The programs in docs/platforms against stand-ins of ROS 2 and of cameras."""

import ast
import re
import runpy
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
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


class Publisher:
    """Keeps what is published, after the check that rclpy's setters make."""

    def __init__(self) -> None:
        self.sent: Messages = []

    def publish(self, message: Any) -> None:
        assert isinstance(message.data, array) and message.data.typecode == "B"
        assert message.step * message.height == len(message.data)
        self.sent.append(message)


class Node:
    """What the example uses of rclpy.node.Node."""

    parameters: dict[str, str] = {}  # noqa: RUF012 (set by the fixture, as the command line does)

    def __init__(self, name: str) -> None:
        self.publisher_made, self.errors = Publisher(), list[str]()
        self.callback: Callable[[Any], None] = lambda image: None

    def declare_parameter(self, name: str, default: str) -> Any:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: type, topic: str, depth: int) -> Publisher:
        return self.publisher_made

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        assert qos.depth == 1
        self.callback = callback

    def get_logger(self) -> Any:
        return SimpleNamespace(error=lambda text, throttle_duration_sec: self.errors.append(text))


def module(name: str, **names: Any) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(names)
    return made


@pytest.fixture
def ros2(monkeypatch: pytest.MonkeyPatch, bundle: str) -> dict[str, Any]:
    """The names that the node's file defines."""

    class ExternalShutdownException(Exception):
        """rclpy's."""

    stand_ins = [
        module("rclpy"),
        module("rclpy.node", Node=Node),
        module("rclpy.executors", ExternalShutdownException=ExternalShutdownException),
        module(
            "rclpy.qos",
            QoSProfile=SimpleNamespace,
            ReliabilityPolicy=SimpleNamespace(BEST_EFFORT=2),
        ),
        module("sensor_msgs"),
        module("sensor_msgs.msg", Image=SimpleNamespace),
    ]
    for stand_in in stand_ins:
        monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    monkeypatch.setattr(Node, "parameters", {"bundle": bundle})
    return runpy.run_path(str(EXAMPLES / "ros2_node.py"))


def image_message(pixels: Array, encoding: str, padding: int = 0) -> Any:
    """A sensor_msgs/Image."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, width * channels + padding), np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    step, data = rows.shape[1], array("B", rows.tobytes())
    header = SimpleNamespace(stamp=17, frame_id="front")
    fields = {"height": height, "width": width, "encoding": encoding, "step": step}
    return SimpleNamespace(header=header, data=data, **fields)


@pytest.mark.parametrize("padding", [0, 13])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_the_ros_node_answers_each_frame_with_its_class_map(
    ros2: dict[str, Any], encoding: str, padding: int
) -> None:
    Node.parameters["encoding"] = encoding
    node = ros2["Segmenter"]()
    frame = noise(50, 70)
    ordered = frame[..., ::-1] if encoding.startswith("bgr") else frame
    alpha = np.full((50, 70, encoding.count("a")), 9, np.uint8)
    image = image_message(np.concatenate([ordered, alpha], axis=2), encoding, padding)
    np.testing.assert_array_equal(ros2["pixels"](image), ordered)
    with node.seg:
        node.callback(image)
        expected = node.seg.infer(np.ascontiguousarray(ordered))
    (answer,) = node.publisher_made.sent
    assert (answer.encoding, answer.header) == ("mono8", image.header)
    ids = np.frombuffer(answer.data, np.uint8).reshape(answer.height, answer.width)
    np.testing.assert_array_equal(ids, expected)


def test_the_ros_node_makes_no_copy_of_a_frame(ros2: dict[str, Any]) -> None:
    image = image_message(noise(), "rgb8", padding=4)
    assert np.shares_memory(ros2["pixels"](image), np.frombuffer(image.data, np.uint8))


def test_the_ros_node_says_how_to_start_it_for_other_frames(ros2: dict[str, Any]) -> None:
    node = ros2["Segmenter"]()
    with node.seg:
        node.callback(image_message(noise(), "bgr8"))
    assert node.errors == ["frames are bgr8; start with -p encoding:=bgr8"]
    assert not node.publisher_made.sent


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
    monkeypatch.setitem(sys.modules, "picamera2", module("picamera2", Picamera2=Picamera2))
    with pytest.raises(CameraGone):
        run_page("raspberry-pi", bundle, monkeypatch)
    assert capsys.readouterr().out == f"(0, {WIDTH // 2}) 0\n"
