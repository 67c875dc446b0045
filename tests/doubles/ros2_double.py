"""What fastseg_ros uses of ROS 2, after rclpy's sources and the .msg files of common_interfaces.

Parameters have one type, ranges and callbacks as in rclpy.node; transitions end as in
rclpy.lifecycle; publishers of a node that is not active send nothing; messages refuse fields and
types that they do not have.
Nothing is sent anywhere: a test fills a subscription's queue and lets the node take from it.
"""

import copy
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

# Attributes that rclpy.node.Node and rclpy.lifecycle.LifecycleNodeMixin keep for themselves.
TAKEN = {
    *("_allow_undeclared_parameters", "_clients", "_clock", "_context", "_default_callback_group"),
    *("_descriptors", "_guards", "_logger", "_logger_service", "_parameter_event_publisher"),
    *("_parameter_overrides", "_parameter_service", "_parameters", "_publishers", "_rate_group"),
    *("_on_set_parameters_callbacks", "_post_set_parameters_callbacks", "_services"),
    *("_pre_set_parameters_callbacks", "_subscriptions", "_time_source", "_timers", "_callbacks"),
    *("_type_description_service", "_state_machine", "_managed_entities", "_service_get_state"),
    *("_service_change_state", "_service_get_available_states", "handle", "context", "executor"),
}


class Message:
    """A message: its fields, each with its type, and nothing else."""

    FIELDS: dict[str, Any] = {}  # noqa: RUF012 (each kind has its own)

    def __init__(self, **fields: Any) -> None:
        for name, kind in self.FIELDS.items():
            setattr(self, name, fields.pop(name) if name in fields else default(kind))
        assert not fields, f"{type(self).__name__} has no {sorted(fields)}"

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.FIELDS, f"{type(self).__name__} has no field {name}"
        kind = self.FIELDS[name]
        assert fits(value, kind), f"{type(self).__name__}.{name} is {value!r}; expected {kind}"
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


UINT8S = "uint8[]"
LIMITS = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "int32": 2**31 - 1, "uint64": 2**64}


def default(kind: Any) -> Any:
    if isinstance(kind, type):
        return kind()
    if isinstance(kind, list):
        return []
    return {"string": "", "bool": False, "byte": b"\0", "float": 0.0, UINT8S: array("B")}.get(
        kind, 0
    )


def fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, type):
        return isinstance(value, kind)
    if isinstance(kind, list):
        return isinstance(value, list) and all(isinstance(item, kind[0]) for item in value)
    if kind in LIMITS:
        return type(value) is int and 0 <= value <= LIMITS[kind]
    if kind == UINT8S:  # a list would be checked number by number
        return isinstance(value, array) and value.typecode == "B"
    if kind == "byte":
        return isinstance(value, bytes) and len(value) == 1
    return type(value) is {"string": str, "bool": bool, "float": float}[kind]


def message(name: str, /, constants: dict[str, Any] | None = None, **fields: Any) -> type[Message]:
    return type(name, (Message,), {"FIELDS": fields, **(constants or {})})


Stamp = message("Time", sec="int32", nanosec="uint32")
Header = message("Header", stamp=Stamp, frame_id="string")
Image = message(
    "Image",
    header=Header,
    height="uint32",
    width="uint32",
    encoding="string",
    is_bigendian="uint8",
    step="uint32",
    data=UINT8S,
)
CompressedImage = message("CompressedImage", header=Header, format="string", data=UINT8S)
VisionClass = message("VisionClass", class_id="uint16", class_name="string")
LabelInfo = message("LabelInfo", header=Header, class_map=[VisionClass], threshold="float")
KeyValue = message("KeyValue", key="string", value="string")
DiagnosticStatus = message(
    "DiagnosticStatus",
    {"OK": b"\0", "WARN": b"\1", "ERROR": b"\2", "STALE": b"\3"},
    level="byte",
    name="string",
    message="string",
    hardware_id="string",
    values=[KeyValue],
)
DiagnosticArray = message("DiagnosticArray", header=Header, status=[DiagnosticStatus])
FloatingPointRange = message(
    "FloatingPointRange", from_value="float", to_value="float", step="float"
)
IntegerRange = message("IntegerRange", from_value="int32", to_value="int32", step="uint64")
ParameterDescriptor = message(
    "ParameterDescriptor",
    name="string",
    type="uint8",
    description="string",
    additional_constraints="string",
    read_only="bool",
    dynamic_typing="bool",
    floating_point_range=[FloatingPointRange],
    integer_range=[IntegerRange],
)
SetParametersResult = message("SetParametersResult", successful="bool", reason="string")


