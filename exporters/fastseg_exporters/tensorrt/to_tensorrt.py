"""TensorRT: ONNX made for it; the engine itself is built on the device that runs it.

`model.onnx` serves the releases that take precision as a flag (8.6 to 10), and all of them in
int8 and fp32; for fp16 on the strongly typed 11 there is `model-typed.onnx` beside it.

TensorRT moves bytes in and out of an engine only through a cast from or to float, computes
argmax as int32, and wants scales, weights and biases as initializers, not behind nodes.
Sources: NVIDIA's support matrix and the documents of onnx-tensorrt.

In int8 it wants explicit Q/DQ nodes: symmetric int8 everywhere, zero points 0, one scale per output
channel of a weight, weights in float behind a Q/DQ pair of their own, no Q/DQ on biases.
Convolutions alone are quantized, at their inputs: where a residual skips a block, both then read
the same quantized map, and TensorRT fuses convolution, addition and ReLU. The pooled vectors of
channel gates stay in float, where int8 gains nothing and costs accuracy.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.engines.engine import ENGINES
from onnx import GraphProto, NodeProto, TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from fastseg import DeployGraph
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, parse_options, versions
from fastseg_exporters.onnx.to_onnx import describe, save, to_onnx
from fastseg_exporters.onnx.to_onnx_int8 import (
    check_kept,
    convolutions,
    pinned_scales,
    run_quantizer,
)

ENTRY, TYPED = "model.onnx", "model-typed.onnx"
OPSET = 17  # the newest that TensorRT 8.6 reads
IMAGE = "image"  # what backends call the input
# A mean over a whole map sums thousands of values: fp16 ends at 65504.
FLOAT_OPERATORS = ("ReduceMean", "GlobalAveragePool")


@dataclass(frozen=True)
class Options:
    """Of a target's table: none so far."""


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx, and for fp16 model-typed.onnx.

    Raises:
        ValueError: an operation that ONNX lacks.
    """
    asked = request.conversion
    parse_options(Options, asked.target)
    graph = request.graph()
    model = request.once("float graph", lambda: tensorrt_onnx(graph))
    layers: tuple[str, ...] = ()
    if asked.precision == "int8":
        layers = convolutions(model)
        images = request.images()
        model = quantize(model, images, graph.mean, graph.std, asked.keep_float)
    files = {ENTRY: model}
    if asked.precision == "fp16":
        files[TYPED] = to_half(model)
    for name, made in files.items():
        describe(made, request.network, OutputSpec(graph.output, graph.mask_stride))
        save(made, out_dir / name)
    output = "uint8" if graph.output == "classes" else "float32 NCHW"
    return ExportedArtifact(
        format="onnx",
        entry=ENTRY,
        io={"image": "uint8 NHWC", graph.output: output},
        requires=ENGINES["tensorrt"].requirement,
        toolchain=versions("torch", "onnx", "onnxruntime", "onnxsim"),
        layers=tuple(name for name in layers if name not in asked.keep_float),
        proof=TYPED if asked.precision == "fp16" else "",
    )


def tensorrt_onnx(graph: DeployGraph) -> onnx.ModelProto:
    """Convert a deploy graph to the float ONNX that every TensorRT from 8.6 on parses."""
    example_1HW3 = torch.zeros(1, graph.height, graph.width, 3, dtype=torch.uint8)
    return fit_for_tensorrt(to_onnx(graph, example_1HW3, graph))


def fit_for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of our deploy graph that every TensorRT from 8.6 on parses.

    Args:
        model: uint8 image in, ids or float logits out.

    Raises:
        ValueError: the opset is too new.
    """
    fitted = copy.deepcopy(model)
    _check_opset(fitted)
    aliases = {**_fold_constants(fitted.graph), fitted.graph.input[0].name: IMAGE}
    fitted.graph.input[0].name = IMAGE
    nodes: list[NodeProto] = []
    for node in fitted.graph.node:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        if node.op_type == "Cast" and _target(node) == TensorProto.UINT8:
            nodes += _cast_over_float(node)
        else:
            nodes.append(node)
    del fitted.graph.node[:]
    fitted.graph.node.extend(nodes)
    del fitted.graph.value_info[:]  # tells types of what is an initializer now
    onnx.checker.check_model(fitted)
    return fitted


def _check_opset(model: onnx.ModelProto) -> None:
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset > OPSET:
        raise ValueError(
            f"the ONNX graph has opset {opset}, TensorRT 8.6 reads {OPSET} at most; "
            "export it with dynamo=False, which keeps the opset that was asked for"
        )


def _fold_constants(graph: GraphProto) -> dict[str, str]:
    """Make initializers of Constant nodes, remove Identity nodes of initializers.

    Returns:
        The name of an initializer by the name of an Identity's output.
    """
    constants = [node for node in graph.node if node.op_type == "Constant"]
    graph.initializer.extend(_initializer(node) for node in constants)
    names = {tensor.name for tensor in graph.initializer}
    copies = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in names]
    for node in [*constants, *copies]:
        graph.node.remove(node)
    return {node.output[0]: node.input[0] for node in copies}


def _initializer(node: NodeProto) -> TensorProto:
    tensor: TensorProto = copy.deepcopy(helper.get_attribute_value(node.attribute[0]))
    tensor.name = node.output[0]
    return tensor


def _cast_over_float(node: NodeProto) -> list[NodeProto]:
    """Ids to int32, to float, and only then to uint8."""
    (source,), (output,) = node.input, node.output
    chain = []
    for elem_type, suffix in ((TensorProto.INT32, "int32"), (TensorProto.FLOAT, "float")):
        target = f"{output}_as_{suffix}"
        chain.append(helper.make_node("Cast", [source], [target], name=target, to=elem_type))
        source = target
    node.input[0] = source
    return [*chain, node]


def _target(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with weights and activations in fp16, but for sums over whole maps.

    Bytes minus 128, divided by 64, are exact in fp16; so are class ids. Logits leave as float32.
    """
    half = OnnxModel(
        convert_float_to_float16(
            copy.deepcopy(model), keep_io_types=True, op_block_list=list(FLOAT_OPERATORS)
        )
    )
    half.topological_sort()
    typed: onnx.ModelProto = half.model
    del typed.graph.value_info[:]  # types as they were before
    onnx.checker.check_model(typed)
    return typed


def quantize(
    model: onnx.ModelProto,
    images_1HW3: Iterable[Array],
    mean: float,
    std: float,
    keep_float: Sequence[str] = (),
) -> onnx.ModelProto:
    """Return the graph with Q/DQ nodes around its convolutions.

    Args:
        model: from fit_for_tensorrt().
        images_1HW3: calibration images, uint8 RGB of the input's size; read one at a time.
        mean: of the graph's normalisation.
        std: of the graph's normalisation.
        keep_float: names of convolutions to leave alone.

    Raises:
        ValueError: no calibration image, or a name in keep_float that is no convolution.
    """
    layers = convolutions(model)
    check_kept(keep_float, layers)
    # All before the first Transpose is ours: normalisation; what follows may be scaled in any way.
    image = next(node.output[0] for node in model.graph.node if node.op_type == "Transpose")
    if not any(node.op_type == "Conv" and node.input[0] == image for node in model.graph.node):
        image = ""  # it is not what is quantized
    return run_quantizer(
        model,
        pinned_scales(model, image, mean, std, symmetric=True),
        images_1HW3,
        symmetric=True,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
        },
        nodes_to_quantize=[name for name in layers if name not in keep_float],
    )
