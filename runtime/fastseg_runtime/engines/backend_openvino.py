"""OpenVINO: ONNX artifacts on Intel's CPUs, and by name on Intel's GPUs and NPUs."""

import sys
from typing import Any, Dict, Optional

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.named_files import check_onnx
from fastseg_runtime.engines.backend import ModelSource
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

    def open(self, source: ModelSource) -> None:
        """Compile the model; `device` is "auto", "cpu", "gpu", "npu" or one with an index, "gpu:1".

        Raises:
            BundleError: the graph names other files.
            ValueError: a device that is not here; or a graph with other inputs than fastseg's.
        """
        core = openvino.Core()
        device = _device(source.device, core.available_devices)
        content = source.read(source.artifact.entry)
        check_onnx(content, source.artifact.entry)
        model = core.read_model(content)
        expected = [1, source.input.height, source.input.width, 3]
        found = [(port.element_type.to_dtype(), port.partial_shape) for port in model.inputs]
        if found != [(np.uint8, openvino.PartialShape(expected))] or len(model.outputs) != 1:
            told = ", ".join(f"{dtype.name} {shape}" for dtype, shape in found)
            raise ValueError(
                f"expected an ONNX graph with one input of uint8 {expected} and one output, got "
                f"{told}; export it with fastseg-export"
            )
        settings: Dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if find_precision(source.artifact.precision).is_float:
            settings["INFERENCE_PRECISION_HINT"] = "f32"  # else bf16 where the CPU has it
        if source.threads and device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = source.threads
        self._request = core.compile_model(model, device, settings).create_infer_request()

    def infer(self, image_1HW3: Array) -> Array:
        """Run the network; see Backend.infer."""
        if self._request is None:
            raise RuntimeError("the session is closed; open the model again")
        if image_1HW3 is not self._bound:
            self._request.set_input_tensor(openvino.Tensor(image_1HW3, shared_memory=True))
            self._bound = image_1HW3  # the tensor holds an address: keep the array alive
        self._request.infer()
        output: Array = self._request.get_output_tensor().data
        return output

    def close(self) -> None:
        """Free the network."""
        self._bound = self._request = None


def _device(asked: str, there: Any) -> str:
    """Return a device as OpenVINO calls it: "gpu:1" is GPU.1; of one GPU it is GPU alone."""
    name = "CPU" if asked == "auto" else asked.upper().replace(":", ".")
    if not {name, f"{name}.0", name.replace(".0", "")} & {*there}:
        names = ", ".join(known.lower().replace(".", ":") for known in there)
        raise ValueError(f"openvino: no device {asked!r} here; choose one of {names}")
    return name
