"""OpenVINO: it opens the files that are made for ONNX Runtime as they are.

It computes in bf16 what is float32 in them, where the CPU has units for it. The class map by cells
suits it too (docs/exporting-formats.md). None of its converters is called.
"""

from dataclasses import replace
from pathlib import Path

import onnx
from fastseg_runtime.engines.engine import ENGINES

from fastseg_exporters.convert.exporter import ExportedArtifact, Request
from fastseg_exporters.onnx import to_onnx
from fastseg_exporters.onnx.to_onnx_int8 import ALREADY_INT8


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.onnx, float for bf16.

    Raises:
        ValueError: a file that is int8 already, of which OpenVINO computes nothing in bf16.
    """
    made = to_onnx.export(request, out_dir)
    if request.conversion.precision == "bf16":
        nodes = onnx.load(out_dir / made.entry, load_external_data=False).graph.node
        if any(node.op_type == "QuantizeLinear" for node in nodes):
            raise ValueError(ALREADY_INT8)
    return replace(made, requires={**made.requires, **ENGINES["openvino"].requirement})
