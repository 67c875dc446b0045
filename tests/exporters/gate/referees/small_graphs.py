"""A network of one convolution behind each preparation of the image that our graphs have."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = (8, 12), 4
CAST, DEQUANTIZE = "cast", "dequantize"


def graph(preparation: str, mean: float = 128, std: float = 64) -> onnx.ModelProto:
    """Return uint8 (1, 8, 12, 3) in, float logits (1, 4, 8, 12) out."""
    height, width = SIZE
    weight_KC11 = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1))
    constants: dict[str, Any] = {
        "mean": np.float32(mean),
        "std": np.float32(std),
        "scale": np.float32(1 / std),
        "zero": np.uint8(mean),
        "weight": weight_KC11.astype(np.float32),
    }
    nodes = {
        CAST: [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["float", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["normalised"], perm=[0, 3, 1, 2]),
        ],
        DEQUANTIZE: [
            helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("DequantizeLinear", ["planes", "scale", "zero"], ["normalised"]),
        ],
    }[preparation]
    nodes.append(helper.make_node("Conv", ["normalised", "weight"], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES, height, width])
    arrays = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    made = helper.make_graph(nodes, "small", [image], [logits], arrays)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def frame(seed: int) -> Any:
    """Return bytes (1, 8, 12, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (1, *SIZE, 3), np.uint8)
