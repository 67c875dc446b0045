"""ONNX files of others, as graphs that take a camera's bytes and give a class map.

Those that give logits get bilinear upsampling and argmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.engines.own_onnx import class_axis
from onnx import TensorProto, helper, numpy_helper

BYTES, CLASS_MAP = "camera_bytes", "class_map"
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
OPSET_OF_RESIZE = 13  # from it on, the region of interest may be left out


def read_onnx(path: Path, size: tuple[int, int]) -> onnx.ModelProto:
    """Read a file, fix its size, and make it give a class map.

    Args:
        path: one input, an image as (1, 3, H, W) or (1, H, W, 3), float32 or uint8; its first
            output logits (1, K, h, w) or (1, h, w, K), one for two classes, or class ids, those of
            two classes also as BOOL.
        size: (width, height) for the dimensions that the file leaves open.

    Raises:
        ValueError: no such file, no ONNX, or another kind of input or output.
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
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (*FLOATS, TensorProto.UINT8):
        raise ValueError(
            f"{path} takes {TensorProto.DataType.Name(kind)}; expected an image as FLOAT, FLOAT16 "
            "or UINT8: export it for one of these"
        )
    _fix_size(inputs[0], size, path)
    channels_last = _dims(inputs[0])[1] != 3
    del model.graph.value_info[:]  # of the open size
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not sound, onnx says of it: {words}") from error
    return _with_class_map(_from_bytes(model), size, path, channels_last)


def feed_for(model: onnx.ModelProto, image_1HW3: Array) -> dict[str, Array]:
    """Return an input for a graph that takes bytes."""
    return {_picture(model).name: np.ascontiguousarray(image_1HW3)}


def _picture(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    pictures = (value for value in model.graph.input if value.name not in weights)
    found: onnx.ValueInfoProto = next(pictures)
    return found


def _from_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a graph take a camera's bytes: what normalises and turns them is timed with everybody.

    By (x - 128) / 64, which takes as long as any other mean and deviation.
    """
    picture = _picture(model)
    kind, dims = picture.type.tensor_type.elem_type, _dims(picture)
    channels_first = dims[1] == 3
    if kind not in FLOATS and not channels_first:
        return model  # that is what it takes
    last, nodes = BYTES, list[onnx.NodeProto]()
    if kind in FLOATS:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        for name, value in (("bytes_mean", 128), ("bytes_deviation", 64)):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        nodes.append(_node("Cast", [BYTES], "bytes_as_float", to=int(kind)))
        nodes.append(_node("Sub", ["bytes_as_float", "bytes_mean"], "bytes_centred"))
        nodes.append(_node("Div", ["bytes_centred", "bytes_deviation"], last := "normalised_bytes"))
    if channels_first:
        nodes.append(_node("Transpose", [last], picture.name, perm=[0, 3, 1, 2]))
    else:
        nodes[-1].output[:] = [picture.name]
    nodes += list(model.graph.node)
    height, width = dims[2:] if channels_first else dims[1:3]
    taken = helper.make_tensor_value_info(BYTES, TensorProto.UINT8, [1, height, width, 3])
    others = [value for value in model.graph.input if value.name != picture.name]
    for field, values in ((model.graph.node, nodes), (model.graph.input, [taken, *others])):
        del field[:]
        field.extend(values)
    return model


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


def _with_class_map(
    model: onnx.ModelProto, size: tuple[int, int], path: Path, channels_last: bool
) -> onnx.ModelProto:
    output = model.graph.output[0]
    kind, dims = output.type.tensor_type.elem_type, _dims(output)
    type_name, axis = TensorProto.DataType.Name(kind), None
    if "INT" in type_name or type_name == "BOOL":
        return keep_only(model, output)
    width, height = size
    if kind in FLOATS and len(dims) == 4 and _opset(model) >= OPSET_OF_RESIZE:
        try:
            # Where no other axis fits, the last does: a converter may turn the picture alone.
            axis = class_axis(dims, size, channels_last) or class_axis(dims, size, True)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
    if axis is None:
        told = ", ".join(str(dim or "?") for dim in dims)
        fix = "; a ? is what the file does not tell: export it for one size" if 0 in dims else ""
        raise ValueError(
            f"{path} gives {type_name} [{told}] in opset {_opset(model)}; expected class ids, or "
            f"FLOAT logits (1, K, h, w) or (1, h, w, K) of at most {IGNORE_INDEX} classes that lie "
            f"over a picture of {width}x{height}, in opset {OPSET_OF_RESIZE} or newer{fix}"
        )
    last, nodes = output.name, list[onnx.NodeProto]()
    if axis == 3:
        nodes.append(_node("Transpose", [last], last := "logits_first", perm=[0, 3, 1, 2]))
        dims = [1, dims[3], *dims[1:3]]
    constants = {"scales": np.array([1, 1, height / dims[2], width / dims[3]], np.float32)}
    nodes.append(_node("Resize", [last, "", "class_map_scales"], "full_size", mode="linear"))
    if dims[1] > 1:
        nodes.append(_node("ArgMax", ["full_size"], "full_size_ids", axis=1, keepdims=0))
    else:  # the logit of the second of two classes
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        constants |= {"half": np.zeros(1, dtype), "axis": np.array([1])}
        nodes.append(_node("Greater", ["full_size", "class_map_half"], "is_second"))
        nodes.append(_node("Squeeze", ["is_second", "class_map_axis"], "full_size_ids"))
    nodes.append(_node("Cast", ["full_size_ids"], CLASS_MAP, to=int(TensorProto.UINT8)))
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, f"class_map_{name}") for name, value in constants.items()
    )
    shape = [1, height, width]
    ids = helper.make_tensor_value_info(CLASS_MAP, TensorProto.UINT8, shape)
    return keep_only(model, ids)


def keep_only(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    """Leave in a graph what one output needs: ONNX Runtime runs what nobody asked for too."""
    needed, kept = {output.name}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(filter(None, _taken_by(node)))  # "" is what is left out
            kept.append(node)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.extend([output])
    return model


def _taken_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node takes, and what the graphs inside of it take from around it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _taken_by(inner)
        yield from (value.name for value in attribute.g.output)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], f"/compared/{output}", **attributes)


def _opset(model: onnx.ModelProto) -> int:
    versions = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return int(next(versions, 0))  # a file may have others' operators alone
