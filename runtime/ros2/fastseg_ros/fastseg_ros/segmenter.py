"""The node: newest frame in, maps of class ids, confidence and overlays out.

    ros2 run fastseg_ros segmenter --ros-args -p bundle:=street.fastseg -r image:=/camera/image_raw

Configuring opens the bundle, activating subscribes. Checked against stand-ins of rclpy; unrun on a
ROS 2 installation.
"""

import time
import traceback
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Tuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from fastseg_runtime import RealtimeSegmentation
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import LabelInfo, VisionClass

from fastseg_ros.images import decoded, frame_of, image_fields, opencv

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
UNSURE = 255  # the id of a pixel below min_confidence
SAY_EVERY_S = 5.0
REPORT_EVERY_S = 1.0  # what diagnostic_aggregator expects at the least
MOST_TIMES = 100  # frames that FPS and latency are of
TROUBLES = (
    (DiagnosticStatus.ERROR, "frames failed"),
    (DiagnosticStatus.WARN, "frames left out"),
    (DiagnosticStatus.WARN, "frames later than deadline_ms"),
)
# Newest frame only: what comes while one is segmented replaces what waits. Best effort takes
# from every camera, reliable or not.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Reliable, since only that suits every subscriber; a slow one loses all but the newest.
RESULTS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
TRANSPORTS = {
    "raw": (Image, "image", frame_of),
    "compressed": (CompressedImage, "image/compressed", decoded),
}
# What opening a network raises, where it is no fault of ours.
CANNOT_OPEN = (OSError, ValueError, RuntimeError, ImportError, MemoryError)


def _in_words(error: Exception) -> str:
    """Return what an error says; Python's own of a full memory says nothing."""
    return str(error) or (
        "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
    )


def _between(low: float, high: float, text: str) -> ParameterDescriptor:
    ranges = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return ParameterDescriptor(description=text, floating_point_range=ranges)


def _whole(low: int, high: int, text: str) -> ParameterDescriptor:
    ranges = [IntegerRange(from_value=low, to_value=high, step=1)]
    return ParameterDescriptor(description=text, integer_range=ranges)


def _text(text: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=text)


AT_ANY_TIME = {
    "bundle": ("", _text("the network, NAME.fastseg; another one must have the same classes")),
    "min_confidence": (0.0, _between(0.0, 1.0, "pixels that are less sure get the id 255")),
    "alpha": (0.5, _between(0.0, 1.0, "share of the classes' colours in the overlay")),
    "tiles": (0, _whole(0, 64, "also run a frame in so many tiles a side; 0 and 1: do not")),
}
BEFORE_CONFIGURING = {
    "transport": ("raw", _text("raw or compressed")),
    "target": ("", _text("this artifact of the bundle and no other")),
    "backend": ("auto", _text("the engine, auto takes the best that is here")),
    "device": ("auto", _text("auto, cpu or what the engine documents")),
    "threads": (0, _whole(0, 1024, "of the engine; 0: its own default")),
    "build": ("never", _text("auto: TensorRT may build its engine while it is configured")),
    "deadline_ms": (0.0, _between(0.0, 1e6, "frames that take longer are counted; 0: none are")),
}


