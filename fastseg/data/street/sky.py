"""The sky, and what closes the view at the end of the street."""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.noise import clouds, noise_window
from fastseg.data.street.buildings import WALLS
from fastseg.data.street.canvas import Canvas, Class, Color, shade
from fastseg.data.street.plants import LEAVES
from fastseg.data.street.shapes import across, outline

ZENITHS: tuple[Color, ...] = (
    (96, 140, 200),
    (150, 180, 214),
    (200, 208, 216),
    (236, 238, 240),
    (140, 146, 154),
    (60, 92, 150),
)
_BACKDROP_M = 110.0


def draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the picture down to the horizon with a gradient and clouds."""
    width = canvas.label_HW.shape[1]
    rows = round(canvas.camera.horizon_px * 1.2)  # 1.2: where the camera is tilted
    zenith = ZENITHS[rng.integers(len(ZENITHS))]
    down_H1 = np.linspace(0.0, 1.0, rows, dtype=np.float32)[:, None]
    cover_HW = clouds(rng, rows, width) / 2 + np.float32(rng.uniform(-1.0, 1.2))
    cover_HW = np.clip(cover_HW, 0.0, 1.0) * np.float32(rng.uniform(0.2, 1.0))
    white = rng.uniform(170, 255)
    for channel, (high, low) in enumerate(zip(zenith, canvas.light.haze, strict=True)):
        clear_H1 = high + (low - high) * down_H1
        canvas.image_HW3[:rows, :, channel] = clear_H1 + (white - clear_H1) * cover_HW
    canvas.label_HW[:] = Class.SKY


def draw_backdrop(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a far row of houses and trees along the horizon."""
    wooded = rng.choice((0.1, 0.5, 0.9))
    lit = canvas.light.on((0, 0, -1))
    left = -_BACKDROP_M * 1.2
    while left < _BACKDROP_M * 1.2:
        right = left + rng.uniform(6, 25)
        top = rng.uniform(2.5, 13)
        if rng.random() < wooded:
            leaf = shade(LEAVES[rng.integers(len(LEAVES))], lit)
            canvas.fill(_treetops(rng, (left, right), top), leaf, Class.TREE)
        else:
            wall = shade(WALLS[rng.integers(len(WALLS))], lit)
            house = across((left, right), _BACKDROP_M, (-1.0, top))
            canvas.fill(house, wall, Class.BUILDING)
        left = right


def _treetops(rng: np.random.Generator, x: tuple[float, float], top: float) -> Array:
    """Return the ragged outline of a row of far trees, (1, V, 3)."""
    along_m = np.arange(x[0] - 2, x[1] + 2, 0.5)
    up_m = top * (0.8 + 0.12 * noise_window(rng, 1, len(along_m), 4)[0])
    crowns = np.stack((along_m, up_m), axis=-1)
    feet = np.array([(x[1] + 2, -1.0), (x[0] - 2, -1.0)])
    return outline(np.concatenate((crowns, feet)), 0.0, _BACKDROP_M)
