"""Build a TensorRT engine from our ONNX, on the machine that will run it.

One builder for the runtime, the exporter and the benchmark, for TensorRT 8.5 to 11. Up to 10
the precision is a builder flag; 11 is strongly typed and takes it from the graph. Int8 ranges
come from the Q/DQ nodes of the graph in every release, never from a calibrator.

A build takes minutes: it runs aside, shows how far it is, and stops at Ctrl-C.
"""

import datetime
import hashlib
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple, TypeVar

import fastseg_runtime
from fastseg_runtime.arrays.progress import StatusLine
from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.engines.tensorrt.audit import Audit, audit_engine
from fastseg_runtime.engines.tensorrt.cuda import Cuda, current_device
from fastseg_runtime.engines.tensorrt.errors import (
    MEMORY_FIX,
    Messages,
    TensorRTError,
    explain,
    make_logger,
    parser_messages,
)
from fastseg_runtime.engines.tensorrt.platform import describe_platform

T = TypeVar("T")
TICK_S = 0.5
PLAIN_LINE_S = 30.0  # between lines where the output is no terminal
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
        """Return the phases under way, outermost first: "Building Engine 1/3, Tactics 40/97"."""
        parts = [f"{name} {done}/{total}" for name, (done, total) in list(self.phases.items())]
        return ", ".join(parts) or "working"


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


class ProgressPrinter(StatusLine):
    """Writes the status of a build to stderr."""

    def __init__(self, stream: Optional[TextIO] = None) -> None:
        super().__init__(PLAIN_LINE_S, stream)

    def __enter__(self) -> "ProgressPrinter":
        """Return the printer itself."""
        return self

    def __call__(self, status: BuildStatus) -> None:
        """Show it."""
        self.show(f"building the TensorRT engine: {status.seconds:.0f} s, {status}")


PRECISION_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}
WORKSPACE_BYTES = 1 << 30  # more has not been seen to help networks of this size
MIN_WORKSPACE_BYTES = 32 << 20


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine with the record of its build."""

    plan: bytes
    record: Dict[str, Any]
    timing_cache: bytes


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        onnx: the model, one file without external data.
        precision: "fp32", "fp16" or "int8"; int8 needs a graph with Q/DQ nodes.
        timing_cache: of an earlier build with the same TensorRT on the same GPU; saves minutes.
        device: index of the GPU.
    """

    onnx: bytes
    precision: str
    timing_cache: bytes = b""
    device: int = 0


def build_engine(
    trt: Any, cuda: Cuda, request: BuildRequest, progress: Optional[Progress] = None
) -> BuiltEngine:
    """Build an engine and check that its layers took the precision.

    Args:
        trt: the tensorrt module.
        cuda: the CUDA runtime.
        request: what to build.
        progress: called about twice a second while it lasts.

    Raises:
        BundleError: the graph names other files.
        TensorRTError: it failed, with the cause and what to do, or the layers did not take
            the precision.
        KeyboardInterrupt: at Ctrl-C.
    """
    if request.precision not in PRECISION_FLAGS:
        raise TensorRTError(
            f"no precision {request.precision!r}; choose one of {sorted(PRECISION_FLAGS)}"
        )
    if request.precision == "int8" and b"QuantizeLinear" not in request.onnx:
        raise TensorRTError(
            "int8 needs a graph with Q/DQ nodes: export it with --target jetson-int8"
        )
    check_onnx(request.onnx, "the ONNX graph")
    status = BuildStatus()

    def work() -> BuiltEngine:
        with current_device(cuda, request.device):  # of this thread
            return _Build(trt, cuda, request, status).run()

    return run_build(work, status, progress)


class _Build:
    """One build: the objects that its steps share."""

    def __init__(self, trt: Any, cuda: Cuda, request: BuildRequest, status: BuildStatus) -> None:
        self.trt, self.request, self.status = trt, request, status
        self.platform = describe_platform(trt, cuda, request.device)
        self.workspace_bytes = clamp_workspace(cuda.free_bytes())
        self.messages = Messages()
        self.logger = make_logger(trt, self.messages)
        self.flags = self._flags()

    def run(self) -> BuiltEngine:
        builder = self.trt.Builder(self.logger)
        network = builder.create_network(self._network_flags())
        parser = self._parse(network)  # owns the weights until the build is done
        config = self._configure(builder)
        memory = builder.build_serialized_network(network, config)
        del parser
        if memory is None:
            raise explain("building the engine", self.messages)
        plan = bytes(memory)
        audit = self._audit(plan)
        timing_cache = bytes(config.get_timing_cache().serialize())
        return BuiltEngine(plan, self._record(plan, audit), timing_cache)

    def _flags(self) -> List[str]:
        typed = self.platform.release.strongly_typed
        return [] if typed else list(PRECISION_FLAGS[self.request.precision])

    def _network_flags(self) -> int:
        flags = self.trt.NetworkDefinitionCreationFlag
        if self.platform.release.strongly_typed:
            return 1 << int(flags.STRONGLY_TYPED)
        return 1 << int(flags.EXPLICIT_BATCH)

    def _parse(self, network: Any) -> Any:
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse(self.request.onnx):
            self.messages.errors.extend(parser_messages(parser))
            raise explain("reading the ONNX graph", self.messages)
        return parser

    def _configure(self, builder: Any) -> Any:
        config = builder.create_builder_config()
        config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, self.workspace_bytes)
        config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # for the audit
        for flag in self.flags:
            config.set_flag(getattr(self.trt.BuilderFlag, flag))
        monitor = make_monitor(self.trt, self.status)
        if monitor is not None:
            config.progress_monitor = monitor
        self._set_timing_cache(config)
        return config

    def _set_timing_cache(self, config: Any) -> None:
        cache = config.create_timing_cache(self.request.timing_cache)
        if not config.set_timing_cache(cache, False):  # of another TensorRT or GPU: start afresh
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def _audit(self, plan: bytes) -> Audit:
        runtime = self.trt.Runtime(self.logger)
        engine = load_engine(runtime, plan, self.messages)
        audit = audit_engine(self.trt, engine, self.request.precision)
        if not audit.passed:
            raise TensorRTError(
                f"the engine did not take {audit.asked}: {audit} (first: {audit.others[0]}). "
                "This GPU may have no fast kernels for it, or the graph is in another type; "
                "use a target of another precision"
            )
        return audit

    def _record(self, plan: bytes, audit: Audit) -> Dict[str, Any]:
        return {
            "schema": 1,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "fastseg_runtime": fastseg_runtime.__version__,
            "onnx_sha256": hashlib.sha256(self.request.onnx).hexdigest(),
            "precision": self.request.precision,
            "platform": asdict(self.platform),
            "flags": self.flags,
            "workspace_bytes": self.workspace_bytes,
            "seconds": round(self.status.seconds, 1),
            "audit": {"counts": audit.counts, "others": audit.others, "readable": audit.readable},
            "warnings": list(self.messages.warnings)[-20:],
            "engine_bytes": len(plan),
            "engine_sha256": hashlib.sha256(plan).hexdigest(),
        }


def load_engine(runtime: Any, plan: bytes, messages: Messages) -> Any:
    """Deserialize an engine; only for bytes whose hash is in a build record of ours.

    Deserializing runs native code from the plan: a manipulated one can do anything.

    Args:
        runtime: a trt.Runtime, which must outlive the engine.
        plan: the serialized engine.
        messages: where the runtime's logger keeps what it says.

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
