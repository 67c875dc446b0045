"""TensorRT: ONNX made for it; the engine itself is built on the device that runs it.

`model.onnx` serves the releases that take precision as a flag (8.6 to 10), and all of them in
int8; for fp16 on the strongly typed 11 there is `model-typed.onnx`, in half precision itself.
"""

import onnx

try:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
except ImportError as error:
    raise ImportError(
        "exporting for TensorRT needs onnxruntime: pip install 'fastseg-edge[onnx]'"
    ) from error

# A mean over a whole map sums thousands of values: fp16 ends at 65504.
FLOAT_OPERATORS = ("ReduceMean", "GlobalAveragePool")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with weights and activations in fp16, but for sums over whole maps.

    Bytes minus 128, divided by 64, are exact in fp16; so are class ids.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = OnnxModel(convert_float_to_float16(copy, op_block_list=list(FLOAT_OPERATORS)))
    half.topological_sort()
    typed: onnx.ModelProto = half.model
    onnx.checker.check_model(typed)
    return typed
