"""Int8 for TensorRT: explicit Q/DQ nodes with ranges from calibration images.

What TensorRT asks for, and other engines do not: symmetric int8 everywhere, zero points 0, one
scale per output channel of a weight, weights in float behind a Q/DQ pair of their own, no Q/DQ
on biases. Convolutions alone are quantized, at their inputs: where a residual skips a block,
both then read the same quantized map, and TensorRT fuses convolution, addition and ReLU. The
pooled vectors of channel gates stay in float, where int8 gains nothing and costs accuracy.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array

from fastseg_exporters.onnx.to_onnx_int8 import TWO_LOGITS, own_normalisation

try:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
except ImportError as error:
    raise ImportError(
        "int8 for TensorRT needs onnxruntime: pip install 'fastseg-edge[onnx]'"
    ) from error

# Ranges from the mean over images of each one's extremes, not from the extremes of all: a single
# odd image would take resolution from every other (CamVid: 0.3 to 0.5 points of mIoU).
MEAN_OF_EXTREMES = {"CalibMovingAverage": True}
EXACT_MEAN = 128.0  # (x - 128) / std as int8 at scale 1 / std is x - 128: every byte, exactly


def quantize(
    model: onnx.ModelProto,
    images_1HW3: Iterable[Array],
    mean: float,
    std: float,
    keep_float: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return the graph with Q/DQ nodes around its convolutions.

    Args:
        model: from tensorrt_graph.fit_for_tensorrt().
        images_1HW3: calibration images, uint8 RGB of the input's size; read one at a time.
        mean: of the graph's normalisation.
        std: of the graph's normalisation.
        keep_float: names of convolutions to leave alone.

    Raises:
        ValueError: no calibration image, or a name in keep_float that is no convolution.
    """
    layers = quantizable(model)
    if unknown := sorted(set(keep_float) - set(layers)):
        raise ValueError(f"no convolutions {unknown} to keep in float; there are {layers}")
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # the quantizer changes a model that it is given in memory
        logging.disable(logging.WARNING)  # advice to pre-process, which has been done
        try:
            quantize_static(
                source,
                path,
                _Reader(model.graph.input[0].name, images_1HW3),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=[name for name in layers if name not in keep_float],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    **MEAN_OF_EXTREMES,
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "AddQDQPairToWeight": True,
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                    "TensorQuantOverrides": {
                        **_input_scale(model, mean, std),
                        **_own_scale(model, mean, std),
                    },
                },
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(path)


def quantizable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the convolutions over maps, in the order of the graph.

    Those over one pixel, (N, C, 1, 1), are not among them, nor what makes two logits of one: it
    compares them.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    pixels = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:]
        for value in inferred.graph.value_info
    }
    convolutions = (
        node for node in model.graph.node if node.op_type == "Conv" and node.name != TWO_LOGITS
    )
    return tuple(node.name for node in convolutions if pixels.get(node.input[0]) != [1, 1])


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands images to the calibrator."""

    def __init__(self, name: str, images_1HW3: Iterable[Array]) -> None:
        self._name = name
        self._images: Iterator[Array] = iter(images_1HW3)

    def get_next(self) -> dict[str, Array] | None:
        image_1HW3 = next(self._images, None)
        return None if image_1HW3 is None else {self._name: image_1HW3}


def _input_scale(model: onnx.ModelProto, mean: float, std: float) -> dict[str, Any]:
    """Pin the scale of the normalised image, where that loses nothing and is what is quantized."""
    if mean != EXACT_MEAN:
        return {}
    scale = np.array(1 / std, np.float32)
    zero_point = np.array(0, np.int8)
    # All before the first Transpose is ours: normalisation; what follows may be scaled in any way.
    image = next(node.output[0] for node in model.graph.node if node.op_type == "Transpose")
    if not any(node.op_type == "Conv" and node.input[0] == image for node in model.graph.node):
        return {}
    entry = {"scale": scale, "zero_point": zero_point, "quant_type": QuantType.QInt8}
    return {image: [entry]}


def _own_scale(model: onnx.ModelProto, mean: float, std: float) -> dict[str, Any]:
    """Let the image behind the network's own normalisation reach from black to white."""
    found = own_normalisation(model, mean, std)
    if found is None:
        return {}
    name, low, high = found
    scale, zero_point = np.array(max(-low, high) / 127, np.float32), np.array(0, np.int8)
    return {name: [{"scale": scale, "zero_point": zero_point, "quant_type": QuantType.QInt8}]}
