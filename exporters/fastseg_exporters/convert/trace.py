"""The deploy graph as coremltools takes it, and where in the network each of its steps is from."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fastseg.deploy import DeployGraph
from fastseg_exporters.convert.value_reads import why_untraceable


class ConversionError(RuntimeError):
    """The network has something that Core ML cannot take."""


class ImageGraph(nn.Module):
    """The deploy graph behind its normalisation, which Core ML does as it reads the image."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.core = graph.core
        self._upsample: Callable[[Tensor], Tensor] | None = (
            graph.upsample if graph.output == "classes" else None
        )

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Return ids (N, h, w) or logits (N, K, h, w) for a normalised image."""
        logits_NKhw: Tensor = self.core(image_N3HW)
        if self._upsample is None:
            return logits_NKhw
        return self._upsample(logits_NKhw).argmax(dim=1)


def trace(graph: DeployGraph) -> ExportedProgram:
    """Export the graph with torch, its input a normalised image (1, 3, H, W).

    Raises:
        ConversionError: torch.export cannot follow the network's Python.
    """
    example_13HW = torch.zeros(1, 3, graph.height, graph.width)
    try:
        exported = torch.export.export(ImageGraph(graph).eval(), (example_13HW,))
        program: ExportedProgram = exported.run_decompositions({})
    except Exception as error:  # torch raises many kinds, whatever the network's code does
        reason = why_untraceable(graph.core, example_13HW, error)
        raise ConversionError(f"torch.export cannot trace the network: {reason}") from error
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # slices that cut nothing off
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
        if node.target is torch.ops.aten.max_pool2d.default and len(node.args) == 2:
            node.args = (*node.args, node.args[1])  # the stride, which coremltools wants to see
    return program


def has_grouped_transpose(program: ExportedProgram) -> bool:
    """Return whether there is a transposed convolution with groups."""
    transposed = torch.ops.aten.conv_transpose2d.input
    groups = [node.args[6:7] for node in program.graph.nodes if node.target is transposed]
    return any(given and given[0] != 1 for given in groups)


def describe_step(program: ExportedProgram, names: Iterable[str]) -> str:
    """Return an operation of the network with the module it came from.

    Args:
        program: as traced.
        names: of steps, possibly with something appended ("conv2d_3_cast_fp16"); the first that
            is known counts.
    """
    steps = [node for node in program.graph.nodes if node.op == "call_function"]
    steps.sort(key=lambda node: -len(node.name))  # conv2d_3 before conv2d
    for name in names:
        for node in steps:
            if name == node.name or name.startswith(f"{node.name}_"):
                return f"{node.target} in {_module_of(node)}"
    return "the network"


def _module_of(node: fx.Node) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path, kind = stack[-1] if stack else ("", "")
    # As its owner knows it: the deploy graph holds the network as core.network.
    name = path.removeprefix("core").removeprefix(".network").removeprefix(".")
    if path == "":
        return "the deploy graph's last steps"
    return f"{name or 'the network'} ({kind})"
