"""Int8 for ONNX Runtime on CPUs: QDQ with ranges from calibration images, or weights alone."""

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from fastseg.onnx_graph import sort_nodes

QUANTIZED_OPERATORS = ["Conv", "Add", "Mul"]  # ReLU joins the convolution before it
# Ranges from the mean over images of each one's extremes, not from the extremes of all: a single
# odd image would take resolution from every other (CamVid: 0.5 to 0.9 points of mIoU).
MEAN_OF_EXTREMES = {"CalibMovingAverage": True}
# A map is quantized where the next operation reads it as int8, not wherever a convolution ends:
# so logits, which are only compared with each other, keep their fine differences (nano on CamVid:
# 0.5 points of mIoU), and ONNX Runtime converts less (docs/speed.md).
FLOAT_OUTPUTS = {"OpTypesToExcludeOutputQuantization": ["Conv"]}
OWN_NORMALISATION, TWO_LOGITS = "/core/enter/Conv", "/core/leave/Conv"  # of DeployGraph's core
NOTHING_FOR_INT8 = "the network has no convolution that int8 could take; export it in float"
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv")
ALREADY_INT8 = "the file is int8 already; name the float file that it was made from"
EXACT_MEAN = 128.0  # bytes as uint8 with zero point 128 are then exactly the normalised image


