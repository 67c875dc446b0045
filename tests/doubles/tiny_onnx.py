"""Networks of one convolution in the form that our TensorRT artifacts have."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CLASSES = 4, 6, 5


def tiny_onnx(precision: str = "fp32", seed: int = 0, **changes: Any) -> bytes:
    """Return a serialized model: uint8 (1, 4, 6, 3) in, uint8 class ids (1, 4, 6) out.

    Args:
        precision: "fp32"; "fp16" for half weights and activations; "int8" for Q/DQ nodes.
        seed: of the weights.
        changes: opset, zero_point, operator: to break a rule; depthwise, "int8" or "float": there
            is such a convolution before the other.
    """
    real = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    dtype = np.float16 if precision == "fp16" else np.float32
    weights = np.random.default_rng(seed).standard_normal((CLASSES, 3, 1, 1)).astype(dtype)
    constants: dict[str, Any] = {"weights": weights, "mean": dtype(128), "std": dtype(64)}
    nodes = [
        helper.make_node("Cast", ["image"], ["bytes"], "to_float", to=real),
        helper.make_node("Sub", ["bytes", "mean"], ["centred"], "subtract_mean"),
        helper.make_node("Div", ["centred", "std"], ["normalised"], "divide_by_std"),
        helper.make_node("Transpose", ["normalised"], ["x"], "to_nchw", perm=[0, 3, 1, 2]),
    ]
    inputs, depthwise = ["x", "weights"], changes.get("depthwise")
    if precision == "int8":
        constants |= {"scale": np.float32(1 / 64), "scale_w": np.float32(1 / 32)}
        constants["zero"] = np.int8(changes.get("zero_point", 0))
        if depthwise:
            constants["each"] = np.full((3, 1, 1, 1), 0.5, np.float32)
            nodes += _pair("x", "scale") + _pair("each", "scale_w")
            suffix = "_dq" if depthwise == "int8" else ""
            both = [f"x{suffix}", f"each{suffix}"]
            nodes.append(helper.make_node("Conv", both, ["y"], "depthwise", group=3))
            inputs[0] = "y"
        nodes += _pair(inputs[0], "scale") + _pair("weights", "scale_w")
        inputs = [f"{inputs[0]}_dq", "weights_dq"]
    nodes += [
        helper.make_node("Conv", inputs, ["scores"], "conv"),
        helper.make_node(changes.get("operator", "Identity"), ["scores"], ["logits"], "last"),
        helper.make_node("ArgMax", ["logits"], ["ids"], "argmax", axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["ids32"], "to_int", to=TensorProto.INT32),
        helper.make_node("Cast", ["ids32"], ["ids_f"], "to_real", to=TensorProto.FLOAT),
        helper.make_node("Cast", ["ids_f"], ["classes"], "to_bytes", to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("classes", TensorProto.UINT8, [1, HEIGHT, WIDTH])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opset = helper.make_opsetid("", changes.get("opset", 17))
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return model.SerializeToString()


def _pair(name: str, scale: str) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [name, scale, "zero"], [f"{name}_q"], f"{name}_q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, "zero"], [f"{name}_dq"]),
    ]


def expected_classes(model: bytes, image_1HW3: Any) -> Any:
    """Return what ONNX Runtime computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image_1HW3})[0]


def random_image(seed: int = 0) -> Any:
    """Return uint8 (1, 4, 6, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
