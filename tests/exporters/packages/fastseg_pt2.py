"""An example of a format from outside: PyTorch's own .pt2, with an exporter and a backend.

A package of one's own needs this file and two lines in its pyproject.toml:

    [project.entry-points."fastseg.exporters"]
    pt2 = "fastseg_pt2:export"
    [project.entry-points."fastseg.backends"]
    pt2 = "fastseg_pt2:Pt2Backend"
"""

from pathlib import Path
from typing import Any

import torch
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, versions
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.backend import ModelSource


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.pt2."""
    graph = request.graph()
    example = torch.zeros(1, graph.height, graph.width, 3, dtype=torch.uint8)
    torch.export.save(torch.export.export(graph, (example,)), out_dir / "model.pt2")
    return ExportedArtifact(
        format="pt2",
        entry="model.pt2",
        io={"image": "uint8 NHWC", graph.output: "uint8"},
        requires={"backend": "pt2", "min_version": ""},
        toolchain=versions("torch"),
    )


class Pt2Backend:
    """Runs model.pt2."""

    def open(self, source: ModelSource) -> None:
        """Load the program."""
        self._module: Any = torch.export.load(source.locate()).module()

    def infer(self, image_1HW3: Array) -> Array:
        """Run it once."""
        with torch.inference_mode():
            ids: Array = self._module(torch.from_numpy(image_1HW3)).numpy()
        return ids

    def close(self) -> None:
        """Free it."""
        self._module = None
