"""TensorRT: ONNX made for it; the engine itself is built on the device that runs it.

`model.onnx` serves the releases that take precision as a flag (8.6 to 10), and all of them in
int8 and fp32; for fp16 on the strongly typed 11 there is `model-typed.onnx` beside it.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from fastseg_runtime.bundle.manifest import OutputSpec

from fastseg import DeployGraph
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, parse_options, versions
from fastseg_exporters.onnx.to_onnx import describe, save, to_onnx
from fastseg_exporters.tensorrt import to_tensorrt_int8
from fastseg_exporters.tensorrt.graph import fit_for_tensorrt

try:
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel
except ImportError as error:
    raise ImportError(
        "exporting for TensorRT needs onnxruntime: pip install 'fastseg-edge[onnx]'"
    ) from error

ENTRY, TYPED = "model.onnx", "model-typed.onnx"
PRECISIONS = ("fp32", "fp16", "int8")
MIN_TENSORRT = "8.5"
# A mean over a whole map sums thousands of values: fp16 ends at 65504.
FLOAT_OPERATORS = ("ReduceMean", "GlobalAveragePool")


@dataclass(frozen=True)
class Options:
    """Of a target's table: none so far."""


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx, and for fp16 model-typed.onnx.

    Raises:
        ValueError: an operation that ONNX lacks, or a precision that this exporter does not have.
    """
    parse_options(Options, request.target)
    if request.precision not in PRECISIONS:
        raise ValueError(f"the tensorrt exporter makes {PRECISIONS}, not {request.precision}")
    graph = request.graph()
    model = request.once("float graph", lambda: tensorrt_onnx(graph))
    layers: tuple[str, ...] = ()
    if request.precision == "int8":
        layers = to_tensorrt_int8.quantizable(model)
        images = request.calibration.images(graph.width, graph.height)
        model = to_tensorrt_int8.quantize(model, images, graph.mean, graph.std, request.keep_float)
    files = {ENTRY: model}
    if request.precision == "fp16":
        files[TYPED] = to_half(model)
    for name, made in files.items():
        describe(made, request.network, OutputSpec(graph.output, graph.mask_stride))
        save(made, out_dir / name)
    output = "uint8" if graph.output == "classes" else "float32 NCHW"
    return ExportedArtifact(
        format="onnx",
        entry=ENTRY,
        io={"image": "uint8 NHWC", graph.output: output},
        requires={"backend": "tensorrt", "min_version": MIN_TENSORRT},
        toolchain=versions("torch", "onnx", "onnxruntime", "onnxsim"),
        layers=tuple(name for name in layers if name not in request.keep_float),
        proof=TYPED if request.precision == "fp16" else "",
    )


def tensorrt_onnx(graph: DeployGraph) -> onnx.ModelProto:
    """Convert a deploy graph to the float ONNX that every TensorRT from 8.6 on parses."""
    example_1HW3 = torch.zeros(1, graph.height, graph.width, 3, dtype=torch.uint8)
    return fit_for_tensorrt(to_onnx(graph, example_1HW3, graph))


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with weights and activations in fp16, but for sums over whole maps.

    Bytes minus 128, divided by 64, are exact in fp16; so are class ids. Logits leave as float32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = OnnxModel(
        convert_float_to_float16(copy, keep_io_types=True, op_block_list=list(FLOAT_OPERATORS))
    )
    half.topological_sort()
    typed: onnx.ModelProto = half.model
    del typed.graph.value_info[:]  # types as they were before
    onnx.checker.check_model(typed)
    return typed
