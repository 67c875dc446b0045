"""Core ML: an ML program for iOS 16 and macOS 13 that takes an RGB image and gives class ids."""

import logging
import re
from collections.abc import Callable
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fastseg.deploy import DeployGraph

try:
    import coremltools as ct
    import coremltools.optimize.coreml as cto
except ImportError as error:
    raise ImportError(
        "exporting to Core ML needs coremltools: pip install 'fastseg-edge[coreml]'"
    ) from error

_FAILED_NODE = re.compile(r"Unsupported fx node (\w+)|\(located at: '(\w+)'\)")


class ConversionError(RuntimeError):
    """The network has something that Core ML cannot take."""


class ImageGraph(nn.Module):
    """The deploy graph behind its normalisation, which Core ML does as it reads the image."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.core = graph.core
        self._class_scores: Callable[[Tensor], Tensor] | None = (
            graph.upsample if graph.output == "classes" else None
        )

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Return ids (N, h, w) or logits (N, K, h, w) for a normalised image."""
        logits_NKhw: Tensor = self.core(image_N3HW)
        if self._class_scores is None:
            return logits_NKhw
        return self._class_scores(logits_NKhw).argmax(dim=1)


def convert(graph: DeployGraph) -> Any:
    """Convert to an ML program in fp16.

    Returns:
        A coremltools MLModel: input "image", output "classes" (int32) or "logits" (float32).

    Raises:
        ConversionError: an operation that Core ML lacks, with the module it came from.
    """
    program = trace(graph)
    messages = _Messages()
    logger = logging.getLogger("coremltools")
    logger.addHandler(messages)
    try:
        return _convert(program, graph)
    except Exception as error:  # converters of single operations raise anything
        text = " ".join([*messages.texts, str(error)])
        raise ConversionError(f"Core ML cannot take {_culprit(program, text)}: {error}") from error
    finally:
        logger.removeHandler(messages)


def trace(graph: DeployGraph) -> ExportedProgram:
    """Export the graph with torch, ready for coremltools.

    Raises:
        ConversionError: torch.export cannot follow the network's Python.
    """
    example_13HW = torch.zeros(1, 3, graph.height, graph.width)
    try:
        exported = torch.export.export(ImageGraph(graph).eval(), (example_13HW,))
        program: ExportedProgram = exported.run_decompositions({})
    except Exception as error:  # torch raises many kinds, whatever the network's code does
        raise ConversionError(f"torch.export cannot trace the network: {error}") from error
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # slices that cut nothing off
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    return program


def _convert(program: ExportedProgram, graph: DeployGraph) -> Any:
    image = ct.ImageType(
        name="image",
        shape=(1, 3, graph.height, graph.width),
        scale=1 / graph.std,
        bias=[-graph.mean / graph.std] * 3,
        color_layout=ct.colorlayout.RGB,
    )
    dtype = ct.converters.mil.mil.types.int32 if graph.output == "classes" else None
    return ct.convert(
        program,
        inputs=[image],
        outputs=[ct.TensorType(name=graph.output, dtype=dtype)],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )


class _Messages(logging.Handler):
    """Keeps what coremltools logs: where an operation fails, only the log names it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _culprit(program: ExportedProgram, text: str) -> str:
    names = {name for match in _FAILED_NODE.finditer(text) for name in match.groups()}
    for node in program.graph.nodes:
        if node.name in names:
            return f"{node.target} in {module_of(node)}"
    return "the network"


def module_of(node: fx.Node) -> str:
    """Return the module that a traced operation came from, such as "decoder.up (net.UpBlock)"."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if len(stack) < 2:
        return "the network's last step"
    path, kind = stack[-1]
    name = path.removeprefix("core").removeprefix(".network").removeprefix(".")
    return f"{name or 'the network itself'} ({getattr(kind, '__qualname__', kind)})"


def compress_int8(model: Any) -> Any:
    """Store weights as int8 with one scale per output channel; computing stays in fp16."""
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
    return cto.linear_quantize_weights(model, cto.OptimizationConfig(config))


def palettize(model: Any, bits: int) -> Any:
    """Store weights as indices into a palette of 2 ** bits values per layer, found by k-means."""
    config = cto.OpPalettizerConfig(mode="kmeans", nbits=bits)
    with threadpool_limits(1):  # the order of sums, and so the palette, depends on the threads
        return cto.palettize_weights(model, cto.OptimizationConfig(config))
