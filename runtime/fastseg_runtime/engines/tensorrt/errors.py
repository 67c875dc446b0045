"""What TensorRT writes when it fails, turned into a cause and something to do about it."""

import re
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Iterable, List, Optional


class TensorRTError(RuntimeError):
    """An engine could not be built, loaded or run; the message says why and what to do."""


@dataclass(frozen=True)
class Diagnosis:
    """A failure that has been seen before."""

    pattern: str  # searched in the messages, without regard to case
    cause: str
    fix: str


MEMORY_FIX = (
    "close other programs (on a Jetson the desktop too: sudo systemctl isolate "
    "multi-user.target), add swap, or export with a smaller --size"
)
REBUILD = (
    "delete the cached engine (fastseg-run --cache clear); it is built again at the next start"
)
_KEPT = 100  # messages
_NODE_NAMES = ("node_name", "node_operator")
# The first that matches wins, so what names its cause comes before what may have many.
DIAGNOSES = (
    Diagnosis(
        r"target gpu sm \d+ is not supported",
        "this TensorRT has no kernels for this GPU, as the wheels of PyPI have none for Jetsons",
        "use JetPack's own: pip uninstall tensorrt, then a venv with --system-site-packages",
    ),
    Diagnosis(
        r"cuda initialization failure with error:? (35|100|999)|driver version is insufficient",
        "TensorRT cannot reach the GPU: no driver, or one older than its CUDA",
        "update the driver or JetPack; in a container, start it with --runtime nvidia",
    ),
    Diagnosis(
        r"expecting library version|not compatible with this version of tensorrt|"
        r"magic ?tag|serialization (version|assertion)|version tag does not match",
        "the engine was built by another TensorRT",
        REBUILD,
    ),
    Diagnosis(
        r"incompatible device|different models of devices|platform.*mismatch|"
        r"generated on an? .*device",
        "the engine was built on another kind of GPU",
        REBUILD,
    ),
    Diagnosis(
        r"no importer registered|unsupported (operator|node|graph)|unsupported_node|"
        r"plugin not found|not find plugin|creator.*not found",
        "the graph holds an operation that this TensorRT does not have",
        "update TensorRT, or replace the operation in the network",
    ),
    Diagnosis(
        r"zero[- _]?point",
        "the int8 graph is not symmetric, which TensorRT asks for",
        "export with --target jetson-int8; other int8 ONNX files are made for other engines",
    ),
    Diagnosis(
        r"int8 is not configured|fp16 is not configured|strongly typed|type constraint",
        "precision flags and the types in the graph contradict each other",
        "export again with --target 'jetson-*'; a graph made for another engine does not fit",
    ),
    Diagnosis(
        r"out ?of ?memory|outofmemory|cudaerrormemoryallocation|requested amount of gpu memory|"
        r"insufficient memory|insuficient memory|nvmapmemalloc|sufficient workspace|"
        r"std::bad_alloc|cuda (memory|failure: 2)\b",
        "there was not enough memory to build or load the engine",
        MEMORY_FIX,
    ),
    Diagnosis(
        r"could not find any implementation for node",
        "no kernel could be timed, which nearly always means too little free memory",
        MEMORY_FIX,
    ),
)


class Messages:
    """The last things that TensorRT logged, oldest first; an engine may run for months."""

    def __init__(self, errors: Iterable[str] = (), warnings: Iterable[str] = ()) -> None:
        self.errors: Deque[str] = deque(errors, maxlen=_KEPT)
        self.warnings: Deque[str] = deque(warnings, maxlen=_KEPT)


def explain(what: str, messages: Messages) -> TensorRTError:
    """Return an error that says what failed, the likely cause, a fix, and TensorRT's own words."""
    said = list(messages.errors or messages.warnings)
    quoted = "\nTensorRT said: " + " | ".join(text.strip() for text in said[-4:]) if said else ""
    # Warnings come second: one about a tactic without memory explains no error that names a cause.
    diagnosis = diagnose(messages.errors) or diagnose(messages.warnings)
    if diagnosis is None:
        return TensorRTError(f"{what} failed, and the cause is not one that fastseg knows.{quoted}")
    return TensorRTError(f"{what} failed: {diagnosis.cause}. To do: {diagnosis.fix}.{quoted}")


def diagnose(texts: Iterable[str]) -> Optional[Diagnosis]:
    """Return the first known failure that shows in some messages."""
    found = (d for d in DIAGNOSES if any(re.search(d.pattern, text, re.I) for text in texts))
    return next(found, None)


def make_logger(trt: Any, messages: Messages) -> Any:
    """Return a trt.ILogger that keeps errors and warnings, and prints nothing."""
    kept = {
        trt.ILogger.INTERNAL_ERROR: messages.errors,
        trt.ILogger.ERROR: messages.errors,
        trt.ILogger.WARNING: messages.warnings,
    }

    class MessageLogger(trt.ILogger):  # type: ignore[misc]
        """Keeps what TensorRT says for the error message, should there be one."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 asks for the direct call

        def log(self, severity: Any, message: str) -> None:
            """Take one message; called from TensorRT's threads."""
            if severity in kept:
                kept[severity].append(message)

    return MessageLogger()


def parser_messages(parser: Any) -> List[str]:
    """Return the errors of a trt.OnnxParser, each with its node."""
    found = []
    for error in map(parser.get_error, range(parser.num_errors)):
        # TensorRT 10 knows the name and operator of the node; 8 only its number.
        told = [getattr(error, name)() for name in _NODE_NAMES if hasattr(error, name)]
        found.append(f"node {error.node()} {' '.join(told)}: {error.desc()}")
    return found