class ReliabilityPolicy(IntEnum):
    RELIABLE = 1
    BEST_EFFORT = 2


class DurabilityPolicy(IntEnum):
    TRANSIENT_LOCAL = 1
    VOLATILE = 2


class QoSProfile:
    def __init__(self, **fields: Any) -> None:
        assert "depth" in fields or "history" in fields, "rclpy warns without"
        self.depth: int = fields.pop("depth")
        self.reliability = fields.pop("reliability", ReliabilityPolicy.RELIABLE)
        self.durability = fields.pop("durability", DurabilityPolicy.VOLATILE)
        assert not fields, fields


class Parameter:
    def __init__(self, name: str, type_: Any = None, value: Any = None) -> None:
        self.name, self.value = name, value


class TransitionCallbackReturn(Enum):
    SUCCESS = 0
    FAILURE = 1
    ERROR = 2


class LifecycleState(NamedTuple):
    label: str
    state_id: int


# (transition, state) -> the state meanwhile, and those after success and failure; an error leads
# to on_error, which leads to "unconfigured" or, where it fails, to "finalized".
TRANSITIONS = {
    ("configure", "unconfigured"): ("on_configure", "inactive", "unconfigured"),
    ("cleanup", "inactive"): ("on_cleanup", "unconfigured", "inactive"),
    ("activate", "inactive"): ("on_activate", "active", "inactive"),
    ("deactivate", "active"): ("on_deactivate", "inactive", "active"),
    **{
        ("shutdown", state): ("on_shutdown", "finalized", "finalized")
        for state in ("unconfigured", "inactive", "active")
    },
}


class Publisher:
    """A LifecyclePublisher."""

    def __init__(self, kind: type, topic: str, qos: QoSProfile) -> None:
        self.kind, self.topic, self.qos = kind, topic, qos
        self.sent: list[Any] = []
        self.listeners, self.enabled, self.destroyed = 0, False, False

    def publish(self, message: Any) -> None:
        assert isinstance(message, self.kind) and not self.destroyed
        if self.enabled:
            self.sent.append(copy.deepcopy(message))

    def get_subscription_count(self) -> int:
        assert not self.destroyed
        return self.listeners


class Subscription:
    def __init__(self, kind: type, topic: str, callback: Any, qos: QoSProfile) -> None:
        self.kind, self.topic, self.callback, self.qos = kind, topic, callback, qos
        self.queue: deque[Any] = deque(maxlen=qos.depth)


