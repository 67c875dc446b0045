"""The last convolution of an int8 graph as a product that writes the logits pixel by pixel.

The class map reads all classes of a pixel together. ONNX Runtime's int8 convolutions do so too, but
the last one, of kernel 1x1, ends in float, so it got its input turned to NCHW and its logits turned
back, by one thread: a twentieth of nano's int8 time with two. A float graph gains nothing, since
its blocked layout is read in any order. Where logits are cut to the picture's size, as where a side
is no multiple of 32, what they are made of is cut instead.
"""

from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array
from onnx import NodeProto, helper, numpy_helper

TO_NHWC = [0, 2, 3, 1]
OF_CLASS_MAP = "/class_map/"  # a network's own may be reshaped by places of the axes


def write_rows(model: onnx.ModelProto) -> None:
    """Change the convolution before the class map in place, where it is of that form.

    Args:
        model: QDQ, or another, which stays as it is.
    """
    found = _find(model)
    if found is None:
        return
    conv, cut, turn = found
    weight_KC11, *bias = (_values(model, name) for name in conv.input[1:])
    classes, channels = weight_KC11.shape[:2]
    constants = {
        "logits_weight": weight_KC11.reshape(classes, channels),
        "logits_bias": bias[0] if bias else np.zeros(classes, np.float32),
        "logits_rows_shape": np.array([-1, channels], np.int64),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()
    )
    rows = ["logits_rows", "logits_weight", "logits_bias"]
    whole = "logits_NHWC"
    product = [helper.make_node("Transpose", conv.input[:1], [whole], whole, perm=TO_NHWC)]
    if cut is not None:
        axes = [TO_NHWC.index(axis) for axis in _values(model, cut.input[3]).astype(int)]
        model.graph.initializer.append(numpy_helper.from_array(np.array(axes), "cut_axes"))
        given = [whole, *cut.input[1:3], "cut_axes", *cut.input[4:]]
        product.append(helper.make_node("Slice", given, ["logits_NHWC_cut"], cut.name))
    product += [
        helper.make_node(
            "Reshape", [product[-1].output[0], "logits_rows_shape"], rows[:1], rows[0]
        ),
        helper.make_node("Gemm", rows, turn.output[:1], conv.name, transB=1),
    ]
    nodes = [node for node in model.graph.node if node is not conv and node is not cut]
    position = nodes.index(turn)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:position], *product, *nodes[position + 1 :]])
    del model.graph.value_info[:]  # of the shapes before
    used = {name for node in model.graph.node for name in node.input}
    unused = [x for x in model.graph.initializer if x.name not in used]  # engines warn of them
    for tensor in unused:
        model.graph.initializer.remove(tensor)


def _find(model: onnx.ModelProto) -> tuple[NodeProto, NodeProto | None, NodeProto] | None:
    """Return a 1x1 convolution of an int8 map to float, a cut of its result, the class map's turn.

    The cut, where there is one, is of rows and columns, at places that are constants.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    for turn in model.graph.node:
        if turn.op_type != "Transpose" or not turn.name.startswith(OF_CLASS_MAP):
            continue
        conv, cut = makers.get(turn.input[0]), None
        if conv is not None and _is_cut(model, conv):
            conv, cut = makers.get(conv.input[0]), conv
        if conv is None or conv.op_type != "Conv":
            continue
        source = makers.get(conv.input[0])
        ends = [conv, turn] if cut is None else [conv, cut, turn]
        users = [user for node in ends for user in _users(model, node.output[0])]
        if (
            source is not None
            and source.op_type == "DequantizeLinear"
            and [node.op_type for node in users] == [*[n.op_type for n in ends[1:]], "Reshape"]
            and list(_attributes(turn)["perm"]) == TO_NHWC
            and all(_is_constant(model, name) for name in conv.input[1:])
            and _is_plain(conv, _values(model, conv.input[1]).shape)
        ):
            return conv, cut, turn
    return None


def _is_cut(model: onnx.ModelProto, node: NodeProto) -> bool:
    """Return whether a node takes rows and columns at places that are written in the graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return (
        node.op_type == "Slice"
        and len(node.input) >= 4  # the axes are named
        and constants.issuperset(node.input[1:])
        and set(_values(model, node.input[3]).astype(int)) <= {2, 3}
    )


def _users(model: onnx.ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {given.name: helper.get_attribute_value(given) for given in node.attribute}


def _is_plain(conv: NodeProto, kernel: tuple[int, ...]) -> bool:
    """Return whether a convolution reads one pixel for each that it writes, all its channels."""
    has = _attributes(conv)
    ones = [*kernel[2:], *has.get("strides", []), has.get("group", 1)]
    return set(ones) == {1} and not any(has.get("pads", []))


def _is_constant(model: onnx.ModelProto, name: str) -> bool:
    """Return whether _values() knows it."""
    constants = {tensor.name for tensor in model.graph.initializer}
    makers = [node for node in model.graph.node if name in node.output]
    return name in constants or any(
        node.op_type == "DequantizeLinear"
        and len(node.input) == 3
        and constants.issuperset(node.input)
        for node in makers
    )


def _values(model: onnx.ModelProto, name: str) -> Array:
    """Return a constant in float32: an initializer, or integers of a scale for each class."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if name in tensors:
        return tensors[name]
    (node,) = (node for node in model.graph.node if name in node.output)
    steps, scale_K, zero_K = (tensors[given].astype(np.float32) for given in node.input)
    by_class = (-1, *[1] * (steps.ndim - 1))
    values: Array = (steps - zero_K.reshape(by_class)) * scale_K.reshape(by_class)
    return values
