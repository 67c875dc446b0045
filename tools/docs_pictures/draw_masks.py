"""Draw the pictures of docs/masks.md from generated scenes.

python tools/docs_pictures/draw_masks.py [FOLDER]      default: docs/images
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fastseg_runtime import masks
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import palette
from fastseg_runtime.frames.draw import overlay
from PIL import Image

from fastseg.data import open_dataset

FOLDER = Path(__file__).parents[2] / "docs/images"
SIZE = "960x480"  # of the scenes; the pictures are a third of it
COLORS = 128  # of a picture, to keep the files small
METHOD = Image.Quantize.MAXCOVERAGE  # keeps the colours of small things, such as lane lines
ROAD, CAR, MARK = 3, 8, (255, 210, 0)
SHOWN = (0, 220, 90)  # the colour of a mask


def main(folder: Path = FOLDER) -> None:
    """Write one PNG per picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (spec, index, draw) in PICTURES.items():
        scene = open_dataset(f"{spec}:{SIZE}", "val")[index]
        picture_HW3 = draw(scene.image_HW3, scene.label_HW)
        small = Image.fromarray(picture_HW3).reduce(3)
        small = small.quantize(COLORS, METHOD, dither=Image.Dither.NONE)
        small.save(folder / f"{name}.png", optimize=True)


def draw_shares(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return the coloured scene over a bar that is divided as its pixels are."""
    classes = open_dataset("synthetic", "val").classes
    colors_K3 = palette(classes)[: len(classes)]
    shares = masks.class_shares(classes_HW, len(classes))
    width = frame_HW3.shape[1]
    ends = np.round(np.cumsum(shares) * width).astype(int)
    bar_W = np.searchsorted(ends, np.arange(width), side="right")
    bar_HW3 = np.repeat(palette(classes)[bar_W][None], 45, axis=0)
    return np.concatenate([overlay(frame_HW3, classes_HW, colors_K3), bar_HW3])


def draw_region(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return all cars in grey, the largest region of them in green."""
    grey_HW3 = _tint(frame_HW3, masks.class_mask(classes_HW, CAR), (200, 200, 200))
    return _tint(grey_HW3, masks.largest_region(classes_HW, CAR))


def draw_box(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return the box around the largest region of cars."""
    picture_HW3 = draw_region(frame_HW3, classes_HW)
    box = masks.bounding_box(masks.largest_region(classes_HW, CAR))
    if box is None:
        raise ValueError("this scene has no car; choose another index in PICTURES")
    for inner in range(6):
        area = picture_HW3[box.top + inner : box.bottom - inner]
        area = area[:, box.left + inner : box.right - inner]
        area[[0, -1]] = MARK
        area[:, [0, -1]] = MARK
    return picture_HW3


def draw_soft(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return the cars before a plain background: a hard edge on the left, a soft on the right."""
    background_HW3 = np.full_like(frame_HW3, (120, 190, 230))
    halves = []
    for width_px in (1, 31):
        alpha_HW1 = masks.soft_mask(classes_HW, CAR, width_px)[..., None].astype(np.uint16)
        mixed_HW3 = frame_HW3 * alpha_HW1 + background_HW3 * (255 - alpha_HW1)
        halves.append((mixed_HW3 // 255).astype(np.uint8))
    box = masks.bounding_box(masks.largest_region(classes_HW, CAR))
    middle = frame_HW3.shape[1] // 2 if box is None else (box.left + box.right) // 2
    return np.concatenate([halves[0][:, :middle], halves[1][:, middle:]], axis=1)


def draw_drivable(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return the road with a bar over its lower end."""
    return _draw_ground(frame_HW3, masks.drivable_area(classes_HW, ROAD))


def draw_lanes(frame_HW3: Array, classes_HW: Array) -> Array:
    """Return the lane lines with a bar from the first to the last."""
    return _draw_ground(frame_HW3, masks.lane_mask(classes_HW, 1))


def _draw_ground(frame_HW3: Array, ground: masks.Ground | None) -> Array:
    if ground is None:
        raise ValueError("this scene has no such ground; choose another index in PICTURES")
    picture_HW3 = _tint(frame_HW3, ground.mask_HW)
    picture_HW3[max(ground.row - 14, 0) : ground.row + 1, ground.left : ground.right] = MARK
    return picture_HW3


def _tint(frame_HW3: Array, mask_HW: Array, color: tuple[int, int, int] = SHOWN) -> Array:
    """Return the frame with a colour over a mask."""
    ids_HW = np.where(mask_HW, 0, 255).astype(np.uint8)
    return overlay(frame_HW3, ids_HW, np.array([color], np.uint8), alpha=0.6)


Draw = Callable[[Array, Array], Array]
# Name of the file -> the generated data set, which of its scenes, what to draw.
PICTURES: dict[str, tuple[str, int, Draw]] = {
    "class_shares": ("synthetic", 8, draw_shares),
    "largest_region": ("synthetic", 8, draw_region),
    "bounding_box": ("synthetic", 8, draw_box),
    "soft_mask": ("synthetic", 8, draw_soft),
    "drivable_area": ("synthetic", 8, draw_drivable),
    "lane_mask": ("synthetic-lanes", 2, draw_lanes),
}

if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
