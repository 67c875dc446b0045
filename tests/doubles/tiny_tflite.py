"""A TFLite file of two operators, built with LiteRT's own schema: no converter is needed."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

TYPES: dict[str, int] = {
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
}


def argmax_tflite(width: int, height: int, image: str = "uint8", classes: str = "uint8") -> bytes:
    """The id of the strongest channel of each pixel.

    Args:
        width: pixels.
        height: pixels.
        image: element type of the input (1, H, W, 3).
        classes: element type of the output (1, H, W): "uint8" or "int32".
    """
    axis = schema.BufferT()
    axis.data = np.frombuffer(np.int32(3).tobytes(), np.uint8)
    tensors = [
        _tensor("image", image, [1, height, width, 3]),
        _tensor("axis", "int32", [], buffer=1),
        _tensor("ids", "int32", [1, height, width]),
    ]
    operators = [_operator(0, [0, 1], [2], schema.BuiltinOptions.ArgMaxOptions, _argmax_options())]
    if classes != "int32":
        tensors.append(_tensor("classes", classes, [1, height, width]))
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = TYPES["int32"], TYPES[classes]
        operators.append(_operator(1, [2], [3], schema.BuiltinOptions.CastOptions, options))
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, operators
    graph.inputs, graph.outputs = [0], [len(tensors) - 1]
    model = schema.ModelT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers = [schema.BufferT(), axis]
    model.operatorCodes = [
        _code(schema.BuiltinOperator.ARG_MAX, 2),
        _code(schema.BuiltinOperator.CAST, 1),
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def logits_tflite(width: int, height: int) -> bytes:
    """A model that hands its float input through as logits (1, H, W, 3)."""
    graph = schema.SubGraphT()
    shape = [1, height, width, 3]
    graph.tensors = [_tensor("image", "float32", shape), _tensor("logits", "float32", shape)]
    graph.operators = [_operator(0, [0], [1], schema.BuiltinOptions.AbsOptions, None)]
    graph.inputs, graph.outputs = [0], [1]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes = [_code(schema.BuiltinOperator.FLOOR, 1)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _argmax_options() -> Any:
    options = schema.ArgMaxOptionsT()
    options.outputType = TYPES["int32"]
    return options


def _tensor(name: str, kind: str, shape: list[int], buffer: int = 0) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, TYPES[kind], shape, buffer
    if kind == "int8":  # what makes an int8 tensor hold the camera's bytes minus 128
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [1 / 64], [0]
    return tensor


def _operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    if options is not None:
        operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator


def _code(operator: int, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = operator, version
    code.deprecatedBuiltinCode = min(operator, 127)
    return code
