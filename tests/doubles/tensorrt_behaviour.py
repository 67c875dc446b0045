"""What stands behind the names of the fake tensorrt: a builder and an engine on ONNX Runtime.

Class and method names are those of TensorRT. An "engine" is a JSON header and the ONNX model.
"""

import ctypes
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tests.doubles.cudart_double import CudaFault, FakeCudart
from tests.doubles.tensorrt_graph_rules import find_violations

ONNX_TYPES = {
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BOOL: "BOOL",
}
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


@dataclass
class Scenario:
    """What goes wrong, or is missing, on this device."""

    build_errors: tuple[str, ...] = ()  # the build fails, logging these
    build_warnings: tuple[str, ...] = ()
    ignores_precision: bool = False  # builds in float, whatever was asked
    old_inspector: bool = False  # shows layer names only
    interrupt_at_step: int | None = None  # Ctrl-C, in the middle of the build
    refuses_capture: bool = False  # of CUDA graphs
    refuses_timing_cache: bool = False
    run_fails: bool = False
    depthwise_s: dict[str, float] = field(default_factory=dict)  # a frame's, "int8" and "float"
    fails_on_depthwise: tuple[str, str] = ("", "")  # "build" or "run", and of which of the two


@dataclass
class World:
    """The module's TensorRT and GPU, and a diary for the tests."""

    version: str
    cudart: FakeCudart
    scenario: Scenario
    severities: dict[str, Any] = field(default_factory=dict)
    configs: list["IBuilderConfig"] = field(default_factory=list)
    network_flags: list[int] = field(default_factory=list)
    builds: int = 0
    steps_reported: int = 0
    timing_caches: list[bytes] = field(default_factory=list)  # that builders were given

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def gpu(self) -> str:
        return f"{self.cudart.name} {self.cudart.sm}"


