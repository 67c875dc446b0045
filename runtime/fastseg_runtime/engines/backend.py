"""The contract between a session and an engine: its methods, and what they are given.

Every backend has three; one that builds its engine on the device has two more, and takes arrays
in GPU memory.

What an artifact itself takes and gives, `io` in the manifest, is in this vocabulary; the backend
closes the gap to `infer()`, which always takes bytes:

    "image":   "uint8 NHWC"    the camera's bytes, RGB, (1, H, W, 3)
               "int8 NHWC"     the bytes minus 128, as int8: full-int8 TFLite
               "float32 NHWC"  (bytes - mean) / std: delegates without integer inputs
               "image"         an image object, RGB: Core ML
    "classes": "uint8", "int32" or "int64": ids (1, H, W), at 1/mask_stride
    "confidence": "uint8" or "int32": 255 times the softmax of the best class (1, h, w), at the size
               of the logits; besides "classes", the second output
    "logits":  "float32 NCHW" or "float32 NHWC": scores (1, K, h, w) or (1, h, w, K);
               stands in the place of "classes", and the session upsamples and takes the argmax

A missing key means "uint8 NHWC" and "uint8".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, Tuple, Union, runtime_checkable

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.engines.engine import find_engine, load

CONFIDENCE = "confidence"  # the second output of an artifact, and its key in `io`


class BuildRefusedError(RuntimeError):
    """An engine would have to be built first, and the caller said build="never"."""


@dataclass(frozen=True)
class ModelSource:
    """An artifact for a backend to open, and how.

    Attributes:
        artifact: the manifest's record of it.
        input: size and normalisation of the network's input.
        output: what it gives.
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
    read: Callable[[str], bytes]
    locate: Callable[[], Path]
    device: str = "auto"
    threads: Optional[int] = None
    build: str = "auto"


class Backend(Protocol):
    """One opened network."""

    def open(self, source: ModelSource) -> None:
        """Load the artifact. Raises whatever stands in the way, with a message for users."""

    def infer(self, image_1HW3: Array) -> Union[Array, Tuple[Array, Array]]:
        """Run the network once.

        Args:
            image_1HW3: uint8, RGB, C-contiguous, of exactly the input's size.

        Returns:
            Ids of an integer type, (1, h, w), or float logits as `io` says. The backend may reuse
            this buffer in the next call: copy to keep it. Where `io` has a confidence, a pair: the
            ids, and that.
        """

    def close(self) -> None:
        """Free the engine. May be called twice."""


@runtime_checkable
class BuiltBackend(Backend, Protocol):
    """A backend that builds its engine on this device, and reads GPU arrays where they lie."""

    @property
    def trusted(self) -> bool:
        """Return whether this very engine passed the self-test in an earlier session."""

    def note_selftest(self, passed: bool) -> None:
        """Take note of the self-test's verdict: keep the engine, or forget it."""

    def infer(self, image_1HW3: Any, out: Any = None) -> Any:
        """Run the network once; see Backend.infer.

        Args:
            image_1HW3: also a GPU array, with __cuda_array_interface__.
            out: a GPU array (1, h, w) that takes the ids, instead of a numpy array.
        """


def on_gpu(array: Any) -> bool:
    """Return whether an array says that it lives in GPU memory."""
    # A torch tensor in CPU memory raises AttributeError for it, so hasattr tells them apart.
    return hasattr(array, "__cuda_array_interface__")


def load_backend(name: str) -> Callable[[], Backend]:
    """Return the class of a backend; this imports its engine's library.

    Raises:
        ValueError: no backend of that name.
        ImportError: the engine's library is absent or broken.
    """
    factory: Callable[[], Backend] = load(find_engine(name).location)
    return factory
