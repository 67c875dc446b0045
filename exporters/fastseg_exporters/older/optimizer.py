"""ModelOptimizer: the names that users of older toolkits know, on top of the exporters."""

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import torch
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import OutputSpec, numbered_classes
from torch import nn

from fastseg import CheckpointInfo, DeployGraph, FastSegNet, Network
from fastseg.network import hash_weights
from fastseg.normalization import Normalization
from fastseg.outputs import Reading
from fastseg_exporters.onnx.to_onnx import describe, float_graph, save, take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import quantize_weights


class ModelOptimizer:
    """Exports, shrinks and times one network.

    For artifacts that are judged before they ship, use fastseg-export.

    Args:
        model: FastSegNet, or any module that gives logits (N, K, h, w).
        size: (width, height) of the input, pixels.
        normalization: of a network of one's own: what it was trained with, instead of
            (x - 128) / 64.
        output_name: of several outputs, the path of the logits.
        threshold: of the probability above which one logit means the second class.

    Raises:
        ValueError: a threshold that is no probability.
    """

    def __init__(
        self,
        model: nn.Module,
        size: tuple[int, int] = (1024, 512),
        normalization: Normalization | None = None,
        output_name: str = "",
        threshold: float = Reading.threshold,
    ) -> None:
        self.model, self.size = model, size
        self.normalization, self.reading = normalization, Reading(None, output_name, threshold)
        self._weights_as_int8 = False

    def export_to_onnx(self, path: str | Path) -> Path:
        """Write one ONNX file, bytes in and class ids out, that RealtimeSegmentation opens.

        Raises:
            ValueError: the network gives no logits, or ONNX cannot express it.
        """
        graph = DeployGraph(
            self.model, *self.size, normalization=self.normalization, reading=self.reading
        ).eval()
        network = self._network(graph)
        model = float_graph(graph)
        if self._weights_as_int8:
            model = quantize_weights(model)
        model = take_bytes(model, graph)
        describe(model, network, OutputSpec())
        save(model, Path(path))
        return Path(path)

    def quantize_dynamic(self) -> Self:
        """Store weights as int8 from here on: a quarter of the bytes, no faster; returns itself."""
        self._weights_as_int8 = True
        return self

    def benchmark(self, iterations: int = 100, warmup: int = 10) -> dict[str, Any]:
        """Time the exported network with ONNX Runtime on this machine.

        Returns:
            "fps", "avg_time_ms" and more, as RealtimeSegmentation.benchmark() has them.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = self.export_to_onnx(Path(folder) / "model.onnx")
            with RealtimeSegmentation(path) as session:
                return session.benchmark(iterations, warmup)

    def _network(self, graph: DeployGraph) -> Network:
        with torch.inference_mode():
            zeros = torch.zeros(1, 3, graph.height, graph.width)
            num_classes = graph.core(zeros).shape[1]
        variant = self.model.variant if isinstance(self.model, FastSegNet) else "foreign"
        classes = numbered_classes(num_classes)
        info = CheckpointInfo(variant, classes, *self.size, normalization=self.normalization)
        model = copy.deepcopy(self.model)
        model.eval()
        network = Network(
            model,
            info,
            variant,
            hash_weights(self.model.state_dict()),
            self.reading.output_name,
            self.reading.threshold,
        )
        if not isinstance(self.model, FastSegNet):
            for note in network.check("the network"):
                print(note, file=sys.stderr)
        return network
