"""ONNX for CPUs: camera bytes in, class ids out, as ONNX Runtime runs them fastest."""

import contextlib
import io
import re
import traceback
import warnings
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import METADATA_KEY, OutputSpec
from fastseg_runtime.engines.engine import ENGINES
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from torch import Tensor, nn

from fastseg import DeployGraph, Network
from fastseg.backend_onnx import OnnxFile
from fastseg.own_code import place_of
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, parse_options, versions
from fastseg_exporters.convert.trace import describe_step, lines_to_mind, noise_like
from fastseg_exporters.gate.record import describe_network
from fastseg_exporters.onnx import to_onnx_int8
from fastseg_exporters.onnx.class_map import class_map_for
from fastseg_exporters.onnx.fold_columns import fold_columns
from fastseg_exporters.onnx.logit_rows import write_rows
from fastseg_exporters.onnx.own_file import in_float, opset_of, put_in, widen

OPSET = 17  # read back after the export: some versions of torch write another one silently
IMAGE, FLOAT_IMAGE = "image", "normalised_image"
# ONNX Runtime that opens an opset which the oldest that artifacts promise does not: each was tried.
OLDEST_FOR_OPSET = {21: "1.18", 22: "1.21", 23: "1.23"}
ROUNDING, MOSTLY = 1e-3, 0.999  # of the largest value; of the places of a result
_OPERATOR = re.compile(r"operator '?(?:\w+::)?(\w+)")


@dataclass(frozen=True)
class Options:
    """Of a target's table: none so far."""


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx in fp32, int8 or with int8 weights."""
    asked = request.conversion
    parse_options(Options, asked.target)
    graph = request.graph()
    model = request.once("float graph", lambda: float_graph(graph))
    layers: tuple[str, ...] = ()
    if asked.precision == "int8":
        model, layers = to_int8(request, graph, model)
    elif asked.precision == "int8-weights":
        model = to_onnx_int8.quantize_weights(model)
    model = for_onnxruntime(model, graph)
    describe(model, request.network, OutputSpec(graph.output, graph.mask_stride))
    save(model, out_dir / "model.onnx")
    return ExportedArtifact(
        format="onnx",
        entry="model.onnx",
        io={"image": "uint8 NHWC", **outputs_of(graph)},
        requires={**ENGINES["onnxruntime"].requirement, **required_by(opset_of(model))},
        toolchain=versions("torch", "onnx", "onnxruntime", "onnxsim"),
        layers=layers,
    )


def required_by(opset: int) -> dict[str, str]:
    """Return what a file of an opset asks for beside an engine's own requirement."""
    if opset < min(OLDEST_FOR_OPSET):
        return {}
    here = versions("onnxruntime")["onnxruntime"]  # which runs it in the gate
    return {"min_onnxruntime": OLDEST_FOR_OPSET.get(opset, here)}


