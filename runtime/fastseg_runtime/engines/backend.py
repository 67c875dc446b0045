"""The contract between a session and an engine: three methods, and what they are given.

What an artifact itself takes and gives, `io` in the manifest, is in this vocabulary; the backend
closes the gap to `infer()`, which always takes bytes:

    "image":   "uint8 NHWC"    the camera's bytes, RGB, (1, H, W, 3)
               "int8 NHWC"     the bytes minus 128, as int8: full-int8 TFLite
               "float32 NHWC"  (bytes - mean) / std: delegates without integer inputs
               "image"         an image object, RGB: Core ML
    "classes": "uint8", "int32" or "int64": ids (1, H, W), at 1/mask_stride
    "logits":  "float32 NCHW" or "float32 NHWC": scores (1, K, h, w) or (1, h, w, K);
               stands in the place of "classes", and the session upsamples and takes the argmax

A missing key means "uint8 NHWC" and "uint8".
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Protocol

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec

# Name -> the class that implements Backend. Importing its module imports the engine's library.
BACKENDS: Dict[str, str] = {
    "tensorrt": "fastseg_runtime.engines.tensorrt.backend_tensorrt:TensorRTBackend",
    "coreml": "fastseg_runtime.engines.backend_coreml:CoreMLBackend",
    "litert": "fastseg_runtime.engines.backend_litert:LiteRTBackend",
    "onnxruntime": "fastseg_runtime.engines.backend_onnxruntime:OnnxRuntimeBackend",
    "pytorch": "fastseg_runtime.engines.backend_pytorch:PyTorchBackend",
}
ENTRY_POINTS = "fastseg.backends"  # where other distributions add theirs


class BuildRefusedError(RuntimeError):
    """An engine would have to be built first, and the caller said build="never"."""


@dataclass(frozen=True)
class ModelSource:
    """An artifact for a backend to open, and how.

    Attributes:
        artifact: the manifest's record of it.
        input: size and normalisation of the network's input.
        output: what it gives.
        num_classes: K.
        read: returns the bytes of one of `artifact.files` by its path there, hash verified.
        locate: returns the entry on disk, for engines that open paths only; a bundle unpacks the
            artifact into a folder that lives as long as the session.
        device: "auto", "cpu", or a name that the backend documents.
        threads: for the engine; None: its own default.
        build: "auto", or "never" to raise BuildRefusedError where an engine must be built.
    """

    artifact: Artifact
    input: InputSpec
    output: OutputSpec
    num_classes: int
    read: Callable[[str], bytes]
    locate: Callable[[], Path]
    device: str = "auto"
    threads: Optional[int] = None
    build: str = "auto"


class Backend(Protocol):
    """One opened network."""

    def open(self, source: ModelSource) -> None:
        """Load the artifact. Raises whatever stands in the way, with a message for users."""

    def infer(self, image_1HW3: Array) -> Array:
        """Run the network once.

        Args:
            image_1HW3: uint8, RGB, C-contiguous, of exactly the input's size.

        Returns:
            Ids of an integer type, (1, h, w), or float logits as `io` says. The backend may reuse
            this buffer in the next call: copy to keep it.
        """

    def close(self) -> None:
        """Free the engine. May be called twice."""


def load_backend(name: str) -> Callable[[], Backend]:
    """Return the class of a backend; this imports its engine's library.

    Raises:
        ValueError: no backend of that name.
        ImportError: the engine's library is absent or broken.
    """
    module, _, attribute = _location(name).partition(":")
    factory: Callable[[], Backend] = getattr(import_module(module), attribute)
    return factory


def check_backend_name(name: str) -> None:
    """Raise ValueError unless there is a backend of that name."""
    _location(name)


def _location(name: str) -> str:
    if name in BACKENDS:
        return BACKENDS[name]
    known = {**BACKENDS, **_other_backends()}
    if name not in known:
        raise ValueError(f"no backend {name!r}; choose one of {', '.join(sorted(known))}")
    return known[name]


def _other_backends() -> Dict[str, str]:
    from importlib import metadata  # slow to import, and only needed for outsiders

    found: Any = metadata.entry_points()
    # Python 3.10 replaced the dict of groups by select().
    is_dict = not hasattr(found, "select")
    group = found.get(ENTRY_POINTS, ()) if is_dict else found.select(group=ENTRY_POINTS)
    return {point.name: point.value for point in group}
