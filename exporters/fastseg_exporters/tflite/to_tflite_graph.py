"""What is inside a .tflite file, and small changes to it that no converter makes."""

import re
from typing import Any

import flatbuffers
from ai_edge_litert.schema_py_generated import BuiltinOperator
from ai_edge_litert.tools import flatbuffer_utils
from fastseg_runtime.arrays.metrics import Array

_WITH_WEIGHTS = (
    BuiltinOperator.CONV_2D,
    BuiltinOperator.DEPTHWISE_CONV_2D,
    BuiltinOperator.TRANSPOSE_CONV,
    BuiltinOperator.FULLY_CONNECTED,
)
SEVERAL_GRAPHS = "the converter made several graphs of it"
_CLASS_OF_MODULE = re.compile(r"^(\w+\.)*[^_]+_?")  # "torch.nn.modules.conv.Conv2d_" of "..._0"


def layer_names(model: bytes) -> tuple[str, ...]:
    """Return the layers with weights, by the tensor each gives, in the order of the graph."""
    tflite, graph = _read(model)
    return tuple(
        graph.tensors[op.outputs[0]].name.decode()
        for op in graph.operators
        if _kind(tflite, op) in _WITH_WEIGHTS
    )


def input_tensor(model: bytes) -> str:
    """Return the name of the tensor that holds the image."""
    _, graph = _read(model)
    name: str = graph.tensors[graph.inputs[0]].name.decode()
    return name


def shorten_names(model: bytes) -> bytes:
    """Return the file with tensors named after modules: "core.stem.0.0:17".

    The converter writes the class of every module on the way, 300 letters for each tensor.
    """
    tflite, graph = _read(model)
    for index, tensor in enumerate(graph.tensors):
        name = tensor.name.decode()
        if "/" in name:
            path = name.partition(";")[0].split("/")
            modules = [_CLASS_OF_MODULE.sub("", step) for step in path]
            tensor.name = f"{'.'.join(filter(None, modules))}:{index}".encode()
    return _write(tflite)


def take_argmax_of_int8(model: bytes) -> bytes:
    """Return the file with ArgMax working on int8: the largest is the same as in float.

    The quantizer does not know ArgMax and hands it floats, at four times the memory.
    """
    tflite, graph = _read(model)
    dequantize = {
        op.outputs[0]: op
        for op in graph.operators
        if _kind(tflite, op) == BuiltinOperator.DEQUANTIZE
    }
    for op in [op for op in graph.operators if _kind(tflite, op) == BuiltinOperator.ARG_MAX]:
        if before := dequantize.get(op.inputs[0]):
            op.inputs[0] = before.inputs[0]
            output = before.outputs[0]
            if output not in graph.outputs and all(output not in o.inputs for o in graph.operators):
                graph.operators.remove(before)
    return _write(tflite)


def _read(model: bytes) -> tuple[Any, Any]:
    tflite = flatbuffer_utils.read_model_from_bytearray(model)
    if len(tflite.subgraphs) != 1:
        raise ValueError(f"{SEVERAL_GRAPHS}: {len(tflite.subgraphs)} in place of one")
    return tflite, tflite.subgraphs[0]


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Stores equal arrays once, to be pointed to from wherever they are used.

    An int8 file has a zero point of eight bytes for every channel of every weight and bias, and
    all of them are 0: a tenth of the file.
    """

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._offsets: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Array) -> int:
        """Return where the array is, writing it if it is new."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._offsets:
            self._offsets[key] = super().CreateNumpyVector(x)
        return self._offsets[key]


def _write(tflite: Any) -> bytes:
    builder = _SharingBuilder()
    builder.Finish(tflite.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _kind(tflite: Any, op: Any) -> int:
    code = tflite.operatorCodes[op.opcodeIndex]
    kind: int = flatbuffer_utils.get_builtin_code_from_operator_code(code)
    return kind