class Segmenter(LifecycleNode):
    """Publishes `classes`, `confidence` and `overlay` with the header of their frame.

    `classes` and `confidence` are mono8 of the frame's size, `overlay` is in the frame's order of
    colours; the last two are made only while somebody listens. `label_info` is latched.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("segmenter", **options)
        for name, (value, descriptor) in {**AT_ANY_TIME, **BEFORE_CONFIGURING}.items():
            self.declare_parameter(name, value, descriptor)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._session: Optional[RealtimeSegmentation] = None
        self._outputs: Dict[str, Any] = {}
        self._frames: Any = None
        self._reports: Any = None
        self._forget_counts()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the bundle; a failure leaves the node unconfigured and says why."""
        try:
            self._session = self._open()
            self._check_confidence(self._session, self._value("min_confidence"))
        except CANNOT_OPEN as error:
            self._free()
            self.get_logger().error(f"not configured: {_in_words(error)}")
            return FAILURE
        create = self.create_lifecycle_publisher
        for topic in ("classes", "confidence", "overlay"):
            self._outputs[topic] = create(Image, topic, RESULTS)
        self._outputs["label_info"] = create(LabelInfo, "label_info", LATCHED)
        self._outputs["diagnostics"] = create(DiagnosticArray, "/diagnostics", RESULTS)
        info = self._session.info
        self.get_logger().info(f"{self._value('bundle')}: {info.target} on {info.backend}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to frames."""
        done = super().on_activate(state)
        if done == SUCCESS:
            kind, topic, _ = TRANSPORTS[self._value("transport")]
            self._forget_counts()
            self._tell_labels(self._value("min_confidence"))
            self._frames = self.create_subscription(kind, topic, self._on_frame, NEWEST)
            self._reports = self.create_timer(REPORT_EVERY_S, self._report)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop listening; the network stays open."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the engine."""
        done = super().on_cleanup(state)
        self._free()
        return done

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free all, from whatever state."""
        done = super().on_shutdown(state)
        self._free()
        return done

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free all after a transition that raised; the node can be configured again."""
        super().on_error(state)
        self._free()
        self.get_logger().error("a transition failed; all is freed, configure it again")
        return SUCCESS

    def destroy_node(self) -> None:
        """Free the engine before ROS takes the rest."""
        self._free()
        super().destroy_node()

    def _open(self) -> RealtimeSegmentation:
        bundle, transport = self._value("bundle"), self._value("transport")
        if not bundle:
            raise ValueError("parameter bundle is empty; set it to a NAME.fastseg")
        if transport not in TRANSPORTS:
            raise ValueError(f"transport is {transport!r}; expected {' or '.join(TRANSPORTS)}")
        if transport == "compressed" and opencv() is None:
            raise ValueError("compressed frames need OpenCV: apt install python3-opencv")
        return RealtimeSegmentation(
            bundle,
            backend=self._value("backend"),
            device=self._value("device"),
            threads=self._value("threads") or None,
            build=self._value("build"),
            target=self._value("target") or None,
            deadline_ms=self._value("deadline_ms") or None,
        )

    def _stop(self) -> None:
        if self._frames is not None:
            self.destroy_subscription(self._frames)
        if self._reports is not None:
            self.destroy_timer(self._reports)
        self._frames = self._reports = None

    def _free(self) -> None:
        self._stop()
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        self._outputs = {}
        if self._session is not None:
            self._session.close()
        self._session = None

    # Parameters

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_parameters(self, parameters: List[Any]) -> SetParametersResult:
        """Take what may change now; another network last, since it cannot be taken back."""
        asked = {parameter.name: parameter.value for parameter in parameters}
        if self._session is None:
            return SetParametersResult(successful=True)
        try:
            late = [name for name in asked if name in BEFORE_CONFIGURING]
            if late:
                raise ValueError(f"{', '.join(late)} cannot change now; clean the node up first")
            self._check_confidence(self._session, asked.get("min_confidence", 0.0))
            if "bundle" in asked:
                self._session.swap(asked["bundle"])
                self.get_logger().info(f"swapped to {asked['bundle']}")
        except CANNOT_OPEN as error:
            return SetParametersResult(successful=False, reason=_in_words(error))
        if self._frames is not None and "min_confidence" in asked:
            self._tell_labels(asked["min_confidence"])
        return SetParametersResult(successful=True)

    def _check_confidence(self, session: RealtimeSegmentation, least: float) -> None:
        if least > 0 and not session.gives_confidence:
            raise ValueError(
                f"min_confidence is {least}, but the bundle gives no confidence; export it with "
                "fastseg-export --confidence"
            )

    def _tell_labels(self, threshold: float) -> None:
        assert self._session is not None
        info = LabelInfo(threshold=float(threshold))
        info.header.stamp = self.get_clock().now().to_msg()
        names = [entry.name for entry in self._session.classes]
        info.class_map = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(names)]
        self._outputs["label_info"].publish(info)

    # Frames

    def _on_frame(self, message: Any) -> None:
        """Answer a frame; one that is not what it says is left out."""
        if self._session is None:
            return  # it waited while the node was cleaned up
        start = time.perf_counter()
        _, _, read = TRANSPORTS[self._value("transport")]
        try:
            frame_HW3, order = read(message)
        except ValueError as error:
            self._bad_frames += 1
            self.get_logger().warning(f"frame left out: {error}", throttle_duration_sec=SAY_EVERY_S)
            return
        try:
            self._segment(message.header, frame_HW3, order)
        except Exception:  # the executor would end with it, and all nodes in it
            self._failures += 1
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=SAY_EVERY_S)
            return
        self._done_s.append(time.perf_counter())
        self._latencies_s.append(self._done_s[-1] - start)

    def _segment(self, header: Any, frame_HW3: Any, order: str) -> None:
        assert self._session is not None
        session, least = self._session, self._value("min_confidence")
        session.color = order
        sure_HW = None
        if least > 0 or (session.gives_confidence and self._has_listener("confidence")):
            sure_HW = np.empty(frame_HW3.shape[:2], np.uint8)
        tiles = self._value("tiles")
        ids_HW = session.infer(frame_HW3, confidence=sure_HW, tiles=tiles if tiles > 1 else None)
        if sure_HW is not None and least > 0:
            ids_HW[sure_HW < 255 * least] = UNSURE
        self._publish("classes", header, ids_HW, "mono8")
        if sure_HW is not None and self._has_listener("confidence"):
            self._publish("confidence", header, sure_HW, "mono8")
        if self._has_listener("overlay"):
            drawn_HW3 = session.overlay(frame_HW3, ids_HW, self._value("alpha"))
            self._publish("overlay", header, drawn_HW3, f"{order}8")

    def _has_listener(self, topic: str) -> bool:
        return bool(self._outputs[topic].get_subscription_count())

    def _publish(self, topic: str, header: Any, pixels: Any, encoding: str) -> None:
        self._outputs[topic].publish(Image(header=header, **image_fields(pixels, encoding)))

    # Diagnostics

    def _forget_counts(self) -> None:
        self._failures = self._bad_frames = 0
        self._done_s: Deque[float] = deque(maxlen=MOST_TIMES)
        self._latencies_s: Deque[float] = deque(maxlen=MOST_TIMES)
        self._told = self._troubles()

    def _troubles(self) -> Tuple[int, int, int]:
        """Return how many frames failed, were left out and were late, the worst first."""
        late = 0 if self._session is None else self._session.timing.get("late", 0)
        return self._failures, self._bad_frames, late

    def _report(self) -> None:
        """Publish how it went since the last report."""
        troubles, before = self._troubles(), self._told
        self._told = troubles
        level, message = DiagnosticStatus.OK, "segmenting" if self._done_s else "no frame yet"
        for (worse, said), now, then in zip(TROUBLES, troubles, before):
            if now > then:
                level, message = worse, said
                break
        status = DiagnosticStatus(level=level, message=message)
        status.name = self.get_fully_qualified_name()
        figures = self._figures(*troubles)
        status.values = [KeyValue(key=key, value=str(value)) for key, value in figures.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._outputs["diagnostics"].publish(array)

    def _figures(self, failed: int, left_out: int, late: int) -> Dict[str, Any]:
        assert self._session is not None
        info, times = self._session.info, [t for t in self._done_s if t > time.perf_counter() - 10]
        span_s = times[-1] - times[0] if len(times) > 1 else 0.0
        latency_s = float(np.median(self._latencies_s)) if self._latencies_s else 0.0
        return {
            "fps": f"{(len(times) - 1) / span_s if span_s else 0.0:.1f}",
            "latency_ms": f"{1e3 * latency_s:.1f}",
            "frames_left_out": left_out,
            "frames_failed": failed,
            "frames_late": late,
            "bundle": self._value("bundle"),
            "target": info.target,
            "backend": info.backend,
        }


def main(arguments: Optional[List[str]] = None) -> None:
    """Run the node until ROS or Ctrl-C ends it."""
    rclpy.init(args=arguments)
    node = Segmenter()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
