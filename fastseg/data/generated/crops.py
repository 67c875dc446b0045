"""Generated fields from above: rows of crops, weeds between them, soil."""

from __future__ import annotations

import cv2
import numpy as np
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.dataset import Array
from fastseg.data.generated.noise import add_grain, clouds, noise_window
from fastseg.data.generated.procedural import ProceduralDataset, open_procedural

CLASSES = (
    ClassInfo("Soil", (120, 85, 60)),
    ClassInfo("Crop", (60, 180, 75)),
    ClassInfo("Weed", (230, 60, 60)),
)
_CROP, _WEED = 1, 2
_SOILS = ((112, 86, 64), (88, 70, 56), (142, 118, 92), (96, 88, 80))
_CROP_GREENS = ((70, 120, 70), (96, 140, 84), (80, 128, 100))
_WEED_GREENS = ((92, 124, 48), (120, 132, 60), (74, 104, 46))


def open_crops(location: str, split: str) -> ProceduralDataset:
    """Open fields of crops and weeds; location holds options as for "synthetic"."""
    return open_procedural("synthetic-crops", location, split, CLASSES, draw_crops)


def draw_crops(rng: np.random.Generator, width: int, height: int) -> tuple[Array, Array]:
    """Draw a field seen from above.

    Returns:
        image (height, width, 3) uint8 RGB and class ids (height, width) uint8.
    """
    size = float(min(width, height))
    soil_HW1 = (1 + 0.12 * clouds(rng, height, width))[..., None]
    soil_HW3 = np.clip(soil_HW1 * _SOILS[rng.integers(len(_SOILS))], 0, 255).astype(np.uint8)
    field_HW4 = cv2.merge([*cv2.split(soil_HW3), np.zeros((height, width), np.uint8)])
    leaves = int(rng.integers(4, 8))
    crop_px = size * rng.uniform(0.05, 0.1)
    green = _CROP_GREENS[rng.integers(len(_CROP_GREENS))]
    for center in _row_places(rng, width, height):
        _draw_plant(field_HW4, rng, center, crop_px, (leaves, 0.34), (*green, _CROP))
    for center in rng.uniform((0, 0), (width, height), (int(rng.integers(10, 50)), 2)):
        green = _WEED_GREENS[rng.integers(len(_WEED_GREENS))]
        shape = (int(rng.integers(3, 12)), float(rng.uniform(0.1, 0.6)))
        radius_px = size * rng.uniform(0.012, 0.05)
        _draw_plant(field_HW4, rng, center, radius_px, shape, (*green, _WEED))
    label_HW = cv2.extractChannel(field_HW4, 3)
    light_HW = rng.uniform(0.7, 1.3) * (1 + 0.1 * noise_window(rng, height, width, 2))
    image_HW3 = field_HW4[..., :3] * light_HW[..., None]
    return add_grain(rng, np.clip(image_HW3, 0, 255).astype(np.uint8), 5.0), label_HW


def _row_places(rng: np.random.Generator, width: int, height: int) -> Array:
    """Return where crops stand, (N, 2): on parallel rows, a few missing, none quite in line."""
    row_px = min(width, height) * rng.uniform(0.24, 0.4)
    plant_px = row_px * rng.uniform(0.3, 0.5)
    reach = width + height
    rows, plants = np.arange(-reach, reach, row_px), np.arange(-reach, reach, plant_px)
    grid_N2 = np.stack(np.meshgrid(rows + rng.uniform(0, row_px), plants), axis=-1).reshape(-1, 2)
    grid_N2 += rng.normal(0, 0.06 * row_px, grid_N2.shape)
    turn = rng.uniform(-0.5, 0.5)
    turn_22 = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    places_N2 = grid_N2 @ turn_22
    near = ((places_N2 > -plant_px) & (places_N2 < (width + plant_px, height + plant_px))).all(1)
    return np.asarray(places_N2[near & (rng.random(len(places_N2)) > 0.1)])


def _draw_plant(
    field_HW4: Array,
    rng: np.random.Generator,
    center_2: Array,
    radius_px: float,
    shape: tuple[int, float],
    color: tuple[int, int, int, int],
) -> None:
    """Draw leaves around a point; shape is their number and their width over their length."""
    count, slender = shape
    angle_N = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    leaf_N2 = np.stack((0.5 + 0.5 * np.cos(angle_N), 0.5 * slender * np.sin(angle_N)), axis=-1)
    first = rng.uniform(0, 2 * np.pi)
    for index in range(count):
        turn = first + 2 * np.pi * index / count + rng.normal(0, 0.15)
        turn_22 = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
        leaf = center_2 + radius_px * rng.uniform(0.7, 1.2) * leaf_N2 @ turn_22
        light = rng.uniform(0.75, 1.25)
        shaded = (*(min(value * light, 255) for value in color[:3]), color[3])
        cv2.fillPoly(field_HW4, [np.asarray(np.rint(leaf), np.int32)], shaded)
