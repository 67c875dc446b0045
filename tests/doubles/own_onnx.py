"""Tiny ONNX files as others export them: any opset, layout, type of picture and kind of output."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import Array
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CLASSES = 48, 64, 4
TYPES = {
    name: getattr(TensorProto, name.upper())
    for name in ("int32", "int64", "uint8", "uint16", "uint64")
}
# Mean and standard deviation of pictures of 0 to 1, written here once more to hold ours against.
STATISTICS: dict[str, Any] = {
    "imagenet": (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
    "unit": (0.0, 1.0),
}


def own_onnx(
    opset: int = 17,
    layout: str = "NCHW",
    picture: str = "float",
    output: str = "logits",
    size: tuple[Any, Any] = (HEIGHT, WIDTH),
    seed: int = 0,
    **changes: Any,
) -> onnx.ModelProto:
    """Return a network of two convolutions, a gate over the whole picture and a bias.

    Args:
        opset: of ONNX's operators.
        layout: "NCHW" or "NHWC"; of logits too.
        picture: "float" or "uint8".
        output: "logits" at a quarter of the size, "one" logit, or ids, one of TYPES.
        size: (height, width); words leave a side open.
        seed: of the weights.
        changes: auxiliary=True: another output of as many channels, in front; sizes=True: ids by
            the size of the map; batch.
    """
    random = np.random.default_rng(seed)
    count = 1 if output == "one" else CLASSES
    constants: dict[str, Any] = {
        "w0": random.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "w1": random.standard_normal((count, 8, 3, 3)).astype(np.float32),
        "axes": np.array([2, 3]),
        "scales": np.array([1, 1, 4, 4], np.float32),
        "no_scales": np.zeros(0, np.float32),
        "sizes": np.array([1, count, HEIGHT, WIDTH]),
        "roi": np.zeros(0, np.float32),
        "mean": np.float32(100),
        "std": np.float32(50),
    }
    node, nodes, x = helper.make_node, [], "image"
    if layout == "NHWC":
        nodes.append(node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    if picture == "uint8":
        nodes += [
            node("Cast", [x], ["real"], to=TensorProto.FLOAT),
            node("Sub", ["real", "mean"], ["centred"]),
            node("Div", ["centred", "std"], ["normal"]),
        ]
        x = "normal"
    over_map = (["a", "axes"], {}) if opset >= 18 else (["a"], {"axes": [2, 3]})
    nodes += [
        node("Conv", [x, "w0"], ["c0"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["a"]),
        node("ReduceMean", over_map[0], ["mean_of_map"], **over_map[1]),
        node("Sigmoid", ["mean_of_map"], ["gate"]),
        node("Mul", ["a", "gate"], ["b"]),
        node("Conv", ["b", "w1"], ["scores"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("ReduceMean", ["scores", "axes"], ["level"])
        if opset >= 18
        else node("ReduceMean", ["scores"], ["level"], axes=[2, 3]),
        node("Sub", ["scores", "level"], ["balanced"]),
    ]
    last, kind = "balanced", TensorProto.FLOAT
    by_sizes = ["roi", "no_scales", "sizes"]  # as torch writes F.interpolate(size=) in opset 11
    to_full_size = by_sizes if changes.get("sizes") else ["roi", "scales"]
    if output in TYPES:
        kind = TYPES[output]
        nodes += [
            node("Resize", [last, *to_full_size], ["full"], mode="linear"),
            node("ArgMax", ["full"], ["ids"], axis=1, keepdims=0),
            node("Cast", ["ids"], ["out"], to=kind),
        ]
        last = "out"
    elif layout == "NHWC":
        nodes.append(node("Transpose", [last], ["logits_last"], perm=[0, 2, 3, 1]))
        last = "logits_last"
    outputs = [helper.make_tensor_value_info(last, kind, None)]
    if changes.get("auxiliary"):
        nodes.append(node("Neg", [last], ["auxiliary"]))
        outputs.insert(0, helper.make_tensor_value_info("auxiliary", kind, None))
    batch, (height, width) = changes.get("batch", 1), size
    shape = [batch, height, width, 3] if layout == "NHWC" else [batch, 3, height, width]
    image = TensorProto.UINT8 if picture == "uint8" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info("image", image, shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def own_result(
    path: Path,
    image_HW3: Array,
    layout: str = "NCHW",
    color: str = "rgb",
    normalization: str = "imagenet",
) -> Array:
    """Return what the file itself gives; what it takes is computed here by hand."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = image_HW3
    if session.get_inputs()[0].type == "tensor(float)":
        mean, std = STATISTICS[normalization]
        image = ((image / 255 - mean) / std).astype(np.float32)
    image = image[..., ::-1] if color == "bgr" else image
    image = image[None] if layout == "NHWC" else image.transpose(2, 0, 1)[None]
    name = session.get_outputs()[-1].name
    (found,) = session.run([name], {"image": np.ascontiguousarray(image)})
    return np.asarray(found)


def own_answer(
    path: Path,
    image_HW3: Array,
    layout: str = "NCHW",
    color: str = "rgb",
    normalization: str = "imagenet",
) -> Array:
    """Return the ids that the file itself gives."""
    found = own_result(path, image_HW3, layout, color, normalization)
    if found.dtype.kind != "f":
        return found.reshape(HEIGHT, WIDTH)
    found = found.astype(np.float32)
    logits = torch.from_numpy(found.transpose(0, 3, 1, 2) if layout == "NHWC" else found)
    full = F.interpolate(logits, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0]
    return (full[0] > 0).numpy() if len(full) == 1 else full.argmax(0).numpy()


def ending(*nodes: Any, kind: int = TensorProto.FLOAT, **of: Any) -> onnx.ModelProto:
    """Return a network with more nodes at its end: an operator, its attributes, its constants."""
    model = own_onnx(**of)
    name = model.graph.output[0].name
    for operator, attributes, *constants in nodes:
        made = [f"{name}_{index}" for index in range(len(constants))]
        for constant, value in zip(made, constants, strict=True):
            model.graph.initializer.append(numpy_helper.from_array(value, constant))
        node = helper.make_node(operator, [name, *made], [f"{name}_"], **attributes)
        model.graph.node.append(node)
        name = f"{name}_"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, kind, None))
    return model


def to_size(height: int, width: int) -> Any:
    """Return a node that brings logits from a quarter of the size to another."""
    scales = np.array([1, 1, height / (HEIGHT // 4), width / (WIDTH // 4)], np.float32)
    return "Resize", {"mode": "linear"}, np.zeros(0, np.float32), scales


FIRST, LAST = ("Transpose", {"perm": [0, 3, 1, 2]}), ("Transpose", {"perm": [0, 2, 3, 1]})
IDS = ("ArgMax", {"axis": 1, "keepdims": 1})
FULL, INT64 = to_size(HEIGHT, WIDTH), TensorProto.INT64
