"""Tiny pictures that a network learns in seconds."""

import numpy as np
import pytest
from fastseg_runtime.manifest import ClassInfo

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