class Logger:
    """Keeps what is said; of a place that is throttled, once in a while."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self._last: dict[tuple[str, float], float] = {}

    def _say(self, level: str, text: str, throttle_duration_sec: float | None = None) -> None:
        if throttle_duration_sec is not None:
            key, now = (level, throttle_duration_sec), time.monotonic()
            if now - self._last.get(key, -1e9) < throttle_duration_sec:
                return
            self._last[key] = now
        self.said.append((level, text))

    def info(self, text: str, **options: float) -> None:
        self._say("info", text, **options)

    def warning(self, text: str, **options: float) -> None:
        self._say("warning", text, **options)

    def error(self, text: str, **options: float) -> None:
        self._say("error", text, **options)


class LifecycleNode:
    """rclpy.lifecycle.LifecycleNode, without its services: a test triggers transitions."""

    def __init__(
        self,
        node_name: str,
        *,
        namespace: str | None = None,
        parameter_overrides: list[Parameter] | None = None,
        enable_communication_interface: bool = True,
    ) -> None:
        self.state = "unconfigured"
        self.topics: dict[str, Publisher] = {}
        self.inputs: dict[str, Subscription] = {}
        self.clocks: list[Any] = []
        self.is_destroyed = False
        self._name, self._space = node_name, namespace or ""
        self._parameters = {"use_sim_time": False}
        self._descriptors: dict[str, Any] = {}
        self._overrides = {p.name: p.value for p in parameter_overrides or []}
        self._on_set: list[Callable[[list[Parameter]], Any]] = []
        self._log = Logger()

    # Parameters

    def declare_parameter(self, name: str, value: Any, descriptor: Any = None) -> Parameter:
        assert name not in self._parameters and value is not None
        self._descriptors[name] = descriptor or ParameterDescriptor()
        self._parameters[name] = value
        if name in self._overrides:
            problem = self._problem(name, self._overrides[name])
            if problem:
                raise ValueError(problem)  # InvalidParameterTypeException, ...ValueException
            self._parameters[name] = self._overrides[name]
        return self.get_parameter(name)

    def get_parameter(self, name: str) -> Parameter:
        return Parameter(name, value=self._parameters[name])

    def set_parameters(self, parameters: Iterable[Parameter]) -> list[Any]:
        """Set one after the other, as `ros2 param set` does."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameters]

    def set_parameters_atomically(self, parameters: list[Parameter]) -> Any:
        for parameter in parameters:
            problem = self._problem(parameter.name, parameter.value)
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        for callback in self._on_set:
            result = callback(parameters)
            assert isinstance(result, SetParametersResult)
            if not result.successful:
                return result
        self._parameters.update({parameter.name: parameter.value for parameter in parameters})
        return SetParametersResult(successful=True)

    def add_on_set_parameters_callback(self, callback: Callable[[list[Parameter]], Any]) -> None:
        self._on_set.insert(0, callback)

    def _problem(self, name: str, value: Any) -> str:
        if type(value) is not type(self._parameters[name]):
            return f"Wrong parameter type, parameter {name}"
        descriptor = self._descriptors.get(name) or ParameterDescriptor()
        for limit in (*descriptor.floating_point_range, *descriptor.integer_range):
            if not limit.from_value <= value <= limit.to_value:
                return f"Parameter {name} out of range"
        return ""

    # Entities

    def create_lifecycle_publisher(self, kind: type, topic: str, qos: QoSProfile) -> Publisher:
        assert isinstance(qos, QoSProfile) and topic not in self.topics
        self.topics[topic] = Publisher(kind, topic, qos)
        return self.topics[topic]

    def destroy_lifecycle_publisher(self, publisher: Publisher) -> bool:
        publisher.destroyed = True
        return self.topics.pop(publisher.topic) is publisher

    def create_subscription(
        self, kind: type, topic: str, callback: Any, qos_profile: QoSProfile
    ) -> Subscription:
        assert isinstance(qos_profile, QoSProfile) and topic not in self.inputs
        self.inputs[topic] = Subscription(kind, topic, callback, qos_profile)
        return self.inputs[topic]

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self.inputs.pop(subscription.topic) is subscription

    def create_timer(self, timer_period_sec: float, callback: Callable[[], None]) -> Any:
        self.clocks.append(SimpleNamespace(period_s=timer_period_sec, callback=callback))
        return self.clocks[-1]

    def destroy_timer(self, timer: Any) -> bool:
        self.clocks.remove(timer)
        return True

    def get_logger(self) -> Logger:
        return self._log

    def get_fully_qualified_name(self) -> str:
        return f"{self._space}/{self._name}"

    def get_clock(self) -> Any:
        stamp = Stamp(sec=7, nanosec=8)
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: stamp))

    def destroy_node(self) -> None:
        self.is_destroyed = True

    # Transitions

    def trigger_configure(self) -> TransitionCallbackReturn:
        return self._change("configure")

    def trigger_cleanup(self) -> TransitionCallbackReturn:
        return self._change("cleanup")

    def trigger_activate(self) -> TransitionCallbackReturn:
        return self._change("activate")

    def trigger_deactivate(self) -> TransitionCallbackReturn:
        return self._change("deactivate")

    def trigger_shutdown(self) -> TransitionCallbackReturn:
        return self._change("shutdown")

    def _change(self, transition: str) -> TransitionCallbackReturn:
        before = LifecycleState(self.state, 0)
        if (transition, self.state) not in TRANSITIONS:
            self._log.error(f"Unable to start transition {transition} from {self.state}")
            return TransitionCallbackReturn.ERROR
        name, after, after_failure = TRANSITIONS[transition, self.state]
        code = self._call(name, before)
        if code is TransitionCallbackReturn.ERROR:
            handled = self._call("on_error", before) is TransitionCallbackReturn.SUCCESS
            self.state = "unconfigured" if handled else "finalized"
        else:
            self.state = after if code is TransitionCallbackReturn.SUCCESS else after_failure
        return code

    def _call(self, name: str, before: LifecycleState) -> TransitionCallbackReturn:
        try:
            code = getattr(self, name)(before)
        except Exception:  # rclpy says nothing of it
            return TransitionCallbackReturn.ERROR
        assert isinstance(code, TransitionCallbackReturn)
        return code

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS

    on_cleanup = on_shutdown = on_error = on_configure

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        for publisher in self.topics.values():
            publisher.enabled = True
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        for publisher in self.topics.values():
            publisher.enabled = False
        return TransitionCallbackReturn.SUCCESS

    # What a test does in the place of the network and the executor.

    def arrive(self, topic: str, *messages: Any) -> None:
        """Let messages come, of which a subscription keeps as many as its depth says."""
        if topic in self.inputs:
            for one in messages:
                assert isinstance(one, self.inputs[topic].kind)
                self.inputs[topic].queue.append(one)

    def spin(self) -> None:
        """Call back for all that waits."""
        for subscription in list(self.inputs.values()):
            while subscription.queue:
                subscription.callback(subscription.queue.popleft())

    def tick(self) -> None:
        """Let each timer call back once."""
        for clock in list(self.clocks):
            clock.callback()