def to_int8(
    request: Request, graph: DeployGraph, model: onnx.ModelProto
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the float graph quantized as asked, and the layers that the ladder may rank."""
    layers, kept = to_onnx_int8.convolutions(model), request.conversion.keep_float
    return to_onnx_int8.quantize(model, request.images(), graph.mean, graph.std, kept), layers


def outputs_of(graph: DeployGraph) -> dict[str, str]:
    """Return the outputs of an ONNX graph, in their order, as an artifact's io has them."""
    confidence = {} if graph.confidence is None else {"confidence": "uint8"}
    return {graph.output: "uint8" if graph.output == "classes" else "float32 NCHW", **confidence}


class FloatGraph(nn.Module):
    """The deploy graph behind its normalisation, with a class map that suits ONNX Runtime."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.core = graph.core
        self.class_map = class_map_for(graph) if graph.output == "classes" else nn.Identity()
        self.confidence = graph.confidence

    def forward(self, image_N3HW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ids (1, H, W) or logits (1, K, h, w) for a normalised image, and a confidence."""
        logits_NKhw = self.core(image_N3HW)
        result: Tensor = self.class_map(logits_NKhw)
        return result if self.confidence is None else (result, self.confidence(logits_NKhw))


def float_graph(graph: DeployGraph) -> onnx.ModelProto:
    """Convert to a simplified ONNX model that takes the normalised float image (1, 3, H, W)."""
    return to_onnx(FloatGraph(graph).eval(), torch.zeros(1, 3, graph.height, graph.width), graph)


def to_onnx(module: nn.Module, example: Tensor, graph: DeployGraph) -> onnx.ModelProto:
    """Convert a module with one input and the graph's outputs, check the opset, fold constants.

    Raises:
        ValueError: an operation that ONNX lacks, Python that decides by values of the image,
            bfloat16 inside, writes that get lost, or another opset than asked for.
    """
    read, written = lines_to_mind(module, example)
    if read:
        raise ValueError(
            "ONNX cannot follow a network whose Python looks at values of the picture; use "
            f"torch.where or a tensor in place of {read}"
        )
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # the tracer warns of every constant size, as meant
            torch.onnx.export(
                module,
                (example,),
                file,  # type: ignore[arg-type]  # the stub forgets file objects
                dynamo=False,
                opset_version=OPSET,
                input_names=[FLOAT_IMAGE],
                output_names=list(outputs_of(graph)),
            )
    except Exception as error:  # its converters, and the network's own code, raise anything
        step = failed_step(module, example, error)
        lost = "pattern_conversion" in str(error)  # of what writes into a part
        place = place_of(error) or (written if lost else "")
        reason = f"{short(error)} ({place})" if place else short(error)
        raise ValueError(f"ONNX cannot express {step}: {reason}") from error
    made = onnx.load_from_string(file.getvalue())
    casts = (given.i for node in made.graph.node for given in node.attribute if given.name == "to")
    if TensorProto.BFLOAT16 in casts:
        raise ValueError(
            "its forward() computes in bfloat16 (autocast), which no artifact does; put "
            "torch.autocast around its call in the training, not inside"
        )
    widen(made.graph)
    found = opset_of(made)
    own = next((part for part in module.modules() if isinstance(part, OnnxFile)), None)
    if own is not None:
        made = put_in(made, own, (graph.width, graph.height))
    simplified, same = onnxsim.simplify(made)
    if not same or found != OPSET:
        raise ValueError(
            f"the converter wrote opset {found} instead of {OPSET}, or changed results"
        )
    model: onnx.ModelProto = simplified
    if written and not _gives_the_same(model, module, example):
        raise ValueError(
            "torch's exporter to ONNX loses what is written into a part of a part of a map; use "
            f"torch.where or torch.cat in place of {written}"
        )
    return model


def _gives_the_same(model: onnx.ModelProto, module: nn.Module, example: Tensor) -> bool:
    """Return whether a graph gives what its module does, on noise, in nearly all places."""
    picture = noise_like(example)
    with torch.no_grad():
        result = module(picture)
    expected = (result if isinstance(result, Tensor) else result[0]).numpy()
    try:
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {FLOAT_IMAGE: picture.numpy()})[0]
    except Exception:  # of shapes that no longer fit, in classes of its own
        return False
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    same = np.isclose(found, expected, ROUNDING, ROUNDING * largest, equal_nan=True)
    return bool(same.mean() > MOSTLY)


def failed_step(module: nn.Module, example: Tensor, error: Exception) -> str:
    """Return which operation of which module the converter's error is about.

    It names the operator, or torch's function stumbled over what the tracer gives it.
    """
    frames = traceback.extract_tb(error.__traceback__)
    called = [frame.name for frame in frames if frame.filename == F.__file__]
    operators = [*_OPERATOR.findall(str(error)), *called]
    try:
        program = torch.export.export(module, (example,))
    except Exception:  # torch raises many kinds for what it cannot follow
        return "the network"
    return describe_step(program, operators)


