"""The sky, and what closes the view at the end of the street."""

from __future__ import annotations

import numpy as np

from fastseg.data.noise import clouds, noise_window
from fastseg.data.street.buildings import WALLS
from fastseg.data.street.canvas import Canvas, Class, Color, mix, shade
from fastseg.data.street.plants import LEAVES

ZENITHS: tuple[Color, ...] = (
    (96, 140, 200),
    (150, 180, 214),
    (200, 208, 216),
    (236, 238, 240),
    (140, 146, 154),
    (60, 92, 150),
)
HORIZONS: tuple[Color, ...] = ((244, 246, 248), (220, 226, 230), (206, 204, 198), (180, 190, 204))
_BACKDROP_M = 110.0


def draw_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the whole picture with a gradient and clouds."""
    height, width = canvas.label_HW.shape
    zenith, horizon = ZENITHS[rng.integers(len(ZENITHS))], HORIZONS[rng.integers(len(HORIZONS))]
    up_H1 = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    cover = rng.uniform(-1.0, 1.2)
    cloud_HW = clouds(rng, height, width) / 2 + np.float32(cover)
    cloud_HW = np.clip(cloud_HW, 0.0, 1.0) * np.float32(rng.uniform(0.2, 1.0))
    white = rng.uniform(170, 255)
    for channel in range(3):
        clear_H1 = zenith[channel] + (horizon[channel] - zenith[channel]) * up_H1
        plane_HW = clear_H1 + (white - clear_H1) * cloud_HW
        canvas.image_HW3[..., channel] = np.clip(plane_HW, 0, 255)
    canvas.label_HW[:] = Class.SKY


def draw_backdrop(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a far row of houses or trees along the horizon."""
    width = canvas.label_HW.shape[1]
    horizon_px = canvas.camera.horizon_px
    wooded = bool(rng.random() < 0.5)
    step_px = rng.uniform(0.02, 0.12) * width
    scale = canvas.camera.pixels_per_m(_BACKDROP_M)
    left = -step_px * 2
    while left < width:
        right = left + step_px * rng.uniform(0.4, 1.8)
        top = horizon_px - scale * rng.uniform(2, 14)
        color = LEAVES[rng.integers(len(LEAVES))] if wooded else WALLS[rng.integers(len(WALLS))]
        hazy = canvas.faded(shade(color, canvas.light.on((0, 0, -1))), _BACKDROP_M)
        tilt_px = canvas.camera.roll * (left - canvas.camera.center_px)
        top, bottom = top + tilt_px, horizon_px + tilt_px + 9
        shape = np.array([[(left, bottom), (left, top), (right, top), (right, bottom)]])
        canvas.fill_pixels(shape, hazy, Class.TREE if wooded else Class.BUILDING)
        left = right
    if wooded:
        _roughen(canvas, rng, round(horizon_px))


def _roughen(canvas: Canvas, rng: np.random.Generator, horizon_px: int) -> None:
    """Make the outline of far trees ragged: shift columns up and down by noise."""
    height, width = canvas.label_HW.shape
    top, bottom = max(horizon_px - height // 6, 0), min(horizon_px, height)
    if bottom <= top:
        return
    tree = canvas.label_HW[top:bottom] == Class.TREE
    ragged = noise_window(rng, bottom - top, width, 8) > 0.9
    upper = tree & ragged
    sky: Color = mix(canvas.light.haze, (255, 255, 255), 0.2)
    canvas.image_HW3[top:bottom][upper] = sky
    canvas.label_HW[top:bottom][upper] = Class.SKY
