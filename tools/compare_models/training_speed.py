"""Images per second of fastseg_training against the plain loop, in turn in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import cv2
import torch
from fastseg_training import SegmentationTrainer
from fastseg_training.augment import Augmentation
from fastseg_training.loader import Batch, BatchLoader, BatchPlan
from fastseg_training.progress import show_progress
from fastseg_training.resident import ResizedDataset, make_resident
from torch.utils.data import DataLoader

from compare_models.plain_loop import PlainDataset, PlainTrainer, endless
from compare_models.timing import Floats, Ratio, ratio_to
from fastseg import FastSegNet
from fastseg.data import Samples, open_dataset

GENERATED = 32  # scenes, where no data set is named
SIZE = (480, 360)  # of them: CamVid's
REST_STEPS = 4  # untimed, at the start of a turn: batches made during the other's turn


@dataclass(frozen=True)
class TrainingSpeed:
    """The result.

    Attributes:
        images_per_s: median of our turns.
        plain_images_per_s: median of the plain loop's turns.
        speedup: of turns of one round.
        waiting_share: of our time, in which the network waited for data.
    """

    images_per_s: float
    plain_images_per_s: float
    speedup: Ratio
    waiting_share: float


@dataclass
class InTurn:
    """A loader for our trainer that lets the plain loop run between two turns, and takes times.

    Attributes:
        loader: our batches.
        plain: the other loop.
        steps: timed ones of a turn.
        ours_s: seconds of our turns.
        plain_s: seconds of the plain loop's turns.
        waiting_s: seconds of our turns in which no batch was ready.
    """

    loader: BatchLoader
    plain: PlainTrainer
    steps: int
    ours_s: list[float] = field(default_factory=list)
    plain_s: list[float] = field(default_factory=list)
    waiting_s: float = 0.0

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
        plain = plain_trainer(FastSegNet(classes, variant), dataset, batch, crop, workers)
        loader = BatchLoader(BatchPlan(resident, batch, crop, Augmentation(), 0), 128.0, 64.0)
        turns = InTurn(loader, plain, steps)
        ours = FastSegNet(classes, variant)
        SegmentationTrainer(ours, turns, None, classes, num_epochs=rounds + 1).train()
    ours_s, plain_s = torch.tensor(turns.ours_s).numpy(), torch.tensor(turns.plain_s).numpy()
    pairs = min(len(ours_s), len(plain_s))
    return summarise(plain_s[:pairs], ours_s[:pairs], turns.waiting_s, batch * steps)


def summarise(plain_s: Floats, ours_s: Floats, waiting_s: float, images: int) -> TrainingSpeed:
    """Return the result of turns of some images each."""
    return TrainingSpeed(
        float(torch.tensor(images / ours_s).median()),
        float(torch.tensor(images / plain_s).median()),
        ratio_to(plain_s, ours_s),
        waiting_s / float(ours_s.sum()),
    )


def plain_trainer(
    model: FastSegNet, samples: Samples, batch: int, crop: tuple[int, int], workers: int
) -> PlainTrainer:
    """Return the plain loop around a network."""
    dataset = PlainDataset(samples, crop, Augmentation())
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True)
    return PlainTrainer(model, endless(loader))


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