def short(error: Exception) -> str:
    """Return what a converter said, without the advice, graph or tensor that it prints after it."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    for after in ("(type 'Tensor')", "Please feel free", "[Caused by", "Support for this operator"):
        said = said.partition(after)[0]
    return said.strip()[:500]


def for_onnxruntime(model: onnx.ModelProto, graph: DeployGraph) -> onnx.ModelProto:
    """Return the graph as ONNX Runtime on a CPU gets it: camera bytes in, read as it is fastest."""
    model = take_bytes(model, graph)
    if any(isinstance(part, OnnxFile) for part in graph.modules()):
        _normalise_in_float(model.graph)
    fold_columns(model, (graph.height, graph.width))
    write_rows(model)
    return model


def take_bytes(model: onnx.ModelProto, graph: DeployGraph) -> onnx.ModelProto:
    """Return the model with uint8 NHWC bytes as its input.

    (x - mean) / std is exactly what DequantizeLinear computes with scale 1/std and zero point
    mean, so the bytes *are* the quantized image: nothing is computed per channel, nothing lost.
    A model that quantizes so takes them as they are; one of its own scale is left its step.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    body = model.graph
    shape = [1, graph.height, graph.width, 3]
    del body.input[:]
    body.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    first = helper.make_node(
        "Transpose", [IMAGE], ["image_bytes_1_3_H_W"], "to_NCHW", perm=[0, 3, 1, 2]
    )
    users = [node for node in body.node if FLOAT_IMAGE in node.input]
    if len(users) == 1 and _makes_the_bytes(users[0], body, graph):
        (quantizer,) = users
        for node in body.node:
            node.input[:] = [first.output[0] if n == quantizer.output[0] else n for n in node.input]
        body.node.remove(quantizer)
        head = [first]
    else:
        head = [first, _normalise(first.output[0], graph, body)]
    nodes = [*head, *body.node]
    del body.node[:]
    body.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _makes_the_bytes(node: onnx.NodeProto, body: onnx.GraphProto, graph: DeployGraph) -> bool:
    """Return whether a node quantizes the normalised image to the camera's bytes."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    given = [tensors.get(name) for name in node.input[1:]]
    if node.op_type != "QuantizeLinear" or len(given) != 2 or any(v is None for v in given):
        return False
    scale, zero_point = (np.asarray(value) for value in given)
    is_ours = zero_point.dtype == np.uint8 and (zero_point == graph.mean).all()
    return bool(is_ours and np.allclose(scale, 1 / graph.std, rtol=1e-5))


def _normalise(source: str, graph: DeployGraph, body: onnx.GraphProto) -> onnx.NodeProto:
    if graph.mean != int(graph.mean) or not 0 <= graph.mean <= 255:
        raise ValueError(f"mean is {graph.mean}; the exporters take a whole number 0 to 255")
    scale, zero = np.float32(1 / graph.std), np.uint8(graph.mean)
    body.initializer.append(numpy_helper.from_array(np.array(scale), "image_scale"))
    body.initializer.append(numpy_helper.from_array(np.array(zero), "image_zero_point"))
    inputs = [source, "image_scale", "image_zero_point"]
    return helper.make_node("DequantizeLinear", inputs, [FLOAT_IMAGE], "normalise")


def _normalise_in_float(body: onnx.GraphProto) -> None:
    """Keep what normalises for a file in int8 from that.

    ONNX Runtime takes a float convolution between DequantizeLinear and QuantizeLinear for one in
    int8, and rounds its weights.
    """
    if any(node.op_type == "QuantizeLinear" for node in body.node):
        nodes = [in_float(node) if FLOAT_IMAGE in node.output else [node] for node in body.node]
        del body.node[:]
        body.node.extend(chain.from_iterable(nodes))


def describe(model: onnx.ModelProto, network: Network, output: OutputSpec) -> None:
    """Put classes, normalisation and provenance into the file, so that it serves without a bundle.

    The model is changed in place.
    """
    manifest = describe_network(network, network.name, output, created="")
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write one file; the same model gives the same bytes."""
    model.producer_version = ""
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    path.write_bytes(model.SerializeToString(deterministic=True))
