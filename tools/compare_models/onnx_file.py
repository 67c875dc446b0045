"""ONNX files of others; those that give logits get bilinear upsampling and argmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.file_kind import file_kind
from onnx import TensorProto, helper, numpy_helper

CLASS_MAP = "class_map"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
OPSET_OF_RESIZE = 13  # from it on, the region of interest may be left out


def read_onnx(path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    """Read a file, fix its size, and make it give a class map.

    Args:
        path: one input, an image as (1, 3, H, W) or (1, H, W, 3), float32 or uint8; its first
            output logits (1, K, h, w) or class ids.
        size: (width, height) for the dimensions that the file leaves open.

    Raises:
        ValueError: no such file, no ONNX, or another kind of input.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx raises what protobuf raises, of many kinds
        found = file_kind(path) if path.exists() else "absent"
        raise ValueError(f"{path} is {found}, or damaged; expected a whole ONNX file") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"{path} has {len(inputs)} inputs; expected one image")
    _fix_size(inputs[0], size, path)
    del model.graph.value_info[:]  # of the open size
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return _with_class_map(model, size, path)


def feed_for(model: onnx.ModelProto, image_1HW3: Array) -> dict[str, Array]:
    """Return an input for a graph: the image in the graph's own type and order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    value = next(value for value in model.graph.input if value.name not in weights)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    image = image_1HW3 if dtype == np.uint8 else ((image_1HW3.astype(np.float32) - 128) / 64)
    if _dims(value)[1] == 3:
        image = image.transpose(0, 3, 1, 2)
    return {value.name: np.ascontiguousarray(image.astype(dtype))}


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _fix_size(value: onnx.ValueInfoProto, size: tuple[int, int], path: Path) -> None:
    width, height = size
    dims = _dims(value)
    by_order = {1: [1, 3, height, width], 3: [1, height, width, 3]}
    channel_axes = [axis for axis in by_order if len(dims) == 4 and dims[axis] == 3]
    if not channel_axes:
        raise ValueError(f"{path}: the input is {dims}; expected (1, 3, H, W) or (1, H, W, 3)")
    wanted = by_order[channel_axes[0]]
    if any(dim not in (0, want) for dim, want in zip(dims, wanted, strict=True)):
        raise ValueError(f"{path} is made for {dims}, not for {wanted}; export it for this size")
    for dim, want in zip(value.type.tensor_type.shape.dim, wanted, strict=True):
        dim.dim_value = want


def _with_class_map(model: onnx.ModelProto, size: tuple[int, int], path: Path) -> onnx.ModelProto:
    output = model.graph.output[0]
    if output.type.tensor_type.elem_type not in FLOATS:
        return model
    width, height = size
    dims = _dims(output)
    if len(dims) != 4 or 0 in dims or _opset(model) < OPSET_OF_RESIZE:
        raise ValueError(
            f"{path} gives {dims} in opset {_opset(model)}; expected class ids, or logits "
            f"(1, K, h, w) in opset {OPSET_OF_RESIZE} or newer"
        )
    scales = np.array([1, 1, height / dims[2], width / dims[3]], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "class_map_scales"))
    model.graph.node.extend(
        [
            _node("Resize", [output.name, "", "class_map_scales"], "full_size", mode="linear"),
            _node("ArgMax", ["full_size"], "full_size_ids", axis=1, keepdims=0),
            _node("Cast", ["full_size_ids"], CLASS_MAP, to=int(TensorProto.UINT8)),
        ]
    )
    del model.graph.output[:]
    shape = [1, height, width]
    model.graph.output.append(helper.make_tensor_value_info(CLASS_MAP, TensorProto.UINT8, shape))
    return model


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], f"/class_map/{kind}", **attributes)


def _opset(model: onnx.ModelProto) -> int:
    versions = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(next(versions))
