"""Build a TensorRT engine from our ONNX, on the machine that will run it.

One builder for the runtime, the exporter and the benchmark, for TensorRT 8.5 to 11. Up to 10
the precision is a builder flag; 11 is strongly typed and takes it from the graph. Int8 ranges
come from the Q/DQ nodes of the graph in every release, never from a calibrator.

A build takes minutes: it runs aside, shows how far it is, and stops at Ctrl-C.

A builder may ignore what it was asked for without a word (a missing flag, a GPU without fast
half precision, a graph in another type); the engine then works, slowly. So its layers are audited
with the engine inspector, whose JSON, at ProfilingVerbosity.DETAILED, gives every layer's inputs
with their "Format/Datatype", as in "Channel major FP16 format where channel % 8 == 0" (8.x) or
"Half" (10.x).
"""

import datetime
import hashlib
import json
import threading
import time
from collections import Counter
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

import fastseg_runtime
from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.engines.tensorrt.cuda import Cuda, current_device
from fastseg_runtime.engines.tensorrt.errors import (
    MEMORY_FIX,
    Messages,
    TensorRTError,
    explain,
    make_logger,
    parser_messages,
)
from fastseg_runtime.engines.tensorrt.platform import Platform, describe_platform

T = TypeVar("T")
TICK_S = 0.5
CANCEL_S = 10.0  # how long a cancelled build may take to notice


@dataclass
class BuildStatus:
    """How far a build is. Written by TensorRT's threads, read by the one that waits."""

    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    phases: Dict[str, Tuple[int, int]] = field(default_factory=dict)  # name -> done, total

    @property
    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        """Return the time and the phases under way, outermost first: "Tactics 40/97"."""
        parts = [f"{name} {done}/{total}" for name, (done, total) in list(self.phases.items())]
        under_way = ", ".join(parts) or "working"
        return f"building the TensorRT engine: {self.seconds:.0f} s, {under_way}"


Progress = Callable[[BuildStatus], None]


def make_monitor(trt: Any, status: BuildStatus) -> Optional[Any]:
    """Return a trt.IProgressMonitor that writes to a status; None before TensorRT 10."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class StatusMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Keeps the phases under way; returning False from a step stops the build."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            status.phases[phase_name] = (0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = status.phases.get(phase_name, (0, step + 1))[1]
            status.phases[phase_name] = (step + 1, total)
            return not status.cancelled

        def phase_finish(self, phase_name: str) -> None:
            status.phases.pop(phase_name, None)

    return StatusMonitor()


def run_build(work: Callable[[], T], status: BuildStatus, progress: Optional[Progress]) -> T:
    """Run a build in a thread of its own, reporting every half second.

    Only so can Ctrl-C be noticed while TensorRT's C++ code runs, and is there a sign of life
    from releases that report no progress.

    Raises:
        KeyboardInterrupt: at Ctrl-C, after the build has stopped if this TensorRT can stop.
    """
    result: Future[T] = Future()  # novm: not evaluated in a function

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    # A daemon: a build that cannot be cancelled must not outlive the program.
    thread = threading.Thread(target=run, daemon=True, name="TensorRT build")
    try:
        thread.start()  # in here: Ctrl-C may come before it returns
        while True:
            if progress is not None:
                progress(status)
            if wait([result], TICK_S).done:
                return result.result()
    except BaseException:
        status.cancelled = True
        wait([result], CANCEL_S)
        raise


PRECISION_FLAGS: Dict[str, Tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("FP16",),
    "int8": ("INT8", "FP16"),
}
WORKSPACE_BYTES = 1 << 30  # more has not been seen to help networks of this size
MIN_WORKSPACE_BYTES = 32 << 20
MIN_SHARE = 0.5  # of the convolutions: the rest may be faster in float, the builder measured it
_NAMES = (
    ("whole numbers", ("uint8", "int32", "int64", "bool")),
    ("int8", ("int8",)),
    ("fp16", ("half", "fp16")),
    ("fp32", ("float", "fp32")),
)
# Classes that change form or place of values; what they are given was somebody else's choice.
_MOVING = ("Reformat", "Shuffle", "NoOp", "Constant", "Cast", "Slice", "Concatenation")
_ACCEPTED = {"int8": ("int8",), "fp16": ("fp16", "int8"), "fp32": ("fp32", "fp16", "int8")}


@dataclass(frozen=True)
class Audit:
    """Layers by the type of their input, "unknown" where the inspector does not say.

    Attributes:
        asked: the precision.
        counts: of convolutions.
        others: names of the convolutions that did not take the precision; where none is shown,
            of the other layers that compute in float32.
        layers: of all other layers, by class as the inspector calls it.
    """

    asked: str
    counts: Dict[str, int]
    others: Tuple[str, ...]
    layers: Dict[str, Dict[str, int]]

    @property
    def readable(self) -> bool:
        """Return whether the inspector told the type of any convolution."""
        return any(name != "unknown" for name in self.counts)

    @property
    def passed(self) -> bool:
        """Return whether enough convolutions took the precision, or nobody can tell.

        A compiler may fuse all of them into layers of other classes. What int8 leaves is in half,
        so of those no more than half may be in float32, whatever less was asked.
        """
        if self.counts:
            counts, accepted = self.counts, _ACCEPTED[self.asked]
        else:
            counts, accepted = (
                self._computing(),
                _ACCEPTED["fp32" if self.asked == "fp32" else "fp16"],
            )
        known = sum(counts.get(name, 0) for name in _ACCEPTED["fp32"])
        return sum(counts.get(name, 0) for name in accepted) >= MIN_SHARE * known

    def _computing(self) -> Dict[str, int]:
        """Return layers that are no convolutions by type, without those that but move values."""
        found: Dict[str, int] = Counter()
        for kind, counts in self.layers.items():
            if kind not in _MOVING:
                found.update(counts)
        return found

    def __str__(self) -> str:
        """Return the counts, "convolutions: 38 in fp16, 2 in fp32; others in fp32: 3 Reduce"."""
        parts = [f"{count} in {name}" for name, count in sorted(self.counts.items())]
        said = f"convolutions: {', '.join(parts) or 'none that the inspector shows'}"
        wide = [
            f"{counts['fp32']} {kind}"
            for kind, counts in sorted(self.layers.items())
            if "fp32" in counts and kind not in _MOVING
        ]
        return f"{said}; others in fp32: {', '.join(wide)}" if wide else said


def audit_layers(inspector_json: str, precision: str) -> Audit:
    """Count the layers in the inspector's JSON by class and by precision."""
    try:
        layers = json.loads(inspector_json).get("Layers", [])
    except ValueError:
        layers = []
    layers = [layer for layer in layers if isinstance(layer, dict)]  # below DETAILED but names
    convolutions = [layer for layer in layers if _is_convolution(layer)]
    classes: Dict[str, Dict[str, int]] = {}
    for layer in layers:
        if not _is_convolution(layer):
            kind = str(layer.get("LayerType", "?"))
            classes.setdefault(kind, Counter())[_input_precision(layer)] += 1
    judged, accepted = convolutions, _ACCEPTED[precision]
    if not convolutions and precision != "fp32":
        judged = [layer for layer in layers if str(layer.get("LayerType")) not in _MOVING]
        accepted = ("int8", "fp16", "whole numbers", "unknown")
    return Audit(
        precision,
        dict(Counter(map(_input_precision, convolutions))),
        tuple(str(x.get("Name", "?")) for x in judged if _input_precision(x) not in accepted),
        {kind: dict(counts) for kind, counts in classes.items()},
    )


