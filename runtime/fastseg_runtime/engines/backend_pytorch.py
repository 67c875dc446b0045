"""PyTorch: checkpoints as they are, for development; the one backend that needs `fastseg`."""

from pathlib import Path
from typing import Any, Optional

import torch

from fastseg import Network, open_network
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import Manifest, ModelInfo, OutputSpec
from fastseg_runtime.engines.backend import ModelSource


class PyTorchBackend:
    """The deploy graph, run eagerly on the CPU or a GPU."""

    def __init__(self) -> None:
        self._graph: Optional[Any] = None
        self._device = torch.device("cpu")

    def open(self, source: ModelSource) -> None:
        """Load a checkpoint; `device` is "cpu", "cuda", "mps" or any name that torch knows.

        Raises:
            CheckpointError: not a checkpoint.
            RuntimeError: no such device here.
        """
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(best if source.device == "auto" else source.device)
        if source.threads:
            torch.set_num_threads(source.threads)
        spec, output = source.input, source.output
        network = open_network(source.locate(), size=(spec.width, spec.height))
        self._graph = network.graph(
            "logits" if output.kind == "logits" else "classes", output.mask_stride
        ).to(self._device)

    def infer(self, image_1HW3: Array) -> Array:
        """Run the network; see Backend.infer."""
        if self._graph is None:
            raise RuntimeError("the session is closed; open the model again")
        with torch.inference_mode():
            # A copy: torch warns of arrays that it may not write to.
            result = self._graph(torch.tensor(image_1HW3, device=self._device))
        classes: Array = result.cpu().numpy()
        return classes

    def close(self) -> None:
        """Free the network."""
        self._graph = None


def describe(path: Path) -> Manifest:
    """Return what a checkpoint says of itself as a manifest without artifacts.

    Raises:
        CheckpointError: not a checkpoint.
    """
    return manifest_of(open_network(path))


def manifest_of(network: Network) -> Manifest:
    """Return what a network says of itself as a manifest without artifacts."""
    info = network.info
    return Manifest(
        name=network.name,
        created="",
        tool="",
        model=ModelInfo(
            variant=info.variant,
            parameters=sum(p.numel() for p in network.model.parameters()),
            macs=0,  # fastseg.profile counts them
            checkpoint_sha256=network.sha256,
            trained_on=info.trained_on,
            data_licence=info.terms(),
            usage=info.usage,
            normalization=info.normalization_table(),
        ),
        classes=info.classes,
        input=info.input_spec(),
        output=OutputSpec(),
        ignore_index=info.ignore_index,
    )
