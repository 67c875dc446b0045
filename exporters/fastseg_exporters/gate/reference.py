"""What PyTorch gives: the truth that artifacts are held against, on data and in the self-test."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import Array, agreement, confusion_matrix, labelled_miou
from fastseg_runtime.bundle.manifest import Artifact, ClassInfo, OutputSpec
from fastseg_runtime.bundle.reader import NATURAL_SCENES
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.frame_runner import FrameRunner
from torch import Tensor

from fastseg import Network
from fastseg.data import Dataset, open_dataset
from fastseg.data.class_list import class_mismatch, renamed_classes
from fastseg_exporters.convert.progress import Progressing, silent

# Levels to choose from. On a plain picture all pixels may change their class at once where two are
# nearly as likely, by rounding alone; so a level is taken whose neighbour has the same classes.
DARK, BRIGHT = (0, 6, 12, 18), (255, 249, 243, 237)
# Of the tile of noise: few rows, since deflate looks back 32 kB, and sides that no stride divides.
NOISE_PX = (7, 61)
VERIFY_IMAGES = 20  # where nobody says how many
MOSAIC_PX = 16  # side of a field: two cells of the network's 1/8, so that each has a border


@dataclass(frozen=True)
class Scene:
    """An image with its label, where it has one, and its reference: PyTorch's class map."""

    image_HW3: Array
    label_HW: Array | None
    reference_HW: Array


class ModuleBackend:
    """The author's module in this process as a runtime backend, so that frames are fitted alike.

    Nothing of the deploy graph is in it: what artifacts are held against must not share its
    folding, choice of output, upsampling or argmax.
    """

    def __init__(self, network: Network, mask_stride: int = 1) -> None:
        self._network, self._mask_stride = network, mask_stride

    def open(self, source: ModelSource) -> None:
        """Nothing to open."""

    def infer(self, image_1HW3: Array) -> Array:
        """Return the class map (1, H, W) / mask_stride of an image of the network's input size."""
        logits_1KHW = reference_logits(self._network, image_1HW3, self._mask_stride)
        ids: Array = logits_1KHW.argmax(dim=1).to(torch.uint8).numpy()
        return ids

    def close(self) -> None:
        """Nothing to free."""


