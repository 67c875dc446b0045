"""Batches for training: each one is a function of the seed and the step, so any can be redone.

Shape letters: N batch, H and W pixels, h and w pixels of a crop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fastseg.data import Sample
from fastseg.normalization import NAMED, Normalization
from fastseg_training.augment import (
    Augmentation,
    Variation,
    apply_variation,
    draw_variation,
)
from fastseg_training.resident import Samples

ENOUGH_PIXELS = 4096  # of a channel: fewer may have few values by chance
MOST_LEVELS = 257  # of a channel made of bytes: 256, and its padding
QUEUE = 3  # batches made ahead by each thread
T = TypeVar("T")


class Batch(NamedTuple):
    """Normalised images and their class ids; files are for error messages."""

    image_N3HW: Tensor
    label_NHW: Tensor
    files: tuple[str, ...] = ()


@runtime_checkable
class StepLoader(Protocol):
    """A loader that can start at any step."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""


@dataclass(frozen=True)
class BatchPlan:
    """Which samples make up the batch of a step, and how each is varied.

    Attributes:
        samples: a data set, best a resident one.
        batch_size: samples per step, of all processes together.
        crop: (width, height) of the crops, pixels.
        augmentation: how pictures may vary.
        seed: of order and variation.
        rank: of this process; it makes every world_size-th sample of a batch.
        world_size: number of processes.
    """

    samples: Samples
    batch_size: int
    crop: tuple[int, int]
    augmentation: Augmentation
    seed: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        """Return the number of batches that show every sample once, at the least."""
        return -(-len(self.samples) // self.batch_size)

    def draw(self, step: int) -> list[tuple[int, Sample, Variation]]:
        """Return (index, sample, variation) for each place in this process's part of a batch."""
        first = step * self.batch_size
        positions = range(first + self.rank, first + self.batch_size, self.world_size)
        return [self._draw(position) for position in positions]

    def _draw(self, position: int) -> tuple[int, Sample, Variation]:
        epoch, place = divmod(position, len(self.samples))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        index = int(order[place])
        sample = self.samples[index]
        rng = np.random.default_rng((self.seed, position, 1))
        return index, sample, draw_variation(rng, self.augmentation, sample.label_HW, self.crop)


@dataclass(frozen=True)
class BatchLoader:
    """Augments in threads of the CPU (OpenCV runs without the GIL).

    Attributes:
        plan: what to load.
        mean: subtracted from the bytes.
        std: then divided by.
        workers: threads.
        normalization: the network's own, in place of mean and std.
    """

    plan: BatchPlan
    mean: float
    std: float
    workers: int = 1
    normalization: Normalization | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self.plan)

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""
        return made_ahead(self.make, step, self.workers)

    def make(self, step: int) -> Batch:
        """Make the batch of a step."""
        drawn = self.plan.draw(step)
        crops = (
            apply_variation(variation, sample.image_HW3, sample.label_HW, self.plan.crop)
            for _, sample, variation in drawn
        )
        images, labels = zip(*crops, strict=True)
        image_NHW3 = torch.from_numpy(np.stack(images))
        image_N3HW = normalise(image_NHW3, self.mean, self.std, self.normalization)
        label_NHW = torch.from_numpy(np.stack(labels)).long()
        return Batch(image_N3HW, label_NHW, tuple(source(sample) for _, sample, _ in drawn))


def made_ahead(make: Callable[[int], T], step: int, workers: int) -> Iterator[T]:
    """Yield make(step), make(step + 1), ... without end, in order, each made by a thread."""
    with ThreadPoolExecutor(workers, "batches") as pool:
        steps = range(step, step + workers * QUEUE)
        futures = deque(pool.submit(make, ahead) for ahead in steps)
        step = steps.stop
        try:
            while True:
                yield futures.popleft().result()
                futures.append(pool.submit(make, step))
                step += 1
        finally:
            pool.shutdown(cancel_futures=True)


def check_pictures(image_N3HW: Tensor, said: Normalization) -> None:
    """Refuse pictures that were normalised in another way than a checkpoint would say.

    Pictures of bytes have 256 values a channel at the most, wherever they lie. Of others, such as
    those that were varied after their normalisation, nothing can be said.

    Raises:
        ValueError: they cannot have been made with that normalisation.
    """
    values_3L = image_N3HW.detach().float().movedim(1, 0).flatten(1)
    if values_3L.shape[1] < ENOUGH_PIXELS:
        return
    made_of_bytes = all(len(values_L.unique()) <= MOST_LEVELS for values_L in values_3L)
    if not made_of_bytes or said.explains(image_N3HW):
        return
    fitting = [name for name, known in NAMED.items() if known.explains(image_N3HW)]
    guess = f"they look like {' or '.join(fitting)}; " if fitting else ""
    raise ValueError(
        f"the loader's pictures have values from {values_3L.min():.3g} to {values_3L.max():.3g}, "
        f"which {said} does not give, and that is what the checkpoint would say; {guess}pass "
        "CheckpointInfo(normalization=Normalization(...)) to the run folder"
    )


def source(sample: Sample) -> str:
    """Return where a sample comes from: its files, or its name if it was generated."""
    return " ".join(sample.files) or sample.name


def normalise(
    image_NHW3: Tensor, mean: float, std: float, own: Normalization | None = None
) -> Tensor:
    """Return float32 (N, 3, H, W), channels last in memory, of images in bytes' units."""
    if own is not None:
        return own.normalise(image_NHW3)
    return image_NHW3.float().sub_(mean).div_(std).permute(0, 3, 1, 2)