class ExternalShutdownException(Exception):
    """rclpy's."""


def modules() -> list[ModuleType]:
    """Return all that fastseg_ros imports of ROS."""
    names: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.executors": {"ExternalShutdownException": ExternalShutdownException},
        "rclpy.lifecycle": {
            "LifecycleNode": LifecycleNode,
            "LifecycleState": LifecycleState,
            "TransitionCallbackReturn": TransitionCallbackReturn,
        },
        "rclpy.qos": {
            "QoSProfile": QoSProfile,
            "ReliabilityPolicy": ReliabilityPolicy,
            "DurabilityPolicy": DurabilityPolicy,
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image, "CompressedImage": CompressedImage},
        "vision_msgs": {},
        "vision_msgs.msg": {"LabelInfo": LabelInfo, "VisionClass": VisionClass},
        "diagnostic_msgs": {},
        "diagnostic_msgs.msg": {
            "DiagnosticArray": DiagnosticArray,
            "DiagnosticStatus": DiagnosticStatus,
            "KeyValue": KeyValue,
        },
        "rcl_interfaces": {},
        "rcl_interfaces.msg": {
            "FloatingPointRange": FloatingPointRange,
            "IntegerRange": IntegerRange,
            "ParameterDescriptor": ParameterDescriptor,
            "SetParametersResult": SetParametersResult,
        },
    }
    made = []
    for name, contents in names.items():
        one = ModuleType(name)
        vars(one).update(contents)
        made.append(one)
    return made
