"""The lifecycle node: its transitions, frames good and bad, parameters, what it publishes."""

import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import ClassInfo, OutputSpec

from tests.doubles.ros2_double import (
    TAKEN,
    CompressedImage,
    DurabilityPolicy,
    LifecycleNode,
    Parameter,
    ReliabilityPolicy,
    TransitionCallbackReturn,
)
from tests.doubles.tiny_bundle import (
    HEIGHT,
    WIDTH,
    argmax_onnx,
    empty_plan,
    full_plan,
    noise,
    strongest_channel,
)
from tests.runtime.ros2.conftest import HEADER, image_message

SUCCESS, FAILURE, ERROR = TransitionCallbackReturn
Make = Callable[..., Any]


def plain_bundle(folder: Path, name: str = "plain", **fields: Any) -> str:
    return str(full_plan(**fields).write(folder / f"{name}.fastseg"))


def sure_bundle(folder: Path, name: str = "sure") -> str:
    """Write a bundle whose logits are the bytes of the frame, and so its confidence theirs."""
    plan = empty_plan(output=OutputSpec("logits", cover="image")).with_artifact(
        "cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"}
    )
    image = noise(HEIGHT, WIDTH)
    return str(plan.with_scene(image, strongest_channel(image)).write(folder / f"{name}.fastseg"))


@pytest.fixture
def make(segmenter: Any) -> Iterator[Make]:
    """Makes nodes with parameters, and closes them."""
    made = []

    def one(**parameters: Any) -> Any:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        made.append(segmenter.Segmenter(parameter_overrides=overrides))
        return made[-1]

    yield one
    for node in made:
        node.destroy_node()
        assert node.is_destroyed and not node.topics and not node.inputs and not node.clocks


@pytest.fixture
def active(make: Make, tmp_path: Path) -> Any:
    """Return a node that runs, with somebody listening to everything."""
    return started(make(bundle=plain_bundle(tmp_path)))


def started(node: Any) -> Any:
    assert node.trigger_configure() is SUCCESS, node.get_logger().said
    assert node.trigger_activate() is SUCCESS
    for publisher in node.topics.values():
        publisher.listeners = 1
    return node


def frame(seed: int = 0, encoding: str = "rgb8") -> Any:
    pixels = noise(HEIGHT, WIDTH, seed)
    pixels = pixels if encoding == "rgb8" else pixels[..., ::-1]
    return image_message(pixels.reshape(HEIGHT, -1), WIDTH, encoding)


def pixels_of(message: Any) -> Any:
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


def said(node: Any, level: str) -> list[str]:
    return [text for of, text in node.get_logger().said if of == level]


# Transitions


def test_a_node_goes_through_its_life_and_again(make: Make, tmp_path: Path) -> None:
    node = make(bundle=plain_bundle(tmp_path))
    assert node.state == "unconfigured" and not node.topics and not node.inputs
    for _ in range(2):
        assert node.trigger_configure() is SUCCESS
        assert node.state == "inactive" and not node.inputs and not node.clocks
        assert set(node.topics) == {
            *("classes", "confidence", "overlay", "label_info", "/diagnostics")
        }
        assert node.trigger_activate() is SUCCESS
        assert set(node.inputs) == {"image"} and len(node.clocks) == 1
        node.arrive("image", frame())
        node.spin()
        assert len(node.topics["classes"].sent) == 1
        assert node.trigger_deactivate() is SUCCESS
        assert node.state == "inactive" and not node.inputs and not node.clocks
        node.arrive("image", frame())
        node.spin()
        assert len(node.topics["classes"].sent) == 1
        assert node.trigger_cleanup() is SUCCESS
        assert node.state == "unconfigured" and not node.topics
    assert said(node, "error") == []


