"""QNN: a network compiled for the HTP of a Snapdragon, in an ONNX file of one EPContext node.

ONNX Runtime's QNN provider compiles a static graph for one SoC where its referee lives. What comes
of it is in the file, and nothing outside. Bytes go in by DequantizeLinear: HTP casts them to float
as if they were booleans (docs/referees.md).
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.engines.engine import ENGINES
from onnx import numpy_helper
from torch import Tensor, nn

from fastseg import DeployGraph
from fastseg_exporters.convert.exporter import (
    CAVEAT,
    FOR_GATE,
    ExportedArtifact,
    Request,
    parse_options,
    versions,
)
from fastseg_exporters.gate.referees.judge_qualcomm_htp import SOCS
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_exporters.gate.referees.toolchain import Toolchain
from fastseg_exporters.onnx.to_onnx import (
    describe,
    outputs_of,
    save,
    take_bytes,
    to_int8,
    to_onnx,
)

ENTRY = "model.onnx"


@dataclass(frozen=True)
class Options:
    """Of a target's table."""

    soc: str = "SM8650"

    def __post_init__(self) -> None:
        """Refuse a SoC whose numbers are not known."""
        if self.soc not in SOCS:
            raise ValueError(f"soc is {self.soc!r:.80}; choose one of {', '.join(SOCS)}")


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx; the graph that it is compiled from is for the gate, under the same name.

    Raises:
        ToolchainError: the compiler refuses the network, or is not here.
        ValueError: another SoC, or an operation that ONNX lacks.
    """
    asked = request.conversion
    soc = parse_options(Options, asked.target).soc
    graph = request.graph()
    model = request.once("float graph", lambda: static_graph(graph))
    layers: tuple[str, ...] = ()
    if asked.precision == "int8":
        model, layers = to_int8(request, graph, model)
        model = with_plain_weights(model)
    model = take_bytes(model, graph)
    describe(model, request.network, OutputSpec(graph.output, graph.mask_stride))
    source = out_dir / FOR_GATE / ENTRY
    source.parent.mkdir()
    save(model, source)
    with closing(Toolchain(REFEREES["qualcomm-htp"], own_group=False)) as compiler:
        made = out_dir / ENTRY
        said = compiler.ask(model=str(source.absolute()), soc=soc, made=str(made.absolute()))
    return ExportedArtifact(
        format="qnn",
        entry=ENTRY,
        io={"image": "uint8 NHWC", **outputs_of(graph)},
        requires=ENGINES["qnn"].requirement,
        toolchain={
            **versions("torch", "onnx", "onnxruntime", "onnxsim"),
            "onnxruntime-qnn": said["version"],
        },
        layers=tuple(name for name in layers if name not in asked.keep_float),
        extra={
            CAVEAT: f"compiled, not run on a phone ({soc})",
            "soc": soc,
            "left_to_the_cpu": said["left_to_the_cpu"],
        },
    )


class StaticGraph(nn.Module):
    """The deploy graph behind its normalisation, with no shape that depends on the picture."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.core, self.confidence, self._graph = graph.core, graph.confidence, [graph]

    def forward(self, image_N3HW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ids (1, H, W) or logits (1, K, h, w) for a normalised image, and a confidence."""
        (graph,) = self._graph  # in a list: a module of its own, its weights would be there twice
        logits_NKhw: Tensor = self.core(image_N3HW)
        result = graph.class_map(logits_NKhw) if graph.output == "classes" else logits_NKhw
        return result if self.confidence is None else (result, self.confidence(logits_NKhw))


def static_graph(graph: DeployGraph) -> onnx.ModelProto:
    """Convert to a simplified ONNX model that takes the normalised float image (1, 3, H, W)."""
    return to_onnx(StaticGraph(graph).eval(), torch.zeros(1, 3, graph.height, graph.width), graph)


def with_plain_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose convolutions that give float have weights in float.

    HTP computes one in 8 bits where Q/DQ are on both sides. Of the others it leaves the weights'
    scales to the CPU: "QNN EP does not support a standalone DQ op with per-channel quantization".
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    body = model.graph
    makers = {name: node for node in body.node for name in node.output}
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    plain: dict[str, Array] = {}
    for conv in (node for node in body.node if node.op_type == "Conv"):
        if _is_quantized_after(conv, body):
            continue
        for index, name in enumerate(conv.input[1:], 1):
            maker = makers.get(name)
            if maker is None or not set(maker.input) <= set(tensors):
                continue
            conv.input[index] = f"{name}_plain"
            plain[conv.input[index]] = _dequantized(maker, tensors)
    body.initializer.extend(numpy_helper.from_array(x, name) for name, x in plain.items())
    _drop_unused(body)
    onnx.checker.check_model(model)
    return model


def _is_quantized_after(conv: onnx.NodeProto, body: onnx.GraphProto) -> bool:
    """Return whether a convolution's result, or that of the ReLU behind it, is quantized."""
    users = [node for node in body.node if conv.output[0] in node.input]
    if [node.op_type for node in users] == ["Relu"]:
        users = [node for node in body.node if users[0].output[0] in node.input]
    return any(node.op_type == "QuantizeLinear" for node in users)


def _dequantized(node: onnx.NodeProto, tensors: dict[str, Array]) -> Array:
    values, scale, zero = (tensors[name] for name in node.input)
    shape = [-1, *[1] * (values.ndim - 1)] if scale.ndim else []  # of weights: axis 0, as of biases
    plain = (values.astype(np.int64) - zero.astype(np.int64).reshape(shape)) * scale.reshape(shape)
    result: Array = plain.astype(np.float32)
    return result


def _drop_unused(body: onnx.GraphProto) -> None:
    used = {name for node in body.node for name in node.input} | {out.name for out in body.output}
    nodes = [node for node in body.node if used & set(node.output)]
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in body.initializer if tensor.name in used]
    del body.node[:], body.initializer[:]
    body.node.extend(nodes)
    body.initializer.extend(tensors)
