"""Core ML on macOS, for packages that run on iPhones too. Untried: no Mac was at hand.

coremltools hands pictures to Core ML as Pillow images, so this backend needs Pillow.
"""

from typing import Any, Optional, Tuple, Union

import coremltools
import numpy as np

from fastseg_runtime.arrays.image import to_pillow
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.named_files import check_mlpackage
from fastseg_runtime.engines.backend import ModelSource

# device -> where Core ML may run the network.
COMPUTE_UNITS = {
    "auto": "ALL",
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu_and_gpu": "CPU_AND_GPU",
    "cpu_and_ne": "CPU_AND_NE",
}


class CoreMLBackend:
    """A package, compiled and loaded by Core ML."""

    def __init__(self) -> None:
        self._model: Optional[Any] = None

    def open(self, source: ModelSource) -> None:
        """Load the package; `device` is "all", "cpu", "cpu_and_gpu" or "cpu_and_ne".

        Raises:
            BundleError: the package names files outside itself.
            ValueError: another device, or a package with several inputs or outputs.
        """
        if source.device not in COMPUTE_UNITS:
            choices = ", ".join(COMPUTE_UNITS)
            raise ValueError(f"coreml: no device {source.device!r}; choose one of {choices}")
        units = getattr(coremltools.ComputeUnit, COMPUTE_UNITS[source.device])
        package = source.locate()
        check_mlpackage(package)
        model = coremltools.models.MLModel(str(package), compute_units=units)
        interface = model.get_spec().description
        (image,), (output, *beside) = interface.input, interface.output
        self._input_name, self._output_name = image.name, output.name
        self._confidence_name = beside[0].name if beside else None
        self._takes_image = image.type.WhichOneof("Type") == "imageType"
        self._model = model

    def infer(self, image_1HW3: Array) -> Union[Array, Tuple[Array, Array]]:
        """Run the network; see Backend.infer."""
        if self._model is None:
            raise RuntimeError("the session is closed; open the model again")
        image = to_pillow(image_1HW3[0]) if self._takes_image else image_1HW3.astype(np.float32)
        results = self._model.predict({self._input_name: image})
        classes: Array = np.asarray(results[self._output_name])
        if self._confidence_name is None:
            return classes
        return classes, np.asarray(results[self._confidence_name])

    def close(self) -> None:
        """Free the model."""
        self._model = None
