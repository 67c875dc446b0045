"""What PyTorch gives for the verification images: the truth that artifacts are held against."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from fastseg_runtime.backend import ModelSource
from fastseg_runtime.frame_runner import FrameRunner
from fastseg_runtime.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.metrics import Array

from fastseg import DeployGraph
from fastseg.data import Dataset, open_dataset
from fastseg_exporters.progress import Progressing, silent


@dataclass(frozen=True)
class Scene:
    """An image with its label, where it has one, and its reference: PyTorch's class map."""

    image_HW3: Array
    label_HW: Array | None
    reference_HW: Array


class GraphBackend:
    """A deploy graph in this process as a runtime backend, so that frames are fitted alike."""

    def __init__(self, graph: DeployGraph) -> None:
        self._graph = graph

    def open(self, source: ModelSource) -> None:
        """Nothing to open."""

    def infer(self, image_1HW3: Array) -> Array:
        """Run the graph once."""
        with torch.inference_mode():
            ids: Array = self._graph(torch.from_numpy(image_1HW3)).numpy()
        return ids

    def close(self) -> None:
        """Nothing to free."""


def reference_runner(graph: DeployGraph, spec: InputSpec) -> FrameRunner:
    """Return a runner that gives PyTorch's class maps of frames of any size.

    Args:
        graph: with classes as its output; mask_stride 1, whatever the artifacts have, since
            what a smaller mask costs is part of their drop.
        spec: the network's input.
    """
    artifact = Artifact("reference", "pytorch", "fp32", "", ())
    return FrameRunner(GraphBackend(graph), artifact, spec, OutputSpec())


class VerificationSet:
    """The images that artifacts are verified on, each with its reference, made once.

    Args:
        data: a data set's string, or None for generated scenes without labels.
        count: how many images, spread evenly over the split.
        infer: from reference_runner(); image (H, W, 3) in, PyTorch's class map (H, W) out.
        num_classes: of the network; a data set with another number has no usable labels.
        split: "val" of the data set, as training never sees it.
    """

    def __init__(
        self,
        data: str | None,
        count: int,
        infer: Callable[[Array], Array],
        num_classes: int,
        split: str = "val",
    ) -> None:
        self._dataset: Dataset = open_dataset(data or "synthetic", split)
        if data is not None and len(self._dataset.classes) != num_classes:
            raise ValueError(
                f"the network has {num_classes} classes, {data} has "
                f"{len(self._dataset.classes)}: verify on data with the network's classes"
            )
        self._count, self._infer = min(count, len(self._dataset)), infer
        self._references: list[Array] | None = None
        self.labelled = data is not None
        self.name = f"{self._dataset.name} {split}" if self.labelled else "generated scenes"

    def __len__(self) -> int:
        """Return the number of images."""
        return self._count

    def references(self, progress: Progressing = silent) -> list[Array]:
        """Return the reference of every image, computing them the first time."""
        if self._references is None:
            references = []
            for done, (image_HW3, _) in enumerate(self._images()):
                progress("running PyTorch", done, self._count)
                references.append(self._infer(image_HW3))
            self._references = references
        return self._references

    def _images(self) -> Iterator[tuple[Array, Array]]:
        for position in range(self._count):
            sample = self._dataset[position * len(self._dataset) // self._count]
            yield np.ascontiguousarray(sample.image_HW3), sample.label_HW

    def __iter__(self) -> Iterator[Scene]:
        """Yield the scenes, reading images as they are needed."""
        references = self.references()
        for (image_HW3, label_HW), reference_HW in zip(self._images(), references, strict=True):
            yield Scene(image_HW3, label_HW if self.labelled else None, reference_HW)