def test_cleaning_up_closes_the_session_and_deactivating_keeps_it(active: Any) -> None:
    session = active._session
    active.trigger_deactivate()
    assert active._session is session
    session.infer(noise(HEIGHT, WIDTH))
    active.trigger_cleanup()
    with pytest.raises(RuntimeError, match="closed"):
        session.infer(noise(HEIGHT, WIDTH))


@pytest.mark.parametrize("steps", [[], ["configure"], ["configure", "activate"]])
def test_it_shuts_down_from_every_state_and_frees_all(
    make: Make, tmp_path: Path, steps: list[str]
) -> None:
    node = make(bundle=plain_bundle(tmp_path))
    for step in steps:
        assert getattr(node, f"trigger_{step}")() is SUCCESS
    assert node.trigger_shutdown() is SUCCESS
    assert node.state == "finalized" and not node.topics and not node.inputs and not node.clocks
    assert node._session is None


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "parameter bundle is empty; set it to a NAME.fastseg"),
        ({"bundle": "no/such.fastseg"}, "no/such.fastseg"),
        ({"bundle": "broken.fastseg"}, "broken.fastseg"),
        ({"bundle": "plain.fastseg", "target": "cpu-int8"}, "cpu-int8"),
        ({"bundle": "plain.fastseg", "backend": "tensorrt"}, "tensorrt"),
        ({"bundle": "plain.fastseg", "build": "always"}, "build is 'always'"),
        ({"bundle": "plain.fastseg", "transport": "theora"}, "transport is 'theora'; expected raw"),
        ({"bundle": "plain.fastseg", "min_confidence": 0.5}, "fastseg-export --confidence"),
    ],
)
def test_what_cannot_be_opened_leaves_the_node_unconfigured_and_says_why(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    plain_bundle(tmp_path)
    Path("broken.fastseg").write_bytes(b"half of a bundle")
    node = make(**parameters)
    assert node.trigger_configure() is FAILURE
    assert node.state == "unconfigured" and not node.topics and node._session is None
    (line,) = said(node, "error")
    assert line.startswith("not configured: ") and told in line
    node.set_parameters([Parameter("bundle", value="plain.fastseg")])
    if parameters.get("bundle") != "plain.fastseg":
        assert node.trigger_configure() is SUCCESS


def test_compressed_frames_without_opencv_are_told_while_configuring(
    make: Make, tmp_path: Path, segmenter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "opencv", lambda: None)
    node = make(bundle=plain_bundle(tmp_path), transport="compressed")
    assert node.trigger_configure() is FAILURE
    assert "apt install python3-opencv" in said(node, "error")[0]


@pytest.mark.parametrize("steps", [["configure"], ["configure", "activate"]])
def test_a_transition_that_raises_frees_all_and_can_be_tried_again(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    node = make(bundle=plain_bundle(tmp_path))
    broken = {"configure": "create_lifecycle_publisher", "activate": "create_subscription"}

    def fail(*arguments: Any) -> None:
        raise TypeError("as a fault of ours would")

    for step in steps[:-1]:
        getattr(node, f"trigger_{step}")()
    with monkeypatch.context() as patch:
        patch.setattr(LifecycleNode, broken[steps[-1]], fail)
        assert getattr(node, f"trigger_{steps[-1]}")() is ERROR
    assert node.state == "unconfigured" and not node.topics and node._session is None
    assert "configure it again" in said(node, "error")[-1]
    started(node)


def test_a_transition_that_is_not_its_turn_changes_nothing(active: Any) -> None:
    assert active.trigger_configure() is ERROR
    assert active.state == "active" and set(active.inputs) == {"image"}


def test_the_node_takes_no_attribute_of_rclpys(active: Any, segmenter: Any) -> None:
    own = {name for name in vars(active) if name not in vars(LifecycleNode("plain"))}
    assert own and not own & TAKEN
    assert not {name for name in vars(segmenter.Segmenter) if name in TAKEN}


# Frames


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_a_frame_is_answered_with_its_header(active: Any, encoding: str) -> None:
    active.arrive("image", frame(3, encoding))
    active.spin()
    (answer,) = active.topics["classes"].sent
    assert (answer.encoding, answer.step) == ("mono8", WIDTH)
    assert answer.header == HEADER
    np.testing.assert_array_equal(
        pixels_of(answer)[..., 0], strongest_channel(noise(HEIGHT, WIDTH, 3))
    )
    (overlay,) = active.topics["overlay"].sent
    assert overlay.encoding == encoding and overlay.header == HEADER
    colors = np.array([entry.color for entry in active._session.classes])
    rgb = pixels_of(overlay) if encoding == "rgb8" else pixels_of(overlay)[..., ::-1]
    mixed = (noise(HEIGHT, WIDTH, 3) + colors[strongest_channel(noise(HEIGHT, WIDTH, 3))]) / 2
    assert abs(rgb - mixed).max() <= 1
    assert active.topics["confidence"].sent == []  # this network gives none


def test_overlay_and_confidence_are_made_while_somebody_listens(make: Make, tmp_path: Path) -> None:
    node = started(make(bundle=sure_bundle(tmp_path)))
    for listeners in (1, 0):
        for publisher in node.topics.values():
            publisher.listeners = listeners
        node.arrive("image", frame())
        node.spin()
    assert len(node.topics["classes"].sent) == 2
    assert [len(node.topics[topic].sent) for topic in ("overlay", "confidence")] == [1, 1]
    confidence = pixels_of(node.topics["confidence"].sent[0])
    assert confidence.shape == (HEIGHT, WIDTH, 1) and len(np.unique(confidence)) > 2


def test_of_frames_that_wait_the_newest_alone_is_segmented(active: Any) -> None:
    assert active.inputs["image"].qos.depth == 1
    assert active.inputs["image"].qos.reliability is ReliabilityPolicy.BEST_EFFORT
    active.arrive("image", *(frame(seed) for seed in range(5)))
    active.spin()
    (answer,) = active.topics["classes"].sent
    np.testing.assert_array_equal(
        pixels_of(answer)[..., 0], strongest_channel(noise(HEIGHT, WIDTH, 4))
    )


def test_results_suit_every_subscriber_and_labels_late_ones(active: Any) -> None:
    qos = {topic: publisher.qos for topic, publisher in active.topics.items()}
    assert all(one.reliability is ReliabilityPolicy.RELIABLE for one in qos.values())
    assert {t for t, one in qos.items() if one.durability is DurabilityPolicy.TRANSIENT_LOCAL} == {
        "label_info"
    }
    (labels,) = active.topics["label_info"].sent
    names = [(entry.class_id, entry.class_name) for entry in labels.class_map]
    assert names == [(0, "red"), (1, "green"), (2, "blue")] and labels.threshold == 0.0


def test_compressed_frames_come_by_image_transports_topic(make: Make, tmp_path: Path) -> None:
    node = started(make(bundle=plain_bundle(tmp_path), transport="compressed"))
    _, content = cv2.imencode(".png", noise(HEIGHT, WIDTH)[..., ::-1])
    data = array("B", content.tobytes())
    node.arrive("image/compressed", CompressedImage(header=HEADER, format="rgb8; png", data=data))
    node.spin()
    (answer,) = node.topics["classes"].sent
    np.testing.assert_array_equal(
        pixels_of(answer)[..., 0], strongest_channel(noise(HEIGHT, WIDTH))
    )


def test_bad_frames_are_left_out_and_told_now_and_then(
    active: Any, segmenter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, unknown = frame(), frame()
    short.step, unknown.encoding = WIDTH, "bayer_rggb8"
    for _ in range(20):
        for bad in (short, unknown):
            active.arrive("image", bad)
            active.spin()
    (line,) = said(active, "warning")
    assert line.startswith(f"frame left out: step is {WIDTH} bytes")
    active.arrive("image", frame())
    active.spin()
    assert len(active.topics["classes"].sent) == 1 and active.state == "active"
    active.tick()
    status = active.topics["/diagnostics"].sent[-1].status[0]
    assert (status.level, status.message) == (b"\1", "frames left out")
    assert figures(active)["frames_left_out"] == "40"
    monkeypatch.setattr(segmenter, "SAY_EVERY_S", 0.0)
    active.arrive("image", unknown)
    active.spin()
    assert "run image_proc's debayer" in said(active, "warning")[-1]


def test_an_engine_that_fails_is_told_and_the_node_goes_on(
    active: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            type(active._session), "infer", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("x"))
        )
        for _ in range(3):
            active.arrive("image", frame())
            active.spin()
    assert len(said(active, "error")) == 1 and "RuntimeError: x" in said(active, "error")[0]
    active.tick()
    assert active.topics["/diagnostics"].sent[-1].status[0].level == b"\2"
    active.arrive("image", frame())
    active.spin()
    active.tick()
    assert len(active.topics["classes"].sent) == 1
    assert active.topics["/diagnostics"].sent[-1].status[0].level == b"\0"


def test_a_frame_that_waited_while_the_node_was_cleaned_up_is_dropped(active: Any) -> None:
    waiting = active.inputs["image"].callback
    active.trigger_deactivate()
    active.trigger_cleanup()
    waiting(frame())
    assert said(active, "error") == []


# Diagnostics


def figures(node: Any) -> dict[str, str]:
    (status,) = node.topics["/diagnostics"].sent[-1].status
    return {pair.key: pair.value for pair in status.values}


def test_diagnostics_say_what_runs_and_how_fast(active: Any) -> None:
    active.tick()
    (status,) = active.topics["/diagnostics"].sent[-1].status
    assert (status.level, status.message, status.name) == (b"\0", "no frame yet", "/segmenter")
    for seed in range(4):
        active.arrive("image", frame(seed))
        active.spin()
    active.tick()
    found = figures(active)
    assert float(found["fps"]) > 1 and float(found["latency_ms"]) > 0
    assert (found["target"], found["backend"]) == ("cpu-fp32", "onnxruntime")
    assert found["frames_failed"] == found["frames_left_out"] == found["frames_late"] == "0"
    assert found["bundle"].endswith("plain.fastseg")


def test_late_frames_are_a_warning_once(make: Make, tmp_path: Path) -> None:
    node = started(make(bundle=plain_bundle(tmp_path), deadline_ms=1e-6))
    levels = []
    for frames in (1, 0, 1):
        for seed in range(frames):
            node.arrive("image", frame(seed))
            node.spin()
        node.tick()
        levels.append(node.topics["/diagnostics"].sent[-1].status[0].level)
    assert levels == [b"\1", b"\0", b"\1"]
    assert figures(node)["frames_late"] == "2"
    node.trigger_deactivate()
    node.trigger_activate()
    node.tick()
    assert node.topics["/diagnostics"].sent[-1].status[0].level == b"\0"


# Parameters


def set_one(node: Any, name: str, value: Any) -> Any:
    (result,) = node.set_parameters([Parameter(name, value=value)])
    return result


def test_the_least_confidence_changes_while_it_runs(make: Make, tmp_path: Path) -> None:
    node = started(make(bundle=sure_bundle(tmp_path)))
    pixels = noise(HEIGHT, WIDTH).astype(float)
    sure = 1 / np.exp(pixels - pixels.max(axis=2, keepdims=True)).sum(axis=2)
    for least in (0.0, 0.9, 0.0):
        assert set_one(node, "min_confidence", least).successful
        node.arrive("image", frame())
        node.spin()
        ids = pixels_of(node.topics["classes"].sent[-1])[..., 0]
        is_near = abs(255 * (sure - least)) < 1
        np.testing.assert_array_equal((ids == 255)[~is_near], (sure < least)[~is_near])
        assert node.topics["label_info"].sent[-1].threshold == least
    assert set_one(node, "min_confidence", 1.0).successful
    assert not set_one(node, "min_confidence", 1.01).successful
    assert not set_one(node, "min_confidence", -0.01).successful


def test_a_confidence_that_the_network_does_not_give_is_refused(active: Any) -> None:
    result = set_one(active, "min_confidence", 0.5)
    assert not result.successful and "fastseg-export --confidence" in result.reason
    assert active.get_parameter("min_confidence").value == 0.0


def test_the_network_is_swapped_while_it_runs(active: Any, tmp_path: Path) -> None:
    session = active._session
    other = plain_bundle(tmp_path, "other")
    assert set_one(active, "bundle", other).successful
    assert active._session is session and f"swapped to {other}" in said(active, "info")
    active.arrive("image", frame())
    active.spin()
    active.tick()
    assert len(active.topics["classes"].sent) == 1 and figures(active)["bundle"] == other


@pytest.mark.parametrize("which", ["missing", "broken", "other classes", "no library"])
def test_a_swap_that_fails_keeps_the_network_and_the_parameter(
    active: Any, tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = active.get_parameter("bundle").value, tmp_path / "next.fastseg"
    if which == "no library":
        file = tmp_path / "next.fastseg.onnx"
        file.write_bytes(argmax_onnx())
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    if which == "broken":
        file.write_bytes(b"half of a bundle")
    if which == "other classes":
        classes = [ClassInfo(name, (0, 0, 0)) for name in ("a", "b", "c")]
        full_plan(classes=classes).write(file)
    result = set_one(active, "bundle", str(file))
    assert not result.successful and "next.fastseg" in result.reason
    assert active.get_parameter("bundle").value == before
    active.arrive("image", frame())
    active.spin()
    assert len(active.topics["classes"].sent) == 1


def test_a_full_memory_is_told_and_ends_neither_the_node_nor_its_executor(
    active: Any, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **wishes: Any) -> None:
        raise MemoryError

    other = make(bundle=plain_bundle(tmp_path))
    monkeypatch.setattr("fastseg_runtime.frames.session.open_best", fail)
    result = set_one(active, "bundle", plain_bundle(tmp_path, "other"))
    assert not result.successful and result.reason == "not enough memory"
    active.arrive("image", frame())
    active.spin()
    assert len(active.topics["classes"].sent) == 1
    assert other.trigger_configure() is FAILURE
    assert said(other, "error") == ["not configured: not enough memory"]


def test_another_parameter_that_is_refused_stops_the_swap(active: Any, tmp_path: Path) -> None:
    names = []
    active._session.swap = names.append
    other = Parameter("bundle", value=plain_bundle(tmp_path, "other"))
    result = active.set_parameters_atomically([other, Parameter("min_confidence", value=0.5)])
    assert not result.successful and names == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("transport", "compressed"), ("target", "cpu-fp32"), ("threads", 1), ("deadline_ms", 5.0)],
)
def test_what_the_session_was_opened_with_changes_after_cleaning_up_alone(
    active: Any, name: str, value: Any
) -> None:
    result = set_one(active, name, value)
    assert not result.successful and "clean the node up first" in result.reason
    active.trigger_deactivate()
    assert not set_one(active, name, value).successful
    active.trigger_cleanup()
    assert set_one(active, name, value).successful
    started(active)


def test_parameters_of_rclpy_are_none_of_its_business(active: Any) -> None:
    assert set_one(active, "use_sim_time", True).successful


def test_tiles_and_alpha_change_while_it_runs(active: Any) -> None:
    for name, value in (("tiles", 2), ("alpha", 0.0)):
        assert set_one(active, name, value).successful
    assert not set_one(active, "tiles", 65).successful
    active.arrive("image", frame())
    active.spin()
    np.testing.assert_array_equal(pixels_of(active.topics["overlay"].sent[0]), noise(HEIGHT, WIDTH))
    assert len(active.topics["classes"].sent) == 1 and said(active, "error") == []