def depthwise_kind(model: Any) -> str:
    """Return "int8", "float" or, where there is no grouped convolution, ""."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    grouped = (
        node
        for node in model.graph.node
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    )
    kinds = ("int8" if makers.get(n.input[0]) == "DequantizeLinear" else "float" for n in grouped)
    return next(kinds, "")


@dataclass(frozen=True)
class EnumName:
    """An enum value that a behaviour returns; the module replaces it by its own."""

    enum: str
    name: str


class Behaviour:
    """What the module wraps in the class of the same name."""


def log(logger: Any, world: World, severity: str, message: str) -> None:
    logger.log(world.severities[severity], message)


class IHostMemory(Behaviour):
    def __init__(self, data: bytes) -> None:
        self.data, self.nbytes = data, len(data)


class ITimingCache(Behaviour):
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data or b"timings")


class Builder(Behaviour):
    def __init__(self, world: World, logger: Any) -> None:
        self.world, self.logger = world, logger
        self.platform_has_fast_fp16 = self.platform_has_fast_int8 = True

    def create_network(self, flags: Any) -> "INetworkDefinition":
        self.world.network_flags.append(int(flags))
        return INetworkDefinition(self.world, int(flags))

    def create_builder_config(self) -> "IBuilderConfig":
        config = IBuilderConfig(self.world)
        self.world.configs.append(config)
        return config

    def build_serialized_network(
        self, network: "INetworkDefinition", config: "IBuilderConfig"
    ) -> IHostMemory | None:
        self.world.builds += 1
        scenario, errors = self.world.scenario, list(self.world.scenario.build_errors)
        if scenario.fails_on_depthwise == ("build", depthwise_kind(network.model)):
            errors.append("Error Code 10: Could not find any implementation for node depthwise.")
        for warning in scenario.build_warnings:
            log(self.logger, self.world, "WARNING", warning)
        errors += self._contradictions(network, config)
        if not errors and not self._report(config.progress_monitor):
            return None
        for error in errors:
            log(self.logger, self.world, "ERROR", error)
        return None if errors else IHostMemory(self._plan(network, config))

    def _contradictions(self, network: "INetworkDefinition", config: "IBuilderConfig") -> list[str]:
        errors = []
        quantized = any(node.op_type in _QUANTIZED for node in network.model.graph.node)
        if network.strongly_typed and config.precisions():
            errors.append("Error Code 3: API Usage Error (strongly typed network, flags set)")
        if quantized and not network.strongly_typed and "INT8" not in config.precisions():
            errors.append(
                "Error Code 4: Internal Error (Int8 precision has been set for a layer or layer "
                "output, but int8 is not configured in the builder)"
            )
        if config.limits.get("WORKSPACE", 0) > self.world.cudart.free_bytes:
            errors.append("Error Code 10: Could not find any implementation for node Conv_0.")
        return errors

    def _report(self, monitor: Any) -> bool:
        """Take the steps of a build and return whether it may be finished."""
        if monitor is None:
            return True
        monitor.phase_start("Building Engine", None, 1)
        monitor.phase_start("Selecting tactics", "Building Engine", 3)
        for step in range(3):
            self.world.steps_reported += 1
            if step == self.world.scenario.interrupt_at_step:
                ctypes.pythonapi.PyErr_SetInterrupt()  # what Ctrl-C does
                self._wait_for_cancel(monitor, step)
            if not monitor.step_complete("Selecting tactics", step):
                return False
        monitor.phase_finish("Selecting tactics")
        monitor.step_complete("Building Engine", 0)
        monitor.phase_finish("Building Engine")
        return True

    def _wait_for_cancel(self, monitor: Any, step: int) -> None:
        while monitor.step_complete("Selecting tactics", step):
            time.sleep(0.001)  # TensorRT holds no GIL between its steps

    def _plan(self, network: "INetworkDefinition", config: "IBuilderConfig") -> bytes:
        detailed = getattr(config.profiling_verbosity, "name", "") == "DETAILED"
        detailed &= not self.world.scenario.old_inspector
        layers = [self._layer(network, node, config, detailed) for node in network.model.graph.node]
        header = {"tensorrt": self.world.version, "gpu": self.world.gpu, "Layers": layers}
        return json.dumps(header).encode() + b"\0" + network.model.SerializeToString()

    def _layer(
        self, network: "INetworkDefinition", node: Any, config: "IBuilderConfig", detailed: bool
    ) -> Any:
        if not detailed:
            return node.name
        kind = "CaskConvolution" if node.op_type == "Conv" else "NoOp"
        datatype = self._datatype(network, node, config)
        return {
            "Name": node.name,
            "LayerType": kind,
            "Inputs": [{"Name": node.input[0], "Format/Datatype": datatype}],
        }

    def _datatype(self, network: "INetworkDefinition", node: Any, config: "IBuilderConfig") -> str:
        graph = network.model.graph
        makers = {name: other for other in graph.node for name in other.output}
        quantized = getattr(makers.get(node.input[0]), "op_type", "") == "DequantizeLinear"
        half_weights = any(
            w.name in node.input[1:] and w.data_type == onnx.TensorProto.FLOAT16
            for w in graph.initializer
        )
        if self.world.scenario.ignores_precision:
            return self._name("fp32")
        if quantized and (network.strongly_typed or "INT8" in config.precisions()):
            return self._name("int8")
        half = half_weights if network.strongly_typed else "FP16" in config.precisions()
        return self._name("fp16" if half else "fp32")

    def _name(self, precision: str) -> str:
        """Return a datatype as the inspector of TensorRT 8 and of 10 writes it."""
        if self.world.major >= 10:
            return {"fp32": "Float", "fp16": "Half", "int8": "Int8"}[precision]
        return {
            "fp32": "Row major linear FP32",
            "fp16": "Channel major FP16 format where channel % 8 == 0",
            "int8": "Thirty-two wide channel vectorized row major Int8 format.",
        }[precision]


class IBuilderConfig(Behaviour):
    def __init__(self, world: World) -> None:
        self.world = world
        self.flags_set: list[str] = []
        self.flags_cleared: list[str] = []
        self.limits: dict[str, int] = {}
        self.profiling_verbosity: Any = None
        self.progress_monitor: Any = None
        self.timing_cache: ITimingCache | None = None

    def precisions(self) -> set[str]:
        return {"FP16", "INT8", "BF16", "FP8"} & set(self.flags_set)

    def set_flag(self, flag: Any) -> None:
        self.flags_set.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags_cleared.append(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.limits[pool.name] = pool_size

    def create_timing_cache(self, serialized: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if self.world.scenario.refuses_timing_cache and cache.data:
            return False
        self.world.timing_caches.append(cache.data)
        self.timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self.timing_cache


class INetworkDefinition(Behaviour):
    model: onnx.ModelProto

    def __init__(self, world: World, flags: int) -> None:
        explicit_batch, typed = bool(flags & 1), bool(flags & 2)
        if world.major == 8 and not explicit_batch:
            raise RuntimeError("the ONNX parser needs an explicit batch dimension")
        self.strongly_typed = world.major >= 11 or (world.major == 10 and typed)


class OnnxParser(Behaviour):
    def __init__(self, world: World, network: INetworkDefinition, logger: Any) -> None:
        self.world, self.network, self.logger = world, network, logger
        self.errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> "ParserError":
        return self.errors[index]

    def parse(self, model: bytes, path: Any) -> bool:
        try:
            self.network.model = onnx.load_from_string(bytes(model))
        except Exception as error:  # protobuf's own type
            self.errors.append(ParserError(-1, "", "", f"Failed to parse the ONNX model: {error}"))
            return False
        violations = find_violations(self.network.model, self.world.major)
        self.errors += [ParserError(v.node, v.name, v.operator, v.text) for v in violations]
        return not violations


class ParserError(Behaviour):
    def __init__(self, node: int, name: str, operator: str, text: str) -> None:
        self._node, self._name, self._operator, self._text = node, name, operator, text

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator

    def desc(self) -> str:
        return self._text


class Runtime(Behaviour):
    def __init__(self, world: World, logger: Any) -> None:
        self.world, self.logger = world, logger

    def deserialize_cuda_engine(self, plan: bytes) -> "ICudaEngine | None":
        text, _, model = bytes(plan).partition(b"\0")
        try:
            header = json.loads(text)
        except ValueError:
            return self._refuse("Error Code 1: Serialization (magicTag does not match)")
        if header["tensorrt"] != self.world.version:
            return self._refuse(
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {self.world.version} got {header['tensorrt']}, please rebuild."
            )
        if header["gpu"] != self.world.gpu:
            return self._refuse("The engine plan file is generated on an incompatible device")
        return ICudaEngine(self.world, self.logger, header, model)

    def _refuse(self, message: str) -> None:
        log(self.logger, self.world, "ERROR", message)


class EngineInspector(Behaviour):
    def __init__(self, header: dict[str, Any]) -> None:
        self.header = header

    def get_engine_information(self, format: Any) -> str:
        return json.dumps({"Layers": self.header["Layers"], "Bindings": []})


class ICudaEngine(Behaviour):
    def __init__(self, world: World, logger: Any, header: dict[str, Any], model: bytes) -> None:
        self.world, self.logger, self.header = world, logger, header
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self.depthwise = depthwise_kind(onnx.load_from_string(model))
        graph = onnx.load_from_string(model).graph
        self.tensors = {value.name: value for value in [*graph.input, *graph.output]}
        self.inputs = {value.name for value in graph.input}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> EnumName:
        return EnumName("TensorIOMode", "INPUT" if name in self.inputs else "OUTPUT")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self.tensors[name].type.tensor_type.shape.dim
        return tuple(dim.dim_value for dim in dims)

    def get_tensor_dtype(self, name: str) -> EnumName:
        return EnumName("DataType", ONNX_TYPES[self.tensors[name].type.tensor_type.elem_type])

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self.header)

    def create_execution_context(self, *arguments: Any) -> "IExecutionContext":
        return IExecutionContext(self)


class IExecutionContext(Behaviour):
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = int(memory)
        return name in self.engine.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        world, cudart = self.engine.world, self.engine.world.cudart
        fails = world.scenario.fails_on_depthwise == ("run", self.engine.depthwise)
        fails |= world.scenario.run_fails
        if set(self.addresses) != set(self.engine.tensors) or fails:
            log(self.engine.logger, world, "ERROR", "Error Code 3: a tensor has no address")
            return False
        if world.scenario.refuses_capture and cudart.capturing(int(stream_handle)):
            cudart.spoil_capture(int(stream_handle))
            log(self.engine.logger, world, "ERROR", "Error Code 1: Cuda Runtime (900)")
            return False
        addresses = dict(self.addresses)  # as they are now: a graph keeps them
        try:
            cudart.enqueue(int(stream_handle), lambda: self._run(addresses))
        except CudaFault:
            return False
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        time.sleep(self.engine.world.scenario.depthwise_s.get(self.engine.depthwise, 0.0))
        feeds = {name: self._array(name, addresses[name]) for name in self.engine.inputs}
        names = [name for name in self.engine.tensors if name not in self.engine.inputs]
        for name, value in zip(names, self.engine.session.run(names, feeds), strict=True):
            self._array(name, addresses[name])[...] = value

    def _array(self, name: str, address: int) -> Any:
        elem_type = self.engine.tensors[name].type.tensor_type.elem_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))
        shape = self.engine.get_tensor_shape(name)
        memory = self.engine.world.cudart.view(address, int(np.prod(shape)) * dtype.itemsize)
        return np.frombuffer(memory, dtype).reshape(shape)
