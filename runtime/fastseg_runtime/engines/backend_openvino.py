"""OpenVINO: ONNX artifacts on Intel's CPUs, and by name on Intel's GPUs and NPUs."""

import sys
from functools import lru_cache
from typing import Any, Dict, Optional, Tuple, Union

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.engines.backend import CONFIDENCE, ModelSource
from fastseg_runtime.engines.engine import find_precision

# Importing openvino reports that through this package, where it is there, to Google Analytics. It
# takes a stub where it is not.
_TELEMETRY = "openvino_telemetry"
_kept = sys.modules.get(_TELEMETRY)
sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # cannot be imported
try:
    import openvino
finally:
    del sys.modules[_TELEMETRY]
    if _kept is not None:
        sys.modules[_TELEMETRY] = _kept


class OpenVINOBackend:
    """A compiled network that reads the frame where it lies."""

    def __init__(self) -> None:
        self._request: Optional[Any] = None
        self._bound: Optional[Array] = None
        self._outputs = range(1)

    def open(self, source: ModelSource) -> None:
        """Compile the model; `device` is "auto", "cpu", "gpu", "npu" or one with an index, "gpu:1".

        Raises:
            BundleError: the graph names other files.
            ValueError: a device that is not here; or a graph with other inputs than fastseg's.
        """
        core = _core()
        device = _device(source.device, core.available_devices)
        content = source.read(source.artifact.entry)
        check_onnx(content, source.artifact.entry)
        model = core.read_model(content)
        expected = [1, source.input.height, source.input.width, 3]
        found = [(port.element_type.to_dtype(), port.partial_shape) for port in model.inputs]
        outputs = [port.any_name for port in model.outputs]
        if found != [(np.uint8, openvino.PartialShape(expected))] or outputs[1:] not in (
            [],
            [CONFIDENCE],
        ):
            told = ", ".join(f"{dtype.name} {shape}" for dtype, shape in found)
            raise ValueError(
                f"expected an ONNX graph with one input of uint8 {expected} and one output, got "
                f"{told} and {', '.join(outputs)}; export it with fastseg-export"
            )
        settings: Dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if find_precision(source.artifact.precision).is_float:
            settings["INFERENCE_PRECISION_HINT"] = "f32"  # else bf16 where the CPU has it
        if source.threads and device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = source.threads
        self._request = core.compile_model(model, device, settings).create_infer_request()
        self._outputs = range(len(outputs))

    def infer(self, image_1HW3: Array) -> Union[Array, Tuple[Array, Array]]:
        """Run the network; see Backend.infer."""
        if self._request is None:
            raise RuntimeError("the session is closed; open the model again")
        if not image_1HW3.flags.writeable:  # such as of a ROS message: memory cannot be shared
            image_1HW3 = image_1HW3.copy()
        if image_1HW3 is not self._bound:
            self._request.set_input_tensor(openvino.Tensor(image_1HW3, shared_memory=True))
            self._bound = image_1HW3  # the tensor holds an address: keep the array alive
        self._request.infer()
        output, *confidence = (self._request.get_output_tensor(i).data for i in self._outputs)
        return (output, confidence[0]) if confidence else output

    def close(self) -> None:
        """Free the network."""
        self._bound = self._request = None


@lru_cache(maxsize=None)
def _core() -> Any:
    """Return the one Core of the process.

    Each gives the thread that opens it a stack for signals, and in its end brings back that of
    before. Of two in turn that is the freed one of the first: the next signal would crash.
    """
    return openvino.Core()


def _device(asked: str, there: Any) -> str:
    """Return a device as OpenVINO calls it: "gpu:1" is GPU.1; of one GPU it is GPU alone."""
    name = "CPU" if asked == "auto" else asked.upper().replace(":", ".")
    if not {name, f"{name}.0", name.replace(".0", "")} & {*there}:
        names = ", ".join(known.lower().replace(".", ":") for known in there)
        raise ValueError(f"openvino: no device {asked!r} here; choose one of {names}")
    return name
