"""LiteRT (TensorFlow Lite): .tflite artifacts on any CPU, by XNNPACK's kernels."""

from typing import Any, List, Optional, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.named_files import check_tflite
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.selection import cpu_count

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    if getattr(error, "name", None) not in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        raise  # it is installed, but something that it needs is not
    from tflite_runtime.interpreter import Interpreter  # its name until 2024, for old Pythons

MAX_THREADS = 4  # more than the big cores of a phone or all of a Raspberry Pi make it slower
_INPUT_TYPES = {"uint8 NHWC": np.uint8, "int8 NHWC": np.int8, "float32 NHWC": np.float32}


class LiteRTBackend:
    """An interpreter; its tensors are reached in place."""

    def __init__(self) -> None:
        self._interpreter: Optional[Any] = None
        self._outputs: List[Array] = []

    def open(self, source: ModelSource) -> None:
        """Load the model; `device` is "auto" or "cpu".

        Raises:
            BundleError: the model's weights lie in other files.
            ValueError: another device, or a model with other inputs and outputs than it should.
        """
        if source.device not in ("auto", "cpu"):
            raise ValueError(f"litert: no device {source.device!r}; choose cpu")
        threads = source.threads or min(MAX_THREADS, cpu_count())
        content = source.read(source.artifact.entry)
        check_tflite(content, source.artifact.entry)
        interpreter = Interpreter(model_content=content, num_threads=threads)
        (image,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(outputs) not in (1, 2):
            raise ValueError(f"the model gives {len(outputs)} results; export it again")
        declared = str(source.artifact.io.get("image", "uint8 NHWC"))
        expected = [1, source.input.height, source.input.width, 3]
        if image["dtype"] != _INPUT_TYPES.get(declared) or list(image["shape"]) != expected:
            raise ValueError(
                f"the manifest promises an input of {declared} {expected}, the model takes "
                f"{np.dtype(image['dtype']).name} {list(image['shape'])}; export it again"
            )
        interpreter.allocate_tensors()
        self._mean, self._std = np.float32(source.input.mean), np.float32(source.input.std)
        self._view_input = interpreter.tensor(image["index"])
        self._views = [interpreter.tensor(output["index"]) for output in outputs]
        self._outputs = [np.empty(output["shape"], output["dtype"]) for output in outputs]
        self._interpreter = interpreter

    def infer(self, image_1HW3: Array) -> Union[Array, Tuple[Array, Array]]:
        """Run the network; see Backend.infer."""
        if self._interpreter is None:
            raise RuntimeError("the session is closed; open the model again")
        self._fill_input(image_1HW3)
        self._interpreter.invoke()
        for array, view in zip(self._outputs, self._views):
            np.copyto(array, view())
        result, *confidence = self._outputs
        return (result, confidence[0]) if confidence else result

    def close(self) -> None:
        """Free the interpreter."""
        self._view_input, self._views, self._interpreter = None, [], None

    def _fill_input(self, image_1HW3: Array) -> None:
        # The view must be gone before the interpreter runs: it refuses to otherwise.
        tensor = self._view_input()
        if tensor.dtype == np.uint8:
            np.copyto(tensor, image_1HW3)
        elif tensor.dtype == np.int8:  # flipping the highest bit subtracts 128
            np.bitwise_xor(image_1HW3, np.uint8(128), out=tensor.view(np.uint8))
        else:
            np.subtract(image_1HW3, self._mean, out=tensor)
            np.divide(tensor, self._std, out=tensor)