def reference_logits(network: Network, image_1HW3: Array, mask_stride: int = 1) -> Tensor:
    """Return what the author's module gives, at the size of the image or of a smaller mask.

    Args:
        network: called as it is; FastSegNet upsamples by itself.
        image_1HW3: uint8 RGB of the network's input size.
        mask_stride: 1, 2 or 4.

    Returns:
        float32 (1, K, H / mask_stride, W / mask_stride).
    """
    size = tuple(side // mask_stride for side in image_1HW3.shape[1:3])
    with torch.inference_mode():
        logits_1Khw = network.logits(torch.from_numpy(image_1HW3))
        if logits_1Khw.shape[-2:] == size:
            return logits_1Khw
        return F.interpolate(logits_1Khw, size=size, mode="bilinear", align_corners=False)


def smaller_mask_cost(network: Network, scenes: "VerificationSet") -> float | None:
    """Return by how much a smaller mask alone lowers PyTorch's mIoU; None without labels."""
    if not scenes.labelled:
        return None
    whole, count = pytorch_runner(network), len(network.info.classes)
    full_KK, small_KK = np.zeros((2, count, count))
    for scene in scenes:
        if scene.label_HW is not None:
            whole_HW = whole.infer_new(scene.image_HW3)
            full_KK += confusion_matrix(whole_HW, scene.label_HW, count)
            small_KK += confusion_matrix(scene.reference_HW, scene.label_HW, count)
    return labelled_miou(full_KK) - labelled_miou(small_KK)


def pytorch_runner(network: Network, mask_stride: int = 1) -> FrameRunner:
    """Return a runner that gives the class maps of the author's module, of frames of any size.

    Args:
        network: what artifacts are made of.
        mask_stride: theirs. Held against a full mask, a small one that is right differs along
            all borders, and one that is wrong could not be told from it.
    """
    artifact = Artifact("reference", "pytorch", "fp32", "", ())
    output = OutputSpec(mask_stride=mask_stride)
    backend = ModuleBackend(network, mask_stride)
    return FrameRunner(backend, artifact, network.info.input_spec(), output)


class VerificationSet:
    """The images that artifacts are verified on, each with its reference, made once.

    Args:
        data: a data set's string, or None for generated scenes without labels.
        count: how many images, spread evenly over the split.
        infer: of pytorch_runner(); image (H, W, 3) in, PyTorch's class map (H, W) out.
        classes: of the network; a data set with another number, or another order, has no usable
            labels.
        split: "val" of the data set, as training never sees it.

    Attributes:
        note: what the user should know of the data, "" for nothing.
    """

    def __init__(
        self,
        data: str | None,
        count: int,
        infer: Callable[[Array], Array],
        classes: Sequence[ClassInfo],
        split: str = "val",
    ) -> None:
        self._dataset: Dataset = open_dataset(data or "synthetic", split)
        given = self._dataset.classes
        if data is not None and (wrong := class_mismatch(classes, data, given)):
            raise ValueError(f"{wrong}: verify on data with the network's classes")
        self.note = renamed_classes(classes, data, given) if data is not None else ""
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
                progress("running the network", done, self._count)
                references.append(self._infer(image_HW3))
            self._references = references
        return self._references

    def first_images(self, count: int) -> list[Array]:
        """Return the first images, uint8 (H, W, 3)."""
        return [image_HW3 for image_HW3, _ in itertools.islice(self._images(), count)]

    def _images(self) -> Iterator[tuple[Array, Array]]:
        for position in range(self._count):
            sample = self._dataset[position * len(self._dataset) // self._count]
            yield np.ascontiguousarray(sample.image_HW3), sample.label_HW

    def __iter__(self) -> Iterator[Scene]:
        """Yield the scenes, reading images as they are needed."""
        references = self.references()
        for (image_HW3, label_HW), reference_HW in zip(self._images(), references, strict=True):
            yield Scene(image_HW3, label_HW if self.labelled else None, reference_HW)


def selftest_scenes(network: Network, runner: FrameRunner) -> list[tuple[Array, Array]]:
    """Return scenes of the network's size with PyTorch's class maps: generated ones, then hard."""
    info = network.info
    dataset = open_dataset(f"synthetic:{info.width}x{info.height}", "test")
    images = [dataset[index].image_HW3 for index in range(NATURAL_SCENES)]
    levels = [_steadiest(levels, info.width, info.height, runner) for levels in (DARK, BRIGHT)]
    images += hard_images(info.width, info.height, levels)
    return [(image_HW3, runner.infer_new(image_HW3)) for image_HW3 in images]


def hard_images(width: int, height: int, levels: Sequence[int]) -> list[Array]:
    """Return pictures that no camera gives on a good day, (H, W, 3) uint8: plain, noise, mosaic.

    Engines have failed on pictures without any border between classes and on bright ones, with
    nothing wrong on streets. Tiles keep them small: four add 20 to 45 kB to a bundle.

    Args:
        width: pixels.
        height: pixels.
        levels: of the plain ones, 0 to 255.
    """
    generator = np.random.default_rng(0)
    noise_hw3 = generator.integers(0, 256, (*NOISE_PX, 3), np.uint8)
    colors_hw3 = generator.integers(0, 256, (4, 4, 3), np.uint8)
    mosaic_hw3 = colors_hw3.repeat(MOSAIC_PX, axis=0).repeat(MOSAIC_PX, axis=1)
    tiles = [np.full((1, 1, 3), level, np.uint8) for level in levels]
    rows, columns = np.arange(height), np.arange(width)
    return [
        tile_hw3[rows[:, None] % tile_hw3.shape[0], columns % tile_hw3.shape[1]]
        for tile_hw3 in (*tiles, noise_hw3, mosaic_hw3)
    ]


def _steadiest(levels: Sequence[int], width: int, height: int, runner: FrameRunner) -> int:
    """Return the level of a plain picture whose class map changes least towards the next level."""
    maps = [runner.infer_new(np.full((height, width, 3), level, np.uint8)) for level in levels]
    return levels[int(np.argmax([agreement(one, other) for one, other in pairwise(maps)]))]
