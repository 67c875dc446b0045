"""TensorRT: ONNX made for it; the engine itself is built on the device that runs it.

`model.onnx` serves the releases that take precision as a flag (8.6 to 10), and all of them in
fp32; for the strongly typed 11 there is `model-typed.onnx` beside it, in half precision, or in int8
and what that leaves in half.

TensorRT moves bytes in and out of an engine only through a cast from or to float, computes
argmax as int32, and wants scales, weights and biases as initializers, not behind nodes.
Sources: NVIDIA's support matrix and the documents of onnx-tensorrt.

In int8 it wants explicit Q/DQ nodes: symmetric int8 everywhere, zero points 0, one scale per output
channel of a weight, weights in float behind a Q/DQ pair of their own, no Q/DQ on biases.
Convolutions alone are quantized, at their inputs: where a residual skips a block, both then read
the same quantized map, and TensorRT fuses convolution, addition and ReLU. The pooled vectors of
channel gates stay in float, where int8 gains nothing and costs accuracy. Whether depthwise
convolutions gain by int8 depends on the device, which chooses between two graphs by their time:
see fastseg_runtime.engines.tensorrt.choice.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.tensorrt.builder import MIN_SHARE
from fastseg_runtime.engines.tensorrt.choice import FLOAT_DEPTHWISE, TYPED, file_name
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from fastseg import DeployGraph
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, parse_options, versions
from fastseg_exporters.onnx.own_file import constant_of, refuse_operators_of_others
from fastseg_exporters.onnx.to_onnx import describe, outputs_of, save, to_onnx
from fastseg_exporters.onnx.to_onnx_int8 import (
    NOTHING_FOR_INT8,
    check_kept,
    convolutions,
    pinned_scales,
    run_quantizer,
)

ENTRY = "model.onnx"
OPSET = 17  # the newest that TensorRT 8.6 reads
HALF_SCALES_OPSET = 19  # the first with scales in fp16; TensorRT 11 reads 24
IMAGE = "image"  # what backends call the input
MOST_COMPARED = 64  # classes, each of which adds four layers
# A mean over a whole map sums thousands of values: fp16 ends at 65504.
FLOAT_OPERATORS = ("ReduceMean", "GlobalAveragePool")


@dataclass(frozen=True)
class Options:
    """Of a target's table: none so far."""


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx, for fp16 and int8 a typed one, for int8 both with depthwise in float.

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
    files = graphs_for(model, asked.precision)
    for name, made in files.items():
        describe(made, request.network, OutputSpec(graph.output, graph.mask_stride))
        save(made, out_dir / name)
    return ExportedArtifact(
        format="onnx",
        entry=ENTRY,
        io={"image": "uint8 NHWC", **outputs_of(graph)},
        requires=ENGINES["tensorrt"].requirement,
        toolchain=versions("torch", "onnx", "onnxruntime", "onnxsim"),
        layers=tuple(name for name in layers if name not in asked.keep_float),
        alternatives=tuple(name for name in files if name != ENTRY),
    )


def graphs_for(model: onnx.ModelProto, precision: str) -> dict[str, onnx.ModelProto]:
    """Return the graphs of an artifact by file: the model itself first, what else devices may take.

    Args:
        model: of tensorrt_onnx(); for int8, of quantize().
        precision: "fp32", "fp16" or "int8".
    """
    files = {ENTRY: model}
    if precision == "int8" and (rung := float_depthwise(model)):
        files[file_name(ENTRY, FLOAT_DEPTHWISE)] = rung
    if precision != "fp32":
        files |= {file_name(name, TYPED): to_half(made) for name, made in files.items()}
    return files


def tensorrt_onnx(graph: DeployGraph) -> onnx.ModelProto:
    """Convert a deploy graph to the float ONNX that every TensorRT from 8.6 on parses."""
    example_1HW3 = torch.zeros(1, graph.height, graph.width, 3, dtype=torch.uint8)
    return fit_for_tensorrt(to_onnx(graph, example_1HW3, graph))


