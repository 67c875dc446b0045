"""Makes .pt2 files, in fp32 or with arithmetic in bf16."""

from pathlib import Path

import torch
from fastseg_exporters.convert.exporter import ExportedArtifact, Exporter, Request, versions
from torch import Tensor, nn

from fastseg_pt2 import ENGINE

EXPORTER = Exporter(
    "pt2",
    "fastseg_pt2.export:export",
    engine="pt2",
    precisions=("fp32", "autocast"),
    modules=("torch",),
    install="pip install fastseg-pt2",
)


class InBf16(nn.Module):
    """Computes convolutions in bf16."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.network = graph

    def forward(self, image_1HW3: Tensor) -> Tensor:
        """Return what the graph gives."""
        with torch.autocast("cpu", torch.bfloat16):
            ids: Tensor = self.network(image_1HW3)
        return ids


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.pt2."""
    graph = request.graph()
    module = InBf16(graph).eval() if request.conversion.precision == "autocast" else graph
    example = torch.zeros(1, graph.height, graph.width, 3, dtype=torch.uint8)
    torch.export.save(torch.export.export(module, (example,)), out_dir / "model.pt2")
    return ExportedArtifact(
        format="pt2",
        entry="model.pt2",
        io={"image": "uint8 NHWC", graph.output: "uint8"},
        requires=ENGINE.requirement,
        toolchain=versions("torch"),
    )
