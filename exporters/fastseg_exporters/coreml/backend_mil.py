"""Core ML packages without macOS: read with coremltools, evaluated in torch.

Slow next to Core ML, and no measure of its speed: this is for proving a package where it was
exported. On macOS fastseg_runtime's own Core ML backend takes its place.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.named_files import check_mlpackage
from fastseg_runtime.engines.backend import ModelSource

from fastseg_exporters.coreml.mil_program import (
    Evaluator,
    Operand,
    Operation,
    Program,
    Ref,
    Result,
)

try:
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load as load_milproto
    from coremltools.converters.mil.mil import types
    from coremltools.proto.FeatureTypes_pb2 import ImageFeatureType
except ImportError as error:
    raise ImportError(
        "reading Core ML packages needs coremltools: pip install 'fastseg-edge[coreml]'"
    ) from error

WEIGHTS = Path("Data/com.apple.CoreML/weights")  # where an .mlpackage keeps them


class MilBackend:
    """A runtime backend (fastseg_runtime.engines.backend.Backend). Threads are torch's own."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def open(self, source: ModelSource) -> None:
        """Read the package.

        Raises:
            BundleError: the package names files outside itself.
            ValueError: not a segmentation package, or a device other than the CPU.
            UnsupportedOperationError: an operation that cannot be evaluated.
        """
        if source.device not in ("auto", "cpu"):
            raise ValueError(f"mil: no device {source.device!r}; it evaluates on the cpu")
        package = source.locate()
        check_mlpackage(package)
        self._evaluator = Evaluator(read_program(package))

    def infer(self, image_1HW3: Array) -> Array | tuple[Array, Array]:
        """Run the program once; see Backend.infer."""
        if self._evaluator is None:
            raise RuntimeError("the package is closed; open it again")
        result = self._evaluator(torch.from_numpy(image_1HW3))
        if isinstance(result, tuple):
            return result[0].numpy(), result[1].numpy()
        ids_or_logits: Array = result.numpy()
        return ids_or_logits

    def close(self) -> None:
        """Free the weights."""
        self._evaluator = None


def read_program(package: Path) -> Program:
    """Read the program and the weights of an .mlpackage.

    Raises:
        ValueError: not an ML program with one image input and one output.
    """
    spec = coremltools.utils.load_spec(str(package))
    inputs, outputs = spec.description.input, spec.description.output
    confidence = "confidence" if [x.name for x in outputs[1:]] == ["confidence"] else ""
    if (
        spec.WhichOneof("Type") != "mlProgram"
        or len(inputs) != 1
        or not (confidence or len(outputs) == 1)
    ):
        raise ValueError(
            f"{package}: expected an ML program with one input and one output, got "
            f"{spec.WhichOneof('Type')} with {len(inputs)} and {len(outputs)}"
        )
    image = inputs[0].type.imageType
    color = ImageFeatureType.ColorSpace.Name(image.colorSpace)
    if color not in ("RGB", "BGR"):
        raise ValueError(f"{package}: expected an RGB or BGR image as its input, got {color}")
    program = load_milproto(spec, spec.specificationVersion, str(package / WEIGHTS))
    function = program.functions["main"]
    return Program(
        image=inputs[0].name,
        color=color.lower(),
        width=image.width,
        height=image.height,
        operations=tuple(_operation(op) for op in function.operations if op.op_type != "const"),
        output=outputs[0].name,
        confidence=confidence,
    )


def _operation(op: Any) -> Operation:
    return Operation(
        type=op.op_type,
        inputs={name: _operand(var) for name, var in op.inputs.items() if var is not None},
        results=tuple(Result(var.name, types.builtin_to_string(var.dtype)) for var in op.outputs),
    )


def _operand(var: Any) -> Operand:
    if isinstance(var, list | tuple):
        return tuple(_operand(item) for item in var)
    if var.val is None:
        return Ref(var.name)
    value = np.asarray(var.val)
    if value.dtype.kind in "US" or value.ndim == 0:
        scalar: Operand = value.item()
        return scalar
    if value.ndim == 1 and value.dtype in (np.int32, np.uint32, np.bool_):
        return tuple(value.tolist())  # strides, axes, masks, shapes
    return torch.from_numpy(value.astype(np.float32) if value.dtype.kind == "f" else value)