def fit_for_tensorrt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of our deploy graph that every TensorRT from 8.6 on parses.

    Args:
        model: uint8 image in, ids or float logits out.

    Raises:
        ValueError: the opset is too new, or an operator is none of ONNX's own.
    """
    fitted = copy.deepcopy(model)
    refuse_operators_of_others(fitted)
    _check_opset(fitted)
    shapes = _shapes(fitted)  # before names change
    aliases = {**_fold_constants(fitted.graph), fitted.graph.input[0].name: IMAGE}
    fitted.graph.input[0].name = IMAGE
    nodes: list[NodeProto] = []
    for node in fitted.graph.node:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        if node.op_type == "Slice":
            nodes += _whole_slice(node, fitted.graph, shapes, aliases)
        elif node.op_type == "Cast" and _target(node) == TensorProto.UINT8:
            nodes += _cast_over_float(node)
        else:
            nodes.append(node)
    del fitted.graph.node[:]
    fitted.graph.node.extend(nodes)
    _drop_unused(fitted.graph)
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
    found = [(node, constant_of(node)) for node in graph.node if node.op_type == "Constant"]
    constants = [node for node, tensor in found if tensor is not None]
    graph.initializer.extend(tensor for _, tensor in found if tensor is not None)
    names = {tensor.name for tensor in graph.initializer}
    copies = [n for n in graph.node if n.op_type == "Identity" and n.input[0] in names]
    for node in [*constants, *copies]:
        graph.node.remove(node)
    return {node.output[0]: node.input[0] for node in copies}


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


def _whole_slice(
    node: NodeProto, graph: GraphProto, shapes: dict[str, list[int]], aliases: dict[str, str]
) -> list[NodeProto]:
    """Give a slice of fixed bounds all axes, in int32; drop one that cuts nothing.

    NVIDIA's parser makes one layer of that, but 26 of two axes in int64: it computes the rest of
    the bounds in the network (14 elementwise ones, TensorRT for RTX 1.7).
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    shape = shapes.get(node.input[0]) or [0]  # none where not even the rank is known
    if not all(name in values for name in node.input[1:] if name) or not all(shape):
        return [node]
    given: list[list[int]] = [
        numpy_helper.to_array(values[name]).tolist() if name else [] for name in node.input[1:]
    ]
    starts, ends, axes, steps = (*given, [], [])[:4]
    bounds = [(0, size, 1) for size in shape]
    cuts = zip(starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True)
    for start, end, axis, step in cuts:
        bounds[axis] = slice(start, end, step).indices(shape[axis])
    if min(step for _, _, step in bounds) < 1:
        return [node]  # backwards, where an end of -1 says something else
    if bounds == [(0, size, 1) for size in shape] and node.output[0] != graph.output[0].name:
        aliases[node.output[0]] = node.input[0]
        return []
    firsts, lasts, strides = np.array(bounds, np.int32).T
    axes_32 = np.arange(len(shape), dtype=np.int32)
    whole = {"starts": firsts, "ends": lasts, "axes": axes_32, "steps": strides}
    tensors = [
        numpy_helper.from_array(numbers, f"{node.output[0]}_{name}")
        for name, numbers in whole.items()
    ]
    graph.initializer.extend(tensors)
    node.input[:] = [node.input[0], *(tensor.name for tensor in tensors)]
    return [node]


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes of tensors by their names; 0 where a side is not fixed."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info)
    }