def quantize(
    model: onnx.ModelProto,
    images: Iterable[Array],
    mean: float,
    std: float,
    keep_float: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return the graph with QDQ nodes: int8 weights per channel, uint8 activations.

    Args:
        model: takes the normalised float image.
        images: calibration images, uint8 RGB (1, H, W, 3) of the input's size.
        mean: of the normalisation.
        std: of the normalisation.
        keep_float: convolutions, by name, to leave in float.

    Raises:
        ValueError: a name in keep_float that is no convolution, or what run_quantizer raises.
    """
    check_kept(keep_float, layers := convolutions(model))
    if not layers:
        raise ValueError(NOTHING_FOR_INT8)
    return run_quantizer(
        model,
        pinned_scales(model, model.graph.input[0].name, mean, std, symmetric=False),
        ((x.astype(np.float32) - mean).transpose(0, 3, 1, 2) / std for x in images),
        symmetric=False,
        op_types_to_quantize=QUANTIZED_OPERATORS,
        nodes_to_exclude=[*keep_float, *_kept_in_float(model)],
        reduce_range=True,
    )


def check_kept(keep_float: Sequence[str], layers: Sequence[str]) -> None:
    """Raise ValueError if a name to keep in float is none of the layers that int8 could take."""
    if unknown := sorted(set(keep_float) - set(layers)):
        raise ValueError(f"no convolutions {unknown} to keep in float; there are {layers}")


def run_quantizer(
    model: onnx.ModelProto,
    scales: dict[str, Any],
    samples: Iterable[Array],
    symmetric: bool,
    extra_options: dict[str, Any] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """Return a graph with Q/DQ nodes, its weights in int8 with a scale for each channel.

    Args:
        model: of one input; it stays as it is.
        scales: of tensors that calibration must not decide, of pinned_scales().
        samples: what the input takes; one in memory at a time.
        symmetric: activations are int8 around 0, else uint8.
        extra_options: of ONNX Runtime's quantize_static, in its own words, like the rest.
        options: which nodes, and how.

    Raises:
        ValueError: the graph is int8 already.
    """
    if any(node.op_type in QUANTIZED for node in model.graph.node):
        raise ValueError(ALREADY_INT8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # advice to pre-process, which onnxsim has done
        try:
            quantize_static(
                onnx.ModelProto.FromString(model.SerializeToString()),  # it empties its input
                path,
                _Samples(model.graph.input[0].name, samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={
                    **MEAN_OF_EXTREMES,
                    **FLOAT_OUTPUTS,
                    "TensorQuantOverrides": scales,
                    **(extra_options or {}),
                },
                **options,
            )
        finally:
            logging.disable(logging.NOTSET)
        quantized = onnx.load(path)
    sort_nodes(quantized.graph)  # the quantizer overlooks what the branches of an If read
    return quantized


def pinned_scales(
    model: onnx.ModelProto, image: str, mean: float, std: float, symmetric: bool
) -> dict[str, Any]:
    """Return the quantization of pictures, for run_quantizer().

    (x - 128) / std at scale 1 / std and zero point 128 is the byte x itself. Behind the network's
    own normalisation the image reaches from black to white: calibration images are seldom that
    dark or bright; a frame on the device may be.

    Args:
        model: the float graph.
        image: the tensor of the normalised image; "" where it is not to be pinned.
        mean: of the normalisation.
        std: of the normalisation.
        symmetric: int8 around 0, else uint8.
    """
    scales = {}
    if image and mean == EXACT_MEAN:
        scales[image] = _pinned(1 / std, np.int8(0) if symmetric else np.uint8(EXACT_MEAN))
    if found := _own_normalisation(model, mean, std):
        name, low, high = found
        scale = max(-low, high) / 127 if symmetric else (high - low) / 255
        scales[name] = _pinned(scale, np.int8(0) if symmetric else np.uint8(round(-low / scale)))
    return scales


def _pinned(scale: float, zero_point: np.uint8 | np.int8) -> list[dict[str, Any]]:
    kind = QuantType.QUInt8 if isinstance(zero_point, np.uint8) else QuantType.QInt8
    scale_, zero_point_ = np.array(scale, np.float32), np.array(zero_point)
    return [{"scale": scale_, "zero_point": zero_point_, "quant_type": kind}]


def convolutions(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the convolutions that int8 takes, in graph order."""
    kept = set(_kept_in_float(model))
    return tuple(n.name for n in model.graph.node if n.op_type == "Conv" and n.name not in kept)


def _own_normalisation(
    model: onnx.ModelProto, mean: float, std: float
) -> tuple[str, float, float] | None:
    """Return the tensor of the image in a network's own normalisation, its least and largest value.

    None where the network takes (x - mean) / std as it is.
    """
    steps = [node for node in model.graph.node if node.name == OWN_NORMALISATION]
    if not steps:
        return None
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight_KC, bias_K = (numpy_helper.to_array(tensors[name]) for name in steps[0].input[1:])
    ends_2 = (np.array([0, 255]) - mean) / std
    values_K2 = weight_KC.reshape(3, 3).sum(1)[:, None] * ends_2 + bias_K[:, None]
    # Zero, with which convolutions pad, has to be among the steps.
    return steps[0].output[0], min(float(values_K2.min()), 0.0), max(float(values_K2.max()), 0.0)


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Return the names of nodes that int8 would only harm.

    The class map's convolution computes differences of logits, and so does the one that makes two
    logits of one; channel gates are vectors, where int8 gains nothing.
    """
    maps = onnx.shape_inference.infer_shapes(model).graph.value_info
    pooled = {  # of one pixel, (N, C, 1, 1)
        value.name
        for value in maps
        if [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:] == [1, 1]
    }
    return [
        node.name
        for node in model.graph.node
        if _of_class_map(node)
        or node.name == TWO_LOGITS
        or (node.op_type == "Conv" and node.input[0] in pooled)
    ]


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with convolution weights as int8, one scale per output channel.

    Symmetric: w is about scale * q. The arithmetic stays in float, so only the file is smaller.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = (n for n in model.graph.node if n.op_type == "Conv" and not _of_class_map(n))
    # A weight may serve several convolutions, and one that the network computes is no constant.
    names = dict.fromkeys(n.input[1] for n in convolutions if n.input[1] in weights)
    if not names:
        raise ValueError(NOTHING_FOR_INT8)
    nodes = [*(_as_int8(model.graph, weights[name]) for name in names), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _of_class_map(node: onnx.NodeProto) -> bool:
    name: str = node.name
    return name.startswith(("/class_map", "/confidence"))


def _as_int8(body: onnx.GraphProto, weight: onnx.TensorProto) -> onnx.NodeProto:
    """Replace a weight by int8 and scales; return the node that gives it back under its name."""
    values, name = numpy_helper.to_array(weight), weight.name
    scale = np.abs(values).max(axis=tuple(range(1, values.ndim))) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    quantized = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(quantized, f"{name}_int8"))
    body.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    inputs = [f"{name}_int8", f"{name}_scale"]
    return helper.make_node("DequantizeLinear", inputs, [name], f"{name}_dequantize", axis=0)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """Hands samples to the calibrator one at a time: memory stays flat however many there are."""

    def __init__(self, name: str, samples: Iterable[Array]) -> None:
        self._name = name
        self._samples: Iterator[Array] = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        sample = next(self._samples, None)
        return None if sample is None else {self._name: np.ascontiguousarray(sample)}
