"""Tiny pictures that a network learns in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_training.batches.augment import Augmentation
from fastseg_training.batches.loader import BatchLoader, BatchPlan
from fastseg_training.evaluate import EvaluationBatches
from fastseg_training.optimisation import Recipe
from fastseg_training.run_folder import RunFolder
from fastseg_training.trainer import SegmentationTrainer

from fastseg import CheckpointInfo, FastSegNet
from fastseg.data import Sample

CLASSES = (
    ClassInfo("ground", (10, 10, 10)),
    ClassInfo("disc", (200, 40, 40)),
    ClassInfo("bar", (40, 200, 40)),
)


def draw(index: int, width: int = 96, height: int = 64) -> Sample:
    """A disc and a bar on the ground; each class has its own colour, with noise."""
    rng = np.random.default_rng(index)
    y_HW, x_HW = np.mgrid[:height, :width]
    label_HW = np.zeros((height, width), np.uint8)
    x, y = rng.uniform(0.2, 0.8, 2) * (width, height)
    label_HW[np.hypot(x_HW - x, y_HW - y) < 12] = 1
    column = int(rng.integers(width - 6))
    label_HW[:, column : column + 6] = 2
    label_HW[:2] = 255
    colors = np.array([[90, 90, 90], [200, 60, 60], [60, 200, 60]])
    clean_HW3 = colors[np.where(label_HW == 255, 0, label_HW)]
    image_HW3 = (clean_HW3 + rng.normal(0, 8, clean_HW3.shape)).clip(0, 255).astype(np.uint8)
    return Sample(image_HW3, label_HW, f"scene_{index}", (f"{index}.png",))


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    return [draw(index) for index in range(12)]


@pytest.fixture(scope="session")
def classes() -> tuple[ClassInfo, ...]:
    return CLASSES


@pytest.fixture
def make_trainer(
    samples: list[Sample], classes: tuple[ClassInfo, ...]
) -> Callable[..., SegmentationTrainer]:
    """Returns a maker of trainers of FastSegNet-nano on small crops, float32, one thread."""

    def make(run: RunFolder | None = None, steps: int = 6, **options: Any) -> SegmentationTrainer:
        torch.manual_seed(0)
        loader = BatchLoader(BatchPlan(samples, 4, (64, 64), Augmentation(), 0))
        recipe = options.pop("recipe", Recipe(precision="fp32", evaluations=2, warmup_steps=2))
        model = options.pop("model", None) or FastSegNet(len(classes), "nano")
        return SegmentationTrainer(
            model,
            options.pop("train_loader", loader),
            options.pop("val_loader", EvaluationBatches(samples[:3], (96, 64))),
            len(classes),
            learning_rate=options.pop("learning_rate", 3e-3),
            num_epochs=steps / len(loader),
            recipe=recipe,
            run=run,
            **options,
        )

    return make


@pytest.fixture
def run(tmp_path: Path, classes: tuple[ClassInfo, ...]) -> RunFolder:
    (tmp_path / "run").mkdir()
    info = CheckpointInfo("nano", classes, 96, 64, trained_on="tiny train")
    return RunFolder(tmp_path / "run", info)
