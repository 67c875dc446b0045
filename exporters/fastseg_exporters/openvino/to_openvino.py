"""OpenVINO: it opens the files that are made for ONNX Runtime as they are.

It computes in bf16 what is float32 in them, where the CPU has units for it. The class map by cells
suits it too (docs/exporting-formats.md). None of its converters is called.
"""

from dataclasses import replace
from pathlib import Path

from fastseg_runtime.engines.engine import ENGINES

from fastseg_exporters.convert.exporter import ExportedArtifact, Request
from fastseg_exporters.onnx import to_onnx


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx, float for bf16."""
    made = to_onnx.export(request, out_dir)
    return replace(made, requires={**made.requires, **ENGINES["openvino"].requirement})