def _drop_unused(graph: GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _target(node: NodeProto) -> int:
    return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with weights and activations in fp16, but for sums over whole maps.

    Bytes minus 128, divided by 64, are exact in fp16; so are class ids. Logits leave as float32.
    A quantized graph gets scales in fp16, which make its rest half.
    """
    graph = copy.deepcopy(model)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        graph = onnx.version_converter.convert_version(graph, HALF_SCALES_OPSET)
    half = OnnxModel(
        convert_float_to_float16(graph, keep_io_types=True, op_block_list=list(FLOAT_OPERATORS))
    )
    half.topological_sort()
    typed: onnx.ModelProto = half.model
    _compare_classes(typed.graph, _shapes(model))
    del typed.graph.value_info[:]  # types as they were before
    onnx.checker.check_model(typed)
    return typed


def _compare_classes(graph: GraphProto, shapes: dict[str, list[int]]) -> None:
    """Put comparisons of one class with the best so far in the place of ArgMax over classes.

    NVIDIA's parser makes TopK of ArgMax, before which the upsampled scores of all classes are
    written out. A chain of comparisons its compiler fuses with the upsampling: nothing passes
    between kernels (TensorRT for RTX 1.7; docs/exporting-formats.md). The lowest of equal classes
    wins in both. Where types are not fixed, a release of before 11 might round
    a score in one comparison and not in another; so it is for the typed graph alone.

    Args:
        graph: in half precision; changed where it ends in an ArgMax of ours.
        shapes: of its tensors.
    """
    chain = _back_from(graph.output[0].name, graph, ("Cast", "Cast", "Cast", "ArgMax"))
    shape = shapes.get(chain[-1].input[0], []) if chain else []
    if len(shape) != 4 or not 1 < shape[1] <= MOST_COMPARED or not _is_over_classes(chain[-1]):
        return
    scores, classes = chain[-1].input[0], shape[1]
    planes = [f"{scores}_{index}" for index in range(classes)]
    ids = [f"class_{index}" for index in range(classes)]
    constants: dict[str, Array] = {
        name: np.full((1, 1, 1, 1), i, np.float16) for i, name in enumerate(ids)
    }
    constants |= {"one_class_each": np.ones(classes, np.int64), "class_axis": np.array([1])}
    graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in constants.items()
    )
    nodes = [helper.make_node("Split", [scores, "one_class_each"], planes, "planes", axis=1)]
    best, best_id = planes[0], ids[0]
    for plane, name in zip(planes[1:], ids[1:], strict=True):
        wins, new_id, new_best = f"{name}_wins", f"{name}_id", f"{name}_best"
        nodes += [
            helper.make_node("Greater", [plane, best], [wins], wins),
            helper.make_node("Where", [wins, name, best_id], [new_id], new_id),
            helper.make_node("Max", [best, plane], [new_best], new_best),
        ]
        best, best_id = new_best, new_id
    nodes.pop()  # nobody asks for the last one's score
    nodes.append(helper.make_node("Squeeze", [best_id, "class_axis"], ["best_id"], "best_id"))
    chain[0].input[0] = "best_id"
    for node in chain:
        graph.node.remove(node)
    graph.node.extend([*nodes, chain[0]])


def _is_over_classes(argmax: NodeProto) -> bool:
    asked = {a.name: helper.get_attribute_value(a) for a in argmax.attribute}
    return (asked.get("axis"), asked.get("keepdims"), asked.get("select_last_index", 0)) == (
        1,
        0,
        0,
    )


def _back_from(tensor: str, graph: GraphProto, kinds: Sequence[str]) -> list[NodeProto]:
    """Return the nodes of these kinds that end in a tensor, the last first; [] where others do."""
    makers = {name: node for node in graph.node for name in node.output}
    found: list[NodeProto] = []
    for kind in kinds:
        node = makers.get(tensor)
        if node is None or node.op_type != kind:
            return []
        found.append(node)
        tensor = node.input[0]
    return found


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
    if not set(layers).difference(keep_float):  # no names would mean all nodes to the quantizer
        raise ValueError(NOTHING_FOR_INT8)
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


def float_depthwise(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a copy of a quantized graph with its grouped convolutions in float, the rest as it is.

    None where none of them is int8, or where so few of all would be left that the builder's audit
    refuses the engine.
    """
    rung = copy.deepcopy(model)
    makers = {name: node for node in rung.graph.node for name in node.output}
    convolutions_ = [node for node in rung.graph.node if node.op_type == "Conv"]
    int8 = [node for node in convolutions_ if _quantized_from(node.input[0], makers)]
    grouped = [node for node in int8 if _groups(node) > 1]
    if not grouped or len(int8) - len(grouped) < MIN_SHARE * len(convolutions_):
        return None
    for node in grouped:
        node.input[:2] = [_quantized_from(name, makers) or name for name in node.input[:2]]
    _drop_idle_pairs(rung.graph)
    _drop_unused(rung.graph)
    onnx.checker.check_model(rung)
    return rung


def _quantized_from(tensor: str, makers: Mapping[str, NodeProto]) -> str:
    """Return what a Q/DQ pair that ends in a tensor begins with; "" where there is no pair."""
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        maker = makers.get(tensor)
        if maker is None or maker.op_type != kind:
            return ""
        tensor = maker.input[0]
    return tensor


def _groups(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _drop_idle_pairs(graph: GraphProto) -> None:
    """Remove the halves of pairs that nobody reads, those that dequantize first."""
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input}
        for node in [n for n in graph.node if n.op_type == kind and n.output[0] not in read]:
            graph.node.remove(node)