def _is_convolution(layer: Dict[str, Any]) -> bool:
    return "convolution" in f"{layer.get('LayerType')} {layer.get('ParameterType')}".lower()


def _input_precision(layer: Dict[str, Any]) -> str:
    inputs = layer.get("Inputs") or [{}]
    datatype = str(inputs[0].get("Format/Datatype", "")).lower()
    for name, words in _NAMES:
        if any(word in datatype for word in words):
            return name
    return "unknown"


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine with the record of its build."""

    plan: bytes
    record: Dict[str, Any]
    timing_cache: bytes


def build_engine(
    trt: Any,
    cuda: Cuda,
    onnx: bytes,
    precision: str,
    timing_cache: bytes = b"",
    device: int = 0,
    progress: Optional[Progress] = None,
) -> BuiltEngine:
    """Build an engine and check that its layers took the precision.

    Args:
        onnx: the model, one file without external data.
        precision: "fp32", "fp16" or "int8"; int8 needs a graph with Q/DQ nodes.
        timing_cache: of an earlier build with the same TensorRT on the same GPU; saves minutes.
        device: index of the GPU.
        progress: called about twice a second while it lasts.

    Raises:
        BundleError: the graph names other files.
        TensorRTError: it failed, with the cause and what to do, or the layers did not take
            the precision.
        KeyboardInterrupt: at Ctrl-C.
    """
    if precision not in PRECISION_FLAGS:
        raise TensorRTError(f"no precision {precision!r}; choose one of {sorted(PRECISION_FLAGS)}")
    if precision == "int8" and b"QuantizeLinear" not in onnx:
        raise TensorRTError(
            "int8 needs a graph with Q/DQ nodes: export it with --target jetson-int8"
        )
    check_onnx(onnx, "the ONNX graph")
    status = BuildStatus()

    def work() -> BuiltEngine:
        with current_device(cuda, device):  # of this thread
            platform = describe_platform(trt, cuda, device)
            workspace_bytes = clamp_workspace(cuda.free_bytes())
            return _Build(trt, platform, workspace_bytes, precision, status).run(onnx, timing_cache)

    return run_build(work, status, progress)


class _Build:
    """One build: the objects that its steps share."""

    def __init__(
        self,
        trt: Any,
        platform: Platform,
        workspace_bytes: int,
        precision: str,
        status: BuildStatus,
    ) -> None:
        self.trt, self.platform, self.workspace_bytes = trt, platform, workspace_bytes
        self.precision, self.status = precision, status
        self.flags = () if platform.release.strongly_typed else PRECISION_FLAGS[precision]
        self.messages = Messages()
        self.logger = make_logger(trt, self.messages)

    def run(self, onnx: bytes, timing_cache: bytes) -> BuiltEngine:
        builder = self.trt.Builder(self.logger)
        kind = "STRONGLY_TYPED" if self.platform.release.strongly_typed else "EXPLICIT_BATCH"
        flags = self.trt.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(getattr(flags, kind)))
        parser = self.trt.OnnxParser(network, self.logger)  # owns the weights until it is done
        if not parser.parse(onnx):
            self.messages.errors.extend(parser_messages(parser))
            raise explain("reading the ONNX graph", self.messages)
        config = self._configure(builder, timing_cache)
        memory = builder.build_serialized_network(network, config)
        del parser
        if memory is None:
            raise explain("building the engine", self.messages)
        plan = bytes(memory)
        record = self._record(onnx, plan, self._audit(plan))
        return BuiltEngine(plan, record, bytes(config.get_timing_cache().serialize()))

    def _configure(self, builder: Any, timing_cache: bytes) -> Any:
        config = builder.create_builder_config()
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, self.workspace_bytes)
        config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # for the audit
        for flag in self.flags:
            config.set_flag(getattr(self.trt.BuilderFlag, flag))
        if self.precision == "fp32":  # on by default, it rounds to 10 bits, and is no board's fp32
            config.clear_flag(self.trt.BuilderFlag.TF32)
        monitor = make_monitor(self.trt, self.status)
        if monitor is not None:
            config.progress_monitor = monitor
        cache = config.create_timing_cache(timing_cache)
        if not config.set_timing_cache(cache, False):  # of another TensorRT or GPU: start afresh
            config.set_timing_cache(config.create_timing_cache(b""), False)
        return config

    def _audit(self, plan: bytes) -> Audit:
        runtime = self.trt.Runtime(self.logger)
        engine = load_engine(runtime, plan, self.messages)
        inspector, form = engine.create_engine_inspector(), self.trt.LayerInformationFormat.JSON
        audit = audit_layers(inspector.get_engine_information(form), self.precision)
        if not audit.passed:
            raise TensorRTError(
                f"the engine did not take {audit.asked}: {audit} (first: {audit.others[0]}). "
                "This GPU may have no fast kernels for it, or the graph is in another type; "
                "use a target of another precision"
            )
        return audit

    def _record(self, onnx: bytes, plan: bytes, audit: Audit) -> Dict[str, Any]:
        return {
            "schema": 1,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "fastseg_runtime": fastseg_runtime.__version__,
            "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
            "precision": self.precision,
            "platform": asdict(self.platform),
            "flags": list(self.flags),
            "workspace_bytes": self.workspace_bytes,
            "seconds": round(self.status.seconds, 1),
            "audit": {
                "counts": audit.counts,
                "others": audit.others,
                "layers": audit.layers,
                "readable": audit.readable,
            },
            "warnings": list(self.messages.warnings)[-20:],
            "engine_bytes": len(plan),
            "engine_sha256": hashlib.sha256(plan).hexdigest(),
        }


def load_engine(runtime: Any, plan: bytes, messages: Messages) -> Any:
    """Deserialize an engine; only for bytes whose hash is in a build record of ours.

    Deserializing runs native code from the plan: a manipulated one can do anything.
    The runtime must outlive the engine; `messages` are those of the runtime's logger.

    Raises:
        TensorRTError: TensorRT refuses it, with the cause.
    """
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise explain("loading the engine", messages)
    return engine


def clamp_workspace(free_bytes: int) -> int:
    """Return how much scratch memory the builder may use: half of what is free, up to 1 GiB.

    The other half is for weights, activations and kernels; asking for more than there is ends
    in "could not find any implementation for node" on small boards.

    Raises:
        TensorRTError: too little is free to try.
    """
    workspace_bytes = min(WORKSPACE_BYTES, free_bytes // 2)
    if workspace_bytes < MIN_WORKSPACE_BYTES:
        raise TensorRTError(
            f"only {free_bytes >> 20} MiB of GPU memory are free, "
            f"{2 * MIN_WORKSPACE_BYTES >> 20} MiB are the least to build with: {MEMORY_FIX}"
        )
    return workspace_bytes
