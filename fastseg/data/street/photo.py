"""From clean colours to a photograph: surface texture, vignette, exposure, blur, sensor noise."""

from __future__ import annotations

import cv2
import numpy as np

from fastseg.data.dataset import Array
from fastseg.data.noise import add_grain, noise_window
from fastseg.data.street.canvas import Class

# class -> strength of grain and of blotches, relative to brightness
TEXTURE = {
    Class.SKY: (0.0, 0.0),
    Class.BUILDING: (0.08, 0.08),
    Class.POLE: (0.04, 0.04),
    Class.ROAD: (0.04, 0.04),
    Class.PAVEMENT: (0.04, 0.05),
    Class.TREE: (0.16, 0.12),
    Class.SIGN: (0.04, 0.04),
    Class.FENCE: (0.06, 0.05),
    Class.CAR: (0.04, 0.08),
    Class.PEDESTRIAN: (0.08, 0.08),
    Class.BICYCLIST: (0.08, 0.08),
}

_GAIN_UNIT = 100  # brightness 1 as a byte
_BACKLIGHT = (0.4, 1.15)  # brightness of everything but the sky


def photograph(rng: np.random.Generator, image_HW3: Array, label_HW: Array) -> Array:
    """Return the picture as a camera would take it, (H, W, 3) uint8."""
    height, width = label_HW.shape
    gain_HW = _surface(rng, label_HW) * _vignette(rng, height, width)
    gain_HW3 = cv2.cvtColor(cv2.convertScaleAbs(gain_HW, alpha=_GAIN_UNIT), cv2.COLOR_GRAY2RGB)
    photo_HW3 = cv2.multiply(image_HW3, gain_HW3, scale=1 / _GAIN_UNIT)
    sigma_px = rng.uniform(0.0, 1.1) * height / 360
    if sigma_px > 0.3:
        photo_HW3 = cv2.GaussianBlur(photo_HW3, (0, 0), sigma_px)
    photo_HW3 = cv2.LUT(photo_HW3, _tone_curves(rng))
    return add_grain(rng, photo_HW3, rng.uniform(0.5, 6.0))


def _surface(rng: np.random.Generator, label_HW: Array) -> Array:
    """Return the brightness of every point around 1: light from behind, grain, blotches."""
    height, width = label_HW.shape
    light_K = np.full(256, rng.uniform(*_BACKLIGHT), np.float32)
    light_K[Class.SKY] = 1
    strength_2K = np.zeros((2, 256), np.float32)
    strength_2K[:, : len(TEXTURE)] = np.transpose([TEXTURE[class_id] for class_id in Class])
    strength_2K *= rng.uniform(0.3, 2.0, strength_2K.shape)  # so that texture is no give-away
    grain_HW = cv2.LUT(label_HW, strength_2K[0]) * noise_window(rng, height, width, 2)
    blotch_px = int(rng.choice((8, 16, 32)))
    blotch_HW = cv2.LUT(label_HW, strength_2K[1]) * noise_window(rng, height, width, blotch_px)
    return np.asarray(cv2.LUT(label_HW, light_K) * (1 + grain_HW + blotch_HW))


def _vignette(rng: np.random.Generator, height: int, width: int) -> Array:
    rows_H1 = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns_1W = np.linspace(-1, 1, width, dtype=np.float32)[None]
    dark, slope = rng.uniform(0.0, 0.25), rng.uniform(-0.15, 0.15)
    return np.asarray((1 + slope * rows_H1 - dark / 2 * rows_H1**2) - dark / 2 * columns_1W**2)


def _tone_curves(rng: np.random.Generator) -> Array:
    """Return exposure, contrast, gamma and white balance as (256, 1, 3) uint8."""
    exposure_3 = rng.uniform(0.7, 1.5) * rng.uniform(0.93, 1.07, 3)
    gamma, black = rng.uniform(0.75, 1.35), rng.uniform(0.0, 0.06)
    light_K13 = np.linspace(0, 1, 256)[:, None, None] * exposure_3
    curve_K13 = black + (1 - black) * np.clip(light_K13, 0, 1) ** gamma
    return np.rint(curve_K13 * 255).astype(np.uint8)
