"""The first convolution of an int8 graph, on four columns of the picture at a time.

ONNX Runtime copies the pixels under each place of a kernel together before it multiplies, three
bytes a pixel, unless the channels are a multiple of four: then its kernels read them where they
lie. That copying was a quarter of nano's int8 time. The camera's bytes (1, H, W, 3) are also
(1, H, W / 4, 12), without moving one. So a convolution of stride 2 becomes one of 12 channels that
steps by whole groups of columns and gives two neighbouring results, the second as further channels,
which are again only read as columns. Weights are the same integers among zeros, scales and biases
are repeated: the results are the same to the bit, for more multiply-adds in this one layer.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.arrays.metrics import Array
from onnx import NodeProto, helper, numpy_helper

GROUP, STRIDE = 4, 2  # columns; the one stride that first convolutions have
AT_ONCE = GROUP // STRIDE  # results of one row
CHANNELS = 3


@dataclass(frozen=True)
class _Layer:
    """Nodes from the picture in NCHW to the first convolution's quantized result."""

    to_nchw: NodeProto
    conv: NodeProto
    quantize: NodeProto
    constants: tuple[NodeProto, ...]  # dequantize its weight and bias


def fold_columns(model: onnx.ModelProto, size: tuple[int, int]) -> None:
    """Change the first convolution in place, where it has the form that gains.

    Args:
        model: QDQ; its first node takes the bytes (1, H, W, 3) to NCHW.
        size: (H, W), pixels.
    """
    layer = _find(model)
    if layer is None:
        return
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight_OCyx = numpy_helper.to_array(tensors[layer.constants[0].input[0]])
    wanted = _folded(layer.conv, weight_OCyx, size)
    if wanted is None:
        return
    pads, folded, (rows, columns) = wanted
    outputs = len(weight_OCyx)
    for node in layer.constants:
        for name in node.input:
            values = numpy_helper.to_array(tensors[name])
            if values.shape == (outputs,):
                _put(tensors[name], np.tile(values, AT_ONCE))
    _put(tensors[layer.constants[0].input[0]], folded)
    _set(layer.conv, kernel_shape=folded.shape[2:], strides=(STRIDE, 1), pads=pads)
    (image,), height, width = layer.to_nchw.input, *size
    layer.to_nchw.input[0] = "image_columns"
    shape = (1, height, width // GROUP, CHANNELS * GROUP)
    before = _reshape(model, image, "image_columns", shape)
    result = layer.quantize.output[0]
    names = [f"{result}_{step}" for step in ("folded", "folded_NHWC", "NHWC")]
    layer.quantize.output[0] = names[0]
    after = [
        helper.make_node("Transpose", names[:1], names[1:2], f"{names[1]}_", perm=[0, 2, 3, 1]),
        _reshape(model, names[1], names[2], (1, rows, columns, outputs)),
        helper.make_node("Transpose", names[2:], [result], f"{result}_", perm=[0, 3, 1, 2]),
    ]
    nodes = list(model.graph.node)
    position = nodes.index(layer.quantize) + 1
    del model.graph.node[:]
    model.graph.node.extend([before, *nodes[:position], *after, *nodes[position:]])
    del model.graph.value_info[:]  # of the shapes before


def _find(model: onnx.ModelProto) -> _Layer | None:
    """Return the first convolution, if nothing but it reads the picture, its weight and result."""
    users: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    chain = [model.graph.node[0]]
    while chain[-1].op_type != "QuantizeLinear":
        following = users[chain[-1].output[0]]
        if len(following) != 1:
            return None
        chain.append(following[0])
    kinds = [node.op_type for node in chain]
    between = set(kinds[3:-1])
    if kinds[:3] != ["Transpose", "DequantizeLinear", "Conv"] or between - {"Relu", "Clip"}:
        return None
    conv = chain[2]
    constants = [makers[name] for name in conv.input[1:] if name in makers]
    given = [name for node in constants for name in node.input]
    alone = all(len(users[name]) == 1 for name in (*given, *conv.input[1:]))
    stored = {tensor.name for tensor in model.graph.initializer}
    quantized = len(constants) == len(conv.input) - 1 and stored.issuperset(given)
    return _Layer(chain[0], conv, chain[-1], tuple(constants)) if alone and quantized else None


def _folded(
    conv: NodeProto, weight_OCyx: Array, size: tuple[int, int]
) -> tuple[list[int], Array, tuple[int, int]] | None:
    """Return pads, weight and the former result's height and width; None: another form."""
    has = {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
    (height, width), (outputs, channels, rows, columns) = size, weight_OCyx.shape
    top, left, bottom, right = has.get("pads", [0] * 4)
    simple = (
        set(has.get("dilations", [1])) == {1}
        and list(has.get("strides", [])) == [STRIDE, STRIDE]
        and has.get("auto_pad", b"NOTSET") == b"NOTSET"  # else pads would be said twice
    )
    high = (height + top + bottom - rows) // STRIDE + 1
    wide = (width + left + right - columns) // STRIDE + 1
    if not simple or channels != CHANNELS or width % GROUP or wide % AT_ONCE:
        return None
    first, last = -left // GROUP, (STRIDE * (AT_ONCE - 1) + columns - 1 - left) // GROUP
    after = wide // AT_ONCE - 1 + last - (width // GROUP - 1)
    if after < 0:
        return None
    kinds = (AT_ONCE, outputs, GROUP, channels, rows, last - first + 1)
    weight_nOgCyq = np.zeros(kinds, weight_OCyx.dtype)
    for result in range(AT_ONCE):
        for column in range(columns):
            group, place = divmod(STRIDE * result + column - left, GROUP)
            weight_nOgCyq[result, :, place, :, :, group - first] = weight_OCyx[..., column]
    shape = (AT_ONCE * outputs, GROUP * channels, rows, last - first + 1)
    return [top, -first, bottom, after], weight_nOgCyq.reshape(shape), (high, wide)


def _put(tensor: onnx.TensorProto, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def _set(node: NodeProto, **values: Sequence[int]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    made: list[Any] = [helper.make_attribute(name, list(value)) for name, value in values.items()]
    del node.attribute[:]
    node.attribute.extend([*kept, *made])


def _reshape(model: onnx.ModelProto, source: str, to: str, shape: Sequence[int]) -> NodeProto:
    values = np.array(shape, np.int64)
    model.graph.initializer.append(numpy_helper.from_array(values, f"{to}_shape"))
    return helper.make_node("Reshape", [source, f"{to}_shape"], [to], f"{to}_")
