"""A training loop as people write it: torch's DataLoader, OpenCV, float32, full-size logits.

It decodes, scales, crops, flips, recolours and blurs each picture in steps of their own, as
Albumentations does by OpenCV, and supervises the same heads as fastseg_training at full size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_training.augment import MID_GREY, Augmentation
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastseg.data import Samples

AUXILIARY_WEIGHT = 0.4


class PlainDataset(Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops of samples that are decoded at every access."""

    def __init__(self, samples: Samples, crop: tuple[int, int], options: Augmentation) -> None:
        self.samples, self.crop, self.options = samples, crop, options
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a normalised crop (3, h, w) and its class ids (h, w)."""
        sample = self.samples[index]
        image, label = self._scale(sample.image_HW3, sample.label_HW)
        image, label = self._crop(image, label)
        if self.rng.random() < self.options.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image = self._recolour(np.ascontiguousarray(image))
        if self.rng.random() < self.options.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.rng.uniform(0.3, self.options.blur_sigma))
        normalised = ((image.astype(np.float32) - 128) / 64).transpose(2, 0, 1)
        ids = np.ascontiguousarray(label).astype(np.int64)
        return torch.from_numpy(np.ascontiguousarray(normalised)), torch.from_numpy(ids)

    def _scale(self, image: Array, label: Array) -> tuple[Array, Array]:
        scale = self.rng.uniform(self.options.scale_min, self.options.scale_max)
        height, width = label.shape
        size = (round(width * scale), round(height * scale))
        nearest = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        return cv2.resize(image, size), nearest

    def _crop(self, image: Array, label: Array) -> tuple[Array, Array]:
        width, height = self.crop
        rows, columns = max(0, height - label.shape[0]), max(0, width - label.shape[1])
        border = (0, rows, 0, columns, cv2.BORDER_CONSTANT)
        image = cv2.copyMakeBorder(image, *border, value=(MID_GREY, MID_GREY, MID_GREY))
        label = cv2.copyMakeBorder(label, *border, value=(IGNORE_INDEX,))
        top = self.rng.integers(0, label.shape[0] - height + 1)
        left = self.rng.integers(0, label.shape[1] - width + 1)
        window = np.s_[top : top + height, left : left + width]
        return image[window], label[window]

    def _recolour(self, image: Array) -> Array:
        contrast = 1 + self.rng.uniform(-1, 1) * self.options.contrast
        shift = 255 * self.rng.uniform(-1, 1) * self.options.brightness
        image = cv2.convertScaleAbs(image, alpha=contrast, beta=shift)
        saturation = 1 + self.rng.uniform(-1, 1) * self.options.saturation
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


class PlainTrainer:
    """The loop around a network; run() takes a number of steps."""

    def __init__(self, model: nn.Module, batches: Iterator[Any]) -> None:
        self.model, self.batches = model.train(), batches
        self.optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def run(self, steps: int) -> None:
        """Train."""
        for _ in range(steps):
            image_N3HW, label_NHW = next(self.batches)
            self.optimizer.zero_grad()
            main, *others = self.model(image_N3HW, auxiliary=True)
            loss = F.cross_entropy(main, label_NHW, ignore_index=IGNORE_INDEX)
            for logits in others:
                auxiliary = F.cross_entropy(logits, label_NHW, ignore_index=IGNORE_INDEX)
                loss = loss + AUXILIARY_WEIGHT * auxiliary
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            self.optimizer.step()


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Go through a loader again and again."""
    while True:
        yield from loader
