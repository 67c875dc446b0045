"""The int8 form of a candidate: QDQ with ranges from generated scenes."""

from __future__ import annotations

import onnx
from fastseg_exporters.convert.source import Calibration
from fastseg_exporters.onnx.to_onnx import take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import quantize

from compare_models.candidate import export_float
from fastseg import DeployGraph

IMAGES = 8  # speed does not depend on the ranges


def export_int8(graph: DeployGraph) -> onnx.ModelProto:
    """Convert to int8 QDQ, camera bytes in and class ids out, as target cpu-int8 has it."""
    images = Calibration(count=IMAGES).images(graph.width, graph.height)
    return take_bytes(quantize(export_float(graph), images, graph.mean, graph.std), graph)
