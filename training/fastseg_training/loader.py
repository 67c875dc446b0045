"""Batches for training: each one is a function of the seed and the step, so any can be redone.

Shape letters: N batch, H and W pixels, K classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastseg.data import Array, Sample
from fastseg_training.augment import Augmentation, apply_variation, draw_variation
from fastseg_training.resident import Samples

QUEUE = 3  # batches made ahead by each worker


class Batch(NamedTuple):
    """Normalised images and their class ids; files are for error messages."""

    image_N3HW: Tensor
    label_NHW: Tensor
    files: tuple[str, ...] = ()


class BatchLoader:
    """Augmented crops of a data set, made ahead by threads (OpenCV runs without the GIL).

    Args:
        samples: a data set, best a resident one.
        batch_size: N.
        crop: (width, height) of the crops, pixels.
        augmentation: how pictures may vary.
        seed: of order and augmentation.
        mean: subtracted from the bytes.
        std: then divided by.
        workers: threads.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        crop: tuple[int, int],
        augmentation: Augmentation,
        seed: int,
        mean: float,
        std: float,
        workers: int = 1,
    ) -> None:
        self.samples, self.batch_size, self.crop = samples, batch_size, crop
        self.augmentation, self.seed, self.workers = augmentation, seed, workers
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        """Return the number of batches that show every sample once, at the least."""
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield one epoch."""
        return (batch for batch, _ in zip(self.batches_from(0), range(len(self)), strict=False))

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batch after batch without end, the first one that of a step."""
        with ThreadPoolExecutor(self.workers, "batches") as pool:
            ahead = self.workers * QUEUE
            futures = deque(pool.submit(self.make, step + index) for index in range(ahead))
            step += ahead
            try:
                while True:
                    yield futures.popleft().result()
                    futures.append(pool.submit(self.make, step))
                    step += 1
            finally:
                pool.shutdown(cancel_futures=True)

    def make(self, step: int) -> Batch:
        """Make the batch of a step."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        samples = [self._sample(position) for position in positions]
        images, labels = zip(*map(self._vary, positions, samples), strict=True)
        image_N3HW = normalise(torch.from_numpy(np.stack(images)), self.mean, self.std)
        label_NHW = torch.from_numpy(np.stack(labels)).long()
        return Batch(image_N3HW, label_NHW, tuple(map(source, samples)))

    def _sample(self, position: int) -> Sample:
        epoch, index = divmod(position, len(self.samples))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
        return self.samples[int(order[index])]

    def _vary(self, position: int, sample: Sample) -> tuple[Array, Array]:
        rng = np.random.default_rng((self.seed, position, 1))
        variation = draw_variation(rng, self.augmentation, sample.label_HW, self.crop)
        return apply_variation(variation, sample.image_HW3, sample.label_HW, self.crop)


def source(sample: Sample) -> str:
    """Return where a sample comes from: its files, or its name if it was generated."""
    return " ".join(sample.files) or sample.name


def normalise(image_NHW3: Tensor, mean: float, std: float) -> Tensor:
    """Return float32 (N, 3, H, W), channels last in memory, of uint8 images."""
    return image_NHW3.float().sub_(mean).div_(std).permute(0, 3, 1, 2)
