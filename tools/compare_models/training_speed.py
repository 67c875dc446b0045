"""Images per second of fastseg_training against a plain loop, in turn in one run.

The plain loop is one as people write it: torch's DataLoader, OpenCV, float32, full-size logits. It
decodes, scales, crops, flips, recolours and blurs each picture in steps of their own, as
Albumentations does by OpenCV, and supervises the same heads as fastseg_training at full size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_training import SegmentationTrainer
from fastseg_training.batches.augment import MID_GREY, Augmentation
from fastseg_training.batches.loader import Batch, BatchLoader, BatchPlan
from fastseg_training.batches.resident import ResizedDataset, make_resident
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from compare_models.timing import Floats, Ratio, ratio_to
from fastseg import FastSegNet
from fastseg.data import Samples, open_dataset
from fastseg.progress import show_progress

GENERATED = 32  # scenes, where no data set is named
SIZE = (480, 360)  # of them: CamVid's
REST_STEPS = 4  # untimed, at the start of a turn: batches made during the other's turn


@dataclass(frozen=True)
class TrainingSpeed:
    """The result."""

    images_per_s: float  # median of our turns
    plain_images_per_s: float  # median of the plain loop's turns
    speedup: Ratio  # of turns of one round
    waiting_share: float  # of our time, in which the network waited for data


@dataclass
class InTurn:
    """A loader for our trainer that lets the plain loop run between two turns, and takes times."""

    loader: BatchLoader  # our batches
    plain: PlainTrainer  # the other loop
    steps: int  # timed ones of a turn
    ours_s: list[float] = field(default_factory=list)  # seconds of our turns
    plain_s: list[float] = field(default_factory=list)  # seconds of the plain loop's turns
    waiting_s: float = 0.0  # seconds of our turns in which no batch was ready

    def __len__(self) -> int:
        """Return the number of our batches of a turn: an epoch is a turn."""
        return REST_STEPS + self.steps

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batches without end."""
        batches = self.loader.batches_from(step)
        while True:
            self.plain.run(REST_STEPS)
            start = perf_counter()
            self.plain.run(self.steps)
            self.plain_s.append(perf_counter() - start)
            for _ in range(REST_STEPS):
                yield next(batches)
            start = perf_counter()
            for _ in range(self.steps):
                asked = perf_counter()
                batch = next(batches)
                self.waiting_s += perf_counter() - asked
                yield batch
            self.ours_s.append(perf_counter() - start)


def measure_training(
    data: str | None,
    variant: str,
    batch: int,
    crop: tuple[int, int],
    rounds: int,
    steps: int = 8,
    workers: int = 1,
) -> TrainingSpeed:
    """Train one variant by both loops.

    Args:
        data: a data set; None for generated scenes, stored as files.
        variant: of FastSegNet.
        batch: crops per step.
        crop: (width, height), pixels.
        rounds: turns of each loop.
        steps: timed ones of a turn.
        workers: processes of the plain loop's DataLoader.
    """
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(data or write_scenes(Path(folder)), "train")
        classes = len(dataset.classes)
        resident = make_resident(ResizedDataset(dataset, None), "reading the training split")
        crops = PlainDataset(dataset, crop, Augmentation())
        decoded = DataLoader(crops, batch, shuffle=True, num_workers=workers, drop_last=True)
        plain = PlainTrainer(FastSegNet(classes, variant), decoded)
        loader = BatchLoader(BatchPlan(resident, batch, crop, Augmentation(), 0))
        turns = InTurn(loader, plain, steps)
        ours = FastSegNet(classes, variant)
        SegmentationTrainer(ours, turns, None, classes, num_epochs=rounds + 1).train()
    ours_s, plain_s = np.array(turns.ours_s), np.array(turns.plain_s)
    pairs = min(len(ours_s), len(plain_s))
    return summarise(plain_s[:pairs], ours_s[:pairs], turns.waiting_s, batch * steps)


def summarise(plain_s: Floats, ours_s: Floats, waiting_s: float, images: int) -> TrainingSpeed:
    """Return the result of turns of some images each."""
    return TrainingSpeed(
        float(np.median(images / ours_s)),
        float(np.median(images / plain_s)),
        ratio_to(plain_s, ours_s),
        waiting_s / float(ours_s.sum()),
    )


def write_scenes(folder: Path) -> str:
    """Store generated street scenes as files; return the data set's string."""
    width, height = SIZE
    scenes = open_dataset(f"synthetic:size={width}x{height},train={GENERATED}", "train")
    for part in ("images", "labels"):
        (folder / "train" / part).mkdir(parents=True)
    for index in show_progress(range(GENERATED), "drawing scenes", GENERATED):
        scene = scenes[index]
        cv2.imwrite(str(folder / f"train/images/{index}.png"), scene.image_HW3[..., ::-1])
        cv2.imwrite(str(folder / f"train/labels/{index}.png"), scene.label_HW)
    names = "".join(f"{entry.name}\n" for entry in scenes.classes)
    (folder / "classes.txt").write_text(names, "utf-8")
    return f"folder:{folder}"


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

    def __init__(self, model: nn.Module, loader: DataLoader[Any]) -> None:
        self.model = model.train()
        self.batches = chain.from_iterable(repeat(loader))
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
